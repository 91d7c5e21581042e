"""A bundle in, folders that other runtimes read out."""
