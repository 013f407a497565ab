"""Sync experts as terms of a loss, with an expert whose verdict is known: jaw against loudness."""

import dataclasses
import sys
import types
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from a2fjax import losses, rig, tasks
from a2fjax.configuration import (
    Config,
    DataConfig,
    DiffusionConfig,
    LossConfig,
    RegressionConfig,
    SampleConfig,
    UNetConfig,
)
from a2fjax.diffusion import schedule
from a2fjax.errors import InputError
from a2fjax.models.rngs import streams
from a2fjax.models.syncnet import channels, timing
from a2fjax.sync import normalisation
from a2fjax.tasks.sync_loss import LossExpert

sys.path.insert(0, str(Path(__file__).parent))
from ears import FRAMES, JAW, ROWS, VARIABLES, Ears, example, moved  # noqa: E402


@pytest.fixture(scope="module")
def expert():
    """The expert with constants measured as a run measures them."""
    batch, model = example(9, 8), Ears()
    own = channels.own_statistics(batch.motion, batch.frame_mask)
    other = batch.replace(motion=np.roll(batch.motion, 1, axis=0))
    compare = jax.jit(lambda batch: timing.compare(model, VARIABLES, batch, own))
    right, wrong = compare(batch), compare(other)
    counts = np.asarray(timing.countable(model, batch, own) & right.audible[:, 0])
    rows = [np.swapaxes(v, 1, 2)[counts] for v in (right.scores, wrong.scores, right.audible)]
    made = normalisation._fitted(*map(np.asarray, rows), "ears")
    return LossExpert(model, VARIABLES, made.scale, made.gap)


@pytest.fixture(scope="module")
def term(expert):
    """The expert's term as a function of motion and batch."""
    return jax.jit(lambda motion, batch: expert.term(VARIABLES, motion, batch))


def test_the_loss_is_0_at_the_truth_and_1_for_other_clips(term):
    batch = example()
    assert float(term(batch.motion, batch).value) == pytest.approx(0.0, abs=1e-5)
    others = [float(term(np.roll(b.motion, 1, axis=0), b).value) for b in map(example, range(1, 7))]
    assert np.mean(others) == pytest.approx(1.0, abs=0.3)


def test_the_loss_falls_when_a_shifted_motion_moves_into_step(term):
    batch = example()
    by_shift = [float(term(moved(batch, k), batch).value) for k in (5, 4, 3, 2, 0)]
    assert by_shift == sorted(by_shift, reverse=True)
    assert by_shift[0] > 0.5 and by_shift[3] > 0.001 > by_shift[4]


def test_one_step_along_the_gradient_brings_a_late_motion_nearer_to_the_truth(term):
    batch = example()
    late = moved(batch, 3)
    slope = np.asarray(jax.grad(lambda m: term(m, batch).value)(late))
    assert np.isfinite(slope).all()
    assert set(np.flatnonzero(np.abs(slope).max((0, 1)))) == {JAW}
    towards = (batch.motion - late)[..., JAW]
    assert -(slope[..., JAW] * towards).sum() > 0


def test_no_gradient_beyond_the_truth_and_none_to_the_expert(expert):
    batch = example()

    def value(variables, motion):
        return expert.term(variables, motion, batch).value

    late = moved(batch, 3)
    to_expert, to_motion = jax.jit(jax.grad(value, argnums=(0, 1)))(VARIABLES, late)
    assert float(to_expert["params"]["gain"]) == 0.0 and np.abs(to_motion).max() > 0
    # The truth is late here: to be in step pleases the expert more and gains nothing.
    better = jax.value_and_grad(
        lambda m: expert.term(VARIABLES, m, batch.replace(motion=late)).value
    )
    found, slope = jax.jit(better)(batch.motion)
    assert float(found) == 0.0 and not np.any(slope)


def test_what_is_masked_may_be_anything(term):
    batch = example()
    mask = batch.frame_mask.copy()
    mask[1, 40:60] = False
    length = np.array([FRAMES, FRAMES, 120, FRAMES], np.int32)
    batch = batch.replace(frame_mask=mask, length=length)
    late = moved(batch, 4)
    before = term(late, batch)
    truth, made = batch.motion.copy(), late.copy()
    for values in (truth, made):
        values[1, 40:60] = np.nan
        values[2, 120:] = 1e9
        values[:, :, rig.INDEX["mouthPucker"]] = np.nan  # Not observed.
    after = term(made, batch.replace(motion=truth))
    assert (float(after.total), float(after.weight)) == (float(before.total), float(before.weight))
    slope = jax.grad(lambda m: term(m, batch.replace(motion=truth)).value)(made)
    assert np.isfinite(slope).all() and not np.asarray(slope)[1, 40:60].any()


