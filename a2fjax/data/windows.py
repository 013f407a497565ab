"""Windows: segments of clips, of one length, at a playback speed.

Audio and motion stay aligned.
"""

from __future__ import annotations

import dataclasses

import numpy as np
import soxr

from a2fjax.audio import HOP, SAMPLE_RATE, level
from a2fjax.data import records


@dataclasses.dataclass
class Window:
    """A segment of a clip while it is prepared for a batch.

    Attributes:
      audio: [T * 320] float32, zero after the clip's end.
      motion: [T, 72] float32, the last frame repeated after the clip's end.
      emotion: [T, 5] float32, the last frame repeated after the clip's end.
      frame_mask: [T] bool, False after the clip's end.
      channel_mask: [72] bool.
      length: number of frames that come from the clip.
      samples: number of audio samples that come from the clip.
      mirrored: whether the identity points must be mirrored too.
    """

    audio: np.ndarray
    motion: np.ndarray
    emotion: np.ndarray
    frame_mask: np.ndarray
    channel_mask: np.ndarray
    length: int
    samples: int
    mirrored: bool = False


def cut(clip: records.Clip, start: int, frames: int, speed: float = 1.0) -> Window:
    """Cuts a window from a clip, scales speech to `level.TARGET`, and plays it at `speed`.

    Frame t of the window is frame `start + speed * t` of the clip, and sample n is sample
    `320 * start + speed * n`. Audio goes through a band-limited resampler without delay; motion
    and emotion are interpolated linearly. A frame is valid when all frames it is interpolated
    from are valid.

    Args:
      clip: the clip to cut.
      start: first frame, in [0, clip.frames).
      frames: length of the window in frames.
      speed: playback speed; above 1 is faster and raises the pitch, like a smaller speaker.
    """
    size = frames * HOP
    if speed == 1.0:
        heard = clip.audio[start * HOP : start * HOP + size]
    else:
        need = int(np.ceil(size * speed)) + 64
        heard = clip.audio[start * HOP : start * HOP + need]
        heard = soxr.resample(heard, SAMPLE_RATE * speed, SAMPLE_RATE, quality="HQ")[:size]
    last = clip.frames - 1
    place = start + speed * np.arange(frames)
    length = int(np.count_nonzero(place <= last))
    heard = heard[: length * HOP]
    audio = np.zeros(size, np.float32)
    audio[: len(heard)] = level.normalise(heard, clip.speech_level)
    place = np.minimum(place, last)
    below = place.astype(np.int64)
    share = (place - below).astype(np.float32)[:, None]
    above = np.minimum(below + 1, last)
    if speed == 1.0:
        motion, emotion = clip.motion[below], clip.emotion[below]
        good = clip.frame_mask[below]
    else:
        motion = clip.motion[below] * (1 - share) + clip.motion[above] * share
        emotion = clip.emotion[below] * (1 - share) + clip.emotion[above] * share
        good = clip.frame_mask[below] & (clip.frame_mask[above] | (share[:, 0] == 0))
    return Window(
        audio=audio,
        motion=motion,
        emotion=emotion,
        frame_mask=good & (np.arange(frames) < length),
        channel_mask=np.array(clip.channel_mask),
        length=length,
        samples=len(heard),
    )


def part(window: Window, start: int, frames: int) -> Window:
    """Returns the window of `frames` frames that begins at frame `start` of another window.

    The last frame is repeated beyond the end of the other window, as in `cut`.
    """
    length = max(min(window.length - start, frames), 0)
    stop = start + frames

    place = np.minimum(np.arange(start, stop), len(window.motion) - 1)
    audio = np.zeros(frames * HOP, np.float32)
    heard = window.audio[start * HOP : stop * HOP]
    audio[: len(heard)] = heard
    return dataclasses.replace(
        window,
        audio=audio,
        motion=window.motion[place],
        emotion=window.emotion[place],
        frame_mask=window.frame_mask[place] & (np.arange(frames) < length),
        length=length,
        samples=max(min(window.samples - start * HOP, frames * HOP), 0),
    )
