"""Where a run goes and with what: the command line over the site's profile, checked."""

from __future__ import annotations

import argparse
import dataclasses
import functools
import os
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from a2fjax.errors import InputError, nearest
from launch import schedulers
from launch.jobs import array_spec, data_pins, run_spec
from launch.jobs.run_spec import Resources, RunSpec
from launch.monitor import status
from launch.schedulers.kubernetes import run as runs_kubernetes
from launch.schedulers.local import gpu_locks
from launch.schedulers.slurm import run as runs_slurm
from launch.submission import dependencies, flags, preflight, site_profile

RETRIES = 3
MAX_REQUEUES = 50
OPTIONS: dict[str, tuple[str, ...]] = {
    "nodes": ("slurm", "kubernetes"),
    "processes": ("local", "slurm"),
    "max_parallel": ("local", "slurm"),
    "layout": ("slurm",),
    "cpus": ("slurm", "kubernetes"),
    "mem": ("slurm", "kubernetes"),
    "time": ("slurm",),
    "partition": ("slurm",),
    "account": ("slurm",),
    "qos": ("slurm",),
    "constraint": ("slurm",),
    "array_limit": ("slurm",),
    "sbatch": ("slurm",),
    "image": ("kubernetes",),
    "namespace": ("kubernetes",),
    "queue": ("kubernetes",),
    "volume": ("kubernetes",),
}
"""Options that only some backends understand."""

_MANAGED = ("PYTHONPATH", "PYTHONUNBUFFERED", "A2F_LOCAL_DEVICES")
_CPU = {"JAX_PLATFORMS": "cpu"}


@dataclasses.dataclass(frozen=True, kw_only=True)
class Place:
    """Where runs go; fields as `RunSpec`'s, `root` is the folder of all runs."""

    root: Path
    backend: str
    python: str
    resources: Resources
    environment: Mapping[str, str]
    passed: tuple[str, ...]
    options: Mapping[str, Any]
    retries: int
    max_requeues: int
    after: tuple[str, ...]

    @functools.cached_property
    def unfilled(self) -> frozenset[str]:
        """Real paths of the folders that builds and caches among `after` have yet to fill."""
        return dependencies.fills(self.after)


def choose(args: argparse.Namespace) -> Place:
    """Returns what the command line and its profile say.

    Raises:
      InputError: an option of another backend, of the wrong form, or that fits no machine.
    """
    args.backend = args.backend or "local"
    if args.backend not in schedulers.NAMES:
        raise InputError(f"--backend {args.backend}{nearest(args.backend, schedulers.NAMES)}")
    site = site_profile.read(args.profile)
    given = _given(args, args.backend)
    root = Path(args.runs).absolute()
    array_spec.utf8(str(root), "--runs")
    if os.pathsep in str(root):
        raise InputError(f"--runs {root}: holds {os.pathsep!r}, which paths of modules cannot")
    python = args.python or site.get("python")
    python = python or ("python" if args.backend == "kubernetes" else sys.executable)
    return Place(
        root=root,
        backend=args.backend,
        python=python,
        resources=_resources(given, site, args.backend, None),
        environment=site.get("environment", {}),
        passed=_passed([*site.get("pass", []), *(args.pass_ or [])]),
        options=_options(given, site, args.backend),
        retries=RETRIES if args.retries is None else args.retries,
        max_requeues=MAX_REQUEUES if args.max_requeues is None else args.max_requeues,
        after=dependencies.check(args.after or (), root),
    )


def again(args: argparse.Namespace, before: RunSpec, folder: Path) -> RunSpec:
    """Returns a specification with what the command line changes; its code and values stay.

    Raises:
      InputError: as `choose`.
    """
    backend = args.backend or before.backend
    if backend not in schedulers.NAMES:
        raise InputError(f"--backend {backend}{nearest(backend, schedulers.NAMES)}")
    given = _given(args, backend)
    # Without another profile, what was asked for before stands in for one.
    kept = {k: v for k, v in before.options.items() if v is not None}
    site = (
        site_profile.read(args.profile)
        if args.profile
        else kept
        if backend == before.backend
        else {}
    )
    resources = _resources(given, site, backend, before.resources)
    own = site.get("environment", {}) if args.profile else _own(before.environment)
    code, snap = before.code, before.snapshot
    if getattr(args, "new_code", False):
        from launch.submission import snapshot

        code, snap = snapshot.take(status.root(folder), keep=not args.dry_run)
    passed = [*before.passed, *site.get("pass", []), *(args.pass_ or [])]
    needs = dependencies.check(args.after or (), status.root(folder))
    data = before.data
    if backend != "kubernetes":
        data = data_pins.take(data, but=dependencies.fills(needs), directory=before.directory)
    options = _options(given, site, backend)
    if args.max_parallel is None:
        options["max_parallel"] = before.options.get("max_parallel")
    return dataclasses.replace(
        before,
        backend=backend,
        resources=resources,
        environment=environment(code, resources, own, here=backend != "kubernetes"),
        code=code,
        snapshot=snap,
        passed=_passed(passed),
        data=data,
        options=options,
        retries=before.retries if args.retries is None else args.retries,
        max_requeues=before.max_requeues if args.max_requeues is None else args.max_requeues,
        after=needs,
    )


