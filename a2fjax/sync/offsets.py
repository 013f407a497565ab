"""The offset of a recording, with an interval and a confidence, from the votes of its windows.

A vote is the score curve over the offset of about 2 s of speech. The curves are summed; the peak of
the sum is the offset, finer than a frame by a parabola through its three highest points. Votes are
drawn again with replacement (bootstrap), which tells how far the peak moves. NumPy only.
"""

from __future__ import annotations

import dataclasses
import zlib
from collections.abc import Sequence

import numpy as np

from a2fjax import rig

LEAST_VOTES = 3
"""Fewest votes of an offset: two draw the same curves too often to show how far they disagree."""

LEAST_SPREAD = 0.020
"""Half the narrowest interval, s: a frame. An expert hears some voices up to that early or late,
which no number of votes of one voice can show."""

AGREEMENT = 1.0 / rig.FPS
"""Draws within this of the offset, s, agree with it: one frame."""

LARGEST_SEARCH = 1.0
"""Offsets can be searched up to this, s: more would leave little of a piece of 20 s."""

DRAWS = 400
_MOST_GROUPS = 400  # neighbouring votes are joined beyond, so that memory does not grow
_TAIL = 0.025


@dataclasses.dataclass(frozen=True)
class Votes:
    """The score curves of a recording, one for each 2 s in which windows count.

    Attributes:
      curves: [G, 2 K + 1] float, sums of the windows' scores at offsets of -K to K frames.
    """

    curves: np.ndarray

    @property
    def reach(self) -> int:
        """Largest offset, K, in frames."""
        return (self.curves.shape[1] - 1) // 2

    def within(self, reach: int) -> Votes:
        """Returns the votes for offsets up to `reach` frames, at most as many as there are."""
        cut = self.reach - reach
        return self if cut <= 0 else Votes(self.curves[:, cut:-cut])


NO_VOTES = Votes(np.zeros((0, 1)))


@dataclasses.dataclass(frozen=True)
class Offset:
    """How much later than the motion the sound is.

    Attributes:
      seconds: the offset; above 0 the sound is late: the motion must move later to fit.
      low, high: 95 % interval, s.
      confidence: share of the draws that agree with the offset within `AGREEMENT`.
      votes: number of votes.
    """

    seconds: float
    low: float
    high: float
    confidence: float
    votes: int

    @property
    def in_step(self) -> bool:
        """Returns whether the interval contains 0."""
        return self.low <= 0.0 <= self.high

    def contradicts(self, other: Offset) -> bool:
        """Returns whether the intervals are disjoint and the offsets more than a frame apart."""
        apart = self.low > other.high or other.low > self.high
        return apart and abs(self.seconds - other.seconds) > AGREEMENT


def pooled(parts: Sequence[Votes]) -> Votes:
    """Returns the votes of recordings that share an offset.

    Short recordings leave no room for large offsets. The range is the one that at least half of the
    votes have; votes with less are left out.

    Example:
        >>> short, long = Votes(np.ones((1, 5))), Votes(np.ones((4, 9)))
        >>> pooled([short, long]).curves.shape
        (4, 9)
    """
    parts = [p for p in parts if len(p.curves)]
    if not parts:
        return NO_VOTES
    reach = np.repeat([p.reach for p in parts], [len(p.curves) for p in parts])
    common = int(np.sort(reach)[::-1][(len(reach) - 1) // 2])
    return Votes(np.concatenate([p.within(common).curves for p in parts if p.reach >= common]))


def find(
    votes: Votes, name: str, *, seed: int = 0, draws: int = DRAWS, least_range: float = 0.0
) -> Offset | None:
    """Returns the offset that votes agree on, or None.

    None stands for no offset, never for an offset of 0: there are fewer than `LEAST_VOTES`, the
    recording was too short for the range, or the score still rises at an end of the range.

    The interval is that of the draws' percentiles, wider for few votes by Student's t, at least
    `LEAST_SPREAD` on both sides. Efron and Tibshirani, "An Introduction to the Bootstrap" (1993).

    Args:
      votes: of one recording, or of several that share an offset.
      name: of the recording; the draws are a function of it and the seed.
      seed: of the draws.
      draws: number of draws.
      least_range: offsets that must have been searched at least, s.

    Example:
        >>> frames = np.arange(-30, 31)
        >>> found = find(Votes(np.stack([-((frames - 4.0) ** 2)] * 5)), "take")
        >>> found.seconds, found.low, found.high, found.confidence
        (0.08, 0.06, 0.1, 1.0)
        >>> find(Votes(np.ones((2, 61))), "take") is None
        True
    """
    count, reach = len(votes.curves), votes.reach
    if count < LEAST_VOTES or reach < max(1, round(least_range * rig.FPS)):
        return None
    curves = votes.curves.astype(np.float64)
    best, inside = _peak(curves.sum(0)[None])
    if not inside[0]:
        return None
    if count > _MOST_GROUPS:
        edges = np.linspace(0, count, _MOST_GROUPS + 1).astype(int)[:-1]
        curves = np.add.reduceat(curves, edges, axis=0)
    rng = np.random.default_rng([seed, zlib.crc32(name.encode())])
    groups = len(curves)
    drawn = rng.multinomial(groups, np.full(groups, 1.0 / groups), size=draws)
    peaks = (_peak(drawn @ curves)[0] - reach) / rig.FPS
    seconds = float(best[0] - reach) / rig.FPS
    wider = _student(groups)
    low, high = (wider * (np.quantile(peaks, q) - seconds) for q in (_TAIL, 1.0 - _TAIL))
    agree = float(np.mean(np.abs(peaks - seconds) <= AGREEMENT + 1e-9))
    return Offset(
        seconds=round(seconds, 4),
        low=round(seconds + min(float(low), -LEAST_SPREAD), 4),
        high=round(seconds + max(float(high), LEAST_SPREAD), 4),
        confidence=round(agree, 3),
        votes=count,
    )


def _student(groups: int) -> float:
    """Returns how much wider than the normal distribution's an interval of few values is."""
    from scipy.special import stdtrit

    freedom = groups - 1
    tail: float = stdtrit(freedom, 1.0 - _TAIL) / 1.959964
    return tail * float(np.sqrt(groups / freedom))


def _peak(curves: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Returns places [N] of the maxima of curves [N, K], and whether they are not at an end."""
    row = np.arange(len(curves))
    top = curves.argmax(1)
    inside = (top > 0) & (top < curves.shape[1] - 1)
    # A flat curve has its first maximum at an end, and counts as none.
    place = np.clip(top, 1, curves.shape[1] - 2)
    before, at, after = (curves[row, place + k] for k in (-1, 0, 1))
    bend = before - 2.0 * at + after
    step = np.where(bend < 0, 0.5 * (before - after) / np.minimum(bend, -1e-30), 0.0)
    return np.where(inside, place + np.clip(step, -0.5, 0.5), top), inside
