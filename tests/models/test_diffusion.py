import dataclasses
import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from a2fjax import models, rig
from a2fjax.batch import Batch
from a2fjax.configuration import Config, DiffusionConfig, SampleConfig, UNetConfig
from a2fjax.errors import InputError
from a2fjax.models import conditioning, flops
from a2fjax.models.diffusion import START_INDEX, frame_noise
from a2fjax.models.diffusion_checks import check_sampling
from a2fjax.models.params import nest, paths

SMALL = DiffusionConfig(
    conv_layers=1, conv_width=8, recurrent_width=6, identity_width=4,
    emotion_width=4, dropout=0.0, condition_dropout=0.1, emotion_dropout=0.1,
    unet=UNetConfig(widths=(8, 12, 16), heads=2, window=8), sample=SampleConfig(steps=3),
)  # fmt: skip
FRAMES = 22  # no multiple of the four frames that become one

# The time is in compiling, and half of that in making tiny programs faster.
quick = functools.partial(jax.jit, compiler_options={"xla_backend_optimization_level": 0})


def config(precision="float32", init_from="", sample=None, model=None, **own):
    """A small experiment; keys of the model or its U-Net, and of how it samples."""
    sample = dataclasses.replace(SMALL.sample, **(sample or {}))
    in_unet = {k: own.pop(k) for k in list(own) if hasattr(SMALL.unet, k)}
    unet = dataclasses.replace(SMALL.unet, **in_unet)
    changed = dataclasses.replace(SMALL, unet=unet, sample=sample, **own, **(model or {}))
    return Config(model=changed, precision=precision, init_from=init_from)


