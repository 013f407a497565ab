"""Which windows count: those with speech and motion whose audio is heard in full."""

from __future__ import annotations

import jax.numpy as jnp
from jax import Array

from a2fjax.audio import HOP
from a2fjax.audio.level import TARGET
from a2fjax.batch import Batch
from a2fjax.configuration import SyncConfig
from a2fjax.errors import InputError
from a2fjax.models.syncnet import channels, similarity
from a2fjax.models.syncnet.channels import Statistics

SPEECH_DB = -25.0
"""Level of a frame with speech, relative to the speech of its take."""


def speech(batch: Batch) -> Array:
    """Returns [B, T] bool: frames with speech, from the level of the normalised audio."""
    frames = batch.audio.reshape(batch.audio.shape[0], -1, HOP)
    power = jnp.mean(frames**2, axis=-1)
    return power > (TARGET * 10 ** (SPEECH_DB / 20)) ** 2


def heard_frames(batch: Batch, reach: int) -> Array:
    """Returns [B, T] bool: frames whose audio of `reach` frames on both sides is in the batch."""
    frame = jnp.arange(batch.frame_mask.shape[1])
    return (frame >= reach) & (frame + reach < batch.length[:, None])


def all_of(frames: Array, count: int) -> Array:
    """Returns [B, T - count + 1] bool: `count` frames [B, T] from each on are all true."""
    return similarity.box(frames.astype(jnp.float32), count) > count - 0.5


def countable(
    batch: Batch,
    statistics: Statistics,
    window: int,
    *,
    least_speech: float,
    least_motion: float,
) -> Array:
    """Returns [B, T - window + 1] bool: windows of motion, by first frame, that can be judged.

    Args:
      batch: audio, motion and masks.
      statistics: of the motion, for its amount.
      window: frames of a window.
      least_speech: least share of frames with speech.
      least_motion: least root mean square of the differences of observed channels, in deviations.
    """
    mask = batch.channel_mask[:, channels.CHANNELS].astype(jnp.float32)
    motion = channels.standardise(batch.motion, statistics)
    change = jnp.pad(jnp.diff(motion, axis=1) ** 2, ((0, 0), (1, 0), (0, 0)))
    observed = mask.sum(1)
    power = jnp.einsum("btc,bc->bt", change, mask) / jnp.maximum(observed, 1.0)[:, None]
    moving = similarity.box(power, window) > window * least_motion**2
    speaking = similarity.box(speech(batch).astype(jnp.float32), window) >= window * least_speech
    whole = all_of(batch.valid_frames(), window)
    return whole & moving & speaking & (observed > 0)[:, None]


def check_room(frames: int, config: SyncConfig, shift: int) -> None:
    """Checks that a window, the audio about it and a shift fit into a window of data.

    Raises:
      InputError: names the key and the least value.
    """
    inner = config.window_frames - 2 * config.motion_reach
    least = max(inner + 2 * config.audio_reach + shift, config.window_frames)
    if frames < least:
        raise InputError(
            f"config: data.window_frames={frames}: expected at least {least}, for a window of "
            f"{config.window_frames} frames (model.window_frames), {config.audio_reach} frames of "
            "audio on both sides (model.audio_reach) and a shift"
        )
