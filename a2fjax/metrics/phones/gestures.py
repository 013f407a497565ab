"""What the lips must do for a class of phones, as a curve and a bound.

    closed     minus the aperture; the bound is the closure threshold tau + 0.03 of `lips`
    teeth      mouthRollLower - mouthRollUpper: the lower lip alone turns in
    rounded    mouthPucker + mouthFunnel
    open       the aperture

The bounds of the last three are the person's 75th percentile of the true curve over speech, less
0.03. A person whose percentile is not 0.03 above the median does not make the gesture, and has no
bound.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from a2fjax import rig
from a2fjax.metrics import lips
from a2fjax.metrics.phones.labels import CLASSES

PERCENTILE = 75.0

_WEIGHTS = {
    "teeth": {"mouthRollLower": 1.0, "mouthRollUpper": -1.0},
    "rounded": {"mouthPucker": 1.0, "mouthFunnel": 1.0},
}


def curves(motion: np.ndarray, channel_mask: np.ndarray) -> dict[str, np.ndarray]:
    """Returns the curve [T] of every class whose channels are observed."""
    out = {}
    if lips.has_aperture(channel_mask):
        aperture = lips.aperture(motion, channel_mask)
        out["closed"], out["open"] = -aperture, aperture
    for name, weights in _WEIGHTS.items():
        index = np.array([rig.INDEX[channel] for channel in weights])
        if channel_mask[index].all():
            out[name] = np.asarray(motion[:, index], np.float64) @ np.array(list(weights.values()))
    return {name: out[name] for name in CLASSES if name in out}


def bounds(spoken: Sequence[dict[str, np.ndarray]], threshold: float) -> dict[str, float]:
    """Returns the bounds of a person by class, at or above which the gesture is made.

    Args:
      spoken: `curves` of each of the person's clips, speech frames only.
      threshold: the person's closure threshold; NaN if unknown.
    """
    out = {"closed": -(threshold + lips.MARGIN)} if np.isfinite(threshold) else {}
    for name in CLASSES[1:]:
        parts = [clip[name] for clip in spoken if name in clip]
        every = np.concatenate(parts) if parts else np.zeros(0)
        if len(every):
            middle, high = np.percentile(every, [50.0, PERCENTILE])
            if high >= middle + lips.MARGIN:
                out[name] = float(high) - lips.MARGIN
    return out
