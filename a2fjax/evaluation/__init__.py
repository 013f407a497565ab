"""Evaluation: metrics of whole held-out clips, beside baselines and altered conditions."""
