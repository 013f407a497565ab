"""Solves with opposite shapes: at most one of a pair is above zero in a frame.

This makes the solver's problem (`solve`) non-convex: one shape of each pair is held at zero in each
frame. For a given choice, the problem is convex with an upper bound of 0 for the held shapes. The
choice starts from the free solution and is improved while the objective falls, to a local optimum.
"""

from __future__ import annotations

import numpy as np

from data_pipeline.solver.problem import Problem

EXCLUSIVE_PAIRS = (
    ("jawLeft", "jawRight"),
    ("mouthLeft", "mouthRight"),
    ("eyeLookInLeft", "eyeLookOutLeft"),
    ("eyeLookUpLeft", "eyeLookDownLeft"),
    ("eyeLookInRight", "eyeLookOutRight"),
    ("eyeLookUpRight", "eyeLookDownRight"),
)
"""Channels that are the two directions of one motion: of the jaw, of the mouth, of an eye's gaze.
Apple's tracker never reports both at once. Shapes that merely oppose each other (smile and frown,
blink and wide, those of the tongue) can be active together and are not listed."""

_SMOOTH = np.hanning(11)[1:-1] / np.hanning(11).sum()  # smooths a pair's difference over 9 frames
_CLOSE = 0.5  # if the smaller weight exceeds this share of the larger, noise may decide
_DOUBT = 0.2  # the choice may be wrong if the smaller exceeds this share of the larger,
_VISIBLE = 0.03  # and matters if the smaller exceeds this
_SWAP = 1e-3  # a held shape is released beside a partner at zero if it would rise by more
_REACH = 16  # frames on both sides used to evaluate the choice for a run of frames
_ROUNDS = 4  # maximum of rounds that improve which shape of a pair is held


def solve_exclusive(
    problem: Problem, w: np.ndarray, exclusive: list[tuple[int, int]]
) -> tuple[float, int]:
    """Solves again in place with at most one of each pair above zero; returns like `converge`.

    First holds the shape that is smaller in the free solution or, where the two are close, the one
    that is smaller over the surrounding frames, so that noise does not make them alternate. Then
    releases a held shape where its partner is at zero and the gradient would raise it, and tries
    other choices in doubtful frames; both steps only lower the objective.
    """
    # 0 no doubt, else 1 + which one is smaller in this frame.
    doubt = np.zeros((len(w), len(exclusive)), np.int8)
    held = np.empty(doubt.shape, np.int8)
    cuts = np.append(np.flatnonzero(problem.link[:-1] == 0.0), len(w))
    violated = False
    for p, (first, second) in enumerate(exclusive):
        a, b = w[:, first], w[:, second]
        held[:, p] = a >= b
        violated |= bool(((a > 0.0) & (b > 0.0)).any())
        smaller, larger = np.minimum(a, b), np.maximum(a, b)
        close, unsure = smaller > _CLOSE * larger, smaller > np.maximum(_DOUBT * larger, _VISIBLE)
        doubt[unsure, p] = 1 + held[unsure, p]
        for lo, hi in zip(cuts[:-1], cuts[1:], strict=True):
            difference = np.convolve(a[lo:hi] - b[lo:hi], _SMOOTH)[len(_SMOOTH) // 2 :]
            both = close[lo:hi]
            held[lo:hi, p][both] = difference[: hi - lo][both] >= 0.0
    if not violated:
        return problem.worst(w), 0
    problem.exclusive, problem.held = exclusive, held
    worst, done = _settle(problem, w)
    best = problem.objective(w)
    for _ in range(_ROUNDS):
        previous = problem.held.copy()
        if not _try_others(problem, w, doubt):
            break
        worst, more = _settle(problem, w)
        done += more
        value = problem.objective(w)
        if value > best:  # choices that were better individually are worse together
            problem.held = previous
            worst, more = _settle(problem, w)
            done += more
            break
        best = value
    return worst, done


def _settle(problem: Problem, w: np.ndarray) -> tuple[float, int]:
    """Converges, and releases shapes held beside a partner at zero while that helps."""
    done = 0
    zero = 10.0 * problem.settings.tolerance  # weights this small are zero up to rounding
    for lo, hi in problem.spans():
        np.minimum(w[lo:hi], problem.upper(lo, hi), out=w[lo:hi])
    for _ in range(_ROUNDS):
        worst, more = problem.converge(w)
        done += more
        changed = False
        for lo, hi in problem.spans():
            wants = -problem.gradient(w, lo, hi) / problem.curvature > _SWAP
            wants &= problem.moves
            for p, pair in enumerate(problem.exclusive):
                for side in (0, 1):
                    held = problem.held[lo:hi, p] == side
                    swap = held & wants[:, pair[side]] & (w[lo:hi, pair[1 - side]] <= zero)
                    problem.held[lo:hi, p][swap] = 1 - side
                    changed |= bool(swap.any())
        if not changed:
            return worst, done
    worst, more = problem.converge(w)
    return worst, done + more


def _try_others(problem: Problem, w: np.ndarray, doubt: np.ndarray) -> bool:
    """Changes the choice in doubtful frames if that lowers the objective; False if none changed.

    Solves each span with a pair's choice changed everywhere and the other spans fixed, then
    evaluates each part of it on its frames and the nearby ones.
    """
    changed = False
    reach = _REACH if problem.tau else 0
    for lo, hi in problem.spans():
        for p in np.flatnonzero(doubt[lo:hi].any(axis=0)):
            for choice in range(4 if problem.tau else 1):
                held = problem.held[lo:hi, p].copy()
                other, parts = _choice(choice if problem.tau else -1, held, doubt[lo:hi, p])
                if (other == held).all():
                    continue
                old, old_steps = problem.costs(w, lo, hi)
                problem.held[lo:hi, p] = other
                upper = problem.upper(lo, hi)
                rows = np.minimum(w[lo:hi], upper)
                rows = problem.descend(rows, problem.gradient(w, lo, hi, rows), upper, lo)
                new, new_steps = problem.costs(w, lo, hi, rows)
                gain = old - new + old_steps[:-1] - new_steps[:-1]
                gain = np.concatenate([[0.0], np.cumsum(gain)])
                better = np.zeros(hi - lo, bool)
                edges = np.flatnonzero(np.diff(parts, prepend=-1, append=-1))
                for a, b in zip(edges[:-1], edges[1:], strict=True):
                    if parts[a]:
                        total = gain[min(b + reach, hi - lo)] - gain[max(a - reach, 0)]
                        better[a:b] = total > 1e-6 * abs(float(old[a:b].sum()))
                better &= other != held
                problem.held[lo:hi, p] = np.where(better, other, held)
                w[lo:hi][better] = rows[better]
                np.minimum(w[lo:hi], problem.upper(lo, hi), out=w[lo:hi])
                changed |= bool(better.any())
    return changed


def _choice(kind: int, held: np.ndarray, doubt: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Returns another choice [n] of the held shape and the parts [n] to evaluate it in (0: none).

    Kind -1 swaps each doubtful frame, 0 each run with the same held and the same smaller shape, 1
    each run with the same held shape; 2 and 3 hold one shape throughout a doubtful stretch.
    """
    if kind <= 1:
        part = (np.arange(1, len(held) + 1), 2 * doubt + held, 1 + held)[kind + 1]
        return np.where(doubt > 0, 1 - held, held), np.where(doubt > 0, part, 0)
    return np.where(doubt > 0, kind - 2, held), (doubt > 0).astype(np.int64)
