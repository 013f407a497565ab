"""Reads and writes audio files of any rate and number of channels.

Formats are those of libsndfile (WAV, FLAC, OGG, MP3 and others), and the audio tracks of MP4, M4A
and MOV files with the extra `captures`. `load` and `blocks` return 16 kHz mono from the same stream
of decoding, mixing and resampling, so they give the same samples; `blocks` holds one block in
memory. Both mix the channels that `channels_of` chooses. `native_blocks` returns a recording
unchanged, for quality checks.
"""

from __future__ import annotations

import contextlib
import functools
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from a2fjax import files, timecode
from a2fjax.audio import SAMPLE_RATE, channels, lengths, limits, mp3, mp4, wav
from a2fjax.audio.rewritten import Rewritten
from a2fjax.errors import InputError, nearest

if TYPE_CHECKING:
    import soundfile

FORMATS = {"wav": "WAV", "flac": "FLAC", "ogg": "OGG", "mp3": "MP3"}
"""Formats that `save` writes, by file name extension."""

_READ = ("WAV", "WAVEX", "RF64", "W64", "AIFF", "AU", "CAF", "NIST", "FLAC", "OGG", "MP3")
"""libsndfile's formats whose headers show whether the file is complete."""

_CHUNK = 1 << 16  # Samples decoded at a time, of all channels; bounds memory.
_LOUDEST = 2.0**31  # Largest sample; some files hold 32-bit integers as floats.
_SHORT = 0.1  # s that may be missing at the end of an MPEG file, whose decoder needs a start.


def load(path: str | Path) -> np.ndarray:
    """Reads an audio file as 16 kHz mono.

    Args:
      path: audio file of any rate and number of channels.

    Returns:
      [samples] float32, 16 kHz, the mean of the channels that `channels_of` chooses; full scale
      is 1.

    Raises:
      InputError: no such file, a folder, not an audio file, a rate outside 4 to 384 kHz, fewer than
        two samples, samples that are not finite or beyond 2**31, less data than the header states,
        or more hours than the budgets of `limits`.

    Example:
        >>> import tempfile
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     save(f"{folder}/tone.wav", np.zeros((48_000, 2)), rate=48_000)
        ...     load(f"{folder}/tone.wav").shape
        (16000,)
    """
    limits.check_seconds(Path(path), info(path)[0], limits.IN_MEMORY)
    return np.concatenate(list(_stream(Path(path), limits.IN_MEMORY)))


def blocks(path: str | Path, seconds: float) -> Iterator[np.ndarray]:
    """Reads an audio file in consecutive blocks: the samples of `load`, in bounded memory.

    Args:
      path: audio file.
      seconds: length of each block but the last, rounded to whole samples at 16 kHz.

    Returns:
      An iterator of [samples] float32 blocks. Errors at the beginning of the file are raised at
      once, later ones when the iterator reaches them.

    Raises:
      InputError: as `load`.
    """
    size = round(seconds * SAMPLE_RATE)
    if size < 1:
        raise ValueError(f"blocks of {seconds} s hold no sample")
    info(path)
    return _reblock(_stream(Path(path)), size)


def info(path: str | Path) -> tuple[float, int, int]:
    """Returns (duration in s, sample rate in Hz, channels) of an audio file from its header.

    Raises:
      InputError: as `load`, for errors that the header shows.
    """
    path = Path(path)
    _check(path)
    if mp4.is_mp4(path):
        return mp4.info(path)
    seconds, rate, count = 0.0, 0, 0
    for file, _ in _opened(path):
        rate, count = file.samplerate, file.channels
        seconds += file.frames / rate
    limits.check(path, rate, count, seconds)
    return seconds, rate, count


def channels_of(path: str | Path) -> channels.Choice:
    """Returns which channels `load` and `blocks` mix; reads the whole file if it has several.

    The result is kept until the file changes.

    Raises:
      InputError: as `load`.
    """
    path = Path(path)
    _check(path)
    state = path.stat()
    return _channels_of(path, state.st_mtime_ns, state.st_size)


@functools.lru_cache(maxsize=256)
def _channels_of(path: Path, time_ns: int, size: int) -> channels.Choice:
    count = info(path)[2]
    return channels.choose(native_blocks(path)) if count > 1 else channels.Choice(1, (0,))


