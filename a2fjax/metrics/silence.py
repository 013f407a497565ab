"""Silence metrics: detection of pauses and the mouth opening in them.

Definitions, all based on the audio only:

    level_t     RMS of the 40 ms around the time of frame t
    silent      level_t < speech level - 30 dB
    pause       a run of silent frames of at least 200 ms
    edge        a run of silent frames of any length that touches the clip's start or end
    speech      every frame outside pauses and edges
    rest        frames of a pause that are at least 60 ms from speech: lips need time to settle

The silence before the burst of p, t and k lasts up to about 150 ms and thus counts as speech.

A curve whose 90th percentile is below 0.02 has a motionless mouth and no ratio.
"""

from __future__ import annotations

import numpy as np

from a2fjax.audio import HOP
from a2fjax.metrics.column import Column
from a2fjax.metrics.runs import find_runs
from a2fjax.metrics.sums import Sums, divide

THRESHOLD_DB = -30.0
MIN_PAUSE_FRAMES = 10
SETTLE_FRAMES = 3
MIN_OPENING = 0.02

_FORMULA = (
    "mean over rest frames of max(a, 0) / the 90th percentile of the same curve's aperture a over "
    "the clip's speech frames; 0 is closed"
)
_MASK = "valid frames with jawOpen observed, at rest"

COLUMNS = (
    Column(
        "pause_aperture",
        "pause",
        "opening in pauses over that in speech",
        "{:.2f}",
        better="0",
        formula=_FORMULA,
        mask=_MASK,
    ),
    Column(
        "pause_aperture_truth",
        form="{:.2f}",
        better="",
        formula=f"{_FORMULA}; of the truth",
        mask=_MASK,
    ),
)


def frame_level(audio: np.ndarray, frames: int) -> np.ndarray:
    """Returns the linear RMS [frames] of the 40 ms around each frame's time.

    Args:
      audio: [samples] at 16 kHz; frame t lies at sample 320 * t.
      frames: number of frames T.
    """
    power = np.zeros((frames + 1) * HOP)
    usable = min(len(audio), frames * HOP)
    power[HOP : HOP + usable] = np.square(audio[:usable], dtype=float)
    halves = power.reshape(frames + 1, HOP).mean(1)
    # The first and last windows extend beyond the clip, where there are no samples to average.
    present = np.zeros(frames + 1)
    present[1:] = np.clip(usable / HOP - np.arange(frames), 0, 1)
    return np.sqrt(divide(halves[1:] + halves[:-1], present[1:] + present[:-1]))


def valid_level(audio: np.ndarray, frame_mask: np.ndarray) -> float:
    """Returns the linear RMS level of samples [S] whose frame [T] is valid; NaN without any."""
    used = np.repeat(np.asarray(frame_mask, bool), HOP)[: len(audio)]
    if not used.any():
        return float("nan")
    return float(np.sqrt(np.square(audio[: len(used)][used], dtype=float).mean()))


def segment(
    level: np.ndarray,
    speech_level: float,
    *,
    threshold_db: float = THRESHOLD_DB,
    min_pause_frames: int = MIN_PAUSE_FRAMES,
    settle_frames: int = SETTLE_FRAMES,
) -> tuple[np.ndarray, np.ndarray]:
    """Returns (speech [T] bool, rest [T] bool); see the module.

    Args:
      level: [T] linear, from `frame_level`.
      speech_level: linear RMS level of the speech.
      threshold_db: threshold of silence relative to the speech level.
      min_pause_frames: length of the shortest pause.
      settle_frames: frames of a pause next to speech that do not count as rest.
    """
    frames = len(level)
    speech, rest = np.ones(frames, bool), np.zeros(frames, bool)
    for start, stop in find_runs(level < speech_level * 10 ** (threshold_db / 20)):
        long = stop - start >= min_pause_frames
        if long or start == 0 or stop == frames:
            speech[start:stop] = False
        if long:
            # The clip's ends need no settling time, since no speech adjoins them.
            first = start if start == 0 else start + settle_frames
            rest[first : stop if stop == frames else stop - settle_frames] = True
    return speech, rest


def opening(aperture: np.ndarray, speech: np.ndarray) -> float:
    """Returns the 90th percentile of an aperture [T] over speech frames [T]; NaN without speech."""
    return float(np.percentile(aperture[speech], 90)) if speech.any() else float("nan")


def sums(
    prediction: np.ndarray,
    truth: np.ndarray,
    *,
    speech: np.ndarray,
    rest: np.ndarray,
    frame_mask: np.ndarray,
) -> Sums:
    """Reduces the apertures [T] of a clip to their openings in rest frames."""
    out: Sums = {}
    for key, aperture in (("p", prediction), ("g", truth)):
        full = opening(aperture, speech & frame_mask)
        at_rest = aperture[rest & frame_mask]
        usable = full >= MIN_OPENING
        total = np.maximum(at_rest, 0.0).sum() / full if usable else 0.0
        out[f"silence/sum_{key}"] = np.asarray(total)
        out[f"silence/frames_{key}"] = np.asarray(float(len(at_rest)) if usable else 0.0)
    return out


def values(total: Sums) -> dict[str, np.ndarray]:
    """Returns `pause_aperture` and `pause_aperture_truth` [...] of merged sums."""
    return {
        f"pause_aperture{suffix}": divide(
            total[f"silence/sum_{key}"], total[f"silence/frames_{key}"]
        )
        for key, suffix in (("p", ""), ("g", "_truth"))
    }
