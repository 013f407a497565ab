r"""Leave-one-out evaluation on one speaker's real takes: regression model, ridge, log energy.

    python benchmarks/real_takes.py FOLDER --workdir DIR [--steps 400] [--seeds 0,1] [--takes A,B]
        [--out JSON] [--mix SHARDS=WEIGHT] [--config.audio.features=mel,whisper:PATH]
        [--config.any.other.key=VALUE]

FOLDER holds NAME.npz with curves next to NAME.wav (see `data_pipeline.sources.tables`). Each take
in turn is the test; a fold is

1. the clocks' offset, estimated by `data_pipeline.build` on a folder of the training takes alone;
2. shards of all takes with that offset, with the test take in split test_sentences;
3. an ordinary training run (`a2fjax.training.trainer.train`) on the others for every seed: log-mel
   by default, no identity; speech encoders among the features are cached next to the shards;
4. ridge regression on log-mel, +-0.24 s, with a penalty chosen by leaving out one training take at
   a time (for encoders: `frontends_ridge.py`); and a linear fit to log energy, with a lag chosen on
   the training takes.

With `--mix`, training also uses shards of other subjects, with windows drawn from them at a ratio
of WEIGHT to 1. Several seeds are also evaluated as one predictor, the mean of their curves
("averaged").

With `--validate`, the test take is excluded entirely and the next training take, cyclically,
replaces it, so that settings can be chosen without using the test take.

Results cover the test take's valid frames at 50 per second, over all clips of the take: R^2 about
the take's mean, Pearson's r, and the model's lag on the aperture (positive is late). Existing
results in DIR are reused; runs are identified by their settings.
"""

from __future__ import annotations

import argparse
import dataclasses
import json
import shutil
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from a2fjax import rig
from a2fjax.data import records
from a2fjax.data.dataset import ClipSource
from a2fjax.errors import InputError, nearest
from a2fjax.metrics import energy, lips, silence, timing
from a2fjax.metrics.sums import merge

CHANNELS = ("jawOpen", "mouthRollUpper")
METHODS = ("model", "averaged", "ridge", "energy")
CONTEXT = 12
PENALTIES = tuple(float(10**e) for e in np.arange(1.0, 6.1, 0.5))
LAGS = tuple(range(-5, 6))
MODEL = {
    "name": "real_takes",
    "data.batch_size": "16",
    "data.window_frames": "128",
    "data.augment.speed": "0.05",
    "model.conv_width": "128",
    "model.recurrent_width": "128",
    "model.identity": "none",
    "optim.warmup_steps": "50",
    "optim.ema_decay": "0.98",
    "checkpoint.every_steps": "1000000",
    "checkpoint.keep_best": "0",
    "eval.every_steps": "0",
    "log.every_steps": "50",
}


@dataclasses.dataclass(frozen=True)
class Part:
    """One clip of a take in the form used by the linear baselines.

    Attributes:
      features: [T, F] of the front end, and [T] loudness in dB.
      loudness: [T] dB relative to the speech level.
      target: [T, C] selected channels.
      good: [T] bool, valid frames.
    """

    features: np.ndarray
    loudness: np.ndarray
    target: np.ndarray
    good: np.ndarray


def find_takes(folder: Path) -> list[str]:
    """Returns the names of the takes, sorted.

    Raises:
      InputError: fewer than three takes; one is for testing, two for choosing the penalty.
    """
    names = sorted(p.stem for p in folder.glob("*.npz") if p.with_suffix(".wav").is_file())
    if len(names) < 3:
        raise InputError(f"{folder}: {len(names)} takes (.npz beside .wav), expected at least 3")
    return names


def find_offset(folder: Path, takes: Sequence[str], workdir: Path) -> float:
    """Returns the clock offset in seconds that the pipeline estimates from these takes only."""
    only = _linked(folder, takes, workdir / "training_takes")
    found = _build(only, workdir / "offset").source["offsets"]
    ((_, offset),) = found.items()
    return float(offset["seconds"])


def stack_context(features: np.ndarray, reach: int = CONTEXT) -> np.ndarray:
    """Stacks features [T, F] of +-reach neighbouring frames to [T, (2 reach + 1) F].

    Frames beyond the clip repeat its first or last frame.
    """
    frames = np.arange(len(features))
    steps = np.arange(-reach, reach + 1)
    index = np.clip(frames[:, None] + steps, 0, len(features) - 1)
    return features[index].reshape(len(features), -1)


