"""The networks of a diffusion model in ONNX: condition encoder, and one step of the U-Net.

Attention is over all frames with a mask, where JAX works in blocks: an item of T frames costs T^2.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from typing import Any

import jax
import numpy as np

from a2fjax.configuration import DiffusionConfig
from a2fjax.export.onnx_graphs import backbone, layers
from a2fjax.export.onnx_graphs.graph_builder import GraphBuilder
from a2fjax.export.source import Source
from a2fjax.models import unet

_MASKED = -1e9


def build_conditions(g: GraphBuilder, source: Source) -> tuple[str, str]:
    """Adds the condition encoder; returns `coarse` [B, T, 72] and `context` [B, T, A]."""
    params = source.variables["params"]["condition_encoder"]
    embedded = backbone.conditions(g, source)
    states, length = backbone.build(g, source, embedded)
    x = g.transpose(states, 1, 0, 2)
    coarse = layers.dense(g, x, params["coarse_prediction"])
    coarse = layers.film(g, coarse, embedded, params["coarse_prediction_film"])
    valid = backbone.inside(g, x, length)
    return g.mul(coarse, valid), g.mul(_norm(g, x, params["norm"]), valid)


@dataclasses.dataclass(frozen=True)
class _Level:
    """Values that all layers of one level of the U-Net share.

    Attributes:
      valid: [B, T, 1] float32.
      audible: [B, 1, 1, T] bool, the same for keys.
      distance: [T, T] int64, of key from query, clipped to the window and from 0 on.
      near: [T, T] bool, distances inside the window.
      conditions: [B, 1 or T, D] each, of FiLM.
      context: [B, T, A].
    """

    valid: str
    audible: str
    distance: str
    near: str
    conditions: Sequence[str]
    context: str


def build_step(g: GraphBuilder, source: Source) -> str:
    """Adds one step of denoising with the inputs of `graphs.denoise.DenoiseGraph`.

    Returns:
      The clean motion [B, T, 72], standardised and within the rig's limits.
    """
    config = source.config.model
    assert isinstance(config, DiffusionConfig)
    params = source.variables["params"]["unet"]
    sizes = config.unet
    *identity, emotion = backbone.conditions(g, source)
    length = g.cast("length", "int64")
    valid = backbone.inside(g, "noisy", length)
    x, coarse, context = (g.mul(name, valid) for name in ("noisy", "coarse", "context"))
    step = _silu(g, layers.dense(g, _level_embedding(g), params["step_0"]))
    step = g.expand(_silu(g, layers.dense(g, step, params["step_1"])), 1)

    levels: list[_Level] = []
    heard = context
    for depth in range(len(sizes.widths)):
        if depth:
            emotion, heard = _pooled(g, emotion, valid), _pooled(g, heard, valid)
            valid = _any(g, valid)
        levels.append(_level(g, valid, [step, *identity, emotion], heard, sizes.window))

    h = layers.dense(g, g.concat(x, coarse, context, axis=2), params["input"])
    encoder = source.variables["params"]["condition_encoder"]
    skips = []
    for depth, level in enumerate(levels):
        for b in range(sizes.blocks):
            name = f"down_{depth}_{b}"
            h = _block(g, h, level, params[f"{name}_block"])
            if depth:
                h = _attention(g, h, level, params[f"{name}_self"], config, depth, None)
            given = encoder[f"{name}_keys_values"]
            h = _attention(g, h, level, params[f"{name}_audio"], config, depth, given)
        if depth < len(levels) - 1:
            skips.append(h)
            h = g.reshape(g.mul(h, level.valid), 0, -1, 2 * sizes.widths[depth])
            h = layers.dense(g, h, params[f"fold_{depth}"])
    h = _block(g, h, levels[-1], params["middle_block"])
    for depth in reversed(range(len(levels) - 1)):
        h = g.reshape(layers.dense(g, h, params[f"unfold_{depth}"]), 0, -1, sizes.widths[depth])
        h = _block(g, g.concat(h, skips[depth], axis=2), levels[depth], params[f"up_{depth}_block"])
        if depth:
            h = _attention(g, h, levels[depth], params[f"up_{depth}_self"], config, depth, None)
    h = _silu(g, _norm(g, h, params["norm"]))
    clean = _clean(g, config.target, layers.dense(g, h, params["output"]), x, coarse)
    low, high = (np.asarray(bound) for bound in source.model.bounds(source.variables["constants"]))
    return str(g.node("Min", g.node("Max", clean, g.constant(low)), g.constant(high)))


def _level(
    g: GraphBuilder, valid: str, conditions: Sequence[str], context: str, window: int
) -> _Level:
    place = g.count(valid, 1)
    distance = g.sub(g.expand(place, 0), g.expand(place, 1))
    near = g.node("LessOrEqual", g.node("Abs", distance), g.constant(window, np.int64))
    shifted = g.add(distance, g.constant(window, np.int64))
    clipped = g.node("Clip", shifted, g.constant(0, np.int64), g.constant(2 * window, np.int64))
    audible = g.cast(g.expand(g.transpose(valid, 0, 2, 1), 1), "bool")
    return _Level(valid, audible, str(clipped), str(near), conditions, context)


def _pooled(g: GraphBuilder, x: str, valid: str) -> str:
    """Adds `models.unet.pooled`; `valid` is [B, T, 1] float32."""
    width = g.node("Shape", x, start=2, end=3)
    shape = g.concat(g.ints(0, -1, 2), str(width), axis=0)
    summed = g.sum(str(g.node("Reshape", g.mul(x, valid), shape)), 2)
    count = g.sum(g.reshape(valid, 0, -1, 2, 1), 2)
    return g.div(summed, g.at_least(count, 1.0))


def _any(g: GraphBuilder, valid: str) -> str:
    """Returns [B, T / 2, 1]: 1 where one of two frames is valid."""
    return str(g.node("ReduceMax", g.reshape(valid, 0, -1, 2, 1), g.ints(2), keepdims=0))


def _block(g: GraphBuilder, x: str, level: _Level, params: Mapping[str, Any]) -> str:
    """Adds `models.unet.ResidualBlock`."""
    h = g.mul(_silu(g, _norm(g, x, params["norm_0"])), level.valid)
    h = _norm(g, _conv(g, h, params["conv_0"]), params["norm_1"])
    h = _silu(g, layers.film(g, h, level.conditions, params["film"]))
    if "skip" in params:
        x = layers.dense(g, x, params["skip"])
    return g.add(x, _conv(g, g.mul(h, level.valid), params["conv_1"]))


def _attention(
    g: GraphBuilder,
    x: str,
    level: _Level,
    params: Mapping[str, Any],
    config: DiffusionConfig,
    depth: int,
    over_context: Mapping[str, Any] | None,
) -> str:
    """Adds `models.attention.Attention`.

    Args:
      g: the graph.
      x: [B, T, C].
      level: of the U-Net.
      params: of the layer.
      config: of the model.
      depth: number of the level.
      over_context: kernel of keys and values of the context; None attends to x itself.
    """
    sizes = config.unet
    width = sizes.widths[depth]
    normed = _norm(g, x, params["norm"])
    source = normed if over_context is None else level.context
    both = layers.dense(g, source, over_context or params["self_keys_values"])
    key, value = g.node("Split", both, outputs=2, axis=-1, num_outputs=2)
    query = layers.dense(g, normed, params["query"])
    query, key, value = (
        g.reshape(each, 0, 0, sizes.heads, width // sizes.heads) for each in (query, key, value)
    )
    logits = g.node("MatMul", g.transpose(query, 0, 2, 1, 3), g.transpose(key, 0, 2, 3, 1))
    logits = g.div(str(logits), g.constant((width // sizes.heads) ** 0.5))
    bias = np.asarray(params["by_distance"])
    if "price" in params:
        reach = sizes.window if over_context is None else sizes.reach / 2**depth
        beyond = np.maximum(np.abs(np.arange(-sizes.window, sizes.window + 1)) - reach, 0.0)
        bias = bias - np.asarray(jax.nn.softplus(params["price"])) * beyond
    logits = g.add(logits, str(g.node("Gather", g.constant(bias), level.distance, axis=1)))
    allowed = str(g.node("And", level.near, level.audible))
    masked = g.where(allowed, logits, g.constant(_MASKED))
    weights = g.where(allowed, str(g.node("Softmax", masked, axis=-1)), g.constant(0.0))
    out = g.node("MatMul", weights, g.transpose(value, 0, 2, 1, 3))
    out = g.reshape(g.transpose(str(out), 0, 2, 1, 3), 0, 0, width)
    return g.add(x, layers.dense(g, out, params["out"]))


def _level_embedding(g: GraphBuilder) -> str:
    """Adds `models.unet.level_embedding` of the inputs `alpha` and `sigma`."""
    alpha, sigma = (
        str(g.node("Log", g.at_least(name, unet.LEAST_SHARE))) for name in ("alpha", "sigma")
    )
    size = g.at_most(g.at_least(g.sub(alpha, sigma), -unet.SNR_RANGE), unet.SNR_RANGE)
    size = g.expand(g.div(size, g.constant(unet.SNR_RANGE)), 1)
    angles = g.mul(size, g.constant(np.pi * unet.FREQUENCIES))
    return g.concat(size, str(g.node("Sin", angles)), str(g.node("Cos", angles)), axis=1)


def _clean(g: GraphBuilder, target: str, correction: str, x: str, coarse: str) -> str:
    """Returns the clean motion of a correction; see `a2fjax.diffusion.targets`."""
    a, s = (g.expand(g.expand(name, 1), 2) for name in ("alpha", "sigma"))
    guess = g.add(g.mul(a, x), g.mul(g.mul(s, s), coarse))
    noise = g.mul(s, g.sub(x, g.mul(a, coarse)))
    if target == "x0":
        return g.add(guess, correction)
    if target == "eps":
        return g.div(g.sub(x, g.mul(s, g.add(noise, correction))), a)
    velocity = g.add(g.sub(g.mul(a, noise), g.mul(s, guess)), correction)
    return g.sub(g.mul(a, x), g.mul(s, velocity))


def _norm(g: GraphBuilder, x: str, params: Mapping[str, Any]) -> str:
    scale, bias = g.constant(params["scale"]), g.constant(params["bias"])
    epsilon = layers.LAYER_NORM_EPSILON
    return str(g.node("LayerNormalization", x, scale, bias, axis=-1, epsilon=epsilon))


def _conv(g: GraphBuilder, x: str, params: Mapping[str, Any]) -> str:
    """Returns the convolution of three frames of x [B, T, C]."""
    kernel = g.constant(np.transpose(params["kernel"], (2, 1, 0)))
    bias, x = g.constant(params["bias"]), g.transpose(x, 0, 2, 1)
    out = g.node("Conv", x, kernel, bias, kernel_shape=[3], pads=[1, 1])
    return g.transpose(str(out), 0, 2, 1)


def _silu(g: GraphBuilder, x: str) -> str:
    return g.mul(x, str(g.node("Sigmoid", x)))
