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
import functools
from pathlib import Path
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
from jax import Array

from a2fjax.audio import HOP, SAMPLE_RATE, mel, num_frames
from a2fjax.encoders.whisper import weights as whisper_weights
from a2fjax.errors import InputError
from a2fjax.sharding import constraints

Params = dict[str, Any]
"""Nested dicts of arrays."""

FFT = 400
MEL_HOP = HOP // 2
RANGE = 8.0
"""Decades of power below the loudest value of a window that are told apart."""

_STEP = 100  # Frames between the lengths that `encode` compiles.
_EPSILON = 1e-5  # Of every layer norm.
_LEAST_POWER = 1e-10


@functools.cache
def filterbank(bins: int = 80) -> np.ndarray:
    """Returns [201, bins] float32 Slaney weights from power to mel bins; do not write into it."""
    edges = mel.mel_to_hz(np.linspace(0.0, mel.hz_to_mel(np.array(SAMPLE_RATE / 2)), bins + 2))
    frequency = np.fft.rfftfreq(FFT, 1 / SAMPLE_RATE)[:, None]
    rising = (frequency - edges[:-2]) / (edges[1:-1] - edges[:-2])
    falling = (edges[2:] - frequency) / (edges[2:] - edges[1:-1])
    triangles = np.maximum(0.0, np.minimum(rising, falling))
    weights = (triangles * 2.0 / (edges[2:] - edges[:-2])).astype(np.float32)
    weights.flags.writeable = False
    return weights


