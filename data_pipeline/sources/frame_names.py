"""Finds the frame numbers in the file names of a sequence."""

from __future__ import annotations

import re
from collections.abc import Sequence

from a2fjax.errors import InputError

_NUMBER = re.compile(r"\d+")
_LARGEST = 10**15  # exact as float64


def number_frames(stems: Sequence[str], where: str) -> list[int]:
    """Returns the frame number of each file name.

    Names may hold other numbers (`take2_head_0000_v3`): the frame number is the one that differs
    between all files, the last of several. A "-" before it is a sign after a separator or at the
    start (`head.-010`), or if other files have none in its place (`head-1`, `head0`); otherwise it
    is a separator.

    Args:
      stems: file names without suffix, each with a number in it.
      where: folder, for messages.

    Raises:
      InputError: a number is too large to be a frame's.

    Example:
        >>> number_frames(["head_0000_v2", "head_0001_v2"], "folder")
        [0, 1]
        >>> number_frames(["head.-002", "head.-001", "head.000"], "folder")
        [-2, -1, 0]
    """
    # A "-" that some names lack in the same place is a sign.
    texts = {_NUMBER.sub("#", stem) for stem in stems}
    mixed = len(texts) > 1 and len({text.replace("-#", "#") for text in texts}) == 1
    rows = [[_signed(stem, m, mixed) for m in _NUMBER.finditer(stem)] for stem in stems]
    fewest = min(len(row) for row in rows)
    # Counted from either end, as some names may hold more numbers than others.
    places = [*range(fewest), *range(-fewest, 0)]
    columns = [[row[place] for row in rows] for place in places]
    unique = [column for column in columns if len(set(column)) == len(rows)]
    numbers = (unique or columns)[-1]
    if max(abs(number) for number in numbers) > _LARGEST:
        raise InputError(f"{where}: a number in its file names is too large for a frame")
    return numbers


def _signed(stem: str, match: re.Match[str], mixed: bool) -> int:
    number, before = int(match.group()), stem[: match.start()]
    if before.endswith("-") and (mixed or not before[:-1] or not before[-2].isalnum()):
        return -number
    return number
