"""Converts names, sizes and times to the forms that schedulers accept."""

from __future__ import annotations

import hashlib
import json
import math
import re
from collections.abc import Mapping
from typing import Any

from a2fjax.errors import InputError

_TIME = re.compile(r"(?:(\d+)-)?(\d+)(?::(\d+))?(?::(\d+))?")
_UNITS = {"m": 1, "h": 60, "d": 1440}


def slug(text: str, path: str) -> str:
    """Returns a name valid for queues and DNS: the words of `text` and a digest of `path`."""
    return f"{slug_words(text)}-{hashlib.sha256(path.encode()).hexdigest()[:8]}"


def slug_words(text: str) -> str:
    """Returns the words of a text in lower case, joined by "-", at most 28 characters."""
    return re.sub(r"[^a-z0-9]+", "-", text.lower()).strip("-")[:28].strip("-") or "job"


def utf8(text: str, what: str) -> str:
    """Returns `text` unchanged when scripts and manifests can hold it.

    Raises:
      InputError: the text is not UTF-8 or contains a NUL.
    """
    try:
        text.encode()
    except UnicodeEncodeError:
        shown = text.encode(errors="surrogateescape")
        raise InputError(f"{what} {shown!r}: is not UTF-8; rename it") from None
    if "\0" in text:
        raise InputError(f"{what} {text!r}: holds a NUL")
    return text


def memory_mib(text: str, flag: str = "--mem") -> int:
    """Returns the MiB of "8G", "8Gi", "500M".

    Raises:
      InputError: another form.
    """
    match = re.fullmatch(r"([1-9]\d*)([MGT])(i?B?)", text)
    if not match:
        raise InputError(f"{flag} {text}: expected a number and a unit, such as 8G or 500M")
    return int(match[1]) * {"M": 1, "G": 1024, "T": 1024**2}[match[2]]


def minutes(text: str) -> int:
    """Returns minutes, rounded up, of "90m", "24h", "2d" or Slurm's m, m:s, h:m:s, d-h, d-h:m:s.

    Raises:
      InputError: another form, or no time at all.
    """
    short = re.fullmatch(r"(\d+)([mhd])", text)
    total = float(int(short[1]) * _UNITS[short[2]]) if short else _slurm_minutes(text)
    if not total:
        raise InputError(f"--time {text}: expected more than nothing")
    return math.ceil(total)


def last_line(text: str) -> str:
    """Returns the last line that is not blank."""
    lines = [line.strip() for line in text.splitlines() if line.strip()]
    return lines[-1] if lines else "no message"


def as_json(values: Mapping[str, Any]) -> str:
    """Returns values as the text of a small JSON file."""
    return json.dumps(values, indent=1) + "\n"


def _slurm_minutes(text: str) -> float:
    match = _TIME.fullmatch(text)
    if not match:
        raise InputError(
            f"--time {text}: expected minutes, hours:minutes:seconds or days-hours, or such as 24h"
        )
    days, *rest = match.groups()
    numbers = [int(n) for n in rest if n is not None]
    if days is not None:
        hours, mins, seconds = (numbers + [0, 0])[:3]
    elif len(numbers) == 3:
        hours, mins, seconds = numbers
    else:
        hours, mins, seconds = (0, *(numbers + [0])[:2])
    return int(days or 0) * 1440 + hours * 60 + mins + seconds / 60
