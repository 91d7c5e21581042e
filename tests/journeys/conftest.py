"""The small corpus for everything that trains."""

from tests.small import corpus

__all__ = ["corpus"]
