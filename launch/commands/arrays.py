"""The commands `build` and `cache`: arrays of elements with a last command."""

from __future__ import annotations

import argparse
import dataclasses
import os
import posixpath
from collections.abc import Sequence
from pathlib import Path

from a2fjax import configuration, registry
from a2fjax.configuration import Resolved
from a2fjax.errors import InputError
from data_pipeline import settings as pipeline_settings
from data_pipeline import sources
from launch import schedulers
from launch.jobs import folders, formats, record
from launch.monitor import states
from launch.submission import dependencies, flags, paths, pin, preflight_features, target
from launch.submission import submit as submission
from launch.submission.target import Target

PROGRAMS = {
    "build": ("-m", "data_pipeline.build"),
    "cache": ("-m", "a2fjax.cli.main", "cache"),
}
"""Program of an element of each command, after the interpreter."""

RETRIES = 2


@dataclasses.dataclass(frozen=True, kw_only=True)
class _Work:
    """The work of a build or cache, checked to the extent possible on this machine.

    Attributes:
      name: name for queues.
      output: folder that the work fills.
      words: arguments of the program.
      settings: `--config.` values.
      reads: paths that a container must be able to read.
      writes: paths that it must be able to write.
      plugins: packages whose code the work imports.
      config: configuration that the program reads; None if its arguments say all.
      most: largest useful number of elements; None if unknown.
    """

    name: str
    output: str
    words: tuple[str, ...]
    settings: dict[str, str]
    reads: tuple[str, ...]
    writes: tuple[str, ...]
    plugins: tuple[str, ...] = ()
    config: Resolved | None = None
    most: int | None = None


def submit(args: argparse.Namespace, extra: list[str], program: Sequence[str] | None) -> int:
    """Runs `build` or `cache`; returns the exit code.

    Args:
      args: parsed arguments.
      extra: overrides `--config.key=value`.
      program: program of the elements in place of the project's own.

    Raises:
      InputError: an error in the input, detected before anything is queued.
    """
    chosen = target.choose(args, arrays=True, retries=RETRIES)
    work = (_build if args.command == "build" else _cache)(args, extra, chosen)
    count = _count(args, work, chosen)
    chosen.options(count)  # Report errors before writing anything.
    folder = _record_folder(args, work.output)
    # The record of a remote job stays on this machine.
    record_ = [] if chosen.capabilities.remote else [str(folder)]
    dependencies.pending(chosen.after)
    with folders.exclusive(folder, "array", dry_run=args.dry_run) as release:
        if not args.dry_run:
            check_idle(folder)
        words = [*work.words, *(f"--config.{k}={v}" for k, v in work.settings.items())]
        pins = pin.pins(
            chosen,
            program or PROGRAMS[args.command],
            plugins=work.plugins,
            dry_run=args.dry_run,
            array=(folder, count),
        )
        spec = pins.array(
            folder, work.output, words, name=work.name, elements=count, config=work.config
        )
        (spec,) = paths.visible([spec], [*work.writes, *record_], work.reads)
        job = submission.array_job(folder, spec, range(1, count + 1))
        return submission.submit_with_flags(args, job, release)


def check_idle(folder: Path) -> None:
    """Checks that no element of an array's last submission runs or waits.

    Raises:
      InputError: an element does.
    """
    before = record.submission(folder)
    if before is None:
        return
    members = record.members(folder)
    active = {m: s for m, s in states.query(members).items() if s.active}
    starts_finalize = schedulers.get(before.scheduler).capabilities.starts_finalize
    if not starts_finalize and [s.name for s in active.values()] == ["waiting"]:
        active.pop(record.finalize(folder), None)  # It was never started.
    if active:
        raise InputError(
            f"{record.read(folder).id}: {len(active)} of {len(members)} run or wait "
            f"({before.scheduler} job {before.job}); `submit.py cancel` stops them"
        )


