"""Aligns the clocks of sound and picture."""