def test_silence_and_stillness_do_not_count(term):
    batch = example()
    for silent in (
        batch.replace(audio=batch.audio * 1e-3),
        batch.replace(motion=np.full_like(batch.motion, 0.5)),
        batch.replace(channel_mask=np.zeros_like(batch.channel_mask)),
    ):
        found = term(moved(batch, 5), silent)
        assert float(found.weight) == 0 and float(found.value) == 0


def test_the_truth_standardises_the_prediction(term):
    """A prediction of half the size is judged as such, not stretched by its own deviation."""
    batch = example()
    offset = np.zeros(72, np.float32)
    offset[JAW] = 1.0
    assert float(term(batch.motion + offset, batch).value) > 0.3


# ---- in a task -------------------------------------------------------------------------------

LOSS = LossConfig(sync=("runs/a",), sync_weights=(0.5,), sync_start=100, sync_ramp=200)
SMALL = dict(conv_layers=1, conv_width=4, recurrent_width=4, identity="none", dropout=0.0)


def regression(expert, loss=LOSS, count=1):
    config = Config(
        model=RegressionConfig(**SMALL), loss=loss, data=DataConfig(window_frames=FRAMES)
    )
    return tasks.build(config, None, {}).with_experts([expert] * count)


@pytest.fixture(scope="module")
def made(expert):
    task = regression(expert)
    variables = jax.jit(task.init)(jax.random.key(0), example())
    # Beyond five deviations from the truth's mean an expert has no gradient.
    near = {"motion_mean": jnp.full(72, 0.45), "motion_std": jnp.full(72, 0.1)}
    variables = {**variables, "constants": {**variables["constants"], **near}}
    loss = jax.jit(task.loss, static_argnames="train")
    return task, {**variables, **task.pretrained}, loss


def test_the_weight_rises_in_training_and_is_whole_in_evaluation(made):
    task, variables, loss = made
    batch, key = example(), jax.random.key(1)
    plain = tasks.build(Config(model=RegressionConfig(**SMALL)), None, {})
    without = float(jax.jit(lambda v: plain.loss(v, batch, key, step=0, train=True))(variables)[0])
    value = None
    for step, share in ((0, 0.0), (100, 0.0), (200, 0.5), (300, 1.0), (900, 1.0)):
        total, terms = loss(variables, batch, key, step=step, train=True)
        value = float(terms["sync"].value)
        assert value > 0.1 and float(terms["sync_ramp"].value) == pytest.approx(share)
        assert float(total) == pytest.approx(without + 0.5 * share * value, rel=1e-5)
    held_out = loss(variables, batch, key, step=0, train=False)[0]
    assert float(held_out) == pytest.approx(without + 0.5 * value, rel=1e-3)


def test_the_gradient_reaches_the_motion_model_and_not_the_expert(made):
    task, variables, _ = made
    batch, key = example(), jax.random.key(1)

    def sync(variables):
        return task.loss(variables, batch, key, step=900, train=True)[1]["sync"].value

    slopes = jax.jit(jax.grad(sync))(variables)
    assert max(float(np.abs(leaf).max()) for leaf in jax.tree.leaves(slopes["params"])) > 0
    assert not any(np.any(leaf) for leaf in jax.tree.leaves(slopes["sync"]))
    assert "^sync/" in task.frozen and task.pretrained["sync"]["0"] is VARIABLES


def test_each_expert_has_its_term_and_weight(expert, made):
    loss = dataclasses.replace(LOSS, sync=("a", "b"), sync_weights=(0.5, 0.25))
    task, (_, variables, _) = regression(expert, loss, 2), made
    variables = {**variables, **task.pretrained}
    total, terms = jax.jit(
        lambda v: task.loss(v, example(), jax.random.key(1), step=900, train=True)
    )(variables)
    assert set(terms) >= {"sync", "sync_2", "sync_ramp"}
    first, second = float(terms["sync"].value), float(terms["sync_2"].value)
    assert first == pytest.approx(second)
    others = losses.total(task.others(terms), task.config)
    assert float(total) == pytest.approx(float(others) + 0.75 * first, rel=1e-5)


