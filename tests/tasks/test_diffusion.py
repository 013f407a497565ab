import dataclasses
import functools
import re

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from a2fjax import rig, tasks
from a2fjax.batch import Batch
from a2fjax.configuration import Config, DiffusionConfig, SampleConfig, UNetConfig
from a2fjax.diffusion import targets
from a2fjax.models import params as trees
from a2fjax.models import rngs
from a2fjax.models.regression import default_constants

FRAMES = 16
SMALL = DiffusionConfig(
    conv_layers=1, conv_width=8, recurrent_width=6, identity_width=4,
    emotion_width=4, dropout=0.0,
    unet=UNetConfig(widths=(8, 12), heads=2, window=6), audio_dropout=0.5,
)  # fmt: skip
STUDENT = dict(sample=SampleConfig(sampler="consistency", steps=1))

# The time is in compiling, and half of that in making tiny programs faster.
quick = functools.partial(jax.jit, compiler_options={"xla_backend_optimization_level": 0})


def build(init_from="", **own):
    model = dataclasses.replace(SMALL, **own)
    constants = {
        **default_constants(model),
        "motion_mean": 0.5 * (rig.MIN + rig.MAX),
        "motion_std": 0.1 * rig.SCALE,
    }
    width = constants["identity_projection"].shape
    constants["identity_projection"] = np.random.default_rng(0).normal(size=width).astype("f")
    return tasks.build(Config(model=model, init_from=init_from), constants)


def example(items=4):
    rng = np.random.default_rng(0)
    loud = 0.5 + 0.5 * np.sin(np.arange(FRAMES) * rng.uniform(0.3, 0.8, (items, 1)))
    audio = 0.2 * np.repeat(loud, 320, 1) * rng.normal(size=(items, FRAMES * 320))
    motion = np.tile(0.5 * (rig.MIN + rig.MAX), (items, FRAMES, 1))
    motion[..., rig.INDEX["jawOpen"]] += 0.3 * (loud - 0.5)
    return Batch.zeros(items, FRAMES, 8).replace(
        audio=audio.astype(np.float32),
        motion=motion.astype(np.float32),
        channel_mask=np.ones((items, 72), bool),
        frame_mask=np.ones((items, FRAMES), bool),
        length=np.full(items, FRAMES, np.int32),
        identity=rng.normal(size=(items, 8, 3)).astype(np.float32) / 3**0.5,
        identity_mask=np.ones(items, bool),
        emotion=rng.dirichlet(np.ones(5), (items, FRAMES)).astype(np.float32),
        clip=np.arange(items, dtype=np.int32),
        start=np.zeros(items, np.int32),
    )


def random_parameters(task, batch, size=1.0):
    """Parameters away from their zeros, so that every path of the network is open."""
    rng = np.random.default_rng(7)

    def draw(path, leaf):
        fan_in = np.prod(leaf.shape[:-1]) if len(leaf.shape) > 1 else 10.0
        value = size * rng.normal(size=leaf.shape) / fan_in**0.5
        return (value + path.endswith("/scale")).astype(leaf.dtype)

    shapes = jax.eval_shape(task.init, jax.random.key(0), batch)
    params = trees.nest({path: draw(path, leaf) for path, leaf in trees.paths(shapes)})
    return {**params, "constants": task.model.constants}


def with_slopes(task):
    """A function of parameters, batch and key: the loss with its terms, and the gradients."""

    def run(params, batch, key):
        trainable, frozen = trees.split(params, task.frozen)

        def scalar(trainable):
            merged = trees.merge(trainable, frozen)
            return task.loss(merged, batch, key, step=0, train=True)

        return jax.value_and_grad(scalar, has_aux=True)(trainable)

    return quick(run)


@pytest.fixture(scope="module")
def teacher():
    task, batch = build(), example()
    return task, batch, random_parameters(task, batch), with_slopes(task)


@pytest.fixture(scope="module")
def student():
    task = build(init_from="runs/teacher", distill_steps=4, **STUDENT)
    batch = example()
    return task, batch, random_parameters(task, batch), with_slopes(task)


def test_the_loss_is_the_weighted_sum_of_its_terms_and_of_the_coarse_ones(teacher):
    task, batch, params, run = teacher
    (value, terms), _ = run(params, batch, jax.random.key(0))
    names = {"position", "velocity", "aperture", "closure"}
    assert set(terms) == names | {f"coarse_{name}" for name in names}
    parts = {name: float(term.value) for name, term in terms.items()}
    assert all(np.isfinite(v) and v > 0 for v in parts.values())
    assert value == pytest.approx(sum(parts.values()), rel=1e-5)
    heavy = build(coarse=3.0)
    own, coarse = (sum(parts[f"{at}{n}"] for n in names) for at in ("", "coarse_"))
    assert float(heavy.total(terms)) == pytest.approx(own + 3.0 * coarse, rel=1e-5)