class Ridge:
    """Ridge regression with an unpenalised intercept, from summed normal equations of takes."""

    def __init__(self, takes: Sequence[Sequence[Part]], reach: int = CONTEXT):
        """Reduces each take to sums of products, with +-reach frames of context."""
        self.reach = reach
        self.sums = [self._reduce(parts) for parts in takes]

    def fit(self, members: Sequence[int], penalty: float) -> tuple[np.ndarray, np.ndarray]:
        """Returns (weights [F, C], intercept [C]) fitted on the takes with these indices."""
        n, x, y, xx, xy = (sum(s[i] for s in (self.sums[m] for m in members)) for i in range(5))
        mean_x, mean_y = x / n, y / n
        gram = xx - n * np.outer(mean_x, mean_x)
        gram[np.diag_indices_from(gram)] += penalty
        weights = np.linalg.solve(gram, xy - n * np.outer(mean_x, mean_y))
        return weights, mean_y - mean_x @ weights

    def choose(self, members: Sequence[int], penalties: Sequence[float]) -> float:
        """Returns the penalty with the lowest leave-one-out error on the training takes."""
        errors = [
            sum(self._error(m, *self.fit([k for k in members if k != m], p)) for m in members)
            for p in penalties
        ]
        return float(penalties[int(np.argmin(errors))])

    def _error(self, member: int, weights: np.ndarray, intercept: np.ndarray) -> float:
        """Returns a take's squared error relative to each channel's variance, from sums only."""
        n, x, y, xx, xy, yy = self.sums[member]
        error = (
            yy
            - 2 * ((weights * xy).sum(0) + intercept * y)
            + (weights * (xx @ weights)).sum(0)
            + 2 * intercept * (x @ weights)
            + n * intercept**2
        )
        return float((error / np.maximum(yy - y**2 / n, 1e-9)).sum())

    def _reduce(self, parts: Sequence[Part]) -> tuple[Any, ...]:
        x = np.concatenate([stack_context(p.features, self.reach)[p.good] for p in parts])
        x = x.astype(np.float64)
        y = np.concatenate([p.target[p.good] for p in parts]).astype(np.float64)
        return len(x), x.sum(0), y.sum(0), x.T @ x, x.T @ y, (y**2).sum(0)


def shift(values: np.ndarray, frames: int) -> np.ndarray:
    """Delays values [T] by a number of frames, repeating the ends."""
    index = np.clip(np.arange(len(values)) - frames, 0, len(values) - 1)
    return values[index]


def fit_energy(takes: Sequence[Sequence[Part]], channel: int) -> tuple[int, float, float]:
    """Returns (lag in frames, slope, intercept) of a channel on log energy over training takes."""
    parts = [p for take in takes for p in take]
    y = np.concatenate([p.target[p.good, channel] for p in parts])
    best = max(LAGS, key=lambda k: _correlation(_delayed(parts, k), y))
    slope, intercept = np.polyfit(_delayed(parts, best), y, 1)
    return best, float(slope), float(intercept)


def score(prediction: np.ndarray, truth: np.ndarray) -> dict[str, float]:
    """Returns {"r2", "r"} of curves [N]."""
    residual = ((prediction - truth) ** 2).sum()
    return {
        "r2": float(1 - residual / ((truth - truth.mean()) ** 2).sum()),
        "r": _correlation(prediction, truth),
    }


