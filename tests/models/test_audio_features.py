"""What models hear: encoders beside signals, windows of whole clips, caches, masks, parts."""

import dataclasses
import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from a2fjax import models
from a2fjax.batch import Batch
from a2fjax.configuration import AudioConfig, Config, DataConfig, EncoderConfig, RegressionConfig
from a2fjax.errors import InputError
from a2fjax.models import feature_fusion, pretrained, rngs
from a2fjax.models.params import paths, split

SMALL = RegressionConfig(
    conv_layers=1, conv_width=8, recurrent_width=6, identity="none", emotion_width=4
)
compile_fast = functools.partial(jax.jit, compiler_options={"xla_backend_optimization_level": 0})


@pytest.fixture(autouse=True)
def compiled(compile_once):
    """Most tests run the same few programs."""


@pytest.fixture
def make(tiny_encoders):
    """A function from names of features and settings to (model, whole parameters)."""

    def make(*names, **settings):
        features = tuple(tiny_encoders.get(name, name) for name in names)
        encoder = EncoderConfig(width=8, **settings)
        config = Config(model=SMALL, audio=AudioConfig(features=features, encoder=encoder))
        model = models.build(config)
        rng = np.random.default_rng(0)

        def draw(leaf):
            fan_in = np.prod(leaf.shape[:-1]) if len(leaf.shape) > 1 else 10.0
            return (rng.normal(size=leaf.shape) / fan_in**0.5).astype(np.float32)

        params = jax.tree.map(draw, jax.eval_shape(model.init, jax.random.key(0), batch(1, 20)))
        params["params"]["backbone"]["norm_0"]["scale"] += 1.0
        constants = {**model.constants, "motion_mean": np.full(72, 0.5, np.float32)}
        params = {**params, "constants": constants}
        return model, model.audio_features.with_pretrained(params)

    return make


def batch(items, frames, seed=1):
    rng = np.random.default_rng(seed)
    return Batch.zeros(items, frames, 4).replace(
        audio=(0.1 * rng.normal(size=(items, 320 * frames))).astype(np.float32),
        length=np.full(items, frames, np.int32),
        identity=np.zeros((items, 4, 3), np.float32),
        identity_mask=np.zeros(items, bool),
        emotion=np.tile(np.eye(5, dtype=np.float32)[0], (items, frames, 1)),
    )


def predict(model, params, given):
    return np.asarray(compile_fast(lambda p, b: model.apply(p, b)["motion"])(params, given))


def states_of(model, params, given):
    return compile_fast(model.audio_features.hidden_states)(params, given)


SUM = ("mel", "pitch", "wav2vec2", "hubert", "whisper")


def test_any_sum_of_features_is_heard_and_each_part_counts(make):
    model, params = make(*SUM, mix=True)
    assert list(model.audio_features.encoders) == ["2_wav2vec2", "3_hubert", "4_whisper"]
    assert model.lookahead_frames is None and model.lookahead_seconds is None
    assert model.audio_features.most_frames == 1500
    given = batch(2, 20)
    run = compile_fast(lambda p, b: model.apply(p, b)["motion"])
    whole = np.asarray(run(params, given))
    assert whole.shape == (2, 20, 72) and np.isfinite(whole).all()
    mixed = params["params"]["backbone"]["feature_fusion"]

    def with_fusion(fusion):
        backbone = {**params["params"]["backbone"], "feature_fusion": fusion}
        return {**params, "params": {**params["params"], "backbone": backbone}}

    assert mixed["signals"]["kernel"].shape == (83, 8)
    for name in model.audio_features.encoders:
        assert mixed[name]["kernel"].shape == (16, 8) and mixed[f"{name}_mix"].shape == (4,)
        without = {**mixed, name: jax.tree.map(np.zeros_like, mixed[name])}
        assert np.abs(run(with_fusion(without), given) - whole).max() > 1e-3
        # The mix is learned: shifting it to the first state changes what is heard.
        first = np.array([9.0, 0, 0, 0], np.float32)
        shifted = {**mixed, f"{name}_mix": first}
        assert np.abs(run(with_fusion(shifted), given) - whole).max() > 1e-4


@pytest.mark.parametrize("names", [("mel", "whisper"), ("wav2vec2",)])
def test_padding_and_company_change_nothing(make, names):
    model, params = make(*names, mix=True)
    given = batch(2, 40)
    given = given.replace(length=np.array([40, 23], np.int32))
    given.audio[1, 320 * 23 :] = 5.0
    together = predict(model, params, given)
    alone = given.select(slice(1, None))
    alone = alone.replace(audio=alone.audio[:, : 320 * 23], emotion=alone.emotion[:, :23])
    np.testing.assert_allclose(together[1, :23], predict(model, params, alone)[0], atol=2e-5)


