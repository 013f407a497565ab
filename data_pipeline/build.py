"""Builds shards from captures: `python -m data_pipeline.build INPUT --out SHARDS`.

A build has three stages. First each take is solved independently, in parallel processes or as
elements of an array job on many machines (`--part I/N`). Then the clocks of each actor's takes are
aligned and clips are cut. Finally takes are checked against the thresholds and the dataset is
written in one pass, in an order that does not depend on the distribution of work. Intermediate
results are stored in SHARDS/.build under content keys, so that a second run, or one after a kill,
redoes only missing results.
"""

from __future__ import annotations

import argparse
import contextlib
import dataclasses
import json
import shutil
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from a2fjax import budgets, configuration, files, printing, progress, registry, rig, signals
from a2fjax.data import records
from a2fjax.errors import (
    EXIT_BAD_INPUT,
    EXIT_FAILED,
    EXIT_OK,
    EXIT_PREEMPTED,
    ArgumentParser,
    InputError,
    WorkFailed,
    one_line,
)
from data_pipeline.execution import build_lock, console, content_key, executor
from data_pipeline.execution.console import WriteLine
from data_pipeline.settings import BuildSettings, read_settings
from data_pipeline.sources import LAYOUTS, Actor, Source, open_source
from data_pipeline.stages import cut_clips, run_stages, sync_expert, take_list, take_offsets
from data_pipeline.stages.write_dataset import write_dataset

WORK = ".build"
_STATE = "state.json"
_FOLDERS = ("digests", "takes", "clips", "actors", take_offsets.FOLDER)


@printing.safe_output()
def main(argv: Sequence[str] | None = None) -> int:
    """Runs a build from the command line and returns the exit code.

    0 done, 1 failed, 2 bad input, 75 stopped by a signal (`EXIT_PREEMPTED`), 130 interrupted. After
    1, 75 and 130 the same command continues the build.

    Example:
        >>> from data_pipeline import build
        >>> build.main(["no/such/captures", "--out", "shards"])  # the reason goes to stderr
        2
    """
    parser = ArgumentParser(
        prog="data_pipeline.build",
        description="Turns captures into shards.",
        epilog="Values are set as --config.<name>=<value>: "
        + ", ".join(f.name for f in dataclasses.fields(BuildSettings)),
    )
    parser.add_argument("input", help="folder of captures")
    parser.add_argument("--out", required=True, help="folder of the shards")
    parser.add_argument(
        "--layout",
        default="auto",
        help=f"auto (default), {', '.join(LAYOUTS)}, or one that a plugin registers",
    )
    parser.add_argument(
        "--plugins",
        default="",
        metavar="PACKAGE,...",
        help="packages that register capture layouts; the same as --config.plugins=...",
    )
    parser.add_argument(
        "--workers",
        type=int,
        default=None,
        help="processes (default: one a core); 0 works in this process, with its threads",
    )
    parser.add_argument(
        "--engine",
        default=executor.PROCESSES,
        metavar="NAME",
        help="processes (default), ray (on this machine) or ray:HOST:PORT; the same bytes",
    )
    parser.add_argument(
        "--part",
        type=_parse_part,
        default=None,
        metavar="I/N",
        help="only solve the takes of the I-th of N elements of an array job",
    )
    parser.add_argument(
        "--finish",
        action="store_true",
        help="only make the shards of what all parts have solved; an error if a take is missing",
    )
    received_signals: list[str] = []

    def stop(name: str) -> BaseException:
        received_signals.append(name)
        return KeyboardInterrupt()

    try:
        args, extra = parser.parse_known_args(argv)
        overrides = configuration.parse_overrides(extra)
        if args.plugins:
            overrides["plugins"] = ",".join(filter(None, [overrides.get("plugins"), args.plugins]))
        settings = read_settings(overrides)
        with signals.raise_on_signal(stop):
            build(
                args.input,
                args.out,
                args.layout,
                settings,
                workers=args.workers,
                engine=args.engine,
                part=args.part,
                finish=args.finish,
                log=_print_line,
            )
    except BrokenPipeError:
        files.drop_output()
        print("data_pipeline.build: stopped: its output was closed; run it again to go on")
        return EXIT_FAILED
    except InputError as error:
        print(f"data_pipeline.build: error: {one_line(str(error))}", file=sys.stderr)
        return EXIT_BAD_INPUT
    except WorkFailed as error:
        print(f"data_pipeline.build: failed: {one_line(str(error))}", file=sys.stderr)
        return EXIT_FAILED
    except OSError as error:
        print(
            f"data_pipeline.build: error: {one_line(str(files.path_error(error)))}", file=sys.stderr
        )
        return EXIT_BAD_INPUT
    except KeyboardInterrupt:
        # Ray replaces an exception raised by a signal handler with its own.
        if received_signals:
            line = f"data_pipeline.build: stopped: {received_signals[0]}; run it again to go on"
            print(line, file=sys.stderr)
            return EXIT_PREEMPTED
        print("data_pipeline.build: interrupted; run it again to go on", file=sys.stderr)
        return 130
    return EXIT_OK