@functools.partial(jax.jit, static_argnames=("bins", "reflect_end", "peak"))
def log_mel(
    audio: Array,
    *,
    bins: int = 80,
    reflect_end: bool = False,
    valid: Array | None = None,
    peak: float | None = None,
) -> Array:
    """Returns Whisper's log-mel spectrogram: `(max(log10 mel, peak - 8) + 4) / 4`.

    Hann windows of 400 samples, hop 160; spectrum j is centred on sample 160 * j. The first 200
    samples are mirrored in front, as in the original.

    Args:
      audio: [B, S] float, 16 kHz, S a multiple of 320.
      bins: mel bins.
      reflect_end: mirrors the last samples too, as the original does after 30 s; otherwise digital
        silence follows.
      valid: [B, S / 160] bool, spectra that may set the peak; None: all.
      peak: log10 of mel power that counts as the loudest; None for each clip's own.

    Returns:
      [B, S / 160, bins] float32.
    """
    batch, samples = audio.shape
    if not samples or samples % HOP:
        raise ValueError(f"audio has {samples} samples, expected a multiple of {HOP}")
    audio = jnp.pad(audio.astype(jnp.float32), ((0, 0), (FFT // 2, 0)), mode="reflect")
    after = FFT // 2 - MEL_HOP
    audio = jnp.pad(audio, ((0, 0), (0, after)), mode="reflect" if reflect_end else "constant")
    # Windows are five blocks of 80 samples and start every second one: no gather is needed.
    block = MEL_HOP // 2
    count = samples // MEL_HOP
    blocks = audio.reshape(batch, 2 * count + 3, block)
    framed = jnp.concatenate([blocks[:, i : i + 2 * count - 1 : 2] for i in range(5)], axis=-1)
    hann = 0.5 - 0.5 * np.cos(2 * np.pi * np.arange(FFT) / FFT)
    transform = constraints.per_example(functools.partial(jnp.fft.rfft, n=FFT))
    spectrum = transform(framed * hann.astype(np.float32))
    power = spectrum.real**2 + spectrum.imag**2
    weights = jnp.asarray(filterbank(bins))
    # HIGHEST: accelerators multiply float32 matrices with fewer bits by default.
    power = jnp.matmul(power, weights, precision=jax.lax.Precision.HIGHEST)
    log_power = jnp.log10(jnp.maximum(power, _LEAST_POWER))
    if peak is None:
        heard = log_power if valid is None else jnp.where(valid[..., None], log_power, -jnp.inf)
        loudest = heard.max(axis=(1, 2), keepdims=True)
    else:
        loudest = jnp.float32(peak)
    return (jnp.maximum(log_power, loudest - RANGE) + 4.0) / 4.0


def sinusoids(positions: int, width: int) -> np.ndarray:
    """Returns [positions, width] float32: sines, then cosines, of periods 2 pi to 20000 pi."""
    rates = np.exp(-np.log(10_000.0) * np.arange(width // 2) / max(width // 2 - 1, 1))
    angle = np.arange(positions)[:, None] * rates
    return np.concatenate([np.sin(angle), np.cos(angle)], axis=1).astype(np.float32)


def _precision(dtype: Any) -> jax.lax.Precision:
    """Returns full precision for float32, which accelerators multiply with fewer bits unasked."""
    full = jnp.dtype(dtype) == jnp.float32
    return jax.lax.Precision.HIGHEST if full else jax.lax.Precision.DEFAULT


class _Layer(nn.Module):
    """One pre-norm block; the residual, the norms and the softmax are float32."""

    heads: int
    hidden: int
    dtype: Any

    @nn.compact
    def __call__(self, x: Array, mask: Array | None) -> Array:
        batch, frames, width = x.shape

        def norm(name: str) -> nn.LayerNorm:
            # A few of Whisper's units are thousands of times the others: their variance must not
            # be a difference of two large numbers.
            return nn.LayerNorm(epsilon=_EPSILON, use_fast_variance=False, name=name)

        def linear(features: int, name: str) -> nn.Dense:
            return nn.Dense(features, dtype=self.dtype, precision=_precision(self.dtype), name=name)

        qkv = linear(3 * width, "qkv")(norm("attention_norm")(x))
        q, k, v = jnp.moveaxis(qkv.reshape(batch, frames, 3, self.heads, -1), 2, 0)
        product = functools.partial(jnp.einsum, precision=_precision(self.dtype))
        scores = product(
            "bqhd,bkhd->bhqk", q * q.shape[-1] ** -0.5, k, preferred_element_type=jnp.float32
        )
        if mask is not None:
            scores = jnp.where(mask[:, None, None], scores, jnp.finfo(jnp.float32).min)
        seen = product("bhqk,bkhd->bqhd", nn.softmax(scores).astype(v.dtype), v)
        x = x + linear(width, "out")(seen.reshape(x.shape)).astype(jnp.float32)
        up = nn.gelu(linear(self.hidden, "up")(norm("mlp_norm")(x)), approximate=False)
        return x + linear(width, "down")(up).astype(jnp.float32)


class _Network(nn.Module):
    """Log-mel to hidden states; see `Encoder.apply`."""

    sizes: WhisperEncoder
    layers: int
    all_layers: bool
    dtype: Any
    remat: bool

    @nn.compact
    def __call__(self, x: Array, valid: Array | None, first: Array | int) -> Array:
        sizes = self.sizes

        def conv(x: Array, stride: int, name: str) -> Array:
            layer = nn.Conv(
                sizes.width,
                (3,),
                (stride,),
                padding=((1, 1),),
                dtype=self.dtype,
                precision=_precision(self.dtype),
                name=name,
            )
            if valid is not None:  # As the zeros that a convolution has beyond its input.
                x = x * valid[:, :, None]
            return nn.gelu(layer(x), approximate=False)

        x = conv(conv(x, 1, "conv1"), 2, "conv2").astype(jnp.float32)
        table = self.param(
            "positions", lambda _: jnp.asarray(sinusoids(sizes.positions, sizes.width))
        )
        place = jnp.arange(x.shape[1]) + jnp.reshape(jnp.asarray(first), (-1, 1))
        x = x + jnp.take(table, place, axis=0, mode="clip")
        mask = None if valid is None else valid[:, ::2]
        block = nn.remat(_Layer) if self.remat else _Layer
        states = [x]
        for i in range(self.layers):
            x = block(sizes.heads, sizes.hidden, self.dtype, name=f"layers_{i}")(x, mask)
            states.append(x)
        if self.layers == sizes.layers:
            final = nn.LayerNorm(epsilon=_EPSILON, use_fast_variance=False, name="final_norm")
            states[-1] = final(x)
        return jnp.stack(states) if self.all_layers else states[-1]


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

    def init(self, key: Array) -> Params:
        """Returns random parameters, with the positions of Whisper, in the layout of `load`."""
        network = _Network(self, self.layers, False, jnp.float32, False)
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
        network = _Network(self, depth, all_layers, dtype, remat)
        states = jnp.asarray(network.apply({"params": params}, spectra, valid, first))
        return states[..., :frames, :]

    def to_motion_frames(self, features: Array, samples: int) -> Array:
        """Returns features [..., T', D] on motion frames [..., T, D], T = ceil(samples / 320).

        The encoder's frames are the motion's, so this only cuts, and repeats the last where there
        are too few.
        """
        frames = num_frames(samples)
        missing = max(0, frames - features.shape[-2])
        pad = [(0, 0)] * (features.ndim - 2) + [(0, missing), (0, 0)]
        return jnp.pad(features, pad, mode="edge")[..., :frames, :]


def load(
    path: Path | str, *, pad: bool = False, peak: float | None = None
) -> tuple[WhisperEncoder, Params]:
    """Reads an encoder from a file or folder; see `whisper_weights.load` for the formats.

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
    sizes, params = whisper_weights.load(path)
    return WhisperEncoder(**dataclasses.asdict(sizes), pad=pad, peak=peak), params


def encode(
    encoder: WhisperEncoder,
    params: Params,
    audio: np.ndarray,
    *,
    window_s: float = 30.0,
    overlap_s: float = 4.0,
    layers: int | None = None,
    all_layers: bool = False,
    dtype: Any = jnp.float32,
) -> np.ndarray:
    """Returns the features of audio of any length.

    What is longer than a window is encoded in windows of equal length that overlap (the last is
    moved back to end with the audio). In the middle of an overlap they are cross-faded over at most
    0.2 s; before and after, the window with more context counts.

    Args:
      encoder: from `load`.
      params: its parameters.
      audio: [B, S] float, 16 kHz.
      window_s: at most 30 s.
      overlap_s: of neighbouring windows, less than half a window.
      layers: see `Encoder.apply`.
      all_layers: see `Encoder.apply`.
      dtype: see `Encoder.apply`.

    Returns:
      [B, T, D] float32, or [layers + 1, B, T, D]; see `Encoder.apply`.

    Raises:
      InputError: a window above 30 s, or an overlap that is not within 0 to half of it.
    """
    audio = np.asarray(audio, np.float32)
    longest = encoder.positions / (SAMPLE_RATE / HOP)
    window, overlap = (round(s * SAMPLE_RATE / HOP) for s in (window_s, overlap_s))
    if not 1 <= window <= encoder.positions:
        raise InputError(f"window_s={window_s}: expected above 0 to {longest:g} s")
    if not 0 <= 2 * overlap < window:
        raise InputError(f"overlap_s={overlap_s}: expected 0 to below half of {window_s:g} s")
    run = functools.partial(
        _apply, encoder, params, layers=layers, all_layers=all_layers, dtype=dtype
    )
    frames = num_frames(audio.shape[1])
    if frames <= window:
        # Silence up to a few lengths that are compiled once; `length` keeps it unheard.
        room = min(window, -(-frames // _STEP) * _STEP)
        if encoder.pad:
            room = window
        samples = np.full(len(audio), audio.shape[1], np.int32)
        audio = np.pad(audio, ((0, 0), (0, room * HOP - audio.shape[1])))
        length = None if room == frames else samples
        return np.asarray(run(audio, length=length))[..., :frames, :]
    audio = np.pad(audio, ((0, 0), (0, frames * HOP - audio.shape[1])))
    starts = [*range(0, frames - window, window - overlap), frames - window]
    out: np.ndarray | None = None
    for first, second in zip([None, *starts], starts, strict=False):
        states = np.asarray(run(audio[:, second * HOP : (second + window) * HOP]))
        if out is None:
            out = np.zeros((*states.shape[:-2], frames, states.shape[-1]), np.float32)
            out[..., :window, :] = states
            continue
        assert first is not None
        shared = first + window - second
        share = _ramp(shared)[:, None]
        before = out[..., second : first + window, :]
        out[..., second : first + window, :] = (1 - share) * before + share * states[
            ..., :shared, :
        ]
        out[..., first + window : second + window, :] = states[..., shared:, :]
    assert out is not None
    return out


def _ramp(frames: int, most: int = 10) -> np.ndarray:
    """Returns [frames] weights of the later window: 0, a rise in the middle of an overlap, 1."""
    fade = max(1, min(frames, most))
    return np.clip((np.arange(frames) + 0.5 - (frames - fade) / 2) / fade, 0.0, 1.0).astype("f4")


@functools.partial(
    jax.jit, static_argnums=0, static_argnames=("layers", "all_layers", "dtype", "remat")
)
def _apply(encoder: WhisperEncoder, params: Params, audio: Array, **options: Any) -> Array:
    return encoder.apply(params, audio, **options)
