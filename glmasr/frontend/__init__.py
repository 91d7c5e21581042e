"""Waveform in, features out; nothing here is learned."""
