import dataclasses
import functools

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from a2fjax import rig
from a2fjax.encoders.wav2vec2 import config as encoder_config
from a2fjax.encoders.wav2vec2 import weight_map
from a2fjax.errors import InputError
from a2fjax.models.nvidia import layers, weights
from a2fjax.models.nvidia.conv_w2v_autocorr import autocorrelation
from a2fjax.models.nvidia.conv_w2v_autocorr import network as regression
from a2fjax.models.nvidia.conv_w2v_autocorr.on_features import ConvW2vAutocorrOnFeatures
from a2fjax.models.nvidia.diffusion_rnn import network as diffusion
from a2fjax.models.nvidia.diffusion_rnn.on_features import DiffusionRnnOnFeatures
from a2fjax.models.nvidia.emotions import EMOTION_TO_NVIDIA, explicit_emotion
from a2fjax.models.nvidia.frame_layout import RIG, FrameLayout
from a2fjax.models.params import count, paths, split

GEOMETRY = FrameLayout(6, 5, 15, 4)
LAYOUTS = pytest.mark.parametrize(
    "out",
    [pytest.param(GEOMETRY, id="geometry"), pytest.param(RIG, id="rig", marks=pytest.mark.slow)],
)
FRAMES = 9


def small_regression(out, **changes):
    size = regression.Size(
        out,
        encoder_layers=2,
        encoder_width=7,
        implicit=4,
        explicit_width=3,
        width=8,
        lag_widths=(3, 4, 5, 6),
    )
    return dataclasses.replace(size, **changes)


def small_diffusion(out, **changes):
    size = diffusion.Size(
        out,
        encoder_width=7,
        steps=11,
        width=8,
        tongue_width=3,
        jaw_width=4,
        eyes_width=2,
        emotion_width=5,
        actor_width=4,
        recurrent_width=8,
    )
    return dataclasses.replace(size, **changes)


def example(size, items=3, frames=FRAMES, seed=0):
    rng = np.random.default_rng(seed)
    depth = (size.encoder_layers,) if isinstance(size, regression.Size) else ()
    batch = {
        "audio": 0.1 * rng.normal(size=(items, frames * 320)),
        "features": rng.normal(size=(items, frames, *depth, size.encoder_width)),
        "emotion": rng.dirichlet(np.ones(5), (items, frames)),
    }
    batch = {name: value.astype(np.float32) for name, value in batch.items()}
    return {**batch, "length": np.full(items, frames, np.int32)}


def quick_key(seed):
    """A key whose draws compile in a fraction of the time of the default ones."""
    return jax.random.key(seed, impl="unsafe_rbg")


def random_parameters(model, batch, seed=7):
    """Parameters away from their zeros, so that every path of the network is open."""
    rng = np.random.default_rng(seed)

    def draw(leaf):
        fan_in = np.prod(leaf.shape[:-1]) if len(leaf.shape) > 1 else 10.0
        return (rng.normal(size=leaf.shape) / fan_in**0.5).astype(leaf.dtype)

    params = jax.tree.map(draw, jax.eval_shape(model.init, jax.random.key(0), batch))
    if "w2v_feature_coeffs" in params["params"]:
        params["params"]["w2v_feature_coeffs"] = np.array([0.7, 1.6], np.float32)
    return {**params, "constants": model.constants}


# Counts of parameters, computed from shapes alone.


def encoder_shapes(kind, transformer_layers):
    config = encoder_config.Wav2Vec2Config(model_type=kind)
    init = functools.partial(weight_map.init_params, config=config, layers=transformer_layers)
    shapes = jax.eval_shape(init, jax.random.key(0))
    if kind == "wav2vec2":
        # NVIDIA takes torchaudio's, which has no vector that stands for masked frames.
        assert shapes.pop("masked_spec_embed").shape == (768,)
    return shapes


def shapes_of(size):
    if isinstance(size, regression.Size):
        network, deep = regression.Network(size), (size.encoder_layers, size.encoder_width)
        inputs = [(1, 1, 25, 32), (1, 1, 25, *deep), (1, 1, size.implicit), (1, 1, size.explicit)]
    else:
        network, wide = diffusion.Network(size), size.layout.width
        inputs = [
            (1, 2, wide),
            (1,),
            (1, 2, size.stack * size.encoder_width),
            (1, size.actors),
            (1, size.explicit),
            (size.actors, wide),
        ]
    zeros = [jax.ShapeDtypeStruct(s, jnp.float32 if len(s) > 1 else jnp.int32) for s in inputs]
    return jax.eval_shape(network.init, jax.random.key(0), *zeros)["params"]


