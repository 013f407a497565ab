"""From moving vertices to channel weights: box-constrained least squares on a rig's shapes.

For each frame t, with the shapes' displacements D [K, 3M] and the stabilised displacement d_t,

    sum_t |w_t D - d_t|^2 + l2 |w_t|^2 + l1 sum(w_t) + symmetry sum_pairs (w_t,a - w_t,b)^2
          + smoothness |w_t - w_(t-1)|^2        subject to 0 <= w_t <= 1,

all in mm^2. Only D D' [K, K] and D d_t [K] enter (`reduce`), so an iteration costs the same for any
number of vertices. The iteration is FISTA (Beck and Teboulle 2009, SIAM J. Imaging Sci. 2) with
per-frame adaptive restart (O'Donoghue and Candes 2015, Found. Comput. Math. 15) in coordinates
scaled to a unit diagonal, in float32, on spans of a fixed number of frames; its result is refined
against the gradient in float64 until the optimality (KKT) residual of the whole sequence, seams
between spans included, is below a bound. Beside the sequence itself and its weights, memory is that
of one span.

Shapes that are opposite directions of one motion can be kept from being above zero together; see
`exclusive`.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator, Sequence

import jax
import jax.numpy as jnp
import numpy as np

from data_pipeline.solver.exclusive import EXCLUSIVE_PAIRS, solve_exclusive

__all__ = [
    "EXCLUSIVE_PAIRS",
    "Solution",
    "SolveSettings",
    "correlate",
    "gram",
    "solve",
]

_INNER = 25  # iterations between two looks at the residual: a look costs about one iteration


@dataclasses.dataclass(frozen=True, kw_only=True)
class SolveSettings:
    """How a sequence is solved; strengths in mm^2 (see the module's formula).

    Attributes:
      l2: ridge; the variance of the scanner's noise over that of a weight is its natural size.
      l1: linear on the weights; keeps shapes that are not needed at zero.
      smoothness: of neighbouring frames; symmetric in time, so it does not delay.
      symmetry: of left and right partners.
      tolerance: largest optimality residual, in weight units.
      passes: most refinements; a sequence that needs more is reported as not converged.
      iterations: most iterations a pass.
      chunk: frames solved together; a fixed size, so that everything compiles once.
    """

    l2: float = 0.05
    l1: float = 0.2
    smoothness: float = 1.0
    symmetry: float = 0.0
    tolerance: float = 1e-5
    passes: int = 8
    iterations: int = 1500
    chunk: int = 512


@dataclasses.dataclass(frozen=True)
class Solution:
    """Weights of a sequence and how well they fit.

    Attributes:
      weights: [F, K] float64 in [0, 1].
      residual: [F] root mean square over vertices of |w D - d|, mm; NaN in lost frames.
      kkt: largest |w - clip(w - gradient / curvature, 0, upper)| over frames and shapes; 0 at the
        optimum. `upper` is 1, or 0 for the shape of an exclusive pair that is held.
      converged: kkt <= tolerance.
      passes: refinements that were needed, of the free and of the exclusive problem together.
      iterations: of the descent, over all passes and spans.
      objective: the module's formula at the weights, mm^2 (lost frames as they were filled).
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

    Every vertex is trusted; `reduce.Reducer` is for captures with gaps and outliers.
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
    """Solves for the weights of a sequence, or of several laid end to end.

    Shapes that do not move (zero on the Gram diagonal) get weight 0. Frames that were lost (NaN in
    `linear`) are taken to move straight from the last frame seen to the next of the same take; a
    take without any frame gets weight 0.

    Args:
      gram: [K, K] of the shapes, mm^2; see `gram`.
      linear: [F, K] and
      energy: [F] of the frames, mm^2; see `correlate` and `reduce.Reducer`. They are read a span at
        a time and may be memory maps.
      vertices: how many entered, of all frames or of each [F]; for the residual.
      settings: see there.
      first: frames at which a new take begins (no smoothness across).
      pairs: indices (left, right) of partners for the symmetry term.
      exclusive: indices of shapes of which at most one is above zero in a frame. The result is
        optimal for the shapes that it holds at zero; which ones it holds is a local optimum.
      start: [F, K] weights to begin from, None for an estimate without bounds and smoothness; what
        is reached is the same, only sooner.

    Returns:
      A `Solution`; look at `converged`.
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


class Problem:
    """min sum_t w h w' - 2 q w + smoothness |w_t - w_(t-1)|^2 over 0 <= w <= upper, by spans.

    `held` [F, P] says for each exclusive pair which one is kept at zero: 0 the first, 1 the second.
    """

    def __init__(
        self,
        gram: np.ndarray,
        linear: np.ndarray,
        settings: SolveSettings,
        first: Sequence[int],
        pairs: Sequence[tuple[int, int]],
    ):
        """Takes the arguments of `solve`."""
        frames, shapes = linear.shape
        self.linear, self.settings = linear, settings
        diagonal = np.diag(gram)
        self.moves = diagonal > 1e-9 * max(float(diagonal.max(initial=0.0)), 1e-12)
        h = np.where(np.outer(self.moves, self.moves), np.asarray(gram, np.float64), 0.0)
        h += settings.l2 * np.eye(shapes)
        for a, b in pairs:
            if self.moves[a] and self.moves[b]:
                h[[a, b], [a, b]] += settings.symmetry
                h[[a, b], [b, a]] -= settings.symmetry
        h[~self.moves, ~self.moves] = 1.0
        self.h = h
        self.link = np.ones(frames + 1)  # link[t] joins frames t - 1 and t
        self.link[[0, frames, *first]] = 0.0
        self.tau = settings.smoothness
        self.curvature = np.diag(h) + 2.0 * self.tau
        self.scale = 1.0 / np.sqrt(self.curvature)
        scaled = self.scale[:, None] * h * self.scale[None, :]
        # Gershgorin: the second difference in time has eigenvalues of at most 4.
        most = np.linalg.eigvalsh(scaled)[-1] + 4.0 * self.tau * float((self.scale**2).max())
        self._fixed = (
            jnp.asarray(scaled, jnp.float32),
            jnp.asarray(self.tau * self.scale**2, jnp.float32),
            jnp.float32(1.0 / most),
            jnp.asarray(self.scale, jnp.float32),
            jnp.float32(0.3 * settings.tolerance),
            jnp.int32(-(-settings.iterations // _INNER)),
        )
        self.iterations = 0
        self.exclusive: list[tuple[int, int]] = []
        self.held = np.zeros((frames, 0), np.int8)
        self.lost = np.zeros(frames, bool)
        for lo, hi in self.spans():
            self.lost[lo:hi] = ~np.isfinite(linear[lo:hi]).all(axis=1)
        if self.lost.any():
            self._seen = _neighbours(self.lost, self.link)

    def spans(self, begin: int = 0) -> Iterator[tuple[int, int]]:
        """Yields (lo, hi) of chunks that cover the frames, the first of them at `begin` <= 0."""
        for lo in range(begin, len(self.linear), self.settings.chunk):
            yield max(lo, 0), min(lo + self.settings.chunk, len(self.linear))

    def rows(self, lo: int, hi: int) -> np.ndarray:
        """Returns D d of frames lo..hi, lost ones filled."""
        rows = np.array(self.linear[lo:hi], np.float64)
        gone = lo + np.flatnonzero(self.lost[lo:hi])
        if len(gone):
            before, after = self._seen[0][gone], self._seen[1][gone]
            share = ((gone - before) / np.maximum(after - before, 1))[:, None]
            filled = (1.0 - share) * self.linear[before] + share * self.linear[after]
            rows[gone - lo] = np.where((before >= 0)[:, None], filled, 0.0)
        return rows

    def target(self, lo: int, hi: int) -> np.ndarray:
        """Returns q of frames lo..hi."""
        return np.where(self.moves, self.rows(lo, hi) - self.settings.l1 / 2.0, 0.0)

    def guess(self, lo: int, hi: int) -> np.ndarray:
        """Returns the minimum without bounds and smoothness."""
        return np.linalg.lstsq(self.h, self.target(lo, hi).T, rcond=1e-6)[0].T

    def upper(self, lo: int, hi: int) -> np.ndarray:
        """Returns the upper bounds of frames lo..hi."""
        upper = np.tile(self.moves.astype(np.float64), (hi - lo, 1))
        for p, pair in enumerate(self.exclusive):
            for side in (0, 1):
                upper[self.held[lo:hi, p] == side, pair[side]] = 0.0
        return upper

    def gradient(
        self, w: np.ndarray, lo: int, hi: int, rows: np.ndarray | None = None
    ) -> np.ndarray:
        """Returns half the gradient at frames lo..hi, those around them as in `w`."""
        rows = w[lo:hi] if rows is None else rows
        steps = self._steps(w, lo, hi, rows) * self.link[lo : hi + 1, None]
        return rows @ self.h - self.target(lo, hi) + self.tau * (steps[:-1] - steps[1:])

    def _steps(self, w: np.ndarray, lo: int, hi: int, rows: np.ndarray) -> np.ndarray:
        around = (w[max(lo - 1, 0)][None], rows, w[min(hi, len(w) - 1)][None])
        return np.diff(np.concatenate(around), axis=0)

    def costs(
        self, w: np.ndarray, lo: int, hi: int, rows: np.ndarray | None = None
    ) -> tuple[np.ndarray, np.ndarray]:
        """Returns the objective of frames [n] and of the links before each and after [n + 1]."""
        rows = w[lo:hi] if rows is None else rows
        own = np.einsum("fk,fk->f", rows @ self.h - 2.0 * self.target(lo, hi), rows)
        steps = self._steps(w, lo, hi, rows)
        return own, self.tau * self.link[lo : hi + 1] * np.einsum("fk,fk->f", steps, steps)

    def objective(self, w: np.ndarray) -> float:
        """Returns the objective without the constant |d|^2."""
        total = 0.0
        for lo, hi in self.spans():
            own, steps = self.costs(w, lo, hi)
            total += float(own.sum() + steps[:-1].sum())
        return total

    def optimality(self, rows: np.ndarray, gradient: np.ndarray, upper: np.ndarray) -> np.ndarray:
        """Returns the distance [n, K] to one diagonally scaled projected step."""
        return np.abs(rows - np.clip(rows - gradient / self.curvature, 0.0, upper))

    def descend(
        self, rows: np.ndarray, gradient: np.ndarray, upper: np.ndarray, lo: int, before: int = 0
    ) -> np.ndarray:
        """Returns better rows [n, K] for frames lo.., the frames around them standing still.

        Args:
          rows: [n, K] where it starts; n + before at most a chunk.
          gradient: [n, K] there.
          upper: [n, K].
          lo: the first frame.
          before: empty frames in front.
        """
        hi = lo + len(rows)
        pad = ((before, self.settings.chunk - before - len(rows)), (0, 0))
        link = np.pad(self.link[lo : hi + 1], pad[0])
        change, blocks = _descend(
            *self._fixed,
            jnp.asarray(np.pad(-gradient * self.scale, pad), jnp.float32),
            jnp.asarray(np.pad(-rows / self.scale, pad), jnp.float32),
            jnp.asarray(np.pad((upper - rows) / self.scale, pad), jnp.float32),
            jnp.asarray(link, jnp.float32),
        )
        self.iterations += _INNER * int(blocks)
        step = np.asarray(change, np.float64)[before : before + len(rows)] * self.scale
        return np.clip(rows + step, 0.0, upper)

    def worst(self, w: np.ndarray) -> float:
        """Returns the largest optimality residual of the sequence."""
        return max(
            (
                float(self.optimality(w[a:b], self.gradient(w, a, b), self.upper(a, b)).max())
                for a, b in self.spans()
            ),
            default=0.0,
        )

    def converge(self, w: np.ndarray) -> tuple[float, int]:
        """Descends in place until the residual is below tolerance; returns it and the passes."""
        chunk, tolerance = self.settings.chunk, self.settings.tolerance
        worst, done = self.worst(w), 0
        while worst > tolerance and done < self.settings.passes:
            # Every other pass moves the spans by half, so that no seam stays one.
            begin = -(chunk // 2) if done % 2 else 0
            for lo, hi in self.spans(begin):
                upper, gradient = self.upper(lo, hi), self.gradient(w, lo, hi)
                if self.optimality(w[lo:hi], gradient, upper).max() > 0.1 * tolerance:
                    before = -begin if lo == 0 else 0
                    w[lo:hi] = self.descend(w[lo:hi], gradient, upper, lo, before)
            worst = self.worst(w)
            done += 1
        return worst, done


def _neighbours(lost: np.ndarray, link: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Returns the frames [F] seen last and next of each take; one of them where there is no other.

    Both are -1 in a take of which nothing was seen.
    """
    before, after = np.full(len(lost), -1), np.full(len(lost), -1)
    cuts = np.append(np.flatnonzero(link[:-1] == 0.0), len(lost))
    for a, b in zip(cuts[:-1], cuts[1:], strict=True):
        seen = a + np.flatnonzero(~lost[a:b])
        if len(seen):
            place = np.searchsorted(seen, np.arange(a, b), side="right")
            before[a:b] = seen[np.maximum(place - 1, 0)]
            after[a:b] = seen[np.minimum(place, len(seen) - 1)]
    return before, after


@jax.jit
def _descend(h, tau, step, scale, tolerance, blocks, q, lower, upper, link):
    """Minimises z h z'/2 - q z + tau/2 sum of link |z_t - z_(t-1)|^2 over lower <= z <= upper.

    Arrays are [C, K] in scaled coordinates; frames outside the chunk stand still at 0, and
    link [C + 1] joins a frame with the one before it. Returns z and the blocks it took.
    """
    before, after = link[:-1, None], link[1:, None]

    def gradient(z):
        padded = jnp.pad(z, ((1, 1), (0, 0)))
        return z @ h - q + tau * (before * (z - padded[:-2]) + after * (z - padded[2:]))

    def iteration(_, state):
        z, y, momentum = state
        g = gradient(y)
        new = jnp.clip(y - step * g, lower, upper)
        # The momentum of a frame is dropped when it points uphill.
        restart = jnp.sum((y - new) * (new - z), axis=1, keepdims=True) > 0
        momentum = jnp.where(restart, 1.0, momentum)
        following = (1.0 + jnp.sqrt(1.0 + 4.0 * momentum**2)) / 2.0
        y = new + (momentum - 1.0) / following * (new - z)
        return new, y, following

    def block(state):
        n, _, inner = state
        inner = jax.lax.fori_loop(0, _INNER, iteration, inner)
        z = inner[0]
        residual = jnp.abs(z - jnp.clip(z - gradient(z), lower, upper)) * scale
        return n + 1, residual.max(), inner

    z = jnp.zeros_like(q)
    state = (jnp.int32(0), jnp.float32(jnp.inf), (z, z, jnp.ones((len(q), 1), q.dtype)))
    state = jax.lax.while_loop(lambda s: (s[0] < blocks) & (s[1] > tolerance), block, state)
    return state[2][0], state[0]