def test_without_a_coarse_weight_there_are_no_coarse_terms():
    task, batch = build(coarse=0.0), example()
    shapes = jax.eval_shape(task.init, jax.random.key(0), batch)
    _, terms = jax.eval_shape(
        lambda p, b: task.loss(p, b, jax.random.key(0), step=0, train=True), shapes, batch
    )
    assert set(terms) == {"position", "velocity", "aperture", "closure"}


def test_every_trained_parameter_gets_a_gradient(teacher):
    task, batch, params, run = teacher
    reached = {}
    for seed in range(3):
        (_, _), slopes = run(params, batch, jax.random.key(seed))
        for path, leaf in trees.paths(slopes):
            assert np.isfinite(leaf).all(), path
            reached[path] = reached.get(path, False) or bool(np.abs(leaf).max() > 0)
    assert all(reached.values()), [path for path, seen in reached.items() if not seen]
    assert not any(path.startswith("constants/") for path in reached)


def test_the_same_key_gives_the_same_loss_and_another_one_another(teacher):
    task, batch, params, run = teacher
    first, again, other = (run(params, batch, jax.random.key(i))[0][0] for i in (0, 0, 1))
    assert first == again and first != other


def test_what_is_masked_or_padded_may_be_no_number_at_all(teacher):
    task, batch, params, run = teacher
    masked = jax.tree.map(np.copy, batch)
    masked.channel_mask[:, 3:40] = False
    masked.channel_mask[:, rig.INDEX["jawOpen"]] = True
    masked.frame_mask[0, 4:7] = False
    masked.length[1] = FRAMES - 5
    broken = jax.tree.map(np.copy, masked)
    broken.motion[~np.broadcast_to(masked.channel_mask[:, None], broken.motion.shape)] = np.nan
    broken.motion[0, 4:7] = np.inf
    broken.motion[1, FRAMES - 5 :] = np.nan
    (value, _), slopes = run(params, masked, jax.random.key(0))
    (other, _), other_slopes = run(params, broken, jax.random.key(0))
    assert np.isfinite(value) and value == other
    jax.tree.map(np.testing.assert_array_equal, slopes, other_slopes)


def test_coarse_predictions_of_items_without_audio_do_not_count(teacher):
    """Without audio there is no coarse prediction, and it costs nothing."""
    task, batch, params, _ = teacher
    without_audio = build(audio_dropout=1.0)
    terms = quick(lambda p, b: without_audio.loss(p, b, jax.random.key(0), step=0, train=True)[1])
    found = terms(params, batch)
    assert float(found["coarse_position"].value) == 0.0 and float(found["position"].value) > 0


def test_the_coarse_prediction_is_trained_by_its_own_loss_alone(teacher):
    _, batch, params, _ = teacher
    task = build(coarse=0.0, audio_dropout=0.0)
    _, slopes = with_slopes(task)(params, batch, jax.random.key(0))
    leaves = [
        leaf
        for path, leaf in trees.paths(slopes["params"]["condition_encoder"])
        if path.startswith("coarse_prediction")
    ]
    assert len(leaves) >= 3
    for leaf in leaves:
        assert not np.abs(leaf).any()
    assert np.abs(slopes["params"]["condition_encoder"]["backbone"]["conv_0"]["kernel"]).max() > 0


def test_levels_are_even_over_a_batch_and_some_are_pure_noise():
    task = build(pure_noise=0.25)
    draw = quick(task.sample_times, static_argnums=1)
    times = np.stack([draw(jax.random.key(i), 8) for i in range(60)])
    assert (times > 0).all() and (times <= 1).all()
    assert np.mean(times == 1.0) == pytest.approx(0.25, abs=0.06)
    for row in times:
        places = np.floor(row[row < 1.0] * 8)
        assert len(set(places)) == len(places)
    assert build(target="eps").sample_times(jax.random.key(0), 8).max() <= 0.98
    student = build(init_from="runs/teacher", distill_steps=4, distill_levels=4, **STUDENT)
    times = np.concatenate([student.sample_times(jax.random.key(i), 8) for i in range(10)])
    found, counts = np.unique(times, return_counts=True)
    np.testing.assert_allclose(found, [0.25, 0.5, 0.75, 1.0])
    assert (np.abs(counts - 20) <= 10).all()


def test_an_untrained_model_costs_what_its_best_guess_costs():
    """At the start v is guessed as 0, and the weighted error of x_0 is that of v, of variance 1."""
    task, batch = build(pure_noise=0.0, audio_dropout=0.0, snr_limit=1e5), example(items=8)
    rng = np.random.default_rng(0)
    values = np.clip(rng.normal(size=batch.motion.shape), -4, 4)
    constants = task.model.constants
    batch = batch.replace(motion=np.asarray(task.model.motion(constants, values), np.float32))
    # As `init` leaves them: nothing added to the guess; and a coarse prediction of zero.
    params = random_parameters(task, batch)
    for part, name in (
        ("unet", "output"),
        ("condition_encoder", "coarse_prediction"),
        ("condition_encoder", "coarse_prediction_film"),
    ):
        network = params["params"][part]
        network[name] = jax.tree.map(jnp.zeros_like, network[name])
    loss = quick(lambda p, b, k: task.loss(p, b, k, step=0, train=True)[1])
    terms = [loss(params, batch, jax.random.key(i)) for i in range(3)]
    position = np.mean([float(t["position"].value) for t in terms])
    assert position == pytest.approx(0.1**2, rel=0.05)  # in units of the rig
    assert float(targets.weight(jnp.zeros(()), 5.0)) == 1.0


