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
    """Brings each waveform to zero mean and unit variance, as the hub's feature extractor does.

    Args:
      audio: [B, S] float.
      lengths: [B] samples that exist in each; all when None. What is beyond them becomes 0.

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
    """wav2vec 2.0 or HuBERT: pure functions of parameters and audio, hashable.

    Attributes:
      config: of the network.
      layers: how many of the transformer's layers `apply` runs when not told otherwise; all when
        None.
      precision: of activations, "float32" or "bfloat16"; parameters, norms, attention weights and
        what comes out are float32. With base and random weights bfloat16 differs by 1.3 % RMS.
      remat: whether training keeps only each layer's input and computes the rest again.
    """

    config: Wav2Vec2Config = Wav2Vec2Config()
    layers: int | None = None
    precision: str = "float32"
    remat: bool = False

    def __post_init__(self) -> None:
        """Checks the options.

        Raises:
          InputError: a number of layers that there are not, or an unknown precision.
        """
        self._depth(self.layers)
        if self.precision not in _DTYPES:
            raise InputError(f"precision={self.precision!r}{nearest(self.precision, _DTYPES)}")

    @classmethod
    def load(
        cls, source: str | Path, *, layers: int | None = None, **options: Any
    ) -> tuple[Wav2Vec2Encoder, dict[str, Any]]:
        """Reads a checkpoint; see `hub.load`, which also says which weights it left out.

        Args:
          source: a folder or the name of a model in the hub's cache.
          layers: read and run only so many layers.
          **options: `precision`, `remat`.

        Returns:
          (encoder, parameters).
        """
        config, params, _ = hub.load(source, layers=layers)
        return cls(config, layers=layers, **options), params

    @property
    def width(self) -> int:
        """Features a frame."""
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
        """Returns random parameters of the layers that are run."""
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
        """Runs the network on audio as it wants it; `motion_features` is what most callers need.

        Args:
          params: as `init` or `load` give them.
          values: [B, S] 16 kHz, normalised where the config says so.
          layers: run the first so many layers, no more; all (or the encoder's) when None. Zero
            gives what goes into the first.
          all_layers: whether to return all hidden states.
          lengths: [B] samples that exist in each item, at least `config.receptive`; zeros must
            follow. An item then has the features it has alone. All exist when None.
          count_padding: with `lengths`, let the group norm of base layouts count the zeros, as
            transformers does with an attention mask; features then depend on the padding.
          statistics: of the group norm, to use instead of the audio's own.
          key: of dropout, layer drop and SpecAugment, as the config says.
          train: whether those are on.

        Returns:
          Features [B, T', D] on the network's frames, T' = config.frames(S), about 50 a second.
          With `do_stable_layer_norm` the final norm is applied only after the last layer of all.

        Raises:
          ValueError: values are not [B, S] with a frame in them, training without a key, or
            parameters without the layers asked for.
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
        """Prepares audio so that the network's frame t is centred on motion frame t.

        Args:
          audio: [B, S] float, 16 kHz.
          lengths: [B] samples that exist in each item; all when None.

        Returns:
          (values, lengths) for `apply`, which gives ceil(S / 320) frames of them.

        Raises:
          ValueError: the config's frames are not 320 samples apart, or audio is empty.
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
        # May cut: the last frame's half window can end before the clip does.
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
          params: as `init` or `load` give them.
          audio: [B, S] float, 16 kHz; any level where the config normalises.
          lengths: [B] samples that exist in each item, at least 1; zeros must follow. All when
            None.
          layers: as `apply`.
          all_layers: as `apply`.
          key: as `apply`.
          train: as `apply`.

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
    """Returns patterns of the parameters that stay as they are, for `params.split`.

    Args:
      config: of the network.
      trained_from: first layer of the transformer that is trained, counted from 0; -1 trains the
        projection and the positional convolution as well, but never the feature encoder, whose
        training is not worth its cost; None freezes everything.
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
        # The mask's vector enters before the layers: its gradient would run back through them.
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
    """Is `Encoder.apply` compiled, without training."""
    return encoder.apply(
        params, values, layers=layers, all_layers=all_layers, statistics=statistics
    )