def save(path: str | Path, audio: np.ndarray, rate: int = SAMPLE_RATE) -> None:
    """Writes an audio file atomically, in the format of its extension (`FORMATS`).

    WAV and FLAC hold 16-bit integers; values beyond full scale are clipped.

    Args:
      path: an existing file is replaced.
      audio: [samples] or [samples, channels]; full scale is 1.
      rate: samples per second.

    Raises:
      InputError: unknown extension, no such folder, or the file cannot be written.
      WorkFailed: the disk is full or fails.
      ValueError: no samples, more than two dimensions, or values that are not finite.
    """
    import soundfile

    path = Path(path)
    extension = path.suffix.lower().lstrip(".")
    if extension not in FORMATS:
        raise InputError(f"{path}: unknown audio format{nearest(extension, FORMATS)}")
    audio = np.asarray(audio, np.float32)
    if audio.ndim not in (1, 2) or audio.size == 0 or not np.isfinite(audio).all():
        raise ValueError(f"{path}: audio of shape {audio.shape} is empty, too deep or not finite")
    with files.atomic_write(path) as temporary:
        try:
            soundfile.write(temporary, audio, rate, format=FORMATS[extension])
        except soundfile.SoundFileError as error:
            raise InputError(f"{path}: cannot be written ({_reason(error)})") from None


def native_blocks(path: str | Path) -> Iterator[tuple[int, np.ndarray]]:
    """Reads an audio file at its own rate and with its own channels, in bounded memory.

    Args:
      path: audio file, or MP4 or QuickTime file with an audio track.

    Yields:
      (rate in Hz, [n, channels] float32), consecutive pieces of varying length with one rate and
      number of channels.

    Raises:
      InputError: as `load`.
    """
    path = Path(path)
    _check(path)
    yield from mp4.blocks(path) if mp4.is_mp4(path) else _sound(path)


def recording_start(path: str | Path) -> float | None:
    """Returns the time of day of a file's first sample in s, None where the file has none.

    Sources are the `bext` chunk of a broadcast WAV (samples since midnight; EBU Tech 3285) and the
    timecode track of an MP4 or QuickTime file (frames counted at the next whole frame rate;
    drop-frame numbering as in SMPTE ST 12-1). A `bext` time of 0 counts as none, since recorders
    without a clock write it.

    Raises:
      InputError: as `load`, for errors that the header shows.
    """
    path = Path(path)
    _check(path)
    if mp4.is_mp4(path):
        stated = mp4.timecode(path)
        return None if stated is None else timecode.time_of_day(*stated)
    samples = wav.start_samples(path)
    return samples / info(path)[1] if samples else None


def _stream(path: Path, budget: str = limits.STREAMED) -> Iterator[np.ndarray]:
    """Yields the file's samples at 16 kHz, mono, in pieces of varying length."""
    import soxr

    choice = channels_of(path)
    read = written = rate = 0
    resampler = None
    for rate, piece in native_blocks(path):
        if not read and rate != SAMPLE_RATE:
            resampler = soxr.ResampleStream(rate, SAMPLE_RATE, 1, dtype="float32")
        finite = np.isfinite(piece).all(axis=1)
        if not finite.all():
            time_s = (read + int(np.argmin(finite))) / rate
            raise InputError(f"audio {path}: sample at {time_s:.4f} s is not a finite number")
        largest = np.abs(piece).max(axis=1)
        if len(piece) and largest.max() > _LOUDEST:
            time_s = (read + int(np.argmax(largest))) / rate
            raise InputError(
                f"audio {path}: sample at {time_s:.4f} s is {largest.max():.3g}: damaged, "
                "full scale is 1"
            )
        read += len(piece)
        limits.check_seconds(path, read / rate, budget)
        mono = choice.mix(piece)
        if resampler is not None:
            mono = resampler.resample_chunk(mono)
        written += len(mono)
        yield mono
    if resampler is not None:
        rest = resampler.resample_chunk(np.zeros(0, np.float32), last=True)
        written += len(rest)
        yield rest
    if written < 2:
        raise InputError(f"audio {path}: is too short, {read} samples at {rate} Hz")


