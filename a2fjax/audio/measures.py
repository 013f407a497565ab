"""Measures the quality of a recording: noise, clipping, silence, true bandwidth, hum, channels.

Makes one pass over the file at its original rate in blocks of ten seconds; memory grows by about
nine kilobytes per second of audio, whatever the rate and the number of channels.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any

import numpy as np

from a2fjax.audio import bandwidth, channels, io
from a2fjax.errors import InputError

DIGITAL_SILENCE = 10 ** (-96 / 20)
"""RMS below which a frame holds nothing but the last bit of 16."""

HIGHEST_SNR_DB = 60.0
"""Beyond this the estimate says more about gates and word lengths than about the room."""

_FRAME = 0.02  # s
_BLOCK = 500  # frames
_WINDOW = 0.25  # s; 4 Hz apart, so hum stands out from its neighbours
_STEPS = {"PCM_U8": 2.0**-7, "PCM_S8": 2.0**-7, "PCM_16": 2.0**-15, "PCM_24": 2.0**-23}
_PILE = 3.0  # A sine's top level has 2.4 times the samples of the one below; clipping far more.


def measure(
    path: str | Path, listen: Callable[[float, np.ndarray], None] = lambda rate, mono: None
) -> dict[str, Any]:
    """Measures an audio file, or a video's audio track.

    Noise, speech, bandwidth and hum are those of the channels that `io.channels_of` chooses.

    Args:
      path: path of the file, which is measured at its original rate.
      listen: called with the rate in Hz and each block [n] of the chosen channels' mean.

    Returns:
      A JSON-serialisable dict; undefined values (no speech, digital silence) are None.

      seconds, rate (Hz), channels: as stored.
      peak (1 is full scale), dc (largest mean of a channel).
      clipping: share of samples in excess at the extreme value of the used channels, see
        `clipping_share`.
      speech_db, noise_db (dB of full scale), snr_db, snr_sure, gated: see
        `speech_and_noise`.
      silence: share of 20 ms frames without speech.
      digital_silence: share of frames that are exactly silent.
      band_hz, band_sure, upsampled, true_rate: see `bandwidth.band_limit`.
      hum_hz (50, 60 or None), hum_db: steady mains tones above their surroundings.
      channels_used (from 1), channels_why (see `channels.Choice`), channel_db, dead_channels,
        channels_equal, channel_correlation: only for several channels.
      digest: digest of the samples, the same for the same audio in any lossless format.

    Raises:
      InputError: as `a2fjax.audio.io.load`.
    """
    path = Path(path)
    choice = io.channels_of(path)
    return measure_pieces(io.native_blocks(path), choice, _step(path), listen, f"audio {path}")


def measure_pieces(
    pieces: Iterable[tuple[float, np.ndarray]],
    choice: channels.Choice,
    step: float = 0.0,
    listen: Callable[[float, np.ndarray], None] = lambda rate, mono: None,
    name: str = "audio",
) -> dict[str, Any]:
    """Measures sound that is no file; see `measure`.

    Args:
      pieces: (rate in Hz, [n, channels]) in order.
      choice: the channels in use.
      step: quantisation step, 0 if unknown.
      listen: see `measure`.
      name: of the sound, for messages.

    Raises:
      InputError: samples that are not finite, or fewer than two.
    """
    tally: _Tally | None = None
    for rate, frame, block in _blocks(pieces):
        finite = np.isfinite(block).all(axis=1)
        if not finite.all():
            seconds = ((tally.count if tally else 0) + int(np.argmin(finite))) / rate
            raise InputError(f"{name}: sample at {seconds:.4f} s is not a finite number")
        tally = tally or _Tally(rate, frame, choice)
        tally.add(block)
        listen(rate, choice.mix(block))
    if tally is None or tally.count < 2:
        raise InputError(f"{name}: holds no sound, expected at least 2 samples")
    return {"rate": tally.rate, "channels": len(tally.total), **tally.result(step)}


def _step(path: Path) -> float:
    """Returns the quantisation step of an audio file; 0 if unknown."""
    import soundfile

    try:
        return _STEPS.get(soundfile.info(str(path)).subtype, 0.0)
    except (soundfile.SoundFileError, TypeError):
        return 0.0  # a video


def _blocks(pieces: Iterable[tuple[float, np.ndarray]]) -> Iterator[tuple[float, int, np.ndarray]]:
    """Yields (rate, samples in 20 ms, [n, channels]), each but the last `_BLOCK` frames long."""
    held: list[np.ndarray] = []
    count = frame = 0
    rate = 0.0
    for rate, piece in pieces:
        frame = max(1, round(rate * _FRAME))
        size = _BLOCK * frame
        held.append(piece)
        count += len(piece)
        if count >= size:
            joined = np.concatenate(held)
            complete = count - count % size
            for i in range(0, complete, size):
                yield rate, frame, joined[i : i + size]
            held, count = [joined[complete:]], count - complete
    if count:
        yield rate, frame, np.concatenate(held)


class _Tally:
    """Running sums over the blocks of a recording."""

    def __init__(self, rate: float, frame: int, choice: channels.Choice):
        self.rate, self.frame, self.choice = rate, frame, choice
        self.count = 0
        self.peak = 0.0
        self.total = np.zeros(choice.count)
        self.product = np.zeros((choice.count, choice.count))
        self.difference = 0.0
        self.values = np.zeros((choice.count, 1 << 16), np.int64)
        self.levels: list[np.ndarray] = []
        self.size = 1 << max(4, int(np.ceil(np.log2(rate * _WINDOW))))
        self.window = np.hanning(self.size)
        self.power = np.zeros(self.size // 2 + 1)
        self.windows = 0
        self.low = int(420 / rate * self.size) + 1
        self.lows: list[np.ndarray] = []
        self.digest = hashlib.sha256(f"{rate}".encode())

    def add(self, block: np.ndarray) -> None:
        """Adds [samples, channels]; the length of all but the last is a multiple of the frame."""
        self.count += len(block)
        self.peak = max(self.peak, float(np.abs(block).max()))
        wide = block.astype(np.float64)
        self.total += wide.sum(axis=0)
        self.product += wide.T @ wide
        if block.shape[1] > 1:
            apart = float(np.abs(block - block[:, :1]).max())
            self.difference = max(self.difference, apart)
        levels = np.clip(np.round(block * 32768.0), -32768, 32767).astype(np.int64)
        for channel, column in zip(self.values, levels.T, strict=True):
            channel += np.bincount(column + 32768, minlength=1 << 16)
        self.digest.update(levels.astype("<i2").tobytes())
        mono = self.choice.mix(wide)
        frames = mono[: len(mono) // self.frame * self.frame].reshape(-1, self.frame)
        if not len(frames) and not self.levels:
            frames = mono[None]
        self.levels.append(frames.std(axis=1))
        self._spectrum(mono)

    def _spectrum(self, mono: np.ndarray) -> None:
        if len(mono) < self.size:
            if self.windows:
                return
            mono = np.pad(mono, (0, self.size - len(mono)))
        rows = np.lib.stride_tricks.sliding_window_view(mono, self.size)[:: self.size // 2]
        for row in rows:
            power = np.abs(np.fft.rfft((row - row.mean()) * self.window)) ** 2
            self.power += power
            self.lows.append(power[: self.low].astype(np.float32))
            self.windows += 1

    def result(self, step: float) -> dict[str, Any]:
        """Returns the measures; `step` is the quantisation step, 0 if unknown."""
        levels = np.concatenate(self.levels)
        mean = self.total / self.count
        power = self.power / self.windows * 2.0 / (self.size * float(self.window @ self.window))
        spacing = self.rate / self.size
        out: dict[str, Any] = {
            "seconds": round(self.count / self.rate, 4),
            "peak": round(self.peak, 5),
            "dc": round(float(np.abs(mean).max()), 5),
            "clipping": round(clipping_share(self.values[list(self.choice.used)]), 6),
            **speech_and_noise(levels),
            **bandwidth.band_limit(power, spacing, step),
            **bandwidth.hum(np.array(self.lows), spacing, _WINDOW),
        }
        if len(mean) > 1:
            out |= self._channels(mean)
        out["digest"] = self.digest.hexdigest()[:24]
        return out

    def _channels(self, mean: np.ndarray) -> dict[str, Any]:
        moment = self.product / self.count - np.outer(mean, mean)
        size = np.sqrt(np.maximum(np.diag(moment), 0.0))
        loudest = max(float(size.max()), 1e-9)
        alive = size > 1e-4 * loudest
        others = [
            moment[0, i] / max(size[0] * size[i], 1e-12)
            for i in range(1, len(size))
            if alive[0] and alive[i]
        ]
        return {
            "channels_used": [i + 1 for i in self.choice.used],
            "channels_why": self.choice.text,
            "channel_db": [round(20 * float(np.log10(max(s, 1e-6))), 2) for s in size],
            "dead_channels": [int(i) + 1 for i in np.flatnonzero(~alive)],
            "channels_equal": self.difference <= 1.0 / 32768,
            "channel_correlation": round(float(min(others)), 4) if others else None,
        }


def clipping_share(values: np.ndarray) -> float:
    """Returns the share of samples that are piled up at the extreme values of a channel.

    A clean recording has no more samples at its peak than just below it, whatever its scale and
    word length; a clipped one has all its clipped samples there. Samples in excess of three times
    the count just below count as clipped (a pure tone has 2.4 times, by the arcsine law), on each
    side separately. Samples beyond full scale are clipped when stored in 16 bits.

    Args:
      values: [channels, 65536] count of each 16-bit value, from -32768 on.
    """
    clipped = 0.0
    for channel in values:
        for side in (channel[32769:], channel[:32768][::-1]):
            # [i] is the count of magnitude i + 1.
            there = np.flatnonzero(side)
            if not len(there) or there[-1] < 64:
                continue
            width = max(1, there[-1] // 500)
            top = float(side[there[-1] - width + 1 : there[-1] + 1].sum())
            below = there[there <= there[-1] - width]
            # Use the next level that occurs: in 8-bit or mu-law audio, levels are far apart.
            low = int(below[-1]) if len(below) else -1
            just_below = float(side[max(0, low - width + 1) : low + 1].sum()) if low >= 0 else 0.0
            clipped += max(0.0, top - _PILE * just_below)
    return clipped / max(1.0, float(values.sum()))


def speech_and_noise(levels: np.ndarray) -> dict[str, Any]:
    """Measures speech and noise from the levels of the 20 ms frames.

    Noise is the 5th percentile of the frames that are not silent and not adjacent to digital
    silence: a gated recording, or one spliced with zeros, shows its noise only next to the speech.
    Speech is the mean power of the active frames, those less than 15.9 dB below that mean (ITU-T
    P.56) and 3 dB above the noise. Without pauses the noise is overestimated, so the ratio is a
    lower bound. It is certain only with two seconds of sound in which to find a pause, or if the
    quietest frames have similar levels. Above `HIGHEST_SNR_DB` it is not reported.

    Args:
      levels: [frames] RMS, linear.

    Returns:
      speech_db, noise_db, snr_db, snr_sure, silence, digital_silence, gated (True when at least
      5 % is digital silence).
    """
    levels = np.asarray(levels, np.float64)
    empty = levels < DIGITAL_SILENCE
    out: dict[str, Any] = {
        "speech_db": None,
        "noise_db": None,
        "snr_db": None,
        "snr_sure": False,
        "silence": 1.0,
        "digital_silence": round(float(empty.mean()), 4) if len(levels) else 1.0,
        "gated": bool(empty.mean() >= 0.05) if len(levels) else False,
    }
    if empty.all():
        return out
    edge = empty.copy()
    edge[1:] |= empty[:-1]
    edge[:-1] |= empty[1:]
    inside = levels[~edge] if (~edge).sum() >= 5 else levels[~empty]
    power = inside**2
    noise = float(np.percentile(power, 5))
    alike = 10 * float(np.log10(np.percentile(power, 15) / max(power.min(), 1e-16)))
    speech = float(np.percentile(power, 95))
    for _ in range(20):
        active = power[power >= max(speech * 10**-1.59, noise * 2.0)]
        if not len(active):
            break
        share = float(active.mean())
        if abs(share - speech) < 1e-6 * speech:
            break
        speech = share
    snr = 10 * float(np.log10(max((speech - noise) / noise, 1e-2)))
    snr = min(snr, HIGHEST_SNR_DB)
    # Half way between the two if they are close, else the level that is inaudible beside speech.
    quiet = max(noise * 10 ** (min(6.0, snr / 2) / 10), speech * 10**-3.5) if snr > 0 else np.inf
    return out | {
        "speech_db": round(10 * float(np.log10(speech)), 2),
        "noise_db": round(10 * float(np.log10(noise)), 2),
        "snr_db": round(snr, 2),
        "snr_sure": bool(len(inside) >= 100 or alike < 3.0),
        "silence": round(float((levels**2 < quiet).mean()), 4),
    }
