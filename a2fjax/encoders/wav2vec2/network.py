"""wav2vec 2.0 and HuBERT as pure functions of parameters and audio.

The arithmetic follows transformers' PyTorch models, which published checkpoints were made with:
exact (erf) GELU, epsilon 1e-5, weight norm with one gain per tap, a positional convolution that
covers one more frame before than after its centre.

Sources: Baevski et al. 2020, "wav2vec 2.0"; Hsu et al. 2021, "HuBERT"; Park et al. 2019,
"SpecAugment"; Fan et al. 2020, "Reducing Transformer Depth on Demand with Structured Dropout".
"""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax import Array

from a2fjax.encoders.wav2vec2.config import Wav2Vec2Config
from a2fjax.encoders.wav2vec2.masking import spec_augment
from a2fjax.sharding import constraints

_CONV_EPS = 1e-5  # Epsilon of norms in the feature encoder, independent of config.json.

_ACTIVATIONS: dict[str, Callable[[Array], Array]] = {
    "gelu": functools.partial(jax.nn.gelu, approximate=False),
    "gelu_fast": functools.partial(jax.nn.gelu, approximate=True),
    "gelu_new": functools.partial(jax.nn.gelu, approximate=True),
    "gelu_python": functools.partial(jax.nn.gelu, approximate=False),
    "gelu_pytorch_tanh": functools.partial(jax.nn.gelu, approximate=True),
    "linear": lambda x: x,
    "mish": jax.nn.mish,
    "quick_gelu": lambda x: x * jax.nn.sigmoid(1.702 * x),
    "relu": jax.nn.relu,
    "sigmoid": jax.nn.sigmoid,
    "silu": jax.nn.silu,
    "swish": jax.nn.silu,
    "tanh": jnp.tanh,
}


class Statistics(NamedTuple):
    """Statistics of each channel over time for the first layer's group norm, float32 [B, C]."""

    mean: Array
    variance: Array


def _precision(x: Array) -> jax.lax.Precision:
    """Returns full precision for float32; accelerators use fewer bits by default."""
    return jax.lax.Precision.HIGHEST if x.dtype == jnp.float32 else jax.lax.Precision.DEFAULT


def _dense(params: dict[str, Any], x: Array) -> Array:
    product = jnp.matmul(x, params["kernel"].astype(x.dtype), precision=_precision(x))
    return product + params["bias"].astype(x.dtype)


def _layer_norm(params: dict[str, Any], x: Array, eps: float) -> Array:
    wide = x.astype(jnp.float32)
    mean = jnp.mean(wide, -1, keepdims=True)
    wide = wide - mean
    variance = jnp.mean(wide**2, -1, keepdims=True)
    out = wide * jax.lax.rsqrt(variance + eps) * params["scale"] + params["bias"]
    return out.astype(x.dtype)


def _conv(
    kernel: Array,
    bias: Array | None,
    x: Array,
    *,
    stride: int = 1,
    padding: tuple[int, int] = (0, 0),
    groups: int = 1,
) -> Array:
    out = jax.lax.conv_general_dilated(
        x,
        kernel.astype(x.dtype),
        (stride,),
        [padding],
        dimension_numbers=("NWC", "WIO", "NWC"),
        feature_group_count=groups,
        precision=_precision(x),
    )
    return out if bias is None else out + bias.astype(x.dtype)


def _drop(key: Array | None, x: Array, rate: float) -> Array:
    if key is None or rate == 0:
        return x
    if rate >= 1:
        return jnp.zeros_like(x)
    keep = jax.random.bernoulli(key, 1.0 - rate, x.shape)
    return jnp.where(keep, x / (1.0 - rate), 0.0).astype(x.dtype)


def _keys(key: Array | None, count: int) -> list[Array | None]:
    return [None] * count if key is None else list(jax.random.split(key, count))


def first_convolution(config: Wav2Vec2Config, params: dict[str, Any], values: Array) -> Array:
    """Returns the first convolution [B, frames, C] of audio [B, S], before its norm."""
    conv = params["feature_extractor"]["conv_layers"]["0"]["conv"]
    return _conv(conv["kernel"], conv.get("bias"), values[..., None], stride=config.conv_stride[0])


