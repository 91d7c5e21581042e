"""Scores in, hypotheses out."""