@pytest.mark.parametrize(
    "size, published, trainable",
    [
        (regression.MARK, 18_273_331, 1_868_979),
        (regression.Size(FrameLayout(96, 10, 15, 4)), 18_152_243, 1_747_891),
        (regression.Size(FrameLayout(140, 10, 15, 4), phonemes=(42,)), 18_581_229, 2_176_877),
    ],
    ids=["Mark v2.3", "Claire example", "Claire's head with phonemes"],
)
def test_regression_has_the_published_count(size, published, trainable):
    own = count(shapes_of(size))
    assert own == trainable
    encoder = count(encoder_shapes("wav2vec2", size.encoder_layers))
    assert encoder == 16_404_352
    assert own + encoder == published


def test_four_encoder_layers_and_phonemes_make_the_size_on_claires_card():
    size = dataclasses.replace(regression.CLAIRE, phonemes=(42,))
    encoders = [count(encoder_shapes("wav2vec2", n)) for n in (1, 4)]
    assert encoders[1] - encoders[0] == 3 * 7_087_872
    assert f"{count(shapes_of(size)) + encoders[1]:.3g}" == "3.98e+07"


@pytest.mark.parametrize(
    "size, width, published, trainable",
    [
        (diffusion.V3, 88_831, 179_664_830, 160_893_630),
        (diffusion.Size(FrameLayout(4_500, 1_560, 15, 4)), 6_079, 102_344_998, 83_573_798),
    ],
    ids=["v3.0", "Claire example"],
)
def test_diffusion_has_the_published_count(size, width, published, trainable):
    assert size.layout.width == width
    encoder = encoder_shapes("hubert", diffusion.ENCODER_LAYERS)
    assert count(encoder) == 94_371_712
    trained, frozen = split(encoder, diffusion.FROZEN_ENCODER)
    assert count(trained) + count(frozen) == count(encoder)
    own = count(shapes_of(size))
    assert own + count(encoder) == published
    assert own + count(trained) == trainable


def test_the_recurrence_hears_861_numbers_and_most_of_v3_is_three_matrices():
    shapes = shapes_of(diffusion.V3)
    assert shapes["gru"]["ih_l0"]["kernel"].shape == (861, 3 * 256)
    vertices = [
        shapes["skin_embedding"]["linear_0"],
        shapes["final_layer_skin"]["linear_2"],
        shapes["final_layer_tongue"]["linear_2"],
    ]
    assert count(dict(enumerate(vertices))) / count(shapes) == pytest.approx(0.97, abs=0.005)


# What the regression network hears.


def numpy_windows(audio, centre):
    """[25, 640] of a frame at sample `centre`, zeros beyond the ends; float64."""
    padded = np.pad(np.asarray(audio, np.float64), 20_000)
    start = 20_000 + centre - 4160
    return np.stack([padded[start + 320 * i : start + 320 * i + 640] for i in range(25)])


def numpy_autocorrelation(windows):
    n = np.arange(640)
    hann = 0.5 - 0.5 * np.cos(2 * np.pi * n / 639)
    out = []
    for window in windows:
        window = (window - window.mean()) * hann
        full = np.correlate(window, window, "full")
        out.append(full[639 : 639 + 32] / 640)
    return np.stack(out)


@pytest.mark.parametrize("loud", [0.005, 0.3], ids=["quiet", "loud"])
def test_frames_hear_the_autocorrelation_of_half_a_second(loud):
    rng = np.random.default_rng(0)
    audio = np.cumsum(rng.normal(size=12_000)) + rng.normal(size=12_000)
    audio = (loud * audio / np.abs(audio).max()).astype(np.float32)
    factor = autocorrelation.norm_factor(audio)
    assert factor == pytest.approx(1.0 if loud < 0.01 else loud)
    centres = np.array([round((i + 0.5) / 30 * 16_000) for i in (0, 1, 10, 22)])
    cut = autocorrelation.buffers(jnp.asarray(audio)[None], jnp.asarray(centres))
    assert cut.shape == (1, 4, 8320)
    value = autocorrelation.buffer_autocorrelation(cut, jnp.array([factor], jnp.float32))
    assert value.shape == (1, 4, 25, 32)
    for i, centre in enumerate(centres):
        windows = numpy_windows(audio, centre) / factor * 8.912028121636435
        expected = numpy_autocorrelation(windows)
        np.testing.assert_allclose(value[0, i], expected, atol=2e-6 * np.abs(expected).max())


