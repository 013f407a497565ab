"""An expert whose vectors are known: the sound's samples hold the curves that the face shows."""

import numpy as np

from a2fjax import rig
from a2fjax.models.syncnet.channels import CHANNELS

NAMES = ("jawOpen", "mouthPucker", "mouthFunnel", "mouthSmileLeft", "mouthSmileRight", "jawForward")
SHOWN = np.array([rig.INDEX[n] for n in NAMES])
assert set(SHOWN) <= set(CHANNELS)
LEVEL = 0.05


class Coded:
    """Reads the curves from the samples; `asked` counts the pieces it was given."""

    name, similarity, audio_reach, motion_reach = "coded", "cosine", 0, 0
    asked = 0

    def embed(self, batch, statistics):
        Coded.asked += 1
        heard = np.asarray(batch.audio).reshape(len(batch.audio), -1, 320)[..., : len(SHOWN)]
        seen = (batch.motion - statistics.mean[:, None]) / statistics.deviation[:, None]
        return np.float32(heard), np.float32(seen[..., SHOWN])


def curves(times, seed):
    """Returns smooth curves [T, 6] of about unit deviation at any times, s."""
    rng = np.random.default_rng([seed, 3])
    speed, phase = rng.uniform(0.3, 4.0, (2, 12, len(SHOWN)))
    return np.sin(2 * np.pi * speed * times[:, None, None] + 9 * phase).sum(1) / np.sqrt(6)


def sound(seconds, seed, *, level=LEVEL):
    """Returns audio [S] whose frame t starts with the curves at t / 50 s."""
    frames = round(50 * seconds)
    noise = np.random.default_rng([seed, 4]).standard_normal((frames, 320))
    noise[:, : len(SHOWN)] = curves(np.arange(frames) / 50, seed)
    return np.float32(level * noise).reshape(-1)


def face(times, seed, late=0.0):
    """Returns motion [T, 72] that is in step with sound that is `late` s late."""
    motion = np.zeros((len(times), rig.NUM_CHANNELS), np.float32)
    motion[:, SHOWN] = 0.5 + 0.1 * curves(times + late, seed)
    return motion
