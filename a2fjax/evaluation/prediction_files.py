"""Finds the file of each clip in a folder of another program's curves.

A file is named as its clip: `<id>.csv`, with the folders of the id ("p1/take3" is p1/take3.csv) or,
in one folder, with "_" for "/" (p1_take3.csv). All files of curves must belong to a clip of the
data; those of clips that are not measured, and companions of Live Link files, are left alone.
"""

from __future__ import annotations

import unicodedata
from collections.abc import Collection, Sequence
from pathlib import Path

from a2fjax.animation import curve_reader, formats
from a2fjax.errors import InputError, nearest

_TYPED = (".channels", ".nim", ".omniverse")
"""What file names have before their ending, such as a.channels.csv."""


def find(folder: str | Path, clips: Sequence[str], others: Collection[str] = ()) -> dict[str, Path]:
    """Returns the file of each clip.

    Args:
      folder: folder with files of curves.
      clips: ids of the clips to measure.
      others: ids of clips whose files are left alone.

    Raises:
      InputError: no such folder, no file of curves, a clip without a file or with two, or a file of
        no clip; suggests the nearest name.
    """
    folder = Path(folder)
    if not folder.is_dir():
        problem = "is a file" if folder.exists() else "no such folder"
        raise InputError(f"--predictions {folder}: {problem}; expected a folder of curves")
    files = sorted(
        path
        for path in folder.rglob("*")
        if path.suffix.lower() in curve_reader.ENDINGS
        and path.is_file()
        and not formats.is_companion(path)
        and not any(part.startswith(".") for part in path.relative_to(folder).parts)
    )
    if not files:
        endings = " ".join(curve_reader.ENDINGS)
        raise InputError(f"--predictions {folder}: has no file of curves ({endings})")
    names: dict[str, str] = {}
    for clip in (*clips, *others):
        for name in (clip, clip.replace("/", "_")):
            names.setdefault(_plain(name), clip)
    wanted = set(clips)
    found: dict[str, Path] = {}
    for path in files:
        name = _stem(path.relative_to(folder))
        if _plain(name) not in names:
            raise InputError(
                f"{path}: no clip of the data is called {name!r}{nearest(name, [*clips, *others])}"
            )
        clip = names[_plain(name)]
        if clip in found:
            raise InputError(f"{path}: clip {clip!r} has {found[clip]} already")
        if clip in wanted:
            found[clip] = path
    missing = [clip for clip in clips if clip not in found]
    if missing:
        more = f" (nor {len(missing) - 1} more of {len(clips)})" if len(missing) > 1 else ""
        spelt = nearest(missing[0], [_stem(p.relative_to(folder)) for p in files])
        raise InputError(
            f"--predictions {folder}: has no file for clip {missing[0]!r}{more}; expected "
            f"{missing[0]}.csv or another form{spelt.replace('did you mean', 'the nearest is')}"
        )
    return found


def _stem(path: Path) -> str:
    name = path.with_suffix("").as_posix()
    for typed in _TYPED:
        name = name.removesuffix(typed)
    return name


def _plain(name: str) -> str:
    return unicodedata.normalize("NFC", name)
