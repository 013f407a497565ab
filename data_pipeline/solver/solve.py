"""Solves moving vertices for channel weights: box-constrained least squares on blendshapes.

For each frame t, with the shapes' displacements D [K, 3M] and the stabilised displacement d_t,

    sum_t |w_t D - d_t|^2 + l2 |w_t|^2 + l1 sum(w_t) + symmetry sum_pairs (w_t,a - w_t,b)^2
          + smoothness |w_t - w_(t-1)|^2        subject to 0 <= w_t <= 1,

all in mm^2. Only D D' [K, K] and D d_t [K] enter (`reduce`), so an iteration costs the same for any
number of vertices. The iteration is FISTA (Beck and Teboulle 2009, SIAM J. Imaging Sci. 2) with
per-frame adaptive restart (O'Donoghue and Candes 2015, Found. Comput. Math. 15) in coordinates
scaled to a unit diagonal, in float32, on spans of a fixed number of frames; its result is refined
against the gradient in float64 until the optimality (KKT) residual of the whole sequence, seams
between spans included, is below a bound. Memory beyond the sequence and its weights is that
of one span.

Optionally at most one of two shapes with opposite directions may be above zero; see `exclusive`.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence

import numpy as np

from data_pipeline.solver.exclusive import EXCLUSIVE_PAIRS, solve_exclusive
from data_pipeline.solver.problem import Problem, SolveSettings

__all__ = [
    "EXCLUSIVE_PAIRS",
    "Solution",
    "SolveSettings",
    "correlate",
    "gram",
    "solve",
]


@dataclasses.dataclass(frozen=True)
class Solution:
    """Weights of a sequence and how well they fit.

    Attributes:
      weights: [F, K] float64 in [0, 1].
      residual: [F] root mean square over vertices of |w D - d|, mm; NaN in lost frames.
      kkt: largest |w - clip(w - gradient / curvature, 0, upper)| over frames and shapes; 0 at the
        optimum. `upper` is 1, or 0 for the held shape of an exclusive pair.
      converged: whether kkt <= tolerance.
      passes: number of refinements, of the free and the exclusive problem together.
      iterations: number of descent iterations, over all passes and spans.
      objective: the module's formula at the weights, mm^2 (with lost frames filled in).
    """

    weights: np.ndarray
    residual: np.ndarray
    kkt: float
    converged: bool
    passes: int
    iterations: int = 0
    objective: float = 0.0


def gram(deltas: np.ndarray) -> np.ndarray:
    """Returns the Gram matrix [K, K] of shapes [K, M, 3] in float64."""
    flat = np.asarray(deltas, np.float64).reshape(len(deltas), -1)
    return flat @ flat.T


def correlate(deltas: np.ndarray, displacement: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Returns (D d [F, K], |d|^2 [F]) in float64 for shapes [K, M, 3] and frames [F, M, 3].

    Trusts every vertex; use `reduce.Reducer` for captures with gaps and outliers.
    """
    flat = np.asarray(deltas, np.float64).reshape(len(deltas), -1)
    d = np.asarray(displacement, np.float64).reshape(len(displacement), -1)
    return d @ flat.T, np.einsum("fi,fi->f", d, d)


def solve(
    gram: np.ndarray,
    linear: np.ndarray,
    energy: np.ndarray,
    vertices: int | np.ndarray,
    settings: SolveSettings,
    *,
    first: Sequence[int] = (0,),
    pairs: Sequence[tuple[int, int]] = (),
    exclusive: Sequence[tuple[int, int]] = (),
    start: np.ndarray | None = None,
) -> Solution:
    """Solves for the weights of a sequence, or of several sequences concatenated.

    Shapes that do not move (zero on the Gram diagonal) get weight 0. Lost frames (NaN in `linear`)
    are interpolated between the last and the next valid frame of the same take; a take without a
    valid frame gets weight 0.

    Args:
      gram: [K, K] Gram matrix of the shapes, mm^2; see `gram`.
      linear: [F, K] and
      energy: [F] terms of the frames, mm^2; see `correlate` and `reduce.Reducer`. They are read in
        spans and may be memory maps.
      vertices: number of vertices, for all frames or for each [F]; for the residual.
      settings: solver settings.
      first: frames at which a new take begins (no smoothness across).
      pairs: indices (left, right) of partners for the symmetry term.
      exclusive: pairs of shape indices of which at most one is above zero in a frame. The result is
        optimal for the shapes held at zero; the choice of held shapes is a local optimum.
      start: [F, K] initial weights, None for an estimate without bounds and smoothness; a good
        start gives the same result faster.

    Returns:
      A `Solution`; check `converged`.

    Example:
        >>> import numpy as np
        >>> deltas = np.eye(2, 6).reshape(2, 2, 3)  # two shapes of two vertices, 1 mm each
        >>> frames = np.tensordot([[0.25, 1.0], [0.5, 0.0]], deltas, 1)
        >>> exact = SolveSettings(l2=0.0, l1=0.0, smoothness=0.0)
        >>> solution = solve(gram(deltas), *correlate(deltas, frames), 2, exact)
        >>> solution.weights.round(3).tolist(), solution.converged
        ([[0.25, 1.0], [0.5, 0.0]], True)
    """
    problem = Problem(gram, linear, settings, first, pairs)
    frames, shapes = linear.shape
    w = np.zeros((frames, shapes))
    for lo, hi in problem.spans():
        guess = problem.guess(lo, hi) if start is None else start[lo:hi]
        w[lo:hi] = np.clip(np.nan_to_num(guess), 0.0, problem.upper(lo, hi))
    worst, done = problem.converge(w)
    if exclusive and frames:
        worst, more = solve_exclusive(problem, w, list(exclusive))
        done += more
    residual = np.empty(frames)
    plain = np.asarray(gram, np.float64)
    for lo, hi in problem.spans():
        rows = w[lo:hi]
        fit = np.einsum("fk,fk->f", rows @ plain - 2.0 * problem.rows(lo, hi), rows)
        count = vertices if np.ndim(vertices) == 0 else np.asarray(vertices)[lo:hi]
        fit = np.maximum(fit + energy[lo:hi], 0.0) / np.maximum(count, 1)
        residual[lo:hi] = np.where(problem.lost[lo:hi], np.nan, np.sqrt(fit))
    return Solution(
        w,
        residual,
        worst,
        worst <= settings.tolerance,
        done,
        problem.iterations,
        problem.objective(w) + float(np.nansum(energy)),
    )
