"""Fidelity metrics: errors by channel group, velocity error and correlation.

Prediction p and truth g have the error e = p - g over frames t and channels c of a group. `bs_*`
and `vel_mae` are the usual names for errors of blendshape weights and their velocities.
"""

from __future__ import annotations

import numpy as np

from a2fjax import rig
from a2fjax.metrics.column import CORRELATION, Column, by_group
from a2fjax.metrics.groups import WEIGHT_GROUPS, group_sum
from a2fjax.metrics.sums import Sums, correlation, deviations, divide

COLUMNS = (
    *by_group(
        "bs_rmse",
        label="rmse",
        meaning="root mean square error",
        form="{:.4f}",
        unit="weight",
        formula="sqrt(mean_tc e^2)",
    ),
    *by_group(
        "bs_mae",
        label="mae",
        meaning="mean absolute error",
        form="{:.4f}",
        unit="weight",
        formula="mean_tc |e|",
    ),
    *by_group(
        "vel_mae",
        label="vel_mae",
        meaning="mean absolute error of the velocity",
        unit="weight/s",
        formula="50 mean_tc |e_t - e_{t-1}|",
        mask="pairs of valid frames, observed channels",
    ),
    *by_group(
        "corr",
        label="corr",
        meaning="correlation of all curves",
        better="higher",
        formula="sum dp dg / sqrt(sum dp^2 sum dg^2), deviations dp, dg from the clip's means",
        range=CORRELATION,
    ),
    Column(
        "eye_angle_mae/eye_angles",
        unit="degree",
        form="{:.2f}",
        formula="mean_tc |e| of the four eye angles",
    ),
    Column(
        "eye_angle_rmse/eye_angles",
        unit="degree",
        form="{:.2f}",
        formula="sqrt(mean_tc e^2) of the four eye angles",
    ),
)


def sums(
    prediction: np.ndarray,
    truth: np.ndarray,
    *,
    channel_mask: np.ndarray,
    frame_mask: np.ndarray,
) -> Sums:
    """Reduces a clip to per-channel sums.

    Args:
      prediction: [T, 72] in rig units.
      truth: [T, 72].
      channel_mask: [72] bool, observed channels.
      frame_mask: [T] bool, valid frames.
    """
    p = np.asarray(prediction, np.float64)
    g = np.asarray(truth, np.float64)
    mask = np.asarray(channel_mask, np.float64)
    error = (p - g)[frame_mask]
    pairs = frame_mask[1:] & frame_mask[:-1]
    velocity = np.abs(np.diff(p - g, axis=0)[pairs]).sum(0) * rig.FPS
    dp, dg = deviations(p[frame_mask]), deviations(g[frame_mask])
    return {
        "fidelity/abs": np.abs(error).sum(0) * mask,
        "fidelity/square": (error**2).sum(0) * mask,
        "fidelity/frames": frame_mask.sum() * mask,
        "fidelity/velocity": velocity * mask,
        "fidelity/pairs": pairs.sum() * mask,
        "fidelity/pp": (dp**2).sum(0) * mask,
        "fidelity/gg": (dg**2).sum(0) * mask,
        "fidelity/pg": (dp * dg).sum(0) * mask,
    }


def values(total: Sums) -> dict[str, np.ndarray]:
    """Returns the metrics [...] of merged sums; NaN for groups without an observed channel."""
    out: dict[str, np.ndarray] = {}

    def mean(key: str, weight: str, group: np.ndarray) -> np.ndarray:
        return divide(group_sum(total[key], group), group_sum(total[weight], group))

    for name, group in WEIGHT_GROUPS.items():
        out[f"bs_mae/{name}"] = mean("fidelity/abs", "fidelity/frames", group)
        out[f"bs_rmse/{name}"] = np.sqrt(mean("fidelity/square", "fidelity/frames", group))
        out[f"vel_mae/{name}"] = mean("fidelity/velocity", "fidelity/pairs", group)
        out[f"corr/{name}"] = correlation(
            *(group_sum(total[f"fidelity/{k}"], group) for k in ("pg", "pp", "gg"))
        )
    angles = rig.ANGLE_CHANNELS
    out["eye_angle_mae/eye_angles"] = mean("fidelity/abs", "fidelity/frames", angles)
    out["eye_angle_rmse/eye_angles"] = np.sqrt(mean("fidelity/square", "fidelity/frames", angles))
    return out
