import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from a2fjax import models, rig
from a2fjax.batch import Batch
from a2fjax.configuration import AudioConfig, Config, RegressionConfig
from a2fjax.models import conditioning
from a2fjax.models.backbone import frames_per_layer
from a2fjax.models.feature_fusion import AudioFeatures
from a2fjax.models.params import paths
from a2fjax.models.regression import default_constants

SMALL = RegressionConfig(
    conv_layers=2, conv_width=8, recurrent_width=6, identity_width=4, emotion_width=4
)
FRAMES = 24


def config(**changes):
    top = {k: changes.pop(k) for k in list(changes) if k in ("audio", "precision")}
    return Config(model=dataclasses.replace(SMALL, **changes), **top)


def example(items=3, frames=FRAMES, seed=0):
    rng = np.random.default_rng(seed)
    emotion = rng.dirichlet(np.ones(5), (items, frames))
    return Batch.zeros(items, frames, 32).replace(
        audio=0.1 * rng.normal(size=(items, frames * 320)).astype(np.float32),
        length=np.full(items, frames, np.int32),
        identity=rng.normal(size=(items, 32, 3)).astype(np.float32) / 3**0.5,
        identity_mask=np.ones(items, bool),
        emotion=emotion.astype(np.float32),
    )


def constants(batch):
    described = np.asarray(conditioning.descriptor(batch.identity))
    mean, projection = conditioning.standardisation(described)
    return {
        "motion_mean": 0.5 * (rig.MIN + rig.MAX),
        "motion_std": 0.1 * rig.SCALE,
        "identity_mean": mean,
        "identity_projection": projection,
    }


def random_parameters(model, batch):
    """Parameters away from their zeros, so that every path of the network is open."""
    rng = np.random.default_rng(7)

    def draw(leaf):
        fan_in = np.prod(leaf.shape[:-1]) if len(leaf.shape) > 1 else 10.0
        return (rng.normal(size=leaf.shape) / fan_in**0.5).astype(leaf.dtype)

    params = jax.tree.map(draw, jax.eval_shape(model.init, jax.random.key(0), batch))
    for i in range(model.config.conv_layers):
        params["params"]["backbone"][f"norm_{i}"]["scale"] += 1.0
    return {**params, "constants": model.constants}


def make(batch, **changes):
    model = models.build(config(**changes), constants(batch))
    params = random_parameters(model, batch)
    return model, params, jax.jit(lambda params, batch: model.apply(params, batch)["motion"])


@pytest.mark.parametrize(
    "changes",
    [
        {},
        {"recurrent": "causal"},
        {"identity": "none"},
        {"precision": "bfloat16"},
        {"audio": AudioConfig(features=("mel", "pitch"))},
    ],
    ids=["bidirectional", "causal", "no identity", "bfloat16", "mel and pitch"],
)
def test_motion_has_the_rigs_shape_type_and_range(changes):
    batch = example()
    _, params, predict = make(batch, **changes)
    network = params["params"]
    large = {**network, "head": jax.tree.map(lambda x: 30.0 * x, network["head"])}
    motion = predict({**params, "params": large}, batch)
    assert motion.shape == (3, FRAMES, 72) and motion.dtype == jnp.float32
    assert (motion >= rig.MIN).all() and (motion <= rig.MAX).all()
    assert (motion == rig.MIN).any() and (motion == rig.MAX).any()
    assert np.ptp(predict(params, batch), axis=1).max() > 1e-3


@pytest.mark.parametrize("recurrent", ["bidirectional", "causal"])
def test_padding_changes_nothing_in_valid_frames(recurrent):
    batch = example()
    _, params, predict = make(batch, recurrent=recurrent)
    padded = example(frames=FRAMES + 9, seed=1)
    padded = padded.replace(length=np.array([FRAMES, FRAMES - 7, 5], np.int32))
    padded = padded.replace(identity=batch.identity, identity_mask=batch.identity_mask)
    for item, length in enumerate(padded.length):
        padded.audio[item, : length * 320] = batch.audio[item, : length * 320]
        padded.emotion[item, :length] = batch.emotion[item, :length]
    together = predict(params, padded)
    for item, length in enumerate(padded.length):
        alone = batch.select(slice(item, item + 1))
        alone = alone.replace(audio=alone.audio[:, : length * 320])
        alone = alone.replace(emotion=alone.emotion[:, :length])
        alone = alone.replace(length=padded.length[item : item + 1])
        np.testing.assert_allclose(
            together[item, :length], predict(params, alone)[0], atol=1e-5 * rig.SCALE.max()
        )


@pytest.mark.parametrize(("past", "future", "layers"), [(5, 5, 3), (4, 1, 2), (0, 3, 2), (2, 0, 4)])
def test_convolutions_reach_exactly_as_far_as_configured(past, future, layers):
    batch = example(items=1)
    model, params, _ = make(
        batch,
        past_frames=past,
        future_frames=future,
        conv_layers=layers,
        recurrent="causal",
    )
    # With its recurrence cut the network sees what the convolutions see.
    gru = params["params"]["backbone"]["gru"]
    for gate in ("hr", "hz", "hn"):
        gru[gate] = jax.tree.map(np.zeros_like, gru[gate])
    gru["iz"]["kernel"][:] = 0.0
    gru["iz"]["bias"][:] = -1e4

    @jax.jit
    def apply(signals):
        features = AudioFeatures(signals, model.audio_features.silence(), {})
        return model.apply_features(params, features, batch)["motion"][0]

    shape = (1, FRAMES, model.audio_features.frontend.width)
    features = np.random.default_rng(1).normal(size=shape).astype(np.float32)
    changed = features.copy()
    changed[:, 12] += 1.0
    both = [np.asarray(apply(x)) for x in (features, changed)]
    moved = np.flatnonzero(np.abs(both[1] - both[0]).max(-1) > 0)
    assert moved.min() == 12 - future and moved.max() == 12 + past
    assert len(moved) == past + 1 + future