def test_a_tracks_windows_are_those_of_its_frames():
    audio = 0.2 * np.random.default_rng(0).normal(size=(2, 320 * 6)).astype(np.float32)
    factor = jnp.array([0.5, 2.0])
    track = jax.jit(autocorrelation.track_autocorrelation)(audio, factor)
    assert track.shape == (2, 6 + 24, 32)
    cut = autocorrelation.buffers(jnp.asarray(audio), 320 * jnp.arange(6))
    frames = jax.jit(autocorrelation.buffer_autocorrelation)(cut, factor)
    for t in range(6):
        np.testing.assert_allclose(track[:, t : t + 25], frames[:, t], rtol=1e-4, atol=1e-6)


def test_silence_gives_zero_and_a_tone_its_period():
    assert not np.asarray(autocorrelation.autocorrelation(jnp.ones((2, 640)))).round(9).any()
    tone = np.sin(2 * np.pi * 800 / 16_000 * np.arange(640))  # A period of 20 samples.
    lags = np.asarray(autocorrelation.autocorrelation(tone))
    assert lags[1:].argmax() + 1 == 20 and lags.argmin() == 10
    assert lags[0] == pytest.approx(0.5 * 3 / 8, rel=0.01)  # Power times the mean of Hann squared.


def test_a_track_is_its_frames_one_by_one():
    size = small_regression(GEOMETRY, phonemes=(5,))
    network = regression.Network(size)
    rng = np.random.default_rng(0)
    lags = rng.normal(size=(2, FRAMES + 24, 32)).astype(np.float32)
    features = rng.normal(size=(2, FRAMES + 24, 2, 7)).astype(np.float32)
    implicit, explicit = (rng.normal(size=(2, FRAMES, n)).astype("f4") for n in (4, 10))
    model = ConvW2vAutocorrOnFeatures(size)
    params = random_parameters(model, example(size))
    index = np.arange(FRAMES)[:, None] + np.arange(25)
    one = jax.jit(network.apply)(
        {"params": params["params"]}, lags[:, index], features[:, index], implicit, explicit
    )
    all_at_once = jax.jit(lambda *x: network.apply(*x, method=regression.Network.track))(
        {"params": params["params"]}, lags, features, implicit, explicit
    )
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, atol=1e-5), one, all_at_once)
    assert one["phonemes"][0].shape == (2, FRAMES, 25, 5)


# Both networks on batches.


def run(model, params, batch, **kwargs):
    """The output [B, T, D] of either model."""
    if isinstance(model, ConvW2vAutocorrOnFeatures):
        return model.apply(params, batch, **kwargs)["motion"]
    return model.apply(params, batch["noisy"], batch["step"], batch, **kwargs)[0]


def either(kind, out, **changes):
    if kind == "regression":
        model = ConvW2vAutocorrOnFeatures(small_regression(out, **changes))
        batch = example(model.size)
    else:
        model = DiffusionRnnOnFeatures(small_diffusion(out, **changes))
        batch = example(model.size)
        rng = np.random.default_rng(1)
        noisy = rng.normal(size=(3, FRAMES, out.width)).astype(np.float32)
        batch |= {"noisy": noisy, "step": np.array([0, 4, 10])}
    if "actors" in changes:
        batch["actor"] = np.eye(changes["actors"], dtype=np.float32)[[0, 1, 0]]
    return model, batch, random_parameters(model, batch)


KINDS = pytest.mark.parametrize("kind", ["regression", "diffusion"])


@KINDS
@LAYOUTS
def test_output_and_every_gradient_are_finite_and_noise_is_the_keys(kind, out):
    model, batch, params = either(kind, out)
    trainable, frozen = split(params)
    assert set(frozen) == {"constants"}

    def loss(trainable, key):
        motion = run(model, {**trainable, **frozen}, batch, key=key, train=True)
        return jnp.mean((motion - 0.3) ** 2), motion

    step = jax.jit(jax.value_and_grad(loss, has_aux=True))
    (value, motion), gradients = step(trainable, quick_key(0))
    assert motion.shape == (3, FRAMES, out.width) and motion.dtype == jnp.float32
    assert np.isfinite(value) and np.isfinite(motion).all()
    for path, gradient in paths(gradients):
        assert np.isfinite(gradient).all(), path
        assert np.any(gradient != 0.0), path
    assert (motion < -0.1).any()  # Not clipped in training, where that would stop a gradient.
    again, other = (step(trainable, quick_key(i))[0][1] for i in (0, 1))
    np.testing.assert_array_equal(motion, again)
    assert np.abs(motion - other).max() > 1e-3
    with pytest.raises(ValueError, match="key"):
        run(model, params, batch, train=True)


