"""Context and targets in, one loss out."""
