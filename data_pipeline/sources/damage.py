"""What goes wrong in reading bytes that are not what their name says."""

from __future__ import annotations

import csv
import lzma
import struct
import tokenize
import zipfile
import zlib
from pathlib import Path

import numpy as np

from a2fjax.errors import InputError

RATES = (1.0, 1000.0)
"""Frames a second that a capture can have."""

DAMAGED = (
    *(OSError, ValueError, EOFError, LookupError, TypeError, AttributeError, SyntaxError),
    *(OverflowError, MemoryError, RuntimeError, csv.Error, struct.error, tokenize.TokenError),
    *(zlib.error, lzma.LZMAError, zipfile.BadZipFile),
)
"""What NumPy, zip, CSV and JSON readers raise for damaged files (deep nesting is a RuntimeError).

`InputError` is a ValueError: it is to be let through before these are caught."""


def check_rate(path: Path, times: np.ndarray) -> None:
    """Checks that rising times [F] are seconds, and not of a rate that no camera has.

    Raises:
      InputError: they are.
    """
    if len(times) < 2:
        return
    step = float(np.median(np.diff(times)))
    if not 1.0 / RATES[1] <= step * (1 + 1e-6) <= (1 + 2e-6) / RATES[0]:
        found = f"{1.0 / step:g}" if step > 0 else "no"
        raise InputError(
            f"{path}: its times are {found} frames a second, expected 1 to 1000: are they in "
            "seconds? --config.fps=... takes no notice of them"
        )


def one_line(error: BaseException) -> str:
    """Returns what an error says, in one line of at most 160 characters."""
    text = " ".join(str(error).split())[:160].rstrip(".")
    if "allow_pickle" in text or "Object arrays" in text or "Python objects" in text:
        return "it holds pickled objects, which are refused: save plain arrays"
    return text or type(error).__name__
