"""Measures of an expert, as sums over windows that add up over clips and people.

wins     share of windows whose audio as recorded scores higher than the same audio shifted by
         k frames; half for equal scores, so that an expert that knows nothing has 0.5. The mean
         over both directions.
offset   share of windows of 2 s whose best offset within `SEARCH` frames is near 0.
auc      area under the curve of windows' scores with their own audio against those with the audio
         of other clips: the share of pairs in which the own one is higher.
curve    mean score by offset, about the mean over offsets.
"""

from __future__ import annotations

import functools
from collections.abc import Sequence
from typing import Any

import jax
import numpy as np

from a2fjax.batch import Batch
from a2fjax.metrics.sums import Sums, divide
from a2fjax.models.syncnet import similarity, windows
from a2fjax.models.syncnet.channels import Statistics
from a2fjax.sync.expert import Expert

WINDOWS = (15, 30)
"""Frames of the windows: 0.3 s and 0.6 s."""

SHIFTS = (1, 2, 3, 5)
"""Frames of the shifts: 20, 40, 60 and 100 ms."""

LONG = 100
"""Frames of the windows that an offset is found in: 2 s."""

SEARCH = 20
"""Largest offset searched, in frames: 400 ms."""

LEAST_SPEECH = 0.5
LEAST_MOTION = 0.05
HOP = 5
"""Frames between windows that are counted."""

PAIRS = 16
"""Windows of a clip kept for comparison with other clips, most."""


def win_key(window: int, shift: int) -> str:
    """Returns the name of a share of wins: "win_300ms_60ms"."""
    return f"win_{window * 20}ms_{shift * 20}ms"


WIN_KEYS = tuple(win_key(w, s) for w in WINDOWS for s in SHIFTS)
OFFSET_KEYS = ("offset_20ms", "offset_40ms")


def counted(batch: Batch, statistics: Statistics, window: int, reach: int, room: int) -> np.ndarray:
    """Returns [T - window + 1] bool: windows of a clip that count at all shifts up to `room`.

    Args:
      batch: a batch of one.
      statistics: of its person.
      window: frames of a window.
      reach: largest reach of the audio of the experts compared, so that all count the same windows.
      room: largest shift in frames.
    """
    found = np.array(_counted(batch, statistics, window, reach + room))[0]
    found[np.arange(len(found)) % HOP != 0] = False
    return found


def moving(batch: Batch, statistics: Statistics, window: int) -> np.ndarray:
    """Returns [T - window + 1] bool: windows of valid frames with motion; see `counted`."""
    return np.asarray(_moving(batch, statistics, window))[0]


@functools.partial(jax.jit, static_argnames=("window",))
def _moving(batch: Batch, statistics: Statistics, window: int) -> jax.Array:
    return windows.countable(batch, statistics, window, least_speech=0.0, least_motion=LEAST_MOTION)


@functools.partial(jax.jit, static_argnames=("window", "margin"))
def _counted(batch: Batch, statistics: Statistics, window: int, margin: int) -> jax.Array:
    count = windows.countable(
        batch, statistics, window, least_speech=LEAST_SPEECH, least_motion=LEAST_MOTION
    )
    return count & windows.all_of(windows.heard_frames(batch, margin), window)


@functools.partial(jax.jit, static_argnames=("frames", "offsets", "kind"))
def _scores(heard: Any, seen: Any, frames: int, offsets: tuple[int, ...], kind: str) -> jax.Array:
    return similarity.scores(heard, seen, frames, offsets, kind=kind)


def window_scores(
    expert: Expert, heard: np.ndarray, seen: np.ndarray, window: int, offsets: Sequence[int]
) -> np.ndarray:
    """Returns [K, T - window + 1]: scores of windows of motion by first frame and offset."""
    inner = window - 2 * expert.motion_reach
    found = _scores(heard, seen, inner, tuple(offsets), expert.similarity)
    reach = expert.motion_reach
    return np.asarray(found)[0][:, reach : reach + heard.shape[1] - window + 1]


def wins(scores: np.ndarray, count: np.ndarray, shifts: Sequence[int]) -> np.ndarray:
    """Returns the sum of wins at each shift [S]; scores [1 + 2 S, N]: 0, then -k and k in turn."""
    own, others = scores[:1, count], scores[1:, count]
    won = (own > others) + 0.5 * (own == others)
    return won.reshape(len(shifts), 2, -1).mean(1).sum(1)


def both(shifts: Sequence[int]) -> list[int]:
    """Returns the offsets 0, -k, k, ... of `wins`.

    Example:
        >>> both((1, 3))
        [0, -1, 1, -3, 3]
    """
    return [0, *(sign * k for k in shifts for sign in (-1, 1))]