@pytest.mark.parametrize("name", ["hubert", "whisper"])
def test_windows_hear_their_whole_clip(make, name):
    """What a window of training hears is what inference hears there, beyond the end as well."""
    model, params = make(name)
    clips = batch(3, 50)
    lengths = np.array([50, 41, 12], np.int32)
    clips.audio[np.arange(50 * 320) >= 320 * lengths[:, None]] = 0
    whole = states_of(model, params, clips.replace(length=lengths))[f"0_{name}"]
    starts = np.array([30, 25, 0], np.int32)
    window = batch(3, 20)
    for i, start in enumerate(starts):
        piece = clips.audio[i, 320 * start : 320 * (start + 20)]
        window.audio[i] = piece
    context = {
        "context_audio": clips.audio,
        "context_length": lengths,
        "context_start": starts,
    }
    window = window.replace(length=np.minimum(lengths - starts, 20).astype(np.int32))
    states = states_of(model, params, window.replace(**context))[f"0_{name}"]
    assert states.shape == (3, 20, 1, 16)
    for i, (start, n) in enumerate(zip(starts, window.length, strict=True)):
        np.testing.assert_allclose(states[i, :n], whole[i, start : start + n], atol=1e-5)
    # A crop by itself is something else: that is why the clip travels with it.
    crop = states_of(model, params, window)[f"0_{name}"]
    assert np.abs(crop[0] - states[0]).max() > 0.05
    # Past the end of what is heard there is silence, whatever lies there.
    late = {**context, "context_start": np.array([45, 25, 0], np.int32)}
    window = window.replace(length=np.array([5, 16, 12], np.int32))
    motion = predict(model, params, window.replace(**late))
    assert np.isfinite(motion).all()


def test_cached_states_stand_in_for_the_encoder(make):
    """In 16 bits, with neither audio nor weights: only their rounding shows."""
    model, params = make("mel", "whisper", mix=True)
    given = batch(2, 20)
    live = predict(model, params, given)
    states = states_of(model, params, given)["1_whisper"]
    half = given.replace(cached_features={"1_whisper": np.asarray(states).astype(np.float16)})
    without = {k: v for k, v in params.items() if k != "encoders"}
    cached = predict(model, without, half)
    assert 0 < np.abs(cached - live).max() < 2e-3


def test_large_states_in_16_bits_stay_finite(make):
    """Some of Whisper's inner units are in the thousands: no statistic is taken in 16 bits."""
    model, params = make("whisper", mix=True)
    states = np.zeros((1, 20, 4, 16), np.float16)
    states[..., 3] = 60000
    motion = predict(model, params, batch(1, 20).replace(cached_features={"0_whisper": states}))
    assert np.isfinite(motion).all()


# ---- while training -----------------------------------------------------------------------------


def mix_of(settings, key, states=None, valid=None, signals=3):
    config = EncoderConfig(width=4, **settings)
    frames = 200
    states = np.ones((64, frames, 1, 8), np.float32) if states is None else states
    valid = np.ones((len(states), frames, 1), bool) if valid is None else valid
    constants = {"0_x_mean": np.zeros((1, 8)), "0_x_std": np.ones((1, 8))}
    mix = feature_fusion.FeatureFusion(config)
    features = feature_fusion.AudioFeatures(
        np.ones((len(states), frames, signals)), np.zeros(signals), {"0_x": states}
    )
    params = mix.init(jax.random.key(0), features, valid, constants)
    params["params"]["0_x_outside"] = jnp.full(4, 9.0)
    train = key is not None
    streams = rngs.streams(key) if train else {}
    fuse = jax.jit(lambda r: mix.apply(params, features, valid, constants, train=train, rngs=r)[0])
    return np.asarray(fuse(streams)), params


def test_without_a_key_nothing_is_drawn():
    settings = dict(noise=1.0, dropout=0.5, time_mask=0.5, feature_dropout=0.5)
    plain, _ = mix_of({}, None)
    drawn, _ = mix_of(settings, None)
    np.testing.assert_array_equal(plain, drawn)


def test_spec_augment_masks_spans_of_each_part_by_itself():
    valid = np.arange(200)[None, :, None] < np.where(np.arange(64) % 2, 200, 100)[:, None, None]
    out, _ = mix_of({"time_mask": 0.3, "time_mask_frames": 10}, jax.random.key(1), valid=valid)
    signals, encoder = (out[..., 0] == 0, out[..., 4] == 9.0)
    inside = valid[..., 0]
    for masked in (signals, encoder):
        assert masked[~inside].all()  # Beyond the end all is outside.
        share = masked[inside].mean()
        assert 0.2 < share < 0.3  # 0.3 if no spans overlapped.
        # In spans: a masked frame's neighbours are mostly masked too.
        both = (masked & np.roll(masked, 1, 1))[:, 1:95].sum() / masked[:, 1:95].sum()
        assert both > 0.85
    assert (signals ^ encoder)[inside].mean() > 0.2


