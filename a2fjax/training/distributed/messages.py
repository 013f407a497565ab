"""Messages between the processes of a run, and the checks that each one passes on receipt.

A message is a flat JSON object with a "kind" from `SCHEMAS`. It may carry bytes, which are stored
behind it and never parsed here.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

LONGEST_TEXT = 4096
_LARGEST = 2**31 - 1

SCHEMAS: Mapping[str, Mapping[str, type]] = {
    "hello": {"rank": int, "size": int, "session": str, "name": str, "nonce": str},
    "welcome": {"nonce": str},
    "confirm": {},
    "refused": {"why": str},
    "go": {"port": int},
    "beat": {},
    "here": {"meeting": int},
    "value": {"meeting": int},
    "bye": {},
    "end": {"text": str, "code": int},
}
"""Fields of each kind. Numbers are from 0 to 2^31 - 1, texts at most `LONGEST_TEXT` characters."""


class Violation(Exception):
    """Received bytes that no process of this run sends."""


def encode(kind: str, **fields: Any) -> bytes:
    """Returns a message as bytes; texts are cut to `LONGEST_TEXT` characters."""
    cut = {k: v[:LONGEST_TEXT] if isinstance(v, str) else v for k, v in fields.items()}
    return json.dumps({"kind": kind, **cut}).encode()


def decode(data: bytes) -> dict[str, Any]:
    """Returns a message after checking it.

    Raises:
      Violation: not JSON, an unknown kind, or a field that is missing, unknown, of another type or
        out of range.

    Example:
        >>> decode(encode("go", port=4000))
        {'kind': 'go', 'port': 4000}
    """
    try:
        message = json.loads(data)
    except (ValueError, RecursionError):
        raise Violation("a message that is not JSON") from None
    kind = message.get("kind") if isinstance(message, dict) else None
    schema = SCHEMAS.get(kind) if isinstance(kind, str) else None
    if schema is None:
        raise Violation("a message of unknown kind")
    if message.keys() != {"kind", *schema}:
        raise Violation(f"a message {kind!r} with other fields than {', '.join(schema) or 'none'}")
    for name, expected in schema.items():
        if not _fits(message[name], expected):
            raise Violation(
                f"a message {kind!r} whose {name} is no {expected.__name__}, or out of range"
            )
    return dict(message)


def _fits(value: Any, kind: type) -> bool:
    if kind is str:
        return isinstance(value, str) and len(value) <= LONGEST_TEXT
    return isinstance(value, int) and not isinstance(value, bool) and 0 <= value <= _LARGEST
