"""Captures to shards: `python -m data_pipeline.build INPUT --out SHARDS`.

Every actor is worked on by one process; what is done is kept in SHARDS/.build, so that a second
run, or one after a kill, goes on where the last one stopped. The set is then written in one pass,
in an order that does not depend on the number of processes.
"""

from __future__ import annotations

import contextlib
import dataclasses
import hashlib
import json
import os
import signal
import sys
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures.process import BrokenProcessPool
from pathlib import Path
from typing import Any

import numpy as np

from a2fjax import config, files, rig
from a2fjax.audio import SAMPLE_RATE
from a2fjax.data import records
from a2fjax.errors import (
    EXIT_BAD_INPUT,
    EXIT_FAILED,
    EXIT_OK,
    ArgumentParser,
    InputError,
    WorkFailed,
    nearest,
)
from data_pipeline import console, shards, splits
from data_pipeline.settings import BuildSettings, read_settings
from data_pipeline.sources import LAYOUTS, Actor, Source, open_source

WORK = ".build"
_SINGLE_THREAD = {
    # One thread a process: the processes are the parallelism, and sums come out the same
    # whatever the number of processes and cores.
    "OMP_NUM_THREADS": "1",
    "OPENBLAS_NUM_THREADS": "1",
    "MKL_NUM_THREADS": "1",
    "JAX_PLATFORMS": "cpu",
    "XLA_FLAGS": "--xla_cpu_multi_thread_eigen=false intra_op_parallelism_threads=1",
}


def main(argv: Sequence[str] | None = None) -> int:
    """Runs a build from the command line; returns the exit code (0 done, 1 failed, 2 bad input)."""
    parser = ArgumentParser(
        prog="data_pipeline.build",
        description="Turns captures into shards.",
        epilog="Values are set as --config.<name>=<value>: "
        + ", ".join(f.name for f in dataclasses.fields(BuildSettings)),
    )
    parser.add_argument("input", help="folder of captures")
    parser.add_argument("--out", required=True, help="folder of the shards")
    parser.add_argument("--layout", default="auto", help=f"auto (default), {' or '.join(LAYOUTS)}")
    parser.add_argument(
        "--workers",
        type=int,
        default=None,
        help="processes (default: one a core); 0 works in this process",
    )
    try:
        args, extra = parser.parse_known_args(argv)
        settings = read_settings(config.parse_overrides(extra))
        build(args.input, args.out, args.layout, settings, workers=args.workers, say=_say)
    except InputError as error:
        print(f"data_pipeline.build: error: {error}", file=sys.stderr)
        return EXIT_BAD_INPUT
    except WorkFailed as error:
        print(f"data_pipeline.build: failed: {error}", file=sys.stderr)
        return EXIT_FAILED
    except KeyboardInterrupt:
        print("data_pipeline.build: interrupted; run it again to go on", file=sys.stderr)
        return 130
    return EXIT_OK


def _say(line: str) -> None:
    print(line, flush=True)


def build(
    path: str | Path,
    out: str | Path,
    layout: str = "auto",
    settings: BuildSettings | None = None,
    *,
    workers: int | None = None,
    say: Callable[[str], None] = lambda line: None,
) -> records.Manifest:
    """Builds a set of shards, or returns the one that is there when nothing changed.

    Args:
      path: folder of captures.
      out: folder of the set.
      layout: "auto" or of `sources.LAYOUTS`.
      settings: of the build.
      workers: processes, None for one a core; 0 works in this process, for debugging.
      say: takes lines of progress.

    Raises:
      InputError: nothing usable in `path`, or a setting is wrong.
      WorkFailed: a process died or the disk is full; a second run goes on.
    """
    settings = settings or BuildSettings()
    path, out = Path(path), Path(out)
    if workers is not None and workers < 0:
        raise InputError(f"--workers {workers}: expected 0 or more")
    source, why = open_source(path, layout, settings.source_options())
    say(f"{path}: layout {source.layout} ({why})")
    if out.exists() and not out.is_dir():
        raise InputError(f"--out {out}: is not a folder")
    if out.resolve() == path.resolve():
        raise InputError(f"--out {out}: is the input; give another folder")
    actors = source.actors()
    held_out = _held_out(actors, settings)
    _check_sentences(actors, settings)
    work = out / WORK
    made = not out.exists()
    work.mkdir(parents=True, exist_ok=True)
    with _lock(work):
        prints = [_fingerprint(source, actor, settings) for actor in actors]
        whole = hashlib.sha256(
            json.dumps([prints, dataclasses.asdict(settings), str(path)]).encode()
        ).hexdigest()
        state = work / "state.json"
        if state.is_file() and state.read_text() == whole:
            with contextlib.suppress(InputError):
                manifest = records.read_manifest(out)
                say(f"{out} is up to date")
                return manifest
        try:
            summaries = _work(source, actors, prints, settings, work, workers, say)
            manifest = _finish(out, source, actors, summaries, prints, held_out, settings)
        except OSError as error:
            raise WorkFailed(f"{error}; run it again to go on") from None
        except InputError:
            if made:
                _remove_empty(out, work)
            raise
        files.write_text(state, whole)
        for old in work.iterdir():
            if old.stem not in prints and old.name not in ("state.json", "lock"):
                old.unlink()
    console.describe(out, manifest, say)
    return manifest


