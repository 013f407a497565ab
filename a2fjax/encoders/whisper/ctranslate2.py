"""Weights of Whisper's encoder in a model.bin of CTranslate2, dequantised.

Source: the binary layout is that of `ModelSpec._serialize` in github.com/OpenNMT/CTranslate2
(python/ctranslate2/specs/model_spec.py), versions 2 to 6.
"""

from __future__ import annotations

import math
import mmap
import struct
from collections.abc import Iterator
from pathlib import Path

import numpy as np

from a2fjax.errors import InputError

_DTYPES = ("<f4", "i1", "<i2", "<i4", "<f2", "bfloat16")
_OLD_DTYPES = {4: "<f4", 2: "<i2", 1: "i1"}


def read_ctranslate2(file: Path) -> dict[str, np.ndarray]:
    """Returns the encoder's variables, dequantised, by names without "encoder/", "." for "/".

    Raises:
      InputError: not a CTranslate2 model of Whisper, or damaged.
    """
    if not file.stat().st_size:
        raise InputError(f"{file}: empty")
    with open(file, "rb") as handle, mmap.mmap(handle.fileno(), 0, access=mmap.ACCESS_READ) as data:
        values = {
            name.removeprefix("encoder/").replace("/", "."): value
            for name, value in _variables(file, data)
            if name.startswith("encoder/")
        }
    for name in [n for n in values if n.endswith("_scale")]:
        scale = values.pop(name)
        weight = values.get(name.removesuffix("_scale"))
        # Scales are one for all, one per row, or one per row and tap.
        if weight is None or scale.shape not in ((), weight.shape[:1], weight.shape[::2]):
            raise InputError(f"{file}: encoder's {name} {scale.shape} fits no weight")
        if weight.ndim == 3 and scale.ndim == 2:
            scale = scale[:, None, :]
        elif scale.ndim:
            scale = scale.reshape(-1, *[1] * (weight.ndim - 1))
        values[name.removesuffix("_scale")] = weight.astype(np.float32) / scale
    return values


def _variables(file: Path, data: mmap.mmap) -> Iterator[tuple[str, np.ndarray]]:
    """Yields (name, copy of the value) of the encoder's variables, aliases last."""
    import ml_dtypes  # noqa: F401 - registers bfloat16 with NumPy.

    offset = 0

    def unpack(form: str) -> int:
        nonlocal offset
        (value,) = struct.unpack_from("<" + form, data, offset)
        offset += struct.calcsize("<" + form)
        return value

    def text() -> str:
        nonlocal offset
        size = unpack("H")
        raw = data[offset : offset + size]
        offset += size
        if len(raw) < size or not size or raw[-1]:
            raise ValueError(f"no name at byte {offset - size}")
        return raw[:-1].decode()

    try:
        version = unpack("I")
        if not 2 <= version <= 6:
            raise ValueError(f"version {version}, expected 2 to 6")
        spec = text()
        if spec != "WhisperSpec":
            raise InputError(f"{file}: a CTranslate2 model of {spec!r}, expected 'WhisperSpec'")
        unpack("I")  # The revision; names are checked below.
        variables: dict[str, np.ndarray] = {}
        for _ in range(unpack("I")):
            name = text()
            shape = tuple(unpack("I") for _ in range(unpack("B")))
            code = unpack("B")
            dtype = np.dtype(_DTYPES[code] if version >= 4 else _OLD_DTYPES[code])
            size = unpack("I") * (1 if version >= 4 else code)
            if size != math.prod(shape) * dtype.itemsize:
                raise ValueError(f"{name} has {size} bytes for shape {shape}")
            if offset + size > len(data):
                raise ValueError(f"it ends inside {name}")
            if name.startswith("encoder/"):
                values = np.frombuffer(data[offset : offset + size], dtype)
                variables[name] = values.reshape(shape)
            offset += size
        yield from variables.items()
        for _ in range(unpack("I") if version >= 3 else 0):
            alias, name = text(), text()
            for ending in ("", "_scale"):
                if alias.startswith("encoder/") and name + ending in variables:
                    yield alias + ending, variables[name + ending]
    except (struct.error, ValueError, IndexError, KeyError, UnicodeDecodeError) as error:
        if isinstance(error, InputError):
            raise
        raise InputError(f"{file}: not a CTranslate2 model, or damaged ({error})") from None
