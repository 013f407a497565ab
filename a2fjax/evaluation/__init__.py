"""Evaluation: metrics on whole held-out clips, with baselines and altered conditions."""
