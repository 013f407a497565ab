"""Processor time of the metrics for an hour of clips, without inference.

    python benchmarks/metric_suite.py [--minutes 6] [--clip-seconds 10] [--rows 9] [--samples 8]
        [--face HEAD.npz] [--bound SECONDS]

Curves and sound are random, with syllables, pauses, blinks and phones. Times are for one core and
scaled to an hour: the references of the clips, each metric of one row of a report, each metric of
the samples, and the suite for all rows. A report has nine rows: the model and eight baselines. The
exit code is 1 if the suite for all rows exceeds the bound.
"""

from __future__ import annotations

import argparse
import dataclasses
import resource
import sys
import time
from collections.abc import Callable

import numpy as np

from a2fjax import rig
from a2fjax.metrics import face, suite
from a2fjax.metrics.phones.alignment import Phone
from a2fjax.metrics.reference import Reference, reference, with_thresholds
from a2fjax.metrics.sums import merge

PHONES = "P AA1 T UW1 F IY0 M EH1 N S OW0 V K".split()


def make_clip(rng: np.random.Generator, frames: int) -> tuple[np.ndarray, np.ndarray]:
    """Returns motion [T, 72] and sound of a talking face."""
    t = np.arange(frames) / rig.FPS
    syllables = np.clip(np.sin(2 * np.pi * (4 * t + rng.uniform(0, 1))), -0.2, 1) + 0.2
    talking = np.repeat(rng.random(-(-frames // 50)) < 0.8, 50)[:frames]
    smooth = np.cumsum(rng.standard_normal((frames, 72)), axis=0)
    motion = 0.3 + 0.02 * (smooth - smooth.mean(0))
    motion[:, rig.INDEX["jawOpen"]] = 0.5 * syllables * talking
    blink = np.zeros(frames)
    for at in rng.integers(10, frames - 10, max(frames // 150, 1)):
        blink[at - 4 : at + 5] = 0.8 * (1 - np.abs(np.arange(-4, 5)) / 5)
    motion[:, rig.GROUPS["blinks"]] = blink[:, None]
    sound = np.repeat(0.02 + 0.2 * syllables * talking, 320) * rng.standard_normal(frames * 320)
    return np.clip(motion, 0, 1), sound.astype(np.float32)


def make_reference(
    rng: np.random.Generator, motion: np.ndarray, sound: np.ndarray, head: face.Face | None
) -> Reference:
    """Returns the reference of a clip with twelve phones a second."""
    frames = len(motion)
    truth = reference(
        motion,
        sound,
        channel_mask=np.ones(72, bool),
        frame_mask=np.ones(frames, bool),
        speech_level=0.1,
    )
    starts = np.arange(0, frames / rig.FPS, 1 / 12)
    phones = tuple(Phone(t, t + 1 / 12, PHONES[rng.integers(len(PHONES))]) for t in starts)
    truth = with_thresholds([truth], ["a"])[0]
    return dataclasses.replace(truth, phones=phones, face=head)


def timed(work: Callable[[], object]) -> float:
    """Returns the processor time in seconds of a function, children excluded."""
    start = time.process_time()
    work()
    return time.process_time() - start


def main(argv: list[str] | None = None) -> int:
    """Runs the command line."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--minutes", type=float, default=6.0, help="clips that are measured")
    parser.add_argument("--clip-seconds", type=float, default=10.0, help="length of a clip")
    parser.add_argument("--rows", type=int, default=9, help="rows of a report")
    parser.add_argument("--samples", type=int, default=8, help="samples of a clip")
    parser.add_argument("--face", help="head with its shapes, for the metrics of vertices")
    parser.add_argument("--bound", type=float, help="largest time of the suite for all rows, in s")
    args = parser.parse_args(argv)
    head = face.read(args.face) if args.face else None
    frames = round(args.clip_seconds * rig.FPS)
    count = max(round(args.minutes * 60 / args.clip_seconds), 1)
    to_hour = 3600.0 / (count * args.clip_seconds)
    times = dict.fromkeys(["reference", *suite.metrics(), "all metrics"], 0.0)
    of_samples = dict.fromkeys(suite.sample_metrics(), 0.0)
    parts = []
    suite.metrics()  # Imports are no part of the time.
    for number in range(count):
        rng = np.random.default_rng(number)
        motion, sound = make_clip(rng, frames)
        truths: list[Reference] = []
        times["reference"] += timed(
            lambda motion=motion, sound=sound, rng=rng, truths=truths: truths.append(
                make_reference(rng, motion, sound, head)
            )
        )
        (truth,) = truths
        # Found once a clip, whatever the number of rows.
        times["reference"] += timed(lambda truth=truth: truth.nonspeech)
        if head is not None:
            times["reference"] += timed(lambda truth=truth: truth.upper_dynamics)
        shape = (args.samples, *motion.shape)
        samples = np.clip(motion + 0.05 * rng.standard_normal(shape), 0, 1)
        for name, metric in suite.metrics().items():
            times[name] += timed(lambda m=metric, x=samples[0], t=truth: m.sums(x, t))
        for name, each in suite.sample_metrics().items():
            of_samples[name] += timed(lambda m=each, x=samples, t=truth: m.sums(x, t))
        parts.append(suite.sums(samples[0], truth))
    times["all metrics"] = sum(times[name] for name in suite.metrics())
    total = times["reference"] + args.rows * times["all metrics"]
    merging = timed(lambda: suite.values(suite.person(merge(parts))))
    print(f"processor seconds for an hour of clips of {args.clip_seconds:g} s, one core:")
    for name, seconds in times.items():
        print(f"  {name:12} {seconds * to_hour:7.1f}")
    for name, seconds in of_samples.items():
        print(f"  {name:12} {seconds * to_hour:7.1f}  {args.samples} samples")
    print(f"  {'values':12} {merging:7.3f}  once a row")
    print(f"suite, {args.rows} rows: {total * to_hour:.1f} s on one core")
    size = sum(value.nbytes for value in parts[0].values())
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    print(f"sums of a clip: {size} bytes; peak memory {peak:.0f} MB for {count} clips")
    return 1 if args.bound is not None and total * to_hour > args.bound else 0


if __name__ == "__main__":
    sys.exit(main())
