"""wav2vec 2.0 against an independent network in float64 NumPy; layers, masks, gradients."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy import special

from a2fjax.encoders import wav2vec2
from a2fjax.encoders.wav2vec2 import masking
from a2fjax.errors import InputError


def reference(layout, params, audio, lengths=None, whole_norm=True):
    """Returns hidden states by loops over frames and heads in float64, without shared code."""
    act = {
        "gelu": lambda x: 0.5 * x * (1 + special.erf(x / np.sqrt(2))),
        "quick_gelu": lambda x: x / (1 + np.exp(-1.702 * x)),
    }
    gelu = act[layout.feat_extract_activation]
    p = jax.tree.map(lambda x: np.asarray(x, np.float64), params)

    def conv(x, layer, stride, groups=1):
        kernel = layer["kernel"]
        taps, width, out = kernel.shape
        y = np.zeros((1 + (len(x) - taps) // stride, out))
        for i in range(len(y)):
            window = x[i * stride : i * stride + taps]
            for g in range(groups):
                cut = slice(g * out // groups, (g + 1) * out // groups)
                part = window[:, g * width : (g + 1) * width]
                y[i, cut] = np.einsum("kc,kco->o", part, kernel[:, :, cut])
        return y + layer.get("bias", 0.0)

    def norm(x, layer, eps, axis=-1, window=None):
        window = x if window is None else window
        mean, var = window.mean(axis, keepdims=True), window.var(axis, keepdims=True)
        return (x - mean) / np.sqrt(var + eps) * layer["scale"] + layer["bias"]

    def dense(x, layer):
        return x @ layer["kernel"] + layer["bias"]

    def attention(x, layer, valid):
        parts = [dense(x, layer[n]) for n in ("q_proj", "k_proj", "v_proj")]
        out = []
        for q, k, v in zip(
            *(np.split(x, layout.num_attention_heads, -1) for x in parts), strict=True
        ):
            e = np.exp(q @ k.T / np.sqrt(q.shape[-1])) * valid
            out.append(e / e.sum(-1, keepdims=True) @ v)
        return dense(np.concatenate(out, -1), layer["out_proj"])

    def feed(x, layer):
        x = act[layout.hidden_act](dense(x, layer["intermediate_dense"]))
        return dense(x, layer["output_dense"])

    def one(audio, length):
        x = audio[:, None].astype(np.float64)
        for i in range(len(layout.conv_dim)):
            layer = p["feature_extractor"]["conv_layers"][str(i)]
            x = conv(x, layer["conv"], layout.conv_stride[i])
            if layout.feat_extract_norm == "layer":
                x = norm(x, layer["layer_norm"], 1e-5)
            elif i == 0:
                window = (
                    x
                    if whole_norm
                    else x[: (length - layout.conv_kernel[0]) // layout.conv_stride[0] + 1]
                )
                x = norm(x, layer["layer_norm"], 1e-5, 0, window)
            x = gelu(x)
        eps = layout.layer_norm_eps
        if layout.feat_proj_layer_norm:
            x = norm(x, p["feature_projection"]["layer_norm"], eps)
        x = dense(x, p["feature_projection"]["projection"])
        valid = np.arange(len(x)) < (length - 400) // 320 + 1
        x = x * valid[:, None]
        layer = p["encoder"]["pos_conv_embed"]["conv"]
        taps = layout.num_conv_pos_embeddings
        kernel = np.stack(
            [g * v / np.linalg.norm(v) for g, v in zip(layer["g"], layer["v"], strict=True)]
        )
        padded = np.pad(x, ((taps // 2, taps // 2), (0, 0)))
        positions = conv(
            padded,
            {"kernel": kernel, "bias": layer["bias"]},
            1,
            layout.num_conv_pos_embedding_groups,
        )[: len(x)]
        x = x + gelu(positions)
        stable = layout.do_stable_layer_norm
        top = p["encoder"]["layer_norm"]
        x = x if stable else norm(x, top, eps)
        states = [x]
        for i in range(layout.num_hidden_layers):
            layer = p["encoder"]["layers"][str(i)]
            first, second = layer["layer_norm"], layer["final_layer_norm"]
            if stable:
                x = x + attention(norm(x, first, eps), layer["attention"], valid)
                x = x + feed(norm(x, second, eps), layer["feed_forward"])
            else:
                x = norm(x + attention(x, layer["attention"], valid), first, eps)
                x = norm(x + feed(x, layer["feed_forward"]), second, eps)
            states.append(x)
        return np.stack(states), norm(x, top, eps) if stable else x

    lengths = [audio.shape[1]] * len(audio) if lengths is None else lengths
    states, features = zip(*map(one, audio, lengths), strict=True)
    return np.stack(states, 1), np.stack(features)


@pytest.mark.parametrize(
    ("name", "masked"),
    [
        ("base", "all"),
        ("large", "all"),
        ("odd", "all"),
        ("base", "lengths"),
        ("base", "lengths, padding counted"),
        pytest.param("large", "lengths", marks=pytest.mark.slow),
        pytest.param("odd", "lengths", marks=pytest.mark.slow),
    ],
)
def test_parity_with_an_independent_network(tiny, name, masked):
    layout = tiny.LAYOUTS[name]
    if masked == "all":
        layout = dataclasses.replace(layout, **tiny.SEVEN)
    params, audio = tiny.random_params(layout), tiny.noise(2, 3700)
    lengths = None
    if masked != "all":
        lengths = np.array([3700, 2300])
        audio[1, 2300:] = 0
    states, features = reference(layout, params, audio, lengths, "counted" in masked)
    got = tiny.run(
        wav2vec2.Wav2Vec2Encoder(layout),
        params,
        audio,
        all_layers=True,
        lengths=lengths,
        count_padding="counted" in masked,
    )
    assert got.features.shape == (2, 11, 32) and got.hidden_states.shape == (3, 2, 11, 32)
    assert np.abs(states).max() > 1
    np.testing.assert_allclose(got.hidden_states, states, atol=2e-5)
    np.testing.assert_allclose(got.features, features, atol=2e-5)


@pytest.mark.slow
@pytest.mark.parametrize("name", ["base", "large", "odd"])
def test_every_weight_matters(tiny, name):
    """Every parameter changes the output, so the parity tests would detect a missing one."""
    layout = tiny.LAYOUTS[name]
    weights = tiny.noise(11, 32, 3)

    def loss(p):
        features = wav2vec2.Wav2Vec2Encoder(layout).apply(p, tiny.noise(1, 3700)).features
        return jnp.sum(weights * features[0])

    idle = set()
    for path, slope in jax.tree_util.tree_leaves_with_path(
        tiny.compiled(jax.grad(loss))(tiny.random_params(layout))
    ):
        if np.abs(slope).max() < 1e-5:
            idle.add(jax.tree_util.keystr(path, simple=True, separator="/"))
    # A bias of keys shifts all logits of a query alike; one before a group norm is taken off.
    expected = {"masked_spec_embed"}
    expected |= {f"encoder/layers/{i}/attention/k_proj/bias" for i in range(2)}
    if name == "odd":
        expected.add("feature_extractor/conv_layers/0/conv/bias")
    assert idle == expected


@pytest.mark.parametrize("name", ["base", pytest.param("large", marks=pytest.mark.slow)])
def test_padding_changes_features_only_with_count_padding(tiny, name):
    layout = dataclasses.replace(tiny.LAYOUTS[name], num_hidden_layers=1)
    encoder, params = wav2vec2.Wav2Vec2Encoder(layout), tiny.random_params(layout)
    audio = tiny.noise(2, 8000)
    audio[1, 5003:] = 0
    lengths = jnp.array([8000, 5003])
    alone = tiny.run(encoder, params, audio[1:, :5003]).features[0]
    both = tiny.run(encoder, params, audio, lengths=lengths).features[1]
    np.testing.assert_allclose(both[: len(alone)], alone, atol=1e-5)
    counted = tiny.run(encoder, params, audio, lengths=lengths, count_padding=True).features[1]
    differs = np.abs(counted[: len(alone)] - alone).max() > 1e-2
    assert differs == (layout.feat_extract_norm == "group")


@pytest.mark.slow
@pytest.mark.parametrize("name", ["base", "large"])
def test_padding_changes_no_motion_frame(tiny, name):
    encoder, params = (
        wav2vec2.Wav2Vec2Encoder(tiny.LAYOUTS[name]),
        tiny.random_params(tiny.LAYOUTS[name]),
    )
    audio = tiny.noise(2, 8000)
    audio[1, 5003:] = 0
    lengths = jnp.array([8000, 5003])
    alone = tiny.motion_features(encoder, params, audio[1:, :5003]).features[0]
    both = tiny.motion_features(encoder, params, audio, lengths=lengths).features[1]
    assert len(alone) == 16
    np.testing.assert_allclose(both[:16], alone, atol=1e-5)


@pytest.mark.slow
def test_remat_gives_the_same_gradient_and_keeps_less(tiny):
    params, audio = tiny.random_params(tiny.BASE), tiny.noise(1, 32000)
    slopes, sizes = [], []
    for remat in (False, True):
        encoder = wav2vec2.Wav2Vec2Encoder(tiny.BASE, remat=remat)

        def loss(p, encoder=encoder):
            return jnp.mean(encoder.apply(p, audio).features ** 3)

        slopes.append(tiny.compiled(jax.grad(loss))(params))
        # What a backward pass holds on to are the leaves of its function.
        residuals = jax.eval_shape(lambda p, f=loss: jax.vjp(f, p)[1], params)
        sizes.append(sum(leaf.size for leaf in jax.tree.leaves(residuals)))
    for one, other in zip(*map(jax.tree.leaves, slopes), strict=True):
        np.testing.assert_allclose(one, other, atol=1e-5)
    attention = tiny.BASE.num_hidden_layers * tiny.BASE.num_attention_heads * 99**2
    assert sizes[0] - sizes[1] > 2 * attention


def test_spans(tiny):
    drawn = tiny.compiled(masking.sample_mask_spans, static_argnums=(1, 3, 4, 5))
    key = jax.random.key(3)
    lengths = jnp.array([200, 200, 120, 4] * 500)
    masked = np.asarray(drawn(key, 200, lengths, 0.2, 10))
    assert not masked[2::4, 120:].any() and not masked[3::4].any()
    # 4 spans of 10 at starts without replacement among 191: the chance that none covers a frame
    # far from the ends is C(181, 4) / C(191, 4).
    inside = masked[0::4, 30:170].mean()
    none = np.prod([(181 - i) / (191 - i) for i in range(4)])
    np.testing.assert_allclose(inside, 1 - none, atol=0.01)
    # 2.4 spans on average for a length of 120.
    start = np.asarray(drawn(key, 200, lengths, 0.2, 1))[2::4].sum(1)
    assert set(start) == {24}
    count = np.asarray(drawn(key, 100, jnp.full(2000, 100), 0.105, 1)).sum(1)
    assert set(count) == {10, 11}
    np.testing.assert_allclose(count.mean(), 10.5, atol=0.05)
    few = np.asarray(drawn(key, 100, jnp.full(50, 100), 0.0, 5, 2)).sum(1)
    assert few.min() >= 6 and few.max() == 10
    assert not np.asarray(drawn(key, 8, jnp.full(50, 8), 1.0, 10, 2)).any()
    again = np.asarray(drawn(jax.random.key(4), 200, lengths, 0.2, 10))
    assert (again != masked).any()


def test_a_masked_frame_does_not_depend_on_audio(tiny):
    layout = dataclasses.replace(
        tiny.BASE,
        **{**tiny.PLAIN, "mask_time_prob": 1.0, "mask_time_length": 1, "num_hidden_layers": 1},
    )
    encoder, params, key = (
        wav2vec2.Wav2Vec2Encoder(layout),
        tiny.random_params(layout),
        jax.random.key(0),
    )
    one, other = (
        tiny.run(encoder, params, tiny.noise(2, 6500, seed), key=key, train=True).features
        for seed in (1, 2)
    )
    np.testing.assert_allclose(one, other, atol=1e-5)
    assert np.abs(one[0] - tiny.run(encoder, params, tiny.noise(2, 6500)).features[0]).max() > 0.1


@pytest.mark.slow
def test_training_masks_and_drops_as_configured(tiny):
    small = dataclasses.replace(tiny.BASE, num_hidden_layers=1)
    params, audio = tiny.random_params(small), tiny.noise(2, 8000)
    key = jax.random.key(0)

    def train(key=key, audio=audio, **options):
        layout = dataclasses.replace(small, **{**tiny.PLAIN, **options})
        encoder = wav2vec2.Wav2Vec2Encoder(layout)
        return np.asarray(tiny.run(encoder, params, audio, key=key, train=True).features)

    still = np.asarray(tiny.run(wav2vec2.Wav2Vec2Encoder(small), params, audio).features)
    np.testing.assert_allclose(train(), still, atol=1e-6)
    # Every frame masked: the audio is not heard any more.
    deaf = train(mask_time_prob=1.0, mask_time_length=1)
    np.testing.assert_allclose(
        deaf,
        train(key, tiny.noise(2, 8000, 9), mask_time_prob=1.0, mask_time_length=1),
        atol=1e-5,
    )
    assert np.abs(deaf - still).max() > 0.1
    off = train(mask_time_prob=1.0, mask_time_length=1, apply_spec_augment=False)
    np.testing.assert_allclose(off, still, atol=1e-6)
    channels = train(mask_feature_prob=1.0, mask_feature_length=1)
    np.testing.assert_allclose(
        channels,
        train(key, tiny.noise(2, 8000, 9), mask_feature_prob=1.0, mask_feature_length=1),
        atol=1e-5,
    )
    zero = np.asarray(tiny.run(wav2vec2.Wav2Vec2Encoder(small), params, audio, layers=0).features)
    np.testing.assert_allclose(train(layerdrop=1.0), zero, atol=1e-5)
    for option in (
        "hidden_dropout",
        "attention_dropout",
        "activation_dropout",
        "feat_proj_dropout",
    ):
        one, other = train(**{option: 0.1}), train(jax.random.key(1), **{option: 0.1})
        assert np.abs(one - still).max() > 1e-3 and np.abs(one - other).max() > 1e-3
        np.testing.assert_array_equal(one, train(**{option: 0.1}))
    with pytest.raises(ValueError, match="needs a key"):
        wav2vec2.Wav2Vec2Encoder(small).apply(params, audio, train=True)


def test_wrong_settings_are_refused(tiny):
    layout = dataclasses.replace(tiny.LAYOUTS["base"], num_hidden_layers=2)
    encoder, params = wav2vec2.Wav2Vec2Encoder(layout), tiny.random_params(layout)
    without = {**params, "encoder": {**params["encoder"], "layers": {}}}
    with pytest.raises(ValueError, match="2 layers asked for, the parameters hold 0"):
        encoder.apply(without, tiny.noise(1, 1000), layers=2)
    with pytest.raises(InputError, match="layers=3: the network has 0 to 2"):
        wav2vec2.Wav2Vec2Encoder(layout, layers=3)
    with pytest.raises(InputError, match="did you mean 'bfloat16'"):
        wav2vec2.Wav2Vec2Encoder(layout, precision="bfloat61")
    with pytest.raises(InputError, match="layers 0 to 1"):
        wav2vec2.frozen_patterns(layout, 2)


def test_published_sizes():
    from a2fjax.models.params import count

    for layout, size in ((wav2vec2.BASE, 94_371_712), (wav2vec2.LARGE, 315_438_720)):
        shapes = jax.eval_shape(wav2vec2.Wav2Vec2Encoder(layout).init, jax.random.key(0))
        assert count(shapes) == size