def _work(
    source: Source,
    actors: list[Actor],
    prints: list[str],
    settings: BuildSettings,
    work: Path,
    workers: int | None,
    say: Callable[[str], None],
) -> list[dict[str, Any]]:
    """Works on the actors that are not done; returns the summaries of all, in order."""
    summaries: dict[str, dict[str, Any]] = {}
    for actor, mark in zip(actors, prints, strict=True):
        done = work / f"{mark}.json"
        if done.is_file() and (work / f"{mark}.clips").is_file():
            summaries[actor.name] = json.loads(done.read_text())
    todo = [(a, p) for a, p in zip(actors, prints, strict=True) if a.name not in summaries]
    if summaries:
        say(f"{len(summaries)} of {len(actors)} actors are done already")
    progress = console.Progress([a for a, _ in todo], say)
    failed: list[str] = []
    for actor, result in _run(source, todo, settings, work, workers):
        if isinstance(result, BrokenProcessPool):
            failed.append(f"{actor.name}: a worker process died; out of memory?")
        elif isinstance(result, BaseException):
            failed.append(f"{actor.name}: {type(result).__name__}: {result}")
        if isinstance(result, BaseException):
            continue
        summaries[actor.name] = result
        for take, reason in result["rejected"]:
            say(f"left out: {actor.name}/{take}: {reason}")
        for line in result["warnings"]:
            say(f"warning: {line}")
        progress.done(actor, result["seconds"])
    if failed:
        raise WorkFailed(f"{len(failed)} of {len(actors)} actors failed, first {failed[0]}")
    return [summaries[a.name] for a in actors]


def _run(
    source: Source,
    todo: list[tuple[Actor, str]],
    settings: BuildSettings,
    work: Path,
    workers: int | None,
) -> Iterator[tuple[Actor, Any]]:
    """Yields (actor, summary or the exception that stopped it) as they are done."""
    if not todo:
        return
    if workers == 0:
        for actor, mark in todo:
            yield actor, process(source, actor, settings, work, mark)
        return
    from concurrent.futures import ProcessPoolExecutor, as_completed
    from multiprocessing import get_context

    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    count = min(workers or cores or 1, len(todo))
    # The largest first, so that no process is left with one long actor at the end.
    todo = sorted(todo, key=lambda item: (-console.weight(item[0]), item[0].name))
    with _environment(_SINGLE_THREAD):
        pool = ProcessPoolExecutor(
            count,
            mp_context=get_context("spawn"),
            initializer=_start_worker,
            initargs=(os.getpid(),),
        )
        try:
            # Processes start as work is submitted and take the environment as it is now.
            jobs = {pool.submit(process, source, a, settings, work, p): a for a, p in todo}
            for job in as_completed(jobs):
                error = job.exception()
                yield jobs[job], error if error is not None else job.result()
        finally:
            pool.shutdown(wait=True, cancel_futures=True)


def _start_worker(parent: int) -> None:
    """Leaves Ctrl-C to the parent, and ends with it: a killed build must not leave workers."""

    def watch() -> None:
        while os.getppid() == parent:
            time.sleep(1.0)
        os._exit(EXIT_FAILED)

    signal.signal(signal.SIGINT, signal.SIG_IGN)
    threading.Thread(target=watch, daemon=True).start()


