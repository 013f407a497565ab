"""Baselines: predictions without the audio, linear ones, or derived from the true motion.

constant_mean   the training set's mean pose; the reference of RMSE ratios
emotion_mean    the mean pose of the clip's emotions, blended by the emotion vector
another_take    true curves of a training clip (of the same subject and emotion if possible),
                repeated to length: the right motion at the wrong time
shifted_1/2/5   the truth, 1, 2 and 5 frames late: the cost of 20, 40 and 100 ms
rolled          the model's prediction rolled by 0.6 s: chance level of closures and timing
shuffled_audio  the model's prediction for another clip of the split (of the same subject if
                possible), cut or repeated to length: a likely motion to other words
ridge           linear regression from log-mel around each frame; see `speech_regression`
log_energy      linear regression from the frame's loudness
viseme_rule     a table of lip shapes by phone, smoothed; see `visemes`
second_take     the truth of another take of the same sentence by the same person with the same
                emotion, warped in time: the floor; see `second_takes`

The last five are there for the clips that allow them.
"""

from __future__ import annotations

import dataclasses
import functools
import zlib
from collections.abc import Sequence

import numpy as np

from a2fjax.configuration import DataConfig
from a2fjax.data import records
from a2fjax.data.dataset import ClipSource
from a2fjax.evaluation import second_takes, speech_features, speech_regression, visemes
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
    "shuffled_audio",
    "ridge",
    "log_energy",
    "viseme_rule",
    "second_take",
)


@dataclasses.dataclass(frozen=True)
class TrainingStatistics:
    """Statistics of the training set for the baselines.

    Attributes:
      mean: [72] mean pose.
      emotion_mean: [5, 72] mean pose per emotion; the overall mean for a missing emotion.
      takes: training clips.
      emotions: strongest emotion of each training clip.
      measured: True if the clips to measure stand in for training clips, so that nothing may be
        fitted on them.
    """

    mean: np.ndarray
    emotion_mean: np.ndarray
    takes: ClipSource
    emotions: tuple[str, ...]
    measured: bool = False

    @functools.cached_property
    def regressions(self) -> dict[str, speech_regression.Regression]:
        """Linear regressions on the training clips by name, fitted when first used."""
        return {} if self.measured else speech_regression.fit(self.takes, self.mean)


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
    sample: EvalClip,
    prediction: np.ndarray,
    known: TrainingStatistics,
    *,
    seed: int,
    shuffled: np.ndarray | None = None,
    takes: second_takes.SecondTakes | None = None,
    rule: visemes.Rule | None = None,
) -> dict[str, np.ndarray]:
    """Returns the curves [T, 72] of every baseline for a clip, by name.

    Args:
      sample: the clip.
      prediction: [T, 72] prediction of the model, for `rolled`.
      known: statistics of the training set.
      seed: seed for choosing another take.
      shuffled: [N, 72] prediction of the model for another clip, or None.
      takes: finds second takes; None for no such baseline.
      rule: viseme rule for clips whose phones are known; None for no such baseline.
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
    if shuffled is not None:
        out["shuffled_audio"] = fit_length(shuffled, frames)
    power = speech_features.power(sample.clip)
    for name, regression in known.regressions.items():
        out[name] = regression.curves(power)
    if rule is not None and sample.truth.phones:
        out["viseme_rule"] = rule.curves(sample.truth.phones, frames)
    second = None if takes is None else takes.find(sample.folder, sample.clip, power)
    if second is not None:
        out["second_take"] = second
    return out


def other_clip(index: int, samples: Sequence[EvalClip], *, seed: int) -> int | None:
    """Returns the index of another clip, of the same subject if possible; None if there is none."""
    sample = samples[index]
    others = [i for i in range(len(samples)) if i != index]
    choice = [i for i in others if samples[i].subject == sample.subject] or others
    if not choice:
        return None
    key = zlib.crc32(sample.clip.id.encode())
    return choice[int(np.random.default_rng([seed, key, 4]).integers(len(choice)))]


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
