"""Between the rig's 72 channels and the numbers that NVIDIA's heads give.

Everything here is linear in the channels, so a frame of the head is `base + motion @ matrix`:

    conv_w2v_autocorr   PCA coefficients of skin and tongue over the training frames, the jaw's key
                        points, the eyes' angles; each part in units of its largest deviation
    diffusion_rnn       vertices of skin and tongue, key points, angles: (x - centre) / size of the
                        part, size being the neutral's largest coordinate about its centre

PCA needs no frame of vertices: with displacements `w M` of channels w with covariance C = R R^T,
the components are those of R^T M, whose Gram matrix R^T (M M^T) R is 72 by 72. Memory depends on
neither the number of frames nor, beyond the shapes themselves, on that of vertices.

Channels come back as the most probable motion inside the rig's ranges, where the head's numbers are
told with an error of `error` times their RMS deviation and motion is distributed as in training
(normal, with its mean and covariance). So what the geometry tells comes back as it was, and what it
does not tell is what usually goes with the rest; noise in directions that hardly show is not blown
up. A channel without a shape, or one that never moved in training, stays at the training mean.
`undetermined` names what the geometry alone does not tell.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array

from a2fjax import rig
from a2fjax.models.nvidia.frame_layout import FrameLayout
from a2fjax.models.nvidia.geometry.shapes import Part, Shapes

ERROR = 0.1
"""Default error of a head's numbers, as a share of their RMS deviation over the training frames."""

_ALONE = 1e-4  # Share of a channel's variance that no other channel is taken to explain.
_NEW = 1e-4
_RANK = 1e-10
_NOTHING = 1e-12
_STEP = 0.1
_ROUNDS = 1000
TOLERANCE = 1e-4
"""Largest violation of the optimality conditions at which the solver stops, in scaled channels."""


@dataclasses.dataclass(frozen=True)
class Moments:
    """What is known of the motion of a training set.

    Attributes:
      mean: [72].
      covariance: [72, 72].
      actors: [A, 72] each actor's mean.
    """

    mean: np.ndarray
    covariance: np.ndarray
    actors: np.ndarray

    @classmethod
    def unknown(cls, actors: int = 1) -> Moments:
        """Returns moments that say nothing of any data: a tenth of each channel's size."""
        covariance = np.diag((0.1 * rig.SCALE.astype(np.float64)) ** 2)
        zeros = np.zeros(rig.NUM_CHANNELS)
        return cls(zeros, covariance, np.zeros((actors, rig.NUM_CHANNELS)))


def components(part: np.ndarray, moments: Moments, count: int) -> tuple[np.ndarray, np.ndarray]:
    """Returns the map of channels to PCA coefficients, and each component's deviation.

    Args:
      part: [72, N] displacements at weight 1.
      moments: of the training frames.
      count: of components K; those beyond the rank of the frames are 0.

    Returns:
      map [72, K]: the coefficients of motion w are (w - mean) @ map; deviations [K], falling.
    """
    values, vectors = np.linalg.eigh(moments.covariance)
    root = vectors * np.sqrt(np.maximum(values, 0.0))
    gram = part @ part.T
    power, directions = np.linalg.eigh(root.T @ gram @ root)
    power, directions = power[::-1], directions[:, ::-1]
    kept = min(int(np.sum(power > _RANK * max(power[0], 1e-300))), count)
    deviation = np.sqrt(np.maximum(power[:kept], 0.0))
    found = gram @ root @ directions[:, :kept] / np.where(deviation > 0, deviation, 1.0)
    # Components have no sign of their own: the channel that shows most in one moves it up.
    largest = np.argmax(np.abs(found), axis=0)
    found = found * np.where(found[largest, np.arange(kept)] < 0, -1.0, 1.0)
    out = np.zeros((rig.NUM_CHANNELS, count))
    out[:, :kept] = found
    deviations = np.zeros(count)
    deviations[:kept] = deviation
    return out, deviations


