"""What a face does whether it speaks or not: blinks, gaze, breath and small motion of the head.

Rates are measurements of people; amplitudes of breath and head are chosen, small.

- Blinks: 26 a minute in conversation, 17 at rest, intervals log-normal (Bentivoglio et al. 1997,
  Movement Disorders 12(6), 1028-1034); lids close in about 100 ms and open in about 100 ms (Stern,
  Walrath and Goldstein 1984, Psychophysiology 21(1), 22-33).
- Gaze: sizes, directions, durations and intervals of saccades of Lee, Badler and Badler 2002, "Eyes
  Alive", doi.org/10.1145/566570.566629, with its two states, talking and listening.
- Breath: 16.6 a minute (Tobin et al. 1983, Chest 84(2), 202-205), each breath's rate 20.8% apart
  (Tobin et al. 1988, Journal of Applied Physiology 65(1), 309-317).
"""

from __future__ import annotations

import zlib
from collections.abc import Iterable

import numpy as np

from a2fjax import rig
from a2fjax.errors import InputError, nearest
from a2fjax.live import eyes

LAYERS = ("blinks", "gaze", "breath", "head")
HEAD = ("yaw", "pitch", "roll")
"""Angles of the head in degrees; yaw is positive to the subject's left, pitch is positive down."""

BLINKS_A_MINUTE = {True: 26.0, False: 17.0}
"""By whether the face speaks."""
BREATHS_A_MINUTE = 16.6

_BLINK_SPREAD = 0.6  # Of the logarithm of intervals: the mean varies, so do the intervals.
_CLOSE, _OPEN = 0.1, 0.1  # s
_BREATH_SPREAD = 0.208
_BREATH_PITCH = 0.4  # degrees
_BREATH_NOSE = 0.03
_HEAD_DEGREES = np.array([1.5, 1.0, 0.8])
_HEAD_HZ = (0.07, 0.13, 0.23, 0.31)
_NOSE = [rig.INDEX["noseSneerLeft"], rig.INDEX["noseSneerRight"]]
_BLINK = [rig.INDEX["eyeBlinkLeft"], rig.INDEX["eyeBlinkRight"]]


def parse_layers(text: str) -> tuple[str, ...]:
    """Returns the layers of a list such as "blinks,gaze"; "all" and "none" are all and none.

    Example:
        >>> parse_layers("blinks,gaze")
        ('blinks', 'gaze')

    Raises:
      InputError: an unknown layer.
    """
    if text in ("all", "none"):
        return LAYERS if text == "all" else ()
    names = tuple(name.strip() for name in text.split(",") if name.strip())
    for name in names:
        if name not in LAYERS:
            raise InputError(f"idle layer {name!r}{nearest(name, [*LAYERS, 'all', 'none'])}")
    return names


class IdleMotion:
    """Adds idle motion frame by frame: a function of the seed and of who spoke when.

    Each layer has its own random numbers, so that one does not change when another is left out.

    Example:
        >>> idle = IdleMotion(seed=1, layers=["blinks"])
        >>> frames = [idle(np.zeros(72), speaks=True)[0] for _ in range(500)]
        >>> float(np.max(frames)), rig.CHANNELS[int(np.argmax(np.max(frames, axis=0)))]
        (1.0, 'eyeBlinkLeft')
    """

    def __init__(self, *, seed: int = 0, layers: Iterable[str] = LAYERS):
        """Starts at frame 0.

        Args:
          seed: of the random numbers.
          layers: of `LAYERS`.

        Raises:
          InputError: an unknown layer.
        """
        self._layers = frozenset(parse_layers(",".join(layers))) if layers else frozenset()
        self._random = {
            name: np.random.default_rng([seed & (2**63 - 1), zlib.crc32(name.encode())])
            for name in LAYERS
        }
        self._frame = 0
        # Shares of the intervals left: they go on as the rates change.
        self._to_blink = self._interval()
        self._blinked = np.inf  # s since the last blink began
        self._breath, self._breath_rate = 0.0, BREATHS_A_MINUTE / 60
        self._gaze = eyes.Gaze(self._random["gaze"])
        self._head = self._random["head"].uniform(0, 2 * np.pi, (len(_HEAD_HZ), 3))

    def __call__(self, motion: np.ndarray, *, speaks: bool) -> tuple[np.ndarray, np.ndarray]:
        """Returns (motion [72] with idle motion, head [3] in degrees) of the next frame.

        Args:
          motion: [72] in rig units.
          speaks: whether the face has a voice now.
        """
        out = np.array(motion, np.float32)
        head = np.zeros(3)
        if "blinks" in self._layers:
            lid = self._blink(speaks)
            out[_BLINK] = np.maximum(out[_BLINK], lid)
        if "gaze" in self._layers:
            eyes.add(out, self._gaze(speaks))
        if "breath" in self._layers:
            depth = self._breathe()
            out[_NOSE] += _BREATH_NOSE * depth
            head[1] -= _BREATH_PITCH * depth
        if "head" in self._layers:
            waves = np.sin(
                2 * np.pi * np.array(_HEAD_HZ)[:, None] * self._frame / rig.FPS + self._head
            )
            head += _HEAD_DEGREES * waves.sum(axis=0) / len(_HEAD_HZ)
        self._frame += 1
        return rig.clip(out).astype(np.float32), head

    def _interval(self) -> float:
        """Returns an interval between blinks as a multiple of the mean."""
        spread = _BLINK_SPREAD
        return float(self._random["blinks"].lognormal(-0.5 * spread**2, spread))

    def _blink(self, speaks: bool) -> float:
        self._blinked += 1 / rig.FPS
        self._to_blink -= BLINKS_A_MINUTE[speaks] / 60 / rig.FPS
        if self._to_blink <= 0:
            self._to_blink += self._interval()
            self._blinked = 0.0
        if self._blinked <= _CLOSE:
            return _ease(self._blinked / _CLOSE)
        return 1.0 - _ease((self._blinked - _CLOSE) / _OPEN)

    def _breathe(self) -> float:
        """Returns 0 after breathing out to 1 after breathing in."""
        self._breath += self._breath_rate / rig.FPS
        if self._breath >= 1:
            self._breath -= 1
            factor = 1 + _BREATH_SPREAD * self._random["breath"].standard_normal()
            self._breath_rate = BREATHS_A_MINUTE / 60 * float(np.clip(factor, 0.5, 1.5))
        return 0.5 - 0.5 * float(np.cos(2 * np.pi * self._breath))


def _ease(share: float) -> float:
    share = min(1.0, share)
    return share * share * (3 - 2 * share)