def channel_statistics(x: Array, counted: Array | None = None) -> Statistics:
    """Returns mean and variance of each channel of [B, T, C] over time.

    Args:
      x: output of `first_convolution`.
      counted: [B, T] bool, frames to include; all when None.
    """
    wide = x.astype(jnp.float32)
    if counted is None:
        mean = jnp.mean(wide, 1)
        return Statistics(mean, jnp.mean((wide - mean[:, None]) ** 2, 1))
    share = counted / jnp.maximum(jnp.sum(counted, 1, keepdims=True), 1)
    mean = jnp.sum(wide * share[..., None], 1)
    return Statistics(mean, jnp.sum((wide - mean[:, None]) ** 2 * share[..., None], 1))


def encode_waveform(
    config: Wav2Vec2Config,
    params: dict[str, Any],
    values: Array,
    *,
    lengths: Array | None = None,
    given: Statistics | None = None,
) -> Array:
    """Runs the feature encoder.

    Args:
      config: architecture.
      params: parameters.
      values: [B, S] normalised audio in the dtype of the activations.
      lengths: [B] samples over which the group norm takes its statistics; all when None.
      given: statistics to use instead.

    Returns:
      [B, config.frames(S), conv_dim[-1]].
    """
    activation = _ACTIVATIONS[config.feat_extract_activation]
    layers = params["feature_extractor"]["conv_layers"]
    x = first_convolution(config, params, values)
    for i in range(len(config.conv_dim)):
        layer = layers[str(i)]
        if i:
            conv = layer["conv"]
            x = _conv(conv["kernel"], conv.get("bias"), x, stride=config.conv_stride[i])
        if config.feat_extract_norm == "layer":
            x = _layer_norm(layer["layer_norm"], x, _CONV_EPS)
        elif i == 0:
            if given is None:
                counted = None
                if lengths is not None:
                    counted = jnp.arange(x.shape[1]) < config.frames(lengths, 1)[:, None]
                given = channel_statistics(x, counted)
            scale = layer["layer_norm"]["scale"] * jax.lax.rsqrt(given.variance + _CONV_EPS)
            wide = (x.astype(jnp.float32) - given.mean[:, None]) * scale[:, None]
            x = (wide + layer["layer_norm"]["bias"]).astype(x.dtype)
        x = activation(x)
    return x


