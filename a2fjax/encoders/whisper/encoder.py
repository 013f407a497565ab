"""Whisper's encoder in Flax: waveform to pretrained features, 50 frames a second.

    encoder, params = whisper.load("whisper_tiny_en_encoder_f16.npz")  # or a folder: see `load`
    features = jax.jit(encoder.apply)(params, audio)                   # up to 30 s
    features = whisper.encode(encoder, params, audio)                  # any length

Frame i of the encoder is centred on sample 320 * i, the instant of motion frame i: spectrum j is
centred on sample 160 * j, the first convolution (3 taps, stride 1) keeps that, the second (3 taps,
stride 2) is centred on spectrum 2 * i. So features need no interpolation.

Whisper was trained on windows of 30 s, padded with silence. By default audio is not padded (the
cost is that of its length and the encoder attends to the clip alone); `Encoder.pad` gives the
original. Padding changes the last state of clips of 2.56 / 10 / 20 s by 0.55 / 0.28 / 0.18 of its
units' deviations (tiny.en, one speaker); where a whole 30 s is given the two are the same.

Features tell their place in the window. A crop of 2.56 s differs from the same frames of its 30 s
by an RMS of 1.07 of their deviation when it stands at the window's start, and by 0.46 at its own
place (`first`); a crop of 10.24 s by 1.05 and 0.24. For the same reason neighbouring windows of
30 s disagree where they join: by 1.35 with 4 s of overlap, 0.90 with 8 s (tiny.en, last state;
inner states 0.6 to 1.3). What reads the features must be trained on windows like those it will get.

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
    """Sizes of an encoder and how it hears; its methods are pure functions of the parameters.

    Attributes:
      width: units D of a frame.
      layers: transformer blocks.
      heads: of attention.
      hidden: units inside a block's perceptron.
      mels: bins of the spectrogram.
      positions: frames that have a position: 1500, which is 30 s.
      pad: hears every clip as the original does, in 30 s of digital silence, at the cost of 30 s.
      peak: log10 of mel power that counts as the loudest, so that a crop's spectrogram is a crop of
        the take's; None for each clip's own, which is the original.
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
    def most_samples(self) -> int:
        """Samples of the longest clip that `apply` takes."""
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
        """Returns random parameters, with the positions of Whisper, in the layout of `load`."""
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
          params: from `load` or `init`.
          audio: [B, S] float, 16 kHz, full scale 1.
          length: [B] int, samples of each clip; None: all. Features before a clip's end do not
            depend on what is beyond it, and are those of the clip alone.
          first: [B] int or one, the place in the 30 s window that a clip's first frame takes: not
            beyond `positions - T`, and 0 with `pad`. Features tell their position, so a crop is
            more like the same frames of its take at the place that it has there.
          layers: how many blocks run; None: all. The final norm belongs to the last block.
          all_layers: every state instead of the last.
          dtype: of the operands of matrix products; results are float32.
          remat: forgets what is inside the blocks and computes it again for gradients.

        Returns:
          [B, T, D] float32 with T = ceil(S / 320), frame t centred on sample 320 * t; with
          `all_layers` [layers + 1, B, T, D], the first being what enters the first block. A
          few units of the inner states are in the thousands: float16 statistics of them overflow.

        Raises:
          ValueError: audio is not [B, S] with 1 to `most_samples` samples.
          InputError: `layers` is beyond 0 to the encoder's.
        """
        depth = self.layers if layers is None else layers
        if not 0 <= depth <= self.layers:
            raise InputError(f"layers={depth}: expected 0 to {self.layers}")
        if audio.ndim != 2 or not 0 < audio.shape[1] <= self.most_samples:
            raise ValueError(
                f"audio has shape {audio.shape}, expected [batch, 1 to {self.most_samples}]; "
                "`encode` takes longer audio"
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
      path: of the weights.
      pad: see `Encoder`.
      peak: see `Encoder`.

    Returns:
      (encoder, params), float32 NumPy arrays.

    Raises:
      InputError: no such file, an unknown format, or a weight that is missing, unknown, of another
        shape or not finite.
    """
    sizes, params = weights.load(path)
    return WhisperEncoder(**dataclasses.asdict(sizes), pad=pad, peak=peak), params