def pca_constants(
    shapes: Shapes, moments: Moments, skin: int, tongue: int, error: float = ERROR
) -> dict[str, np.ndarray]:
    """Returns the constants of conv_w2v_autocorr's geometry head, float32 but for "layout".

    "matrix" [72, D] and "base" [D] of frames, "layout" [4] int32 widths of the parts, "inverse" and
    what `solve` reads; "lips" [D] and "lips_rest" [] of the lips' distance where it is known, in
    the unit of the shapes' file.

    Args:
      shapes: of the head.
      moments: of the training frames.
      skin: coefficients.
      tongue: likewise; none where the head has no tongue.
      error: see the module.
    """
    found = []
    sizes = {"skin": skin, "tongue": tongue if shapes.tongue.shapes.any() else 0}
    for name, count in sizes.items():
        if count:
            part = getattr(shapes, name).matrix
            values, deviation = components(part, moments, count)
            scale = max(float(deviation[0]), 1e-9)
            found.append((values / scale, scale))
    for values in (shapes.jaw.matrix, _eyes()):
        variance = np.einsum("cd,ce,ed->d", values, moments.covariance, values)
        scale = float(np.sqrt(variance.max()))
        scale = scale if scale > 0 else 1.0
        found.append((values / scale, scale))
    matrix = np.concatenate([values for values, _ in found], axis=1)
    out = _constants(matrix, -moments.mean @ matrix, moments, error)
    out["layout"] = np.array([*sizes.values(), shapes.jaw.matrix.shape[1], 4], np.int32)
    if shapes.lips is not None:
        # A functional of vertices on the components: through the channels' own distances.
        per_channel, rest = _lips(shapes)
        values, deviation = components(shapes.skin.matrix, moments, skin)
        gram = shapes.skin.matrix @ shapes.skin.matrix.T
        weight = np.zeros(matrix.shape[1])
        # U = M^T a with map = M M^T a, hence l U = (l M^T) a.
        a = np.linalg.lstsq(gram, values, rcond=1e-12)[0]
        weight[:skin] = (per_channel @ a) * found[0][1]
        out["lips"] = weight.astype(np.float32)
        out["lips_rest"] = np.asarray(rest + moments.mean @ per_channel, np.float32)
    return out


def vertex_constants(
    shapes: Shapes, moments: Moments, error: float = ERROR
) -> dict[str, np.ndarray]:
    """Returns the constants of diffusion_rnn's geometry head, as `pca_constants`, and two more.

    "mean_geometry" [A, D] of each actor; "upper" [D] in [0, 1], the share of the upper face's
    channels in what moves a vertex.
    """
    matrices, bases, uppers, widths = [], [], [], []
    skin_size = 1.0
    for name in ("skin", "tongue", "jaw"):
        part: Part = getattr(shapes, name)
        widths.append(part.neutral.size)
        if not part.neutral.size:
            continue
        centred = part.neutral - part.neutral.mean(axis=0)
        size = float(np.abs(centred).max()) or 1.0
        matrices.append(part.matrix / size)
        # Of the jaw there are displacements of key points, of the others positions of vertices.
        bases.append(np.zeros(part.neutral.size) if name == "jaw" else centred.reshape(-1) / size)
        uppers.append(_upper(part) if name == "skin" else np.zeros(part.neutral.size))
        skin_size = size if name == "skin" else skin_size
    matrices.append(_eyes() / rig.SCALE[rig.ANGLE_CHANNELS])
    bases.append(np.zeros(4))
    uppers.append(np.zeros(4))
    matrix, base = np.concatenate(matrices, axis=1), np.concatenate(bases)
    out = _constants(matrix, base, moments, error)
    out["layout"] = np.array([*widths, 4], np.int32)
    out["mean_geometry"] = (base + moments.actors @ matrix).astype(np.float32)
    out["upper"] = np.concatenate(uppers).astype(np.float32)
    if shapes.lips is not None:
        upper, lower = shapes.lips
        weight = np.zeros(len(base))
        np.add.at(weight, 3 * upper + 1, skin_size / len(upper))
        np.add.at(weight, 3 * lower + 1, -skin_size / len(lower))
        out["lips"] = weight.astype(np.float32)
        out["lips_rest"] = np.zeros((), np.float32)
    return out


