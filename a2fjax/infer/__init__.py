"""Inference: a run becomes a predictor of motion, for clips, long recordings and live audio."""
