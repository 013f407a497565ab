"""Energy metric: correlation of loudness and aperture within clips: loud speech opens the mouth.

The level is floored 50 dB below the speech level; otherwise digital silence would be an outlier
that dominates the correlation. A prediction should match the value of the true curves, not exceed
it. `slcc` is the published correlation over clips.
"""

from __future__ import annotations

import numpy as np

from a2fjax.metrics.column import CORRELATION, Column
from a2fjax.metrics.sums import Sums, correlation, deviations

FLOOR_DB = -50.0

_FORMULA = "r(20 log10 level_t, a_t), products summed over clips, deviations from clip means"
_MASK = "valid frames with jawOpen observed"

COLUMNS = (
    Column(
        "loudness_corr",
        "loud_r",
        "correlation of loudness and aperture",
        "{:+.2f}",
        better="loudness_corr_truth",
        formula=_FORMULA,
        mask=_MASK,
        range=CORRELATION,
    ),
    Column(
        "loudness_corr_truth",
        form="{:+.2f}",
        better="",
        formula=f"{_FORMULA}; of the truth",
        mask=_MASK,
        range=CORRELATION,
    ),
)


def log_level(level: np.ndarray, speech_level: float) -> np.ndarray:
    """Returns levels [T] in dB relative to the speech level, floored at -50 dB."""
    floor = 10 ** (FLOOR_DB / 20)
    return 20 * np.log10(np.maximum(level / speech_level, floor))


def sums(
    prediction: np.ndarray, truth: np.ndarray, *, loudness: np.ndarray, frame_mask: np.ndarray
) -> Sums:
    """Reduces apertures [T] and `log_level` [T] of a clip to sums of products."""
    x = deviations(loudness[frame_mask])
    out: Sums = {"energy/xx": x @ x}
    for key, aperture in (("p", prediction), ("g", truth)):
        y = deviations(np.asarray(aperture, np.float64)[frame_mask])
        out[f"energy/x{key}"], out[f"energy/{key}{key}"] = x @ y, y @ y
    return out


def values(total: Sums) -> dict[str, np.ndarray]:
    """Returns `loudness_corr` and `loudness_corr_truth` [...] of merged sums."""
    return {
        f"loudness_corr{suffix}": correlation(
            total[f"energy/x{key}"], total["energy/xx"], total[f"energy/{key}{key}"]
        )
        for key, suffix in (("p", ""), ("g", "_truth"))
    }
