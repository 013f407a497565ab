"""Schedulers, which run jobs. Each is a package with a class that implements `base.Scheduler`.

`a2fjax.registry.schedulers` lists them by name. A plugin registers its scheduler on import:

    from a2fjax import registry

    registry.schedulers.register("mine", "my_package.scheduler:MyScheduler")
"""

from __future__ import annotations

from typing import cast

from a2fjax import registry
from a2fjax.errors import InputError
from launch.schedulers.base import Scheduler

DEFAULT = "local"
registry.schedulers.register("local", "launch.schedulers.local.scheduler:Local")
registry.schedulers.register("slurm", "launch.schedulers.slurm.scheduler:Slurm")
registry.schedulers.register("kubernetes", "launch.schedulers.kubernetes.scheduler:Kubernetes")


def names() -> list[str]:
    """Returns the names of all schedulers, sorted."""
    return registry.schedulers.names()


def get(name: str) -> Scheduler:
    """Returns a scheduler.

    Raises:
      InputError: none is registered under the name; suggests the nearest.

    Example:
        >>> get("slurm").capabilities.queues_dependencies
        True
    """
    return cast(Scheduler, registry.schedulers.get(name, where="--scheduler: ").load()())


def supporting(option: str, *, arrays: bool) -> list[str]:
    """Returns the names of the schedulers that support an option, for arrays or for runs."""
    return [
        name
        for name in names()
        if any(o.name == option and (o.arrays if arrays else o.runs) for o in get(name).flags)
    ]


def check_options(given: list[str], name: str, *, arrays: bool) -> None:
    """Checks that a scheduler supports the given options.

    Raises:
      InputError: it does not; lists the schedulers that do.
    """
    for option in given:
        others = supporting(option, arrays=arrays)
        if name in others:
            continue
        flag = f"--{option.replace('_', '-')}"
        if not others:
            raise InputError(f"{flag}: is for {'runs' if arrays else 'builds and caches'}")
        raise InputError(f"{flag}: is for --scheduler {' or '.join(others)}")
