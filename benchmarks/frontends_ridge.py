r"""Ridge regression from each front end to real takes, with leave-one-out evaluation.

    python benchmarks/frontends_ridge.py FOLDER WEIGHTS... --workdir DIR [--pad] [--out JSON]

FOLDER holds NAME.npz with curves next to NAME.wav (see `data_pipeline.sources.tables`), WEIGHTS are
Whisper encoders (see `a2fjax.encoders.whisper.weights`). Each take in turn is the test take:

  - inputs: log-mel (13 frames within +-0.24 s), every state of every encoder (5 frames within
    +-0.12 s), and log-mel with the state selected on the training takes; each feature is divided by
    its standard deviation over the training takes;
  - penalty and state are chosen by leaving out one training take at a time;
  - time offsets are those of the files (none is estimated, because the context covers them).

Every second frame is fitted (the curves were filmed at 30 frames per second). Results are R^2 about
the test take's mean and Pearson's r, over its valid frames at 50 per second. The chosen state is
also evaluated on crops of 2.56 s, with the regression fitted on whole clips: with the crop at the
window's start, and with the crop at its original position.
"""

from __future__ import annotations

import argparse
import functools
import importlib.util
import itertools
import json
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from a2fjax import rig
from a2fjax.audio import HOP, level
from a2fjax.errors import InputError

MEL_TAPS = tuple(range(-12, 13, 2))
STATE_TAPS = (-6, -3, 0, 3, 6)
PENALTIES = tuple(float(10**e) for e in (-2.0, -1.5, -1.0, -0.5, 0.0, 0.5))
"""Relative to the number of frames; the variance of every feature is 1."""

CROP = 128  # Frames, 2.56 s.


def _sibling(name: str) -> Any:
    """Imports another benchmark; the folder is not a package."""
    spec = importlib.util.spec_from_file_location(name, Path(__file__).with_name(f"{name}.py"))
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module
    spec.loader.exec_module(module)
    return module


real_takes = _sibling("real_takes")


def stack(features: np.ndarray, taps: Sequence[int]) -> np.ndarray:
    """Stacks features [T, F] at t + each tap to [T, taps F], repeating the ends."""
    index = np.clip(np.arange(len(features))[:, None] + np.array(taps), 0, len(features) - 1)
    return features[index].reshape(len(features), -1)


class Ridge:
    """Ridge regression on scaled features from sums of products, one set of sums per take."""

    def __init__(self, takes: Sequence[tuple[np.ndarray, np.ndarray]]):
        """Reduces takes with inputs [N, F] and targets [N, C], using every second frame."""
        self.sums = []
        for x, y in takes:
            x, y = x[::2].astype(np.float64), y[::2].astype(np.float64)
            self.sums.append((len(x), x.sum(0), y.sum(0), x.T @ x, x.T @ y, (y**2).sum(0)))
        self._cache: dict[frozenset[int], list[np.ndarray]] = {}

    def fits(self, members: Sequence[int]) -> list[np.ndarray]:
        """Returns weights [F + 1, C] for every penalty; the last row is the intercept."""
        import scipy.linalg

        key = frozenset(members)
        if key not in self._cache:
            parts = [self.sums[m] for m in sorted(key)]
            n, x, y, xx, xy = (functools.reduce(np.add, (p[i] for p in parts)) for i in range(5))
            gram = xx - np.outer(x, x) / n
            scale = np.sqrt(np.maximum(np.diagonal(gram) / n, 1e-12))
            # The penalty keeps the condition number near 1e4, so single precision suffices.
            gram = (gram / (scale[:, None] * scale)).astype(np.float32)
            right = ((xy - np.outer(x, y) / n) / scale[:, None]).astype(np.float32)
            solved = []
            for penalty in PENALTIES:
                system = gram.copy()
                system[np.diag_indices_from(system)] += n * penalty
                w = scipy.linalg.cho_solve(scipy.linalg.cho_factor(system, overwrite_a=True), right)
                w = w.astype(np.float64) / scale[:, None]
                solved.append(np.vstack([w, (y - x @ w) / n]))
            self._cache[key] = solved
        return self._cache[key]

    def errors(self, members: Sequence[int]) -> np.ndarray:
        """Returns the leave-one-out error [penalties] of the members in units of variance."""
        out = np.zeros(len(PENALTIES))
        for m in members:
            n, x, y, xx, xy, yy = self.sums[m]
            for p, fit in enumerate(self.fits([k for k in members if k != m])):
                w, b = fit[:-1], fit[-1]
                error = yy - 2 * ((w * xy).sum(0) + b * y) + (w * (xx @ w)).sum(0)
                error += 2 * b * (x @ w) + n * b**2
                out[p] += (error / np.maximum(yy - y**2 / n, 1e-9)).mean() / len(members)
        return out


