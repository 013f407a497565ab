"""Shortens Orbax errors to one line and keeps late ones off the console."""

from __future__ import annotations

import logging
import os
import sys
import traceback
from collections.abc import Callable
from typing import Any


def first_line(error: Exception) -> str:
    """Returns the type and the first line of an error."""
    return f"{type(error).__name__}: {(str(error).strip().splitlines() or [''])[0]}"


def _is_late(error: BaseException | None) -> bool:
    """Returns whether an error is one of an array that finished after another array's failure.

    Errors of Orbax's tasks have its files in their tracebacks, those of its closed event loop and
    of TensorStore's futures have none and are recognised by their text.
    """
    while error is not None:
        text = str(error)
        if text == "Event loop is closed" or "OCDBT" in text or "TensorStore" in text:
            return True
        frames = traceback.walk_tb(error.__traceback__)
        if any(f"{os.sep}orbax{os.sep}" in frame.f_code.co_filename for frame, _ in frames):
            return True
        error = error.__cause__ or error.__context__
    return False


def _is_shown(record: logging.LogRecord) -> bool:
    if "exception was never retrieved" not in record.getMessage() or not record.exc_info:
        return True
    return not _is_late(record.exc_info[1])


class _Hook:
    """An unraisable hook that drops late errors."""

    def __init__(self, before: Callable[[Any], object]):
        self._before = before

    def __call__(self, unraisable: Any) -> None:
        if not _is_late(unraisable.exc_value):
            self._before(unraisable)


def drop_late() -> None:
    """Drops from now on the reports of arrays that finish after another array's failure.

    If several arrays fail, only the first error is raised. The others are reported as unraisable,
    since their event loop is closed, or as never retrieved when their tasks are garbage-collected,
    at any later time.
    """
    logging.getLogger("asyncio").addFilter(_is_shown)
    if not isinstance(sys.unraisablehook, _Hook):
        sys.unraisablehook = _Hook(sys.unraisablehook)
