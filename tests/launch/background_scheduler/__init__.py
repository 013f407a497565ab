"""A scheduler of a plugin: processes of this machine that outlive the command that starts them."""

from a2fjax import registry

registry.schedulers.register("background", "background_scheduler.scheduler:Background")