def run_fold(
    folder: Path,
    takes: Sequence[str],
    test: str,
    workdir: Path,
    args: argparse.Namespace,
    overrides: dict[str, str],
) -> dict[str, Any]:
    """Trains and evaluates one fold; see the module."""
    channels = [rig.channel_index(name) for name in args.channels.split(",")]
    training = [take for take in takes if take != test]
    start = time.monotonic()
    offset = find_offset(folder, training, workdir)
    used = _linked(folder, takes, workdir / "takes")
    _build(used, workdir / "shards", offset=f"{offset:.6f}", test_sentences=(test,))
    extra = _mixture(args.mix)
    models = [_train(workdir, args, overrides, seed, extra) for seed in args.seeds.split(",")]

    clips = {split: _clips(workdir / "shards", split) for split in ("train", "test_sentences")}
    held = {_take(clip) for clip in clips["test_sentences"]}
    if held != {test} or {_take(clip) for clip in clips["train"]} != set(training):
        raise InputError(f"{workdir}: the split {sorted(held)} is not the take {test!r}")
    parts = {take: [] for take in takes}
    for clip in (*clips["train"], *clips["test_sentences"]):
        parts[_take(clip)].append(_part(clip, channels))

    from a2fjax.infer.predictor import Request

    requests = [Request(c.audio, None, c.emotion, c.speech_level) for c in clips["test_sentences"]]
    predicted = [model.batch(requests) for model in models]
    good = [c.frame_mask for c in clips["test_sentences"]]
    by_model = [
        np.concatenate([m[g][:, channels] for m, g in zip(motions, good, strict=True)])
        for motions in predicted
    ]
    truth = np.concatenate([p.target[p.good] for p in parts[test]])

    ridge = Ridge([parts[take] for take in training])
    members = range(len(training))
    penalty = ridge.choose(members, PENALTIES)
    weights, intercept = ridge.fit(members, penalty)
    by_ridge = np.concatenate(
        [stack_context(p.features)[p.good] @ weights + intercept for p in parts[test]]
    )
    lags = [
        timing.sums(
            lips.aperture(m, c.channel_mask),
            lips.aperture(c.motion, c.channel_mask),
            frame_mask=c.frame_mask,
        )
        for motions in predicted
        for m, c in zip(motions, clips["test_sentences"], strict=True)
    ]
    result: dict[str, Any] = {
        "test": test,
        "offset_ms": 1000 * offset,
        "penalty": penalty,
        "frames": len(truth),
        "lag_ms": float(timing.values(merge(lags))["xcorr_lag_ms"]),
        "seconds": time.monotonic() - start,
        "channels": {},
    }
    for c, name in enumerate(args.channels.split(",")):
        lag, slope, constant = fit_energy([parts[take] for take in training], c)
        by_energy = slope * _delayed(parts[test], lag) + constant
        result["channels"][name] = {
            "model": _mean([score(found[:, c], truth[:, c]) for found in by_model]),
            "seeds": [score(found[:, c], truth[:, c]) for found in by_model],
            "averaged": score(np.mean([found[:, c] for found in by_model], axis=0), truth[:, c]),
            "ridge": score(by_ridge[:, c], truth[:, c]),
            "energy": {**score(by_energy, truth[:, c]), "lag_ms": 1000 * lag / rig.FPS},
            "deviation": float(truth[:, c].std()),
        }
    return result


def _mean(scores: Sequence[dict[str, float]]) -> dict[str, float]:
    return {key: float(np.mean([s[key] for s in scores])) for key in ("r2", "r")}


def table(result: dict[str, Any]) -> str:
    """Formats the results as aligned text: R^2 / r of each method by channel and test take."""
    form = "{:<16}{:<12}{:>16}{:>16}{:>16}{:>16}{:>9}{:>11}"
    heads = ("R2 / r", "test take", *METHODS, "lag ms", "offset ms")
    lines = [form.format(*heads)]
    for name in result["channels"]:
        rows = [fold["channels"][name] for fold in result["folds"]]
        for fold, row in zip(result["folds"], rows, strict=True):
            cells = [_pair(row[method]) for method in METHODS]
            clock = f"{fold['lag_ms']:+.1f}", f"{fold['offset_ms']:+.1f}"
            lines.append(form.format(name, fold["test"], *cells, *clock))
        mean = [_mean([row[method] for row in rows]) for method in METHODS]
        lines.append(form.format(name, "mean", *map(_pair, mean), "", ""))
    return "\n".join(lines)


