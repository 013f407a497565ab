"""Signals for a model: log-mel, pitch or both, scaled by fixed constants.

All levels are relative to speech at `level.TARGET`, so audio must first go through
`level.normalise`. A soft floor makes silence, a quiet room and the noise of a 16-bit recording look
alike.
"""

from __future__ import annotations

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np

from a2fjax import registry
from a2fjax.audio import mel, num_frames, pitch
from a2fjax.audio.level import TARGET
from a2fjax.configuration import SIGNALS, AudioConfig
from a2fjax.errors import InputError, nearest

# Log power is mapped so that the floor is -SPAN and white noise at the level of speech is +SPAN;
# log-mel of 96 recordings (English, a few in Swedish, Japanese and Mandarin) at the default floor
# then has mean 0.0 and standard deviation 1.0.
SPAN = 1.64

# F0 is given as the distance from 150 Hz, between the usual voices of men and women, in units of
# half an octave; periodicity as the distance from 0.6, in units of its standard deviation 0.3.
F0_CENTRE_HZ = 150.0
F0_SCALE = 0.5 * float(np.log(2.0))
VOICING_CENTRE = 0.6
VOICING_SCALE = 0.3

_WIDTH = {"mel": mel.BINS, "pitch": 3}
_LOOKAHEAD = {"mel": mel.LOOKAHEAD, "pitch": pitch.LOOKAHEAD}
_LOOKBACK = {"mel": mel.LOOKBACK, "pitch": pitch.LOOKBACK}


@dataclasses.dataclass(frozen=True)
class Frontend:
    """Waveform to signals, a pure function of the audio.

    Speech encoders among the configured features are ignored here: see `a2fjax.encoders`.

    Attributes:
      config: which features, in their order, and the floor.

    Example:
        >>> frontend = Frontend(AudioConfig(features=("mel", "pitch")))
        >>> frontend.features(jnp.zeros((1, 3200))).shape
        (1, 10, 83)
    """

    config: AudioConfig

    def __post_init__(self) -> None:
        """Checks the configuration.

        Raises:
          InputError: no feature, an unknown or repeated one, or a floor outside -200 to 0 dB.
        """
        names = self.config.features
        known = [*SIGNALS, *(f"{kind}:PATH" for kind in registry.encoders.names())]
        if not names:
            raise InputError(f"audio.features is empty{nearest('', known)}")
        for name in names:
            kind, colon, _ = name.partition(":")
            if name not in _WIDTH and not (colon and kind in registry.encoders):
                raise InputError(f"audio.features: unknown feature {name!r}{nearest(name, known)}")
        if len(set(names)) != len(names):
            raise InputError(f"audio.features={names!r}: a feature is named twice")
        if not -200.0 <= self.config.mel_floor_db < 0.0:
            raise InputError(
                f"audio.mel_floor_db={self.config.mel_floor_db!r}: expected -200 to below 0 dB"
            )

    @property
    def signals(self) -> tuple[str, ...]:
        """Features that are signals, in their order."""
        return tuple(name for name in self.config.features if name in _WIDTH)

    @property
    def width(self) -> int:
        """Number of signal values per frame."""
        return sum(_WIDTH[name] for name in self.signals)

    @property
    def lookahead_samples(self) -> int:
        """Samples after its centre (sample 320 * t) that a frame depends on."""
        return max((_LOOKAHEAD[name] for name in self.signals), default=0)

    @property
    def lookback_samples(self) -> int:
        """Samples before its centre (sample 320 * t) that a frame depends on."""
        return max((_LOOKBACK[name] for name in self.signals), default=0)

    def features(self, audio: jax.Array) -> jax.Array:
        """Returns the signals of every frame.

        Zeros after the end of a clip do not change its frames.

        Args:
          audio: [B, S] float, 16 kHz, speech at `level.TARGET`, zeros outside the clip.

        Returns:
          [B, T, width] float32 with T = ceil(S / 320), roughly zero mean and unit variance on
          speech. "mel": 80 bins. "pitch": log-F0 (0, which is 150 Hz, where unvoiced), voicing,
          log energy.
        """
        if not self.signals:
            return jnp.zeros((audio.shape[0], num_frames(audio.shape[1]), 0))
        parts = {"mel": self._mel, "pitch": self._pitch}
        return jnp.concatenate([parts[name](audio) for name in self.signals], axis=-1)

    @property
    def log_range(self) -> float:
        """Natural log of the power ratio of speech level to floor."""
        return -self.config.mel_floor_db * float(np.log(10.0)) / 10.0

    @property
    def floor_rms(self) -> float:
        """RMS of white noise at the floor."""
        return TARGET * 10 ** (self.config.mel_floor_db / 20)

    def _scaled(self, log_power: jax.Array, log_floor: np.ndarray | float) -> jax.Array:
        return ((log_power - log_floor) / self.log_range * 2.0 - 1.0) * SPAN

    def mel_of_frames(self, framed: jax.Array) -> jax.Array:
        """Returns the scaled log-mel [..., 80] of frames [..., `mel.WINDOW`], not yet windowed."""
        floor = mel.white_noise_power(self.floor_rms)
        log_power = mel.log_mel_of_frames(framed, floor.astype(np.float32))
        return self._scaled(log_power, np.log(floor).astype(np.float32))

    def scaled_pitch(self, tracked: jax.Array) -> jax.Array:
        """Returns the three scaled values [..., 3] of `pitch.track`."""
        f0, voicing, energy = jnp.moveaxis(tracked, -1, 0)
        voiced = f0 > 0
        log_f0 = jnp.log(jnp.where(voiced, f0, F0_CENTRE_HZ) / F0_CENTRE_HZ) / F0_SCALE
        log_floor = 2.0 * float(np.log(self.floor_rms))
        energy = self._scaled(jnp.logaddexp(energy, log_floor), log_floor)
        voicing = (voicing - VOICING_CENTRE) / VOICING_SCALE
        return jnp.stack([log_f0, voicing, energy], axis=-1)

    def _mel(self, audio: jax.Array) -> jax.Array:
        return self.mel_of_frames(mel.frames(audio))

    def _pitch(self, audio: jax.Array) -> jax.Array:
        return self.scaled_pitch(pitch.track(audio))
