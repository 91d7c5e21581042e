"""A training on paper in, what it needs out: memory, days, storage and money, before any of it is spent."""
