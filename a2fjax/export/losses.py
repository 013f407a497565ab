"""Losses of a graph of lower precision: errors, lip closures and correlation of the mouth."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from typing import Any

import numpy as np

from a2fjax import rig
from a2fjax.export.formats.base import Run
from a2fjax.export.graph import Case
from a2fjax.metrics import lips

_STILL = 1e-3
"""Standard deviation below which a channel has no correlation to speak of."""


def measure(cases: Sequence[Case], run: Run) -> dict[str, Any]:
    """Returns the losses of a graph of motion, with the product's motion as the truth.

    The product's own figure is 1 for closures and correlation.

    Args:
      cases: with the output "motion" and their valid frames.
      run: runs the graph.
    """
    pairs = []
    for case in cases:
        (found,) = run(case.inputs)
        valid = np.ones(found.shape[:2], bool) if case.valid is None else case.valid
        rows = zip(found, case.expected["motion"], valid, strict=True)
        pairs += [(f[v], e[v]) for f, e, v in rows]
    wrong = np.concatenate([(f - e) / rig.SCALE for f, e in pairs])
    by_channel = np.sqrt((wrong.astype(np.float64) ** 2).mean(0))
    worst = int(by_channel.argmax())
    return {
        "rmse": float(np.sqrt((wrong.astype(np.float64) ** 2).mean())),
        "largest": float(np.abs(wrong).max()),
        "worst_channel": {"name": rig.CHANNELS[worst], "rmse": float(by_channel[worst])},
        "closure_f1": _closures(pairs),
        "mouth_correlation": _correlation(pairs),
    }


def _closures(pairs: Sequence[tuple[np.ndarray, np.ndarray]]) -> float | None:
    """Returns the F1 of the closures that the graph keeps; None without any."""
    total: Counter[str] = Counter()
    for found, expected in pairs:
        truth = rig.aperture(expected)
        every = np.ones(len(truth), bool)
        sums = lips.sums(
            rig.aperture(found),
            truth,
            threshold=float(np.percentile(truth, lips.PERCENTILE)),
            speech=every,
            frame_mask=every,
        )
        total.update({name: float(value) for name, value in sums.items()})
    f1 = float(lips.values({k: np.asarray(v) for k, v in total.items()})["closure_f1"])
    return f1 if np.isfinite(f1) else None


def _correlation(pairs: Sequence[tuple[np.ndarray, np.ndarray]]) -> dict[str, Any] | None:
    """Returns the mean and the lowest correlation of the moving jaw and mouth channels."""
    found, expected = (np.concatenate(side) for side in zip(*pairs, strict=True))
    values = {
        rig.CHANNELS[i]: float(np.corrcoef(found[:, i], expected[:, i])[0, 1])
        for i in rig.GROUPS["jaw_mouth"].tolist()
        if min(found[:, i].std(), expected[:, i].std()) > _STILL
    }
    if not values:
        return None
    lowest = min(values, key=lambda name: values[name])
    return {
        "mean": float(np.mean(list(values.values()))),
        "lowest": {"name": lowest, "value": values[lowest]},
    }