def main(argv: Sequence[str] | None = None) -> int:
    """Runs the benchmark and returns the exit code."""
    parser = argparse.ArgumentParser(
        prog="real_takes.py", description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("folder", type=Path, help="takes: .npz beside .wav")
    parser.add_argument("--workdir", type=Path, required=True, help="shards and runs of the folds")
    parser.add_argument("--steps", type=int, default=400, help="training steps a fold")
    parser.add_argument("--seeds", default="0", help="a training run each (default: 0)")
    parser.add_argument("--validate", action="store_true", help="test on a training take instead")
    parser.add_argument("--takes", help="only these as tests (default: every take in turn)")
    parser.add_argument("--mix", default="", help="SHARDS=WEIGHT, other shards to train on as well")
    parser.add_argument("--channels", default=",".join(CHANNELS), help="which are measured")
    parser.add_argument("--out", type=Path, help="default: WORKDIR/real_takes.json")
    parser.add_argument("--fresh", action="store_true", help="use nothing that was done before")
    args, extra = parser.parse_known_args(argv)
    from a2fjax import configuration as config_lib
    from a2fjax.evaluation import report

    try:
        overrides = config_lib.parse_overrides(extra)
        takes = find_takes(args.folder)
        tests = args.takes.split(",") if args.takes else takes
        for name in tests:
            if name not in takes:
                raise InputError(f"--takes: no take {name!r}{nearest(name, takes)}")
        folds = []
        for test in tests:
            workdir = args.workdir / f"without_{test}"
            if args.fresh and workdir.exists():
                shutil.rmtree(workdir)
            used, on = takes, test
            if args.validate:
                on = takes[(takes.index(test) + 1) % len(takes)]
                used = [take for take in takes if take != test]
            print(f"fold {len(folds) + 1}/{len(tests)}: test on {on}", flush=True)
            folds.append(run_fold(args.folder, used, on, workdir, args, overrides))
            for name, row in folds[-1]["channels"].items():
                shown = ", ".join(f"{k} {_pair(row[k])}" for k in METHODS)
                print(f"{test} {name}: R2 / r: {shown}", flush=True)
        result = {
            "schema": 1,
            "folds": folds,
            "channels": args.channels.split(","),
            "steps": args.steps,
            "seeds": args.seeds.split(","),
            "overrides": overrides,
            "validate": args.validate,
            "synthetic": False,
            "rig": rig.FINGERPRINT,
        }
        out = args.out or args.workdir / "real_takes.json"
        report.write(out, json.loads(json.dumps(result)))
    except InputError as error:
        print(f"real_takes.py: error: {error}", file=sys.stderr)
        return 2
    print(table(result))
    print(f"report: {out}")
    return 0


def _linked(folder: Path, takes: Sequence[str], to: Path) -> Path:
    """Returns a folder with links to these takes only."""
    to.mkdir(parents=True, exist_ok=True)
    for take in takes:
        for ending in (".npz", ".wav"):
            link = to / f"{take}{ending}"
            if not link.exists():
                link.symlink_to((folder / link.name).resolve())
    return to


def _build(source: Path, out: Path, **settings: Any) -> records.Manifest:
    from data_pipeline.build import build
    from data_pipeline.settings import BuildSettings

    shares = {"val": 0.0, "test": 0.0, "held_out_share": 0.0}
    return build(source, out, "table", BuildSettings(**shares, **settings), workers=0)


def _mixture(text: str) -> dict[str, str]:
    """Parses a `--mix` argument to {folder: weight}."""
    if not text:
        return {}
    folder, equals, weight = text.rpartition("=")
    if not equals:
        raise InputError(f"--mix {text}: expected SHARDS=WEIGHT, such as demo/shards=0.5")
    return {folder: weight}


def _train(
    workdir: Path,
    args: argparse.Namespace,
    overrides: dict[str, str],
    seed: str,
    extra: dict[str, str],
) -> Any:
    from a2fjax import configuration as config_lib
    from a2fjax.data.feature_cache import writer
    from a2fjax.infer.predictor import Predictor
    from a2fjax.models import pretrained
    from a2fjax.training import trainer

    folders = [str(workdir / "shards"), *extra]
    values = MODEL | {"data.shards": ",".join(folders), "steps": str(args.steps), "seed": seed}
    if extra:
        values["data.weights"] = ",".join(["1", *extra.values()])
    config = config_lib.load(None, values | overrides).config
    if ":" in ",".join(config.audio.features) and config.audio.encoder.train_from is None:
        values["data.encoder_features"] = "cached"
        for encoder, params in pretrained.load(config.audio).values():
            for folder in folders:
                writer.write(folder, encoder, params)
    resolved = config_lib.load(None, values | overrides)
    run = workdir / f"run_{config_lib.fingerprint(resolved.config)}"
    trainer.train(resolved, run)
    return Predictor.load(run)


def _clips(folder: Path, split: str) -> list[records.Clip]:
    source = ClipSource([folder], split, on_bad="raise")
    return [source[i] for i in range(len(source))]


def _take(clip: records.Clip) -> str:
    return clip.id.partition("/")[2].partition("#")[0]


def _part(clip: records.Clip, channels: Sequence[int]) -> Part:
    from a2fjax.audio import HOP, level
    from a2fjax.audio.frontend import Frontend
    from a2fjax.configuration import AudioConfig

    audio = np.zeros(clip.frames * HOP, np.float32)
    audio[: len(clip.audio)] = level.normalise(clip.audio, clip.speech_level)
    features = np.asarray(Frontend(AudioConfig()).features(audio[None]))[0]
    levels = silence.frame_level(clip.audio, clip.frames)
    loudness = energy.log_level(levels, clip.speech_level)
    return Part(features[: clip.frames], loudness, clip.motion[:, channels], clip.frame_mask)


def _delayed(parts: Sequence[Part], lag: int) -> np.ndarray:
    return np.concatenate([shift(p.loudness, lag)[p.good] for p in parts])


def _correlation(a: np.ndarray, b: np.ndarray) -> float:
    a, b = a - a.mean(), b - b.mean()
    return float(a @ b / max(np.sqrt((a @ a) * (b @ b)), 1e-12))


def _pair(values: dict[str, float]) -> str:
    return f"{values['r2']:.3f} / {values['r']:.3f}"


if __name__ == "__main__":
    sys.exit(main())