def _position(config: Wav2Vec2Config, params: dict[str, Any], x: Array) -> Array:
    """Applies the positional convolution to x [B, T, D]."""
    direction, taps = params["v"], config.num_conv_pos_embeddings
    norm = jnp.sqrt(jnp.sum(direction**2, (1, 2), keepdims=True))
    kernel = direction / norm * params["g"][:, None, None]
    # PyTorch pads both sides by half the taps and drops the last frame when their number is even.
    ahead = taps // 2 - (taps % 2 == 0)
    groups = config.num_conv_pos_embedding_groups

    def convolve(x: Array, kernel: Array, bias: Array) -> Array:
        return _conv(kernel, bias, x, padding=(taps // 2, ahead), groups=groups)

    x = constraints.per_example(convolve)(x, kernel, params["bias"])
    return _ACTIVATIONS[config.feat_extract_activation](x)


def _attention(
    config: Wav2Vec2Config, params: dict[str, Any], x: Array, valid: Array | None, key: Array | None
) -> Array:
    batch, frames, width = x.shape
    heads = (batch, frames, config.num_attention_heads, -1)
    query, key_, value = (
        _dense(params[part], x).reshape(heads) for part in ("q_proj", "k_proj", "v_proj")
    )
    scale = (width // config.num_attention_heads) ** -0.5
    exact = _precision(x)
    logits = jnp.einsum(
        "bqhd,bkhd->bhqk",
        query * jnp.asarray(scale, x.dtype),
        key_,
        precision=exact,
        preferred_element_type=jnp.float32,
    )
    if valid is not None:
        logits = jnp.where(valid[:, None, None], logits, jnp.finfo(jnp.float32).min)
    share = _drop(key, jax.nn.softmax(logits, -1), config.attention_dropout).astype(x.dtype)
    out = jnp.einsum("bhqk,bkhd->bqhd", share, value, precision=exact)
    return _dense(params["out_proj"], out.reshape(x.shape))


def _layer(
    config: Wav2Vec2Config, params: dict[str, Any], x: Array, valid: Array | None, key: Array | None
) -> Array:
    """Applies one transformer layer to x [B, T, D]; `valid` [B, T] marks frames to attend to."""
    keys = _keys(key, 4)
    eps, rate = config.layer_norm_eps, config.hidden_dropout

    def attend(x: Array) -> Array:
        return _drop(keys[1], _attention(config, params["attention"], x, valid, keys[0]), rate)

    def feed(x: Array) -> Array:
        x = _dense(params["feed_forward"]["intermediate_dense"], x)
        x = _drop(keys[2], _ACTIVATIONS[config.hidden_act](x), config.activation_dropout)
        return _drop(keys[3], _dense(params["feed_forward"]["output_dense"], x), rate)

    if config.do_stable_layer_norm:
        x = x + attend(_layer_norm(params["layer_norm"], x, eps))
        return x + feed(_layer_norm(params["final_layer_norm"], x, eps))
    x = _layer_norm(params["layer_norm"], x + attend(x), eps)
    return _layer_norm(params["final_layer_norm"], x + feed(x), eps)


def hidden_states(
    config: Wav2Vec2Config,
    params: dict[str, Any],
    values: Array,
    *,
    layers: int,
    dtype: Any = jnp.float32,
    lengths: Array | None = None,
    count_padding: bool = False,
    given: Statistics | None = None,
    key: Array | None = None,
    remat: bool = False,
) -> list[Array]:
    """Returns the hidden states of the first `layers` layers.

    Args:
      config: architecture.
      params: parameters; layers beyond `layers` may be missing.
      values: [B, S] normalised audio.
      layers: number of transformer layers to run.
      dtype: dtype of activations; norms and attention weights are computed in float32.
      lengths: [B] valid samples of each example; all when None.
      count_padding: whether the group norm includes samples beyond `lengths`.
      given: statistics of the group norm; see `Statistics`.
      key: random key of dropout and masking; None when not training.
      remat: whether the backward pass recomputes the activations of layers.

    Returns:
      `layers + 1` arrays [B, T', D]: the input of the first layer, then the output of each layer,
      without the final norm of `do_stable_layer_norm`.
    """
    keys = _keys(key, 5)
    x = encode_waveform(
        config,
        params,
        values.astype(dtype),
        lengths=None if count_padding else lengths,
        given=given,
    )
    frames = x.shape[1]
    project = params["feature_projection"]
    if config.feat_proj_layer_norm:
        x = _layer_norm(project["layer_norm"], x, config.layer_norm_eps)
    x = _drop(keys[0], _dense(project["projection"], x), config.feat_proj_dropout)

    existing = jnp.full(x.shape[0], frames) if lengths is None else config.frames(lengths)
    if key is not None and config.apply_spec_augment:
        x = spec_augment(config, params, x, existing, [k for k in keys[1:3] if k is not None])
    valid = None
    if lengths is not None:
        valid = jnp.arange(frames) < existing[:, None]
        x = jnp.where(valid[..., None], x, jnp.zeros((), x.dtype))

    encoder = params["encoder"]
    x = x + _position(config, encoder["pos_conv_embed"]["conv"], x)
    if not config.do_stable_layer_norm:
        x = _layer_norm(encoder["layer_norm"], x, config.layer_norm_eps)
    x = _drop(keys[3], x, config.hidden_dropout)

    run: Callable[..., Array] = functools.partial(_layer, config)
    if remat:
        run = jax.checkpoint(run)
    hidden = [x]
    for i, layer_key in enumerate(_keys(keys[4], layers)):
        layer = encoder["layers"][str(i)]
        if layer_key is None or config.layerdrop == 0:
            x = run(layer, x, valid, layer_key)
        else:
            skip = jax.random.bernoulli(jax.random.fold_in(layer_key, 1), config.layerdrop)
            x = jax.lax.cond(
                skip, lambda x, *_: x, lambda x, p, k: run(p, x, valid, k), x, layer, layer_key
            )
        hidden.append(x)
    return hidden


def final_norm(config: Wav2Vec2Config, params: dict[str, Any], x: Array) -> Array:
    """Applies the norm after the last layer where the architecture has one."""
    if not config.do_stable_layer_norm:
        return x
    return _layer_norm(params["encoder"]["layer_norm"], x, config.layer_norm_eps)
