"""(seed, step, host) to batch: records, windows, augmentation, loader."""