@KINDS
@LAYOUTS
def test_an_item_is_the_same_alone_and_beside_longer_ones(kind, out):
    model, batch, params = either(kind, out)
    apply = jax.jit(lambda batch: run(model, params, batch))
    length = np.array([FRAMES, 5, 1], np.int32)
    together = apply({**batch, "length": length})
    rng = np.random.default_rng(5)
    dirty = {}
    for name, value in batch.items():
        if name in ("audio", "features", "emotion", "noisy"):
            per_frame = value.shape[1] // FRAMES
            beyond = np.arange(value.shape[1]) >= per_frame * length[:, None]
            beyond = beyond.reshape(*beyond.shape, *(1,) * (value.ndim - 2))
            value = np.where(beyond, 9.0 * rng.normal(size=value.shape), value).astype("f4")
        dirty[name] = value
    other = apply({**dirty, "length": length})
    for item, frames in enumerate(length):
        np.testing.assert_allclose(other[item, :frames], together[item, :frames], atol=1e-5)
    # Alone, with nothing behind it.
    alone = {"length": length[1:2]}
    for name, value in batch.items():
        if name != "length":
            per_frame = value.shape[1] // FRAMES if value.ndim > 1 else 0
            alone[name] = value[1:2, : 5 * per_frame] if per_frame else value[1:2]
    np.testing.assert_allclose(apply(alone)[0], together[1, :5], atol=1e-5)


@pytest.mark.slow
@KINDS
def test_bfloat16_is_close(kind):
    model, batch, params = either(kind, GEOMETRY)
    rough = type(model)(model.size, precision="bfloat16")
    exact, value = (jax.jit(lambda b, m=m: run(m, params, b))(batch) for m in (model, rough))
    assert value.dtype == jnp.float32
    assert 0 < np.abs(value - exact).max() < 0.1 * np.abs(exact).max()


def test_a_regression_frame_hears_only_what_is_near():
    model, batch, params = either("regression", GEOMETRY)
    batch = example(model.size, frames=60)
    apply = jax.jit(lambda batch: model.apply(params, batch))
    before = apply(batch)["motion"]
    changed = {**batch, "audio": batch["audio"].copy(), "features": batch["features"].copy()}
    changed["audio"][:, 320 * 30 : 320 * 31] *= 3.0
    moved = np.abs(apply(changed)["motion"] - before).max((0, 2)) > 0
    # 31 hops of sound, each in the windows that are centred up to one hop away.
    assert moved.nonzero()[0].tolist() == list(range(30 - 12, 31 + 12 + 1))
    changed = {**batch, "features": changed["features"]}
    changed["features"][:, 30] *= 3.0
    moved = np.abs(apply(changed)["motion"] - before).max((0, 2)) > 0
    assert moved.nonzero()[0].tolist() == list(range(30 - 12, 30 + 12 + 1))


def test_the_rigs_motion_is_clipped_and_geometry_is_not():
    for out in (RIG, GEOMETRY):
        model, batch, params = either("regression", out)
        high = np.full(out.width, 100.0, np.float32)
        params["constants"] = {"motion_mean": high, "motion_std": np.ones_like(high)}
        motion = jax.jit(model.apply)(params, batch)["motion"]
        assert (motion == rig.MAX).all() if out is RIG else (motion > 50).all()


@pytest.mark.slow
def test_a_few_steps_fit_a_batch():
    model, batch, params = either("regression", GEOMETRY)
    target = np.random.default_rng(2).normal(size=(3, FRAMES, GEOMETRY.width))
    constants = params.pop("constants")
    optimizer = optax.adam(1e-2)

    @jax.jit
    def step(params, state):
        def loss(params):
            motion = model.apply({**params, "constants": constants}, batch)["motion"]
            return jnp.mean((motion - target) ** 2)

        value, gradient = jax.value_and_grad(loss)(params)
        update, state = optimizer.update(gradient, state)
        return optax.apply_updates(params, update), state, value

    state, values = optimizer.init(params), []
    for _ in range(150):
        params, state, value = step(params, state)
        values.append(float(value))
    assert values[-1] < 0.35 * values[0]


