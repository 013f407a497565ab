"""What can be told at the desk about a training, before it waits in a queue for hours."""

from __future__ import annotations

import math
import os
import re
import subprocess
from collections.abc import Collection, Mapping
from pathlib import Path

from a2fjax.cli import train
from a2fjax.config import Config, Resolved, ShardingConfig, check_schedule
from a2fjax.data import records
from a2fjax.errors import EXIT_OK, InputError, WorkFailed
from a2fjax.sharding import mesh_shape
from launch.jobs import array_spec
from launch.jobs.run_spec import Resources
from launch.schedulers import last_line

_UNITS = {"m": 1, "h": 60, "d": 1440}


def minutes(text: str) -> int:
    """Returns minutes, rounded up, of "90m", "24h", "2d" and Slurm's m, m:s, h:m:s, d-h, d-h:m:s.

    Raises:
      InputError: of another form.
    """
    short = re.fullmatch(r"(\d+)([mhd])", text)
    if short:
        total = float(int(short[1]) * _UNITS[short[2]])
    else:
        try:
            total = array_spec.minutes(text)
        except InputError as error:
            raise InputError(f"{error}, or such as 24h") from None
    if not total:
        raise InputError(f"--time {text}: expected more than nothing")
    return math.ceil(total)


def training(
    resolved: Resolved,
    resources: Resources,
    *,
    here: bool,
    chained: bool,
    unfilled: Collection[str],
) -> None:
    """Checks a configuration against the machines it is to run on, and its files.

    Args:
      resolved: what is to be trained.
      resources: where.
      here: whether paths are those of this machine rather than of a container.
      chained: whether other work goes before it and may make what is missing now.
      unfilled: real paths of shards that are not looked at, as that work has yet to make them.

    Raises:
      InputError: names the key, what was expected and the nearest that fits.
    """
    config = resolved.config
    check_schedule(config.optim, config.steps)
    batch(config, resources)
    if not here:
        for folder in config.data.shards:
            if not folder.startswith("/"):
                raise InputError(
                    f"config: data.shards: {folder}: expected the absolute path inside the "
                    "containers"
                )
    if here:
        there = [s for s in config.data.shards if os.path.realpath(s) not in unfilled]
        if len(there) == len(config.data.shards):
            train.check_shards(config)
        else:
            for folder in there:
                records.read_manifest(folder)
        start = config.init_from
        if start and not chained and not (Path(start) / "config.json").is_file():
            raise InputError(f"config: init_from={start!r}: no run is there (no config.json)")


def batch(config: Config, resources: Resources) -> None:
    """Checks that the mesh fits the devices and the batch can be cut evenly.

    As `a2fjax.sharding.mesh` does once the devices are there; no jax on a login node.

    Raises:
      InputError: names the key and what would fit.
    """
    mesh = ShardingConfig() if config.sharding.preset else config.sharding
    used = math.prod(mesh_shape.shape(mesh, resources.devices, hosts=resources.hosts))
    mesh_shape.check_batch(
        config.data.batch_size, used, hosts=resources.hosts, accumulate=config.accumulate
    )


def compiles(
    python: str, code: str, experiment: str, overrides: Mapping[str, str], devices: int
) -> str:
    """Has `a2fjax inspect` compile the training step for so many devices; returns its last line.

    Raises:
      InputError: it does not compile; the message is the command's.
      WorkFailed: it took too long.
    """
    words = ["-m", "a2fjax.cli.main", "inspect", experiment, "--devices", f"cpu:{devices}"]
    words += [f"--config.{k}={v}" for k, v in overrides.items()]
    paths = [code, *filter(None, [os.environ.get("PYTHONPATH")])]
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(paths)}
    try:
        found = subprocess.run(
            [python, *words],
            capture_output=True,
            text=True,
            env=environment,
            timeout=1800,
            check=False,
        )
    except subprocess.TimeoutExpired:
        raise WorkFailed("--check-compile: did not end within 30 minutes") from None
    if found.returncode != EXIT_OK:
        raise InputError(f"--check-compile: {last_line(found.stderr or found.stdout)}")
    return last_line(found.stdout)
