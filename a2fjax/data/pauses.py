"""Pauses that augmentation inserts: room noise and a mouth at rest."""

from __future__ import annotations

import numpy as np

from a2fjax import rig
from a2fjax.audio import HOP, SAMPLE_RATE, level
from a2fjax.data import noises, records
from a2fjax.data.windows import Window

PAUSE_SECONDS = (0.3, 1.2)
PAUSE_LEVEL_DB = (-75.0, -40.0)
"""Level of the room noise in an inserted pause, in dB relative to the speech level."""

_FADE_SECONDS = 0.04
_EASE_FRAMES = 6
"""The mouth closes over 120 ms after the sound ends and opens over 120 ms before it resumes."""

_REST_LEVEL = 10 ** (-25 / 20)
_REST_OPENING = 0.25
"""Largest aperture of a rest pose, as a fraction of the clip's 90th percentile."""

LOWER_FACE = np.setdiff1d(rig.GROUPS["all"], rig.GROUPS["upper_face"])
"""Channels that speech moves; brows and eyes keep moving through a pause."""


def rest_pose(clip: records.Clip) -> np.ndarray | None:
    """Returns the pose [72] of the clip's mouth in silence, or None if the clip shows none.

    The pose is the median of the most closed frames among the valid quiet frames. A frame is quiet
    if the audio is 25 dB below speech over 100 ms around it. The result is None when jawOpen is not
    observed, no frame is quiet, or the aperture in silence exceeds a quarter of its 90th
    percentile.
    """
    if not clip.channel_mask[rig.INDEX["jawOpen"]]:
        return None
    frames = clip.frames
    audio = np.zeros(frames * HOP, np.float32)
    audio[: len(clip.audio)] = clip.audio
    power = (audio.reshape(frames, HOP) ** 2).mean(axis=1)
    loudest = np.lib.stride_tricks.sliding_window_view(np.pad(power, 2, mode="edge"), 5).max(axis=1)
    quiet = (loudest < (_REST_LEVEL * clip.speech_level) ** 2) & clip.frame_mask
    if not quiet.any():
        return None
    opening = rig.aperture(clip.motion)
    (index,) = np.nonzero(quiet)
    index = index[np.argsort(opening[index], kind="stable")[:5]]
    pose = np.median(clip.motion[index], axis=0).astype(np.float32)
    wide = np.percentile(opening[clip.frame_mask], 90)
    return pose if rig.aperture(pose) <= _REST_OPENING * max(wide, 0.0) + 1e-3 else None


def insert_pause(window: Window, rest: np.ndarray, random: np.random.Generator) -> None:
    """Replaces a segment of the window with a pause, in place.

    The sound fades to room noise and back within `PAUSE_SECONDS`. The lower face eases to `rest`
    after the sound has faded and returns before the sound does. Brows and eyes keep moving.

    Args:
      window: the window; it is left as it is if it is too short for the shortest pause and one
        frame on each side.
      rest: [72] pose.
      random: the only source of randomness.
    """
    longest = min(round(PAUSE_SECONDS[1] * rig.FPS), window.length - 2)
    shortest = round(PAUSE_SECONDS[0] * rig.FPS)
    if longest < shortest:
        return
    frames = int(random.integers(shortest, longest + 1))
    first = int(random.integers(1, window.length - frames))
    room_db = float(random.uniform(*PAUSE_LEVEL_DB))

    fade = int(_FADE_SECONDS * SAMPLE_RATE)
    a, b = first * HOP, min((first + frames) * HOP, window.samples)
    silent = np.ones(b - a, np.float32)
    ramp = (0.5 - 0.5 * np.cos(np.pi * (np.arange(fade) + 0.5) / fade)).astype(np.float32)
    silent[:fade] = ramp
    silent[-fade:] = ramp[::-1]
    room = noises.draw(random, b - a) * np.float32(level.TARGET * 10 ** (room_db / 20))
    window.audio[a:b] = window.audio[a:b] * (1 - silent) + room * silent

    ease = min(_EASE_FRAMES, frames // 2)
    rise = np.arange(1, ease + 1, dtype=np.float32) / (ease + 1)
    rise = rise * rise * (3 - 2 * rise)
    still = np.ones(frames, np.float32)
    still[:ease] = rise
    still[-ease:] = rise[::-1]
    part = window.motion[first : first + frames]
    eased = part + still[:, None] * (rest - part)
    window.motion = np.array(window.motion)
    window.motion[first : first + frames, LOWER_FACE] = eased[:, LOWER_FACE]
