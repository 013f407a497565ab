"""Gross pitch error of `a2fjax.audio.pitch` against WORLD's trackers on a folder of recordings.

    python benchmarks/pitch_tracker.py RECORDINGS [--reference dio|harvest] [--bound 0.05]

Errors cover the frames that both trackers classify as voiced. A gross error is an F0 that differs
from the reference by more than 20 %; the fine error is the mean difference over the other frames.
Speakers come from the column `speaker` of RECORDINGS/manifest.tsv (with `path`), or otherwise from
the names of subfolders. Needs pyworld. The exit code is 1 if the gross error over all recordings
exceeds the bound.
"""

from __future__ import annotations

import argparse
import csv
import sys
from pathlib import Path

import numpy as np

SUFFIXES = (".flac", ".wav", ".ogg", ".mp3")
GROSS = 0.2
ROUND = 4 * 16_000
"""Recordings are padded to multiples of this number of samples, so that few lengths compile."""


def recordings(folder: Path) -> list[tuple[Path, str]]:
    """Returns (file, speaker) of every recording."""
    manifest = folder / "manifest.tsv"
    if manifest.is_file():
        with manifest.open(newline="", encoding="utf-8") as file:
            rows = list(csv.DictReader(file, delimiter="\t", quoting=csv.QUOTE_NONE))
        return [(folder / row["path"], row["speaker"]) for row in rows]
    files = sorted(p for p in folder.rglob("*") if p.suffix.lower() in SUFFIXES)
    return [(p, str(p.parent.relative_to(folder))) for p in files]


def reference(audio: np.ndarray, tracker: str) -> np.ndarray:
    """Returns pyworld's F0 in Hz of frames at t / 50 s; 0 for unvoiced frames."""
    import pyworld

    from a2fjax.audio import SAMPLE_RATE, pitch

    audio = audio.astype(np.float64)
    options = dict(f0_floor=pitch.MIN_HZ, f0_ceil=pitch.MAX_HZ, frame_period=20.0)
    if tracker == "harvest":
        return pyworld.harvest(audio, SAMPLE_RATE, **options)[0]
    f0, times = pyworld.dio(audio, SAMPLE_RATE, **options)
    return pyworld.stonemask(audio, f0, times, SAMPLE_RATE)


def compare(path: Path, tracker: str) -> np.ndarray:
    """Returns counts of one recording.

    [frames, frames voiced in the reference, in a2fjax, in both, gross errors, gross errors that are
    too high, sum of fine errors].
    """
    from a2fjax.audio import io, level, num_frames, pitch

    audio = io.load(path)
    frames = num_frames(len(audio))
    normal = level.normalise(audio, level.speech_level(audio))
    padded = np.pad(normal, (0, -len(normal) % ROUND))
    f0 = np.asarray(pitch.track(padded[None]))[0, :frames, 0]
    reference_f0 = reference(audio, tracker)[:frames]
    f0 = f0[: len(reference_f0)]
    both = (f0 > 0) & (reference_f0 > 0)
    error = f0[both] / reference_f0[both] - 1.0
    gross = np.abs(error) > GROSS
    voiced = (reference_f0 > 0).sum(), (f0 > 0).sum(), both.sum()
    fine = np.abs(error[~gross]).sum()
    return np.array([len(f0), *voiced, gross.sum(), (error > GROSS).sum(), fine])


def row(name: str, counts: np.ndarray) -> str:
    """Formats a row of the table."""
    frames, in_reference, in_a2fjax, in_both, gross, high, fine = counts
    compared = max(in_both, 1)
    return (
        f"{name[:22]:22s} {frames:7.0f} {in_reference / frames:7.1%} {in_a2fjax / frames:7.1%} "
        f"{in_both:7.0f} "
        f"{gross / compared:7.2%} {high / compared:7.2%} "
        f"{(gross - high) / compared:7.2%} "
        f"{fine / max(in_both - gross, 1):7.2%}"
    )


def main() -> int:
    """Prints the table and returns the exit code."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("recordings", type=Path, help="folder of sound files")
    parser.add_argument("--reference", choices=("dio", "harvest"), default="dio")
    parser.add_argument("--bound", type=float, default=0.05, help="of the gross error")
    args = parser.parse_args()
    files = recordings(args.recordings) if args.recordings.is_dir() else []
    if not files:
        print(f"{args.recordings}: no sound files there", file=sys.stderr)
        return 2
    speakers: dict[str, np.ndarray] = {}
    for i, (path, speaker) in enumerate(files):
        speakers[speaker] = speakers.get(speaker, np.zeros(7)) + compare(path, args.reference)
        if sys.stderr.isatty():
            end = "\n" if i + 1 == len(files) else ""
            print(f"\r{i + 1}/{len(files)} recordings", end=end, file=sys.stderr, flush=True)
    columns = "  frames  voiced  a2fjax    both   gross    high     low    fine"
    print(f"{'against ' + args.reference:22s}{columns}")
    for speaker, counts in sorted(speakers.items()):
        print(row(speaker, counts))
    total = np.sum(list(speakers.values()), axis=0)
    print(row("all", total))
    rate = total[4] / max(total[3], 1)
    print(f"gross pitch error {rate:.2%}, bound {args.bound:.2%}")
    return int(not rate <= args.bound)


if __name__ == "__main__":
    sys.exit(main())
