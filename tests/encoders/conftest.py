"""Small wav2vec 2.0 and HuBERT networks, and what runs them quickly."""

import dataclasses
import functools
import types

import jax
import numpy as np
import pytest

from a2fjax.encoders import wav2vec2 as w

# Two convolutions with the reach and hop of the published seven: quick to compile.
TINY = w.Wav2Vec2Config(
    conv_dim=(12, 12),
    conv_kernel=(40, 10),
    conv_stride=(40, 8),
    hidden_size=32,
    num_hidden_layers=2,
    num_attention_heads=4,
    intermediate_size=48,
    num_conv_pos_embeddings=16,
    num_conv_pos_embedding_groups=4,
)
SEVEN = dict(conv_dim=(12,) * 7, conv_kernel=w.BASE.conv_kernel, conv_stride=w.BASE.conv_stride)
LAYOUTS = {
    "base": TINY,
    "large": dataclasses.replace(
        TINY, conv_bias=True, feat_extract_norm="layer", do_stable_layer_norm=True
    ),
    # A mixture that is neither: odd taps, another activation, no norm before the projection.
    "odd": dataclasses.replace(
        TINY,
        model_type="hubert",
        conv_bias=True,
        num_conv_pos_embeddings=7,
        hidden_act="quick_gelu",
        feat_proj_layer_norm=False,
        layer_norm_eps=1e-3,
    ),
}
PLAIN = dict(
    hidden_dropout=0.0,
    attention_dropout=0.0,
    activation_dropout=0.0,
    layerdrop=0.0,
    mask_time_prob=0.0,
)


# Nothing here runs long enough to be worth optimising.
compiled = functools.partial(jax.jit, compiler_options={"xla_backend_optimization_level": 0})


@functools.partial(
    compiled, static_argnames=("encoder", "layers", "all_layers", "count_padding", "train")
)
def run(encoder, params, audio, **options):
    return encoder.apply(params, audio, **options)


@functools.partial(compiled, static_argnames=("encoder", "layers", "all_layers"))
def motion(encoder, params, audio, **options):
    return encoder.motion(params, audio, **options)


@functools.cache
def random_params(layout, seed=0):
    """Parameters none of which is at a value that hides its being left out."""
    rng = np.random.default_rng(seed)
    shapes = jax.eval_shape(w.Wav2Vec2Encoder(layout).init, jax.random.key(0))

    def draw(path, leaf):
        value = rng.normal(size=leaf.shape)
        last = path[-1].key
        if last in ("scale", "g"):
            value = 1 + 0.2 * value
        elif last in ("bias", "masked_spec_embed"):
            value = 0.1 * value
        else:
            value = value / np.sqrt(np.prod(leaf.shape[:-1]))
        return value.astype(np.float32)

    return jax.tree_util.tree_map_with_path(draw, shapes)


def noise(batch, samples, seed=1):
    return np.random.default_rng(seed).normal(size=(batch, samples)).astype(np.float32)


@pytest.fixture(scope="session")
def tiny():
    """Layouts by name (base, large, and odd, which is neither), and functions of them."""
    return types.SimpleNamespace(
        BASE=TINY,
        LAYOUTS=LAYOUTS,
        SEVEN=SEVEN,
        PLAIN=PLAIN,
        compiled=compiled,
        run=run,
        motion=motion,
        random_params=random_params,
        noise=noise,
    )