def of(args: argparse.Namespace, run: RunSpec, folder: Path) -> Place:
    """Returns the place of a specification."""
    return Place(
        root=folder.parent if run_spec.is_sweep(folder) else status.root(folder),
        backend=run.backend,
        python=run.python,
        resources=run.resources,
        environment=_own(run.environment),
        passed=run.passed,
        options=run.options,
        retries=run.retries,
        max_requeues=run.max_requeues,
        after=run.after,
    )


def environment(
    code: str, resources: Resources, site: Mapping[str, str], *, here: bool
) -> dict[str, str]:
    """Returns what is set for a run's processes, the code it imports first.

    The values of other variables are never written down. Where it runs elsewhere, this machine's
    paths mean nothing.
    """
    paths = [code, *filter(None, [os.environ.get("PYTHONPATH") if here else None])]
    out = {**site, "PYTHONUNBUFFERED": "1", "PYTHONPATH": os.pathsep.join(paths)}
    array_spec.utf8(out["PYTHONPATH"], "PYTHONPATH")
    if resources.local_devices:
        out["A2F_LOCAL_DEVICES"] = str(resources.local_devices)
    if resources.cpu_devices and not resources.gpus:
        out |= _CPU | {"JAX_NUM_CPU_DEVICES": str(resources.cpu_devices)}
    return out


def _own(environment: Mapping[str, str]) -> dict[str, str]:
    cpu = "JAX_NUM_CPU_DEVICES" in environment
    managed = (*_MANAGED, *(("JAX_PLATFORMS", "JAX_NUM_CPU_DEVICES") if cpu else ()))
    return {k: v for k, v in environment.items() if k not in managed}


def _given(args: argparse.Namespace, backend: str) -> dict[str, Any]:
    given = flags.given(args, [*OPTIONS, "gpus", "cpu_devices", "max_parallel"])
    for name in given:
        if backend not in OPTIONS.get(name, schedulers.NAMES):
            where = " or ".join(OPTIONS[name])
            raise InputError(f"--{name.replace('_', '-')}: is for --backend {where}")
    for name in ("nodes", "processes", "cpus", "cpu_devices", "max_parallel", "array_limit"):
        if name in given and int(given[name]) < 1:  # type: ignore[call-overload]
            raise InputError(f"--{name.replace('_', '-')} {given[name]}: expected 1 or more")
    for name in ("gpus", "retries", "max_requeues"):
        value = getattr(args, name)
        if value is not None and value < 0:
            raise InputError(f"--{name.replace('_', '-')} {value}: expected 0 or more")
    return dict(given)


def _resources(
    given: Mapping[str, Any], site: Mapping[str, Any], backend: str, before: Resources | None
) -> Resources:
    old = before or Resources()
    slurm = backend == "slurm"
    nodes = 1 if backend == "local" else given.get("nodes", old.nodes)
    gpus = given.get("gpus", site.get("gpus") if slurm and old.gpus is None else old.gpus) or None
    layout = given.get("layout", site.get("layout", old.layout) if slurm else "per-node")
    if layout not in run_spec.LAYOUTS:
        raise InputError(f"--layout {layout}{nearest(layout, run_spec.LAYOUTS)}")
    processes = given.get("processes", old.processes if layout == old.layout else 1)
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
    if gpus and given.get("cpu_devices"):
        raise InputError("--cpu-devices: is for runs without --gpus")
    if gpus and backend == "local":
        gpu_locks.check(gpus)
    cpu_devices = None if gpus else given.get("cpu_devices", old.cpu_devices)
    if cpu_devices is None and not gpus and nodes * processes > 1:
        cpu_devices = 1
    time, mem = given.get("time", site.get("time")), given.get("mem", site.get("mem"))
    away = backend != "local"
    return Resources(
        nodes=nodes,
        gpus=gpus,
        layout=layout,
        processes=processes,
        cpu_devices=cpu_devices,
        cpus=given.get("cpus", site.get("cpus_per_node", old.cpus)) if away else None,
        mem_mib=(array_spec.memory_mib(mem) if mem else old.mem_mib) if away else None,
        minutes=(preflight.minutes(time) if time else old.minutes) if slurm else None,
    )


def _options(given: Mapping[str, Any], site: Mapping[str, Any], backend: str) -> dict[str, Any]:
    out: dict[str, Any] = {"max_parallel": given.get("max_parallel")}
    if backend == "slurm":
        out |= runs_slurm.options(given, site)
    if backend == "kubernetes":
        # What a run was submitted with stands in for a table: its options are the table's.
        kept = {k: v for k, v in site.items() if k not in (*site_profile.KEYS, "max_parallel")}
        out |= runs_kubernetes.options(given, site.get("kubernetes", kept))
    return out


def _passed(names: list[str]) -> tuple[str, ...]:
    return tuple(dict.fromkeys(site_profile.check_variable(name, "--pass") for name in names))