def test_noise_is_one_number_a_channel_and_keeps_an_items_loudness():
    x = np.ones((50, 3, 4, 400), np.float32)
    noise = layers.ChannelNoise()

    def noised(x, train=True):
        return noise.apply({}, jnp.asarray(x), train=train, rngs={"noise": jax.random.key(0)})

    noisy = np.asarray(noised(x))
    assert (noisy == noisy[:, :1, :1]).all()
    drawn = noisy[:, 0, 0]
    np.testing.assert_allclose((drawn**2).mean(-1), 1.0, rtol=1e-4)
    spread = np.log(drawn) / np.log(1.4)
    assert spread.std() == pytest.approx(1.0, abs=0.02)
    np.testing.assert_array_equal(noised(x, train=False), x)
    alone = noised(jnp.ones((5, 7, 1)))
    np.testing.assert_allclose(alone, 1.0, rtol=1e-5)  # Why the input has no noise.


# Diffusion.


def test_resampling_is_linear_between_the_ends_of_each_item():
    features = np.random.default_rng(0).normal(size=(4, 50, 2)).astype(np.float32)
    valid, length = np.array([50, 21, 7, 1]), np.array([60, 25, 1, 4])
    resample = jax.jit(diffusion.resample, static_argnames="frames")
    value = np.asarray(resample(features, valid, length, frames=60))
    for b, (n, t) in enumerate(zip(valid, length, strict=True)):
        place = np.linspace(0, n - 1, t) if t > 1 else np.zeros(1)
        for c in range(2):
            expected = np.interp(place, np.arange(n), features[b, :n, c])
            np.testing.assert_allclose(value[b, :t, c], expected, atol=3e-5)
    same = resample(features, np.full(4, 50), np.full(4, 50), frames=50)
    np.testing.assert_array_equal(same, features)


def test_at_30_a_second_two_features_stand_side_by_side():
    size = small_diffusion(GEOMETRY, stack=2)
    features = jnp.arange(2 * 6 * 7.0).reshape(2, 6, 7)
    pairs = diffusion.stacked(features, size)
    np.testing.assert_array_equal(
        pairs[:, 1], jnp.concatenate([features[:, 2], features[:, 3]], -1)
    )
    model, batch, params = either("diffusion", GEOMETRY, stack=2)
    assert params["params"]["proj_hubert"]["kernel"].shape == (14, 8)
    out = jax.eval_shape(lambda b: run(model, params, b), batch)
    assert out.shape == (3, FRAMES, GEOMETRY.width)


def test_it_starts_as_the_actors_mean_frame():
    mean = np.random.default_rng(0).normal(size=(2, GEOMETRY.width)).astype(np.float32)
    model = DiffusionRnnOnFeatures(small_diffusion(GEOMETRY, actors=2), {"mean_geometry": mean})
    batch = example(model.size) | {"actor": np.array([[0, 1], [1, 0], [0.5, 0.5]], np.float32)}
    params = random_parameters(model, batch)
    for part in GEOMETRY.parts:
        head = params["params"][f"final_layer_{part}"]["linear_2"]
        head |= {name: np.zeros_like(value) for name, value in head.items()}
    noisy = np.random.default_rng(1).normal(size=(3, FRAMES, GEOMETRY.width)).astype("f4")
    out, _ = jax.jit(model.apply)(params, noisy, np.zeros(3, np.int32), batch)
    for item, expected in enumerate([mean[1], mean[0], mean.mean(0)]):
        np.testing.assert_allclose(out[item], np.tile(expected, (FRAMES, 1)), atol=1e-6)
    del batch["actor"]
    with pytest.raises(ValueError, match="which of 2 actors"):
        model.apply(params, noisy, np.zeros(3, np.int32), batch)


def test_blocks_with_the_state_carried_are_the_whole():
    model, batch, params = either("diffusion", GEOMETRY)
    apply = jax.jit(lambda b, s: model.apply(params, b["noisy"], b["step"], b, state=s))
    whole, last = apply(batch, None)
    state, parts = None, []
    for frames in (slice(0, 3), slice(3, 6), slice(6, FRAMES)):
        block = dict(batch) | {
            name: batch[name][:, frames] for name in ("features", "emotion", "noisy")
        }
        block["length"] = np.full(3, 3)
        out, state = apply(block, state)
        parts.append(out)
    np.testing.assert_allclose(jnp.concatenate(parts, 1), whole, atol=1e-5)
    np.testing.assert_allclose(state, last, atol=1e-5)


