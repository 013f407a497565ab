"""Opposite shapes: at most one of a pair above zero in a frame.

That makes the solver's problem (`solve`) non-convex: one of each pair is held at zero in each
frame, and for a given choice the problem is the convex one with an upper bound of 0 there. The
choice is made from the free solution and improved as long as the objective falls: a local optimum.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from data_pipeline.solve import Problem

EXCLUSIVE_PAIRS = (
    ("jawLeft", "jawRight"),
    ("mouthLeft", "mouthRight"),
    ("eyeLookInLeft", "eyeLookOutLeft"),
    ("eyeLookUpLeft", "eyeLookDownLeft"),
    ("eyeLookInRight", "eyeLookOutRight"),
    ("eyeLookUpRight", "eyeLookDownRight"),
)
"""Channels that are the two directions of one motion: of the jaw, of the mouth, of an eye's gaze.
Apple's tracker never gives both at once. Shapes that merely oppose each other (smile and frown,
blink and wide, the tongue's) can be there together and are not in it."""

_SMOOTH = np.hanning(11)[1:-1] / np.hanning(11).sum()  # of a pair's difference, over 9 frames
_CLOSE = 0.5  # two of a pair are in doubt where the smaller is more than this of the larger
_REACH = 16  # frames on both sides that a decision about a run of frames is judged on
_ROUNDS = 4  # most rounds of improving which shape of a pair is held


def exclude(problem: Problem, w: np.ndarray, exclusive: list[tuple[int, int]]) -> tuple[float, int]:
    """Solves again with at most one of each pair above zero, in place; as `converge`.

    The smaller of the free solution is held; where they are close, the one that is smaller over the
    frames around, so that noise does not make the two take turns. Then a shape that is held is let
    in where its partner came out at zero anyway and the gradient wants it, and runs of frames in
    doubt are tried the other way round; both only lower the objective.
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
        close = np.minimum(a, b) > _CLOSE * np.maximum(a, b)
        doubt[close, p] = 1 + held[close, p]
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
        if not _try_runs(problem, w, doubt):
            break
        worst, more = _settle(problem, w)
        done += more
        value = problem.objective(w)
        if value > best:  # decisions that each looked better do not go together
            problem.held = previous
            worst, more = _settle(problem, w)
            done += more
            break
        best = value
    return worst, done


def _settle(problem: Problem, w: np.ndarray) -> tuple[float, int]:
    """Converges, and lets in shapes that are held beside a partner at zero, while that helps."""
    done = 0
    for lo, hi in problem.spans():
        np.minimum(w[lo:hi], problem.upper(lo, hi), out=w[lo:hi])
    for _ in range(_ROUNDS):
        worst, more = problem.converge(w)
        done += more
        changed = False
        for lo, hi in problem.spans():
            wants = -problem.gradient(w, lo, hi) / problem.curvature > problem.settings.tolerance
            wants &= problem.moves
            for p, pair in enumerate(problem.exclusive):
                for side in (0, 1):
                    held = problem.held[lo:hi, p] == side
                    swap = held & wants[:, pair[side]] & (w[lo:hi, pair[1 - side]] <= 0.0)
                    problem.held[lo:hi, p][swap] = 1 - side
                    changed |= bool(swap.any())
        if not changed:
            return worst, done
    worst, more = problem.converge(w)
    return worst, done + more


def _try_runs(problem: Problem, w: np.ndarray, doubt: np.ndarray) -> bool:
    """Turns runs of doubtful frames where that lowers the objective; returns whether any was.

    Each span is solved with all runs of a pair turned, the rest standing still, and each run is
    judged on its own frames and those near.
    """
    turned = False
    for lo, hi in problem.spans():
        for p in np.flatnonzero(doubt[lo:hi].any(axis=0)):
            held, unsure = problem.held[lo:hi, p].copy(), doubt[lo:hi, p]
            old, old_steps = problem.costs(w, lo, hi)
            problem.held[lo:hi, p] = np.where(unsure, 1 - held, held)
            upper = problem.upper(lo, hi)
            rows = np.minimum(w[lo:hi], upper)
            rows = problem.descend(rows, problem.gradient(w, lo, hi, rows), upper, lo)
            new, new_steps = problem.costs(w, lo, hi, rows)
            gain = np.concatenate([[0.0], np.cumsum(old - new + old_steps[:-1] - new_steps[:-1])])
            better = np.zeros(hi - lo, bool)
            marked = np.where(unsure, 2 * unsure + held, 0)
            edges = np.flatnonzero(np.diff(marked, prepend=-1, append=-1))
            for a, b in zip(edges[:-1], edges[1:], strict=True):
                if marked[a]:
                    near = max(a - _REACH, 0), min(b + _REACH, hi - lo)
                    least = 1e-6 * abs(float(old[a:b].sum()))
                    better[a:b] = gain[near[1]] - gain[near[0]] > least
            problem.held[lo:hi, p] = np.where(better, 1 - held, held)
            turned |= bool(better.any())
    return turned
