"""What goes wrong in reading bytes that are not what their name says."""

from __future__ import annotations

import csv
import lzma
import struct
import tokenize
import zipfile
import zlib

DAMAGED = (
    *(OSError, ValueError, EOFError, LookupError, TypeError, AttributeError, SyntaxError),
    *(OverflowError, MemoryError, RuntimeError, csv.Error, struct.error, tokenize.TokenError),
    *(zlib.error, lzma.LZMAError, zipfile.BadZipFile),
)
"""What NumPy, zip, CSV and JSON readers raise for damaged files (deep nesting is a RuntimeError).

`InputError` is a ValueError: it is to be let through before these are caught."""


def one_line(error: BaseException) -> str:
    """Returns what an error says, in one line of at most 160 characters."""
    text = " ".join(str(error).split())[:160].rstrip(".")
    if "allow_pickle" in text or "Object arrays" in text or "Python objects" in text:
        return "it holds pickled objects, which are refused: save plain arrays"
    return text or type(error).__name__
