"""Registers the metric "jerk"."""

from a2fjax import registry

registry.metrics.register("jerk", "a2f_example_metric.jerk:Jerk")
