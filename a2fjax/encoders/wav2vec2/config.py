"""Architecture of wav2vec 2.0 and HuBERT, with the names and defaults of the hub's config.json."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Mapping
from typing import Any

from a2fjax.errors import InputError, nearest

ACTIVATIONS = (
    "gelu",
    "gelu_fast",
    "gelu_new",
    "gelu_python",
    "gelu_pytorch_tanh",
    "linear",
    "mish",
    "quick_gelu",
    "relu",
    "sigmoid",
    "silu",
    "swish",
    "tanh",
)
"""Supported activations."""

_CHOICES = {
    "model_type": ("wav2vec2", "hubert"),
    "feat_extract_norm": ("group", "layer"),
    "hidden_act": ACTIVATIONS,
    "feat_extract_activation": ACTIVATIONS,
}
_SHARES = (
    "hidden_dropout",
    "attention_dropout",
    "activation_dropout",
    "feat_proj_dropout",
    "layerdrop",
    "mask_time_prob",
    "mask_feature_prob",
)
_MAY_BE_ZERO = (*_SHARES, "num_hidden_layers", "mask_time_min_masks", "mask_feature_min_masks")
# Options that change the network in an unsupported way, with the supported value.
_UNSUPPORTED = {"add_adapter": False, "adapter_attn_dim": None, "conv_pos_batch_norm": False}


@dataclasses.dataclass(frozen=True)
class Wav2Vec2Config:
    """Architecture of a wav2vec 2.0 or HuBERT network; the fields are the keys of config.json.

    Sources: Baevski et al. 2020, "wav2vec 2.0"; Hsu et al. 2021, "HuBERT".

    Attributes:
      model_type: "wav2vec2" or "hubert".
      conv_dim: channels of each layer of the feature encoder.
      conv_kernel: kernel sizes of its layers.
      conv_stride: strides of its layers; their product is `hop`.
      conv_bias: whether its convolutions have a bias.
      feat_extract_norm: "group" (only the first layer, each channel over time) or "layer" (every
        layer, each frame over channels).
      feat_extract_activation: one of `ACTIVATIONS`, also of the positional convolution.
      feat_proj_layer_norm: whether features are normalised before the projection.
      hidden_size: width of the output features.
      num_hidden_layers: transformer layers.
      num_attention_heads: divides `hidden_size`.
      intermediate_size: width inside a feed-forward block.
      hidden_act: activation of feed-forward blocks, one of `ACTIVATIONS`.
      layer_norm_eps: epsilon of layer norms outside the feature encoder (which has 1e-5).
      do_stable_layer_norm: whether norms precede the blocks (with one at the end) or follow them.
      num_conv_pos_embeddings: kernel size of the positional convolution.
      num_conv_pos_embedding_groups: groups of the positional convolution.
      hidden_dropout: dropout rate after blocks; this and the following apply in training.
      attention_dropout: dropout rate of attention weights.
      activation_dropout: dropout rate inside feed-forward blocks.
      feat_proj_dropout: dropout rate after the projection.
      layerdrop: probability of skipping a layer (Fan et al. 2020).
      apply_spec_augment: whether training masks features (Park et al. 2019).
      mask_time_prob: share of frames that masked spans would cover if none overlapped.
      mask_time_length: frames per span.
      mask_time_min_masks: minimum number of spans.
      mask_feature_prob: the same for feature channels.
      mask_feature_length: channels per span.
      mask_feature_min_masks: minimum number of spans.
      do_normalize: whether audio is normalised to zero mean and unit variance; the hub stores it
        in preprocessor_config.json.
    """

    model_type: str = "wav2vec2"
    conv_dim: tuple[int, ...] = (512,) * 7
    conv_kernel: tuple[int, ...] = (10, 3, 3, 3, 3, 2, 2)
    conv_stride: tuple[int, ...] = (5, 2, 2, 2, 2, 2, 2)
    conv_bias: bool = False
    feat_extract_norm: str = "group"
    feat_extract_activation: str = "gelu"
    feat_proj_layer_norm: bool = True
    hidden_size: int = 768
    num_hidden_layers: int = 12
    num_attention_heads: int = 12
    intermediate_size: int = 3072
    hidden_act: str = "gelu"
    layer_norm_eps: float = 1e-5
    do_stable_layer_norm: bool = False
    num_conv_pos_embeddings: int = 128
    num_conv_pos_embedding_groups: int = 16
    hidden_dropout: float = 0.1
    attention_dropout: float = 0.1
    activation_dropout: float = 0.1
    feat_proj_dropout: float = 0.0
    layerdrop: float = 0.1
    apply_spec_augment: bool = True
    mask_time_prob: float = 0.05
    mask_time_length: int = 10
    mask_time_min_masks: int = 2
    mask_feature_prob: float = 0.0
    mask_feature_length: int = 10
    mask_feature_min_masks: int = 0
    do_normalize: bool = True

    def __post_init__(self) -> None:
        """Checks types, ranges and combinations of values.

        Raises:
          InputError: a value has the wrong type or range, or two values are inconsistent.
        """
        for field in dataclasses.fields(self):
            self._check(field.name, getattr(self, field.name), field.default)
        depths = {len(self.conv_dim), len(self.conv_kernel), len(self.conv_stride)}
        if len(depths) > 1 or 0 in depths:
            raise InputError(
                f"conv_dim, conv_kernel and conv_stride have {len(self.conv_dim)}, "
                f"{len(self.conv_kernel)} and {len(self.conv_stride)} entries, expected one for "
                "each layer"
            )
        for divisor in ("num_attention_heads", "num_conv_pos_embedding_groups"):
            if self.hidden_size % getattr(self, divisor):
                raise InputError(
                    f"hidden_size={self.hidden_size} is not a multiple of "
                    f"{divisor}={getattr(self, divisor)}"
                )

    def _check(self, key: str, value: Any, default: Any) -> None:
        if isinstance(default, tuple):
            valid = isinstance(value, tuple) and all(type(v) is int and v > 0 for v in value)
            expected = "a list of whole numbers above 0"
        elif isinstance(default, (bool, str)):
            valid, expected = type(value) is type(default), type(default).__name__
        else:
            least = 0 if key in _MAY_BE_ZERO else 1 if isinstance(default, int) else 1e-30
            most = 1.0 if key in _SHARES else math.inf
            kinds = (int,) if isinstance(default, int) else (int, float)
            valid = type(value) in kinds and least <= value <= most and math.isfinite(value)
            expected = f"{'a whole number' if kinds == (int,) else 'a number'} from {least:g}" + (
                "" if most == math.inf else f" to {most:g}"
            )
        if not valid:
            raise InputError(f"{key}={value!r}: expected {expected}")
        choices = _CHOICES.get(key)
        if choices and value not in choices:
            raise InputError(f"{key}={value!r} is not supported{nearest(str(value), choices)}")

    @classmethod
    def from_config(cls, config: Mapping[str, Any], name: str = "config.json") -> Wav2Vec2Config:
        """Returns the architecture in a config.json; missing keys have the hub's defaults.

        Args:
          config: contents of the file, with `do_normalize` of preprocessor_config.json if known.
          name: file name for messages.

        Raises:
          InputError: another kind of model, a value out of range, or an unsupported part (adapters,
            batch norm in the positional convolution).

        Example:
            >>> Wav2Vec2Config.from_config({"model_type": "hubert"}).hidden_size
            768
        """
        if "model_type" not in config:
            raise InputError(f"{name}: no model_type, expected wav2vec2 or hubert")
        for key, value in _UNSUPPORTED.items():
            if config.get(key, value) != value:
                raise InputError(
                    f"{name}: {key}={config[key]!r} is not supported, expected {value!r}"
                )
        values: dict[str, Any] = {}
        for field in dataclasses.fields(cls):
            if field.name in config:
                value = config[field.name]
                values[field.name] = tuple(value) if isinstance(value, list) else value
        try:
            return cls(**values)
        except InputError as error:
            raise InputError(f"{name}: {error}") from None

    def to_config(self) -> dict[str, Any]:
        """Returns the contents of a config.json for transformers."""
        architecture = {"wav2vec2": "Wav2Vec2Model", "hubert": "HubertModel"}[self.model_type]
        values = dataclasses.asdict(self)
        del values["do_normalize"]
        if self.model_type == "wav2vec2":
            del values["feat_proj_layer_norm"]
        lists = {key: list(v) if isinstance(v, tuple) else v for key, v in values.items()}
        return {"architectures": [architecture], "dtype": "float32", **lists}

    @property
    def hop(self) -> int:
        """Samples between neighbouring frames: 320 in all published models."""
        return math.prod(self.conv_stride)

    @property
    def receptive(self) -> int:
        """Receptive field of a frame of the feature encoder in samples: 400, from `hop * i` on."""
        samples = 1
        for kernel, stride in zip(self.conv_kernel[::-1], self.conv_stride[::-1], strict=True):
            samples = (samples - 1) * stride + kernel
        return samples

    @property
    def has_mask_embedding(self) -> bool:
        """Whether the hub's model has a learned vector for masked frames."""
        return self.mask_time_prob > 0 or self.mask_feature_prob > 0

    def frames(self, samples: Any, depth: int | None = None) -> Any:
        """Returns the number of frames for a number of samples; integers or integer arrays.

        Args:
          samples: number of audio samples.
          depth: convolutions of the feature encoder to apply; all when None.
        """
        for kernel, stride in list(zip(self.conv_kernel, self.conv_stride, strict=True))[:depth]:
            samples = (samples - kernel) // stride + 1
        return samples

    def samples(self, frames: int) -> int:
        """Returns the smallest number of samples that gives a number of frames."""
        return self.hop * (frames - 1) + self.receptive


BASE = Wav2Vec2Config()
"""wav2vec 2.0 base; HuBERT base differs in `model_type` only."""

LARGE = Wav2Vec2Config(
    conv_bias=True,
    feat_extract_norm="layer",
    hidden_size=1024,
    num_hidden_layers=24,
    num_attention_heads=16,
    intermediate_size=4096,
    do_stable_layer_norm=True,
)
"""wav2vec 2.0 large (LV-60, XLSR); HuBERT large differs in `model_type` only."""
