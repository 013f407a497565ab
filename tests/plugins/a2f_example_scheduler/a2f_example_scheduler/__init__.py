"""Registers the scheduler "nice"."""

from a2fjax import registry

registry.schedulers.register("nice", "a2f_example_scheduler.nice:Nice")