class Takes:
    """Clips of every take with targets and features by input name."""

    def __init__(self, clips: dict[str, list[Any]], channels: Sequence[int]):
        """Groups clips by take."""
        self.clips = clips
        self.targets = {
            take: np.concatenate([c.motion[c.frame_mask][:, channels] for c in parts])
            for take, parts in clips.items()
        }

    def inputs(self, features: Callable[[Any], np.ndarray], taps: Sequence[int]) -> list[Any]:
        """Returns [states][N, F] of every take, stacked from features [states, T, D] per clip."""
        out = []
        for parts in self.clips.values():
            rows = []
            for clip in parts:
                states = features(clip)
                rows.append([stack(s, taps)[clip.frame_mask] for s in states])
            out.append([np.concatenate(states) for states in zip(*rows, strict=True)])
        return out


def padded(clip: Any) -> np.ndarray:
    """Returns a clip's audio at the training level, with one hop per frame."""
    audio = np.zeros(clip.frames * HOP, np.float32)
    found = level.normalise(clip.audio, clip.speech_level)[: len(audio)]
    audio[: len(found)] = found
    return audio


def mel_features(clip: Any) -> np.ndarray:
    """Returns [1, T, 80] log-mel of a clip."""
    from a2fjax.audio.frontend import Frontend
    from a2fjax.configuration import AudioConfig

    return np.asarray(Frontend(AudioConfig(features=("mel",))).features(padded(clip)[None]))


def state_features(encoder: Any, params: Any) -> Callable[[Any], np.ndarray]:
    """Returns a function that maps a clip to all states [layers + 1, T, D]."""
    from a2fjax.encoders import whisper

    def features(clip: Any) -> np.ndarray:
        return whisper.encode_chunked(encoder, params, padded(clip)[None], all_layers=True)[:, 0]

    return features


def crop_features(encoder: Any, params: Any, state: int, own: bool) -> Callable[[Any], np.ndarray]:
    """Returns a function that maps a clip to one state [1, T, D], computed per crop."""
    import jax

    @jax.jit
    def run(audio: Any, first: Any) -> Any:
        states = encoder.apply(params, audio, first=first, all_layers=True)
        return states[state]

    def features(clip: Any) -> np.ndarray:
        audio = padded(clip)
        frames = len(audio) // HOP
        audio = np.pad(audio, (0, -len(audio) % (CROP * HOP)))
        crops = audio.reshape(-1, CROP * HOP)
        first = np.minimum(np.arange(len(crops)) * CROP, encoder.positions - CROP) * own
        return np.asarray(run(crops, first)).reshape(1, -1, encoder.width)[:, :frames]

    return features


