"""Checks a training run on submission, before it waits in a queue for hours."""

from __future__ import annotations

import json
import math
import os
import subprocess
import sys
from collections.abc import Collection, Mapping, Sequence
from pathlib import Path

from a2fjax import configuration as config_lib
from a2fjax import progress
from a2fjax.configuration import Config, Resolved, ShardingConfig, check_schedule
from a2fjax.data import records
from a2fjax.errors import EXIT_OK, InputError, WorkFailed
from a2fjax.sharding import mesh_shape
from a2fjax.training import preflight as training_preflight
from launch import schedulers
from launch.jobs.formats import last_line
from launch.jobs.spec import JobSpec, Resources
from launch.submission import dependencies, paths, preflight_features
from launch.submission.snapshot import CODE
from launch.submission.target import Target


def configurations(resolved_all: Sequence[Resolved], target: Target) -> None:
    """Checks the configurations of a submission; shared values are checked once.

    Raises:
      InputError: as `training`.
    """
    checked = set()
    for resolved in resolved_all:
        config = resolved.config
        schedule = (config.steps, config.optim.warmup_steps)
        shared = (config.data, config.eval, config.sharding, config.audio.features)
        text = repr((*shared, config.init_from, config.loss.sync_runs, schedule))
        if text not in checked:
            checked.add(text)
            training(
                resolved,
                target.resources,
                remote=target.capabilities.remote,
                dependent=bool(target.after),
                unfilled=dependencies.unfilled(target.after),
            )
            visible(target, paths.of_config(json.loads(resolved.to_json())["config"]))


def visible(target: Target, reads: Sequence[str]) -> None:
    """Checks that remote jobs can see the paths that they read, and the folder of all runs.

    Raises:
      InputError: a path is not absolute, or lies where jobs see nothing of this machine.
    """
    if target.capabilities.remote:
        scheduler = schedulers.get(target.scheduler)
        scheduler.with_paths(target.options(), reads, [str(target.root)])


def again(spec: JobSpec) -> None:
    """Checks the configuration of a resubmitted training run.

    Raises:
      InputError: as `training`.
    """
    training(
        config_lib.from_json(json.dumps(spec.config)),
        spec.resources,
        remote=schedulers.get(spec.scheduler).capabilities.remote,
        dependent=bool(spec.after),
        unfilled=dependencies.unfilled(spec.after),
    )


def training(
    resolved: Resolved,
    resources: Resources,
    *,
    remote: bool,
    dependent: bool,
    unfilled: Collection[str],
) -> None:
    """Checks a configuration and its files against the machines that will run it.

    Args:
      resolved: the configuration.
      resources: resources of the run.
      remote: whether paths are those of a container, which this machine cannot check.
      dependent: whether the run has dependencies, which may create files that are missing now.
      unfilled: real paths of datasets that dependencies have yet to write; they are not checked.

    Raises:
      InputError: names the key, the expected value and the nearest valid one.
    """
    config = resolved.config
    check_schedule(config.optim, config.steps)
    batch(config, resources)
    if remote:
        for folder in config.data.shards:
            preflight_features.absolute(folder, "config: data.shards", remote)
        if config.init_from:
            preflight_features.absolute(config.init_from, "config: init_from", remote)
        for key, run in _experts(config):
            preflight_features.absolute(run, f"config: {key}", remote)
        for feature in config.audio.features:
            path = feature.partition(":")[2]
            if path and not preflight_features.HUB_NAME.fullmatch(path):
                preflight_features.absolute(path, f"config: audio.features: {feature}", remote)
    else:
        there = [s for s in config.data.shards if os.path.realpath(s) not in unfilled]
        if len(there) == len(config.data.shards):
            training_preflight.check_shards(config)
        else:
            for folder in there:
                records.read_manifest(folder)
        start = config.init_from
        if start and not dependent and not (Path(start) / "config.json").is_file():
            raise InputError(f"config: init_from={start!r}: is no run (it has no config.json)")
        for key, run in () if dependent else _experts(config):
            if not (Path(run) / "config.json").is_file():
                raise InputError(f"config: {key}={run!r}: is no run (it has no config.json)")


def _experts(config: Config) -> list[tuple[str, str]]:
    """Returns the key of each sync expert that the loss reads, and its run folder."""
    loss = config.loss
    beside = [("loss.sync_adversary", loss.sync_adversary)] if loss.sync_adversary else []
    return [*(("loss.sync", run) for run in loss.sync), *beside]


def batch(config: Config, resources: Resources) -> None:
    """Checks that the device mesh fits the devices and that they divide the batch.

    This is the check of `a2fjax.sharding.device_mesh` without jax, which a login node may lack.

    Raises:
      InputError: names the key and the nearest valid value.
    """
    mesh = ShardingConfig() if config.sharding.preset else config.sharding
    used = math.prod(mesh_shape.shape(mesh, resources.devices, hosts=resources.hosts))
    mesh_shape.check_batch(
        config.data.batch_size, used, hosts=resources.hosts, accumulate=config.accumulate
    )


def compiles(target: Target, experiment: str, overrides: Mapping[str, str]) -> str:
    """Compiles the training step for simulated devices; returns the last line printed.

    Args:
      target: target of the run.
      experiment: experiment file, as in `configuration.load`.
      overrides: `--config.` values by key.

    Raises:
      InputError: it does not compile; the message is that of `a2fjax inspect`.
      WorkFailed: it took too long.
    """
    devices = target.resources.devices
    words = ["-m", "a2fjax.cli.main", "inspect", experiment, "--devices", f"cpu:{devices}"]
    words += [f"--config.{k}={v}" for k, v in overrides.items()]
    paths = [str(CODE), *filter(None, [os.environ.get("PYTHONPATH")])]
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(paths)}
    try:
        with progress.shown("--check-compile: compiling here"):
            done = subprocess.run(
                [sys.executable if target.contained else target.python, *words],
                capture_output=True,
                text=True,
                env=environment,
                timeout=1800,
                check=False,
            )
    except subprocess.TimeoutExpired:
        raise WorkFailed("--check-compile: did not end within 30 minutes") from None
    if done.returncode != EXIT_OK:
        raise InputError(f"--check-compile: {last_line(done.stderr or done.stdout)}")
    return last_line(done.stdout)
