"""Closure timelines of the worst clips: apertures, events and which of them were met.

A timeline is {"id", "subject", "emotion", "ratio", "bound", "truth" and "model": [T] apertures to
three digits, "speech": [[start, stop]] frames, "truth_closures" and "model_closures": [[start,
stop, met]]}; see `metrics.lips` for the events.
"""

from __future__ import annotations

import heapq
from typing import Any

import numpy as np

from a2fjax.evaluation.eval_clips import EvalClip
from a2fjax.metrics import lips
from a2fjax.metrics.runs import find_runs

WORST = 6
"""Number of clips with a timeline."""

LONGEST = 1500
"""Frames of a clip that are kept, from its start: 30 s."""


class Timelines:
    """Keeps the timelines of the clips with the largest error, whatever their number."""

    def __init__(self) -> None:
        """Starts without clips."""
        self._heap: list[tuple[float, str, dict[str, Any]]] = []

    def add(self, sample: EvalClip, motion: np.ndarray, ratio: float) -> None:
        """Adds a clip with the curves [T, 72] of the system and its `rmse_ratio`."""
        if not np.isfinite(ratio) or not lips.has_aperture(sample.truth.channel_mask):
            return
        if len(self._heap) == WORST and ratio <= self._heap[0][0]:
            return
        item = (ratio, sample.clip.id, timeline(sample, motion, ratio))
        (heapq.heappush if len(self._heap) < WORST else heapq.heapreplace)(self._heap, item)

    def worst(self) -> list[dict[str, Any]]:
        """Returns the timelines, the worst first."""
        return [line for _, _, line in sorted(self._heap, key=lambda item: (-item[0], item[1]))]


def timeline(sample: EvalClip, motion: np.ndarray, ratio: float) -> dict[str, Any]:
    """Returns the timeline of a clip; see the module."""
    truth = sample.truth
    mask, speech = truth.aperture_mask, truth.speech
    predicted = lips.aperture(motion, truth.channel_mask)
    bound = truth.threshold + lips.MARGIN
    out: dict[str, Any] = {
        "id": sample.clip.id,
        "subject": sample.subject,
        "emotion": sample.emotion,
        "ratio": round(float(ratio), 4),
        "bound": round(float(bound), 3) if np.isfinite(bound) else None,
        "truth": np.round(truth.aperture[:LONGEST], 3).tolist(),
        "model": np.round(predicted[:LONGEST], 3).tolist(),
        "speech": [list(run) for run in find_runs(speech[:LONGEST])],
        "truth_closures": [],
        "model_closures": [],
    }
    if not np.isfinite(bound):
        return out
    p, g = (np.where(mask, x, np.inf) for x in (predicted, truth.aperture))
    for name, curve, other, most, cut in (
        ("truth_closures", g, p, truth.threshold, False),
        ("model_closures", p, g, bound, True),
    ):
        events = lips.closure_events(curve, most, speech=speech, frame_mask=mask, cut_long=cut)
        out[name] = [
            [e.start, e.stop, bool(_near(other, e.centre).min() <= bound)]
            for e in events
            if e.start < LONGEST
        ]
    return out


def _near(curve: np.ndarray, centre: int) -> np.ndarray:
    return curve[max(centre - lips.REACH, 0) : centre + lips.REACH + 1]
