"""How far the samples of a file go, for the formats whose headers libsndfile believes too readily.

libsndfile decodes what is there of a file that was cut short, without an error, and finds nothing,
or an error, where a writer could not state the length. Layouts: Apple AIFF 1.3 and Core Audio
Format 1.0, Sun's audio(4), Sony Wave64, NIST SPHERE 2.
"""

from __future__ import annotations

import os
from pathlib import Path
from typing import BinaryIO, Literal

from a2fjax.audio import flac, wav
from a2fjax.audio.rewritten import Rewritten
from a2fjax.errors import InputError

_W64_DATA = b"data\xf3\xac\xd3\x11\x8c\xd1\x00\xc0\x4f\x8e\xdb\x8a"


def parts(path: Path) -> list[Path | Rewritten]:
    """Returns what libsndfile reads to the end: the path, or streams with a right header, in order.

    MPEG files are recognised by their decoder; see `mp3.readable`.

    Raises:
      InputError: the file ends before its samples do, or several files of a format that has no
        joined streams were written one after the other.
    """
    size = path.stat().st_size
    with path.open("rb") as file:
        head = file.read(42)
        if wav.is_wav(head):
            return [wav.readable(path)]
        if head[:4] == b"FORM" and head[8:12] in (b"AIFF", b"AIFC"):
            _check(path, size, *_aiff(file), head)
        elif head[:4] in (b".snd", b"dns."):
            return [_au(path, size, head)]
        elif head[:4] == b"riff" and head[24:28] == b"wave":
            _check(path, size, *_w64(file), head)
        elif head[:4] == b"caff":
            return [_caf(path, size, file, head)]
        elif head[:7] == b"NIST_1A":
            _check(path, size, *_sphere(file), head)
        elif head[:4] == b"OggS":
            return _ogg(path, file, size)
        elif (begin := flac.start(head)) is not None:
            file.seek(begin)
            if file.read(4) == b"fLaC":
                return flac.parts(path, begin)
    return [path]


def _check(path: Path, size: int, start: int, stated: int, head: bytes) -> None:
    missing = start + stated - size
    if start and missing > 0 and not wav.is_placeholder(stated):
        raise InputError(
            f"audio {path}: cut short, {missing} bytes of samples that its header states are"
            " missing"
        )
    if start and missing < 0:
        with path.open("rb") as file:
            file.seek(start + stated)
            if head[:4] in file.read(12):  # after padding to an even number, or to 8
                raise wav.joined(path)


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
        _check(path, size, start, stated, head)
        return path
    return Rewritten(path, head[:8] + b"\xff" * 4 + head[12:24], 24)  # All ones: not known.


def _caf(path: Path, size: int, file: BinaryIO, magic: bytes) -> Path | Rewritten:
    file.seek(8)
    while len(chunk := file.read(12)) == 12:
        start, length = file.tell(), int.from_bytes(chunk[4:], "big", signed=True)
        if chunk[:4] == b"data":
            if length >= 0:
                _check(path, size, start, length, magic)
                return path
            file.seek(0)
            head = file.read(start - 8) + (size - start).to_bytes(8, "big")
            return Rewritten(path, head, start)
        if length < 0 or start + length > 64 << 20:
            break
        file.seek(length, os.SEEK_CUR)
    return path


def _ogg(path: Path, file: BinaryIO, size: int) -> list[Path | Rewritten]:
    """Returns the path, or the links of a chain: of these the decoder reads the first only.

    Pages: RFC 3533, sections 4 and 6. The first pages of a link begin its streams.
    """
    begins, position, before = [0], 0, True
    while position + 27 <= size:
        file.seek(position)
        page = file.read(27)
        if page[:4] != b"OggS":
            break
        first = bool(page[5] & 2)
        if first and not before:
            begins.append(position)
        before = first
        table = file.read(page[26])
        position += 27 + len(table) + sum(table)
    if len(begins) == 1:
        return [path]
    ends = [*begins[1:], size]
    return [Rewritten(path, b"", b, e) for b, e in zip(begins, ends, strict=True)]
