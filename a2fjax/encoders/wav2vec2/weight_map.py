"""Weight map of wav2vec 2.0: names here and on the hub, shapes and initialisation.

One table serves initialisation, reading and writing, so that none of them can miss a weight.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from a2fjax.encoders.param_paths import set_path
from a2fjax.encoders.wav2vec2.config import Wav2Vec2Config


class Weight(NamedTuple):
    """One weight.

    Attributes:
      path: path in the parameters, keys joined by "/".
      names: names on the hub without the model's prefix; the first one is written.
      shape: shape on the hub.
      kind: "kernel" (the hub's axes reversed), "gain" (of weight norm, flat here) or "vector".
      std: standard deviation of the normal initialisation; None for a constant.
      constant: initial value when `std` is None.
    """

    path: str
    names: tuple[str, ...]
    shape: tuple[int, ...]
    kind: str
    std: float | None = None
    constant: float = 0.0

    def from_hub(self, value: np.ndarray) -> np.ndarray:
        """Converts a tensor of the hub to the parameters' layout, float32."""
        value = np.asarray(value).astype(np.float32)
        if self.kind == "kernel":
            value = value.T
        return np.ascontiguousarray(value.ravel() if self.kind == "gain" else value)

    def to_hub(self, value: np.ndarray) -> np.ndarray:
        """Converts a parameter to the hub's layout; the inverse of `from_hub`."""
        value = np.asarray(value, np.float32)
        if self.kind == "kernel":
            value = value.T
        return np.ascontiguousarray(value.reshape(self.shape))

    @property
    def param_shape(self) -> tuple[int, ...]:
        """Shape in the parameters."""
        if self.kind == "gain":
            return (math.prod(self.shape),)
        return self.shape[::-1] if self.kind == "kernel" else self.shape


def weights(config: Wav2Vec2Config, layers: int | None = None) -> Iterator[Weight]:
    """Yields every weight of an architecture; those of the first `layers` layers if given."""
    path, width = "feature_extractor/conv_layers", 1
    for i, out in enumerate(config.conv_dim):
        taps = config.conv_kernel[i]
        yield from _affine(
            f"{path}/{i}/conv",
            (out, width, taps),
            bias=config.conv_bias,
            std=math.sqrt(2.0 / (width * taps)),
        )
        if config.feat_extract_norm == "layer" or i == 0:
            yield from _norm(f"{path}/{i}/layer_norm", out)
        width = out
    if config.feat_proj_layer_norm:
        yield from _norm("feature_projection/layer_norm", width)
    hidden = config.hidden_size
    yield from _affine("feature_projection/projection", (hidden, width), std=width**-0.5)
    if config.has_mask_embedding:
        name = "masked_spec_embed"
        yield Weight(name, (name,), (hidden,), "vector", std=0.3)

    yield from _positional(config)
    yield from _norm("encoder/layer_norm", hidden)
    for i in range(config.num_hidden_layers if layers is None else layers):
        layer = f"encoder/layers/{i}"
        for part in ("q_proj", "k_proj", "v_proj", "out_proj"):
            yield from _affine(f"{layer}/attention/{part}", (hidden, hidden))
        yield from _norm(f"{layer}/layer_norm", hidden)
        inside = config.intermediate_size
        yield from _affine(f"{layer}/feed_forward/intermediate_dense", (inside, hidden))
        yield from _affine(f"{layer}/feed_forward/output_dense", (hidden, inside))
        yield from _norm(f"{layer}/final_layer_norm", hidden)


def _affine(
    path: str, shape: tuple[int, ...], *, bias: bool = True, std: float = 0.02
) -> Iterator[Weight]:
    name = path.replace("/", ".")
    yield Weight(f"{path}/kernel", (f"{name}.weight",), shape, "kernel", std)
    if bias:
        yield Weight(f"{path}/bias", (f"{name}.bias",), shape[:1], "vector")


def _norm(path: str, width: int) -> Iterator[Weight]:
    name = path.replace("/", ".")
    yield Weight(f"{path}/scale", (f"{name}.weight",), (width,), "vector", constant=1.0)
    yield Weight(f"{path}/bias", (f"{name}.bias",), (width,), "vector")


def _positional(config: Wav2Vec2Config) -> Iterator[Weight]:
    """Yields direction, gain and bias of the positional convolution.

    Weight norm (Salimans & Kingma 2016) with one gain per tap. PyTorch renamed the two parts when
    it made them parametrizations.
    """
    path, taps = "encoder/pos_conv_embed/conv", config.num_conv_pos_embeddings
    name, hidden = path.replace("/", "."), config.hidden_size
    shape = (hidden, hidden // config.num_conv_pos_embedding_groups, taps)
    std = 2.0 / math.sqrt(taps * hidden)
    gain = (f"{name}.parametrizations.weight.original0", f"{name}.weight_g")
    direction = (f"{name}.parametrizations.weight.original1", f"{name}.weight_v")
    # With a gain of the direction's expected norm the initial kernel is the direction itself.
    norm = std * math.sqrt(shape[0] * shape[1])
    yield Weight(f"{path}/g", gain, (1, 1, taps), "gain", constant=norm)
    yield Weight(f"{path}/v", direction, shape, "kernel", std)
    yield Weight(f"{path}/bias", (f"{name}.bias",), (hidden,), "vector")


def init_params(
    key: jax.Array, config: Wav2Vec2Config, layers: int | None = None
) -> dict[str, Any]:
    """Returns random parameters, float32, initialised with the deviations of transformers."""
    params: dict[str, Any] = {}
    for i, weight in enumerate(weights(config, layers)):
        shape = weight.param_shape
        if weight.std is None:
            value = jnp.full(shape, weight.constant, jnp.float32)
        else:
            value = weight.std * jax.random.normal(jax.random.fold_in(key, i), shape)
        set_path(params, weight.path, value)
    return params