def example(items=2, frames=FRAMES, seed=0):
    rng = np.random.default_rng(seed)
    emotion = rng.dirichlet(np.ones(5), (items, frames))
    return Batch.zeros(items, frames, 32).replace(
        audio=0.1 * rng.normal(size=(items, frames * 320)).astype(np.float32),
        length=np.full(items, frames, np.int32),
        identity=rng.normal(size=(items, 32, 3)).astype(np.float32) / 3**0.5,
        identity_mask=np.ones(items, bool),
        subject=np.zeros(items, np.int32),
        emotion=emotion.astype(np.float32),
        start=np.zeros(items, np.int32),
        sample_index=np.zeros(items, np.int32),
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


CONSTANTS = constants(example(items=4, seed=9))


def random_parameters(model, batch):
    """Parameters away from their zeros, so that every path of the network is open."""
    rng = np.random.default_rng(7)

    def draw(path, leaf):
        fan_in = np.prod(leaf.shape[:-1]) if len(leaf.shape) > 1 else 10.0
        value = rng.normal(size=leaf.shape) / fan_in**0.5
        return (value + path.endswith("/scale")).astype(leaf.dtype)

    shapes = jax.eval_shape(model.init, jax.random.key(0), batch)
    params = nest({path: draw(path, leaf) for path, leaf in paths(shapes)})
    return {**params, "constants": model.constants}


def make(batch, **changes):
    model = models.build(config(**changes), CONSTANTS)
    params = random_parameters(model, batch)
    return model, params, quick(lambda params, batch: model.apply(params, batch)["motion"])


@pytest.fixture(scope="module")
def plain():
    batch = example()
    return (batch, *make(batch))


def close(a, b, atol=2e-4):
    np.testing.assert_allclose(a / rig.SCALE, b / rig.SCALE, atol=atol)


def differs_by_leaf(a, b, part):
    pairs = zip(jax.tree.leaves(a[part]), jax.tree.leaves(b[part]), strict=True)
    return any(np.abs(x - y).max() > 1e-3 for x, y in pairs)


def differs(a, b):
    return float(np.abs((a - b) / rig.SCALE).max()) > 0.01


def test_motion_has_the_rigs_shape_type_and_range(plain):
    batch, _, params, predict = plain
    motion = predict(params, batch)
    assert motion.shape == (2, FRAMES, 72) and motion.dtype == jnp.float32
    assert (motion >= rig.MIN).all() and (motion <= rig.MAX).all()
    assert np.ptp(motion, axis=1).max() > 0.05
    unet = params["params"]["unet"]
    unet = {**unet, "output": jax.tree.map(lambda v: 30 * v, unet["output"])}
    motion = predict({**params, "params": {**params["params"], "unet": unet}}, batch)
    assert (motion >= rig.MIN).all() and (motion <= rig.MAX).all()
    assert (motion == rig.MIN).any() and (motion == rig.MAX).any()


def test_padding_and_what_stands_in_it_change_nothing_before_it(plain):
    batch, _, params, predict = plain
    length = 13
    batch = batch.replace(length=np.array([FRAMES, length], np.int32))
    alone = batch.select(slice(1, None))
    alone = alone.replace(audio=alone.audio[:, : length * 320])
    alone = alone.replace(emotion=alone.emotion[:, :length])
    expected = predict(params, alone)[0]
    close(predict(params, batch)[1, :length], expected)
    louder = batch.replace(audio=batch.audio.copy(), emotion=batch.emotion.copy())
    louder.audio[1, length * 320 :] = 0.9
    louder.emotion[1, length:] = 7.0
    close(predict(params, louder)[1, :length], expected)


def test_a_clip_of_one_frame_without_a_sample_index_has_a_motion(plain):
    _, _, params, predict = plain
    batch = example(items=1, frames=1).replace(sample_index=None)
    motion = predict(params, batch)
    assert motion.shape == (1, 1, 72) and np.isfinite(motion).all()


def test_a_sample_repeats_and_another_index_gives_another(plain):
    batch, model, params, predict = plain
    first = np.asarray(predict(params, batch))
    np.testing.assert_array_equal(first, predict(params, batch))
    # What an item becomes does not depend on its place in a batch.
    swapped = batch.select(slice(None, None, -1))
    close(predict(params, swapped)[::-1], first, 1e-5)
    other = predict(params, batch.replace(sample_index=np.array([0, 1], np.int32)))
    close(other[0], first[0], 1e-5)
    assert differs(other[1], first[1])
    assert differs(predict(params, batch.replace(start=batch.start + 4)), first)
    seeded = dataclasses.replace(model.config.sample, seed=1)
    motion = quick(lambda p, b: model.motion(p["constants"], model.sample(p, b, seeded)))
    assert differs(motion(params, batch), first)


def test_noise_belongs_to_frames_of_a_recording_and_not_to_chunks():
    key = jax.random.key(3)
    noise = quick(frame_noise, static_argnums=3)
    take = jnp.array([0, 5])
    whole = np.asarray(noise(key, take, jnp.array([0, 0]), 30, 2))
    part = noise(key, take, jnp.array([8, 20]), 10, 2)
    np.testing.assert_array_equal(part[0], whole[0, 8:18])
    np.testing.assert_array_equal(part[1], whole[1, 20:])
    np.testing.assert_array_equal(noise(key, take[::-1], jnp.zeros(2, int), 30, 2)[0], whole[1])
    assert np.abs(whole.mean()) < 0.05 and whole.std() == pytest.approx(1.0, abs=0.05)
    for other in (
        whole[1],
        noise(key, take, jnp.array([0, 0]), 30, 3)[0],
        noise(jax.random.key(4), take, jnp.array([0, 0]), 30, 2)[0],
        np.roll(whole[0], 1, axis=0),
    ):
        assert abs(np.corrcoef(whole[0].ravel(), np.ravel(other))[0, 1]) < 0.1


@pytest.mark.parametrize("sampler, target", [("dpm", "v"), ("ddim", "eps")])
def test_inpainting_keeps_the_masked_motion_and_samples_the_rest(sampler, target):
    batch = example()
    model, params, _ = make(batch, sample={"sampler": sampler}, target=target, widths=(8,))
    kept = np.zeros((2, FRAMES, 72), bool)
    kept[:, :7] = True
    kept[1, :, rig.GROUPS["brows"]] = True
    rng = np.random.default_rng(4)
    motion = (rng.uniform(0.3, 0.7, kept.shape) * (rig.MAX - rig.MIN) + rig.MIN).astype(np.float32)
    batch = batch.replace(inpaint_mask=kept, inpaint_motion=motion)
    sample = quick(lambda p, b: model.sample(p, b, model.config.sample))
    given = np.asarray(model.standardised(model.constants, motion))
    first = np.asarray(sample(params, batch))
    other = np.asarray(sample(params, batch.replace(sample_index=np.array([3, 4], np.int32))))
    for found in (first, other):
        np.testing.assert_allclose(found[kept], given[kept], atol=1e-6)
        assert np.abs(found - given)[~kept].max() > 0.1
    assert np.abs(first - other)[~kept].max() > 0.05
    # The kept motion influences the rest of its neighbourhood.
    moved = batch.replace(inpaint_motion=np.where(kept, 0.5 * motion, motion))
    assert np.abs(np.asarray(sample(params, moved)) - first)[~kept].max() > 1e-3


def test_guidance_of_strength_one_is_none_and_costs_nothing(plain):
    batch, model, params, _ = plain
    shapes = jax.eval_shape(lambda p, b: model.guided(p, b, SampleConfig())[0], params, batch)
    assert {leaf.shape[0] for leaf in jax.tree.leaves(shapes)} == {2}
    three = SampleConfig(audio=2.0, emotion=0.5, identity=3.0)
    shapes = jax.eval_shape(lambda p, b: model.guided(p, b, three)[0], params, batch)
    assert {leaf.shape[0] for leaf in jax.tree.leaves(shapes)} == {8}


def test_guidance_of_strength_zero_removes_the_condition(plain):
    batch, model, params, predict = plain
    how = dataclasses.replace(model.config.sample, emotion=0.0)
    sampled = quick(lambda p, b: model.motion(p["constants"], model.sample(p, b, how)))
    without = batch.replace(emotion=np.zeros_like(batch.emotion))
    found = predict(params, without)
    close(sampled(params, batch), found)
    assert differs(found, predict(params, batch))


def test_each_guided_variant_leaves_out_one_condition(plain):
    batch, model, params, _ = plain
    how = SampleConfig(identity=2.0, audio=2.0, emotion=0.0)
    parts = quick(lambda p, b: model.guided(p, b, how)[0])(params, batch)
    encode = quick(
        lambda p, b, audio_dropped: model.encode_conditions(p, b, audio_dropped=audio_dropped)
    )
    variants = {
        "none": batch,
        "audio": batch,
        "emotion": batch.replace(emotion=np.zeros_like(batch.emotion)),
        "identity": batch.replace(identity_mask=np.zeros(2, bool)),
    }
    whole = None
    coarse_by_name = {}
    for i, name in enumerate(variants):
        expected = encode(params, variants[name], np.full(2, name == "audio"))
        own = jax.tree.map(lambda v, i=i: v[2 * i : 2 * i + 2], parts)
        coarse_by_name[name] = np.asarray(expected["coarse_prediction"])
        if name == "none":
            guided, own["coarse_prediction"] = (
                own["coarse_prediction"],
                expected["coarse_prediction"],
            )
        jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, atol=1e-4), own, expected)
        whole = expected if whole is None else whole
        changed = {k for k in ("audio", "emotion", "identity") if differs_by_leaf(own, whole, k)}
        assert name == "none" or name in changed
    # Twice the audio, none of the emotion, twice the identity.
    plain_coarse = coarse_by_name["none"]
    moved = 2 * plain_coarse - coarse_by_name["audio"] - coarse_by_name["identity"]
    close(guided, coarse_by_name["emotion"] + moved, atol=1e-4)


