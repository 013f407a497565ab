"""Reads the phone tier of a TextGrid of Praat, in the long or the short text form.

Praat's manual ("TextGrid file formats") defines both forms by one rule: what counts are the free
standing numbers, texts in double quotes (a quote inside is doubled) and flags in angle brackets;
everything else is a comment, and so is what follows an exclamation mark. Files are UTF-8 or UTF-16,
with or without a byte order mark.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path

from a2fjax import budgets
from a2fjax.errors import InputError

_TOKEN = re.compile(
    r'"((?:[^"]|"")*)"|<(\w+)>(?!\S)|(?<!\S)([-+]?\d+(?:\.\d*)?(?:[eE][-+]?\d+)?)(?!\S)|(?<!\S)!.*'
)
_PHONES = re.compile(r"phone|\bseg|ipa|sampa|\bmau\b", re.IGNORECASE)


def read(path: str | Path) -> list[tuple[float, float, str]]:
    """Returns (start, end, label) in seconds of every interval of the phone tiers.

    Tiers of phones are those whose name says so ("phones", "speaker - phones", "segments", "MAU").

    Raises:
      InputError: no such file, another encoding, not a TextGrid, or no tier of phones.
    """
    tiers = _tiers(path, _tokens(decode(path)))
    chosen = [intervals for name, intervals in tiers if _PHONES.search(name)]
    if not chosen:
        names = ", ".join(repr(name) for name, _ in tiers) or "none"
        raise InputError(f"{path}: no tier of phones (tiers: {names}); expected one named 'phones'")
    return [interval for intervals in chosen for interval in intervals]


def decode(path: str | Path) -> str:
    """Returns the text of a file in UTF-8 or UTF-16.

    Raises:
      InputError: no such file, too large, or another encoding.
    """
    data = budgets.read_bytes(path)
    encoding = "utf-8-sig"
    if data[:2] in (b"\xff\xfe", b"\xfe\xff"):
        encoding = "utf-16"
    elif b"\0" in data[:2]:
        encoding = "utf-16-be" if data[:1] == b"\0" else "utf-16-le"
    try:
        return data.decode(encoding)
    except UnicodeDecodeError as error:
        raise InputError(
            f"{path}: byte {error.start} is not {encoding.removesuffix('-sig').upper()}; expected "
            "a text in UTF-8 or UTF-16"
        ) from None


def _tokens(text: str) -> Iterator[str | float]:
    for match in _TOKEN.finditer(text):
        quoted, flag, number = match.groups()
        if quoted is not None:
            yield quoted.replace('""', '"')
        elif number is not None:
            yield float(number)
        elif flag is not None:
            yield f"<{flag}>"


def _tiers(
    path: str | Path, tokens: Iterator[str | float]
) -> list[tuple[str, list[tuple[float, float, str]]]]:
    def number(what: str) -> float:
        value = next(tokens, None)
        if not isinstance(value, float):
            raise InputError(f"{path}: not a TextGrid ({_shown(value)} in place of {what})")
        return value

    def text(what: str) -> str:
        value = next(tokens, None)
        if not isinstance(value, str):
            raise InputError(f"{path}: not a TextGrid ({_shown(value)} in place of {what})")
        return value

    kind = text("the file type"), text("the class")
    if kind[1] != "TextGrid":
        raise InputError(f"{path}: holds a {kind[1][:40]!r}, expected a TextGrid")
    number("the start"), number("the end")
    if text("<exists>") != "<exists>":
        return []
    tiers = []
    for _ in range(int(number("the number of tiers"))):
        tier, name = text("the class of a tier"), text("the name of a tier")
        number("the start of a tier"), number("the end of a tier")
        intervals = []
        for i in range(int(number("the number of intervals"))):
            start = number(f"the start of interval {i + 1} of {name!r}")
            if tier == "IntervalTier":
                end = number(f"the end of interval {i + 1} of {name!r}")
                intervals.append((start, end, text(f"the text of interval {i + 1} of {name!r}")))
            else:
                text(f"the mark of point {i + 1} of {name!r}")
        tiers.append((name, intervals))
    return tiers


def _shown(value: object) -> str:
    return "the end of the file" if value is None else f"{value!r}"[:60]
