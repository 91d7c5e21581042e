"""Corpora on disk in, batches out."""
