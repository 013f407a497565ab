"""NVIDIA's regression network `conv_w2v_autocorr` (models v2.3)."""
