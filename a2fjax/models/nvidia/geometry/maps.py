"""Linear maps from the rig's 72 channels to the outputs of NVIDIA's heads.

A frame of the head is `base + motion @ matrix`:

    conv_w2v_autocorr   PCA coefficients of skin and tongue over the training frames, the jaw's key
                        points, the eyes' angles; each part in units of its largest deviation
    diffusion_rnn       vertices of skin and tongue, key points, angles: (x - centre) / size of the
                        part, size being the neutral's largest coordinate about its centre

PCA does not require vertex frames: with displacements `w M` of channels w with covariance C = R
R^T, the components are those of R^T M, whose Gram matrix R^T (M M^T) R is 72 by 72. Memory is
independent of the number of frames and, apart from the shapes themselves, of the number of
vertices.

`solver` computes the inverse. `undetermined` lists the channels that the geometry alone does not
determine.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping

import numpy as np

from a2fjax import rig
from a2fjax.models.nvidia.frame_layout import FrameLayout
from a2fjax.models.nvidia.geometry.shapes import Part, Shapes

ERROR = 0.1
"""Default error of a head's values relative to their RMS deviation over training frames."""

STEP = 0.1
"""ADMM step parameter of the solver, with which `_constants` factorises the system."""

_ALONE = 1e-4  # Share of a channel's variance assumed to be independent of all other channels.
_NEW = 1e-4
_RANK = 1e-10
_NOTHING = 1e-12


@dataclasses.dataclass(frozen=True)
class Moments:
    """Moments of the motion of a training set.

    Attributes:
      mean: [72] mean.
      covariance: [72, 72] covariance.
      actors: [A, 72] mean of each actor.
    """

    mean: np.ndarray
    covariance: np.ndarray
    actors: np.ndarray

    @classmethod
    def unknown(cls, actors: int = 1) -> Moments:
        """Returns data-independent moments, with deviations of a tenth of each channel's size."""
        covariance = np.diag((0.1 * rig.SCALE.astype(np.float64)) ** 2)
        zeros = np.zeros(rig.NUM_CHANNELS)
        return cls(zeros, covariance, np.zeros((actors, rig.NUM_CHANNELS)))


def components(part: np.ndarray, moments: Moments, count: int) -> tuple[np.ndarray, np.ndarray]:
    """Returns the map from channels to PCA coefficients and each component's deviation.

    Args:
      part: [72, N] displacements at weight 1.
      moments: moments of the training frames.
      count: number of components K; those beyond the rank of the frames are 0.

    Returns:
      map [72, K]: the coefficients of motion w are (w - mean) @ map; deviations [K] in descending
      order.
    """
    values, vectors = np.linalg.eigh(moments.covariance)
    root = vectors * np.sqrt(np.maximum(values, 0.0))
    gram = part @ part.T
    power, directions = np.linalg.eigh(root.T @ gram @ root)
    power, directions = power[::-1], directions[:, ::-1]
    rank = min(int(np.sum(power > _RANK * max(power[0], 1e-300))), count)
    deviation = np.sqrt(np.maximum(power[:rank], 0.0))
    coefficients = gram @ root @ directions[:, :rank] / np.where(deviation > 0, deviation, 1.0)
    # The sign of a component is arbitrary; make the coefficient of its largest channel positive.
    largest = np.argmax(np.abs(coefficients), axis=0)
    signs = np.where(coefficients[largest, np.arange(rank)] < 0, -1.0, 1.0)
    out = np.zeros((rig.NUM_CHANNELS, count))
    out[:, :rank] = coefficients * signs
    deviations = np.zeros(count)
    deviations[:rank] = deviation
    return out, deviations


def pca_constants(
    shapes: Shapes, moments: Moments, skin: int, tongue: int, error: float = ERROR
) -> dict[str, np.ndarray]:
    """Returns the constants of conv_w2v_autocorr's geometry head, float32 except for "layout".

    "matrix" [72, D] and "base" [D] of frames, "layout" [4] int32 widths of the parts, "inverse" and
    the other constants of `solver`; "lips" [D] and "lips_rest" [] for the distance of the lips if
    known, in the units of the shapes file.

    Args:
      shapes: shapes of the head.
      moments: moments of the training frames.
      skin: number of skin coefficients.
      tongue: number of tongue coefficients; ignored if the head has no tongue.
      error: relative error of the head's values; see `solver`.
    """
    scaled = []
    sizes = {"skin": skin, "tongue": tongue if shapes.tongue.shapes.any() else 0}
    for name, count in sizes.items():
        if count:
            part = getattr(shapes, name).matrix
            values, deviation = components(part, moments, count)
            scale = max(float(deviation[0]), 1e-9)
            scaled.append((values / scale, scale))
    for values in (shapes.jaw.matrix, _eyes()):
        variance = np.einsum("cd,ce,ed->d", values, moments.covariance, values)
        scale = float(np.sqrt(variance.max()))
        scale = scale if scale > 0 else 1.0
        scaled.append((values / scale, scale))
    matrix = np.concatenate([values for values, _ in scaled], axis=1)
    out = _constants(matrix, -moments.mean @ matrix, moments, error)
    out["layout"] = np.array([*sizes.values(), shapes.jaw.matrix.shape[1], 4], np.int32)
    if shapes.lips is not None:
        # Express a functional of vertices in components through the distances of the channels.
        per_channel, rest = _lips(shapes)
        values, deviation = components(shapes.skin.matrix, moments, skin)
        gram = shapes.skin.matrix @ shapes.skin.matrix.T
        weight = np.zeros(matrix.shape[1])
        # U = M^T a with map = M M^T a, hence l U = (l M^T) a.
        a = np.linalg.lstsq(gram, values, rcond=1e-12)[0]
        weight[:skin] = (per_channel @ a) * scaled[0][1]
        out["lips"] = weight.astype(np.float32)
        out["lips_rest"] = np.asarray(rest + moments.mean @ per_channel, np.float32)
    return out


def vertex_constants(
    shapes: Shapes, moments: Moments, error: float = ERROR
) -> dict[str, np.ndarray]:
    """Returns the constants of diffusion_rnn's geometry head: as `pca_constants`, plus two.

    They are "mean_geometry" [A, D] of each actor and "upper" [D] in [0, 1], the share of the upper
    face's channels in a vertex's movement.
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
        # The jaw has key point displacements, the other parts have vertex positions.
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
    """Returns the layout with the widths of the parts."""
    return FrameLayout(*(int(n) for n in np.asarray(constants["layout"])))


def undetermined(constants: Mapping[str, np.ndarray]) -> dict[str, str]:
    """Returns the channels that the geometry alone does not determine, with the reason for each."""
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


def _constants(
    matrix: np.ndarray, base: np.ndarray, moments: Moments, error: float
) -> dict[str, np.ndarray]:
    """Returns the constants of `solver`, computed in float64."""
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
    # Undetermined channels have unscale 0, so they stay at the mean for any solution.
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
        "factor": np.linalg.inv(system + STEP * eye),
        "low": np.minimum((rig.MIN - moments.mean) * scale, 0.0),
        "high": np.maximum((rig.MAX - moments.mean) * scale, 0.0),
    }
    return {name: value.astype(np.float32) for name, value in out.items()}


def _eyes() -> np.ndarray:
    return np.eye(rig.NUM_CHANNELS)[:, rig.ANGLE_CHANNELS]


def _lips(shapes: Shapes) -> tuple[np.ndarray, float]:
    """Returns the mean lip distance in y: [72] per channel, and that of the neutral face."""
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
