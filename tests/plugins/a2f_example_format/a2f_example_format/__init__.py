"""Registers the file format ".curves.txt"."""

from a2fjax import registry

registry.writers.register(".curves.txt", "a2f_example_format.curves:CurvesFormat")
