"""Audio tracks of MP4 and QuickTime files (.mp4, .m4a, .mov), decoded by PyAV.

Sample 0 is time 0 of the file's timeline, so audio and video stay in sync: time stamps exclude the
samples that an encoder puts before it (AAC starts with some thousand samples of priming), and a
track that begins later begins with silence.
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
_GAP = 0.01  # s; smaller errors of time stamps are rounding, not a gap.
_LONGEST_GAP = 600.0  # s; a longer one is a damaged time stamp.
_SHORT = 0.1  # s that may be missing at the end; an encoder's last block can be incomplete.


def is_mp4(path: Path) -> bool:
    """Returns whether a file begins like an MP4 or QuickTime file, whatever its name."""
    with path.open("rb") as file:
        return file.read(8)[4:] in _BOXES


def info(path: Path) -> tuple[float, int, int]:
    """Returns (duration in s, sample rate in Hz, channels) of the audio track.

    Raises:
      InputError: as `blocks`, for errors that the header shows.
    """
    with _open(path) as container:
        track = _track(path, container)
        rate, channels = track.codec_context.sample_rate, track.codec_context.channels
        return _stated_end(container, track), rate, channels


def blocks(path: Path) -> Iterator[tuple[int, np.ndarray]]:
    """Yields (rate in Hz, [n, channels] float32) of the audio track, from time 0 to its end.

    Raises:
      InputError: not an MP4 or QuickTime file, no audio track, cut short, or audio that cannot be
        decoded.
    """
    with _open(path) as container:
        track = _track(path, container)
        stated = _stated_end(container, track)
        rate = track.codec_context.sample_rate
        written = 0
        for start, block in _decoded(path, container, track):
            if start is not None:
                position = round(start * rate)
                if written == 0 or abs(position - written) > _GAP * rate:
                    if position - written > _LONGEST_GAP * rate:
                        raise InputError(
                            f"audio {path}: its time stamps jump from {written / rate:.2f} s to "
                            f"{position / rate:.2f} s"
                        )
                    while position > written:
                        silent = min(rate, position - written)
                        yield rate, np.zeros((silent, block.shape[1]), np.float32)
                        written += silent
                    block = block[max(0, written - position) :]
            # Samples after the stated end pad the encoder's last block.
            left = round(stated * rate) - written
            if len(block) > left and len(block) - left <= 4096:
                block = block[: max(0, left)]
            written += len(block)
            if len(block):
                yield rate, block
        if written < (stated - _SHORT) * rate:
            raise InputError(
                f"audio {path}: cut short, has {written / rate:.2f} s of {stated:.2f} s"
            )


def timecode(path: Path) -> tuple[str, Fraction] | None:
    """Returns the timecode of time 0 and the frames per second, None without a timecode track.

    Raises:
      InputError: not an MP4 or QuickTime file.
    """
    with _open(path) as container:
        texts = [
            container.metadata.get("timecode"),
            *(s.metadata.get("timecode") for s in container.streams),
        ]
        text = next((t for t in texts if t), None)
        rates = [s.average_rate for s in container.streams if s.type == "video" and s.average_rate]
    rates = [rate for rate in rates if 1 <= rate <= 1000]
    return (text, Fraction(rates[0])) if text and rates else None


def missing_bytes(path: Path) -> int:
    """Returns how many bytes the boxes of an MP4 or QuickTime file state beyond the file's end.

    Layout: ISO/IEC 14496-12, 4.2 (size, type, 64-bit size where the size is 1).
    """
    size = path.stat().st_size
    position = 0
    with path.open("rb") as file:
        while position + 8 <= size:
            file.seek(position)
            head = file.read(16)
            length = int.from_bytes(head[:4], "big")
            if length == 1 and len(head) == 16:
                length = int.from_bytes(head[8:], "big")
            if length < 8:  # 0 reaches to the end of the file; less is no box.
                return 0
            position += length
    return max(0, position - size)


def _open(path: Path) -> Any:
    try:
        import av
    except ImportError:
        raise InputError(
            f"audio {path}: audio tracks of MP4 and QuickTime files need the extra `captures`: "
            "pip install 'a2fjax[captures]'"
        ) from None
    missing = missing_bytes(path)
    if missing:
        raise InputError(f"audio {path}: cut short, {missing} bytes that it states are missing")
    try:
        return av.open(os.fspath(path))
    except (av.error.FFmpegError, OSError, ValueError) as error:
        raise InputError(f"audio {path}: not an MP4 or QuickTime file ({_reason(error)})") from None


def _track(path: Path, container: Any) -> Any:
    if not container.streams.audio:
        raise InputError(f"audio {path}: has no audio track")
    track = container.streams.audio[0]
    codec = track.codec_context
    if codec is None or not codec.sample_rate or not codec.channels:
        raise InputError(f"audio {path}: has an audio track in a format that PyAV cannot decode")
    return track


def _stated_end(container: Any, track: Any) -> float:
    """Returns the stated end of the audio track in s."""
    if track.duration is not None:
        return float((track.duration + max(0, track.start_time or 0)) * track.time_base)
    return (container.duration or 0) / 1e6


def _decoded(path: Path, container: Any, track: Any) -> Iterator[tuple[float | None, np.ndarray]]:
    """Yields (time of the first sample in s or None, [n, channels] float32) of each block."""
    import av

    rate, channels = track.codec_context.sample_rate, track.codec_context.channels
    # Changes the number format only: integers become floats with full scale 1.
    convert = av.AudioResampler(format="fltp", rate=rate)
    time_s = 0.0
    try:
        for frame in container.decode(track):
            if frame.sample_rate != rate or frame.layout.nb_channels != channels:
                raise InputError(f"audio {path}: its rate or channels change at {time_s:.2f} s")
            start = None if frame.pts is None else float(frame.pts * frame.time_base)
            time_s = time_s if start is None else start
            for piece in convert.resample(frame):
                yield start, np.ascontiguousarray(piece.to_ndarray().T, np.float32)
                start = None
    except (av.error.FFmpegError, OSError, ValueError) as error:
        if isinstance(error, InputError):
            raise
        raise InputError(f"audio {path}: damaged after {time_s:.2f} s ({_reason(error)})") from None


def _reason(error: BaseException) -> str:
    text = getattr(error, "strerror", None) or str(error)
    return " ".join(str(text).split()).rstrip(".")
