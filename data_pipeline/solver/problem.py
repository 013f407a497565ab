"""The box-constrained problem for a sequence of frames (`solve`), and descent on its spans."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator, Sequence

import jax
import jax.numpy as jnp
import numpy as np

_INNER = 25  # iterations between two checks of the residual: a check costs about one iteration


@dataclasses.dataclass(frozen=True, kw_only=True)
class SolveSettings:
    """Settings of the solver; term weights in mm^2, see the formula in `solve`.

    Attributes:
      l2: ridge; its natural value is the scanner's noise variance over a weight's variance.
      l1: linear in the weights; keeps unneeded shapes at zero.
      smoothness: smoothness of neighbouring frames; symmetric in time, so it adds no delay.
      symmetry: symmetry of left and right partners.
      tolerance: largest optimality residual, in weight units.
      passes: maximum number of refinements; a sequence that needs more is not converged.
      iterations: maximum number of iterations per pass.
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


class Problem:
    """Minimises sum_t w h w' - 2 q w + smoothness |w_t - w_(t-1)|^2 over 0 <= w <= upper, by spans.

    `held` [F, P] is the shape of each exclusive pair that is fixed at zero: 0 first, 1 second.
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
            self._neighbours = _neighbours(self.lost, self.link)

    def spans(self, begin: int = 0) -> Iterator[tuple[int, int]]:
        """Yields (lo, hi) of chunks that cover the frames, the first of them at `begin` <= 0."""
        for lo in range(begin, len(self.linear), self.settings.chunk):
            yield max(lo, 0), min(lo + self.settings.chunk, len(self.linear))

    def rows(self, lo: int, hi: int) -> np.ndarray:
        """Returns D d of frames lo..hi, with lost frames filled in."""
        rows = np.array(self.linear[lo:hi], np.float64)
        lost = lo + np.flatnonzero(self.lost[lo:hi])
        if len(lost):
            before, after = self._neighbours[0][lost], self._neighbours[1][lost]
            share = ((lost - before) / np.maximum(after - before, 1))[:, None]
            filled = (1.0 - share) * self.linear[before] + share * self.linear[after]
            rows[lost - lo] = np.where((before >= 0)[:, None], filled, 0.0)
        return rows

    def target(self, lo: int, hi: int) -> np.ndarray:
        """Returns q of frames lo..hi."""
        return np.where(self.moves, self.rows(lo, hi) - self.settings.l1 / 2.0, 0.0)

    def guess(self, lo: int, hi: int) -> np.ndarray:
        """Returns the solution without bounds and smoothness."""
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
        """Returns half the gradient at frames lo..hi; the surrounding frames are those of `w`."""
        rows = w[lo:hi] if rows is None else rows
        steps = self._steps(w, lo, hi, rows) * self.link[lo : hi + 1, None]
        return rows @ self.h - self.target(lo, hi) + self.tau * (steps[:-1] - steps[1:])

    def _steps(self, w: np.ndarray, lo: int, hi: int, rows: np.ndarray) -> np.ndarray:
        around = (w[max(lo - 1, 0)][None], rows, w[min(hi, len(w) - 1)][None])
        return np.diff(np.concatenate(around), axis=0)

    def costs(
        self, w: np.ndarray, lo: int, hi: int, rows: np.ndarray | None = None
    ) -> tuple[np.ndarray, np.ndarray]:
        """Returns the objective of frames [n] and of the links before and after them [n + 1]."""
        rows = w[lo:hi] if rows is None else rows
        frames = np.einsum("fk,fk->f", rows @ self.h - 2.0 * self.target(lo, hi), rows)
        steps = self._steps(w, lo, hi, rows)
        return frames, self.tau * self.link[lo : hi + 1] * np.einsum("fk,fk->f", steps, steps)

    def objective(self, w: np.ndarray) -> float:
        """Returns the objective without the constant |d|^2."""
        total = 0.0
        for lo, hi in self.spans():
            frames, steps = self.costs(w, lo, hi)
            total += float(frames.sum() + steps[:-1].sum())
        return total

    def optimality(self, rows: np.ndarray, gradient: np.ndarray, upper: np.ndarray) -> np.ndarray:
        """Returns the distance [n, K] to one diagonally scaled projected step."""
        return np.abs(rows - np.clip(rows - gradient / self.curvature, 0.0, upper))

    def descend(
        self, rows: np.ndarray, gradient: np.ndarray, upper: np.ndarray, lo: int, before: int = 0
    ) -> np.ndarray:
        """Returns better rows [n, K] for frames lo.., with the frames around them fixed.

        Args:
          rows: [n, K] start; n + before is at most a chunk.
          gradient: [n, K] at the start.
          upper: [n, K] bounds.
          lo: the first frame.
          before: empty frames of padding in front.
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
            # Every other pass shifts the spans by half, so that no boundary stays in place.
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
    """Returns the last and the next valid frame of each frame [F], within its take.

    Where only one exists both are that one; both are -1 in a take without a valid frame.
    """
    before, after = np.full(len(lost), -1), np.full(len(lost), -1)
    cuts = np.append(np.flatnonzero(link[:-1] == 0.0), len(lost))
    for a, b in zip(cuts[:-1], cuts[1:], strict=True):
        valid = a + np.flatnonzero(~lost[a:b])
        if len(valid):
            index = np.searchsorted(valid, np.arange(a, b), side="right")
            before[a:b] = valid[np.maximum(index - 1, 0)]
            after[a:b] = valid[np.minimum(index, len(valid) - 1)]
    return before, after


@jax.jit
def _descend(h, tau, step, scale, tolerance, blocks, q, lower, upper, link):
    """Minimises z h z'/2 - q z + tau/2 sum of link |z_t - z_(t-1)|^2 over lower <= z <= upper.

    Arrays are [C, K] in scaled coordinates; frames outside the chunk are fixed at 0, and
    link [C + 1] joins a frame with the one before it. Returns z and the number of blocks.
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
