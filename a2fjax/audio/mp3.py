"""Length of MPEG audio files (.mp3), counted frame by frame.

libsndfile guesses the length of a file without a Xing header from the bit rate of its first frame
and stops reading there; with a header it stops where the header says, although another recording
may follow. `readable` therefore counts the frames and gives libsndfile a header that states them.

Layout: ISO/IEC 11172-3 and 13818-3 (frame headers), id3.org (ID3v2), Xing's VBR header.
"""

from __future__ import annotations

import dataclasses
import mmap
from pathlib import Path

from a2fjax.audio.rewritten import Rewritten
from a2fjax.errors import InputError

_KBPS = {
    (1, 1): (32, 64, 96, 128, 160, 192, 224, 256, 288, 320, 352, 384, 416, 448),
    (1, 2): (32, 48, 56, 64, 80, 96, 112, 128, 160, 192, 224, 256, 320, 384),
    (1, 3): (32, 40, 48, 56, 64, 80, 96, 112, 128, 160, 192, 224, 256, 320),
    (2, 1): (32, 48, 56, 64, 80, 96, 112, 128, 144, 160, 176, 192, 224, 256),
    (2, 2): (8, 16, 24, 32, 40, 48, 56, 64, 80, 96, 112, 128, 144, 160),
}
"""Bit rates by (MPEG version, layer); layer III of version 2 has those of layer II."""

_HZ = {3: (44_100, 48_000, 32_000), 2: (22_050, 24_000, 16_000), 0: (11_025, 12_000, 8_000)}
"""Sample rates by the two bits of the version: 3 is MPEG 1, 2 is MPEG 2, 0 is MPEG 2.5."""

_CHAIN = 3  # Headers in a row that a sync word among other bytes must begin.
_LEEWAY = 1  # Encoders disagree on whether the header's own frame counts.
_XING_KBPS = 64  # Bit rate of the header's frame, large enough for its fields at every sample rate.


@dataclasses.dataclass(frozen=True)
class Frames:
    """The audio frames of an MP3 file.

    Attributes:
      start: offset of the first audio frame in bytes, after tags and a Xing header.
      count: number of complete audio frames.
      stated: number of frames that a Xing header states; None without one.
    """

    start: int
    count: int
    stated: int | None


def count_frames(path: Path) -> Frames | None:
    """Counts the audio frames of an MPEG file; None without a readable frame (free format)."""
    with path.open("rb") as file, mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as data:
        position = _next_frame(data, _after_tags(data, 0))
        if position is None:
            return None
        stated = None
        length = _frame_length(data, position)
        head = data[position : position + 200]
        xing = max(head.find(b"Xing"), head.find(b"Info"))
        if xing >= 0:
            flags = int.from_bytes(head[xing + 4 : xing + 8], "big")
            stated = int.from_bytes(head[xing + 8 : xing + 12], "big") if flags & 1 else None
            position += length
        start, count, size = position, 0, len(data)
        while position < size:
            length = _frame_length(data, position)
            if not length:
                following = _next_frame(data, _after_tags(data, position))
                if following is None:
                    break
                position = following
                continue
            position += length
            count += position <= size
        return Frames(start, count, stated)


def readable(path: Path) -> Path | Rewritten:
    """Returns what libsndfile reads to the end: the path, or its frames after a right header.

    Raises:
      InputError: the file has fewer frames than its header states, or none.
    """
    frames = count_frames(path)
    if frames is None:
        return path
    if frames.stated is not None and frames.count < frames.stated - _LEEWAY:
        raise InputError(
            f"audio {path}: cut short, has {frames.count} of {frames.stated} MPEG frames"
        )
    if frames.stated is not None and frames.count <= frames.stated + _LEEWAY:
        return path
    with path.open("rb") as file:
        file.seek(frames.start)
        head = file.read(4)
    if 4 - (head[1] >> 1 & 3) != 3:  # Decoders look for the header in layer III only.
        return path
    return Rewritten(path, _xing_frame(head, frames.count), frames.start)


def _after_tags(data: mmap.mmap, position: int) -> int:
    """Returns the offset after the ID3v2 tags at a position."""
    while data[position : position + 3] == b"ID3" and len(data) >= position + 10:
        a, b, c, d = data[position + 6 : position + 10]  # Four bytes of seven bits.
        footer = 10 if data[position + 5] & 0x10 else 0
        position += 10 + (a << 21 | b << 14 | c << 7 | d) + footer
    return position


def _next_frame(data: mmap.mmap, position: int) -> int | None:
    """Returns the offset of the first frame from a position on; None without one."""
    while (position := data.find(b"\xff", position)) >= 0:
        at = position
        for _ in range(_CHAIN):
            length = _frame_length(data, at)
            if not length:
                break
            at += length
            if at >= len(data):
                break
        if length:
            return position
        position += 1
    return None


def _frame_length(data: mmap.mmap | bytes, position: int) -> int:
    """Returns the bytes of the frame at a position; 0 if there is no header of known length."""
    head = data[position : position + 4]
    if len(head) < 4 or head[0] != 0xFF or head[1] & 0xE0 != 0xE0:
        return 0
    bits, layer = head[1] >> 3 & 3, 4 - (head[1] >> 1 & 3)
    rate, hertz = head[2] >> 4, head[2] >> 2 & 3
    if bits == 1 or layer == 4 or rate in (0, 15) or hertz == 3:
        return 0
    version = 1 if bits == 3 else 2
    table = _KBPS[version, layer if version == 1 or layer == 1 else 2]
    per_second, padding = 1000 * table[rate - 1], head[2] >> 1 & 1
    if layer == 1:
        return (12 * per_second // _HZ[bits][hertz] + padding) * 4
    factor = 72 if version == 2 and layer == 3 else 144
    return factor * per_second // _HZ[bits][hertz] + padding


def _xing_frame(head: bytes, frames: int) -> bytes:
    """Returns a silent layer III frame whose Xing header states the number of frames."""
    version = 1 if head[1] >> 3 & 3 == 3 else 2
    rate = _KBPS[version, 3 if version == 1 else 2].index(_XING_KBPS) + 1
    mono = head[3] >> 6 == 3
    header = bytes([0xFF, head[1] | 1, rate << 4 | head[2] & 0x0C, head[3]])
    side = (17 if mono else 32) if version == 1 else (9 if mono else 17)
    fields = b"Xing" + b"".join(n.to_bytes(4, "big") for n in (1, frames))
    frame = header + bytes(side) + fields
    return frame.ljust(_frame_length(header, 0), b"\0")
