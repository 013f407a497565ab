"""What NVIDIA's networks take from the motion of training clips: moments, actors, places."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np

from a2fjax import rig
from a2fjax.config import Config, NvidiaConfig
from a2fjax.data import records, subjects
from a2fjax.data.dataset import ClipSource
from a2fjax.errors import InputError
from a2fjax.models import conditioning
from a2fjax.models.nvidia import configured
from a2fjax.models.nvidia.geometry import maps

MOTION_CLIPS = 4000
"""Clips over which motion is measured at most, spread evenly over each subject's."""


def constants(
    config: Config,
    folders: Sequence[Path],
    manifests: Sequence[records.Manifest],
    amounts: Sequence[float] | np.ndarray,
    mean: np.ndarray,
) -> dict[str, np.ndarray]:
    """Returns "actor_mean" [A, 72], "clip_offset" [N + 1] and the geometry head's constants.

    With several actors also "subjects", the `conditioning.encode_names` of their names.

    Args:
      config: with one of NVIDIA's kinds.
      folders: of shards.
      manifests: of each.
      amounts: what each counts for in statistics; one of 0 is left out.
      mean: [72] of the training split, which stands in for channels that were not observed.

    Raises:
      InputError: a number of actors that the split does not have, or as
        `configured.geometry_constants`.
    """
    configured.check(config)
    own = config.model
    assert isinstance(own, NvidiaConfig)
    named = subjects.training(
        [str(f) for f in folders], manifests, config.data.split, config.data.weights
    )
    people = list(named)
    if own.actors not in (0, 1, len(people)):
        raise InputError(
            f"model.actors={own.actors}: the training split has {len(people)} subjects; "
            f"expected 0 (one each), 1 or {len(people)}"
        )
    out: dict[str, np.ndarray] = {}
    if own.implicit_emotion:
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
    wanted = own.actors != 1
    if not wanted and own.head != "geometry":
        return {**out, "actor_mean": mean[None].astype(np.float32)}
    found = measure_moments(ClipSource(folders, config.data.split), people, amounts, mean)
    if not wanted:
        found = maps.Moments(found.mean, found.covariance, found.mean[None])
    if wanted:
        # So that a predictor finds the actor of a name.
        out["subjects"] = conditioning.encode_names(list(named.values()))
    return {
        **out,
        "actor_mean": found.actors.astype(np.float32),
        **configured.geometry_constants(config, found),
    }


def measure_moments(
    clips: ClipSource,
    people: Sequence[tuple[int, str]],
    amounts: Sequence[float] | np.ndarray,
    mean: np.ndarray,
) -> maps.Moments:
    """Measures the motion of good frames; a channel that was not observed counts as `mean`.

    Args:
      clips: of the training split.
      people: of `subjects.training`; an actor is the place here, as "subject" of a batch has it.
      amounts: of each set; clips of a set of amount 0 are left out of mean and covariance, and the
        frames of the others count so that the sets come out as their amounts.
      mean: [72].
    """
    by_person: dict[tuple[int, str], list[int]] = {person: [] for person in people}
    for index, entry in enumerate(clips.entries):
        by_person[entry.folder, entry.subject].append(index)
    most = max(MOTION_CLIPS // max(len(people), 1), 1)
    size = rig.NUM_CHANNELS
    count = np.zeros(len(amounts))
    first, second = np.zeros((len(amounts), size)), np.zeros((len(amounts), size, size))
    actors = np.zeros((len(people), size))
    for a, (person, own) in enumerate(by_person.items()):
        total, frames = np.zeros(size), 0
        for i in np.unique(np.linspace(0, len(own) - 1, min(most, len(own))).round().astype(int)):
            clip = clips[own[i]]
            motion = np.where(clip.channel_mask, clip.motion, mean)[clip.frame_mask] - mean
            motion = motion.astype(np.float64)
            total, frames = total + motion.sum(axis=0), frames + len(motion)
            second[person[0]] += motion.T @ motion
        actors[a] = mean + total / max(frames, 1)
        first[person[0]] += total
        count[person[0]] += frames
    share = np.where(count > 0, np.asarray(amounts) / np.maximum(count, 1), 0.0)
    share = share / max(float(np.sum(share * count)), 1e-12)
    shift = np.einsum("s,sc->c", share, first)
    covariance = np.einsum("s,scd->cd", share, second) - np.outer(shift, shift)
    return maps.Moments(mean + shift, covariance, actors)
