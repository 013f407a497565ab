"""Shortens Orbax errors to one line and keeps late ones off the console."""

from __future__ import annotations

import contextlib
import logging
import os
import sys
import time
import traceback
from collections.abc import Iterator
from typing import Any

from a2fjax.errors import InputError, WorkFailed


def first_line(error: Exception) -> str:
    """Returns the type and the first line of an error."""
    return f"{type(error).__name__}: {(str(error).strip().splitlines() or [''])[0]}"


def _is_first_report(record: logging.LogRecord) -> bool:
    """Returns False for an array's error if the save already failed with another array's error."""
    if "exception was never retrieved" not in record.getMessage() or not record.exc_info:
        return True
    error, trace = record.exc_info[1:]
    files = {frame.f_code.co_filename for frame, _ in traceback.walk_tb(trace)}
    # Tracebacks of Orbax tasks contain its files; TensorStore futures are recognised by their text.
    return "OCDBT" not in str(error) and not any(f"{os.sep}orbax{os.sep}" in f for f in files)


@contextlib.contextmanager
def quiet() -> Iterator[None]:
    """Suppresses error reports of arrays that finish after another array's failure.

    Their event loop is closed by then, and Python reports an unraisable exception for each array.
    If several arrays fail, only the first error is raised; the others are logged as never retrieved
    when their tasks are garbage-collected, which may be after the block.
    """
    logging.getLogger("asyncio").addFilter(_is_first_report)
    before = sys.unraisablehook

    def hook(unraisable: Any) -> None:
        if str(unraisable.exc_value) != "Event loop is closed":
            before(unraisable)

    sys.unraisablehook = hook
    try:
        yield
    except (InputError, WorkFailed):
        time.sleep(0.3)  # Wait until the last array has finished.
        raise
    finally:
        sys.unraisablehook = before
