"""Finds recordings with the same audio under another name, level, format or start.

Uses the fingerprints of Haitsma and Kalker, "A Highly Robust Audio Fingerprinting System" (ISMIR
2002): 32 bits per frame, the signs of the energy differences of 33 bands across frequency and time.
"""

from __future__ import annotations

import base64
import dataclasses
from collections.abc import Sequence

import numpy as np

from a2fjax.errors import InputError

RATE = 8000
WORDS_A_SECOND = 40
MAX_BIT_ERROR = 0.28
"""Share of differing bits below which two stretches are one sound; of others, half differ."""

_HOP = RATE // WORDS_A_SECOND
_SIZE = 4096
_LENGTH = 2960  # 0.37 s
_EDGES = np.round(np.geomspace(300, 2000, 34) / RATE * _SIZE).astype(int)
_QUIET_DB = 35.0
_COMMON = 12  # words that occur more often than this carry no information
_LEAST = WORDS_A_SECOND  # minimum of words in common
_FEWEST = 10


class Fingerprinter:
    """Computes the fingerprint of a recording that arrives in blocks."""

    def __init__(self, rate: int):
        """Starts for samples at `rate` Hz."""
        import soxr

        self._stream = soxr.ResampleStream(rate, RATE, 1, dtype="float32") if rate != RATE else None
        self._held = np.zeros(_LENGTH // 2, np.float32)  # padding for recordings of short words
        self._energies: list[np.ndarray] = []
        self._window = np.hanning(_LENGTH).astype(np.float32)

    def add(self, mono: np.ndarray, *, last: bool = False) -> None:
        """Adds the next samples [N]."""
        mono = np.asarray(mono, np.float32)
        if self._stream is not None:
            mono = self._stream.resample_chunk(mono, last=last)
        if last:
            mono = np.concatenate([mono, np.zeros(_LENGTH // 2, np.float32)])
        held = np.concatenate([self._held, mono])
        count = max(0, (len(held) - _LENGTH) // _HOP + 1)
        if count:
            rows = np.lib.stride_tricks.sliding_window_view(held, _LENGTH)[::_HOP][:count]
            for a in range(0, count, 256):
                power = np.abs(np.fft.rfft(rows[a : a + 256] * self._window, _SIZE)) ** 2
                sums = np.concatenate([np.zeros((len(power), 1)), power.cumsum(axis=1)], axis=1)
                each = sums[:, _EDGES[1:]] - sums[:, _EDGES[:-1]]
                self._energies.append(each.astype(np.float32))
        self._held = held[count * _HOP :]

    def result(self) -> str:
        """Returns the fingerprint as text: base64 of 32-bit words, 40 a second, 0 where quiet."""
        self.add(np.zeros(0, np.float32), last=True)
        if not self._energies:
            return ""
        energy = np.concatenate(self._energies)
        across = energy[:, :-1] - energy[:, 1:]
        bits = np.zeros((len(across), 32), bool)
        bits[1:] = across[1:] > across[:-1]
        level = 10 * np.log10(energy.sum(axis=1) + 1e-12)
        bits[level < level.max() - _QUIET_DB] = False
        if level.max() < -60:
            bits[:] = False
        return base64.b64encode(np.packbits(bits, axis=1).tobytes()).decode()


@dataclasses.dataclass(frozen=True)
class Match:
    """Two recordings that share audio.

    Attributes:
      first, second: indices in the compared sequence, first < second.
      shift: delay in s of the audio in the second recording.
      seconds: length of the shared audio.
      differing: share of bits that differ; 0.5 by chance.
    """

    first: int
    second: int
    shift: float
    seconds: float
    differing: float


def hash_words(fingerprint: str) -> np.ndarray:
    """Returns the words [N] uint32 of a fingerprint.

    Raises:
      InputError: the text is not a fingerprint.
    """
    try:
        raw = base64.b64decode(fingerprint, validate=True)
        return np.frombuffer(raw, ">u4").astype(np.uint32)
    except ValueError:
        raise InputError(
            f"fingerprint {fingerprint[:16]!r}...: not base64 of 32-bit words"
        ) from None


def compare(a: np.ndarray, b: np.ndarray, shift: int) -> tuple[float, int]:
    """Returns (share of differing bits, words compared) with b delayed by `shift` words."""
    lo, hi = max(0, -shift), min(len(a), len(b) - shift)
    if hi <= lo:
        return 0.5, 0
    x, y = a[lo:hi], b[lo + shift : hi + shift]
    both = (x != 0) & (y != 0)
    count = int(both.sum())
    if not count:
        return 0.5, 0
    return float(np.bitwise_count(x[both] ^ y[both]).mean() / 32), count


def find_matches(fingerprints: Sequence[str | None]) -> list[Match]:
    """Finds the pairs that share at least a second of audio, or most of a short recording.

    Words that occur in both recordings at the same distance form a candidate, which is accepted by
    its bit error. The work grows with the number of words, not of pairs.

    Args:
      fingerprints: results of `Fingerprinter`; None or "" for recordings without.
    """
    tracks = [hash_words(f) if f else np.zeros(0, np.uint32) for f in fingerprints]
    if sum(len(t) > 0 for t in tracks) < 2:
        return []
    word = np.concatenate(tracks)
    lengths = [len(t) for t in tracks]
    owner = np.repeat(np.arange(len(tracks)), lengths)
    position = np.concatenate([np.arange(n) for n in lengths])
    # The long window makes neighbouring words equal: use only the first of a run.
    keep = (word != 0) & ~((np.diff(word, prepend=0) == 0) & (np.diff(owner, prepend=-1) == 0))
    word, owner, position = word[keep], owner[keep], position[keep]
    order = np.lexsort((position, owner, word))
    word, owner, position = word[order], owner[order], position[order]
    starts = np.flatnonzero(np.diff(word, prepend=word[:1] + np.uint32(1)))
    sizes = np.diff(np.append(starts, len(word)))
    # Encode a candidate (first, second, shift) as one number.
    longest = max(lengths)
    candidates: list[np.ndarray] = []
    for gap in range(1, _COMMON):
        # Pair only neighbours of frequent words: twenty copies still form a chain.
        usable = (sizes > gap) & ((sizes <= _COMMON) | (gap == 1))
        first, room = starts[usable], sizes[usable] - gap
        a = np.repeat(first, room) + _ramp(room)
        a = a[owner[a] != owner[a + gap]]
        b = a + gap
        shift = position[b] - position[a] + longest
        candidates.append((owner[a] * len(tracks) + owner[b]) * (2 * longest + 1) + shift)
    keys, votes = np.unique(np.concatenate(candidates), return_counts=True)
    # One word in common at some distance is nothing among millions.
    keys, votes = keys[votes >= 2], votes[votes >= 2]
    pair, shift = np.divmod(keys, 2 * longest + 1)
    one, two = np.divmod(pair, len(tracks))
    return _verify(tracks, np.stack([one, two, shift - longest], axis=1), votes)


def _ramp(sizes: np.ndarray) -> np.ndarray:
    """Returns 0, 1, ... up to each size in turn."""
    ends = np.cumsum(sizes)
    return np.arange(ends[-1] if len(ends) else 0) - np.repeat(ends - sizes, sizes)


def _verify(tracks: list[np.ndarray], keys: np.ndarray, votes: np.ndarray) -> list[Match]:
    # Sort by votes, to try a pair's best shift first and few others.
    order = np.lexsort((keys[:, 2], -votes, keys[:, 1], keys[:, 0]))
    sounding = [int(np.count_nonzero(t)) for t in tracks]
    out: list[Match] = []
    pair, tried = (-1, -1), 0
    for a, b, lag in keys[order].tolist():
        if (a, b) != pair:
            pair, tried = (a, b), 0
        tried += 1
        if tried > 3 or (out and (out[-1].first, out[-1].second) == pair):
            continue
        options = [(*compare(tracks[a], tracks[b], s), s) for s in (lag - 1, lag, lag + 1)]
        differing, count, best = min(options)
        # Held vowels resemble each other; a second of audio, or a whole short word, does not.
        need = min(_LEAST, max(_FEWEST, 0.8 * min(sounding[a], sounding[b])))
        if count >= need and differing < MAX_BIT_ERROR:
            seconds, by = count / WORDS_A_SECOND, best / WORDS_A_SECOND
            out.append(Match(a, b, round(by, 3), round(seconds, 2), round(differing, 4)))
    return out
