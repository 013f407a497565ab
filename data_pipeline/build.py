"""Captures to shards: `python -m data_pipeline.build INPUT --out SHARDS`.

Three stages. Every take is solved by itself, in parallel processes or as parts of an array job on
many machines (`--part I/N`). Then the clocks of each person's takes are read and clips are made.
Then takes are judged, and the set is written in one pass, in an order that does not depend on who
worked on what. What is done is kept in SHARDS/.build under names that say what it was made from, so
that a second run, or one after a kill, redoes only what is missing.
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

from a2fjax import config, files, rig, signals
from a2fjax.data import records
from a2fjax.errors import (
    EXIT_BAD_INPUT,
    EXIT_FAILED,
    EXIT_OK,
    EXIT_PREEMPTED,
    ArgumentParser,
    InputError,
    WorkFailed,
    nearest,
)
from data_pipeline.execution import build_lock, console, content_key, executor, process_pool
from data_pipeline.execution.console import WriteLine
from data_pipeline.settings import BuildSettings, read_settings
from data_pipeline.sources import LAYOUTS, Actor, Source, Take, open_source
from data_pipeline.stages import cut_clips, solve_take, splits
from data_pipeline.stages import write_dataset as last

WORK = ".build"
_STATE = "state.json"
_FOLDERS = ("digests", "takes", "clips", "actors")


def main(argv: Sequence[str] | None = None) -> int:
    """Runs a build from the command line; returns the exit code.

    0 done, 1 failed, 2 bad input, 75 told to stop (`EXIT_PREEMPTED`), 130 interrupted. After 1, 75
    and 130 the same command goes on with what is missing.
    """
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
        type=_part,
        default=None,
        metavar="I/N",
        help="only solve the takes of the I-th of N parts, of an array job",
    )
    parser.add_argument(
        "--finish",
        action="store_true",
        help="only make the shards of what all parts have solved; an error if a take is missing",
    )
    told: list[str] = []

    def stop(name: str) -> BaseException:
        told.append(name)
        return KeyboardInterrupt()

    try:
        args, extra = parser.parse_known_args(argv)
        settings = read_settings(config.parse_overrides(extra))
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
                say=_say,
            )
    except InputError as error:
        print(f"data_pipeline.build: error: {error}", file=sys.stderr)
        return EXIT_BAD_INPUT
    except WorkFailed as error:
        print(f"data_pipeline.build: failed: {error}", file=sys.stderr)
        return EXIT_FAILED
    except KeyboardInterrupt:
        # Ray raises its own in place of what a handler raised.
        if told:
            line = f"data_pipeline.build: stopped: {told[0]}; run it again to go on"
            print(line, file=sys.stderr)
            return EXIT_PREEMPTED
        print("data_pipeline.build: interrupted; run it again to go on", file=sys.stderr)
        return 130
    return EXIT_OK


def _say(line: str) -> None:
    print(line, flush=True)


def _part(text: str) -> tuple[int, int]:
    try:
        number, count = (int(x) for x in text.split("/"))
        if 1 <= number <= count:
            return number, count
    except ValueError:
        pass
    raise argparse.ArgumentTypeError(f"{text!r}: expected I/N, I from 1 to N")


@dataclasses.dataclass(frozen=True)
class _Entry:
    """A take that could be listed.

    Attributes:
      actor: whose.
      take: which.
      stamp: of its files.
      actor_stamp: of all files of the person.
      size: bytes of motion.
    """

    actor: Actor
    take: Take
    stamp: str
    actor_stamp: str
    size: int

    @property
    def name(self) -> str:
        return f"{self.actor.name}/{self.take.name}"


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
    say: WriteLine = lambda line: None,
) -> records.Manifest | None:
    """Builds a set of shards, or returns the one that is there when nothing changed.

    Args:
      path: folder of captures.
      out: folder of the set.
      layout: "auto" or of `sources.LAYOUTS`.
      settings: of the build.
      workers: processes, None for one a core; 0 works in this process, for debugging.
      engine: of `engines.opened`; where work is done changes nothing of the set.
      part: (I, N) only solves the I-th of N parts of the takes.
      finish: solves nothing.
      say: takes lines of progress.

    Returns:
      The manifest; None for a part.

    Raises:
      InputError: nothing usable in `path`, a setting is wrong, or takes are missing to finish.
      WorkFailed: a process died or the disk is full; a second run goes on.
    """
    settings = settings or BuildSettings()
    path, out = Path(path), Path(out)
    if workers is not None and workers < 0:
        raise InputError(f"--workers {workers}: expected 0 or more")
    executor.parse_engine(engine, workers)
    if part and finish:
        raise InputError("--part and --finish: give one of them")
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
    for folder in _FOLDERS:
        files.make_folder(work / folder)
    try:
        with build_lock.hold(work, shared=part is not None, say=say) as locked:
            try:
                with executor.open_executor(engine, workers) as run:
                    return _build(
                        out, source, actors, held_out, settings, run, part, finish, locked, say
                    )
            except InputError:
                # Nothing is left of a mistake, but no work is thrown away.
                if made and part is None and locked and not any((work / "takes").glob("*.npz")):
                    shutil.rmtree(work)
                    with contextlib.suppress(OSError):
                        out.rmdir()
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
    alone: bool,
    say: WriteLine,
) -> records.Manifest | None:
    """Builds while nobody else does (if `alone`); the rest is as `build`."""
    work, left_out = out / WORK, console.LimitedLines(say)
    entries, rejected = _entries(actors, source.path, settings)
    if part is not None:
        _solve(source, _share(entries, *part), settings, work, run, False, say, left_out)
        left_out.end("were left out; the report of the set will say why")
        return None
    base: list[Any] = [
        content_key.code_digest("build"),
        rig.FINGERPRINT,
        dataclasses.asdict(settings),
        str(source.path),
    ]
    base += [source.layout, sorted(held_out)]
    base += [[e.stamp, e.actor_stamp, cut_clips.take_metadata(e.take)] for e in entries]
    files_now = content_key.digest([base, rejected])
    before, manifest = _state(work), _whole_set(out)
    if manifest is not None and before.get("files") == files_now:
        say(f"{out} is up to date")
        return manifest
    for name, reason in sorted(rejected.items()):
        left_out(f"left out: {name}: {reason}")
    done = _solve(source, entries, settings, work, run, finish, say, left_out)
    for entry, result in zip(entries, done, strict=True):
        if result.failed:
            rejected[entry.name] = result.failed
    solved = [(e, d) for e, d in zip(entries, done, strict=True) if not d.failed]
    summaries, people = _clips(solved, settings, work, run, say, left_out)
    left_out.end(f"were left out; {out / 'quality.html'} says why")
    content = {e.name: d.content for e, d in solved}
    results = content_key.digest([base, rejected, content, [s["work"] for s in summaries]])
    again = any(d.again for d in done) or any(s["again"] for s in summaries)
    if manifest is not None and before.get("results") == results and not again:
        say(f"{out} is up to date")
        return manifest
    # Until the end there is no set: a run with other settings may be stopped half way.
    (work / _STATE).unlink(missing_ok=True)
    manifest = last.write_dataset(
        out, source, actors, summaries, content, rejected, held_out, settings
    )
    # What failed is tried again by the next run: what it lacked may have been put right.
    failed = again or any(d.failed for d in done)
    state = {"files": "" if failed else files_now, "results": "" if again else results}
    files.write_text(work / _STATE, json.dumps(state))
    if alone:
        used = {e.stamp for e in entries} | {d.mark for d in done}
        used |= {s["work"] for s in summaries} | people
        _clean(work, used)
    console.print_summary(out, manifest, say)
    return manifest


def _state(work: Path) -> dict[str, str]:
    """Returns what the set was made from, or nothing."""
    try:
        found = json.loads((work / _STATE).read_text())
    except (FileNotFoundError, ValueError):
        return {}
    return found if isinstance(found, dict) else {}


def _whole_set(out: Path) -> records.Manifest | None:
    """Returns the manifest if all that it lists is there."""
    try:
        manifest = records.read_manifest(out)
    except InputError:
        return None
    names = [*(s.file for s in manifest.shards), *(s.mesh for s in manifest.subjects if s.mesh)]
    there = all((out / n).is_file() for n in [*names, "quality.json", "quality.html"])
    return manifest if there else None


def _entries(
    actors: list[Actor], root: Path, settings: BuildSettings
) -> tuple[list[_Entry], dict[str, str]]:
    """Returns the takes, people with most work first, and the reason by name of those left out."""
    template = content_key.stat_files([Path(settings.rig)] if settings.rig else [], root).stamp
    rejected = {f"{a.name}/{take}": reason for a in actors for take, reason in a.rejected}
    entries = []
    for actor in actors:
        found = []
        for take in actor.takes:
            try:
                motion = content_key.stat_files(take.data, root)
                sound = content_key.stat_files([take.audio] if take.audio else [], root)
                stamp = content_key.digest([motion.stamp, sound.stamp])
                found.append((take, stamp, motion.size))
            except InputError as error:
                rejected[f"{actor.name}/{take.name}"] = str(error)
        if found:
            each = [s for _, s, _ in found]
            own = content_key.stat_files(actor.files, root).stamp
            stamp = content_key.digest([actor.name, own, each, template])
            entries.append([_Entry(actor, t, s, stamp, size) for t, s, size in found])
    # The largest first, so that no process is left with much work at the end; a person's takes
    # follow each other, so that their shapes are read once.
    entries.sort(key=lambda e: (-sum(x.size for x in e), e[0].actor.name))
    return [x for e in entries for x in e], rejected


def _share(entries: list[_Entry], number: int, count: int) -> list[_Entry]:
    """Returns the I-th of N parts: consecutive takes, about equal in bytes."""
    total, before, out = sum(e.size for e in entries) or 1, 0, []
    for entry in entries:
        # Whole numbers: no take may fall between two parts, nor beyond the last.
        place = (2 * before + entry.size) * count // (2 * total)
        if min(place, count - 1) == number - 1:
            out.append(entry)
        before += entry.size
    return out


def _solve(
    source: Source,
    entries: list[_Entry],
    settings: BuildSettings,
    work: Path,
    run: executor.Run,
    look: bool,
    say: WriteLine,
    left_out: WriteLine,
) -> list[solve_take.Outcome]:
    """Returns what became of each take.

    Raises:
      InputError: some are not solved, and only looking was asked for.
      WorkFailed: a process died, after all others were done, or the disk is full, at once.
    """
    jobs = [
        solve_take.Job(source, e.take, settings, work, e.stamp, e.actor_stamp, look)
        for e in entries
    ]
    place = {id(job): i for i, job in enumerate(jobs)}
    done: list[solve_take.Outcome | None] = [None] * len(jobs)
    progress = console.Progress([e.size for e in entries], say)
    broken, missing = [], []
    with contextlib.closing(run(solve_take.run_job, jobs)) as results:
        for job, result in results:
            entry = entries[place[id(job)]]
            if isinstance(result, WorkFailed) and not isinstance(result, process_pool.ProcessDied):
                raise result
            if isinstance(result, BaseException):
                broken.append(f"{entry.name}: {_first_line(result)}")
                continue
            done[place[id(job)]] = result
            if result.missing:
                missing.append(entry.name)
                continue
            if result.failed:
                left_out(f"left out: {entry.name}: {result.failed}")
            progress.done(entry.size, result.seconds, fresh=result.fresh)
    if not missing:
        progress.end()
    else:
        raise InputError(
            f"{len(missing)} of {len(entries)} takes are not solved yet, first {sorted(missing)[0]}"
            "; run their part, or the build without --finish"
        )
    if broken:
        raise WorkFailed(
            f"{len(broken)} of {len(entries)} takes failed, the others are solved; first "
            f"{sorted(broken)[0]}"
        )
    return [d for d in done if d is not None]


def _first_line(error: BaseException) -> str:
    said = str(error).splitlines() or [""]
    return said[0] if isinstance(error, WorkFailed) else f"{type(error).__name__}: {said[0]}"


def _clips(
    solved: list[tuple[_Entry, solve_take.Outcome]],
    settings: BuildSettings,
    work: Path,
    run: executor.Run,
    say: WriteLine,
    left_out: WriteLine,
) -> tuple[list[dict[str, Any]], set[str]]:
    """Returns the summaries of all takes, by person and take, and the names of people's work."""
    grouped: dict[str, list[tuple[Take, str]]] = {}
    for entry, done in solved:
        grouped.setdefault(entry.actor.name, []).append((entry.take, done.mark))
    jobs = [cut_clips.Job(name, tuple(found), settings, work) for name, found in grouped.items()]
    found: dict[str, list[dict[str, Any]]] = {}
    people, broken = set(), []
    warn = console.LimitedLines(say)
    with contextlib.closing(run(cut_clips.run_job, jobs)) as results:
        for job, result in results:
            if isinstance(result, WorkFailed) and not isinstance(result, process_pool.ProcessDied):
                raise result
            if isinstance(result, BaseException):
                broken.append(f"{job.actor}: {_first_line(result)}")
                continue
            name, found[job.actor] = result
            people.add(name)
            for said in found[job.actor]:
                for line in said["warnings"]:
                    warn(f"warning: {said['take']}: {line}")
                if said["rejected"]:
                    left_out(f"left out: {said['take']}: {said['rejected']}")
    warn.end(f"warnings; {work.parent / 'quality.html'} has them all")
    if broken:
        raise WorkFailed(f"{len(broken)} of {len(jobs)} people failed, first {broken[0]}")
    return [said for name in sorted(found) for said in found[name]], people


def _clean(work: Path, used: set[str]) -> None:
    """Removes what earlier builds left and this one did not use."""
    for folder in _FOLDERS:
        for old in (work / folder).iterdir():
            if old.name.split(".")[0] not in used:
                old.unlink()


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
    drawn = splits.held_out_subjects(
        (n for n in names if n not in said), seed=settings.seed, share=settings.held_out_share
    )
    return {n for n, held in said.items() if held} | drawn


if __name__ == "__main__":
    sys.exit(main())
