"""Reduces a take to the few points needed for a small plot."""

from __future__ import annotations

from typing import Any

import numpy as np

from data_pipeline.timing import align

THUMBNAIL_POINTS = 240


def make_thumbnail(
    envelope: np.ndarray | None,
    times: np.ndarray,
    aperture: np.ndarray,
    residual: np.ndarray | None = None,
    *,
    points: int = THUMBNAIL_POINTS,
) -> dict[str, Any]:
    """Returns loudness, aperture and residual of a take at a few points in time.

    Each point is the maximum over its interval, so that short bursts remain visible.

    Args:
      envelope: [N] dB at 200 values per second, or None.
      times: [F] s on the audio's clock.
      aperture: [F].
      residual: [F] mm, or None.
      points: at most this many.

    Returns:
      {"start", "seconds", "loudness", "aperture", "residual"}; the last three are lists of equal
      length (None for empty intervals), loudness in [0, 1]. Lists of missing signals are empty.
    """
    times = np.asarray(times, np.float64)
    empty: dict[str, Any] = {
        "start": 0.0,
        "seconds": 0.0,
        "loudness": [],
        "aperture": [],
        "residual": [],
    }
    if not len(times):
        return empty
    start = min(0.0, float(times[0]))
    end = float(times[-1])
    if envelope is not None and len(envelope):
        end = max(end, len(envelope) / align.ENVELOPE_RATE)
    count = int(min(points, max(1, len(times))))
    length = max(end - start, 1e-3)

    def pool(seconds: np.ndarray, values: np.ndarray, digits: int) -> list[float | None]:
        valid = np.isfinite(values)
        index = np.clip(((seconds - start) / length * count).astype(int), 0, count - 1)[valid]
        top = np.full(count, -np.inf)
        np.maximum.at(top, index, np.asarray(values, np.float64)[valid])
        return [round(float(v), digits) if np.isfinite(v) else None for v in top]

    out = empty | {"start": round(start, 3), "seconds": round(length, 3)}
    out["aperture"] = pool(times, np.asarray(aperture, np.float64), 3)
    if residual is not None:
        out["residual"] = pool(times, np.asarray(residual, np.float64), 3)
    if envelope is not None and len(envelope):
        level = np.asarray(envelope, np.float64)
        low, high = float(level.min()), float(level.max())
        seconds = np.arange(len(level)) / align.ENVELOPE_RATE
        out["loudness"] = pool(seconds, (level - low) / max(high - low, 1e-9), 2)
    return out
