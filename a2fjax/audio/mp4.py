"""The sound of films: the audio track of MP4 and QuickTime files (.mp4, .m4a, .mov), through PyAV.

Sample 0 is time 0 of the film's own timeline, so sound and picture stay together: what an encoder
puts before it (AAC starts with some thousand samples of priming) is left out by the time stamps,
and a track that begins later begins with silence.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from fractions import Fraction
from pathlib import Path
from typing import Any

import numpy as np

from a2fjax.errors import InputError

_BOXES = (b"ftyp", b"moov", b"mdat", b"wide", b"free", b"skip", b"pnot")
_GAP = 0.01  # s; time stamps that are off by less are rounded, not a hole in the sound.
_LONGEST_HOLE = 600.0  # s; more is a damaged time stamp.
_SHORT = 0.1  # s that a track may lack at its end; encoders' last block is not always whole.


def is_mp4(path: Path) -> bool:
    """Returns whether a file begins as an MP4 or QuickTime file does, whatever its name."""
    with path.open("rb") as file:
        return file.read(8)[4:] in _BOXES


def info(path: Path) -> tuple[float, int, int]:
    """Returns (seconds, sample rate in Hz, channels) of a film's sound.

    Raises:
      InputError: as `blocks`, as far as the header shows it.
    """
    with _open(path) as film:
        track = _track(path, film)
        rate, channels = track.codec_context.sample_rate, track.codec_context.channels
        return _promised(film, track), rate, channels


def blocks(path: Path) -> Iterator[tuple[int, np.ndarray]]:
    """Yields (rate in Hz, [n, channels] float32) of a film's sound, from time 0 to its end.

    Raises:
      InputError: not a film, no sound in it, cut short, or sound that cannot be decoded.
    """
    with _open(path) as film:
        track = _track(path, film)
        promised = _promised(film, track)
        rate = track.codec_context.sample_rate
        written = 0
        for start, block in _decoded(path, film, track):
            if start is not None:
                at = round(start * rate)
                if written == 0 or abs(at - written) > _GAP * rate:
                    if at - written > _LONGEST_HOLE * rate:
                        raise InputError(
                            f"audio {path}: its time stamps jump from {written / rate:.2f} s to "
                            f"{at / rate:.2f} s"
                        )
                    while at > written:
                        silent = min(rate, at - written)
                        yield rate, np.zeros((silent, block.shape[1]), np.float32)
                        written += silent
                    block = block[max(0, written - at) :]
            # Past its promised end is what fills the encoder's last block.
            left = round(promised * rate) - written
            if len(block) > left and len(block) - left <= 4096:
                block = block[: max(0, left)]
            written += len(block)
            if len(block):
                yield rate, block
        if written < (promised - _SHORT) * rate:
            raise InputError(
                f"audio {path}: cut short, has {written / rate:.2f} s of {promised:.2f} s"
            )


def timecode(path: Path) -> tuple[str, Fraction] | None:
    """Returns the timecode of a film's time 0 and its frames a second, or None if it says none.

    Raises:
      InputError: not a film.
    """
    with _open(path) as film:
        texts = [film.metadata.get("timecode"), *(s.metadata.get("timecode") for s in film.streams)]
        said = next((t for t in texts if t), None)
        rates = [s.average_rate for s in film.streams if s.type == "video" and s.average_rate]
    rates = [rate for rate in rates if 1 <= rate <= 1000]
    return (said, Fraction(rates[0])) if said and rates else None


def missing_bytes(path: Path) -> int:
    """Returns how many bytes the boxes of an MP4 or QuickTime file state beyond the file's end.

    Layout: ISO/IEC 14496-12, 4.2 (size, type, 64-bit size where the size is 1).
    """
    size = path.stat().st_size
    at = 0
    with path.open("rb") as file:
        while at + 8 <= size:
            file.seek(at)
            head = file.read(16)
            length = int.from_bytes(head[:4], "big")
            if length == 1 and len(head) == 16:
                length = int.from_bytes(head[8:], "big")
            if length < 8:  # 0 reaches to the end of the file; less is no box.
                return 0
            at += length
    return max(0, at - size)


def _open(path: Path) -> Any:
    try:
        import av
    except ImportError:
        raise InputError(
            f"audio {path}: the sound of films needs the extra `captures`: "
            "pip install 'a2fjax[captures]'"
        ) from None
    missing = missing_bytes(path)
    if missing:
        raise InputError(f"audio {path}: cut short, {missing} bytes that it states are missing")
    try:
        return av.open(os.fspath(path))
    except (av.error.FFmpegError, OSError, ValueError) as error:
        raise InputError(f"audio {path}: not a film ({_reason(error)})") from None


def _track(path: Path, film: Any) -> Any:
    if not film.streams.audio:
        raise InputError(f"audio {path}: is a film without sound")
    track = film.streams.audio[0]
    codec = track.codec_context
    if codec is None or not codec.sample_rate or not codec.channels:
        raise InputError(f"audio {path}: has a sound track of a kind that nothing here decodes")
    return track


def _promised(film: Any, track: Any) -> float:
    """Returns when the sound ends, s."""
    if track.duration is not None:
        return float((track.duration + max(0, track.start_time or 0)) * track.time_base)
    return (film.duration or 0) / 1e6


def _decoded(path: Path, film: Any, track: Any) -> Iterator[tuple[float | None, np.ndarray]]:
    """Yields (time of its first sample in s or None, [n, channels] float32) of each block."""
    import av

    rate, channels = track.codec_context.sample_rate, track.codec_context.channels
    # Only changes the number format: whole numbers become floats of full scale 1.
    convert = av.AudioResampler(format="fltp", rate=rate)
    at = 0.0
    try:
        for frame in film.decode(track):
            if frame.sample_rate != rate or frame.layout.nb_channels != channels:
                raise InputError(f"audio {path}: its rate or channels change at {at:.2f} s")
            start = None if frame.pts is None else float(frame.pts * frame.time_base)
            at = at if start is None else start
            for piece in convert.resample(frame):
                yield start, np.ascontiguousarray(piece.to_ndarray().T, np.float32)
                start = None
    except (av.error.FFmpegError, OSError, ValueError) as error:
        if isinstance(error, InputError):
            raise
        raise InputError(f"audio {path}: damaged after {at:.2f} s ({_reason(error)})") from None


def _reason(error: BaseException) -> str:
    text = getattr(error, "strerror", None) or str(error)
    return " ".join(str(text).split()).rstrip(".")
