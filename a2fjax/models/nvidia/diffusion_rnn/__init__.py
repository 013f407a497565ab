"""NVIDIA's diffusion network `diffusion_rnn` (models v3.0)."""