def test_the_state_is_that_after_the_last_valid_frame():
    model, batch, params = either("diffusion", GEOMETRY)
    apply = jax.jit(lambda b: model.apply(params, b["noisy"], b["step"], b, state=start)[1])
    start = np.random.default_rng(0).normal(size=(2, 3, 8)).astype(np.float32)
    length = np.array([FRAMES, 4, 0], np.int32)
    one = {**batch, "feature_length": np.maximum(length, 1), "length": length}
    state = apply(one)
    np.testing.assert_array_equal(state[:, 2], start[:, 2])
    cut = {k: v[:, :4] if k in ("features", "emotion", "noisy") else v for k, v in batch.items()}
    np.testing.assert_allclose(
        apply({**cut, "length": np.full(3, 4)})[:, 1], state[:, 1], atol=1e-5
    )


def test_step_emotion_and_actor_all_matter():
    model, batch, params = either("diffusion", RIG, actors=2)
    apply = jax.jit(lambda b: run(model, params, b))
    before = apply(batch)
    for change in (
        {"step": np.array([1, 5, 9])},
        {"actor": batch["actor"][:, ::-1].copy()},
        {"emotion": np.roll(batch["emotion"], 1, -1)},
        {"noisy": batch["noisy"] + 0.1},
        {"features": batch["features"] + 0.1},
    ):
        assert (np.abs(apply({**batch, **change}) - before).max((1, 2)) > 1e-4).all(), change


# Layouts, emotions, weights.


def test_the_rigs_layout_is_the_order_of_its_channels():
    assert RIG.width == rig.NUM_CHANNELS and list(RIG.parts) == ["skin", "tongue", "eyes"]
    assert [*rig.CHANNELS[RIG.parts["tongue"]]] == [*rig.TONGUE]
    assert [*rig.CHANNELS[RIG.parts["eyes"]]] == [*rig.EYE_ANGLES]
    assert GEOMETRY.parts["jaw"] == slice(11, 26)
    for wrong in (FrameLayout, lambda *x: dataclasses.replace(GEOMETRY, jaw=-1)):
        with pytest.raises(InputError, match="expected"):
            wrong(0, 1, 1, 1)


def test_emotions_of_ours_are_heard_as_theirs():
    theirs = explicit_emotion(jnp.eye(5), 10)
    names = [rig.NVIDIA_EMOTIONS[i] for i in np.asarray(theirs[1:]).argmax(-1)]
    assert names == ["joy", "anger", "sadness", "amazement"]
    assert not np.asarray(theirs[0]).any()  # Neutral is the zero vector.
    # Their word for ours means ours again.
    for name, row in zip(rig.EMOTIONS[1:], np.asarray(EMOTION_TO_NVIDIA[1:]), strict=True):
        assert rig.NVIDIA_TO_EMOTION[rig.NVIDIA_EMOTIONS[row.argmax()]] == {name: 1.0}
    given = jnp.eye(10)
    assert explicit_emotion(given, 10) is given
    with pytest.raises(ValueError, match="5 numbers"):
        explicit_emotion(jnp.eye(5), 7)


def test_learned_emotions_start_near_zero():
    table = regression.implicit_emotions(jax.random.key(0), 2000)
    assert table.shape == (2000, 16)
    assert np.std(table) == pytest.approx(0.01, rel=0.05)


def test_weights_that_do_not_fit_are_named():
    expected = shapes_of(small_regression(GEOMETRY))
    state = {}
    for path, leaf in paths(expected):
        value = np.zeros(leaf.shape, np.float32)
        state[weights.torch_name(path)] = value.transpose(range(value.ndim)[::-1])
    state["w2v.feature_extractor.x"] = np.zeros(3)  # The encoder is somebody else's.
    converted = weights.convert(state, expected)
    assert {p for p, _ in paths(converted)} == {p for p, _ in paths(expected)}
    with pytest.raises(InputError, match=r"time5\.weight is missing"):
        weights.convert({k: v for k, v in state.items() if k != "time5.weight"}, expected)
    with pytest.raises(InputError, match=r"time6\.weight is no parameter"):
        weights.convert({**state, "time6.weight": np.zeros(2)}, expected)
    with pytest.raises(InputError, match=r"linear_tongue2\.weight has shape \[9, 9\]"):
        weights.convert({**state, "linear_tongue2.weight": np.zeros((9, 9))}, expected)
