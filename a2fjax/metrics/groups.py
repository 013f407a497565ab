"""Channel groups of reports, including those that speech can predict."""

from __future__ import annotations

import numpy as np

from a2fjax import rig


def _weights(name: str) -> np.ndarray:
    return np.intersect1d(rig.GROUPS[name], rig.WEIGHT_CHANNELS)


WEIGHT_GROUPS: dict[str, np.ndarray] = {
    name: _weights(name) for name in ("all", "jaw_mouth", "tongue", "brows", "eyes", "upper_face")
}
"""Groups without the eye angles: a mean over weights and degrees is meaningless."""

UNPREDICTABLE = ("brows", "eyes", "upper_face", "eye_angles")
"""Blinks, brow beats and gaze: reported, but excluded from scores of predictable motion."""


def group_sum(per_channel: np.ndarray, group: np.ndarray) -> np.ndarray:
    """Sums per-channel sums [..., 72] over the channels of a group to [...]."""
    return per_channel[..., group].sum(-1)
