"""Attention among near frames against the dense one, written a second time."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from a2fjax.models import attention, flops
from a2fjax.models.attention import Attention

WINDOW, HEADS, DEPTH = 4, 2, 3
local_attention = jax.jit(attention.local_attention, static_argnums=5)


def inputs(frames, items=2, seed=0):
    rng = np.random.default_rng(seed)
    query, key, value = rng.normal(size=(3, items, frames, HEADS, DEPTH)).astype(np.float32)
    bias = rng.normal(size=(HEADS, 2 * WINDOW + 1)).astype(np.float32)
    return query, key, value, rng.random((items, frames)) < 0.8, bias


def dense(query, key, value, valid, bias):
    """Every frame with every other, one at a time."""
    out = np.zeros_like(query)
    items, frames = valid.shape
    for b, t, h in np.ndindex(items, frames, HEADS):
        near = [s for s in range(frames) if abs(s - t) <= WINDOW and valid[b, s]]
        if near:
            logits = [
                query[b, t, h] @ key[b, s, h] / DEPTH**0.5 + bias[h, s - t + WINDOW] for s in near
            ]
            weights = np.exp(logits - np.max(logits))
            out[b, t, h] = weights / weights.sum() @ value[b, near, h]
    return out


@pytest.mark.parametrize("frames", [1, WINDOW - 1, WINDOW, WINDOW + 1, 2 * WINDOW, 2 * WINDOW + 3])
def test_it_is_dense_attention_with_a_mask(frames):
    args = inputs(frames)
    found = local_attention(*(jnp.asarray(x) for x in args), WINDOW)
    np.testing.assert_allclose(found, dense(*args), atol=1e-5)


def test_frames_without_anything_to_attend_to_get_zeros():
    query, key, value, valid, bias = inputs(3 * WINDOW)
    valid[:] = False
    valid[0, 0] = True
    found = np.asarray(local_attention(query, key, value, jnp.asarray(valid), bias, WINDOW))
    assert np.abs(found[0, : WINDOW + 1]).min() > 0
    assert not found[0, WINDOW + 1 :].any() and not found[1].any()


def test_only_frames_inside_the_window_have_influence():
    frames, at = 4 * WINDOW + 1, 2 * WINDOW - 1
    query, key, value, valid, bias = (jnp.asarray(x) for x in inputs(frames, items=1))
    valid = jnp.ones_like(valid)

    def of_one(key, value):
        return jnp.sum(jnp.sin(local_attention(query, key, value, valid, bias, WINDOW)[0, at]))

    for gradient in jax.jit(jax.grad(of_one, argnums=(0, 1)))(key, value):
        seen = np.abs(np.asarray(gradient[0])).max((1, 2)) > 0
        distance = np.abs(np.arange(frames) - at)
        np.testing.assert_array_equal(seen, distance <= WINDOW)


def test_what_is_not_valid_may_hold_any_number():
    query, key, value, valid, bias = inputs(2 * WINDOW + 1)
    before = local_attention(query, key, value, jnp.asarray(valid), bias, WINDOW)
    other = [np.where(valid[..., None, None], x, 1e4).astype(np.float32) for x in (key, value)]
    after = local_attention(query, *other, jnp.asarray(valid), bias, WINDOW)
    np.testing.assert_array_equal(before, after)


def test_a_frame_is_the_same_wherever_the_blocks_begin():
    query, key, value, _, bias = inputs(5 * WINDOW)
    valid = jnp.ones(query.shape[:2], bool)
    whole = local_attention(query, key, value, valid, bias, WINDOW)
    for cut in (1, WINDOW + 2):
        part = local_attention(
            query[:, cut:], key[:, cut:], value[:, cut:], valid[:, cut:], bias, WINDOW
        )
        np.testing.assert_allclose(part[:, WINDOW:], whole[:, cut + WINDOW :], atol=1e-6)


def test_work_grows_with_length_and_not_with_its_square():
    def work(frames):
        args = [jax.ShapeDtypeStruct(x.shape, x.dtype) for x in inputs(frames)]
        return flops.flops(lambda *each: attention.local_attention(*each, WINDOW), *args)["dot"]

    assert work(8 * WINDOW) == 4 * work(2 * WINDOW)
    assert work(64 * WINDOW) == 32 * work(2 * WINDOW)


def test_frames_beyond_the_reach_cost_more_the_further_they_are():
    """With keys that are all alike the weights are those of distance alone."""
    layer = Attention(heads=1, window=6, reach=2.0)
    frames = 13
    x = jnp.asarray(np.random.default_rng(0).normal(size=(1, frames, 4)), jnp.float32)
    valid = jnp.ones((1, frames), bool)
    key = jnp.zeros((1, frames, 1, 4))
    params = jax.jit(layer.init)(jax.random.key(0), x, valid, (key, key))
    params["params"]["out"]["kernel"] = jnp.eye(4)

    @jax.jit
    def of_middle(value):
        return (layer.apply(params, x, valid, (key, value)) - x)[0, 6, 0]

    weights = np.array([of_middle(key.at[0, i].set(1.0)) for i in range(frames)])
    assert weights.sum() == pytest.approx(1.0, rel=1e-5)
    np.testing.assert_allclose(weights, weights[::-1], rtol=1e-5)
    np.testing.assert_allclose(weights[4:9], weights[6], rtol=1e-5)
    # 0.2 a frame at the start.
    np.testing.assert_allclose(weights[3::-1] / weights[6], np.exp(-0.2 * np.arange(1, 5)), 1e-4)


def test_at_the_start_a_layer_changes_nothing():
    layer = Attention(heads=2, window=3, reach=1.0)
    x = jnp.asarray(np.random.default_rng(0).normal(size=(2, 8, 4)), jnp.float32)
    valid = jnp.ones((2, 8), bool)
    params = jax.jit(layer.init)(jax.random.key(0), x, valid)
    np.testing.assert_array_equal(jax.jit(layer.apply)(params, x, valid), x)