def test_conditions_without_audio_do_not_depend_on_it(plain):
    batch, model, params, _ = plain
    encode = quick(
        lambda p, b: model.encode_conditions(p, b, audio_dropped=jnp.array([True, False]))
    )
    first = encode(params, batch)
    second = encode(params, batch.replace(audio=batch.audio[::-1] * 0.7))
    sources = [(k, i) for k in first["sources"] for i in (0, 1)]
    for name, a, b in (
        ("coarse_prediction", first["coarse_prediction"], second["coarse_prediction"]),
        ("audio", first["audio"], second["audio"]),
        *((k, first["sources"][k][i], second["sources"][k][i]) for k, i in sources),
    ):
        np.testing.assert_array_equal(a[0], b[0], err_msg=name)
        assert np.abs(a[1] - b[1]).max() > 0, name
    assert not first["coarse_prediction"][0].any()
    np.testing.assert_allclose(
        first["audio"][0, :FRAMES],
        np.tile(params["params"]["condition_encoder"]["audio_dropped"], (FRAMES, 1)),
        rtol=1e-6,
    )


def test_conditions_are_encoded_once_a_clip_and_not_once_a_step(plain):
    batch, model, params, _ = plain

    def matrices(function, *args):
        count = flops.flops(function, *args)
        return count["dot"] + count["convolution"]

    def sampling(steps, **strengths):
        how = SampleConfig(steps=steps, **strengths)
        return matrices(lambda p, b: model.sample(p, b, how), params, batch)

    conditions = jax.eval_shape(model.encode_conditions, params, batch)
    x, level = np.zeros((2, FRAMES, 72), np.float32), np.ones(2, np.float32)
    one = matrices(model.denoise, params["params"]["unet"], x, level, level, conditions)
    encoding = matrices(model.encode_conditions, params, batch)
    assert encoding > 0.1 * one
    assert sampling(8) - sampling(4) == 4 * one
    assert sampling(4) == encoding + 4 * one
    # With guidance, what is encoded without the condition is also encoded once.
    assert sampling(4, audio=2.0) == 2 * (encoding + 4 * one)


