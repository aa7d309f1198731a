"""Measurements: replay against the stock replica, balanced speed, the pipeline and its kernels alone."""
