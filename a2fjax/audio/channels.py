"""Which channels of a recording hold the speech: `load` and `blocks` mix only those.

The mean of all channels is right for an ordinary stereo recording. It is wrong where a channel is
silent (the mean is too quiet), has the opposite polarity (the mean is silence), or holds something
else: timecode, music, an open input.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable

import numpy as np

SILENT = 1e-4
"""RMS relative to the loudest channel below which a channel counts as silent (-80 dB)."""

OPPOSED = -0.2
"""Correlation of two channels below which their mean loses more than half of their power."""

RELATED = 0.3
"""Correlation, at the best delay, from which two channels hold the same sound."""

DELAY_SECONDS = 0.002
"""Longest delay between two channels of the same sound: 70 cm between two microphones."""

_FRAME = 0.02  # s, between spectra of twice that length.
_BAND = (150.0, 4000.0)  # Hz; holds most of the power of speech and of timecode.
_RANGE_DB = 40.0  # Quieter frames count as this far below the loud ones.
_ACTIVE_DB = 25.0
_LAG = 3  # Frames; within 60 ms the spectrum of speech changes, that of a note or a tone does not.
_STEADY = 0.95  # Correlation of two spectra from which they are the same sound.

# Measured on 25 recordings of speech, with and without rooms: the levels vary by 9 to 17 dB, at
# most 2 % of the frames are steady. Timecode and noise vary by less than 1 dB; of music's frames
# 30 % and more are steady.
_LEAST_VARIATION_DB = 5.0
_MOST_STEADY = 0.15

# A drum that fades keeps the shape of its spectrum: the median correlation over 60 ms is high. The
# bounds were chosen on one half of 61 recordings of speech (as they are, in rooms, with noise) and
# of 160 drum parts. In pairs of the other halves, 95 % of the drums beside speech are told, and
# 85 % of those of another generator. Speech is left out in 0.03 % of these pairs and, beside other
# speech, in 2 %, where it is in a reverberant room.
_MOST_ALIKE = 0.90
_MORE_ALIKE = 0.02
_LEAST_FRAMES = 25

_MOST_PAIRS = 8  # Channels that a channel is compared with.

_EVERY = 500  # Frames looked at in a row: all of the first minute, then a tenth.
_FIRST = 6
_THEN = 10


@dataclasses.dataclass(frozen=True)
class Choice:
    """The channels that are mixed.

    Attributes:
      count: number of channels of the recording.
      used: indices of the channels whose mean is used, ascending.
      why: why others are not used, or why the mean is doubtful; "" for the mean of all.
    """

    count: int
    used: tuple[int, ...]
    why: str = ""

    def mix(self, block: np.ndarray) -> np.ndarray:
        """Returns the mean [n] of the used channels of a block [n, count], in its dtype."""
        if len(self.used) == 1:
            return block[:, self.used[0]]
        part = block if len(self.used) == self.count else block[:, self.used]
        return part.mean(axis=1, dtype=block.dtype)

    @property
    def text(self) -> str:
        """Tells the user which channels are used and why; "" if all are averaged without doubt.

        Example:
            >>> Choice(2, (0,), "channel 2 is silent").text
            'channel 1 of 2 is used: channel 2 is silent'
        """
        return f"{_names(self.used)} of {self.count} {_verb(self.used)}: {self.why}" * bool(
            self.why
        )


def choose(pieces: Iterable[tuple[float, np.ndarray]]) -> Choice:
    """Chooses the channels of a recording in one pass.

    1. Silent channels are left out.
    2. Where some channels hold speech and others something else, only those with speech are used.
       Speech is what varies in level and does not stay the same sound for 60 ms. Drums do so, too,
       but the shape of their spectrum changes less than that of speech on another channel.
    3. Channels whose sound is that of the loudest one with the opposite polarity, or with a delay
       that cancels it, are left out. Of equally loud channels the first one counts as the loudest.

    Args:
      pieces: (rate in Hz, [n, channels] float) in order, as from `io.native_blocks`.

    Returns:
      The choice; all channels of a recording with one channel or without sound.
    """
    sums: _Sums | None = None
    for rate, piece in pieces:
        if sums is None:
            if piece.shape[1] == 1:
                return Choice(1, (0,))
            sums = _Sums(rate, piece.shape[1])
        sums.add(piece)
    return Choice(1, (0,)) if sums is None else sums.result()


class _Sums:
    """Running sums over the pieces of a recording."""

    def __init__(self, rate: float, channels: int) -> None:
        self.count = 0
        self.total = np.zeros(channels)
        self.product = np.zeros((channels, channels))
        self._spectra = [_Spectra(rate) for _ in range(channels)]
        self._block = _EVERY * max(1, round(rate * _FRAME))
        self._reach = max(1, round(rate * DELAY_SECONDS))
        self._delayed = np.zeros((channels, channels, 2 * self._reach + 1))
        self._held: list[np.ndarray] = []
        self._samples = 0
        self._blocks = 0

    def add(self, piece: np.ndarray) -> None:
        wide = np.nan_to_num(piece.astype(np.float64), posinf=0.0, neginf=0.0)
        self.count += len(wide)
        self.total += wide.sum(axis=0)
        self.product += wide.T @ wide
        self._held.append(wide)
        self._samples += len(wide)
        if self._samples >= self._block:
            self._look()

    def _look(self) -> None:
        joined = np.concatenate(self._held)
        self._held, self._samples = [], 0
        if self._blocks < _FIRST or self._blocks % _THEN == 0:
            for spectra, column in zip(self._spectra, joined.T, strict=True):
                spectra.add(column)
            self._correlate(joined - joined.mean(axis=0))
        self._blocks += 1

    def _correlate(self, block: np.ndarray) -> None:
        """Adds the correlations of all pairs of channels at each delay."""
        size = 1 << (len(block) + self._reach).bit_length()
        spectrum = np.fft.rfft(block, size, axis=0).T
        lags = np.arange(-self._reach, self._reach + 1)
        for i, own in enumerate(spectrum):
            for j in range(i, min(len(spectrum), i + _MOST_PAIRS)):
                row = np.fft.irfft(own * np.conj(spectrum[j]), size)[lags]
                self._delayed[i, j] += row
                self._delayed[j, i] = self._delayed[i, j][::-1]

    def _relations(self) -> np.ndarray:
        """Returns the correlation [C, C] of the channels at the delay where it is strongest."""
        energy = self._delayed[:, :, self._reach].diagonal()
        strongest = np.abs(self._delayed).argmax(axis=2)[..., None]
        peak = np.take_along_axis(self._delayed, strongest, axis=2)[..., 0]
        return peak / np.maximum(np.sqrt(np.outer(energy, energy)), 1e-24)

    def _without_drums(self, speech: list[int]) -> list[int]:
        """Returns the channels that do not change less than an unrelated one, as drums do."""
        related = np.abs(self._relations())

        def is_drums(i: int) -> bool:
            own = self._spectra[i].alike
            return own >= _MOST_ALIKE and any(
                own - self._spectra[j].alike >= _MORE_ALIKE and related[i, j] < RELATED
                for j in speech
            )

        return [i for i in speech if not is_drums(i)]

    def result(self) -> Choice:
        if self._held:
            self._look()
        channels = len(self.total)
        everything = tuple(range(channels))
        if not self.count:
            return Choice(channels, everything)
        mean = self.total / self.count
        moment = self.product / self.count - np.outer(mean, mean)
        size = np.sqrt(np.maximum(np.diag(moment), 0.0))
        alive = [i for i in everything if size[i] > SILENT * max(float(size.max()), 1e-9)]
        if not alive:
            return Choice(channels, everything)
        silent = [i for i in everything if i not in alive]
        reasons = [f"{_names(silent)} {_is(silent)} silent"] if silent else []
        speech = self._without_drums([i for i in alive if self._spectra[i].is_speech()])
        other = [i for i in alive if i not in speech]
        if speech and other:
            reasons.append(f"no speech on {_names(other)}")
        used = speech or alive
        # Equally loud channels differ by rounding; take the first of them.
        best = next(i for i in used if size[i] >= 0.99 * size[used].max())
        others = [i for i in used if i != best]
        direct = moment[best] / np.maximum(size[best] * size, 1e-24)
        peak = self._relations()[best]
        against = [i for i in others if peak[i] < -RELATED or (direct[i] < OPPOSED and peak[i] < 0)]
        late = [i for i in others if direct[i] < OPPOSED and i not in against]
        if against:
            reasons.append(f"{_names(against)} {_has(against)} the opposite polarity")
        if late:
            reasons.append(f"{_names(late)} {_has(late)} the same sound at another time")
        if against or late:
            used = [i for i in used if i not in against and i not in late]
        elif any(abs(peak[i]) < RELATED for i in others) and speech:
            reasons.append("they hold different sounds; give a file with the speech alone")
        return Choice(channels, tuple(used), "; ".join(reasons))


class _Spectra:
    """Levels and steadiness of one channel."""

    def __init__(self, rate: float) -> None:
        self._hop = max(1, round(rate * _FRAME))
        frequency = np.fft.rfftfreq(2 * self._hop, 1 / rate)
        self._band = (frequency >= _BAND[0]) & (frequency <= _BAND[1])
        self._levels: list[np.ndarray] = []
        self._alike: list[np.ndarray] = []
        self.alike = 0.0

    def add(self, samples: np.ndarray) -> None:
        size = 2 * self._hop
        if len(samples) < size or not self._band.any():
            return
        windows = np.lib.stride_tricks.sliding_window_view(samples, size)[:: self._hop]
        # The square root weighs strong and weak harmonics alike.
        shape = np.sqrt(np.abs(np.fft.rfft(windows * np.hanning(size), axis=1))[:, self._band])
        power = (shape**4).sum(axis=1)
        shape /= np.maximum(np.linalg.norm(shape, axis=1, keepdims=True), 1e-12)
        alike = np.zeros(len(shape))
        alike[_LAG:] = (shape[_LAG:] * shape[:-_LAG]).sum(axis=1)
        self._levels.append(10.0 * np.log10(power + 1e-12))
        self._alike.append(alike)

    def is_speech(self) -> bool:
        if not self._levels:
            return False
        level, alike = np.concatenate(self._levels), np.concatenate(self._alike)
        top = np.percentile(level, 95)
        active = level > top - _ACTIVE_DB
        if len(level) < _LEAST_FRAMES or not active.any():
            return False
        variation = np.maximum(level, top - _RANGE_DB).std()
        steady = (alike[active] > _STEADY).mean()
        self.alike = float(np.median(alike[active]))
        return bool(variation >= _LEAST_VARIATION_DB and steady <= _MOST_STEADY)


def _names(indices: Iterable[int]) -> str:
    numbers = [str(i + 1) for i in indices]
    if len(numbers) == 1:
        return f"channel {numbers[0]}"
    return f"channels {', '.join(numbers[:-1])} and {numbers[-1]}"


def _verb(indices: tuple[int, ...]) -> str:
    return "is used" if len(indices) == 1 else "are averaged"


def _is(indices: list[int]) -> str:
    return "is" if len(indices) == 1 else "are"


def _has(indices: list[int]) -> str:
    return "has" if len(indices) == 1 else "have"
