"""Inpainting: a diffusion model replaces part of a given motion to fit the rest."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence

import numpy as np

from a2fjax import rig
from a2fjax.animation.tracks import Track
from a2fjax.errors import InputError
from a2fjax.infer import postprocess


@dataclasses.dataclass(frozen=True)
class Inpainting:
    """Given motion and the mask of the values to keep.

    Attributes:
      motion: [T, 72] in rig units, 50 frames per second.
      inpaint_mask: [T, 72] bool, true where `motion` is kept.
    """

    motion: np.ndarray
    inpaint_mask: np.ndarray

    def part(self, first: int, last: int) -> tuple[np.ndarray, np.ndarray]:
        """Returns motion and mask of frames `first` to `last`; the mask is false beyond the end."""
        motion = np.zeros((last - first, rig.NUM_CHANNELS), np.float32)
        inpaint_mask = np.zeros((last - first, rig.NUM_CHANNELS), bool)
        end = min(last, len(self.motion))
        if end > first:
            motion[: end - first] = self.motion[first:end]
            inpaint_mask[: end - first] = self.inpaint_mask[first:end]
        return motion, inpaint_mask


def from_track(
    track: Track,
    channels: Sequence[str] = (),
    seconds: tuple[float, float] | None = None,
    *,
    name: str = "inpaint",
) -> Inpainting:
    """Returns an inpainting that replaces some channels, or some seconds, of a track.

    Args:
      track: given motion at any frame rate; missing channels are predicted. Its first frame is
        aligned with the recording's first frame, regardless of its timecode.
      channels: names of channels or groups of `rig.GROUPS` to replace; () for all.
      seconds: (start, end) to replace; None for the whole track.
      name: name of the track, for messages.

    Raises:
      InputError: an unknown channel, or nothing to replace.
    """
    if not channels and seconds is None:
        raise InputError(
            f"{name}: nothing to predict anew; name channels (--inpaint-channels) or seconds "
            "(--inpaint-range)"
        )
    shifted = dataclasses.replace(track, times=track.times - track.times[0])
    motion = shifted.resampled(rig.FPS).motion
    predicted_channels = np.zeros(rig.NUM_CHANNELS, bool)
    for channel in channels:
        where = f"inpaint channel {channel!r}"
        predicted_channels[postprocess.channels(channel, where=where)] = True
    if not channels:
        predicted_channels[:] = True
    predicted_frames = np.ones(len(motion), bool)
    if seconds is not None:
        times = np.arange(len(motion)) / rig.FPS
        predicted_frames = (times >= seconds[0]) & (times < seconds[1])
        if not predicted_frames.any():
            raise InputError(
                f"inpaint range {seconds[0]:g}:{seconds[1]:g}: {name} has curves from 0 to "
                f"{len(motion) / rig.FPS:g} s"
            )
    inpaint_mask = ~(predicted_frames[:, None] & predicted_channels) & track.observed
    return Inpainting(np.clip(motion, rig.MIN, rig.MAX), inpaint_mask)
