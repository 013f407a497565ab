"""Where live audio comes from: a file, standard input, a microphone.

A source yields blocks [S] float32 at 16 kHz. Those with a clock of their own fill a buffer in a
thread, from which the stream takes a hop every 20 ms.
"""

from __future__ import annotations

import queue
import threading
from collections.abc import Callable, Iterator
from typing import IO, Any

import numpy as np

from a2fjax.audio import HOP, SAMPLE_RATE
from a2fjax.errors import InputError, nearest
from a2fjax.live.drift import DriftControl
from a2fjax.live.jitter import JitterBuffer
from a2fjax.live.resample import Resampler

PCM = {"s16le": ("<i2", 32768.0), "f32le": ("<f4", 1.0)}
"""Types of raw samples by name: NumPy's, and full scale."""

_BLOCK_SECONDS = 0.01
_MOST_AHEAD = 2 * SAMPLE_RATE  # Samples that a source faster than time may be ahead.


def decode(data: bytes, kind: str, channels: int = 1) -> np.ndarray:
    """Returns raw samples as mono [S] float32, full scale 1; channels are averaged.

    Example:
        >>> decode(bytes([0, 64, 0, 192]), "s16le").tolist()
        [0.5, -0.5]

    Args:
      data: whole samples of all channels.
      kind: of `PCM`.
      channels: interleaved.

    Raises:
      InputError: an unknown kind, a part of a sample, or samples that are not finite numbers or
        beyond 100 times full scale.
    """
    if kind not in PCM:
        raise InputError(f"format {kind!r}{nearest(kind, PCM)}")
    dtype, full = PCM[kind]
    size = np.dtype(dtype).itemsize * channels
    if len(data) % size:
        raise InputError(f"audio: {len(data)} bytes, expected a multiple of {size} for {kind}")
    samples = np.frombuffer(data, dtype).astype(np.float32).reshape(-1, channels)
    if not (
        np.isfinite(samples).all() and (not len(samples) or np.abs(samples).max() <= 1e2 * full)
    ):
        raise InputError(f"audio: not samples of {kind}; full scale is {full:g}")
    return samples.mean(axis=1) / np.float32(full)


def pcm_blocks(
    file: IO[bytes], rate: float, kind: str = "s16le", channels: int = 1
) -> Iterator[np.ndarray]:
    """Yields the samples of a file of raw samples at their own rate until it ends.

    Raises:
      InputError: as `decode`; a part of a sample at the end is left out.
    """
    if kind not in PCM:
        raise InputError(f"--format {kind!r}{nearest(kind, PCM)}")
    if not 1 <= channels <= 32:
        raise InputError(f"--channels {channels}: expected 1 to 32")
    frame = np.dtype(PCM[kind][0]).itemsize * channels
    size = max(1, round(rate * _BLOCK_SECONDS)) * frame
    rest = b""
    read: Callable[[int], bytes] = getattr(file, "read1", file.read)
    while data := read(size):
        data = rest + data
        whole = len(data) // frame * frame
        rest = data[whole:]
        if whole:
            yield decode(data[:whole], kind, channels)


def resampled(blocks: Iterator[np.ndarray], rate: float) -> Iterator[np.ndarray]:
    """Yields blocks at 16 kHz.

    Raises:
      InputError: a rate out of range.
    """
    resampler = Resampler(rate)

    def run() -> Iterator[np.ndarray]:
        for block in blocks:
            out = resampler.push(block)
            if len(out):
                yield out
        out = resampler.finish()
        if len(out):
            yield out

    return run()


def microphone(device: str | None = None) -> tuple[Iterator[np.ndarray], float]:
    """Returns (blocks at the device's rate, rate in Hz) of a microphone.

    Args:
      device: part of its name, or its number; None for the default.

    Raises:
      InputError: the extra or PortAudio is not installed, or there is no such device.
    """
    try:
        import sounddevice
    except ImportError:
        raise InputError("--audio mic needs the extra live: pip install 'a2fjax[live]'") from None
    except OSError as error:
        raise InputError(
            f"--audio mic: {error}; install PortAudio (Debian: libportaudio2)"
        ) from None
    wanted: Any = int(device) if device is not None and device.isdecimal() else device
    waiting: queue.Queue[np.ndarray] = queue.Queue(maxsize=500)

    def heard(data: np.ndarray, frames: int, time: Any, status: Any) -> None:
        try:
            waiting.put_nowait(data[:, 0].copy())
        except queue.Full:
            pass  # The buffer behind counts what is missing.

    try:
        rate = float(sounddevice.query_devices(wanted, "input")["default_samplerate"])
        stream = sounddevice.InputStream(
            samplerate=rate,
            device=wanted,
            channels=1,
            dtype="float32",
            blocksize=round(rate * _BLOCK_SECONDS),
            callback=heard,
        )
        stream.start()
    except (sounddevice.PortAudioError, ValueError) as error:
        raise InputError(f"--audio mic: no microphone ({error})") from None

    def blocks() -> Iterator[np.ndarray]:
        with stream:
            while True:
                yield waiting.get()

    return blocks(), rate


class Buffered:
    """A source with a clock of its own, taken hop by hop by this machine's clock.

    Attributes:
      buffer: what has come and was not taken.
      drift: the correction between the clocks.
    """

    def __init__(self, blocks: Iterator[np.ndarray], rate: float, *, buffer_ms: float, waits: bool):
        """Starts the thread that hears.

        Args:
          blocks: at the source's rate.
          rate: in Hz.
          buffer_ms: audio held against jitter.
          waits: whether the source can be made to wait, as a pipe can and a microphone cannot.

        Raises:
          InputError: a rate or buffer out of range.
        """
        if not 0 <= buffer_ms <= 1000:
            raise InputError(f"--buffer-ms {buffer_ms:g}: expected 0 to 1000")
        self.buffer = JitterBuffer()
        self.drift = DriftControl(max(buffer_ms / 1000 * SAMPLE_RATE, 1.0))
        self._resampler = Resampler(rate, variable=True)
        self.delay_seconds = self._resampler.delay_seconds + buffer_ms / 1000
        self._blocks, self._waits = blocks, waits
        self._lock = threading.Condition()
        self._ended = self._started = False
        self._error: Exception | None = None
        threading.Thread(target=self._hear, name="audio source", daemon=True).start()

    def take(self) -> np.ndarray | None:
        """Returns the next hop [320], silence where nothing has come yet; None after the end.

        Raises:
          InputError: what the source sent is not audio.
        """
        with self._lock:
            if self._error is not None:
                raise self._error
            if not self._started and not self._ended:
                if len(self.buffer) < self.drift.target + HOP:
                    return np.zeros(0, np.float32)
            self._started = True
            if self._ended and not len(self.buffer):
                return None
            count = min(HOP, len(self.buffer)) if self._ended else HOP
            hop = self.buffer.take(count)
            # A source that is ahead by more than jitter has no clock: it waits for this one's.
            if not self._waits or len(self.buffer) < SAMPLE_RATE // 2:
                self._resampler.correct(self.drift.update(len(self.buffer)))
            self._lock.notify()
            return hop

    def _hear(self) -> None:
        try:
            for block in self._blocks:
                with self._lock:
                    while self._waits and len(self.buffer) > _MOST_AHEAD:
                        self._lock.wait()
                    self.buffer.put(self._resampler.push(block))
            with self._lock:
                self.buffer.put(self._resampler.finish())
        except Exception as error:  # noqa: BLE001 - the stream's thread reports it
            self._error = error
        self._ended = True
