"""`python -m data_pipeline.demo`: writes the synthetic demo corpus."""

from __future__ import annotations

import collections
import hashlib
import json
import multiprocessing
import multiprocessing.connection
import shutil
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from a2fjax import printing, rig
from a2fjax.errors import EXIT_BAD_INPUT, EXIT_FAILED, ArgumentParser, InputError, WorkFailed

VERSION = 3
"""Part of the fingerprint of what is written; raise it when the same settings give other data."""


@printing.safe_output()
def main(argv: Sequence[str] | None = None) -> int:
    """Writes the corpus and returns the exit code."""
    parser = ArgumentParser(
        prog="python -m data_pipeline.demo",
        description="Synthetic captures: speech, articulation and simulated 4D scans with truth.",
    )
    parser.add_argument("--out", required=True, help="folder; gets captures/ and truth/")
    parser.add_argument("--subjects", type=int, default=72, help="people to train on")
    parser.add_argument("--unseen", type=int, default=8, help="people kept out of training")
    parser.add_argument("--minutes", type=float, default=60.0, help="of recordings altogether")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--workers", type=int, default=2, help="processes")
    try:
        args = parser.parse_args(argv)
        generate(
            Path(args.out),
            subjects=args.subjects,
            unseen=args.unseen,
            minutes=args.minutes,
            seed=args.seed,
            workers=args.workers,
        )
    except InputError as error:
        print(f"python -m data_pipeline.demo: error: {error}", file=sys.stderr)
        return EXIT_BAD_INPUT
    except WorkFailed as error:
        print(f"python -m data_pipeline.demo: error: {error}", file=sys.stderr)
        return EXIT_FAILED
    return 0


def generate(
    out: Path,
    *,
    subjects: int = 72,
    unseen: int = 8,
    minutes: float = 60.0,
    seed: int = 0,
    workers: int = 2,
) -> None:
    """Writes the demo corpus to a folder; existing subjects are reused.

    Each subject is recorded in a separate process, which makes the voice repeatable (see
    `data_pipeline.demo.voice`).

    Args:
      out: output folder; receives captures/ and truth/.
      subjects: number of training subjects.
      unseen: number of additional subjects held out of training.
      minutes: total length of the recordings of all subjects.
      seed: seed of all random draws.
      workers: number of concurrent processes.

    Raises:
      InputError: sizes that make no sense, the `demo` extra is missing, or `out` is a file.
      WorkFailed: a subject could not be written.
    """
    from data_pipeline.demo import takes, voice, write_subject

    if workers < 1:
        raise InputError(f"--workers {workers}: expected at least 1")
    if out.exists() and not out.is_dir():
        raise InputError(f"--out {out} is a file; expected a folder")
    everybody = takes.draw_people(subjects, unseen, minutes, seed)
    voice.check_espeak()
    settings = [VERSION, rig.FINGERPRINT, subjects, unseen, minutes, seed]
    fingerprint = hashlib.sha256(json.dumps(settings).encode()).hexdigest()[:16]
    (out / "captures").mkdir(parents=True, exist_ok=True)
    _remove_others(out, {p.name for p in everybody})
    missing = [p for p in everybody if not write_subject.is_done(out, p, fingerprint)]
    already = len(everybody) - len(missing)
    if already:
        print(f"{already} of {len(everybody)} people exist already")
    _run(out, missing, fingerprint, workers)
    _summarise(out, [p.name for p in everybody])


def _remove_others(out: Path, names: set[str]) -> None:
    """Removes subjects that an earlier, larger run of this program left."""
    from data_pipeline.demo import write_subject

    for folder in sorted((out / "captures").iterdir()):
        if folder.name not in names and write_subject.read_origin(folder) is not None:
            shutil.rmtree(folder)
            shutil.rmtree(out / "truth" / folder.name, ignore_errors=True)


def _record(out: Path, person, fingerprint: str) -> None:  # noqa: ANN001 (a child process)
    from data_pipeline.demo import write_subject

    try:
        write_subject.write_person(out, person, fingerprint)
    except (InputError, OSError) as error:
        print(f"{person.name}: {error}", file=sys.stderr)
        raise SystemExit(EXIT_FAILED) from None


def _run(out: Path, missing: list, fingerprint: str, workers: int) -> None:
    # Forking is cheap, and safe as long as this process has started no threads (jax would).
    forks = "fork" in multiprocessing.get_all_start_methods() and "jax" not in sys.modules
    context: Any = multiprocessing.get_context("fork" if forks else "spawn")
    start, shown, done = time.monotonic(), 0.0, 0
    waiting = collections.deque(missing)
    running: dict[str, Any] = {}
    try:
        while waiting or running:
            while waiting and len(running) < workers:
                person = waiting.popleft()
                process = context.Process(target=_record, args=(out, person, fingerprint))
                process.start()
                running[person.name] = process
            multiprocessing.connection.wait([p.sentinel for p in running.values()], timeout=1.0)
            for name in [n for n, p in running.items() if not p.is_alive()]:
                process = running.pop(name)
                process.join()
                if process.exitcode:
                    raise WorkFailed(f"recording {name} ended with exit code {process.exitcode}")
                done += 1
            now = time.monotonic()
            if done and (now - shown > 2.0 or done == len(missing)):
                shown, rate = now, done / max(now - start, 1e-6)
                left = (len(missing) - done) / rate
                print(
                    f"recorded {done}/{len(missing)} people, {rate:.1f}/s, {left:.0f} s left",
                    flush=True,
                )
    finally:
        for process in running.values():
            process.terminate()
            process.join()


def _summarise(out: Path, names: list[str]) -> None:
    unknown: collections.Counter = collections.Counter()
    seconds = shots = phones = 0
    for name in names:
        report = json.loads((out / "captures" / name / "shots.json").read_text())["report"]
        unknown.update(report["unknown"])
        seconds += report["seconds"]
        shots += report["shots"]
        phones += report["phones"]
    print(
        f"{out}: {len(names)} people, {shots} shots, {seconds / 60:.1f} min, {phones} phones "
        "(all synthetic)"
    )
    if unknown:
        listed = ", ".join(f"{ipa!r} {count}x" for ipa, count in unknown.most_common())
        print(f"phones without a target, moved like a reduced vowel: {listed}")
    else:
        print("phones without a target: 0")


if __name__ == "__main__":
    sys.exit(main())