def _build(args: argparse.Namespace, extra: list[str], chosen: Target) -> _Work:
    if (args.workers or 0) < 0:
        raise InputError(f"--workers {args.workers}: expected 0 or more")
    values = configuration.parse_overrides(extra)
    # Report mistyped settings here rather than in the queue.
    settings = pipeline_settings.read_settings(values)
    if not chosen.capabilities.remote:
        registry.load_plugins(settings.plugins)
    if not (chosen.capabilities.remote and settings.plugins):
        sources.check_layout(args.layout)  # otherwise a plugin in the image may register it
    remote = chosen.capabilities.remote
    source, output = _path(args.input, "INPUT", remote), _path(args.out, "--out", remote)
    # The captures may be the output of a dependency.
    if not remote and not chosen.after and not Path(source).exists():
        raise InputError(f"{args.input}: does not exist")
    if not remote and Path(output).exists() and not Path(output).is_dir():
        raise InputError(f"--out {args.out}: is not a folder")
    workers = args.workers if args.workers is not None else flags.value(args, "cpus")
    if workers is None and not chosen.capabilities.foreground:
        workers = 1
    words = [source, "--out", output, "--layout", args.layout]
    words += [] if workers is None else ["--workers", str(workers)]
    return _Work(
        name=f"build-{Path(output).name}",
        output=output,
        words=tuple(words),
        settings=values,
        reads=(source,),
        writes=(output,),
        plugins=() if remote else tuple(settings.plugins),
    )


def _cache(args: argparse.Namespace, extra: list[str], chosen: Target) -> _Work:
    values = configuration.parse_overrides(extra)
    remote = chosen.capabilities.remote
    shards = _path(args.shards, "SHARDS", remote)
    exists = not remote and os.path.realpath(shards) not in dependencies.unfilled(chosen.after)
    most = preflight_features.files(shards) if exists else None
    words = [shards]
    reads, resolved = preflight_features.check(args.features, args.config, values, remote=remote)
    pinned = None
    if args.config and resolved is not None and not remote:
        # The experiment as it is now, with all values: later edits do not matter.
        values, pinned = {}, preflight_features.only_encoders(resolved)
    else:
        for flag in ("features", "config"):
            value = getattr(args, flag)
            words += [f"--{flag}", formats.utf8(value, f"--{flag}")] if value else []
    output = str(Path(shards) / preflight_features.FOLDER)
    return _Work(
        name=f"cache-{Path(shards).name}",
        output=output,
        words=tuple(words),
        settings=values,
        reads=(shards, *reads),
        writes=(output,),
        plugins=() if remote or resolved is None else tuple(pin.plugins(resolved)),
        config=pinned,
        most=most,
    )


def _count(args: argparse.Namespace, work: _Work, chosen: Target) -> int:
    """Returns the number of elements."""
    if args.elements is not None and args.elements < 1:
        raise InputError(f"--elements {args.elements}: expected 1 or more")
    default = flags.DEFAULT_ELEMENTS
    if chosen.capabilities.foreground:
        default = flags.value(args, "max_parallel") or 1
    count = int(args.elements or default)
    if work.most is not None and count > work.most:
        if args.elements:
            raise InputError(
                f"--elements {count}: there is work for {work.most}, one file each; use --elements "
                f"{work.most}"
            )
        count = work.most
    return count


def _path(text: str, what: str, remote: bool) -> str:
    """Returns an absolute path; links are kept, as they may differ between machines."""
    formats.utf8(text, what)
    if not text:
        raise InputError(f"{what}: is empty")
    if not remote:
        return str(Path(text).absolute())
    if not text.startswith("/"):
        raise InputError(f"{what} {text}: expected the absolute path inside the containers")
    return posixpath.normpath(text)


def _record_folder(args: argparse.Namespace, output: str) -> Path:
    if args.record:
        return Path(args.record).absolute()
    if not Path(output).parent.is_dir():
        raise InputError(f"{output}: is not on this machine; --record FOLDER keeps the record")
    return Path(output) / record.ARRAY
