"""Baselines: predictions without the audio, or derived from the true motion.

constant_mean   the training set's mean pose; the reference of RMSE ratios
emotion_mean    the mean pose of the clip's emotions, blended by the emotion vector
another_take    true curves of a training clip (of the same subject and emotion if possible),
                repeated to length: the right motion at the wrong time
shifted_1/2/5   the truth, 1, 2 and 5 frames late: the cost of 20, 40 and 100 ms
rolled          the model's prediction rolled by 0.6 s: chance level of closures and timing
"""

from __future__ import annotations

import dataclasses
import zlib
from collections.abc import Sequence

import numpy as np

from a2fjax.configuration import DataConfig
from a2fjax.data import records
from a2fjax.data.dataset import ClipSource
from a2fjax.evaluation.eval_clips import EvalClip
from a2fjax.tasks import statistics

SHIFTS = (1, 2, 5)
ROLL_FRAMES = 30
NAMES = (
    "constant_mean",
    "emotion_mean",
    "another_take",
    *(f"shifted_{k}" for k in SHIFTS),
    "rolled",
)


@dataclasses.dataclass(frozen=True)
class TrainingStatistics:
    """Statistics of the training set for the baselines.

    Attributes:
      mean: [72] mean pose.
      emotion_mean: [5, 72] mean pose per emotion; the overall mean for a missing emotion.
      takes: training clips.
      emotions: strongest emotion of each training clip.
    """

    mean: np.ndarray
    emotion_mean: np.ndarray
    takes: ClipSource
    emotions: tuple[str, ...]


def training_statistics(
    folders: Sequence[str], split: str = "train", weights: Sequence[float] = ()
) -> TrainingStatistics:
    """Reads the statistics of a training set; clips are read on demand.

    Args:
      folders: folders of shards.
      split: name of the training split.
      weights: as in `data.weights`; the means are those of the training mixture.

    Raises:
      InputError: no such folder or split, or weights that do not fit the datasets.
    """
    takes = ClipSource(folders, split)
    data = DataConfig(shards=tuple(folders), split=split, weights=tuple(weights))
    amounts = statistics.dataset_weights(data, folders, takes.manifests)
    mean = statistics.motion_statistics(takes.manifests, split, amounts)[0]
    table = statistics.emotion_means(takes.manifests, split, amounts)
    emotions = [e["emotion"] for manifest in takes.manifests for e in manifest.entries(split)]
    return TrainingStatistics(mean, table, takes, tuple(emotions))


def predictions(
    sample: EvalClip, prediction: np.ndarray, known: TrainingStatistics, *, seed: int
) -> dict[str, np.ndarray]:
    """Returns the curves [T, 72] of every baseline for a clip, by name.

    Args:
      sample: the clip.
      prediction: [T, 72] prediction of the model, for `rolled`.
      known: statistics of the training set.
      seed: seed for choosing another take.
    """
    truth, frames = sample.clip.motion, sample.clip.frames
    out = {
        "constant_mean": np.broadcast_to(known.mean, truth.shape),
        "emotion_mean": sample.clip.emotion @ known.emotion_mean,
        "another_take": fit_length(_other_take(sample, known, seed).motion, frames),
    }
    for shift in SHIFTS:
        out[f"shifted_{shift}"] = truth[np.maximum(np.arange(frames) - shift, 0)]
    out["rolled"] = np.roll(prediction, ROLL_FRAMES, axis=0)
    return out


def fit_length(values: np.ndarray, frames: int) -> np.ndarray:
    """Cuts values [N, ...], or repeats them from the start, to [frames, ...]."""
    return values[np.arange(frames) % len(values)]


def _other_take(sample: EvalClip, known: TrainingStatistics, seed: int) -> records.Clip:
    entries = known.takes.entries
    others = [i for i, entry in enumerate(entries) if entry.id != sample.clip.id]
    same = [i for i in others if known.emotions[i] == sample.emotion]
    own_subject = [i for i in same if entries[i].subject == sample.clip.subject]
    choice = own_subject or same or others or range(len(entries))
    draw = np.random.default_rng([seed, zlib.crc32(sample.clip.id.encode())]).integers(len(choice))
    return known.takes[choice[int(draw)]]
