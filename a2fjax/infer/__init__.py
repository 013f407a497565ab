"""Audio in, curves out: a run becomes a predictor, for clips and for recordings of any length."""
