"""The only room that knows Lightning: batches in, bundles out."""