@pytest.mark.parametrize(
    "changes, words",
    [
        ({"widths": (8, 11)}, ("model.unet.widths=(8, 11)", "model.unet.heads=2")),
        ({"widths": ()}, ("model.unet.widths=()",)),
        ({"distill_steps": 4}, ("model.distill_steps=4", "init_from")),
        (
            {"sample": {"sampler": "consistency"}},
            ("model.sample.sampler='consistency'", "not distilled", "dpm"),
        ),
        (
            {"distill_steps": 4, "init_from": "runs/teacher"},
            ("model.sample.sampler='angle'", "is distilled", "consistency"),
        ),
        (
            {"sample": {"audio": 2.0}, "audio_dropout": 0.0},
            ("model.sample.audio=2.0", "model.audio_dropout"),
        ),
        (
            {"sample": {"emotion": 1.5}, "model": {"emotion_dropout": 0.0}},
            ("model.sample.emotion=1.5", "model.emotion_dropout"),
        ),
        (
            {"sample": {"identity": 0.0}, "model": {"condition_dropout": 0.0}},
            ("model.sample.identity=0.0", "model.condition_dropout"),
        ),
    ],
)
def test_values_that_do_not_fit_together_are_named(changes, words):
    with pytest.raises(InputError) as error:
        models.build(config(**changes))
    for word in words:
        assert word in str(error.value)


def test_a_student_has_its_teachers_guidance_and_needs_no_dropout_of_its_own():
    student = config(
        distill_steps=4,
        init_from="runs/teacher",
        audio_dropout=0.0,
        sample={"sampler": "consistency", "steps": 2, "audio": 2.0},
    )
    check_sampling(student.model)
    with pytest.raises(InputError, match="identity=2.0"):
        check_sampling(
            config(
                model={"identity": "none", "condition_dropout": 0.1}, sample={"identity": 2.0}
            ).model
        )


def one_call(model, batch):
    x = jnp.asarray(np.random.default_rng(5).normal(size=(2, FRAMES, 72)), jnp.float32)
    alpha, sigma = model.level(jnp.array([0.3, 0.9]))

    def call(params):
        conditions = model.encode_conditions(params, batch)
        return model.denoise(params["params"]["unet"], x, alpha, sigma, conditions)

    return call


def test_computing_blocks_again_changes_neither_values_nor_gradients():
    batch = example()
    model, params, _ = make(batch, widths=(8,))
    again, other, _ = make(batch, widths=(8,), remat=True)
    assert jax.tree.structure(other) == jax.tree.structure(params)
    conditions = quick(model.encode_conditions)(params, batch)
    x = jnp.asarray(np.random.default_rng(5).normal(size=(2, FRAMES, 72)), jnp.float32)
    level = model.level(jnp.array([0.3, 0.9]))

    def run(model):
        def scalar(unet):
            return jnp.mean(model.denoise(unet, x, *level, conditions) ** 2)

        return quick(jax.value_and_grad(scalar))(params["params"]["unet"])

    (a, slopes_a), (b, slopes_b) = run(model), run(again)
    np.testing.assert_allclose(a, b, rtol=1e-5)
    for x_a, x_b in zip(jax.tree.leaves(slopes_a), jax.tree.leaves(slopes_b), strict=True):
        np.testing.assert_allclose(x_a, x_b, atol=1e-4 * (1e-3 + np.abs(x_a).max()))


