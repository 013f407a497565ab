"""One clock for sound and picture."""
