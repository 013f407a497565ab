"""The commands `submit`, `run` and `resume`: a training run, or another command as a run."""

from __future__ import annotations

import argparse
import dataclasses
import itertools
import json
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path

from a2fjax import configuration, errors
from a2fjax.cli.main import COMMANDS
from a2fjax.errors import InputError, nearest
from a2fjax.training import run_dir
from launch.commands import sweep
from launch.jobs import folders, formats, outcome, record
from launch.jobs.spec import JobSpec
from launch.monitor import states
from launch.submission import paths, pin, preflight, target
from launch.submission import submit as submission

Release = Callable[[], None]


def submit(args: argparse.Namespace, extra: list[str], program: Sequence[str] | None) -> int:
    """Runs `submit`; returns the exit code.

    Args:
      args: parsed arguments.
      extra: overrides `--config.key=value`.
      program: command of the run in place of `a2fjax`.

    Raises:
      InputError: an error in the input, detected before anything is queued.
      WorkFailed: the scheduler does not answer.
    """
    overrides = configuration.parse_overrides(extra)
    chosen = target.choose(args)
    if args.sweep is not None:
        return sweep.submit(args, overrides, chosen, program)
    resolved = configuration.load(args.experiment, overrides)
    preflight.configurations([resolved], chosen)
    if args.check_compile:
        print(preflight.compiles(chosen, args.experiment, overrides), file=sys.stderr)
    lead = formats.slug_words(resolved.config.name)
    # Without a name, hold the prefix of generated names.
    held = folders.check_name(args.name or lead)
    with folders.exclusive(chosen.root, held, dry_run=args.dry_run) as release:
        name = folders.check_name(args.name or _unused_name(chosen.root, lead))
        folder = folders.new(chosen.root, name)
        pins = pin.pins(chosen, program, plugins=pin.plugins(resolved), dry_run=args.dry_run)
        spec = pins.training(folder, str(args.experiment), resolved, overrides)
        return _submit(args, folder, spec, release)


def run(args: argparse.Namespace, words: Sequence[str]) -> int:
    """Runs `run`: any other command of a2fjax as a run.

    Args:
      args: parsed arguments.
      words: the command after "--".

    Raises:
      InputError, WorkFailed: as `submit`.
    """
    form = "submit.py run NAME [options] -- a2fjax evaluate RUN"
    if len(words) < 2 or words[0] != "a2fjax":
        raise InputError(f"run {args.name}: expected a command behind --, such as {form}")
    if words[1] not in COMMANDS:
        raise InputError(f"a2fjax {words[1]}: no such command{nearest(words[1], COMMANDS)}")
    if words[1] == "train":
        raise InputError("a2fjax train: is started with `submit.py submit EXPERIMENT`")
    chosen = target.choose(args)
    preflight.visible(chosen, paths.of_words(words[2:]))
    name = folders.check_name(args.name, "NAME")
    with folders.exclusive(chosen.root, name, dry_run=args.dry_run) as release:
        folder = folders.new(chosen.root, name)
        spec = pin.pins(chosen, None, dry_run=args.dry_run).command(folder, words[1:])
        return _submit(args, folder, spec, release)


def resume(args: argparse.Namespace, extra: list[str]) -> int:
    """Runs `resume`: continues a run from its last checkpoint.

    Args:
      args: parsed arguments.
      extra: overrides `--config.key=value` of keys that may change.

    Raises:
      InputError, WorkFailed: as `submit`; the run is active, or a key may not change.
    """
    folder = folders.find(args.out, args.runs)
    if record.is_sweep(folder):
        raise InputError(f"{args.out}: is a sweep; use `submit.py retry`, or resume SWEEP/TRIAL")
    with folders.exclusive(*folders.named(folder), dry_run=args.dry_run) as release:
        before = record.read(folder)
        state = states.one(folder)
        if state.active:
            raise InputError(f"{before.id}: is {state.name}; `submit.py cancel` stops it")
        spec = _continued(args, configuration.parse_overrides(extra), before, folder)
        if state.name == outcome.DONE and not extra:
            print(f"{before.id}: is done; more steps are --config.steps=N")
            return errors.EXIT_OK
        return _submit(args, folder, spec, release)


def _continued(
    args: argparse.Namespace, overrides: dict[str, str], before: JobSpec, folder: Path
) -> JobSpec:
    """Returns the specification with which a run goes on, checked."""
    spec = target.again(args, before, folder)
    if overrides:
        if before.config is None:
            raise InputError(f"{before.id}: is no training and has no --config.{[*overrides][0]}")
        resolved = configuration.load(record.launch(folder) / "config.json", overrides)
        if not args.new_code:
            # The run imports plugins from its snapshot, even if they have changed since.
            resolved = dataclasses.replace(resolved, plugins=dict(before.config.get("plugins", {})))
        run_dir.check(folder, resolved)
        spec = dataclasses.replace(
            spec,
            config=json.loads(resolved.to_json()),
            overrides={**before.overrides, **overrides},
        )
    if spec.config is not None:
        preflight.again(spec)
    return spec


def _unused_name(root: Path, lead: str) -> str:
    """Returns a unique name for an unnamed run; several may be submitted within a second."""
    name = f"{lead}-{time.strftime('%Y%m%d-%H%M%S', time.gmtime())}"
    names = itertools.chain([name], (f"{name}-{i}" for i in itertools.count(2)))
    return next(text for text in names if not (root / text).exists())


def _submit(args: argparse.Namespace, folder: Path, spec: JobSpec, release: Release) -> int:
    job = submission.run_job(folder, folders.root(folder), [(folder, spec)], None)
    return submission.submit_with_flags(args, job, release)
