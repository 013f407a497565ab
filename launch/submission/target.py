"""The target of a job and its resources, from the command line and the site's profile."""

from __future__ import annotations

import argparse
import dataclasses
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from a2fjax.errors import InputError, nearest
from launch import schedulers
from launch.jobs import data_pins, folders, formats
from launch.jobs.spec import LAYOUTS, JobSpec, Resources
from launch.schedulers.base import Capabilities, Option, Scheduler
from launch.submission import dependencies, flags, site_profile, snapshot

MAX_REQUEUES = 50
_CODE = {
    # `python -m` would import from the working folder, usually the checkout, before PYTHONPATH.
    "PYTHONSAFEPATH": "1",
    # Snapshots hold only what their digest covers.
    "PYTHONDONTWRITEBYTECODE": "1",
}
_MANAGED = ("PYTHONPATH", "PYTHONUNBUFFERED", "A2F_LOCAL_DEVICES", *_CODE)
_CPU = {"JAX_PLATFORMS": "cpu"}


@dataclasses.dataclass(frozen=True, kw_only=True)
class Target:
    """The target of a job; other fields are those of `JobSpec`.

    Attributes:
      root: folder of all runs.
      given: options of the command line by name.
      profile: defaults for the scheduler from the site's profile.
    """

    root: Path
    scheduler: str
    python: str
    resources: Resources
    environment: Mapping[str, str]
    passed: tuple[str, ...]
    given: Mapping[str, Any]
    profile: Mapping[str, Any]
    retries: int
    max_requeues: int
    after: tuple[str, ...]

    @property
    def capabilities(self) -> Capabilities:
        """Capabilities of the scheduler."""
        return schedulers.get(self.scheduler).capabilities

    @property
    def contained(self) -> bool:
        """Whether jobs run in an image with its own interpreter and packages."""
        return schedulers.get(self.scheduler).contained({**self.profile, **self.given})

    def options(self, array: int | None = None) -> dict[str, Any]:
        """Returns the options of the scheduler, checked; `array` is the number of elements.

        Raises:
          InputError: one has the wrong form.
        """
        return schedulers.get(self.scheduler).options(
            self.given, self.profile, self.resources, array=array
        )


def choose(args: argparse.Namespace, *, arrays: bool = False, retries: int = 3) -> Target:
    """Reads the target from the command line and the profile.

    Args:
      args: parsed arguments.
      arrays: whether a build or cache is submitted rather than a run.
      retries: default of `--retries`.

    Raises:
      InputError: an option belongs to another scheduler, has the wrong form, or fits no machine.
    """
    name = args.scheduler or schedulers.DEFAULT
    scheduler = schedulers.get(name)
    values = site_profile.read(args.profile, arrays=arrays)
    given = _given(args, name, arrays=arrays)
    profile = scheduler.profile(values)
    root = Path(args.runs).absolute()
    formats.utf8(str(root), "--runs")
    if os.pathsep in str(root):
        raise InputError(f"--runs {root}: holds {os.pathsep!r}, which separates paths of modules")
    chosen = Target(
        root=root,
        scheduler=name,
        python=args.python or values.get("python") or _python(scheduler, {**profile, **given}),
        resources=_resources(given, profile, name, None, arrays=arrays),
        environment=values.get("environment", {}),
        passed=_passed([*values.get("pass", []), *(args.pass_ or [])]),
        given=given,
        profile=profile,
        retries=retries if args.retries is None else args.retries,
        max_requeues=MAX_REQUEUES if args.max_requeues is None else args.max_requeues,
        after=dependencies.check(args.after or (), root),
    )
    options = {} if arrays else chosen.options()  # Report errors before writing anything.
    _check_passed(chosen, {**profile, **options})
    return chosen


