"""Inference: predicts motion with a trained run for clips, long recordings and live audio."""
