"""States of streams as bytes: saved, moved to another process, and checked when they are read.

The bytes are those of an .npz whose member "about" is JSON: schema, rig, model, hop.
"""

from __future__ import annotations

import io
import json
import zipfile
import zlib
from collections.abc import Mapping
from typing import Any

import numpy as np

from a2fjax import rig
from a2fjax.errors import InputError
from a2fjax.streaming.compiled import CompiledStep

SCHEMA = 1

_DAMAGE = (OSError, ValueError, KeyError, EOFError, zipfile.BadZipFile, zlib.error)
_OVERHEAD = 65_536  # Headers of the archive and of its arrays.


def about(step: CompiledStep) -> dict[str, Any]:
    """Returns what a state belongs to: one model on one rig at one look-ahead and hop."""
    return {
        "schema": SCHEMA,
        "rig": rig.FINGERPRINT,
        "model": step.fingerprint,
        "lookahead": step.step.lookahead,
        "hop": step.step.hop,
        "streams": step.size,
    }


def pack(step: CompiledStep, state: Mapping[str, Any], more: Mapping[str, np.ndarray]) -> bytes:
    """Returns the bytes of a state.

    Args:
      step: the step that the state belongs to.
      state: by name.
      more: other arrays by name, which `unpack` returns as they are.
    """
    file = io.BytesIO()
    arrays: dict[str, Any] = {
        f"state.{name}": np.asarray(state[name]) for name in step.step.entries
    }
    arrays |= {f"more.{name}": value for name, value in more.items()}
    text = np.frombuffer(json.dumps(about(step)).encode(), np.uint8)
    np.savez(file, about=text, **arrays)
    return file.getvalue()


def unpack(
    step: CompiledStep, data: bytes, *, most_more: int, name: str = "state"
) -> tuple[dict[str, np.ndarray], dict[str, np.ndarray]]:
    """Returns (state, other arrays) of bytes from `pack`.

    Args:
      step: the step that goes on from the state.
      data: the bytes.
      most_more: most bytes of the other arrays.
      name: of the bytes, for errors.

    Raises:
      InputError: damaged, of another rig, model, look-ahead or hop, of a newer schema, or not
        finite.
    """
    held = step.size * sum(entry.nbytes for entry in step.step.entries.values())
    try:
        with zipfile.ZipFile(io.BytesIO(data)) as archive:
            unpacked = sum(member.file_size for member in archive.infolist())
        if unpacked > held + most_more + _OVERHEAD:
            raise InputError(f"{name}: unpacks to {unpacked} bytes, too many for this model")
        with np.load(io.BytesIO(data), allow_pickle=False) as file:
            arrays = {key: file[key] for key in file.files}
        found = json.loads(arrays.pop("about").tobytes())
    except InputError:
        raise
    except _DAMAGE as error:
        raise InputError(f"{name}: not a saved stream, or damaged ({error})") from None
    _check_about(step, found, name)
    state = {k.removeprefix("state."): v for k, v in arrays.items() if k.startswith("state.")}
    for key, entry in step.step.entries.items():
        value, shape = state.get(key), (step.size, *entry.shape)
        if value is None or value.shape != shape or value.dtype != entry.dtype:
            raise InputError(f"{name}: {key!r} is missing or not {entry.dtype} of shape {shape}")
        if not np.isfinite(value).all():
            raise InputError(f"{name}: {key!r} has values that are not finite")
    more = {k.removeprefix("more."): v for k, v in arrays.items() if k.startswith("more.")}
    return {key: state[key] for key in step.step.entries}, more


def _check_about(step: CompiledStep, found: Any, name: str) -> None:
    expected = about(step)
    if not isinstance(found, dict) or not isinstance(found.get("schema"), int):
        raise InputError(f"{name}: does not state its schema")
    if found["schema"] > SCHEMA:
        raise InputError(
            f"{name}: has schema {found['schema']}, expected at most {SCHEMA}; update a2fjax"
        )
    for key, value in expected.items():
        if found.get(key) != value:
            raise InputError(f"{name}: {key} is {found.get(key)!r}, this stream's is {value!r}")