def _print_line(line: str) -> None:
    print(line, flush=True)


def _parse_part(text: str) -> tuple[int, int]:
    try:
        number, count = (int(x) for x in text.split("/"))
        if 1 <= number <= count:
            return number, count
    except ValueError:
        pass
    raise argparse.ArgumentTypeError(f"{text!r}: expected I/N, I from 1 to N")


def build(
    path: str | Path,
    out: str | Path,
    layout: str = "auto",
    settings: BuildSettings | None = None,
    *,
    workers: int | None = None,
    engine: str = executor.PROCESSES,
    part: tuple[int, int] | None = None,
    finish: bool = False,
    log: WriteLine = lambda line: None,
) -> records.Manifest | None:
    """Builds a dataset, or returns the existing manifest when nothing changed.

    Args:
      path: folder of captures.
      out: folder of the dataset.
      layout: "auto" or a registered capture layout.
      settings: build settings.
      workers: number of processes, None for one per core; 0 works in this process, for debugging.
      engine: see `executor.open_executor`; the dataset does not depend on it.
      part: (I, N) only solves the takes of the I-th of N array elements.
      finish: skips solving and runs only the last two stages.
      log: called with progress lines.

    Returns:
      The manifest; None for a part.

    Raises:
      InputError: `path` has no usable take, a setting is wrong, a plugin cannot be imported, or
        takes are missing with `finish`.
      WorkFailed: a process died or the disk is full; a second run continues.
    """
    settings = settings or BuildSettings()
    path, out = Path(path), Path(out)
    if workers is not None and workers < 0:
        raise InputError(f"--workers {workers}: expected 0 or more")
    executor.parse_engine(engine, workers)
    if part and finish:
        raise InputError("--part and --finish: give one of them")
    registry.load_plugins(settings.plugins)
    source, reason = open_source(path, layout, settings.source_options())
    log(f"{path}: layout {source.layout} ({reason})")
    if out.exists() and not out.is_dir():
        raise InputError(f"--out {out}: is not a folder")
    if out.resolve() == path.resolve():
        raise InputError(f"--out {out}: is the input; give another folder")
    with progress.shown("listing the captures", log):
        actors = source.actors()
    held_out = take_list.held_out_actors(actors, settings)
    take_list.check_sentences(actors, settings)
    work = out / WORK
    is_new = not out.exists()
    for folder in _FOLDERS:
        files.make_folder(work / folder)
    try:
        with build_lock.hold(work, shared=part is not None, log=log) as locked:
            try:
                with executor.open_executor(engine, workers) as run:
                    return _build(
                        out, source, actors, held_out, settings, run, part, finish, locked, log
                    )
            except InputError:
                # Bad input leaves no files behind, but solved takes are never deleted.
                if is_new and part is None and locked and not any((work / "takes").glob("*.npz")):
                    shutil.rmtree(work)
                    with contextlib.suppress(OSError):
                        out.rmdir()
                raise
    except BrokenPipeError:
        raise
    except OSError as error:
        raise WorkFailed(f"{error}; run it again to go on") from None


