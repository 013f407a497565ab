"""Acoustic signals of live audio: the same numbers for a recording at once and for frame by frame.

A frame of audio, 320 samples, brings one frame of signals that depends on no later sample. Signals
that must hear past their centre come late instead: log-mel is that of the frame itself, pitch that
of `LATE["pitch"]` frames before. The audio is taken as recorded; `running_level` scales it.

`LiveFeatures.features` computes a recording at once, `LiveFeatures.advance` one frame from a state.
"""

from __future__ import annotations

import dataclasses

import jax.numpy as jnp
from jax import Array

from a2fjax.audio import HOP, mel, num_frames, pitch, running_level
from a2fjax.audio.frontend import Frontend

LATE = {
    "mel": -(-(mel.LOOKAHEAD + 1) // HOP) - 1,
    "pitch": -(-(pitch.LOOKAHEAD + 1) // HOP) - 1,
}
"""Frames by which each signal is late."""

# A window of pitch is analysed when its last sample is heard, one frame after its centre.
_PITCH_TAIL = HOP + pitch.WINDOW // 2
_PITCH_MEMORY = pitch.PAST + pitch.FUTURE
assert LATE == {"mel": 0, "pitch": 1 + pitch.FUTURE}

State = dict[str, Array]


@dataclasses.dataclass(frozen=True)
class LiveFeatures:
    """Signals of live audio.

    Attributes:
      frontend: which signals, in their order.

    Example:
        >>> from a2fjax.configuration import AudioConfig
        >>> live = LiveFeatures(Frontend(AudioConfig(features=("mel",))))
        >>> live.features(jnp.zeros((1, 3200))).shape
        (1, 10, 80)
        >>> state = {name: jnp.zeros((1, *shape)) for name, shape in live.state_shapes.items()}
        >>> state, signals = live.advance(state, jnp.zeros((1, HOP)))
        >>> signals.shape
        (1, 80)
    """

    frontend: Frontend

    @property
    def state_shapes(self) -> dict[str, tuple[int, ...]]:
        """Shapes of the state of one stream by name; all are float32, zeros are the start.

        "audio": the latest samples; "level": see `running_level`; "pitch": the analysed frames
        that a path needs.
        """
        has_pitch = "pitch" in self.frontend.signals
        shapes: dict[str, tuple[int, ...]] = {
            "audio": (_PITCH_TAIL if has_pitch else mel.WINDOW - HOP,),
            "level": running_level.SHAPE,
        }
        return shapes | ({"pitch": (_PITCH_MEMORY, pitch.ANALYSIS)} if has_pitch else {})

    def features(self, audio: Array) -> Array:
        """Returns the signals [B, T, width] float32 of audio [B, S] as recorded, T = ceil(S / 320).

        Frame t has heard the samples before 320 (t + 1).
        """
        frames = num_frames(audio.shape[1])
        audio = jnp.pad(audio, ((0, 0), (0, frames * HOP - audio.shape[1]))).astype(jnp.float32)
        gain = running_level.gains(audio)[..., None]
        parts = {}
        if "mel" in self.frontend.signals:
            parts["mel"] = self.frontend.mel_of_frames(mel.frames(audio) * gain)
        if "pitch" in self.frontend.signals:
            blocks = pitch.WINDOW // HOP
            padded = jnp.pad(audio, ((0, 0), (_PITCH_TAIL, 0)))[:, : (frames + blocks - 1) * HOP]
            padded = padded.reshape(audio.shape[0], -1, HOP)
            windows = [padded[:, i : i + frames] for i in range(blocks)]
            analysed = pitch.analyse(jnp.concatenate(windows, axis=-1) * gain)
            analysed = jnp.pad(analysed, ((0, 0), (_PITCH_MEMORY, 0), (0, 0)))
            parts["pitch"] = self.frontend.scaled_pitch(pitch.path(analysed, frames))
        return jnp.concatenate([parts[name] for name in self.frontend.signals], axis=-1)

    def advance(self, state: State, frame: Array) -> tuple[State, Array]:
        """Hears one frame.

        Args:
          state: the arrays of `state_shapes`, each with an axis 0 of B streams.
          frame: [B, 320] float32 samples as recorded.

        Returns:
          The next state and the signals [B, width].
        """
        level, gain = running_level.update(state["level"], frame)
        heard = jnp.concatenate([state["audio"], frame], axis=1)
        new = {"audio": heard[:, HOP:], "level": level}
        parts = {}
        if "mel" in self.frontend.signals:
            parts["mel"] = self.frontend.mel_of_frames(heard[:, -mel.WINDOW :] * gain[:, None])
        if "pitch" in self.frontend.signals:
            window = heard[:, None, : pitch.WINDOW] * gain[:, None, None]
            analysed = jnp.concatenate([state["pitch"], pitch.analyse(window)], axis=1)
            new["pitch"] = analysed[:, 1:]
            parts["pitch"] = self.frontend.scaled_pitch(pitch.path(analysed, 1)[:, 0])
        return new, jnp.concatenate([parts[name] for name in self.frontend.signals], axis=-1)

    def silence(self) -> Array:
        """Returns the signals [width] of silence."""
        return self.features(jnp.zeros((1, HOP)))[0, 0]
