"""Metrics: NumPy functions on curves that return sums, so that clips merge exactly."""
