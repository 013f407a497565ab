"""Training: the jitted step, the training loop, checkpoints and the run folder."""
