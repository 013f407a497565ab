"""WAV files: how far their samples go, whatever the header states, and their start time.

Streaming writers cannot seek back to the header and leave a placeholder for the size of the
samples. libsndfile takes it for the size, or finds no samples at all.

Layout: Microsoft "Multimedia Programming Interface and Data Specifications 1.0" (RIFF), EBU Tech
3306 (RF64) and 3285 (bext), ITU-R BS.2088 (BW64).
"""

from __future__ import annotations

import dataclasses
import os
from pathlib import Path
from typing import BinaryIO

from a2fjax.audio.rewritten import Rewritten
from a2fjax.errors import InputError

TAGS = (b"RIFF", b"RF64", b"BW64")

_UNKNOWN = 0x7FFF0000  # Writers of unknown lengths state sizes from here on.
_ROUND = 100_000_000  # Frames or half the bytes of a size that a program, not a clock, chose.
_LARGEST = 0xFFFFFFFF  # Size of 32 bits; in RF64 it refers to the chunk ds64.
_MOST_HEADER = 64 << 20  # Bytes before the samples.


@dataclasses.dataclass(frozen=True)
class _Chunks:
    """The fields of a WAV header.

    Attributes:
      start: offset of the samples in bytes.
      stated: size of the samples in bytes as stated.
      block: bytes of a sample frame.
      format: contents of the chunk "fmt ".
    """

    start: int
    stated: int
    block: int
    format: bytes


def is_wav(head: bytes) -> bool:
    """Returns whether the first 12 bytes are those of a WAV."""
    return head[:4] in TAGS and head[8:12] == b"WAVE"


def readable(path: Path) -> Path | Rewritten:
    """Returns what libsndfile reads to the end: the path, or its samples after a right header.

    Raises:
      InputError: the file ends before the samples that its header states, and that size is no
        placeholder.
    """
    size = path.stat().st_size
    with path.open("rb") as file:
        tag = file.read(12)[:4]
        chunk = _chunks(file)
        if chunk is None:
            return path
        rest = size - chunk.start
        missing = chunk.stated - rest
        if is_placeholder(chunk.stated, chunk.block):
            to_end = missing >= 0 or not _is_chunks(file, chunk.start + chunk.stated, size)
        elif missing >= chunk.block:
            raise InputError(
                f"audio {path}: cut short, {missing} bytes of samples that its header states are"
                " missing"
            )
        else:
            to_end = not chunk.stated and rest > 0 and not _is_chunks(file, chunk.start, size)
            if chunk.stated and _joined(file, chunk.start + chunk.stated, size):
                raise joined(path)
    right = rest // chunk.block * chunk.block if to_end else min(chunk.stated, rest)
    if right == chunk.stated and tag != b"BW64":
        return path
    return Rewritten(path, _header(chunk.format, right, right // chunk.block), chunk.start)


def joined(path: Path) -> InputError:
    """Returns the error for files that were written one after the other."""
    return InputError(
        f"audio {path}: several files written one after the other, of which programs play the"
        " first; expected one: join their sound, as `sox A B OUT` does"
    )


def is_placeholder(size: int, block: int = 1) -> bool:
    """Returns whether a stated size of samples is one that streaming writers state.

    Args:
      size: stated size in bytes.
      block: bytes of a sample frame.

    Example:
        >>> [is_placeholder(n, 2) for n in (0xFFFFFFFF, 2_000_000_000, 1 << 30, 96_000_000)]
        [True, True, True, False]
    """
    if size >= _UNKNOWN:
        return True
    frames = size // block
    near_power = any(0 <= power - size <= 128 for power in (1 << 28, 1 << 29, 1 << 30))
    return near_power or (frames >= _ROUND and frames % _ROUND == 0) or _decimal(size)


def _decimal(size: int) -> bool:
    return size >= 5 * _ROUND and min(size % _ROUND, -size % _ROUND) <= 128


def start_samples(path: Path) -> int:
    """Returns TimeReference of the chunk "bext" in samples since midnight, 0 without one."""
    with path.open("rb") as file:
        if not is_wav(file.read(12)):
            return 0
        while len(chunk := file.read(8)) == 8:
            length = int.from_bytes(chunk[4:], "little")
            if chunk[:4] == b"bext":
                body = file.read(346)
                return int.from_bytes(body[338:346], "little") if len(body) == 346 else 0
            file.seek(length + length % 2, os.SEEK_CUR)
    return 0


def _chunks(file: BinaryIO) -> _Chunks | None:
    """Returns what the header states, None without samples; the file is at its first chunk."""
    long_size, form = None, b""
    while len(chunk := file.read(8)) == 8 and file.tell() < _MOST_HEADER:
        length = int.from_bytes(chunk[4:], "little")
        start = file.tell()
        if chunk[:4] == b"data":
            if len(form) < 16:
                return None
            if length == _LARGEST and long_size is not None:
                length = long_size
            return _Chunks(start, length, max(1, int.from_bytes(form[12:14], "little")), form)
        if chunk[:4] == b"ds64":
            long_size = int.from_bytes(file.read(16)[8:], "little")
        elif chunk[:4] == b"fmt ":
            form = file.read(min(length, 1 << 12))
        file.seek(start + length + length % 2)
    return None


def _joined(file: BinaryIO, position: int, size: int) -> bool:
    """Returns whether another WAV follows the samples or the chunks behind them."""
    while position + 12 <= size:
        file.seek(position)
        chunk = file.read(12)
        if is_wav(chunk) or is_wav(chunk[1:] + file.read(1)):  # after padding or without it
            return True
        length = int.from_bytes(chunk[4:8], "little")
        position += 8 + length + length % 2
    return False


def _is_chunks(file: BinaryIO, position: int, size: int) -> bool:
    """Returns whether the file holds nothing but whole chunks from a position to its end."""
    while position < size:
        file.seek(position)
        chunk = file.read(8)
        if len(chunk) < 8 or not chunk[:4].isascii() or not chunk[:3].strip().isalnum():
            return False
        length = int.from_bytes(chunk[4:], "little")
        position += 8 + length + length % 2
    return position - size <= 1


def _header(form: bytes, size: int, frames: int) -> bytes:
    """Returns an RF64 header for `size` bytes of samples."""
    chunk = b"fmt " + len(form).to_bytes(4, "little") + form + bytes(len(form) % 2)
    total = 4 + 36 + len(chunk) + 8 + size
    long = (28).to_bytes(4, "little") + b"".join(n.to_bytes(8, "little") for n in (total, size))
    long += frames.to_bytes(8, "little") + bytes(4)
    largest = _LARGEST.to_bytes(4, "little")
    return b"RF64" + largest + b"WAVEds64" + long + chunk + b"data" + largest
