"""Finds Azure Speech's blend shapes, which come without names, in JSON.

An animation of a viseme event is {"FrameIndex": n, "BlendShapes": [[55 numbers], ...]}: frame n and
those after it, 60 a second. The keys and the count of numbers say what it is; the order is that of
`channel_orders.order("azure55")`. A file holds one animation, or the animations of an utterance as
a list or one a line (source: Microsoft Learn, "Get facial position with viseme").
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from a2fjax import budgets, channel_orders
from a2fjax.animation import curve_rows
from a2fjax.animation.curve_rows import Rows

FPS = 60.0
_KEYS = {"FrameIndex", "BlendShapes"}


def find(path: Path, data: Any) -> Rows | None:
    """Returns the rows of a document, or None if it is something else.

    Args:
      path: file that the document comes from, for messages.
      data: the document.

    Raises:
      InputError: a value that is not a number.
    """
    names = channel_orders.order("azure55").names
    animations = data if isinstance(data, list) else [data]
    if not animations or not all(_is_animation(each, len(names)) for each in animations):
        return None
    frames = [frame for each in animations for frame in each["BlendShapes"]]
    where = [f"{path}: frame {n}" for n in range(len(frames))]
    budgets.check("values_millions", len(frames) * len(names) / 1e6, path)
    values = np.array(
        [
            [curve_rows.number(place, name, v) for name, v in zip(names, frame, strict=True)]
            for place, frame in zip(where, frames, strict=True)
        ]
    ).reshape(len(frames), len(names))
    numbers = [
        curve_rows.number(str(path), "FrameIndex", each["FrameIndex"]) + n
        for each in animations
        for n in range(len(each["BlendShapes"]))
    ]
    return Rows(
        names=list(names), values=values, fps=FPS, numbers=np.array(numbers, float), lines=where
    )


def _is_animation(value: Any, width: int) -> bool:
    if not isinstance(value, dict) or set(value) != _KEYS:
        return False
    frames = value["BlendShapes"]
    return isinstance(frames, list) and all(isinstance(f, list) and len(f) == width for f in frames)
