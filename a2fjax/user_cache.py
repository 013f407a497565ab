"""Folder for results that are costly to compute and safe to delete.

`A2F_CACHE` names it; by default it is `a2fjax` in `XDG_CACHE_HOME` or `~/.cache`. `A2F_CACHE=off`
(or an empty value) turns every cache in it off. Results do not depend on it, only time does.
"""

from __future__ import annotations

import os
from pathlib import Path

VARIABLE = "A2F_CACHE"


def folder() -> Path | None:
    """Returns the folder, which may not exist yet; None if caching is off."""
    given = os.environ.get(VARIABLE)
    if given is not None:
        return None if given in ("", "off") else Path(given)
    base = os.environ.get("XDG_CACHE_HOME") or os.path.expanduser("~/.cache")
    return Path(base) / "a2fjax" if os.path.isabs(base) else None
