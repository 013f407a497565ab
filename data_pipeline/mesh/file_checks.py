"""Checks for readers of files: errors of damaged files, frame rates, optional libraries."""

from __future__ import annotations

import csv
import importlib
import lzma
import struct
import tokenize
import zipfile
import zlib
from pathlib import Path
from typing import Any

import numpy as np

from a2fjax.errors import InputError

FRAME_RATE_RANGE = (1.0, 1000.0)
"""Smallest and largest frame rate of a capture."""

READ_ERRORS = (
    *(OSError, ValueError, EOFError, LookupError, TypeError, AttributeError, SyntaxError),
    *(OverflowError, MemoryError, RuntimeError, csv.Error, struct.error, tokenize.TokenError),
    *(zlib.error, lzma.LZMAError, zipfile.BadZipFile),
)
"""Errors of NumPy, zip, CSV and JSON readers for damaged files (deep nesting is a RuntimeError).

`InputError` is a ValueError: let it pass before these are caught."""


def check_rate(path: Path, times: np.ndarray) -> None:
    """Checks that increasing times [F] have a plausible camera frame rate.

    Raises:
      InputError: they do not.
    """
    if len(times) < 2:
        return
    step = float(np.median(np.diff(times)))
    if not 1.0 / FRAME_RATE_RANGE[1] <= step * (1 + 1e-6) <= (1 + 2e-6) / FRAME_RATE_RANGE[0]:
        rate = f"{1.0 / step:g}" if step > 0 else "no"
        raise InputError(
            f"{path}: its times are {rate} frames a second, expected 1 to 1000: are they in "
            "seconds? --config.fps=... takes no notice of them"
        )


def import_extra(name: str, path: Path, kind: str) -> Any:
    """Returns a module of the extra `captures`.

    Args:
      name: name of the module.
      path: path of the file that needs it.
      kind: kind of file, as text.

    Raises:
      InputError: the module is not installed.
    """
    try:
        return importlib.import_module(name)
    except ImportError:
        raise InputError(
            f"{path}: {kind} needs the extra `captures`: pip install 'a2fjax[captures]'"
        ) from None


def one_line(error: BaseException) -> str:
    """Returns the message of an error in one line of at most 160 characters."""
    text = " ".join(str(error).split())[:160].rstrip(".")
    if "allow_pickle" in text or "Object arrays" in text or "Python objects" in text:
        return "it holds pickled objects, which are refused: save plain arrays"
    return text or type(error).__name__
