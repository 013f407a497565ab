"""Conditioning on identity (neutral mesh) and emotion: embeddings, and FiLM by them.

A dataset has some tens of subjects, so what the network learns about identity must carry over to
unseen faces. The mesh therefore enters as a few smooth, standardised numbers: a fixed descriptor
of its point cloud, projected on the leading components of the training subjects' descriptors. A
learned encoder of the points would fit the training subjects only.

R2 of a ridge regression from the components to the demo heads' eight shape parameters, from 40
training heads on 20 unseen ones, 384 points: 0.98-1.00 for six of them, width of the mouth 0.97,
height of the brows 0.95. With normals 0.98-1.00, 0.89 and 0.95.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
from jax import Array

from a2fjax import mesh_descriptor

COMPONENTS = 16
"""Principal components of the descriptor that the network reads; unused ones are zero."""

NOISE = 0.1
"""Standard deviation of the noise on each standardised component while training."""

_LIMIT = 3.0
_VARIANCE_FLOOR = 1e-5
_RELIABILITY = 0.5
_SUBJECTS_PER_COMPONENT = 2.5
_FEW = 3
_RESIDUAL_START = 0.1


DESCRIPTOR_WIDTH = mesh_descriptor.WIDTH
"""Values of a descriptor without normals; see `mesh_descriptor.width`."""


def descriptor(points: Array) -> Array:
    """Describes a cloud of surface points by means over it; see `mesh_descriptor.descriptor`.

    It does not depend on the order of the points and tends to an integral over the surface as
    their number grows, so it does not depend on the mesh's topology either.

    Args:
      points: [B, P, 3], centred and of unit RMS radius, or [B, P, 6] with normals.

    Returns:
      [B, mesh_descriptor.width(normals)] float32.
    """
    return mesh_descriptor.descriptor(jnp, points.astype(jnp.float32), _dot)


def _dot(a: Array, b: Array) -> Array:
    return jnp.matmul(a, b, precision=jax.lax.Precision.HIGHEST)


def standardisation(
    descriptors: np.ndarray, repeated: np.ndarray | None = None
) -> tuple[np.ndarray, np.ndarray]:
    """Fits the projection that whitens the descriptors of the training subjects.

    Args:
      descriptors: [N, D], one row per subject; N may be 0 or 1.
      repeated: [N, D], of the same subjects from other points on their meshes: the difference is
        sampling noise.

    Returns:
      mean [D] and projection [D, COMPONENTS]: the leading principal
      components, each divided by its standard deviation over the subjects. A component is a zero
      column where its variance is below a hundred-thousandth of the first one's or mostly noise:
      divided by its deviation, noise would be as large as shape. At most 0.4 components per subject
      are used (at least three): with few subjects, more cannot be told from chance.
    """
    descriptors = np.asarray(descriptors, np.float64)
    width = descriptors.shape[-1]
    projection = np.zeros((width, COMPONENTS), np.float32)
    if not len(descriptors):
        return np.zeros(width, np.float32), projection
    mean = descriptors.mean(0)
    _, singular, axes = np.linalg.svd(descriptors - mean, full_matrices=False)
    most = min(COMPONENTS, max(_FEW, math.ceil(len(descriptors) / _SUBJECTS_PER_COMPONENT)))
    axes, singular = axes[:most], singular[:most]
    variance = singular**2 / max(len(descriptors) - 1, 1)
    used = variance > max(_VARIANCE_FLOOR * variance[0], 1e-12)
    if repeated is not None:
        # Noise differs between samplings, so what correlates between two is shape. Mean squares
        # would not show it: the axes were chosen for the noise of the first sampling as well.
        first, second = ((x - np.mean(x, axis=0)) @ axes.T for x in (descriptors, repeated))
        scale = np.sqrt(np.sum(first**2, axis=0) * np.sum(second**2, axis=0))
        used &= np.sum(first * second, axis=0) > _RELIABILITY * scale
    # The sign of a singular vector is arbitrary; fixing it makes the constants repeatable.
    axes = axes * np.sign(axes[np.arange(len(axes)), np.abs(axes).argmax(1)])[:, None]
    for i in np.flatnonzero(used):
        projection[:, i] = axes[i] / np.sqrt(variance[i])
    return mean.astype(np.float32), projection


class IdentityEncoder(nn.Module):
    """Embeds the neutral mesh.

    Attributes:
      width: of the embedding.
      dropout: share of training items whose identity is replaced by the mean one.
    """

    width: int
    dropout: float = 0.0

    @nn.compact
    def __call__(
        self,
        points: Array,
        known: Array,
        mean: Array,
        projection: Array,
        *,
        train: bool = False,
    ) -> Array:
        """Returns the embedding [B, width].

        Args:
          points: [B, P, 3 or 6]; see `descriptor`.
          known: [B] bool; False stands for the mean identity, whatever the points hold.
          mean: [D], of `standardisation`.
          projection: [D, COMPONENTS], of `standardisation`.
          train: adds noise and dropout, from the streams "noise" and "dropout".
        """
        # The points of unknown identities may hold anything, including NaN.
        points = jnp.where(known[:, None, None], points, 0.0)
        code = _dot(descriptor(points) - mean, projection)
        # A face far from the training faces is read as one at their edge.
        code = _LIMIT * jnp.tanh(code / _LIMIT)
        if train:
            used = jnp.any(projection != 0.0, axis=0)
            code = code + NOISE * used * jax.random.normal(self.make_rng("noise"), code.shape)
            if self.dropout > 0:
                rng = self.make_rng("dropout")
                known = known & ~jax.random.bernoulli(rng, self.dropout, known.shape)
        code = jnp.where(known[:, None], code, 0.0)
        hidden = nn.gelu(nn.Dense(self.width, name="hidden")(code))
        return nn.Dense(self.width, name="out")(hidden)


class IdentityResidual(nn.Module):
    """Learned vector of each training subject, for what the mesh does not show.

    Zero for other subjects. It is dropped from a share of the windows, so that the embedding
    without it stays the best guess from the mesh.

    Attributes:
      subjects: number of training subjects.
      width: of the embedding.
      dropout: share of training items without a residual.
    """

    subjects: int
    width: int
    dropout: float = 0.0

    @nn.compact
    def __call__(self, subject: Array, *, train: bool = False) -> Array:
        """Returns the residuals [B, width].

        Args:
          subject: [B] int32, number of the training subject; out of range for others.
          train: adds dropout, from the stream "dropout".
        """
        rows = max(self.subjects, 1)
        # Not zeros: FiLM multiplies it by kernels that start at zero, and neither would get a
        # gradient.
        table = self.param("table", nn.initializers.normal(_RESIDUAL_START), (rows, self.width))
        known = (subject >= 0) & (subject < self.subjects)
        if train and self.dropout > 0:
            rng = self.make_rng("dropout")
            known = known & ~jax.random.bernoulli(rng, self.dropout, known.shape)
        return jnp.where(known[:, None], table[jnp.clip(subject, 0, rows - 1)], 0.0)


def encode_names(names: Sequence[str]) -> np.ndarray:
    """Returns names as an array [N, longest in UTF-8] uint8, to be stored beside weights.

    Example:
        >>> decode_names(encode_names(["ann", "bo"]))
        ('ann', 'bo')
    """
    lines = [name.encode() for name in names]
    longest = max((len(line) for line in lines), default=1)
    padded = [list(line.ljust(longest, b"\0")) for line in lines]
    return np.array(padded, np.uint8).reshape(len(lines), longest)


def decode_names(array: np.ndarray) -> tuple[str, ...]:
    """Returns the names that `encode_names` was given."""
    return tuple(bytes(row).rstrip(b"\0").decode() for row in np.asarray(array, np.uint8))


class EmotionEncoder(nn.Module):
    """Embeds the emotion of every frame.

    Neutral is an emotion like the others, the first unit vector. The zero vector means that the
    emotion is not given: a model whose training windows lacked it at times
    (`model.emotion_dropout`) then predicts without it.

    Attributes:
      width: of the embedding.
      dropout: share of training items whose emotion becomes the zero vector.
    """

    width: int
    dropout: float = 0.0

    @nn.compact
    def __call__(self, emotion: Array, *, train: bool = False) -> Array:
        """Returns the embedding [B, T, width] of `emotion` [B, T, 5]."""
        if train and self.dropout > 0:
            rng = self.make_rng("dropout")
            given = ~jax.random.bernoulli(rng, self.dropout, emotion.shape[:1])
            emotion = emotion * given[:, None, None]
        return nn.gelu(nn.Dense(self.width, name="hidden")(emotion))


class FiLM(nn.Module):
    """Feature-wise linear modulation (FiLM, Perez et al. 2018): y = x * (1 + scale) + shift.

    Scale and shift are sums of linear maps of the conditions that start at zero. A speaker's style
    is mostly amplitude, which an added condition alone cannot express.
    """

    @nn.compact
    def __call__(self, x: Array, conditions: Sequence[Array], dtype: Any = jnp.float32) -> Array:
        """Returns `x` [B, T, C] modulated by conditions, each [B, D] or [B, T, D]."""
        width = x.shape[-1]
        total: Array | float = 0.0
        for i, condition in enumerate(conditions):
            layer = nn.Dense(
                2 * width,
                kernel_init=nn.initializers.zeros_init(),
                use_bias=False,
                dtype=dtype,
                name=f"condition_{i}",
            )
            if condition.ndim == 2:
                condition = condition[:, None]
            total = total + layer(condition)
        scale, shift = jnp.split(jnp.asarray(total), 2, axis=-1)
        return x * (1 + scale) + shift