def process(
    source: Source, actor: Actor, settings: BuildSettings, work: Path, mark: str
) -> dict[str, Any]:
    """Works on one actor; leaves WORK/<mark>.clips and .json and returns what is in the latter.

    Args:
      source: what to read from.
      actor: of `source.actors()`.
      settings: of the build.
      work: folder for what is done.
      mark: fingerprint of the actor's input and of the settings.
    """
    import msgpack

    from data_pipeline import takes

    clips, report = takes.clips_of(source, actor, settings)
    partial = work / f"{mark}.{os.getpid()}.partial"
    entries: list[tuple[str, str, float]] = []
    size = 0
    with partial.open("wb") as file:
        for clip in clips:
            record = records.encode(clip)
            file.write(msgpack.packb(record))
            size += len(record)
            entries.append((clip.id, clip.sentence, len(clip.audio) / SAMPLE_RATE))
    residuals = np.array(report.residuals or [0.0])
    summary: dict[str, Any] = {
        "clips": entries,
        "bytes": size,
        "seconds": sum(e[2] for e in entries),
        "rejected": sorted(report.rejected),
        "warnings": report.warnings,
        "notes": report.notes,
        "moving": report.moving.tolist(),
        "solved": report.solved,
        "offset": dataclasses.asdict(report.offset),
        "residual_mm": float(residuals.mean()),
        "kkt": report.kkt,
    }
    partial.replace(work / f"{mark}.clips")
    # Last: it says that all is there.
    files.write_text(work / f"{mark}.json", json.dumps(summary))
    return summary


def _finish(
    out: Path,
    source: Source,
    actors: list[Actor],
    summaries: list[dict[str, Any]],
    prints: list[str],
    held_out: set[str],
    settings: BuildSettings,
) -> records.Manifest:
    import msgpack

    rejected = [
        {"take": f"{a.name}/{take}", "reason": reason}
        for a, s in zip(actors, summaries, strict=True)
        for take, reason in s["rejected"]
    ]
    count = sum(len(s["clips"]) for s in summaries)
    if not count:
        first = f"; first: {rejected[0]['take']}: {rejected[0]['reason']}" if rejected else ""
        raise InputError(f"{source.path}: none of {len(rejected)} takes could be used{first}")
    division = _divide({e[1] for s in summaries for e in s["clips"]}, settings)
    # A curve that is zero in all takes was not captured: there is no face so still.
    moving = np.zeros(rig.NUM_CHANNELS, bool)
    for summary in summaries:
        if not summary["solved"]:
            moving |= np.array(summary["moving"])

    def clips() -> Iterator[records.Clip]:
        for actor, summary, mark in zip(actors, summaries, prints, strict=True):
            with (out / WORK / f"{mark}.clips").open("rb") as file:
                for record in msgpack.Unpacker(file, max_buffer_size=2**31 - 1):
                    clip = records.decode(record)
                    mask = clip.channel_mask
                    yield dataclasses.replace(
                        clip,
                        split=splits.clip_split(actor.name in held_out, division[clip.sentence]),
                        channel_mask=mask if summary["solved"] else mask & moving,
                    )

    used = [(a, s) for a, s in zip(actors, summaries, strict=True) if s["clips"]]
    meshes, warnings = {}, [w for s in summaries for w in s["warnings"]]
    for actor, _ in used:
        try:
            mesh = source.mesh(actor.name)
            if mesh is not None:
                meshes[actor.name] = records.check_mesh(*mesh, name=actor.name)
        except (InputError, ValueError) as error:
            warnings.append(f"{actor.name}: no identity: {error}")
    subjects = [
        records.Subject(
            id=a.name,
            mesh=f"subjects/{a.name}.npz" if a.name in meshes else None,
            held_out=a.name in held_out,
        )
        for a, _ in used
    ]
    seconds = sum(s["seconds"] for s in summaries)

    def describe(statistics: dict[str, Any]) -> dict[str, Any]:
        empty = [k for k in ("train", "val", "test_sentences") if not statistics["hours"][k]]
        if empty:
            warnings.append(
                f"no clip in {', '.join(empty)}: of {len(division)} sentences the draw gave it "
                "none; name some with --config.val_sentences=... or --config.test_sentences=..."
            )
        unseen = np.flatnonzero(~moving).tolist() if not all(s["solved"] for _, s in used) else []
        return {
            "input": str(source.path),
            "layout": source.layout,
            "settings": dataclasses.asdict(settings),
            "rejected": rejected,
            "warnings": warnings,
            "notes": {a.name: s["notes"] for a, s in used if s["notes"]},
            "offsets": {a.name: s["offset"] for a, s in used},
            "residual_mm": sum(s["residual_mm"] * s["seconds"] for s in summaries) / seconds,
            "kkt": max(s["kkt"] for s in summaries),
            "unobserved_zero_channels": [rig.CHANNELS[i] for i in unseen],
        }

    size = sum(s["bytes"] for s in summaries)
    return shards.write(
        out,
        clips,
        count,
        size,
        files=settings.files,
        subjects=subjects,
        meshes=meshes,
        source=describe,
    )