def again(args: argparse.Namespace, before: JobSpec, folder: Path) -> JobSpec:
    """Returns a specification with changes from the command line; code and values are unchanged.

    Args:
      args: parsed arguments.
      before: the specification of the last submission.
      folder: folder of the run or array.

    Raises:
      InputError: as `choose`.
    """
    name, arrays = args.scheduler or before.scheduler, bool(before.finalize)
    scheduler = schedulers.get(name)
    remote = scheduler.capabilities.remote
    if arrays and remote != schedulers.get(before.scheduler).capabilities.remote:
        raise InputError(
            f"--scheduler {name}: its jobs see other paths than those of {before.scheduler}; "
            "submit again with the paths that they see"
        )
    given = _given(args, name, arrays=arrays)
    values = site_profile.read(args.profile, arrays=arrays)
    # Without a new profile, use the options of the last submission as defaults.
    same = {k: v for k, v in before.options.items() if v is not None}
    profile = (
        scheduler.profile(values) if args.profile else same if name == before.scheduler else {}
    )
    resources = _resources(given, profile, name, before.resources, arrays=arrays)
    site = values.get("environment", {}) if args.profile else _unmanaged(before.environment)
    root = folders.root(folder)
    code, digest = before.code, before.snapshot
    if getattr(args, "new_code", False):
        plugins = list(before.config.get("plugins", ())) if before.config else []
        code, digest = snapshot.take(root, plugins=plugins, keep=not args.dry_run)
    needs = dependencies.check(args.after or (), args.runs if arrays else root)
    data = before.data
    if data and not remote:
        pending = dependencies.unfilled(needs)
        data = data_pins.digests(data, pending=pending, directory=before.directory)
    array = before.elements if arrays else None
    options = scheduler.options(given, profile, resources, array=array)
    if "max_parallel" not in given and array is None:
        options["max_parallel"] = before.options.get("max_parallel")
    if code is not None:
        variables = environment(code, resources, site, remote=remote)
    else:
        variables = dict(before.environment)
    return dataclasses.replace(
        before,
        scheduler=name,
        resources=resources,
        environment=variables,
        code=code,
        snapshot=digest,
        passed=_passed([*before.passed, *values.get("pass", []), *(args.pass_ or [])]),
        data=data,
        options=options,
        retries=before.retries if args.retries is None else args.retries,
        max_requeues=before.max_requeues if args.max_requeues is None else args.max_requeues,
        after=needs,
    )


def environment(
    code: str | None, resources: Resources, site: Mapping[str, str], *, remote: bool
) -> dict[str, str]:
    """Returns the environment variables for a job's processes.

    Args:
      code: folder that they import from first; None leaves PYTHONPATH unchanged.
      resources: resources of one element.
      site: variables of the profile.
      remote: whether they run in containers, where this machine's PYTHONPATH is not valid.
    """
    result = {**site, "PYTHONUNBUFFERED": "1"}
    if code is not None:
        paths = [code, *filter(None, [None if remote else os.environ.get("PYTHONPATH")])]
        result["PYTHONPATH"] = formats.utf8(os.pathsep.join(paths), "PYTHONPATH")
        result |= _CODE
    if resources.local_devices:
        result["A2F_LOCAL_DEVICES"] = str(resources.local_devices)
    if resources.cpu_devices and not resources.gpus:
        result |= _CPU | {"JAX_NUM_CPU_DEVICES": str(resources.cpu_devices)}
    return result


def _check_passed(chosen: Target, options: Mapping[str, Any]) -> None:
    """Checks that jobs on other machines' images get the variables of `--pass`."""
    if not chosen.capabilities.remote or options.get("secrets"):
        return
    for name in chosen.passed:
        if name not in options.get("secret_keys", {}):
            raise InputError(
                f"--pass {name}: {chosen.scheduler} takes nothing from this environment; name a "
                f'Secret in the profile: [{chosen.scheduler}] secret_keys.{name} = "SECRET/KEY"'
            )


def _python(scheduler: Scheduler, values: Mapping[str, Any]) -> str:
    """Returns the default interpreter of jobs; an image has its own."""
    return "python" if scheduler.contained(values) else scheduler.python


