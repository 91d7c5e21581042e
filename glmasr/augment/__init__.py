"""Damages speech on purpose; what comes out has the type that went in."""