def win_sums(
    expert: Expert,
    vectors: tuple[np.ndarray, np.ndarray],
    masks: dict[int, np.ndarray],
    shifts: Sequence[int] = SHIFTS,
) -> Sums:
    """Returns the sums of the shares of wins; `masks` are `counted` by window."""
    out: Sums = {}
    for window, mask in masks.items():
        total, number = np.zeros(len(shifts)), 0.0
        if mask.any():
            scores = window_scores(expert, *vectors, window, both(shifts))
            total, number = wins(scores, mask, shifts), float(mask.sum())
        for shift, value in zip(shifts, total, strict=True):
            key = win_key(window, shift)
            out[f"{key}/sum"], out[f"{key}/n"] = np.array(value), np.array(number)
    return out


def offset_sums(expert: Expert, vectors: tuple[np.ndarray, np.ndarray], mask: np.ndarray) -> Sums:
    """Returns the sums of the offsets found in 2 s, and of the curve of the score."""
    out: Sums = {f"{key}/{part}": np.array(0.0) for key in OFFSET_KEYS for part in ("sum", "n")}
    out |= {"curve/sum": np.zeros(2 * SEARCH + 1), "curve/n": np.array(0.0)}
    if not mask.any():
        return out
    offsets = range(-SEARCH, SEARCH + 1)
    scores = window_scores(expert, *vectors, LONG, offsets)[:, mask]
    best = np.abs(scores.argmax(0) - SEARCH)
    # Where several offsets score alike, none was found.
    best[(scores == scores.max(0)).sum(0) > 1] = SEARCH
    number = np.array(float(mask.sum()))
    for key, most in zip(OFFSET_KEYS, (1, 2), strict=True):
        out[f"{key}/sum"], out[f"{key}/n"] = np.array(float((best <= most).sum())), number
    out["curve/sum"], out["curve/n"] = scores.sum(1), number
    return out


def pieces(
    expert: Expert, vectors: tuple[np.ndarray, np.ndarray], mask: np.ndarray, window: int
) -> tuple[np.ndarray, np.ndarray]:
    """Returns windows' vectors (heard, seen) [N, n, D] for `auc_sums`, at most `PAIRS`."""
    first = np.flatnonzero(mask)
    chosen = first[np.linspace(0, len(first) - 1, min(PAIRS, len(first))).round().astype(int)]
    inner = window - 2 * expert.motion_reach
    place = chosen[:, None] + expert.motion_reach + np.arange(inner)
    heard, seen = (v[0][place] for v in vectors)
    return heard, seen


def auc_sums(
    expert: Expert,
    own: tuple[np.ndarray, np.ndarray],
    others: np.ndarray,
    key: str = "auc",
) -> Sums:
    """Returns the sums of the area under the curve against the audio of others [M, n, D]."""
    heard, seen = own
    empty = {f"{key}/sum": np.array(0.0), f"{key}/n": np.array(0.0)}
    if not len(seen) or not len(others):
        return empty
    right = pair_scores(heard, seen, expert.similarity)
    row = np.repeat(np.arange(len(seen)), len(others))
    column = np.tile(np.arange(len(others)), len(seen))
    wrong = pair_scores(others[column], seen[row], expert.similarity)
    order = np.sort(wrong)
    below = np.searchsorted(order, right, "left") + np.searchsorted(order, right, "right")
    return {
        f"{key}/sum": np.array(below.sum() / 2.0),
        f"{key}/n": np.array(float(len(right) * len(wrong))),
    }


def pair_scores(heard: np.ndarray, seen: np.ndarray, kind: str) -> np.ndarray:
    """Returns the scores [N] of pairs of windows [N, n, D]."""
    if kind == "correlation":
        heard, seen = (x - x.mean(1, keepdims=True) for x in (heard, seen))
    inner = np.einsum("ntd,ntd->n", heard, seen, dtype=np.float64)
    sizes = [np.einsum("ntd,ntd->n", x, x, dtype=np.float64) for x in (heard, seen)]
    if kind == "agreement":
        return 2.0 * inner / np.maximum(sizes[0] + sizes[1], 1e-9)
    return inner / np.sqrt(np.maximum(sizes[0] * sizes[1], 1e-12))


def values(total: Sums) -> dict[str, np.ndarray]:
    """Returns every share whose sums are given, and "wins", the mean of those of 0.3 s."""
    names = [
        key.removesuffix("/sum") for key in total if key.endswith("/sum") and key != "curve/sum"
    ]
    out = {name: divide(total[f"{name}/sum"], total[f"{name}/n"]) for name in names}
    first = [win_key(WINDOWS[0], shift) for shift in SHIFTS]
    if all(key in out for key in first):
        out["wins"] = np.mean([out[key] for key in first], axis=0)
    return out
