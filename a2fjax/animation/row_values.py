"""Values of rows: which rows have all of them, and weights from percent."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np

from a2fjax import channel_orders
from a2fjax.animation.columns import Resolver
from a2fjax.animation.curve_rows import Rows
from a2fjax.errors import InputError

LARGEST = 3.0
"""Largest magnitude of a weight: rigs overshoot 1 a little, percentages reach 100."""

_PERCENT = (10.0, 200.0)  # range of the largest value that can be percent
_FEWEST_LARGE = 0.2  # share of the values other than 0 that exceed 1.5 in percentages
_MOST_PARTIAL = 0.5
_EYE_ANGLES = {"rightEyeRotX", "rightEyeRotY", "leftEyeRotX", "leftEyeRotY"}


def complete_rows(
    path: Path, values: np.ndarray, seen: np.ndarray, holds: Sequence[str]
) -> tuple[np.ndarray, np.ndarray, list[str]]:
    """Returns (mask [F] of frames with all values, mask [N] of columns with values, notes)."""
    given = np.isfinite(values)
    face = seen & given.any(axis=1)
    count, lost = len(values), int((~face).sum())
    notes = [f"{lost} of {count} rows without a tracked face"] if lost else []
    valued = given[face].any(axis=0) if face.any() else np.ones(values.shape[1], bool)
    if not valued.all():
        empty = [name for name, here in zip(holds, valued, strict=True) if not here]
        notes.append(f"columns without values: {', '.join(empty[:8])}")
    whole = face & given[:, valued].all(axis=1)
    partial = int(face.sum() - whole.sum())
    if partial:
        shares = given[face].mean(axis=0)
        shares[~valued] = 1.0
        worst = int(np.argmin(shares))
        if partial > _MOST_PARTIAL * face.sum():
            raise InputError(
                f"{path}: {holds[worst]} has no value in {1 - shares[worst]:.0%} of the frames; "
                "expected values in all frames with a face"
            )
        notes.append(f"{partial} of {count} rows with missing values, most often {holds[worst]}")
    return whole, valued, notes


def to_weights(
    path: Path,
    values: np.ndarray,
    holds: Sequence[str],
    rows: Rows,
    numbers: np.ndarray,
    resolver: Resolver,
) -> tuple[np.ndarray, str]:
    """Converts percent to weights and checks the range of weights; sources of a map may be any.

    Returns:
      The values, and how percent were recognised, "" for weights.

    Raises:
      InputError: a weight out of range.
    """
    units = resolver.settings.units
    is_weight = np.array([resolver.map is not None or _is_weight(name) for name in holds])
    weights = values[:, is_weight]
    if not weights.size:
        return values, ""
    if units == "percent" or (units == "auto" and rows.percent):
        return np.where(is_weight, values / 100.0, values), "values are percent"
    if resolver.map is not None:
        return values, ""
    most = float(np.abs(weights).max())
    if most <= LARGEST:
        return values, ""
    moved = np.abs(weights[weights != 0])
    if (
        units == "auto"
        and _PERCENT[0] < most <= _PERCENT[1]
        and float((moved > 1.5).mean()) >= _FEWEST_LARGE
        and float(np.median(np.abs(weights).max(axis=1))) > LARGEST
    ):
        return (
            np.where(is_weight, values / 100.0, values),
            f"values reach {most:g} and are taken for percent",
        )
    frame, column = np.unravel_index(int(np.argmax(np.abs(weights))), weights.shape)
    name = [n for n, w in zip(holds, is_weight, strict=True) if w][int(column)]
    number = int(numbers[frame])
    place = rows.lines[number] if len(rows.lines) else f"{path}: frame {number}"
    hint = ""
    if _PERCENT[0] < most <= _PERCENT[1]:
        hint = f"; if these are percent, {resolver.percent_hint}"
    raise InputError(
        f"{place}: {name} is {float(weights[frame, column]):g}, expected weights from 0 to 1{hint}"
    )


def _is_weight(name: str) -> bool:
    column = channel_orders.column(name)
    return column.channel is not None and column.channel not in _EYE_ANGLES