def _divide(keys: set[str], settings: BuildSettings) -> dict[str, str]:
    """Returns the split of each sentence."""
    return {
        key: splits.named_split(
            key,
            test=settings.test_sentences,
            val=settings.val_sentences,
            otherwise=splits.sentence_split(key, settings.seed, settings.val, settings.test),
        )
        for key in sorted(keys)
    }


def _check_sentences(actors: list[Actor], settings: BuildSettings) -> None:
    keys = {t.sentence for a in actors for t in a.takes if not t.slate}
    for setting in ("test_sentences", "val_sentences"):
        for key in getattr(settings, setting):
            if key not in keys:
                raise InputError(f"config: {setting}: no take says {key!r}{nearest(key, keys)}")


def _held_out(actors: list[Actor], settings: BuildSettings) -> set[str]:
    """Returns who is kept out of training: named, else as the captures say, else drawn."""
    names = [a.name for a in actors]
    for name in settings.held_out:
        if name not in names:
            raise InputError(f"config: held_out: no actor {name!r}{nearest(name, names)}")
    if settings.held_out:
        return set(settings.held_out)
    said = {
        a.name: any(t.held_out for t in a.takes)
        for a in actors
        if any(t.held_out is not None for t in a.takes)
    }
    others = [n for n in names if n not in said]
    drawn = {
        n
        for n in others
        if splits.subject_held_out(n, others, seed=settings.seed, share=settings.held_out_share)
    }
    return {n for n, held in said.items() if held} | drawn


def _fingerprint(source: Source, actor: Actor, settings: BuildSettings) -> str:
    """Returns what an actor's clips depend on: files by size and time, settings, this code."""
    paths = [*actor.files, *(p for t in actor.takes for p in (t.audio, *t.data))]
    files = []
    for path in paths:
        stat = path.stat()
        files.append([str(path), stat.st_size, stat.st_mtime_ns])
    # Splits and files are decided later, from what is the same for any of them.
    later = {"seed", "val", "test", "val_sentences", "test_sentences", "held_out"}
    later |= {"held_out_share", "files"}
    used = {k: v for k, v in dataclasses.asdict(settings).items() if k not in later}
    text = json.dumps(
        [_code(), rig.FINGERPRINT, source.layout, actor.name, used, files, actor.rejected]
    )
    return hashlib.sha256(text.encode()).hexdigest()[:32]


def _code() -> str:
    digest = hashlib.sha256()
    folder = Path(__file__).parent
    for path in sorted([*folder.glob("*.py"), *folder.glob("sources/*.py")]):
        digest.update(path.read_bytes())
    return digest.hexdigest()


def _remove_empty(out: Path, work: Path) -> None:
    for file in work.iterdir():
        file.unlink()
    work.rmdir()
    with contextlib.suppress(OSError):
        out.rmdir()


@contextlib.contextmanager
def _lock(work: Path) -> Iterator[None]:
    """Keeps two builds from writing one set."""
    import fcntl

    with (work / "lock").open("w") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise InputError(f"{work.parent}: another build is writing there") from None
        yield


@contextlib.contextmanager
def _environment(values: dict[str, str]) -> Iterator[None]:
    before = {k: os.environ.get(k) for k in values}
    os.environ.update(values)
    try:
        yield
    finally:
        for key, value in before.items():
            if value is None:
                os.environ.pop(key, None)
            else:
                os.environ[key] = value


if __name__ == "__main__":
    sys.exit(main())