def _unmanaged(environment: Mapping[str, str]) -> dict[str, str]:
    """Returns the variables that came from a profile."""
    cpu = "JAX_NUM_CPU_DEVICES" in environment
    managed = (*_MANAGED, *(("JAX_PLATFORMS", "JAX_NUM_CPU_DEVICES") if cpu else ()))
    return {k: v for k, v in environment.items() if k not in managed}


def _given(args: argparse.Namespace, scheduler: str, *, arrays: bool) -> dict[str, Any]:
    """Returns the given options of the scheduler after checking their range."""
    options = flags.options()
    given = {k: getattr(args, flags.attribute(k)) for k in options if _is_given(args, k)}
    schedulers.check_options(list(given), scheduler, arrays=arrays)
    for name, value in given.items():
        _check_least(options[name], value)
    for name in ("retries", "max_requeues"):
        value = getattr(args, name)
        if value is not None and value < 0:
            raise InputError(f"--{name.replace('_', '-')} {value}: expected 0 or more")
    return given


def _is_given(args: argparse.Namespace, name: str) -> bool:
    return getattr(args, flags.attribute(name), None) not in (None, [])


def _check_least(option: Option, value: Any) -> None:
    if option.kind is int and value < option.least:
        raise InputError(f"{option.flag} {value}: expected {option.least} or more")


def _resources(
    given: Mapping[str, Any],
    profile: Mapping[str, Any],
    scheduler: str,
    before: Resources | None,
    *,
    arrays: bool,
) -> Resources:
    """Returns the resources of an element, with defaults for options the scheduler lacks."""
    old = before or Resources()
    names = {o.name for o in schedulers.get(scheduler).flags if (o.arrays if arrays else o.runs)}

    def value(name: str, key: str, otherwise: Any) -> Any:
        if name not in names:
            return getattr(Resources(), key, None)
        return given.get(name, otherwise)

    nodes = value("nodes", "nodes", old.nodes)
    gpus = value("gpus", "gpus", profile.get("gpus") if old.gpus is None else old.gpus) or None
    layout = value("layout", "layout", profile.get("layout", old.layout))
    if layout not in LAYOUTS:
        raise InputError(f"--layout {layout}{nearest(layout, LAYOUTS)}")
    default = old.processes if "processes" in names and layout == old.layout else 1
    processes = _processes(given, gpus, layout, default)
    if gpus and given.get("cpu_devices"):
        raise InputError("--cpu-devices: is for runs without --gpus")
    cpu_devices = None if gpus else value("cpu_devices", "cpu_devices", old.cpu_devices)
    if cpu_devices is None and not gpus and nodes * processes > 1:
        cpu_devices = 1
    cpus = value("cpus", "cpus", profile.get("cpus_per_node", old.cpus))
    mem = given.get("mem", profile.get("mem") if "mem" in names else None)
    time = given.get("time", profile.get("time") if "time" in names else None)
    return Resources(
        nodes=nodes,
        gpus=gpus,
        layout=layout,
        processes=processes,
        cpu_devices=cpu_devices,
        cpus=cpus or (1 if arrays else None),
        mem_mib=formats.memory_mib(mem) if mem else old.mem_mib if "mem" in names else None,
        minutes=formats.minutes(time) if time else old.minutes if "time" in names else None,
    )


def _processes(given: Mapping[str, Any], gpus: int | None, layout: str, default: int) -> int:
    """Returns the number of processes on each machine."""
    processes = given.get("processes", default)
    if layout == "per-gpu":
        if not gpus:
            raise InputError("--layout per-gpu: needs --gpus, those of each machine")
        if given.get("processes", gpus) != gpus:
            raise InputError(
                f"--processes {given['processes']}: --layout per-gpu makes {gpus}, one for each GPU"
            )
        processes = gpus
    if gpus and gpus % processes:
        fits = max(n for n in range(1, gpus + 1) if gpus % n == 0 and n <= processes)
        raise InputError(
            f"--processes {processes}: does not divide --gpus {gpus}; the nearest below that does "
            f"is {fits}"
        )
    return int(processes)


def _passed(names: Sequence[str]) -> tuple[str, ...]:
    return tuple(dict.fromkeys(site_profile.check_variable(name, "--pass") for name in names))
