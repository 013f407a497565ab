"""Maps (seed, step, host) to batches: records, windows, augmentation, loader."""
