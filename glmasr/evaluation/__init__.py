"""Transcribers and test sets in, a report out."""
