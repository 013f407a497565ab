"""Registers the capture layout "arkit_npy"."""

from a2fjax import registry

registry.sources.register("arkit_npy", "a2f_example_source.source")
