"""Who speaks and how: a face's neutral mesh and an emotion become embeddings and modulations.

A set holds some tens of people, so what the network learns about identity must carry over to
faces it never saw. The mesh therefore enters as a few smooth, standardised numbers: a fixed
descriptor of its point cloud, projected on the leading components of the training subjects'
descriptors. A free encoder of the points fits the training subjects and nobody else.

How much of the demo heads' eight shape parameters is left in the components, as R2 of a ridge
regression from 40 training heads on 20 unseen ones, 384 points: 0.98-1.00 for six of them, width of
the mouth 0.97, height of the brows 0.95. With normals 0.98-1.00, 0.89 and 0.95.
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
"""Principal components of the descriptor that the network sees; unused ones are zero."""

NOISE = 0.1
"""Standard deviation of the noise on each standardised component while training."""

_LIMIT = 3.0
_VARIANCE_FLOOR = 1e-5
_RELIABILITY = 0.5
_SUBJECTS_PER_COMPONENT = 2.5
_FEW = 3
_RESIDUAL_START = 0.1


DESCRIPTOR_WIDTH = mesh_descriptor.WIDTH
"""Values of a descriptor without normals; `shape.width` tells both."""


def descriptor(points: Array) -> Array:
    """Describes a cloud of surface points by means over it; see `shape.descriptor`.

    No order of the points enters, and it tends to an integral over the surface as their number
    grows, so the mesh's topology does not enter either.

    Args:
      points: [B, P, 3], centred and of unit RMS radius, or [B, P, 6] with normals.

    Returns:
      [B, shape.width(normals)] float32.
    """
    return mesh_descriptor.descriptor(jnp, points.astype(jnp.float32), _dot)


def _dot(a: Array, b: Array) -> Array:
    return jnp.matmul(a, b, precision=jax.lax.Precision.HIGHEST)


def standardisation(
    descriptors: np.ndarray, repeated: np.ndarray | None = None
) -> tuple[np.ndarray, np.ndarray]:
    """Fits the projection that whitens the descriptors of the training subjects.

    Args:
      descriptors: [N, D], one row a subject; N may be 0 or 1.
      repeated: [N, D], of the same subjects from other points on their meshes: what differs is
        noise of the sampling.

    Returns:
      mean [D] and projection [D, COMPONENTS]: the leading principal
      components, each divided by its standard deviation over the subjects. A component is a zero
      column where its variance is below a hundred-thousandth of the first one's or mostly noise:
      divided by its deviation, it would be as loud as shape. And there are at most 0.4 times as
      many as subjects (but three): of few people's styles, no more can be told from chance.
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
        # Noise is not the same twice, so what correlates between two samplings is shape. Means of
        # squares would not tell: the axes were chosen for the noise of the first as well.
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
    """

    width: int

    @nn.compact
    def __call__(
        self,
        points: Array,
        known: Array,
        mean: Array,
        projection: Array,
        *,
        key: Array | None = None,
        dropout: float = 0.0,
    ) -> Array:
        """Returns the embedding [B, width].

        Args:
          points: [B, P, 3 or 6]; see `descriptor`.
          known: [B] bool; False stands for the mean identity, whatever the points hold.
          mean: [D], of `standardisation`.
          projection: [D, COMPONENTS], of `standardisation`.
          key: draws the training noise and the dropout; None for neither.
          dropout: share of items whose identity becomes the mean one.
        """
        # Unknown identities may hold anything, also what is not a number.
        points = jnp.where(known[:, None, None], points, 0.0)
        code = _dot(descriptor(points) - mean, projection)
        # A face far outside the training faces is read as one at their edge.
        code = _LIMIT * jnp.tanh(code / _LIMIT)
        if key is not None:
            for_noise, for_dropout = jax.random.split(key)
            used = jnp.any(projection != 0.0, axis=0)
            code = code + NOISE * used * jax.random.normal(for_noise, code.shape)
            known = known & ~jax.random.bernoulli(for_dropout, dropout, known.shape)
        code = jnp.where(known[:, None], code, 0.0)
        hidden = nn.gelu(nn.Dense(self.width, name="hidden")(code))
        return nn.Dense(self.width, name="out")(hidden)


class IdentityResidual(nn.Module):
    """What is learnt of the people of the training set beyond what their meshes tell.

    Zero for people who were not trained on. Dropped from a share of the windows, the embedding
    without it stays the best guess from the mesh.

    Attributes:
      people: number of people of the training set.
      width: of the embedding.
    """

    people: int
    width: int

    @nn.compact
    def __call__(self, subject: Array, *, key: Array | None = None, dropout: float = 0.0) -> Array:
        """Returns the residuals [B, width].

        Args:
          subject: [B] int32, number of the person; out of range for an unknown one.
          key: draws the dropout; None for none.
          dropout: share of items without a residual.
        """
        rows = max(self.people, 1)
        # Not zeros: what multiplies it starts at zero, and two zeros would never leave each other.
        table = self.param("table", nn.initializers.normal(_RESIDUAL_START), (rows, self.width))
        known = (subject >= 0) & (subject < self.people)
        if key is not None:
            known = known & ~jax.random.bernoulli(key, dropout, known.shape)
        return jnp.where(known[:, None], table[jnp.clip(subject, 0, rows - 1)], 0.0)


def encode_names(names: Sequence[str]) -> np.ndarray:
    """Returns names as an array [N, longest in UTF-8] uint8, so that they are kept with weights."""
    lines = [name.encode() for name in names]
    longest = max((len(line) for line in lines), default=1)
    padded = [list(line.ljust(longest, b"\0")) for line in lines]
    return np.array(padded, np.uint8).reshape(len(lines), longest)


def decode_names(array: np.ndarray) -> tuple[str, ...]:
    """Returns the names that `encode_names` was given."""
    return tuple(bytes(row).rstrip(b"\0").decode() for row in np.asarray(array, np.uint8))


def drop_emotion(key: Array, emotion: Array, rate: float) -> Array:
    """Returns the emotion [B, T, 5], of a share `rate` of the items the zero vector, "not told"."""
    kept = ~jax.random.bernoulli(key, rate, emotion.shape[:1])
    return emotion * kept[:, None, None]


class EmotionEncoder(nn.Module):
    """Embeds the emotion of every frame.

    Neutral is an emotion like the others, the first unit vector. The zero vector stands for "not
    told", which a model knows when some of its training windows were (`model.emotion_dropout`): it
    then predicts what is best without knowing the emotion.

    Attributes:
      width: of the embedding.
    """

    width: int

    @nn.compact
    def __call__(self, emotion: Array) -> Array:
        """Returns the embedding [B, T, width] of `emotion` [B, T, 5]."""
        return nn.gelu(nn.Dense(self.width, name="hidden")(emotion))


class FiLM(nn.Module):
    """Feature-wise linear modulation (FiLM, Perez et al. 2018): y = x * (1 + scale) + shift.

    Scale and shift are sums of linear maps of the conditions, zero at the start. A speaker's
    style is mostly a matter of amplitude, which an added condition alone cannot express.
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
