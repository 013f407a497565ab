"""Measures how well a sync expert finds takes out of step: `sync_offsets.py RUN SHARDS`.

Delays the sound of takes of 20 s or more by known amounts and asks for their offset, as a build
does. Prints the share found within 20 ms, the share of takes in step that `fix` would move by more
than 20 ms, and the same for takes with another take's sound, which have no offset.

    python benchmarks/sync_offsets.py runs/sync shards [--unchecked] [--overlap 2] [--splits ...]
    python benchmarks/sync_offsets.py linear shards    # the linear expert, fitted to train
"""

from __future__ import annotations

import argparse
import sys
import time
from collections.abc import Iterator, Sequence

import numpy as np

from a2fjax.audio import SAMPLE_RATE
from a2fjax.data import records
from a2fjax.data.dataset import ClipSource
from a2fjax.errors import InputError
from a2fjax.sync import bars, gate, offsets, votes
from a2fjax.sync.expert import Expert
from a2fjax.tasks import people
from a2fjax.training import sync_experts
from data_pipeline.timing.expert_offset import Rules, Said, decide

SHIFTS = (0.04, 0.08, 0.12, 0.2, 0.4)
LEAST_SECONDS = 20.0
NEAR = 0.020
GOAL = 0.95


def main(argv: Sequence[str] | None = None) -> int:
    """Runs the measurement; returns 1 if the bar is not reached."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("run", help="run folder of an expert, or linear")
    parser.add_argument("shards")
    parser.add_argument("--unchecked", action="store_true", help="an expert that failed its gate")
    parser.add_argument("--splits", default=f"{bars.SENTENCES},{bars.PEOPLE}")
    parser.add_argument(
        "--overlap", type=int, default=0, metavar="N",
        help="takes begin at every N-th clip and overlap; default 0: each clip is in one take",
    )  # fmt: skip
    parser.add_argument("--search", type=float, default=0.6, help="s; default 0.6")
    args = parser.parse_args(argv)
    try:
        expert, name = _expert(args.run, args.shards, args.unchecked)
        good = [
            _measure(expert, name, args.shards, split, args.search, args.overlap)
            for split in args.splits.split(",")
        ]
    except InputError as error:
        print(f"sync_offsets: error: {error}", file=sys.stderr)
        return 2
    return 0 if all(good) else 1


def _expert(run: str, shards: str, unchecked: bool) -> tuple[Expert, str]:
    if run == "linear":
        return gate.fit_linear([shards], "train"), "the linear expert, fitted to the split train"
    loaded = sync_experts.load_checked(run, unchecked=unchecked)
    passed = "passed" if loaded.passed else "has NOT passed"
    return loaded.expert, f"{run} step {loaded.step}, which {passed} its gate"


def _takes(
    shards: str, split: str, overlap: int
) -> Iterator[tuple[str, list[votes.Recording], np.ndarray]]:
    """Yields each person, takes of at least `LEAST_SECONDS`, and mean and deviation [2, 72]."""
    source = ClipSource([shards], split)
    by_person: dict[str, list[records.Clip]] = {}
    for index, entry in enumerate(source.entries):
        by_person.setdefault(entry.subject, []).append(source.load(index))
    for person, clips in by_person.items():
        parts = _parts(clips, overlap)
        if parts:
            found = [_joined(part) for part in parts]
            joined = sum(len(part) > 1 for part in parts)
            seconds = sum(len(take.audio) for take in found) / SAMPLE_RATE
            note = f", {joined} of them joined from shorter clips" if joined else ""
            note += (
                f", overlapping: each begins {overlap} clips after the one before"
                if overlap
                else ""
            )
            print(f"  {person}: {len(found)} takes, {seconds:.0f} s{note}", flush=True)
            yield person, found, np.stack(people.pooled(clips))


def _parts(clips: Sequence[records.Clip], overlap: int) -> list[list[records.Clip]]:
    """Returns the clips of each take."""
    lengths = np.cumsum([0, *(c.frames / 50 for c in clips)])
    parts, first = [], 0
    while first < len(clips):
        last = int(np.searchsorted(lengths, lengths[first] + LEAST_SECONDS))
        if last > len(clips):
            break
        parts.append(list(clips[first:last]))
        first = first + overlap if overlap else last
    return parts


def _joined(clips: Sequence[records.Clip]) -> votes.Recording:
    # Whole frames, so that motion and sound stay together.
    audio = [np.resize(np.pad(c.audio, (0, 320)), 320 * c.frames) for c in clips]
    return votes.Recording(
        np.concatenate(audio),
        np.concatenate([c.motion for c in clips]),
        np.concatenate([c.frame_mask for c in clips]),
        np.all([c.channel_mask for c in clips], 0),
    )


def delayed(take: votes.Recording, seconds: float) -> votes.Recording:
    """Returns a take whose sound is `seconds` later (earlier below 0), of the same length."""
    lag = round(seconds * SAMPLE_RATE)
    audio = np.zeros_like(take.audio)
    if lag >= 0:
        audio[lag:] = take.audio[: len(audio) - lag]
    else:
        audio[:lag] = take.audio[-lag:]
    return votes.Recording(audio, take.motion, take.frame_mask, take.channel_mask)


def _measure(
    expert: Expert, name: str, shards: str, split: str, search: float, overlap: int
) -> bool:
    print(f"{name}\n{shards}, split {split}, search +-{1000 * search:.0f} ms")
    rules, start, asked = Rules("fix"), time.monotonic(), 0.0
    rows: dict[float, list[float | None]] = {s * k: [] for s in SHIFTS for k in (1, -1)}
    covered, sure, astray, swapped, plain_seconds = [], [], [], [], []

    def find(take: votes.Recording, statistics: np.ndarray, label: str) -> offsets.Offset | None:
        nonlocal asked
        asked += len(take.audio) / SAMPLE_RATE
        cast = votes.cast(expert, take, statistics[0], statistics[1], search)
        return offsets.find(cast, label)

    number = 0
    for person, takes, statistics in _takes(shards, split, overlap):
        for which, take in enumerate(takes):
            number += 1
            label = f"{person}/{which}"
            plain = find(take, statistics, label)
            if plain is not None:
                plain_seconds.append(plain.seconds)
            astray.append(abs(decide("none", Said(plain, plain), rules).moved))
            for shift in rows:
                found = find(delayed(take, shift), statistics, label)
                rows[shift].append(None if found is None else found.seconds - shift)
                if found is not None:
                    covered.append(found.low <= shift <= found.high)
                    sure.append(found.confidence)
            if len(takes) > 1:
                other = takes[(which + 1) % len(takes)].audio
                audio = np.resize(other, len(take.audio))
                mixed = votes.Recording(audio, take.motion, take.frame_mask, take.channel_mask)
                wrong = find(mixed, statistics, label)
                swapped.append(decide("none", Said(wrong, wrong), rules).moved)
    if not number:
        raise InputError(f"{shards}: nobody in split {split} has {LEAST_SECONDS:g} s of clips")
    for shift, errors in rows.items():
        near = [e is not None and abs(e) <= NEAR + 1e-9 for e in errors]
        sizes = [1000 * abs(e) for e in errors if e is not None]
        middle = f"median error {np.median(sizes):.1f} ms, " if sizes else ""
        none = sum(e is None for e in errors)
        print(f"  {1000 * shift:+5.0f} ms: {np.mean(near):.3f} of {len(near)} within 20 ms, "
              f"{middle}{none} without an offset")  # fmt: skip
    every = [e is not None and abs(e) <= NEAR + 1e-9 for errors in rows.values() for e in errors]
    moved = float(np.mean(np.array(astray) > NEAR))
    print(f"  recovered within 20 ms: {np.mean(every):.3f} of {len(every)} (goal {GOAL})")
    print(
        f"  truth in the interval: {np.mean(covered):.3f}; median confidence {np.median(sure):.2f}"
    )
    alone = [1000 * abs(o) for o in plain_seconds]
    if alone:
        print(f"  offsets of takes in step: median {np.median(alone):.1f} ms, "
              f"largest {max(alone):.1f} ms")  # fmt: skip
    print(f"  takes in step moved by more than 20 ms: {moved:.3f} of {len(astray)} (goal 0), "
          f"largest {1000 * max(astray):.0f} ms")  # fmt: skip
    if swapped:
        share = float(np.mean(np.array(swapped) != 0))
        print(f"  takes with another take's sound that were moved: {share:.3f} of {len(swapped)}")
    spent = time.monotonic() - start
    print(f"  {asked / 60:.0f} min of takes heard in {spent:.0f} s", flush=True)
    return bool(np.mean(every) >= GOAL and moved == 0)


if __name__ == "__main__":
    sys.exit(main())
