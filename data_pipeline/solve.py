"""From moving vertices to channel weights: box-constrained least squares on a rig's shapes.

For each frame t, with the shapes' displacements D [K, 3M] and the stabilised displacement d_t,

    sum_t |w_t D - d_t|^2 + l2 |w_t|^2 + l1 sum(w_t) + symmetry sum_pairs (w_t,a - w_t,b)^2
          + smoothness |w_t - w_(t-1)|^2        subject to 0 <= w_t <= 1,

all in mm^2. Only D D' [K, K] and D d_t [K] enter, so an iteration costs the same for any number of
vertices. The iteration is FISTA (Beck and Teboulle 2009, SIAM J. Imaging Sci. 2) with per-frame
adaptive restart (O'Donoghue and Candes 2015, Found. Comput. Math. 15) in coordinates scaled to a
unit diagonal, in float32; its result is refined against the gradient in float64 until the
optimality (KKT) residual of the whole sequence, seams between chunks included, is below a bound.
"""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Sequence

import jax
import jax.numpy as jnp
import numpy as np

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
    tolerance: float = 1e-4
    passes: int = 8
    iterations: int = 1500
    chunk: int = 512


@dataclasses.dataclass(frozen=True)
class Solution:
    """Weights of a sequence and how well they fit.

    Attributes:
      weights: [F, K] float64 in [0, 1].
      residual: [F] root mean square over vertices of |w D - d|, mm.
      kkt: largest |w - clip(w - gradient / curvature, 0, 1)| over frames and shapes; 0 at the
        optimum.
      converged: kkt <= tolerance.
      passes: refinements that were needed.
    """

    weights: np.ndarray
    residual: np.ndarray
    kkt: float
    converged: bool
    passes: int


def gram(deltas: np.ndarray) -> np.ndarray:
    """Returns the Gram matrix [K, K] of shapes [K, M, 3] in float64."""
    flat = np.asarray(deltas, np.float64).reshape(len(deltas), -1)
    return flat @ flat.T


def correlate(deltas: np.ndarray, displacement: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Returns (D d [F, K], |d|^2 [F]) in float64 for shapes [K, M, 3] and frames [F, M, 3]."""
    flat = np.asarray(deltas, np.float64).reshape(len(deltas), -1)
    d = np.asarray(displacement, np.float64).reshape(len(displacement), -1)
    return d @ flat.T, np.einsum("fi,fi->f", d, d)


def solve(
    gram: np.ndarray,
    linear: np.ndarray,
    energy: np.ndarray,
    vertices: int,
    settings: SolveSettings,
    *,
    first: Sequence[int] = (0,),
    pairs: Sequence[tuple[int, int]] = (),
) -> Solution:
    """Solves for the weights of a sequence, or of several laid end to end.

    Shapes that do not move (zero on the Gram diagonal) get weight 0.

    Args:
      gram: [K, K] of the shapes, mm^2; see `gram`.
      linear: [F, K] and
      energy: [F] of the frames, mm^2; see `correlate`.
      vertices: how many entered; for the residual.
      settings: see there.
      first: frames at which a new take begins (no smoothness across).
      pairs: indices (left, right) of partners for the symmetry term.

    Returns:
      A `Solution`; look at `converged`.
    """
    frames, shapes = linear.shape
    moves = np.diag(gram) > 1e-9 * max(float(np.diag(gram).max(initial=0.0)), 1e-12)
    h = np.where(np.outer(moves, moves), np.asarray(gram, np.float64), 0.0)
    h += settings.l2 * np.eye(shapes)
    for a, b in pairs:
        if moves[a] and moves[b]:
            h[[a, b], [a, b]] += settings.symmetry
            h[[a, b], [b, a]] -= settings.symmetry
    h[~moves, ~moves] = 1.0
    q = np.where(moves, linear - settings.l1 / 2.0, 0.0)
    link = np.ones(frames + 1)  # link[t] joins frames t - 1 and t
    link[[0, frames, *first]] = 0.0
    tau = settings.smoothness
    curvature = np.diag(h) + 2.0 * tau
    scale = 1.0 / np.sqrt(curvature)
    scaled = scale[:, None] * h * scale[None, :]
    # Gershgorin: the second difference in time has eigenvalues of at most 4.
    step = 1.0 / (np.linalg.eigvalsh(scaled)[-1] + 4.0 * tau * float((scale**2).max()))
    upper = np.where(moves, 1.0, 0.0)

    def gradient(w: np.ndarray) -> np.ndarray:
        difference = np.diff(w, axis=0) * link[1:frames, None]
        g = w @ h - q
        g[1:] += tau * difference
        g[:-1] -= tau * difference
        return g

    def optimality(w: np.ndarray, g: np.ndarray) -> np.ndarray:
        return np.abs(w - np.clip(w - g / curvature, 0.0, upper))

    run = functools.partial(
        _descend,
        jnp.asarray(scaled, jnp.float32),
        jnp.asarray(tau * scale**2, jnp.float32),
        jnp.float32(step),
        jnp.asarray(scale, jnp.float32),
        jnp.float32(0.3 * settings.tolerance),
        jnp.int32(-(-settings.iterations // _INNER)),
    )
    w = np.zeros((frames, shapes))
    g = gradient(w)
    worst = float(optimality(w, g).max(initial=0.0))
    done = 0
    while worst > settings.tolerance and done < settings.passes:
        # Every other pass moves the chunks by half, so that no seam stays one.
        start = -(settings.chunk // 2) if done % 2 else 0
        for begin in range(start, frames, settings.chunk):
            lo, hi = max(begin, 0), min(begin + settings.chunk, frames)
            if optimality(w[lo:hi], g[lo:hi]).max() <= 0.1 * settings.tolerance:
                continue
            pad = ((lo - begin, settings.chunk - (hi - begin)), (0, 0))
            around = np.pad(link[lo : hi + 1], (pad[0][0], pad[0][1]))
            change = run(
                jnp.asarray(np.pad(-g[lo:hi] * scale, pad), jnp.float32),
                jnp.asarray(np.pad(-w[lo:hi] / scale, pad), jnp.float32),
                jnp.asarray(np.pad((upper - w[lo:hi]) / scale, pad), jnp.float32),
                jnp.asarray(around, jnp.float32),
            )
            rows = np.asarray(change, np.float64)[lo - begin : hi - begin]
            w[lo:hi] = np.clip(w[lo:hi] + rows * scale, 0.0, upper)
        g = gradient(w)
        worst = float(optimality(w, g).max(initial=0.0))
        done += 1
    plain = np.einsum("fk,fk->f", w @ np.asarray(gram, np.float64) - 2.0 * linear, w) + energy
    residual = np.sqrt(np.maximum(plain, 0.0) / vertices)
    return Solution(w, residual, worst, worst <= settings.tolerance, done)


@jax.jit
def _descend(h, tau, step, scale, tolerance, blocks, q, lower, upper, link):
    """Minimises z h z'/2 - q z + tau/2 sum of link |z_t - z_(t-1)|^2 over lower <= z <= upper.

    Arrays are [C, K] in scaled coordinates; frames outside the chunk stand still at 0, and
    link [C + 1] joins a frame with the one before it.
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
    return state[2][0]