@pytest.mark.slow
def test_parts_of_a_batch_have_its_gradient(expert):
    from a2fjax.training import optimizer, state, step

    task = regression(expert, dataclasses.replace(LOSS, sync_start=0, sync_ramp=0))
    batch = example()
    batch = batch.replace(length=np.array([FRAMES, 100, 90, FRAMES], np.int32))
    config = Config(model=RegressionConfig(**SMALL), loss=LOSS, steps=200)
    tool = optimizer.build(config.optim, config.steps, 1.0)
    start = state.create(task, tool, batch, task.pretrained, seed=0, average=False)
    assert set(start.frozen) == {"constants", "sync"}
    whole, parts = (
        jax.jit(step.make_train_step(task, tool, dataclasses.replace(config, accumulate=n)))(
            start, batch
        )[1]
        for n in (1, 2)
    )
    for name in ("loss", "loss/sync", "loss/sync_ramp", "grad_norm"):
        assert float(parts[name]) == pytest.approx(float(whole[name]), rel=2e-4), name


def diffusion(expert, least, **changes):
    model = DiffusionConfig(**SMALL, unet=UNetConfig(widths=(8, 8), heads=1, window=4), **changes)
    loss = dataclasses.replace(LOSS, sync_least_alpha=least)
    config = Config(model=model, loss=loss, init_from="x" if changes.get("distill_steps") else "")
    return tasks.build(config, None, {}).with_experts([expert])


def judged(task, variables, batch, key):
    loss = jax.jit(lambda v: task.loss(v, batch, key, step=900, train=True)[1])
    return loss(variables)["sync"]


@pytest.mark.slow
def test_only_denoised_motion_of_low_noise_and_with_audio_counts(expert, term):
    batch, key = example(), jax.random.key(3)
    task = diffusion(expert, 0.7, audio_dropout=0.0, pure_noise=0.0)
    variables = {**jax.jit(task.init)(jax.random.key(0), batch), **task.pretrained}
    counted = float(judged(task, variables, batch, key).weight)
    time = task.sample_times(streams(key)["noise_level"], ROWS)
    low = np.asarray(schedule.level("cosine", time)[0] >= 0.7)
    each = float(term(batch.motion, batch).weight) / ROWS  # Items have as many windows.
    assert 0 < low.sum() < ROWS and counted == pytest.approx(each * low.sum())
    deaf = diffusion(expert, 0.0, audio_dropout=1.0)
    assert float(judged(deaf, variables, batch, key).weight) == 0


def test_a_student_takes_no_experts(expert):
    sample = SampleConfig(sampler="consistency", steps=1)
    with pytest.raises(InputError, match="model.distill_steps=2: a student learns"):
        diffusion(expert, 0.5, distill_steps=2, sample=sample)


def test_an_expert_that_tells_nothing_apart_is_refused():
    rng = np.random.default_rng(0)
    right = rng.uniform(-1, 1, (500, len(timing.OFFSETS)))
    wrong, audible = right[::-1].copy(), np.ones_like(right, bool)
    with pytest.raises(InputError, match="runs/x: finds the motion of other clips only"):
        normalisation._fitted(right, wrong, audible, "runs/x")
    right[:, 0] = 2.0
    found = normalisation._fitted(right, wrong, audible, "runs/x")
    assert found.scale > 10 and found.gap > 3


def test_improbability_of_scores_is_that_of_a_softmax():
    rng = np.random.default_rng(0)
    scores = rng.uniform(-1, 1, (6, len(timing.OFFSETS)))
    audible = rng.random(scores.shape) < 0.7
    audible[:, 0] = True
    compared = timing.Compared(jnp.asarray(scores.T[None]), jnp.asarray(audible.T[None]))
    found = np.asarray(timing.improbability(compared, 7.0))[0]
    expected = [
        -np.log(np.exp(7 * s[0]) / np.exp(7 * s[a]).sum())
        for s, a in zip(scores, audible, strict=True)
    ]
    assert found == pytest.approx(expected, rel=1e-5)
    assert normalisation._improbability(scores, audible, 7.0) == pytest.approx(expected)


def test_nothing_changes_without_experts():
    task = tasks.build(Config(model=RegressionConfig(**SMALL)), None, {})
    assert task.pretrained == {} and "^sync/" not in task.frozen
    assert isinstance(task.experts, tuple) and not task.experts
    assert types.SimpleNamespace(**vars(task)).config is task.config