def test_bfloat16_is_close_to_float32_and_keeps_float32_parameters():
    batch = example()
    model, params, _ = make(batch, widths=(8, 12))
    half, half_params, _ = make(batch, precision="bfloat16", widths=(8, 12))
    assert all(x.dtype == jnp.float32 for x in jax.tree.leaves(half_params))
    full = quick(one_call(model, batch))(params)
    rough = quick(one_call(half, batch))(params)
    assert rough.dtype == jnp.float32
    error = np.abs(full - rough)
    assert 0 < np.sqrt(np.mean(error**2)) < 0.03 * np.std(full)


def test_the_unet_sees_level_audio_emotion_and_identity(plain):
    """With the coarse prediction unchanged."""
    batch, model, params, _ = plain
    conditions = quick(model.encode_conditions)(params, batch)
    x = jnp.asarray(np.random.default_rng(5).normal(size=(2, FRAMES, 72)), jnp.float32)

    @jax.jit
    def unet(alpha, conditions):
        alpha = jnp.full(2, alpha)
        return model.unet.apply(
            {"params": params["params"]["unet"]}, x, alpha, jnp.sqrt(1 - alpha**2), conditions
        )

    own = unet(0.5, conditions)
    assert np.abs(unet(0.1, conditions) - own).max() > 1e-3
    for name in ("audio", "coarse_prediction", "identity", "emotion", "sources"):
        changed = {**conditions, name: jax.tree.map(lambda v: v + 0.5, conditions[name])}
        assert np.abs(unet(0.5, changed) - own).max() > 1e-3, name


def test_at_the_start_the_prediction_is_the_best_guess_from_coarse_prediction_and_noise():
    batch = example()
    model = models.build(config(widths=(8,)), CONSTANTS)
    params = quick(model.init)(jax.random.key(0), batch)
    call, encode = one_call(model, batch), model.encode_conditions
    found, coarse = quick(lambda p: (call(p), encode(p, batch)["coarse_prediction"][:, :FRAMES]))(
        params
    )
    x = np.random.default_rng(5).normal(size=(2, FRAMES, 72))
    alpha, sigma = (np.asarray(v)[:, None, None] for v in model.level(jnp.array([0.3, 0.9])))
    np.testing.assert_allclose(found, alpha * x + sigma**2 * coarse, atol=1e-5)


def test_units_go_there_and_back_and_channels_never_observed_stay_at_their_mean():
    std = 0.1 * rig.SCALE
    std[5] = 0.0
    model = models.build(config(), {**CONSTANTS, "motion_std": std})
    motion = np.random.default_rng(0).uniform(rig.MIN, rig.MAX, (2, 3, 72)).astype(np.float32)
    values = model.standardised(model.constants, motion)
    back = np.asarray(model.motion(model.constants, values))
    seen = np.arange(72) != 5
    np.testing.assert_allclose(back[..., seen], motion[..., seen], rtol=1e-5, atol=1e-5)
    assert not values[..., 5].any() and (back[..., 5] == CONSTANTS["motion_mean"][5]).all()


def test_a_student_is_its_teacher_twice_and_samples_in_one_step():
    batch = example()
    model, params, predict = make(
        batch,
        distill_steps=4,
        init_from="runs/teacher",
        sample={"sampler": "consistency", "steps": 1},
        widths=(8, 12),
    )
    assert set(params) == {"params", "constants"}
    assert set(params["params"]) == {"condition_encoder", "unet", "teacher"}
    motion = predict(params, batch)
    # One call in pure noise, of the student.
    network = params["params"]
    other = {**network, "teacher": jax.tree.map(np.zeros_like, network["teacher"])}
    other = {**params, "params": other}
    np.testing.assert_array_equal(motion, predict(other, batch))
    noise = frame_noise(
        jax.random.key(0), jnp.zeros(2, int), jnp.zeros(2, int), FRAMES, START_INDEX
    )
    one, zero = jnp.ones(2), jnp.zeros(2)

    @quick
    def call(params):
        return model.denoise(
            params["params"]["unet"], noise, zero, one, model.encode_conditions(params, batch)
        )

    clean = call(params)
    close(motion, np.clip(model.motion(model.constants, clean), rig.MIN, rig.MAX))