def evaluate(args: argparse.Namespace) -> dict[str, Any]:
    """Returns the results {input: {channel: [{"r2", "r"} per test take]}} and the choices."""
    from a2fjax.encoders import whisper

    names = real_takes.find_takes(args.folder)
    wanted = args.channels.split(",")
    channels = [rig.channel_index(name) for name in wanted]
    real_takes._build(args.folder, args.workdir / "shards", offset="0")
    takes: dict[str, list[Any]] = {name: [] for name in names}
    for clip in real_takes._clips(args.workdir / "shards", "train"):
        takes[real_takes._take(clip)].append(clip)
    data = Takes(takes, channels)
    targets = [data.targets[name] for name in names]
    folds = range(len(names))
    result: dict[str, Any] = {"inputs": {}, "chosen": {}}

    def train(of: int) -> list[int]:
        return [k for k in folds if k != of]

    def reduce(inputs: Sequence[np.ndarray]) -> Ridge:
        return Ridge(list(zip(inputs, targets, strict=True)))

    def fit(ridge: Ridge, of: int) -> np.ndarray:
        return ridge.fits(train(of))[int(np.argmin(ridge.errors(train(of))))]

    def record(label: str, of: int, weights: np.ndarray, inputs: np.ndarray) -> None:
        predicted = inputs @ weights[:-1] + weights[-1]
        rows = result["inputs"].setdefault(label, {name: [] for name in wanted})
        for c, name in enumerate(wanted):
            rows[name].append(real_takes.score(predicted[:, c], targets[of][:, c]))

    def say(label: str) -> None:
        cells = [
            f"{name} {_mean(rows, 'r2'):.3f} / {_mean(rows, 'r'):.3f}"
            for name, rows in result["inputs"][label].items()
        ]
        print(f"{label:<40} {', '.join(cells)}   [{time.monotonic() - start:.0f} s]", flush=True)

    start = time.monotonic()
    by_mel = [states[0] for states in data.inputs(mel_features, MEL_TAPS)]
    ridge = reduce(by_mel)
    for of in folds:
        record("log-mel", of, fit(ridge, of), by_mel[of])
    say("log-mel")
    for path in args.weights:
        encoder, params = whisper.load(path, pad=args.pad)
        short = path.stem.removesuffix("_f16").removesuffix("_encoder")
        states = data.inputs(state_features(encoder, params), STATE_TAPS)
        least = np.zeros((encoder.layers + 1, len(names)))
        weights: dict[tuple[int, int], np.ndarray] = {}
        for state in range(encoder.layers + 1):
            ridge = reduce([take[state] for take in states])
            for of in folds:
                weights[state, of] = fit(ridge, of)
                least[state, of] = ridge.errors(train(of)).min()
                record(f"{short} state {state}", of, weights[state, of], states[of][state])
            say(f"{short} state {state}")
        chosen = [int(s) for s in least.argmin(0)]
        result["chosen"][short] = chosen
        both = {
            s: [np.hstack([m, t[s]]) for m, t in zip(by_mel, states, strict=True)]
            for s in sorted(set(chosen))
        }
        ridges = {s: reduce(inputs) for s, inputs in both.items()}
        crops = {
            (s, own): data.inputs(crop_features(encoder, params, s, own), STATE_TAPS)
            for s, own in itertools.product(both, (False, True))
            if not (own and encoder.pad)
        }
        for of, state in enumerate(chosen):
            record(f"{short} chosen state", of, weights[state, of], states[of][state])
            record(f"log-mel + {short} chosen state", of, fit(ridges[state], of), both[state][of])
            for (s, own), found in crops.items():
                if s == state:
                    where = "own place" if own else "place 0"
                    label = f"{short} chosen, crops at {where}"
                    record(label, of, weights[state, of], found[of][0])
        for label in [k for k in result["inputs"] if short in k and "chosen" in k]:
            say(label)
    return result | {"takes": names, "pad": args.pad, "rig": rig.FINGERPRINT}


def table(result: dict[str, Any]) -> str:
    """Formats the results as aligned text: R^2 / r by input, channel and test take."""
    takes = result["takes"]
    lines = [f"{'R2 / r':<40}{'':<16}" + "".join(f"{t:>16}" for t in [*takes, "mean"])]
    for label, channels in result["inputs"].items():
        for name, rows in channels.items():
            mean = {"r2": _mean(rows, "r2"), "r": _mean(rows, "r")}
            cells = "".join(f"{row['r2']:>8.3f} /{row['r']:>6.3f}" for row in [*rows, mean])
            lines.append(f"{label:<40}{name:<16}{cells}")
    for short, chosen in result["chosen"].items():
        lines.append(f"{short}: states chosen on the training takes: {chosen}")
    return "\n".join(lines)


def main(argv: Sequence[str] | None = None) -> int:
    """Runs the benchmark and returns the exit code."""
    parser = argparse.ArgumentParser(
        prog="frontends_ridge.py",
        description=__doc__,
        formatter_class=argparse.RawTextHelpFormatter,
    )
    parser.add_argument("folder", type=Path, help="takes: .npz beside .wav")
    parser.add_argument("weights", type=Path, nargs="*", help="Whisper encoders")
    parser.add_argument("--workdir", type=Path, required=True, help="for the takes' shards")
    parser.add_argument("--pad", action="store_true", help="hear clips in 30 s of silence")
    parser.add_argument("--channels", default=",".join(real_takes.CHANNELS))
    parser.add_argument("--out", type=Path, help="default: WORKDIR/frontends_ridge.json")
    args = parser.parse_args(argv)
    from a2fjax.evaluation import report

    try:
        result = evaluate(args)
        out = args.out or args.workdir / "frontends_ridge.json"
        report.write(out, json.loads(json.dumps(result)))
    except InputError as error:
        print(f"frontends_ridge.py: error: {error}", file=sys.stderr)
        return 2
    print(table(result))
    print(f"report: {out}")
    return 0


def _mean(rows: Sequence[dict[str, float]], key: str) -> float:
    return float(np.mean([row[key] for row in rows]))


if __name__ == "__main__":
    sys.exit(main())
