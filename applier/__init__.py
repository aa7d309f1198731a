"""A parallel replay applier for MySQL."""
