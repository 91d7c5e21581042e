"""Strings in, strings or numbers out."""
