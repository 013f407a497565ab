"""What may be asked of a diffusion model beside audio: how it samples, and what it is to keep."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from a2fjax import config as config_lib
from a2fjax import rig
from a2fjax.errors import InputError, nearest
from a2fjax.infer import postprocess

PREFIX = "model.sample."

CONDITIONS = ("audio", "emotion", "identity")
"""Whose strength `model.sample` has."""


def is_sampled(config: config_lib.Config) -> bool:
    """Whether a model of this configuration draws what it gives, so that there are takes of it."""
    return isinstance(config.model, config_lib.DiffusionConfig)


def with_sampling(config: config_lib.Config, values: Mapping[str, Any]) -> config_lib.Config:
    """Returns the configuration with other values of `model.sample`.

    Raises:
      InputError: the model does not sample, or it cannot sample that way.
    """
    if not values:
        return config
    if not is_sampled(config):
        raise InputError(
            f"{', '.join(values)}: model.kind={config.model.kind!r} gives one motion for one "
            "recording; expected a run of model.kind='diffusion'"
        )
    from a2fjax.models import diffusion

    own = config.model
    assert isinstance(own, config_lib.DiffusionConfig)
    fixed = [name for name in CONDITIONS if name in values]
    if own.distill_steps and fixed:
        raise InputError(
            f"{', '.join(fixed)}: a student's guidance is what its teacher was given while it "
            "learnt; distil with other values of model.sample"
        )
    sample = dataclasses.asdict(own.sample) | dict(values)
    built = config_lib.build(config_lib.SampleConfig, sample, where="sampling", prefix=PREFIX)
    found = dataclasses.replace(config, model=dataclasses.replace(own, sample=built))
    diffusion.check_sampling(found)
    return found


def parse_guidance(text: str | None) -> dict[str, float]:
    """Reads `audio=1.5,emotion=2` as strengths of guidance.

    Raises:
      InputError: an unknown condition, or not a number of at least 0.
    """
    out: dict[str, float] = {}
    for part in (text or "").split(",") if text else ():
        name, _, number = (piece.strip() for piece in part.partition("="))
        if name not in CONDITIONS:
            raise InputError(f"--guidance {part}: unknown condition{nearest(name, CONDITIONS)}")
        try:
            value = float(number)
        except ValueError:
            value = math.nan
        if not (math.isfinite(value) and value >= 0):
            raise InputError(f"--guidance {part}: expected NAME=X with X of at least 0")
        out[name] = value
    return out


@dataclasses.dataclass(frozen=True)
class Inpainting:
    """Curves of which a part is to be made anew, to fit the rest.

    Attributes:
      motion: [T, 72] in rig units.
      kept: [T, 72] bool, what stays.
    """

    motion: np.ndarray
    kept: np.ndarray

    def part(self, first: int, last: int) -> tuple[np.ndarray, np.ndarray]:
        """Returns motion and kept of frames `first` to `last`; beyond the curves all is new."""
        motion = np.zeros((last - first, rig.NUM_CHANNELS), np.float32)
        kept = np.zeros((last - first, rig.NUM_CHANNELS), bool)
        there = min(last, len(self.motion))
        if there > first:
            motion[: there - first] = self.motion[first:there]
            kept[: there - first] = self.kept[first:there]
        return motion, kept


def read_inpainting(
    path: str | Path, remake: Sequence[str] = (), seconds: tuple[float, float] | None = None
) -> Inpainting:
    """Reads curves to edit.

    Args:
      path: any format that `a2fjax infer` writes; channels that it lacks are made anew.
      remake: channels or groups of `rig.GROUPS` that are made anew; () for all.
      seconds: from where to where; None for all of the time.

    Raises:
      InputError: a file that cannot be read, an unknown channel, or nothing to make anew.
    """
    from a2fjax.animation import formats

    if not remake and seconds is None:
        raise InputError(f"--edit {path}: nothing to make anew; give --remake or --remake-range")
    track = formats.read(path)
    # A recording's first frame is its curves' first frame, whatever its timecode says.
    shifted = dataclasses.replace(track, times=track.times - track.times[0])
    motion = shifted.resampled(rig.FPS).motion
    anew = np.zeros(rig.NUM_CHANNELS, bool)
    for name in remake:
        anew[postprocess.channels(name, where=f"--remake {name}")] = True
    if not remake:
        anew[:] = True
    when = np.ones(len(motion), bool)
    if seconds is not None:
        times = np.arange(len(motion)) / rig.FPS
        when = (times >= seconds[0]) & (times < seconds[1])
        if not when.any():
            raise InputError(
                f"--remake-range {seconds[0]:g}:{seconds[1]:g}: {path} has curves from 0 to "
                f"{len(motion) / rig.FPS:g} s"
            )
    kept = ~(when[:, None] & anew) & track.observed
    return Inpainting(np.clip(motion, rig.MIN, rig.MAX), kept)