def test_reach_is_shared_and_adds_up():
    assert frames_per_layer(5, 3) == [2, 2, 1]
    assert frames_per_layer(1, 4) == [1, 0, 0, 0]
    assert frames_per_layer(0, 2) == [0, 0]


def test_lookahead_of_the_causal_model_is_what_it_states():
    batch = example(items=1)
    model, params, predict = make(batch, recurrent="causal", future_frames=2)
    assert model.lookahead_frames == 2
    cut = round(model.lookahead_seconds * 16_000)
    frame = 9
    last = 320 * frame + cut  # the last sample that frame 9 may hear
    later = batch.replace(audio=batch.audio.copy())
    later.audio[:, last + 1 :] *= -0.3
    before = predict(params, batch)
    after = predict(params, later)
    np.testing.assert_array_equal(before[:, : frame + 1], after[:, : frame + 1])
    assert np.abs(before[:, frame + 1] - after[:, frame + 1]).max() > 0


def test_bidirectional_model_states_no_lookahead():
    model = models.build(config())
    assert model.lookahead_frames is None and model.lookahead_seconds is None


def test_silence_around_a_clip_is_what_a_clip_hears_beyond_its_ends():
    batch = example(items=1)
    _, params, predict = make(batch, recurrent="causal", past_frames=3, future_frames=3)
    # Analysis windows overlap: the frame before the cut is silent too, so none hears the clip.
    batch.audio[:, -3 * 320 :] = 0
    short = batch.replace(audio=batch.audio[:, : -2 * 320], emotion=batch.emotion[:, :-2])
    short = short.replace(length=batch.length - 2)
    np.testing.assert_allclose(
        predict(params, batch)[:, :-2], predict(params, short), atol=1e-5 * rig.SCALE.max()
    )


def test_order_of_identity_points_does_not_matter_and_identity_does():
    batch = example()
    _, params, predict = make(batch)
    motion = predict(params, batch)
    shuffled = batch.replace(identity=np.random.default_rng(0).permutation(batch.identity, 1))
    np.testing.assert_allclose(predict(params, shuffled), motion, atol=1e-2, rtol=1e-3)
    other = batch.replace(identity=batch.identity[::-1])
    assert np.abs(predict(params, other) - motion)[0].max() > 1e-2
    unknown = batch.replace(identity_mask=np.zeros(3, bool))
    assert np.abs(predict(params, unknown) - motion).max() > 1e-2


def test_training_needs_a_key_repeats_with_it_and_is_not_clipped():
    batch = example()
    model, params, _ = make(batch, dropout=0.3, identity="none")
    with pytest.raises(ValueError, match="key"):
        model.apply(params, batch, train=True)
    params["params"]["head"]["bias"] = params["params"]["head"]["bias"] + 10.0
    run = jax.jit(lambda key: model.apply(params, batch, key=key, train=True)["motion"])
    first, again, other = run(jax.random.key(0)), run(jax.random.key(0)), run(jax.random.key(1))
    np.testing.assert_array_equal(first, again)
    assert np.abs(first - other).max() > 1e-3
    assert (first > rig.MAX).any() or (first < rig.MIN).any()


def test_bfloat16_is_close_to_float32_and_keeps_float32_parameters():
    batch = example()
    _, params, full = make(batch)
    model, half_params, half = make(batch, precision="bfloat16")
    assert all(x.dtype == jnp.float32 for x in jax.tree.leaves(half_params))
    difference = np.abs(half(params, batch) - full(params, batch)) / rig.SCALE
    assert 0 < difference.max() < 0.05


def test_slow_motion_has_no_steps_in_bfloat16():
    # A causal model hears one long constant sound: after its start the motion hardly changes, by
    # less from frame to frame than the eight bits of a bfloat16 can say.
    batch = example(items=1, frames=48)
    batch = batch.replace(audio=np.tile(batch.audio[:, :320], 48))
    batch.emotion[:] = 0.2
    model, params, predict = make(batch, precision="bfloat16", recurrent="causal", identity="none")
    params["params"]["head"]["bias"] = np.full(72, 3.0, np.float32)  # steps of 1/64 there
    jaw = predict(params, batch)[0, :, rig.INDEX["jawOpen"]] / 0.1
    steps = np.abs(np.diff(jaw))[20:40]
    assert (steps[steps > 0] < 1 / 64).any()


def test_init_reads_only_shapes_and_takes_the_constants_as_they_are():
    batch = example()
    given = constants(batch)
    model = models.build(config(), given)
    abstract = jax.eval_shape(model.init, jax.random.key(0), batch)
    params = jax.jit(model.init)(jax.random.key(0), batch)
    for (path, leaf), (_, spec) in zip(paths(params), paths(abstract), strict=True):
        assert leaf.shape == spec.shape and leaf.dtype == spec.dtype == jnp.float32, path
    for name, value in given.items():
        np.testing.assert_array_equal(params["constants"][name], value)
    shapes = {n: v.shape for n, v in default_constants().items()}
    assert {n: shapes[n] for n in given} == {n: v.shape for n, v in given.items()}