def frame_layout(constants: Mapping[str, np.ndarray]) -> FrameLayout:
    """Returns the widths of the parts."""
    return FrameLayout(*(int(n) for n in np.asarray(constants["layout"])))


def undetermined(constants: Mapping[str, np.ndarray]) -> dict[str, str]:
    """Returns channel -> why the geometry alone does not tell it."""
    matrix = np.asarray(constants["matrix"], np.float64)
    free = np.asarray(constants["free"]) > 0
    size = np.sqrt(np.einsum("cd,cd->c", matrix, matrix))
    shows = size > _NOTHING**0.5 * size.max()
    gram = np.where(shows[:, None], matrix / np.where(shows, size, 1.0)[:, None], 0.0)
    gram = gram @ gram.T
    out = {}
    for i, name in enumerate(rig.CHANNELS):
        others = np.flatnonzero(free & (np.arange(len(free)) != i))
        if not shows[i]:
            out[name] = "nothing moves with it: training mean"
        elif not free[i]:
            out[name] = "it never moved in training: training mean"
        else:
            row = gram[others, i]
            mixed = np.linalg.lstsq(gram[np.ix_(others, others)], row, rcond=_RANK)[0]
            if gram[i, i] - row @ mixed < _NEW:
                out[name] = "others together look the same: what usually goes with them"
    return out


def head_values(constants: Mapping[str, Array], motion: Array) -> Array:
    """Returns the head's numbers [..., D] of a motion [..., 72]."""
    return constants["base"] + jnp.matmul(
        motion, constants["matrix"], precision=jax.lax.Precision.HIGHEST
    )


def rig_channels(constants: Mapping[str, Array], values: Array) -> Array:
    """Returns the most probable motion [..., 72] of frames [..., D], not bounded, differentiable.

    It is linear: what losses on channels see of a geometry head while it is trained.
    """
    target = _target(constants, values)
    scaled = jnp.matmul(target, constants["inverse"], precision=jax.lax.Precision.HIGHEST)
    return constants["mean"] + scaled * constants["unscale"]


def solve(constants: Mapping[str, Array], values: Array) -> tuple[Array, Array]:
    """Returns the most probable motion [..., 72] inside the rig's ranges of frames [..., D].

    The convex problem min |base + w matrix - frame|^2 / e^2 + (w - mean) C^-1 (w - mean) over the
    rig's box, e being the error of a number and C the covariance of training motion, by the
    alternating direction method of multipliers (Boyd et al. 2011, section 5.2) in channels scaled
    to weight 1, all frames at once with one factorised matrix. A frame is done when it is optimal
    itself: the others change nothing of it.

    Returns:
      motion, and the largest violation of the optimality conditions over frames and channels [],
      |v - clip(v - gradient)| in scaled channels: at most `TOLERANCE` when it converged.
    """
    target = _target(constants, values)
    system, factor = constants["system"], constants["factor"]
    low, high = constants["low"], constants["high"]
    exact = jax.lax.Precision.HIGHEST

    def violation(v: Array) -> Array:
        gradient = jnp.matmul(v, system, precision=exact) - target
        off = jnp.abs(v - jnp.clip(v - gradient, low, high))
        return jnp.max(off, axis=-1, keepdims=True)

    def proceed(state: tuple[Array, Array, Array, Array]) -> Array:
        return (state[2] < _ROUNDS) & jnp.any(state[3] > TOLERANCE)

    def rounds(state: tuple[Array, Array, Array, Array]) -> tuple[Array, Array, Array, Array]:
        v, dual, count, off = state
        going = off > TOLERANCE

        def once(_: int, pair: tuple[Array, Array]) -> tuple[Array, Array]:
            v, dual = pair
            free = jnp.matmul(target + _STEP * (v - dual), factor, precision=exact)
            relaxed = 1.6 * free - 0.6 * v
            after = jnp.clip(relaxed + dual, low, high)
            return jnp.where(going, after, v), jnp.where(going, dual + relaxed - after, dual)

        v, dual = jax.lax.fori_loop(0, 25, once, (v, dual))
        return v, dual, count + 25, violation(v)

    start = jnp.clip(jnp.matmul(target, constants["inverse"], precision=exact), low, high)
    state = (start, jnp.zeros_like(start), jnp.int32(0), violation(start))
    v, _, _, residual = jax.lax.while_loop(proceed, rounds, state)
    motion = constants["mean"] + v * constants["unscale"]
    return jnp.clip(motion, rig.MIN, rig.MAX), jnp.max(residual, initial=0.0)


