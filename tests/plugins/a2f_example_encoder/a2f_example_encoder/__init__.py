"""Registers the speech encoder "filters"."""

from a2fjax import registry

registry.encoders.register("filters", "a2f_example_encoder.encoder:FilterEncoder")
