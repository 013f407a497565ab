"""The command `submit --sweep`: one run per trial, submitted as one job."""

from __future__ import annotations

import argparse
import dataclasses
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path

from a2fjax import configuration, errors
from a2fjax.configuration import Resolved
from a2fjax.errors import InputError
from launch.jobs import folders, formats, record
from launch.jobs.spec import JobSpec
from launch.submission import pin, preflight
from launch.submission import submit as submission
from launch.submission.target import Target
from launch.sweeps import Trial, parse, sweep


@dataclasses.dataclass(frozen=True)
class _Planned:
    """A trial of the given sweep.

    Attributes:
      name: name of its run, unless another trial has the same.
      trial: its values by key.
      key: digest of the trial.
      overrides: all values that differ from the experiment, as text.
      resolved: its configuration.
    """

    name: str
    trial: Trial
    key: str
    overrides: Mapping[str, str]
    resolved: Resolved

    @property
    def identity(self) -> tuple[str, str]:
        """Key that is equal for trials with the same values of the same configuration."""
        return self.key, configuration.fingerprint(self.resolved.config)


def submit(
    args: argparse.Namespace,
    overrides: Mapping[str, str],
    chosen: Target,
    program: Sequence[str] | None,
) -> int:
    """Submits the new trials of a sweep; returns the exit code.

    Args:
      args: parsed arguments.
      overrides: values that all trials share.
      chosen: target of the runs.
      program: command of the runs in place of `a2fjax`.

    Raises:
      InputError, WorkFailed: as `runs.submit`.
    """
    planned = _planned(args, overrides)
    preflight.configurations([one.resolved for one in planned], chosen)
    if args.check_compile:
        print(preflight.compiles(chosen, args.experiment, overrides), file=sys.stderr)
    lead = formats.slug_words(planned[0].resolved.config.name)
    digest = configuration.digest([one.identity for one in planned])[:8]
    name = folders.check_name(args.name or f"{lead}-sweep-{digest}")
    with folders.exclusive(chosen.root, name, dry_run=args.dry_run) as release:
        entries, indices = _grown(args, chosen, program, name, planned)
        if not indices:
            return errors.EXIT_OK
        job = submission.run_job(chosen.root / name, chosen.root, entries, indices)
        return submission.submit_with_flags(args, job, release)


def _planned(args: argparse.Namespace, overrides: Mapping[str, str]) -> list[_Planned]:
    """Returns the trials of `--sweep` with their configurations, without repetitions."""
    trials = parse.parse(args.sweep, report=lambda line: print(line, file=sys.stderr))
    planned: dict[tuple[str, str], _Planned] = {}
    for name, trial in zip(sweep.names(trials), trials, strict=True):
        texts = {**overrides, **sweep.overrides(trial)}
        resolved = configuration.load(args.experiment, texts)
        one = _Planned(name, trial, sweep.key(trial), texts, resolved)
        planned.setdefault(one.identity, one)
    return list(planned.values())


def _grown(
    args: argparse.Namespace,
    chosen: Target,
    program: Sequence[str] | None,
    name: str,
    planned: Sequence[_Planned],
) -> tuple[list[tuple[Path, JobSpec]], list[int]]:
    """Returns all runs of a sweep, earlier ones first, and the indices of the new ones, from 1."""
    folder = chosen.root / name
    if not record.is_sweep(folder):
        folders.new(chosen.root, name)
    before = record.trials(folder) if record.is_sweep(folder) else []
    entries = {run.name: (run, record.read(run)) for run in before}
    known = {(spec.key, spec.fingerprint) for _, spec in entries.values()}
    keys = {spec.key for _, spec in entries.values()}
    plugins = pin.plugins(*(one.resolved for one in planned))
    pins = pin.pins(chosen, program, plugins=plugins, dry_run=args.dry_run)
    indices: list[int] = []
    for one in planned:
        if one.identity in known:
            continue
        if one.key in keys:
            raise InputError(
                f"--name {name}: its run of {one.trial} has another configuration; take another "
                "name"
            )
        run_name = folders.check_name(one.name)
        # Names are short: if another trial has the same, append the key.
        run_name = f"{run_name}-{one.key[:8]}" if run_name in entries else run_name
        run = folder / run_name
        spec = pins.training(run, str(args.experiment), one.resolved, one.overrides)
        spec = dataclasses.replace(spec, sweep=name, trial=one.trial, key=one.key)
        entries[run_name] = (run, spec)
        indices.append(len(entries))
    if before:
        print(
            f"{name}: {len(planned) - len(indices)} of {len(planned)} runs exist already; "
            "`submit.py retry` runs again those that did not succeed",
            file=sys.stderr if args.dry_run else sys.stdout,
        )
    return list(entries.values()), indices
