"""An expert whose verdict is known, jaw against loudness, and batches on which it is right."""

import jax.numpy as jnp
import numpy as np

from a2fjax import rig
from a2fjax.batch import Batch
from a2fjax.configuration import SyncnetConfig
from a2fjax.models.syncnet import channels

ROWS, FRAMES = 4, 160
JAW = rig.INDEX["jawOpen"]


class Ears:
    """Sees the jaw, hears the level of the audio; both as values and differences."""

    similarity = "cosine"
    config = SyncnetConfig(window_frames=15, motion_reach=2, audio_reach=2)

    def apply(self, variables, batch, *, statistics):
        level = jnp.sqrt(jnp.mean(batch.audio.reshape(*batch.frame_mask.shape, -1) ** 2, -1))
        seen = channels.standardise(batch.motion, statistics)
        jaw = seen[..., list(channels.CHANNELS).index(JAW)]
        heard = (level - level.mean(1, keepdims=True)) / level.std(1, keepdims=True)
        gain = variables["params"]["gain"]
        return {"heard": self._vector(heard), "seen": gain * self._vector(jaw)}

    @staticmethod
    def _vector(curve):
        change = jnp.pad(curve[:, 2:] - curve[:, :-2], ((0, 0), (1, 1)))
        return jnp.stack([curve, 2.0 * change], -1)


VARIABLES = {"params": {"gain": np.float32(1.0)}}


def curve(rng):
    spectrum = np.fft.rfft(rng.normal(size=FRAMES))
    spectrum[np.fft.rfftfreq(FRAMES, 1 / rig.FPS) > 4] = 0
    values = np.fft.irfft(spectrum, FRAMES)
    return 0.5 + 0.2 * values / np.abs(values).max()


def example(seed=0, rows=ROWS):
    """Returns a batch whose jaw follows the level of its audio."""
    rng = np.random.default_rng(seed)
    jaw = np.stack([curve(rng) for _ in range(rows)])
    tone = np.sqrt(2.0) * np.sin(2 * np.pi * 50 * np.arange(320) / 16_000)
    motion = np.zeros((rows, FRAMES, 72), np.float32)
    motion[..., JAW] = jaw
    mask = np.isin(rig.CHANNELS, ["jawOpen", "mouthClose"])
    return Batch.zeros(rows, FRAMES, 1).replace(
        audio=(0.2 * jaw[..., None] * tone).reshape(rows, -1).astype(np.float32),
        motion=motion,
        channel_mask=np.tile(mask, (rows, 1)),
        frame_mask=np.ones((rows, FRAMES), bool),
        length=np.full(rows, FRAMES, np.int32),
        subject=np.full(rows, -1, np.int32),
    )


def moved(batch, frames):
    """Returns the batch's motion, later by some frames."""
    return np.roll(batch.motion, frames, axis=1)
