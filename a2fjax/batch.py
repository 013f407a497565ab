"""`Batch`: the arrays that loader, models, losses and predictor exchange, as one pytree."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, TypeAlias

import jax
import jax.numpy as jnp
import numpy as np
from flax import struct

from a2fjax import rig
from a2fjax.audio import HOP

ArrayLike: TypeAlias = Any
"""A `jax.Array`, a `numpy.ndarray`, or a `jax.ShapeDtypeStruct` in `Batch.spec`."""


class Batch(struct.PyTreeNode):
    """B windows or clips of T frames (50 a second; 320 audio samples a frame at 16 kHz).

    A frozen pytree: `jit`, `grad` and `jax.tree.map` take it, and `batch.replace(motion=x)` returns
    a changed copy. Fields that are None, and an empty `cached_features`, have no leaves.

    Models read audio, length, identity, identity_mask, subject, emotion and the optional fields;
    losses read motion and the masks.

    Attributes:
      audio: [B, T * 320] float32, normalised to `a2fjax.audio.level.TARGET`.
      motion: [B, T, 72] float32, target in rig units; see `a2fjax.rig`.
      channel_mask: [B, 72] bool, channels that the recording observed.
      frame_mask: [B, T] bool, frames that losses count.
      length: [B] int32, valid frames of each item; the rest is padding.
      identity: [B, P, 3] float32 points of the neutral mesh, [B, P, 6] with normals.
      identity_mask: [B] bool, whether `identity` is known.
      subject: [B] int32, number among the training subjects; -1 if unknown.
      emotion: [B, T, 5] float32 weights of at least 0 that sum to at most 1; all zero where the
        emotion is not given.
      clip: [B] int32, index of the clip in its dataset.
      start: [B] int32, first frame within the clip or recording.
      context_audio: [B, C * 320] float32, the whole clip of which the item is a window, for live
        speech encoders. None where `audio` is all that encoders hear.
      context_length: [B] int32, valid frames of `context_audio`.
      context_start: [B] int32, frame of `context_audio` where the item starts.
      cached_features: [B, T, S, D] float16 by encoder key: S hidden states of width D, read from a
        feature cache.
      sample_index: [B] int32, which sample a generative model draws; None for 0.
      inpaint_mask: [B, T, 72] bool, values of `inpaint_motion` that a generative model keeps.
      inpaint_motion: [B, T, 72] float32 in rig units.

    Example:
      >>> batch = Batch.zeros(size=2, frames=64, points=256)
      >>> batch.motion.shape, batch.audio.shape
      ((2, 64, 72), (2, 20480))
      >>> batch.context_audio is None and not batch.cached_features
      True
    """

    audio: ArrayLike
    motion: ArrayLike
    channel_mask: ArrayLike
    frame_mask: ArrayLike
    length: ArrayLike
    identity: ArrayLike
    identity_mask: ArrayLike
    subject: ArrayLike
    emotion: ArrayLike
    clip: ArrayLike
    start: ArrayLike
    context_audio: ArrayLike = None
    context_length: ArrayLike = None
    context_start: ArrayLike = None
    cached_features: Mapping[str, ArrayLike] = struct.field(default_factory=dict)
    sample_index: ArrayLike = None
    inpaint_mask: ArrayLike = None
    inpaint_motion: ArrayLike = None

    @classmethod
    def spec(
        cls,
        size: int,
        frames: int,
        points: int,
        *,
        normals: bool = False,
        context_frames: int = 0,
        cached: Mapping[str, tuple[int, int]] | None = None,
    ) -> Batch:
        """Returns the batch with a `jax.ShapeDtypeStruct` for each array.

        Args:
          size: number of items B.
          frames: frames T of each item, padding included.
          points: points P of each neutral mesh.
          normals: whether `identity` has normals.
          context_frames: frames C of `context_audio`; 0 leaves the context out.
          cached: (hidden states S, width D) of each encoder in `cached_features`, by key.

        Example:
          >>> Batch.spec(8, 64, 256, cached={"0_whisper": (5, 384)}).cached_features
          {'0_whisper': ShapeDtypeStruct(shape=(8, 64, 5, 384), dtype=float16)}
        """

        def array(dtype: Any, *shape: int) -> jax.ShapeDtypeStruct:
            return jax.ShapeDtypeStruct((size, *shape), dtype)

        context: dict[str, jax.ShapeDtypeStruct] = {}
        if context_frames:
            context = {
                "context_audio": array(np.float32, context_frames * HOP),
                "context_length": array(np.int32),
                "context_start": array(np.int32),
            }
        return cls(
            audio=array(np.float32, frames * HOP),
            motion=array(np.float32, frames, rig.NUM_CHANNELS),
            channel_mask=array(np.bool_, rig.NUM_CHANNELS),
            frame_mask=array(np.bool_, frames),
            length=array(np.int32),
            identity=array(np.float32, points, 6 if normals else 3),
            identity_mask=array(np.bool_),
            subject=array(np.int32),
            emotion=array(np.float32, frames, rig.NUM_EMOTIONS),
            clip=array(np.int32),
            start=array(np.int32),
            cached_features={
                key: array(np.float16, frames, states, width)
                for key, (states, width) in (cached or {}).items()
            },
            **context,
        )

    @classmethod
    def zeros(cls, size: int, frames: int, points: int, **options: Any) -> Batch:
        """Returns the batch with NumPy arrays of zeros; arguments as `spec`.

        Example:
          >>> batch = Batch.zeros(1, 8, 0).replace(length=np.array([8], np.int32))
          >>> int(batch.length[0]), bool(batch.frame_mask.any())
          (8, False)
        """
        return cls.spec(size, frames, points, **options).filled(np)

    def filled(self, module: Any = jnp) -> Batch:
        """Returns zeros of the shapes and dtypes of this batch, of `jax.numpy` or `numpy`."""
        return jax.tree.map(lambda leaf: module.zeros(leaf.shape, leaf.dtype), self)

    @staticmethod
    def stack(items: Sequence[Batch]) -> Batch:
        """Returns NumPy batches of items without a batch axis as one; all have the same fields."""
        return jax.tree.map(lambda *leaves: np.stack(leaves), *items)

    def valid_frames(self) -> jax.Array:
        """Returns [B, T] bool: frames that are neither padding nor marked as bad.

        Example:
          >>> batch = Batch.zeros(1, 3, 0).replace(frame_mask=np.array([[True, False, True]]))
          >>> batch.replace(length=np.array([2])).valid_frames().tolist()
          [[True, False, False]]
        """
        frames = jnp.arange(self.frame_mask.shape[1])
        valid: jax.Array = self.frame_mask & (frames < self.length[:, None])
        return valid

    def select(self, index: Any) -> Batch:
        """Returns the batch with every array indexed along its first axis.

        Example:
          >>> Batch.zeros(4, 8, 0).select(slice(0, 2)).length.shape
          (2,)
        """
        return jax.tree.map(lambda leaf: leaf[index], self)
