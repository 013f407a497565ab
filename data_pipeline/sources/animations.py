"""Takes of a file that holds several animations, and the choice of one of them."""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from pathlib import Path

from a2fjax.errors import InputError, nearest

_PARTS = re.compile(r"[|.:/]")
_NO_FILE_NAME = re.compile(r"[/\\\0]|^$")
_LONGEST = 200  # bytes of a file's name


def choose_animation(
    path: Path,
    names: Sequence[str],
    lengths: Sequence[float],
    *,
    asked: str = "",
    take: str = "",
    kind: str = "animation",
) -> tuple[int, tuple[str, ...]]:
    """Returns the index of the animation to read and a note about the choice.

    It is the one that the user asks for, else the one named like the take or like its end
    (exporters add the name of the object: "head|take_01"), else the longest. A file with one
    animation leaves no choice.

    Args:
      path: the file, for messages.
      names: names of the animations.
      lengths: their lengths, in any unit.
      asked: value of `--config.animation`, or "".
      take: name of the take.
      kind: what the file holds several of, for messages.

    Raises:
      InputError: no animation has the name asked for.
    """
    if len(names) == 1:
        return 0, ()
    lower = [name.lower() for name in names]
    listed = ", ".join(repr(name) for name in names[:8]) + (", ..." if len(names) > 8 else "")
    if asked:
        if asked.lower() not in lower:
            raise InputError(
                f"{path}: --config.animation={asked!r}: no {kind} in it has this name"
                f"{nearest(asked, names)}; it holds {listed}"
            )
        index, why = lower.index(asked.lower()), "--config.animation"
    else:
        own = take.lower()
        alike = [i for i, n in enumerate(lower) if own in (n, *_PARTS.split(n))]
        alike = alike or [i for i, n in enumerate(lower) if n and own.endswith(f"_{n}")]
        longest = max(range(len(names)), key=lambda i: (lengths[i], -i))
        is_first = len({round(float(length), 3) for length in lengths}) == 1
        index, why = longest, "the first of equal length" if is_first else "the longest"
        if alike:
            index, why = alike[0], "named like the take"
        why += "; --config.animation=NAME chooses another"
    return index, (f"{path.name}: {kind} {names[index]!r} of {listed} ({why})",)


def with_sound(
    stem: str, names: Sequence[str], asked: str, find: Callable[[str], Path | None]
) -> list[tuple[str, Path]]:
    """Returns (take, sound file) of each animation that has a sound file of its own.

    That is <stem>_<animation>, or <animation>; `choose_animation` finds the animation by this name.

    Args:
      stem: name of the file without its suffix.
      names: names of its animations.
      asked: value of `--config.animation`, which leaves one; "" for all.
      find: returns the sound file of a take, or None.
    """
    named = []
    for animation in names:
        full = f"{stem}_{animation}"
        unfit = _NO_FILE_NAME.search(animation) or len(full.encode(errors="replace")) > _LONGEST
        if unfit or asked.lower() not in ("", animation.lower()):
            continue
        for name in (full, animation):
            audio = find(name)
            if audio is not None:
                named.append((name, audio))
                break
    return named
