"""Whisper's encoder in Flax: waveform to pretrained features, 50 frames per second.

    encoder, params = whisper.load("whisper_tiny_en_encoder_f16.npz")  # or a folder: see `load`
    features = jax.jit(encoder.apply)(params, audio)                   # up to 30 s
    features = whisper.encode_chunked(encoder, params, audio)          # any length

Frame i of the encoder is centred on sample 320 * i, the time of motion frame i, so features need no
interpolation: spectrum j is centred on sample 160 * j, the first convolution (3 taps, stride 1)
keeps that, and the second (3 taps, stride 2) is centred on spectrum 2 * i.

Whisper was trained on windows of 30 s, padded with silence. By default audio is not padded: the
cost follows its length and the encoder attends to the clip only. `WhisperEncoder.pad` gives the
original. Padding changes the last state of clips of 2.56 / 10 / 20 s by 0.55 / 0.28 / 0.18 of its
units' deviations (tiny.en, one speaker); with 30 s of audio the two are the same.

Features depend on their position in the window. A crop of 2.56 s differs from the same frames of
its 30 s window by an RMS of 1.07 of their deviation at the window's start, and by 0.46 at its
original position (`first`); a crop of 10.24 s by 1.05 and 0.24. For the same reason neighbouring
windows of 30 s disagree in their overlap: by 1.35 with 4 s of overlap, 0.90 with 8 s (tiny.en, last
state; inner states 0.6 to 1.3). Train models on windows like those of inference.

Sources: A. Radford et al., "Robust Speech Recognition via Large-Scale Weak Supervision", 2022 (the
model); A. Vaswani et al., "Attention Is All You Need", 2017 (positions).
"""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

import jax.numpy as jnp
from jax import Array

from a2fjax.audio import HOP, num_frames
from a2fjax.encoders.param_paths import Params
from a2fjax.encoders.whisper import weights
from a2fjax.encoders.whisper.network import WhisperNetwork
from a2fjax.encoders.whisper.spectrogram import log_mel
from a2fjax.errors import InputError


@dataclasses.dataclass(frozen=True)
class WhisperEncoder:
    """Architecture and options; the methods are pure functions of the parameters.

    Attributes:
      width: width of a frame, D.
      layers: transformer layers.
      heads: attention heads.
      hidden: hidden width of a layer's perceptron.
      mels: bins of the spectrogram.
      positions: frames with a position: 1500, which is 30 s.
      pad: pads every clip with digital silence to 30 s like the original, at the cost of 30 s.
      peak: log10 of the mel power that counts as the loudest, so that the spectrogram of a crop is
        a crop of the clip's; None for each clip's own, like the original.

    Example:
        >>> import jax
        >>> encoder = WhisperEncoder(width=16, layers=2, heads=2, hidden=24, mels=20)
        >>> params = jax.eval_shape(encoder.init, jax.random.key(0))
        >>> jax.eval_shape(encoder.apply, params, jnp.zeros((1, 16_000))).shape
        (1, 50, 16)
    """

    width: int
    layers: int
    heads: int
    hidden: int
    mels: int = 80
    positions: int = 1500
    pad: bool = False
    peak: float | None = None

    @property
    def max_samples(self) -> int:
        """Length of the longest clip that `apply` accepts, in samples."""
        return self.positions * HOP

    def _network(self, layers: int, **options: Any) -> WhisperNetwork:
        return WhisperNetwork(
            width=self.width,
            heads=self.heads,
            hidden=self.hidden,
            positions=self.positions,
            layers=layers,
            final_norm=layers == self.layers,
            **options,
        )

    def init(self, key: Array) -> Params:
        """Returns random parameters, with Whisper's positions, in the structure of `load`."""
        network = self._network(self.layers)
        return network.init(key, jnp.zeros((1, 2, self.mels)), None, 0)["params"]

    def apply(
        self,
        params: Params,
        audio: Array,
        *,
        length: Array | None = None,
        first: Array | int = 0,
        layers: int | None = None,
        all_layers: bool = False,
        dtype: Any = jnp.float32,
        remat: bool = False,
    ) -> Array:
        """Returns the features of clips of up to 30 s.

        Args:
          params: of `load` or `init`.
          audio: [B, S] float, 16 kHz, full scale 1.
          length: [B] int, samples of each clip; all when None. Features of a clip do not depend on
            samples beyond its end: they are those of the clip alone.
          first: [B] int or one, position of a clip's first frame in the 30 s window: at most
            `positions - T`, and 0 with `pad`. Features depend on their position, so a crop is more
            like the same frames of its clip at its original position.
          layers: number of layers to run; all when None. The final norm belongs to the last layer.
          all_layers: whether to return every state rather than the last.
          dtype: dtype of the operands of matrix products; results are float32.
          remat: whether gradients recompute the inside of layers.

        Returns:
          [B, T, D] float32 with T = ceil(S / 320), frame t centred on sample 320 * t; with
          `all_layers` [layers + 1, B, T, D], of which the first is the input of the first layer. A
          few units of the inner states are in the thousands: float16 statistics of them overflow.

        Raises:
          ValueError: audio is not [B, S] with 1 to `max_samples` samples.
          InputError: `layers` is not within 0 to the encoder's.
        """
        depth = self.layers if layers is None else layers
        if not 0 <= depth <= self.layers:
            raise InputError(f"layers={depth}: expected 0 to {self.layers}")
        if audio.ndim != 2 or not 0 < audio.shape[1] <= self.max_samples:
            raise ValueError(
                f"audio has shape {audio.shape}, expected [batch, 1 to {self.max_samples}]; "
                "`encode_chunked` accepts longer audio"
            )
        frames = num_frames(audio.shape[1])
        total = self.positions if self.pad else frames
        valid = None
        if length is not None:
            audio = jnp.where(jnp.arange(audio.shape[1]) < length[:, None], audio, 0.0)
            if not self.pad:
                valid = jnp.arange(2 * frames) // 2 < -(-length[:, None] // HOP)
        audio = jnp.pad(audio, ((0, 0), (0, total * HOP - audio.shape[1])))
        spectra = log_mel(
            audio,
            bins=self.mels,
            reflect_end=total == self.positions and valid is None,
            valid=valid,
            peak=self.peak,
        )
        network = self._network(depth, all_layers=all_layers, dtype=dtype, remat=remat)
        states = jnp.asarray(network.apply({"params": params}, spectra, valid, first))
        return states[..., :frames, :]


def load(
    path: Path | str, *, pad: bool = False, peak: float | None = None
) -> tuple[WhisperEncoder, Params]:
    """Reads an encoder from a file or folder; see `weights.load` for the formats.

    Args:
      path: file or folder of weights.
      pad: see `WhisperEncoder`.
      peak: see `WhisperEncoder`.

    Returns:
      (encoder, params), float32 NumPy arrays.

    Raises:
      InputError: no such file, an unknown format, or a weight that is missing, unknown, of another
        shape or not finite.
    """
    sizes, params = weights.load(path)
    return WhisperEncoder(**dataclasses.asdict(sizes), pad=pad, peak=peak), params
