"""Aligns the clocks of audio and video."""
