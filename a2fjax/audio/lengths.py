"""How far the samples of a file go, for the formats whose headers libsndfile believes too readily.

libsndfile decodes what is there of a file that was cut short, without an error, and finds nothing,
or an error, where a writer could not state the length. Layouts: Apple AIFF 1.3 and Core Audio
Format 1.0, Sun's audio(4), Sony Wave64, NIST SPHERE 2.
"""

from __future__ import annotations

import os
from pathlib import Path
from typing import BinaryIO, Literal

from a2fjax.audio import wav
from a2fjax.audio.rewritten import Rewritten
from a2fjax.errors import InputError

_W64_DATA = b"data\xf3\xac\xd3\x11\x8c\xd1\x00\xc0\x4f\x8e\xdb\x8a"


def readable(path: Path) -> Path | Rewritten:
    """Returns what libsndfile reads to the end: the path, or a stream with a right header.

    MPEG files are recognised by their decoder; see `mp3.readable`.

    Raises:
      InputError: the file ends before its samples do, or holds several recordings one after the
        other of which only the first would be read.
    """
    size = path.stat().st_size
    with path.open("rb") as file:
        head = file.read(42)
        if wav.is_wav(head):
            return wav.readable(path)
        if head[:4] == b"FORM" and head[8:12] in (b"AIFF", b"AIFC"):
            _check(path, size, *_aiff(file))
        elif head[:4] in (b".snd", b"dns."):
            return _au(path, size, head)
        elif head[:4] == b"riff" and head[24:28] == b"wave":
            _check(path, size, *_w64(file))
        elif head[:4] == b"caff":
            return _caf(path, size, file)
        elif head[:7] == b"NIST_1A":
            _check(path, size, *_sphere(file))
        elif head[:4] == b"OggS":
            _check_chain(path, file, size)
        elif head[:4] == b"fLaC" and head[4] & 0x7F == 0 and _flac_length(head) == 0:
            raise InputError(
                f"audio {path}: a FLAC file that states no length, as encoders write into pipes;"
                " expected a length; `flac -d` and `flac` write the file anew with one"
            )
    return path


def _check(path: Path, size: int, start: int, stated: int) -> None:
    missing = start + stated - size
    if start and missing > 0 and not wav.is_placeholder(stated):
        raise InputError(
            f"audio {path}: cut short, {missing} bytes of samples that its header states are"
            " missing"
        )


def _aiff(file: BinaryIO) -> tuple[int, int]:
    """Returns (start of the samples, stated size), (0, 0) without samples; so do the others."""
    file.seek(12)
    while len(chunk := file.read(8)) == 8:
        length = int.from_bytes(chunk[4:], "big")
        if chunk[:4] == b"SSND":
            return file.tell(), length
        file.seek(length + length % 2, os.SEEK_CUR)
    return 0, 0


def _w64(file: BinaryIO) -> tuple[int, int]:
    file.seek(40)
    while len(chunk := file.read(24)) == 24:
        length = int.from_bytes(chunk[16:], "little")
        if chunk[:16] == _W64_DATA:
            return file.tell(), max(0, length - 24)
        if length < 24 or length >= 1 << 62:
            break
        file.seek(-(-length // 8) * 8 - 24, os.SEEK_CUR)
    return 0, 0


def _sphere(file: BinaryIO) -> tuple[int, int]:
    file.seek(0)
    lines = file.read(1024).split(b"\n")
    words = [line.split() for line in lines]
    values = {w[0]: w[2] for w in words if len(w) == 3 and w[2].isdigit()}
    sizes = [values.get(k) for k in (b"sample_count", b"sample_n_bytes", b"channel_count")]
    start = lines[1].strip()
    if not start.isdigit() or any(n is None for n in sizes[:2]):
        return 0, 0
    count, width, channels = (int(n or 1) for n in sizes)
    return int(start), count * width * channels


def _au(path: Path, size: int, head: bytes) -> Path | Rewritten:
    order: Literal["big", "little"] = "big" if head[:1] == b"." else "little"
    start = int.from_bytes(head[4:8], order)
    stated = int.from_bytes(head[8:12], order)
    if stated or start >= size or start < 24:
        _check(path, size, start, stated)
        return path
    return Rewritten(path, head[:8] + b"\xff" * 4 + head[12:24], 24)  # All ones: not known.


def _caf(path: Path, size: int, file: BinaryIO) -> Path | Rewritten:
    file.seek(8)
    while len(chunk := file.read(12)) == 12:
        start, length = file.tell(), int.from_bytes(chunk[4:], "big", signed=True)
        if chunk[:4] == b"data":
            if length >= 0:
                _check(path, size, start, length)
                return path
            file.seek(0)
            head = file.read(start - 8) + (size - start).to_bytes(8, "big")
            return Rewritten(path, head, start)
        if length < 0 or start + length > 64 << 20:
            break
        file.seek(length, os.SEEK_CUR)
    return path


def _flac_length(head: bytes) -> int:
    """Returns the number of samples in the block STREAMINFO, 0 where it is not stated."""
    return (head[21] & 0x0F) << 32 | int.from_bytes(head[22:26], "big")


def _check_chain(path: Path, file: BinaryIO, size: int) -> None:
    """Checks that an Ogg file is one stream: of chained ones the decoder reads the first only.

    Pages: RFC 3533, section 6.
    """
    position, ended = 0, False
    while position + 27 <= size:
        file.seek(position)
        page = file.read(27)
        if page[:4] != b"OggS":
            return
        if page[5] & 2 and ended:
            raise InputError(
                f"audio {path}: holds several Ogg recordings one after the other, expected one;"
                " split it, or convert it to WAV"
            )
        ended |= bool(page[5] & 4)
        table = file.read(page[26])
        position += 27 + len(table) + sum(table)
