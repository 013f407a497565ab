"""wav2vec 2.0 or HuBERT applied to audio: features on the motion's frames.

Frame i of the network covers samples 320 i to 320 i + 399 and is centred at 320 i + 199.5, while
motion frame t is at sample 320 t. `Wav2Vec2Encoder.motion_features` therefore puts 200 samples of
silence before the clip: frame t is then centred 0.03 ms before motion frame t, and there is one for
each of the ceil(S / 320) motion frames.
"""

from __future__ import annotations

import dataclasses
import functools
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax import Array

from a2fjax.audio import HOP, num_frames
from a2fjax.encoders.wav2vec2 import hub, network, weight_map
from a2fjax.encoders.wav2vec2.config import Wav2Vec2Config
from a2fjax.errors import InputError, nearest

_DTYPES = {"float32": jnp.float32, "bfloat16": jnp.bfloat16}


class EncoderOutput(NamedTuple):
    """The output of `Wav2Vec2Encoder.apply`.

    Attributes:
      features: [B, T, D] float32.
      hidden_states: [N + 1, B, T, D] float32, the input of the first layer and the output of each
        of N layers; None unless asked for.
    """

    features: Array
    hidden_states: Array | None = None


def normalise(audio: Array, lengths: Array | None = None) -> Array:
    """Normalises each waveform to zero mean and unit variance, like the hub's feature extractor.

    Args:
      audio: [B, S] float.
      lengths: [B] valid samples of each; all when None. The rest becomes 0.

    Returns:
      [B, S] float32: (x - mean) / sqrt(variance + 1e-7).
    """
    audio = audio.astype(jnp.float32)
    if lengths is None:
        centred = audio - jnp.mean(audio, 1, keepdims=True)
        return centred / jnp.sqrt(jnp.mean(centred**2, 1, keepdims=True) + 1e-7)
    exists = jnp.arange(audio.shape[1]) < lengths[:, None]
    count = jnp.maximum(lengths, 1)[:, None]
    mean = jnp.sum(jnp.where(exists, audio, 0.0), 1, keepdims=True) / count
    centred = jnp.where(exists, audio - mean, 0.0)
    return centred / jnp.sqrt(jnp.sum(centred**2, 1, keepdims=True) / count + 1e-7)


