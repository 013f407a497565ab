"""Reads bundles, the portable form of a run; `a2fjax.export` writes them.

manifest   a2fjax.json: what is in the bundle, and whether its files are unchanged
weights    model.safetensors ↔ variables of a model
"""