def _build(
    out: Path,
    source: Source,
    actors: list[Actor],
    held_out: set[str],
    settings: BuildSettings,
    run: executor.Run,
    part: tuple[int, int] | None,
    finish: bool,
    locked: bool,
    log: WriteLine,
) -> records.Manifest | None:
    """Builds under the lock (if `locked`); the other arguments are as in `build`."""
    work, log_rejected = out / WORK, console.LimitedLines(log)
    with progress.shown("looking at the takes", log):
        entries, rejected = take_list.list_takes(actors, source.path, settings)
    layout_digest = content_key.layout_digest(source.layout)
    if part is not None:
        run_stages.solve_takes(
            source,
            take_list.array_element(entries, *part),
            settings,
            work,
            run,
            layout_digest=layout_digest,
            log=log,
            log_rejected=log_rejected,
        )
        log_rejected.end("were left out; the report of the dataset will say why")
        return None
    expert = sync_expert.find(settings, run, log)
    base: list[Any] = [
        content_key.code_digest("build"),
        rig.FINGERPRINT,
        dataclasses.asdict(settings),
        str(source.path),
        source.layout,
        layout_digest,
        sorted(held_out),
    ]
    if expert is not None:
        base.append(take_offsets.base_key(expert, settings))
    base += [[e.stamp, e.actor_stamp, cut_clips.take_metadata(e.take)] for e in entries]
    inputs_key = content_key.digest([base, rejected])
    state, manifest = _read_state(work), _complete_manifest(out)
    if manifest is not None and state.get("files") == inputs_key:
        log(f"{out} is up to date")
        return manifest
    for name, reason in sorted(rejected.items()):
        log_rejected(f"left out: {name}: {reason}")
    outcomes = run_stages.solve_takes(
        source,
        entries,
        settings,
        work,
        run,
        layout_digest=layout_digest,
        check_only=finish,
        log=log,
        log_rejected=log_rejected,
    )
    for entry, outcome in zip(entries, outcomes, strict=True):
        if outcome.failed:
            rejected[entry.name] = outcome.failed
    solved = [(e, o) for e, o in zip(entries, outcomes, strict=True) if not o.failed]
    summaries, actor_keys = run_stages.cut_all_clips(
        solved, settings, work, run, expert=expert, log=log, log_rejected=log_rejected
    )
    log_rejected.end(f"were left out; {out / 'quality.html'} says why")
    content = {e.name: o.content for e, o in solved}
    results_key = content_key.digest([base, rejected, content, [s["key"] for s in summaries]])
    retry = any(o.retry for o in outcomes) or any(s["retry"] for s in summaries)
    if manifest is not None and state.get("results") == results_key and not retry:
        log(f"{out} is up to date")
        return manifest
    # Invalidate the state first: this run may be stopped while it replaces the dataset.
    (work / _STATE).unlink(missing_ok=True)
    with progress.shown("writing the dataset", log):
        manifest = write_dataset(
            out, source, actors, summaries, content, rejected, held_out, settings, expert
        )
    # The next run retries failed takes, as their cause may have been fixed.
    failed = retry or any(o.failed for o in outcomes)
    state = {"files": "" if failed else inputs_key, "results": "" if retry else results_key}
    files.write_text(work / _STATE, json.dumps(state))
    if locked:
        used = {e.stamp for e in entries} | {o.key for o in outcomes}
        used |= {s["key"] for s in summaries} | actor_keys
        used |= {s["sync"]["votes_key"] for s in summaries if "sync" in s}
        _remove_unused(work, used)
    console.print_summary(out, manifest, log)
    return manifest


def _read_state(work: Path) -> dict[str, str]:
    """Returns the content keys that the dataset was built from; empty if unknown."""
    try:
        state = budgets.load_json(work / _STATE)
    except (FileNotFoundError, ValueError):
        return {}
    return state if isinstance(state, dict) else {}


def _complete_manifest(out: Path) -> records.Manifest | None:
    """Returns the manifest if every file that it lists exists."""
    try:
        manifest = records.read_manifest(out)
    except InputError:
        return None
    names = [*(s.file for s in manifest.shards), *(s.mesh for s in manifest.subjects if s.mesh)]
    complete = all((out / n).is_file() for n in [*names, "quality.json", "quality.html"])
    return manifest if complete else None


def _remove_unused(work: Path, used: set[str]) -> None:
    """Removes intermediate results of earlier builds that this build did not use."""
    for folder in _FOLDERS:
        for path in (work / folder).iterdir():
            if path.name.split(".")[0] not in used:
                path.unlink()


if __name__ == "__main__":
    sys.exit(main())