@dataclasses.dataclass(frozen=True)
class Wav2Vec2Encoder:
    """wav2vec 2.0 or HuBERT as pure functions of parameters and audio; hashable.

    Attributes:
      config: architecture.
      layers: number of transformer layers that `apply` runs by default; all when None.
      precision: of activations, "float32" or "bfloat16"; parameters, norms, attention weights and
        outputs are float32. With base and random weights bfloat16 differs by 1.3 % RMS.
      remat: whether training keeps only the inputs of layers and recomputes the rest.

    Example:
        >>> config = Wav2Vec2Config(num_hidden_layers=1, conv_dim=(8,) * 7, hidden_size=32,
        ...                         intermediate_size=32, num_attention_heads=2)
        >>> encoder = Wav2Vec2Encoder(config)
        >>> params = jax.eval_shape(encoder.init, jax.random.key(0))
        >>> audio = jnp.zeros((1, 16_000))
        >>> jax.eval_shape(encoder.motion_features, params, audio).features.shape
        (1, 50, 32)
    """

    config: Wav2Vec2Config = Wav2Vec2Config()
    layers: int | None = None
    precision: str = "float32"
    remat: bool = False

    def __post_init__(self) -> None:
        """Checks the options.

        Raises:
          InputError: more layers than the network has, or an unknown precision.
        """
        self._depth(self.layers)
        if self.precision not in _DTYPES:
            raise InputError(f"precision={self.precision!r}{nearest(self.precision, _DTYPES)}")

    @classmethod
    def load(
        cls, source: str | Path, *, layers: int | None = None, **options: Any
    ) -> tuple[Wav2Vec2Encoder, dict[str, Any]]:
        """Reads a checkpoint; see `hub.load`.

        Args:
          source: a folder, or the name of a model in the hub's cache.
          layers: number of layers to read and run; all when None.
          **options: `precision`, `remat`.

        Returns:
          (encoder, parameters).
        """
        config, params, _ = hub.load(source, layers=layers)
        return cls(config, layers=layers, **options), params

    @property
    def width(self) -> int:
        """Values per frame, D."""
        return self.config.hidden_size

    def _depth(self, layers: int | None) -> int:
        deepest = self.config.num_hidden_layers
        layers = self.layers if layers is None else layers
        if layers is None:
            return deepest
        if not 0 <= layers <= deepest:
            raise InputError(f"layers={layers}: the network has 0 to {deepest}")
        return layers

    def init(self, key: Array) -> dict[str, Any]:
        """Returns random parameters of the layers that run."""
        return weight_map.init_params(key, self.config, self._depth(None))

    def apply(
        self,
        params: dict[str, Any],
        values: Array,
        *,
        layers: int | None = None,
        all_layers: bool = False,
        lengths: Array | None = None,
        count_padding: bool = False,
        statistics: network.Statistics | None = None,
        key: Array | None = None,
        train: bool = False,
    ) -> EncoderOutput:
        """Applies the network to normalised audio; most callers need `motion_features`.

        Args:
          params: of `init` or `load`.
          values: [B, S] 16 kHz, normalised with `do_normalize`.
          layers: number of layers to run; `self.layers` when None. 0 gives the input of the first.
          all_layers: whether to return all hidden states.
          lengths: [B] valid samples of each example, at least `config.receptive`; zeros must
            follow. An example then has the features that it has alone. All when None.
          count_padding: whether the group norm of base architectures includes the zeros beyond
            `lengths`, as in transformers; features then depend on the padding.
          statistics: statistics of the group norm to use instead of the audio's own.
          key: random key of dropout, layer drop and SpecAugment.
          train: whether those are on.

        Returns:
          Features [B, T', D] on the network's frames, T' = config.frames(S), about 50 a second.
          With `do_stable_layer_norm` the final norm applies only after the network's last layer.

        Raises:
          ValueError: values are not [B, S] with at least one frame, training without a key, or
            parameters without the requested layers.
        """
        if values.ndim != 2 or values.shape[1] < self.config.receptive:
            raise ValueError(
                f"audio has shape {values.shape}, expected [batch, samples] with at least "
                f"{self.config.receptive} samples"
            )
        if train and key is None:
            raise ValueError("apply(train=True) needs a key")
        count = self._depth(layers)
        if hub.num_layers(params) < count:
            raise ValueError(
                f"{count} layers asked for, the parameters hold {hub.num_layers(params)}"
            )
        hidden = network.hidden_states(
            self.config,
            params,
            values,
            layers=count,
            dtype=_DTYPES[self.precision],
            lengths=lengths,
            count_padding=count_padding,
            given=statistics,
            key=key if train else None,
            remat=self.remat,
        )
        features = hidden[-1]
        if count == self.config.num_hidden_layers:
            features = network.final_norm(self.config, params, features)
        states = jnp.stack(hidden).astype(jnp.float32) if all_layers else None
        return EncoderOutput(features.astype(jnp.float32), states)

    def align_to_motion(
        self, audio: Array, lengths: Array | None = None
    ) -> tuple[Array, Array | None]:
        """Pads audio so that the network's frame t is centred on motion frame t.

        Args:
          audio: [B, S] float, 16 kHz.
          lengths: [B] valid samples of each example; all when None.

        Returns:
          (values, lengths) for `apply`, which returns ceil(S / 320) frames.

        Raises:
          ValueError: frames are not 320 samples apart, or audio is empty.
        """
        if self.config.hop != HOP:
            raise ValueError(f"frames every {self.config.hop} samples, motion has {HOP}")
        if audio.ndim != 2 or audio.shape[1] == 0:
            raise ValueError(f"audio has shape {audio.shape}, expected [batch, samples]")
        values = audio.astype(jnp.float32)
        if self.config.do_normalize:
            values = normalise(values, lengths)
        before = self.config.receptive // 2
        total = self.config.samples(num_frames(audio.shape[1]))
        # May be negative: the last frame's window can end before the clip does.
        after = total - before - audio.shape[1]
        values = jax.lax.pad(values, jnp.zeros((), values.dtype), [(0, 0, 0), (before, after, 0)])
        if lengths is not None:
            lengths = HOP * (-(-lengths // HOP) - 1) + self.config.receptive
        return values, lengths

    def motion_features(
        self,
        params: dict[str, Any],
        audio: Array,
        *,
        lengths: Array | None = None,
        layers: int | None = None,
        all_layers: bool = False,
        key: Array | None = None,
        train: bool = False,
    ) -> EncoderOutput:
        """Returns features of every motion frame.

        Args:
          params: of `init` or `load`.
          audio: [B, S] float, 16 kHz; any level with `do_normalize`.
          lengths: [B] valid samples of each example, at least 1; zeros must follow. All when None.
          layers: see `apply`.
          all_layers: see `apply`.
          key: see `apply`.
          train: see `apply`.

        Returns:
          Features [B, ceil(S / 320), D]; frame t is centred on sample 320 t.
        """
        values, lengths = self.align_to_motion(audio, lengths)
        return self.apply(
            params,
            values,
            layers=layers,
            all_layers=all_layers,
            lengths=lengths,
            key=key,
            train=train,
        )


def frozen_patterns(
    config: Wav2Vec2Config, trained_from: int | None = None, prefix: str = ""
) -> tuple[str, ...]:
    """Returns regular expressions of the paths of frozen parameters, for `params.split`.

    Args:
      config: architecture.
      trained_from: first transformer layer that is trained, counted from 0; -1 also trains the
        projection and the positional convolution, but never the feature encoder, whose training is
        not worth its cost; None freezes everything.
      prefix: path of the encoder's parameters in the whole tree, with its "/".

    Raises:
      InputError: no such layer.
    """
    if trained_from is None:
        return (f"^{prefix}",)
    if not -1 <= trained_from < max(config.num_hidden_layers, 1):
        raise InputError(
            f"trained_from={trained_from}: the network has layers 0 to "
            f"{config.num_hidden_layers - 1}; -1 also trains what comes before them"
        )
    patterns = [f"^{prefix}feature_extractor/"]
    if trained_from >= 0:
        # The mask's vector enters before the layers: its gradient would pass through them all.
        patterns += [f"^{prefix}feature_projection/", f"^{prefix}masked_spec_embed$"]
        patterns += [f"^{prefix}encoder/pos_conv_embed/"]
        if not config.do_stable_layer_norm:
            patterns.append(f"^{prefix}encoder/layer_norm/")
    patterns += [f"^{prefix}encoder/layers/{i}/" for i in range(max(trained_from, 0))]
    return tuple(patterns)


@functools.partial(jax.jit, static_argnames=("encoder", "layers", "all_layers"))
def apply_jit(
    encoder: Wav2Vec2Encoder,
    params: dict[str, Any],
    values: Array,
    statistics: network.Statistics | None = None,
    *,
    layers: int | None = None,
    all_layers: bool = False,
) -> EncoderOutput:
    """Calls `Wav2Vec2Encoder.apply`, compiled, without training."""
    return encoder.apply(
        params, values, layers=layers, all_layers=all_layers, statistics=statistics
    )
