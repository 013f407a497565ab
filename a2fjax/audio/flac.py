"""FLAC files: one stream or several joined ones, and lengths that a header does not state.

libsndfile decodes only the first of joined streams, and none whose length is not stated, as it is
when an encoder writes into a pipe. Layout: RFC 9639, sections 8.2 (STREAMINFO) and 9.1 (frames).
"""

from __future__ import annotations

import mmap
import re
from pathlib import Path

from a2fjax.audio.rewritten import Rewritten
from a2fjax.errors import InputError

_HEAD = re.compile(rb"fLaC[\x00\x80]\x00\x00\x22", re.DOTALL)
"""The marker and the header of its first block, STREAMINFO of 34 bytes."""

_INFO = 42  # bytes up to the end of STREAMINFO
_LONGEST_FRAME = 4 << 20  # bytes; 65,535 samples of 8 channels of 32 bits take 2 MiB
_TRIES = 8  # bytes that look like a header: one in a frame of 2 MiB, a hundredth in others
_TAG = 128  # bytes of an ID3v1 tag at the end


def start(head: bytes) -> int | None:
    """Returns where the first stream begins in a file with these first 10 bytes, None elsewhere.

    A tag in ID3v2, which some programs put before the stream, is skipped; MPEG files have it, too.
    """
    if head[:4] == b"fLaC":
        return 0
    if head[:3] != b"ID3" or len(head) < 10:
        return None
    # Four numbers of seven bits (ID3v2.3, section 3.1).
    return 10 + sum(byte << shift for byte, shift in zip(head[6:10], (21, 14, 7, 0), strict=True))


def parts(path: Path, begin: int) -> list[Path | Rewritten]:
    """Returns what libsndfile reads to the end, in order: the path, or its streams.

    Args:
      path: the file.
      begin: where it has "fLaC".

    Raises:
      InputError: a stream states no length, and its last frame is not complete.
    """
    with path.open("rb") as file, mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as data:
        begins = [m.start() for m in _HEAD.finditer(data, begin) if _is_info(data, m.start())]
        ends = [*begins[1:], len(data)]
        if len(begins) < 2 and (not begins or _stated(data, begins[0])):
            return [path]
        return [_part(path, data, b, e) for b, e in zip(begins, ends, strict=True)]


def _part(path: Path, data: mmap.mmap, begin: int, end: int) -> Rewritten:
    head = bytearray(data[begin : begin + _INFO])
    if not _stated(data, begin):
        length = _length(path, data, begin, end)
        head[21] = head[21] & 0xF0 | length >> 32
        head[22:26] = (length & 0xFFFFFFFF).to_bytes(4, "big")
    return Rewritten(path, bytes(head), begin + _INFO, end)


def _is_info(data: mmap.mmap, at: int) -> bool:
    """Returns whether a marker is followed by block sizes and a rate that a stream may have."""
    small, large = _block_sizes(data, at)
    rate = int.from_bytes(data[at + 18 : at + 21], "big") >> 4
    return at + _INFO < len(data) and 16 <= small <= large and rate > 0


def _block_sizes(data: mmap.mmap, at: int) -> tuple[int, int]:
    return int.from_bytes(data[at + 8 : at + 10], "big"), int.from_bytes(
        data[at + 10 : at + 12], "big"
    )


def _stated(data: mmap.mmap, at: int) -> int:
    """Returns the number of samples in STREAMINFO, 0 where it is not stated."""
    return (data[at + 21] & 0x0F) << 32 | int.from_bytes(data[at + 22 : at + 26], "big")


def _length(path: Path, data: mmap.mmap, begin: int, end: int) -> int:
    """Returns the number of samples of a stream from the header of its last frame."""
    if end - begin > _TAG and data[end - _TAG : end - _TAG + 3] == b"TAG":
        end -= _TAG
    block = _block_sizes(data, begin)[1]
    first = max(begin + _INFO, end - _LONGEST_FRAME)
    at, tries = data.rfind(b"\xff", first, end), 0
    while at >= 0 and tries < _TRIES:
        header = _frame(data[at : min(at + 16, end)], block)
        if header is not None:
            if _crc(data[at:end], _CRC16, 16) == 0:
                return header
            tries += 1
        at = data.rfind(b"\xff", first, at)
    raise InputError(
        f"audio {path}: a FLAC file that states no length and ends within a frame: cut short;"
        " `flac -d -F` writes what is there to a WAV"
    )


def _frame(head: bytes, fixed: int) -> int | None:
    """Returns where a frame ends, in samples, None if these bytes are no header.

    Args:
      head: its first 16 bytes, or all.
      fixed: samples of a frame in a stream whose frames are numbered.
    """
    if len(head) < 6 or head[1] & 0xFE != 0xF8 or head[3] & 1:
        return None
    size, rate = head[2] >> 4, head[2] & 0x0F
    count = 1 if head[4] < 0x80 else 8 - (head[4] ^ 0xFF).bit_length()
    if size == 0 or rate == 15 or (count == 1 and head[4] >= 0x80) or count == 8:
        return None
    number = head[4] & (0x7F >> count if count > 1 else 0x7F)
    for byte in head[5 : 4 + count]:
        number = number << 6 | byte & 0x3F
    at = 4 + count
    if size in (6, 7):
        width = size - 5
        samples = int.from_bytes(head[at : at + width], "big") + 1
        at += width
    else:
        samples = 192 if size == 1 else 576 << (size - 2) if size < 6 else 256 << (size - 8)
    at += {12: 1, 13: 2, 14: 2}.get(rate, 0)
    if at >= len(head) or _crc(head[: at + 1], _CRC8, 8) != 0:
        return None
    return (number if head[1] & 1 else number * fixed) + samples


def _table(polynomial: int, bits: int) -> list[int]:
    out = []
    for byte in range(256):
        value = byte << (bits - 8)
        for _ in range(8):
            value = value << 1 ^ (polynomial if value >> (bits - 1) & 1 else 0)
        out.append(value & ((1 << bits) - 1))
    return out


_CRC8, _CRC16 = _table(0x07, 8), _table(0x8005, 16)


def _crc(data: bytes, table: list[int], bits: int) -> int:
    """Returns the checksum of bytes; 0 if they end with their checksum."""
    value, mask = 0, (1 << bits) - 1
    for byte in data:
        value = (value << 8 & mask) ^ table[value >> (bits - 8) ^ byte]
    return value
