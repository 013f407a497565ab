"""NVIDIA's blendshape solve, frame after frame: to compare with, and to reproduce its curves.

Audio2Face-3D turns moving vertices into weights one frame at a time, from its own previous weights
w' (its solver for Omniverse; strengths as in its `bs_skin_config.json`):

    A = D D' + 0.25 L1^2 s 11' + (10 L2 + 100 temporal) s I + 10 symmetry s S'S
    b = D d + 100 temporal s w'
    w = argmin |A w - b|^2,  0 <= w <= 1;  the smaller of each cancelling pair is held at zero and
        the frame solved again,

S having a row (1, -1) for each left and right partner, and s = (diagonal of the neutral's bounding
box / templateBBSize)^2, which carries the unit of D squared. It differs from least squares on the
vertices: |A w - b| weighs the normal equations' residuals, which is another minimum as soon as a
bound is active; its smoothing only looks back, so it delays; and its L1 is the square of the sum.
`solve` has none of the three and takes all frames at once; use this one for parity only.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence

import numpy as np

from data_pipeline.solver.solve import Solution, SolveSettings


@dataclasses.dataclass(frozen=True, kw_only=True)
class NvidiaStrengths:
    """The five strengths of a `bs_skin_config.json`; the defaults are those of the model Claire.

    Attributes:
      l1: strengthL1regularization.
      l2: strengthL2regularization.
      temporal: strengthTemporalSmoothing.
      symmetry: strengthSymmetry.
      template_size: templateBBSize, cm.
      temporal_target: factor of `temporal` in b. It is 100, as in A, in NVIDIA's Python solver; at
        least one port of the C++ one has 1, which pulls weights to zero.
    """

    l1: float = 0.1
    l2: float = 0.1
    temporal: float = 0.15
    symmetry: float = 100.0
    template_size: float = 45.94
    temporal_target: float = 100.0

    def scale(self, neutral: np.ndarray) -> float:
        """Returns s for a neutral mesh [V, 3], in the square of its unit over cm."""
        diagonal = np.linalg.norm(np.ptp(np.asarray(neutral, np.float64), axis=0))
        return float((diagonal / self.template_size) ** 2)

    def matrix(self, gram: np.ndarray, scale: float, pairs: Sequence[tuple[int, int]]):
        """Returns A [K, K] for a Gram matrix and `scale(neutral)`."""
        count = len(gram)
        a = np.asarray(gram, np.float64) + 0.25 * self.l1**2 * scale
        a += (10.0 * self.l2 + 100.0 * self.temporal) * scale * np.eye(count)
        for i, j in pairs:
            a[[i, j], [i, j]] += 10.0 * self.symmetry * scale
            a[[i, j], [j, i]] -= 10.0 * self.symmetry * scale
        return a

    def settings(self, scale: float, *, total: float = 2.0) -> SolveSettings:
        """Returns the strengths of `solve` that weigh the same terms the same.

        Ridge, symmetry and smoothness are those terms exactly, smoothness towards both neighbours.
        The square of the sum has the slope of a linear L1 where weights sum to `total`.

        Args:
          scale: of the neutral, see `scale`; of the mesh in mm, as `solve` takes mm^2.
          total: a typical sum of a frame's weights.
        """
        return SolveSettings(
            l2=10.0 * self.l2 * scale,
            l1=0.5 * self.l1**2 * scale * total,
            smoothness=100.0 * self.temporal * scale,
            symmetry=10.0 * self.symmetry * scale,
        )


def solve_framewise(
    gram: np.ndarray,
    linear: np.ndarray,
    energy: np.ndarray,
    vertices: int,
    strengths: NvidiaStrengths,
    scale: float,
    *,
    first: Sequence[int] = (0,),
    pairs: Sequence[tuple[int, int]] = (),
    exclusive: Sequence[tuple[int, int]] = (),
) -> Solution:
    """Solves NVIDIA's objective exactly, each frame from the one before.

    Args:
      gram: [K, K] of the shapes.
      linear: [F, K] and
      energy: [F] of the frames, see `solve.correlate`.
      vertices: how many entered; for the residual.
      strengths: see there.
      scale: `strengths.scale(neutral)`, of the neutral in the unit of the shapes.
      first: frames at which a new take begins; it starts from weights of zero.
      pairs: left and right partners.
      exclusive: cancelling pairs; of equals, the second is held.

    Returns:
      A `Solution`; `kkt` is the largest |w - clip(w - gradient / curvature)| of |A w - b|^2.
    """
    frames, shapes = linear.shape
    a = strengths.matrix(gram, scale, pairs)
    memory = strengths.temporal_target * strengths.temporal * scale
    curvature = np.einsum("ij,ij->j", a, a)
    curvature = np.maximum(curvature, 1e-12 * curvature.max(initial=0.0))
    begins = set(first) | {0}
    w = np.zeros((frames, shapes))
    worst, steps, total = 0.0, 0, 0.0
    for t in range(frames):
        previous = np.zeros(shapes) if t in begins else w[t - 1]
        b = linear[t] + memory * previous
        upper = np.ones(shapes)
        w[t], count = bounded_least_squares(a, b, upper, previous)
        if exclusive:
            for i, j in exclusive:
                upper[j if w[t, i] >= w[t, j] else i] = 0.0
            w[t], more = bounded_least_squares(a, b, upper, w[t])
            count += more
        fit = a @ w[t] - b
        step = np.clip(w[t] - a.T @ fit / curvature, 0.0, upper)
        worst = max(worst, float(np.abs(w[t] - step).max(initial=0.0)))
        total += float(fit @ fit)
        steps += count
    plain = np.einsum("fk,fk->f", w @ np.asarray(gram, np.float64) - 2.0 * linear, w) + energy
    residual = np.sqrt(np.maximum(plain, 0.0) / vertices)
    return Solution(w, residual, worst, worst <= 1e-6, 1, steps, total)


def bounded_least_squares(
    a: np.ndarray, b: np.ndarray, upper: np.ndarray, start: np.ndarray
) -> tuple[np.ndarray, int]:
    """Returns (argmin |a x - b|^2 over 0 <= x <= upper, steps), by active sets.

    The free unknowns are solved for and as far followed as the bounds allow; at their minimum, the
    bound whose gradient points furthest inside is given up (Stark and Parker 1995, Computational
    Statistics 10). Exact up to rounding, in a finite number of steps.

    Args:
      a: [N, K].
      b: [N].
      upper: [K], at least 0.
      start: [K] that tells which unknowns are free at first; it is clipped.
    """
    x = np.clip(start, 0.0, upper)
    free = (x > 0.0) & (x < upper)
    tolerance = 1e-12 * np.linalg.norm(a, axis=0) * max(float(np.linalg.norm(b)), 1e-300)
    refused = np.zeros(len(x), bool)  # gave up its bound and was sent straight back by rounding
    freed = -1
    for step in range(20 * len(x) + 20):
        while free.any():
            target = np.linalg.lstsq(a[:, free], b - a[:, ~free] @ x[~free], rcond=None)[0]
            low, high = target <= 0.0, target >= upper[free]
            if not (low | high).any():
                x[free] = target
                break
            now = x[free]
            edge = np.where(low, 0.0, upper[free])
            out = low | high
            ratio = np.full(len(now), np.inf)
            ratio[out] = np.abs(edge - now)[out] / np.maximum(np.abs(target - now)[out], 1e-300)
            share = min(float(ratio.min()), 1.0)
            moved = now + share * (target - now)
            hit = out & (ratio <= share)
            moved[hit] = edge[hit]
            x[free] = np.clip(moved, 0.0, upper[free])
            indices = np.flatnonzero(free)
            if share == 0.0 and freed in indices[hit]:
                refused[freed] = True
            elif share > 0.0:
                refused[:] = False
            free[indices[hit]] = False
        inward = a.T @ (b - a @ x)
        inward = np.where(free | refused, 0.0, np.where(x <= 0.0, inward, -inward))
        inward[upper <= 0.0] = 0.0
        if not (inward > tolerance).any():
            return x, step + 1
        freed = int(np.argmax(np.where(inward > tolerance, inward, -np.inf)))
        free[freed] = True
    return x, step + 1