def _target(constants: Mapping[str, Array], values: Array) -> Array:
    """Returns the right side of the least squares [..., 72], in scaled channels about the mean."""
    exact = jax.lax.Precision.HIGHEST
    difference = values - constants["base"] - constants["mean"] @ constants["matrix"]
    found = jnp.matmul(difference, constants["matrix"].T, precision=exact)
    return found * constants["unscale"]


def _constants(
    matrix: np.ndarray, base: np.ndarray, moments: Moments, error: float
) -> dict[str, np.ndarray]:
    """Returns what `frames`, `channels` and `solve` read; computed in float64."""
    weight = np.einsum("cd,cd->c", matrix, matrix)
    free = (weight > _NOTHING * weight.max()) & (np.diag(moments.covariance) > 0)
    shown = np.einsum("cd,ce,ed->d", matrix, moments.covariance, matrix)
    shown = shown[shown > _RANK * shown.max()]
    variance = error**2 * float(shown.mean())
    covariance = moments.covariance[np.ix_(free, free)]
    covariance = covariance + _ALONE * np.diag(np.diag(covariance))
    precision = np.zeros_like(moments.covariance)
    precision[np.ix_(free, free)] = variance * np.linalg.inv(covariance)
    system = matrix @ matrix.T + precision
    # A channel that nothing tells has unscale 0: whatever is solved for it, it stays at the mean.
    scale = np.sqrt(np.where(free, np.diag(system), 0.0))
    unscale = np.where(scale > 0, 1.0 / np.where(scale > 0, scale, 1.0), 0.0)
    system = system * unscale * unscale[:, None] + np.diag(np.where(free, 0.0, 1.0))
    eye = np.eye(len(scale))
    out = {
        "matrix": matrix,
        "base": base,
        "mean": moments.mean,
        "free": free,
        "unscale": unscale,
        "system": system,
        "inverse": np.linalg.inv(system),
        "factor": np.linalg.inv(system + _STEP * eye),
        "low": np.minimum((rig.MIN - moments.mean) * scale, 0.0),
        "high": np.maximum((rig.MAX - moments.mean) * scale, 0.0),
    }
    return {name: value.astype(np.float32) for name, value in out.items()}


def _eyes() -> np.ndarray:
    return np.eye(rig.NUM_CHANNELS)[:, rig.ANGLE_CHANNELS]


def _lips(shapes: Shapes) -> tuple[np.ndarray, float]:
    """Returns the lips' mean distance in y: [72] a channel's share, and that of the neutral."""
    assert shapes.lips is not None
    upper, lower = shapes.lips
    move = shapes.skin.shapes[..., 1]
    rest = shapes.skin.neutral[:, 1]
    return (move[:, upper] - move[:, lower]).mean(axis=1), float((rest[upper] - rest[lower]).mean())


def _upper(part: Part) -> np.ndarray:
    power = np.sum(part.shapes**2, axis=-1)
    total = power.sum(axis=0)
    share = power[rig.GROUPS["upper_face"]].sum(axis=0) / np.where(total > 0, total, 1.0)
    return np.repeat(share, 3)
