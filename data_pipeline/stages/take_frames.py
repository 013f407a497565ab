"""A take's curves at 50 frames per second on the clock of its sound."""

from __future__ import annotations

import dataclasses

import numpy as np

from a2fjax import rig
from a2fjax.audio import SAMPLE_RATE, io, num_frames
from a2fjax.errors import InputError
from data_pipeline.sources import Take
from data_pipeline.stages.solved_take import SolvedTake
from data_pipeline.timing import align, clocks

MIN_FRAMES = 10
"""Fewest frames of a take that overlap its audio (0.2 s)."""


@dataclasses.dataclass(frozen=True)
class TakeFrames:
    """Sound and motion of a take.

    Attributes:
      audio: [S] float32, 16 kHz; silence where the take has none.
      times: [F] s of the capture's frames on the audio's clock.
      frame_times: [T] s, T = ceil(S / 320).
      motion: [T, 72] float32, rig units.
      valid: [T] bool, frames inside the capture.
    """

    audio: np.ndarray
    times: np.ndarray
    frame_times: np.ndarray
    motion: np.ndarray
    valid: np.ndarray


def on_audio_clock(take: Take, solved: SolvedTake, clock: clocks.Clock) -> TakeFrames:
    """Returns the frames of a take.

    Raises:
      InputError: the audio cannot be read, or does not overlap the capture.
    """
    times = clock.audio_times(solved.times)
    if take.audio is None:
        times = times - times[0]
        step = float(np.median(np.diff(times))) if len(times) > 1 else 1.0 / rig.FPS
        audio = np.zeros(max(2, round((times[-1] + step) * SAMPLE_RATE)), np.float32)
    else:
        audio = io.load(take.audio)
    frames = num_frames(len(audio))
    frame_times = np.arange(frames) / rig.FPS
    valid = align.covered_by_capture(times, frame_times)
    if valid.sum() < min(MIN_FRAMES, frames):
        seconds, captured = len(audio) / SAMPLE_RATE, times[-1] - times[0]
        raise InputError(
            f"{take.audio}: {seconds:.2f} s of audio and {captured:.2f} s of capture do not overlap"
        )
    motion = rig.clip(align.resample(times, solved.curves, frame_times)).astype(np.float32)
    return TakeFrames(audio, times, frame_times, motion, valid)