def _sound(path: Path) -> Iterator[tuple[int, np.ndarray]]:
    """Yields what libsndfile decodes; see `native_blocks`."""
    import soundfile

    for file, missing in _opened(path):
        rate, stated = file.samplerate, file.frames
        size = max(1, _CHUNK // file.channels)
        read = 0
        while read < stated:
            try:
                chunk = file.read(size, dtype="float32", always_2d=True)
            except soundfile.SoundFileError as error:
                raise InputError(
                    f"audio {path}: damaged or cut short after {read / rate:.2f} s"
                    f" of {stated / rate:.2f} s ({_reason(error)})"
                ) from None
            if not len(chunk):
                break
            read += len(chunk)
            yield rate, chunk
        if read < stated - missing * rate:
            raise InputError(
                f"audio {path}: cut short, has {read / rate:.2f} s of {stated / rate:.2f} s"
            )


def _reblock(pieces: Iterator[np.ndarray], size: int) -> Iterator[np.ndarray]:
    pending: list[np.ndarray] = []
    count = 0
    for piece in pieces:
        pending.append(piece)
        count += len(piece)
        if count < size:
            continue
        joined = np.concatenate(pending)
        end = count - count % size
        # Copies, so that a block does not keep the memory of its neighbours.
        yield from (joined[i : i + size].copy() for i in range(0, end, size))
        pending, count = [joined[end:]], count - end
    if count:
        yield np.concatenate(pending)


def _check(path: Path) -> None:
    """Checks that the path is a readable file that is not empty."""
    if path.is_dir():
        raise InputError(f"audio {path}: is a folder, expected an audio file")
    if not path.exists():
        # A folder may hold anything.
        folder = sorted(path.parent.glob("*"))
        near = [p.name for p in folder if p.suffix.lower() == path.suffix.lower()]
        raise InputError(f"audio {path}: no such file{nearest(path.name, near)}")
    if not path.is_file():
        raise InputError(f"audio {path}: is a pipe or a device, expected a file")
    try:
        if not path.stat().st_size:
            raise InputError(f"audio {path}: is an empty file")
        with path.open("rb"):
            pass
    except OSError as error:
        raise InputError(f"audio {path}: cannot be read ({_reason(error)})") from None


def _opened(path: Path) -> Iterator[tuple[soundfile.SoundFile, float]]:
    """Yields what libsndfile reads to its end, one stream after the other, of one rate.

    Yields:
      (the stream, s that may be missing at its end).
    """
    import soundfile

    first: tuple[int, int] | None = None
    for source in _sources(path):
        with contextlib.ExitStack() as stack:
            try:
                file = stack.enter_context(_sound_file(source, stack))
                missing = 0.0
                if file.format == "MP3" and (found := mp3.readable(path)) is not path:
                    file, missing = stack.enter_context(_sound_file(found, stack)), _SHORT
            except InputError:
                raise
            except (soundfile.SoundFileError, OSError, TypeError, ValueError) as error:
                raise InputError(f"audio {path}: not an audio file ({_reason(error)})") from None
            if file.format not in _READ:
                raise InputError(
                    f"audio {path}: format {file.format} does not show whether a file is complete; "
                    "expected WAV, FLAC, OGG, MP3, AIFF, AU, CAF, W64 or NIST SPHERE"
                )
            if file.frames < 2:
                raise InputError(f"audio {path}: holds {file.frames} samples, expected at least 2")
            limits.check(path, file.samplerate, file.channels, file.frames / file.samplerate)
            form = file.samplerate, file.channels
            if form != (first or form):
                texts = [
                    f"{rate} Hz with {count} channels" for rate, count in (first or form, form)
                ]
                raise InputError(
                    f"audio {path}: joined of streams of {' and '.join(texts)}, expected one rate "
                    "and number of channels: convert them before joining"
                )
            first = form
            yield file, missing


def _sources(path: Path) -> list[Path | Rewritten]:
    try:
        return lengths.parts(path)
    except (OSError, ValueError) as error:
        raise InputError(f"audio {path}: not an audio file ({_reason(error)})") from None


def _sound_file(source: Path | Rewritten, stack: contextlib.ExitStack) -> soundfile.SoundFile:
    import soundfile

    if isinstance(source, Rewritten):
        stack.callback(source.close)
    return soundfile.SoundFile(source)


def _reason(error: BaseException) -> str:
    text = getattr(error, "error_string", None) or getattr(error, "strerror", None) or str(error)
    return " ".join(str(text).split()).rstrip(".")