def test_a_student_trains_its_u_net_and_nothing_else(student):
    task, batch, params, run = student
    trainable, frozen = trees.split(params, task.frozen)
    assert set(trainable) == {"params"} and set(trainable["params"]) == {"unet"}
    assert set(frozen) == {"params", "constants"}
    assert set(frozen["params"]) == {"condition_encoder", "teacher"}
    (value, terms), slopes = run(params, batch, jax.random.key(0))
    assert np.isfinite(value) and value > 0
    assert set(terms) == {"position", "velocity", "aperture", "closure"}
    assert not [path for path, leaf in trees.paths(slopes) if not np.abs(leaf).any()]


def test_a_student_starts_as_its_teacher(teacher, student):
    learnt, batch, params, _ = teacher
    task, *_ = student
    started = task.warm_start(params)
    assert set(started) == {"params", "constants"}
    started_params, unet = started["params"], params["params"]["unet"]
    assert set(started_params) == {"condition_encoder", "unet", "teacher"}
    jax.tree.map(np.testing.assert_array_equal, started_params["teacher"], unet)
    jax.tree.map(np.testing.assert_array_equal, started_params["unet"], unet)
    assert learnt.warm_start(params) is params
    shapes = jax.eval_shape(task.init, jax.random.key(0), batch)
    assert jax.tree.structure(shapes) == jax.tree.structure(started)


def test_a_path_of_one_step_is_the_teachers_own_prediction(teacher, student):
    """A student that is its teacher has then nothing to learn, and with longer paths it has."""
    _, batch, params, _ = teacher
    *_, run = student
    # Predictions stay inside the rig's limits, where they are not clipped.
    unet = params["params"]["unet"]
    unet = {**unet, "output": jax.tree.map(lambda v: 0.3 * v, unet["output"])}
    params = {**params, "params": {**params["params"], "unet": unet, "teacher": unet}}
    task = build(init_from="runs/teacher", distill_steps=1, **STUDENT)
    one = quick(lambda p, b: task.loss(p, b, jax.random.key(0), step=0, train=True)[0])
    (four, _), _ = run(params, batch, jax.random.key(0))
    assert float(one(params, batch)) < 1e-9 and float(four) > 1e-5


def test_a_students_target_is_where_its_teachers_path_ends(student):
    """From pure noise that is what the teacher samples by DDIM in as many steps."""
    from a2fjax.diffusion import samplers, schedule

    task, batch, params, _ = student
    only = build(init_from="runs/teacher", distill_steps=4, distill_levels=1, **STUDENT)
    key = jax.random.key(0)
    noise = jax.random.normal(rngs.streams(key)["motion_noise"], batch.motion.shape)
    levels = schedule.levels("cosine", 4)

    @quick
    def both(params):
        conditions = only.model.encode_conditions(params, batch)
        ones = jnp.ones(4)

        def denoise(x, i):
            a, s = (jnp.asarray(v, jnp.float32)[i] * ones for v in (levels.alpha, levels.sigma))
            return only.model.predict_clean(
                params, params["params"]["teacher"], conditions, (), SampleConfig(), x, a, s
            )

        end = samplers.ddim(denoise, noise, levels)
        own = only.model.denoise(params["params"]["unet"], noise, 0 * ones, ones, conditions)
        terms = only.loss(params, batch, key, step=0, train=True)[1]
        return jnp.mean((own - end) ** 2), terms["position"].value

    expected, found = both(params)
    assert float(found) == pytest.approx(0.1**2 * float(expected), rel=1e-3)


def test_the_loss_of_a_tiny_batch_under_the_same_noise_falls(teacher):
    task, batch, params, run = teacher
    trainable, frozen = trees.split(params, task.frozen)
    optimiser = optax.adam(1e-2)
    update = quick(optimiser.update)
    state, values = optimiser.init(trainable), []
    for _ in range(30):
        (value, _), slopes = run(trees.merge(trainable, frozen), batch, jax.random.key(1))
        changes, state = update(slopes, state)
        trainable = optax.apply_updates(trainable, changes)
        values.append(float(value))
    assert np.isfinite(values).all()
    assert values[-1] < 0.5 * values[0]


def test_patterns_of_what_is_frozen_name_whole_parts(student):
    task, *_ = student
    for path, fixed in (
        ("params/teacher/output/kernel", True),
        ("params/condition_encoder/coarse_prediction/bias", True),
        ("constants/motion_mean", True),
        ("params/unet/output/kernel", False),
        ("params/unet/teacher/kernel", False),
    ):
        assert any(re.search(pattern, path) for pattern in task.frozen) == fixed
