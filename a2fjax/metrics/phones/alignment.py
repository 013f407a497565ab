"""Reads phone alignments: TextGrid, CTM and PocketSphinx's JSON.

TextGrid       see `textgrid`; gaps between intervals are silence
CTM            lines "RECORDING CHANNEL START DURATION PHONE [CONFIDENCE]", seconds; ";;" starts
               a comment (NIST's format)
*.phone.json   "w" lists words, their "w" lists phones: "b" start, "d" duration, "t" label
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from a2fjax import budgets
from a2fjax.errors import InputError, nearest
from a2fjax.metrics.phones import textgrid

SUFFIXES = (".TextGrid", ".textgrid", ".ctm", ".phone.json")


@dataclasses.dataclass(frozen=True)
class Phone:
    """A phone or another labelled sound.

    Attributes:
      start, end: seconds from the start of the clip's sound.
      label: as the alignment has it.
    """

    start: float
    end: float
    label: str


def read(path: str | Path, name: str = "") -> tuple[Phone, ...]:
    """Reads an alignment.

    Args:
      path: file with one of `SUFFIXES`.
      name: id of the clip, which chooses among the recordings of a CTM.

    Returns:
      The phones in order of time.

    Raises:
      InputError: no such file, another format, damaged, or phones whose times are not in order.

    Example:
        >>> read("clip.lab")
        Traceback (most recent call last):
          ...
        a2fjax.errors.InputError: clip.lab: expected a .TextGrid, .ctm or .phone.json file
    """
    text = str(path)
    if text.lower().endswith(".textgrid"):
        intervals: Iterable[tuple[float, float, str]] = textgrid.read(path)
    elif text.endswith(".ctm"):
        intervals = _ctm(path, name)
    elif text.endswith(".phone.json"):
        intervals = _phone_json(path)
    else:
        raise InputError(f"{path}: expected a .TextGrid, .ctm or .phone.json file")
    phones = [Phone(start, end, label.strip()) for start, end, label in intervals]
    for phone in phones:
        if not (math.isfinite(phone.start + phone.end) and 0 <= phone.start <= phone.end):
            raise InputError(
                f"{path}: phone {phone.label!r} from {phone.start:g} to {phone.end:g} s: expected "
                "seconds from 0 on, the end after the start"
            )
    return tuple(sorted(phones, key=lambda phone: (phone.start, phone.end)))


def _ctm(path: str | Path, name: str) -> list[tuple[float, float, str]]:
    recordings: dict[str, list[tuple[float, float, str]]] = {}
    for number, line in enumerate(textgrid.decode(path).splitlines(), 1):
        if not line.strip() or line.lstrip().startswith(";;"):
            continue
        words = line.split()
        try:
            recording, _, start, duration, label = words[:5]
            begin, length = float(start), float(duration)
        except ValueError:
            raise InputError(
                f"{path}:{number}: {line.strip()[:60]!r}: expected RECORDING CHANNEL START "
                "DURATION PHONE"
            ) from None
        recordings.setdefault(recording, []).append((begin, begin + length, label))
    if len(recordings) == 1:
        return next(iter(recordings.values()))
    wanted = {name, name.rpartition("/")[2]} & recordings.keys()
    if not wanted:
        raise InputError(
            f"{path}: {len(recordings)} recordings, none named {name!r}{nearest(name, recordings)}"
        )
    return recordings[wanted.pop()]


def _phone_json(path: str | Path) -> list[tuple[float, float, str]]:
    document: Any = budgets.load_json(path)
    try:
        phones = [phone for word in document["w"] for phone in word.get("w", ())]
        intervals = [(float(p["b"]), float(p["b"]) + float(p["d"]), str(p["t"])) for p in phones]
    except (TypeError, KeyError, ValueError, AttributeError) as error:
        raise InputError(f"{path}: not a phone alignment ({error!r})") from None
    if not intervals:
        raise InputError(f"{path}: words without phones; expected a list 'w' in each word")
    return intervals