def test_dropout_is_of_channels_for_the_whole_window_and_noise_is_not():
    plain, params = mix_of({}, None)
    out, _ = mix_of({"dropout": 0.5}, jax.random.key(1))
    assert (np.abs(out[:, :1] - out) < 1e-5).all()
    assert len(np.unique(out[:, 0, 4].round(4))) > 16
    kernel = np.asarray(params["params"]["0_x"]["kernel"])
    scatter = np.sqrt(64) * np.abs(kernel).max() / 4
    np.testing.assert_allclose(out[:, 0, 4:].mean(0), plain[0, 0, 4:], atol=scatter)
    noisy, _ = mix_of({"noise": 0.5}, jax.random.key(1))
    np.testing.assert_array_equal(noisy[..., :4], plain[..., :4])
    deviation = (noisy - plain)[..., 4:].std((0, 1))
    np.testing.assert_allclose(deviation, 0.5 * np.sqrt((kernel**2).sum(0)), rtol=0.05)


def test_parts_are_left_out_one_at_a_time():
    out, _ = mix_of({"feature_dropout": 0.5}, jax.random.key(1))
    signals = (out[..., :4] == 0).all((1, 2))
    encoder = (out[..., 4:] == 9.0).all((1, 2))
    assert not (signals & encoder).any()
    assert 10 < signals.sum() + encoder.sum() < 54 and signals.any() and encoder.any()
    alone, _ = mix_of({"feature_dropout": 1.0}, jax.random.key(1), signals=0)
    assert not (alone == 9.0).any()


def test_frozen_encoders_are_the_same_in_training(make):
    model, params = make("wav2vec2")
    given = batch(1, 30)
    for first, same in ((None, True), (1, False)):
        model.audio_features.config = dataclasses.replace(
            model.audio_features.config,
            encoder=dataclasses.replace(model.audio_features.config.encoder, train_from=first),
        )
        found = compile_fast(
            lambda key, given=given: model.audio_features.hidden_states(params, given, rng=key)[
                "0_wav2vec2"
            ]
        )(jax.random.key(0))
        plain = states_of(model, params, given)["0_wav2vec2"]
        assert np.allclose(found, plain, atol=1e-5) == same


# ---- parameters ---------------------------------------------------------------------------------


def test_what_is_trained(make):
    for first, expected in ((None, set()), (2, {"layers_2", "final_norm"})):
        model, params = make("mel", "whisper", train_from=first)
        trained, fixed = split(params, model.frozen)
        assert set(trained.get("encoders", {}).get("1_whisper", {})) == expected
        assert (
            "constants" in fixed
            and "encoders" in fixed
            and "feature_fusion" in trained["params"]["backbone"]
        )
        # The model's own start leaves the encoder out, and is completed by what was read.
        own = jax.eval_shape(model.init, jax.random.key(0), batch(1, 20))
        assert "encoders" not in own
        read = dict(paths(model.audio_features.pretrained["encoders"]["1_whisper"]))
        whole = dict(paths(model.audio_features.with_pretrained(own)["encoders"]["1_whisper"]))
        assert set(read) == set(whole)
        # Trained weights that a checkpoint brings along are not replaced.
        some = {**own, **{"encoders": trained["encoders"]}} if first is not None else own
        some = jax.tree.map(lambda x: np.zeros(x.shape, np.float32), some)
        merged = dict(paths(model.audio_features.with_pretrained(some)["encoders"]["1_whisper"]))
        for path, value in merged.items():
            assert (not np.any(value)) == (path.split("/")[0] in expected or not read[path].any())


def test_caches_cannot_be_of_trained_encoders_or_paused_clips(tiny_encoders):
    audio = AudioConfig(features=(tiny_encoders["whisper"],), encoder=EncoderConfig(train_from=0))
    with pytest.raises(InputError, match="train_from=0: an encoder that is trained"):
        pretrained.check_feature_source(
            Config(audio=audio, data=DataConfig(encoder_features="cached"))
        )
    audio = dataclasses.replace(audio, encoder=EncoderConfig())
    data = DataConfig(encoder_features="cached")
    pretrained.check_feature_source(Config(audio=audio, data=data))
    paused = dataclasses.replace(data.augment, silence_prob=0.5)
    with pytest.raises(InputError, match="silence_prob=0.5.*set data.encoder_features='live'"):
        pretrained.check_feature_source(
            Config(audio=audio, data=dataclasses.replace(data, augment=paused))
        )
    pretrained.check_feature_source(Config(data=dataclasses.replace(data, augment=paused)))


def test_nothing_to_train_is_said_when_the_encoder_is_read(tiny_encoders):
    audio = AudioConfig(features=(tiny_encoders["hubert"],), encoder=EncoderConfig(train_from=3))
    with pytest.raises(InputError, match="train_from=3: hubert runs 3 layers"):
        pretrained.load(audio)
