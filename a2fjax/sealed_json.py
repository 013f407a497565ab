"""JSON values with a checksum of themselves, so that a change of the file is noticed."""

from __future__ import annotations

import json
import zlib
from collections.abc import Mapping
from typing import Any

KEY = "crc32"


def seal(values: Mapping[str, Any]) -> dict[str, Any]:
    """Returns JSON values with the CRC-32 of their text, 8 hex digits, as "crc32".

    The order of keys and the layout of a file do not count.

    Example:
      >>> is_sealed(seal({"steps": 8}))
      True
      >>> is_sealed({**seal({"steps": 8}), "steps": 9})
      False
    """
    return {**values, KEY: _crc32(values)}


def is_sealed(values: Mapping[str, Any]) -> bool:
    """Returns whether JSON values are those that `seal` returned."""
    return values.get(KEY) == _crc32({k: v for k, v in values.items() if k != KEY})


def _crc32(values: Mapping[str, Any]) -> str:
    return f"{zlib.crc32(json.dumps(values, sort_keys=True).encode()):08x}"
