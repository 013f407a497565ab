"""Barriers and broadcasts between the processes of a run, over the failure detector's links."""

from __future__ import annotations

import io
import json
from collections.abc import Mapping
from typing import Any

import numpy as np

from a2fjax.training.distributed.failure_detector import FailureDetector

_detector: FailureDetector | None = None
"""Failure detector of this process; None in a run of one process."""


def connect(detector: FailureDetector | None) -> None:
    """Sets the failure detector whose connections this module uses; None for a single process."""
    global _detector
    _detector = detector


def barrier() -> None:
    """Blocks until all processes have called it; returns at once for a single process."""
    if _detector is not None:
        _detector.meet()


def broadcast_from_first(value: Any) -> Any:
    """Returns the first process's value on all processes, which must all call it.

    Args:
      value: JSON value; the values of other processes are ignored.

    Example:
      >>> broadcast_from_first({"step": 3})
      {'step': 3}
    """
    return value if _detector is None else json.loads(_detector.meet(json.dumps(value).encode()))


def broadcast_arrays(arrays: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
    """Returns the first process's arrays on all processes; ignores the others' arrays."""
    if _detector is None:
        return dict(arrays)
    buffer = io.BytesIO()
    np.savez(buffer, **arrays)  # type: ignore[arg-type]
    received = _detector.meet(buffer.getvalue())
    with np.load(io.BytesIO(received), allow_pickle=False) as loaded:
        return {name: loaded[name] for name in loaded.files}
