"""Computes the constants of NVIDIA's networks: motion moments, actors and clip offsets."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np

from a2fjax import rig
from a2fjax.configuration import Config, NvidiaConfig
from a2fjax.data import records, subjects
from a2fjax.data.dataset import ClipSource
from a2fjax.errors import InputError
from a2fjax.models import conditioning
from a2fjax.models.nvidia import model as nvidia_model
from a2fjax.models.nvidia.geometry import maps

MOTION_CLIPS = 4000
"""Maximum number of clips for measuring motion, spread evenly over each subject's clips."""


def constants(
    config: Config,
    folders: Sequence[Path],
    manifests: Sequence[records.Manifest],
    amounts: Sequence[float] | np.ndarray,
    mean: np.ndarray,
) -> dict[str, np.ndarray]:
    """Returns "actor_mean" [A, 72], "clip_offset" [N + 1] and the geometry head's constants.

    With several actors it also contains "subjects", the `conditioning.encode_names` of their names.

    Args:
      config: configuration with one of NVIDIA's model kinds.
      folders: folders of shards.
      manifests: manifest of each folder.
      amounts: weight of each dataset in statistics; datasets of weight 0 are omitted.
      mean: [72] mean of the training split, used for unobserved channels.

    Raises:
      InputError: a number of actors that differs from the split's, or as for
        `models.nvidia.model.geometry_constants`.
    """
    settings = config.model
    assert isinstance(settings, NvidiaConfig)
    nvidia_model.check(settings, config.audio)
    named = subjects.training(
        [str(f) for f in folders], manifests, config.data.split, config.data.weights
    )
    training_subjects = list(named)
    count = len(training_subjects)
    if settings.actors not in (0, 1, count):
        raise InputError(
            f"model.actors={settings.actors}: the training split has {count} subjects; "
            f"expected 0 (one each), 1 or {count}"
        )
    out: dict[str, np.ndarray] = {}
    if settings.implicit_emotion:
        frames = ClipSource(folders, config.data.split).frames
        offset = np.concatenate([[0], np.cumsum(frames)])
        if offset[-1] > np.iinfo(np.int32).max:
            raise InputError(
                f"model.implicit_emotion=True: the training split has {offset[-1]} frames, and a "
                "vector each; expected False"
            )
        out["clip_offset"] = offset.astype(np.int32)
    else:
        out["clip_offset"] = np.array([0, 1], np.int32)
    has_actors = settings.actors != 1
    if not has_actors and settings.head != "geometry":
        return {**out, "actor_mean": mean[None].astype(np.float32)}
    clips = ClipSource(folders, config.data.split)
    moments = measure_moments(clips, training_subjects, amounts, mean)
    if not has_actors:
        moments = maps.Moments(moments.mean, moments.covariance, moments.mean[None])
    if has_actors:
        # The predictor looks up actors by these names.
        out["subjects"] = conditioning.encode_names(list(named.values()))
    return {
        **out,
        "actor_mean": moments.actors.astype(np.float32),
        **nvidia_model.geometry_constants(settings, moments),
    }


def measure_moments(
    clips: ClipSource,
    training_subjects: Sequence[tuple[int, str]],
    amounts: Sequence[float] | np.ndarray,
    mean: np.ndarray,
) -> maps.Moments:
    """Measures the motion of valid frames, with `mean` in place of unobserved channels.

    Args:
      clips: clips of the training split.
      training_subjects: result of `subjects.training`; their order numbers the actors, as in
        `Batch.subject`.
      amounts: weight of each dataset; mean and covariance omit datasets of weight 0 and weight the
        frames of the others to match the amounts.
      mean: [72] replacement for unobserved channels.
    """
    by_subject: dict[tuple[int, str], list[int]] = {subject: [] for subject in training_subjects}
    for index, entry in enumerate(clips.entries):
        by_subject[entry.folder, entry.subject].append(index)
    most = max(MOTION_CLIPS // max(len(training_subjects), 1), 1)
    size = rig.NUM_CHANNELS
    count = np.zeros(len(amounts))
    first, second = np.zeros((len(amounts), size)), np.zeros((len(amounts), size, size))
    actors = np.zeros((len(training_subjects), size))
    for a, (subject, indices) in enumerate(by_subject.items()):
        total, frames = np.zeros(size), 0
        for i in np.unique(
            np.linspace(0, len(indices) - 1, min(most, len(indices))).round().astype(int)
        ):
            clip = clips[indices[i]]
            motion = np.where(clip.channel_mask, clip.motion, mean)[clip.frame_mask] - mean
            motion = motion.astype(np.float64)
            total, frames = total + motion.sum(axis=0), frames + len(motion)
            second[subject[0]] += motion.T @ motion
        actors[a] = mean + total / max(frames, 1)
        first[subject[0]] += total
        count[subject[0]] += frames
    share = np.where(count > 0, np.asarray(amounts) / np.maximum(count, 1), 0.0)
    share = share / max(float(np.sum(share * count)), 1e-12)
    shift = np.einsum("s,sc->c", share, first)
    covariance = np.einsum("s,scd->cd", share, second) - np.outer(shift, shift)
    return maps.Moments(mean + shift, covariance, actors)
