"""A discriminator beside a motion model: its losses by hand, what it learns and leaves alone."""

import dataclasses
import functools
import sys
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from a2fjax import losses, rig, tasks
from a2fjax.configuration import (
    AudioConfig,
    Config,
    DataConfig,
    LossConfig,
    OptimConfig,
    RegressionConfig,
    SyncnetConfig,
)
from a2fjax.models.syncnet import channels, timing
from a2fjax.models.syncnet.model import Syncnet
from a2fjax.tasks import adversary as adversary_lib
from a2fjax.tasks.adversary import Adversary, first_params
from a2fjax.training import optimizer, state, step

sys.path.insert(0, str(Path(__file__).parent))
from ears import FRAMES, JAW, ROWS, VARIABLES, Ears, example, moved  # noqa: E402

WINDOW, REACH = Ears.config.window_frames, Ears.config.motion_reach


def discriminator(model=None, params=None, frozen=None, penalty=1.0):
    params = first_params(VARIABLES["params"], 1.2, -0.2) if params is None else params
    optim = OptimConfig(learning_rate=1e-3, warmup_steps=1)
    frozen = {"constants": {"none": np.float32(0.0)}} if frozen is None else frozen
    return Adversary(model or Ears(), params, frozen, optim, penalty)


EARS = discriminator()


@pytest.fixture(scope="module")
def terms():
    """The discriminator's terms as a function of (parameters, motion, batch, items)."""
    return jax.jit(lambda *given: EARS.terms(given[0], {}, *given[1:]))


def decision(heard, seen):
    """Returns D of the vectors [n, 2] of a window, by its definition."""
    cosine = np.sum(heard * seen) / np.sqrt(np.sum(heard**2) * np.sum(seen**2))
    return (cosine - 0.5) / 0.7  # 1 at 1.2, which no cosine reaches: all have a hinge loss.


def vectors(batch, motion=None):
    out = embed(batch, batch.motion if motion is None else motion)
    return np.asarray(out["heard"], float), np.asarray(out["seen"], float)


@jax.jit
def embed(batch, motion):
    own = channels.own_statistics(batch.motion, batch.frame_mask)
    return Ears().apply(VARIABLES, batch.replace(motion=motion), statistics=own)


@jax.jit
def countable(batch):
    own = channels.own_statistics(batch.motion, batch.frame_mask)
    return timing.countable(Ears(), batch, own)


def counted(batch):
    """Yields (row, first frame) of windows that count."""
    whole = np.asarray(countable(batch))
    for row, first in zip(*np.nonzero(whole), strict=True):
        last = first + WINDOW - 1 - REACH + Ears.config.audio_reach
        if first + REACH >= Ears.config.audio_reach and last < FRAMES:
            yield row, first


def inner(row, first, shift=0):
    return row, slice(first + REACH + shift, first + WINDOW - REACH + shift)


def test_hinge_losses_are_those_of_their_definition(terms):
    batch = example()
    made = moved(batch, 4)
    heard, real = vectors(batch)
    generated = vectors(batch, made)[1]
    sums = {name: [] for name in ("adversary", "real", "generated", "shifted")}
    for row, first in counted(batch):
        place = inner(row, first)
        d = decision(heard[place], real[place])
        fake = decision(heard[place], generated[place])
        sums["real"].append(max(0.0, 1.0 - d))
        sums["generated"].append(max(0.0, 1.0 + fake))
        sums["adversary"].append(max(0.0, d - fake) / 2.0)
        for k in timing.OFFSETS[1:]:
            other = inner(row, first, k)
            reach = Ears.config.audio_reach
            if other[1].start >= reach and other[1].stop - 1 + reach < FRAMES:
                sums["shifted"].append(max(0.0, 1.0 + decision(heard[other], real[place])))
    found = terms(EARS.params, made, batch, np.ones(ROWS, bool))
    for name, values in sums.items():
        term = found[name if name == "adversary" else f"adversary_{name}"]
        assert float(term.weight) == len(values) > 100, name
        assert float(term.value) == pytest.approx(np.mean(values), rel=2e-4), name
        assert np.mean(values) > 0.05, name
    total = found["adversary_real"].value + 0.5 * found["adversary_penalty"].value
    total += 0.5 * (found["adversary_generated"].value + found["adversary_shifted"].value)
    assert float(EARS.total(found)) == pytest.approx(float(total))


def test_the_penalty_is_the_squared_gradient_of_single_windows(terms):
    batch = example()
    batch = batch.replace(motion=moved(batch, 3))  # In step the cosine is at its maximum.
    heard, _ = vectors(batch)
    deviation = np.asarray(channels.own_statistics(batch.motion, batch.frame_mask).deviation)
    apart = [(row, first) for row, first in counted(batch) if first % WINDOW == 0]
    squares, size = np.zeros(len(apart)), 0.02
    for frame in range(WINDOW):  # Of all windows at once: they have no common frame.
        ends = []
        for sign in (-1.0, 1.0):
            motion = batch.motion.copy()
            motion[:, frame::WINDOW, JAW] += sign * size * deviation[:, JAW, None]
            seen = vectors(batch, motion)[1]
            ends.append([decision(heard[inner(*at)], seen[inner(*at)]) for at in apart])
        squares += (np.subtract(ends[1], ends[0]) / (2.0 * size)) ** 2
    found = terms(EARS.params, batch.motion, batch, np.ones(ROWS, bool))["adversary_penalty"]
    assert float(found.weight) == len(apart) > 20
    assert float(found.value) == pytest.approx(squares.mean(), rel=0.01) and squares.mean() > 0.01


def test_the_motion_models_term_is_0_at_the_truth_and_1_for_other_clips(terms):
    found = []
    batch = example(9, 8)
    heard, right = vectors(batch)
    wrong = vectors(batch, np.roll(batch.motion, 1, axis=0))[1]
    places = [inner(*at) for at in counted(batch)]
    means = [
        np.mean([0.7 * decision(heard[at], seen[at]) + 0.5 for at in places])
        for seen in (right, wrong)
    ]
    params = first_params(VARIABLES["params"], *means)
    for seed in range(1, 7):
        batch = example(seed)
        whole = np.ones(ROWS, bool)
        same = terms(params, batch.motion, batch, whole)["adversary"]
        assert float(same.value) == pytest.approx(0.0, abs=1e-5)
        found.append(
            float(terms(params, np.roll(batch.motion, 1, 0), batch, whole)["adversary"].value)
        )
    assert np.mean(found) == pytest.approx(1.0, abs=0.3)


def test_items_that_do_not_count_are_left_out_of_the_generated_motion_alone(terms):
    batch, made = example(), moved(example(), 3)
    every = terms(EARS.params, made, batch, np.ones(ROWS, bool))
    some = terms(EARS.params, made, batch, np.arange(ROWS) < 1)
    for name in adversary_lib.NAMES:
        fewer = name in ("adversary", "adversary_generated")
        assert (float(some[name].weight) < float(every[name].weight)) == fewer, name


def test_what_is_masked_may_be_anything(terms):
    batch, whole = example(), np.ones(ROWS, bool)
    mask = batch.frame_mask.copy()
    mask[1, 40:60] = False
    batch = batch.replace(frame_mask=mask)
    late = moved(batch, 4)
    before = terms(EARS.params, late, batch, whole)
    truth, made = batch.motion.copy(), late.copy()
    for values in (truth, made):
        values[1, 40:60] = np.nan
        values[:, :, rig.INDEX["mouthPucker"]] = np.nan  # Not observed.
    after = terms(EARS.params, made, batch.replace(motion=truth), whole)
    for name in adversary_lib.NAMES:
        assert float(after[name].value) == float(before[name].value), name
    silent = terms(EARS.params, late, batch.replace(audio=batch.audio * 1e-3), whole)
    assert all(float(term.value) == 0.0 for term in silent.values())


@pytest.fixture(scope="module")
def network():
    """A small network of the contrastive expert with random weights."""
    config = SyncnetConfig(
        window_frames=15, audio_reach=2, motion_reach=2, width=16, layers=1, embedding=8
    )
    model = Syncnet(config, AudioConfig(features=("mel",)))
    variables = jax.jit(model.init)(jax.random.key(0), example())
    frozen = {k: v for k, v in variables.items() if k != "params"}
    return discriminator(model, first_params(variables["params"], 0.6, 0.0), frozen, penalty=0.1)


@pytest.mark.slow
def test_it_learns_to_tell_shifted_from_in_step(network):
    tool = optax.adam(3e-3)

    @jax.jit
    def update(params, opt_state, batch):
        def loss(params):
            found = network.terms(params, network.frozen, batch.motion, batch)
            told = {**found, "adversary_generated": found["adversary_shifted"]}
            return network.total(told), found

        (_, found), grads = jax.value_and_grad(loss, has_aux=True)(params)
        updates, opt_state = tool.update(grads, opt_state)
        return optax.apply_updates(params, updates), opt_state, found

    def chance(found):
        return float(found["adversary_real"].value + found["adversary_shifted"].value)

    params, opt_state = network.params, tool.init(network.params)
    first = update(params, opt_state, example(99))[2]
    for seed in range(140):
        params, opt_state, _ = update(params, opt_state, example(seed))
    held_out = update(params, opt_state, example(99))[2]
    assert chance(first) > 1.9  # 2 for one that tells nothing apart.
    assert chance(held_out) < 1.2


# ---- in a task -------------------------------------------------------------------------------

LOSS = LossConfig(sync_adversary="runs/a", sync_adversary_weight=0.5, sync_start=0, sync_ramp=0)
SMALL = dict(conv_layers=1, conv_width=4, recurrent_width=4, identity="none", dropout=0.0)
CONFIG = Config(
    model=RegressionConfig(**SMALL), loss=LOSS, data=DataConfig(window_frames=FRAMES), steps=200
)


def built(adversary):
    return tasks.build(CONFIG, None, {}).with_experts([], adversary)


def begun(task, batch):
    tool = optimizer.build(CONFIG.optim, CONFIG.steps, 1.0)
    create = functools.partial(state.create, task, tool, seed=0, average=True, steps=200)
    made = jax.jit(create)(batch, task.pretrained)
    constants = made.frozen["constants"]
    # Beyond five deviations from the truth's mean a discriminator has no gradient.
    near = {"motion_mean": jnp.full(72, 0.45), "motion_std": jnp.full(72, 0.1)}
    return tool, made.replace(frozen={**made.frozen, "constants": {**constants, **near}})


@pytest.mark.slow
def test_each_side_has_the_gradient_of_its_own_loss_alone():
    task, batch = built(EARS), example()
    _, start = begun(task, batch)
    key = jax.random.key(0)

    def both(own, beside):
        variables = {**own, **beside, **start.frozen}
        total, found = task.loss(variables, batch, key, step=900, train=True)
        return jnp.stack([total, task.auxiliary.total(found)]), found

    (model, beside), found = jax.jit(jax.jacrev(both, argnums=(0, 1), has_aux=True))(
        start.params, start.auxiliary.params
    )
    assert set(beside) == {"adversary"}

    def touched(tree, row):
        return any(np.any(np.asarray(leaf)[row]) for leaf in jax.tree.leaves(tree))

    assert touched(model, 0) and not touched(model, 1)
    assert touched(beside, 1) and not touched(beside, 0)
    others = losses.total(task.others(found), task.config)
    total = float(others + 0.5 * found["adversary"].value)
    assert float(task.total(found)) == pytest.approx(total, rel=1e-5)
    average = start.merged(average=True)
    held_out = jax.eval_shape(lambda v: task.loss(v, batch, key, step=9, train=False)[1], average)
    assert set(adversary_lib.NAMES) <= set(found) and not set(adversary_lib.NAMES) & set(held_out)


@pytest.mark.slow
def test_a_step_updates_both_with_their_own_optimisers():
    task, batch = built(EARS), example()
    tool, start = begun(task, batch)
    assert set(start.params) == {"params"} and set(start.ema) == {"params"}
    whole = {"params", "constants", "sync"}  # The frozen rest of the discriminator is in "sync".
    assert set(start.merged(average=False)) == set(start.merged(average=True)) == whole
    after, metrics = jax.jit(step.make_train_step(task, tool, CONFIG))(
        start.replace(step=jnp.int32(50)), batch
    )
    params = start.auxiliary.params

    def own(params):
        variables = {**start.params, **params, **start.frozen}
        found = task.loss(variables, batch, jax.random.key(0), step=50, train=True)[1]
        return task.auxiliary.total(found)

    grads = jax.jit(jax.grad(own))(params)
    update = optimizer.build(task.auxiliary.optim, 200).update(
        grads, start.auxiliary.opt_state, params
    )[0]
    expected = optax.apply_updates(params, update)
    for a, b in zip(*map(jax.tree.leaves, (after.auxiliary.params, expected)), strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-5)
    norm = float(optax.tree.norm(grads))
    assert float(metrics["grad_norm/adversary"]) == pytest.approx(norm, rel=1e-4) and norm > 0
    others = losses.total(
        {k: losses.WeightedSum(v, jnp.ones(())) for k, v in terms_in(metrics, task).items()},
        task.config,
    )
    pleased = 0.5 * metrics["loss/adversary"]
    assert float(metrics["loss"]) == pytest.approx(float(others + pleased), rel=1e-5)


def terms_in(metrics, task):
    names = {k.removeprefix("loss/"): v for k, v in metrics.items() if k.startswith("loss/")}
    return task.others(names)


def test_without_a_discriminator_nothing_is_added():
    plain, batch = tasks.build(CONFIG, None, {}), example()
    texts = []
    for task in (plain, built(EARS).with_experts([])):
        tool = optimizer.build(CONFIG.optim, CONFIG.steps, 1.0)
        create = functools.partial(state.create, task, tool, seed=0, average=True, steps=200)
        start = jax.eval_shape(create, batch, task.pretrained)
        assert start.auxiliary is None and set(start.frozen) == {"constants"}
        update = jax.jit(step.make_train_step(task, tool, CONFIG))
        texts.append(update.lower(start, batch).as_text())
    assert texts[0] == texts[1] and task.pretrained == {} and task.auxiliary is None


@pytest.mark.slow
def test_parts_of_a_batch_have_its_gradients():
    task, batch = built(EARS), example()
    batch = batch.replace(length=np.array([FRAMES, 100, 90, FRAMES], np.int32))
    tool, start = begun(task, batch)
    whole, parts = (
        jax.jit(step.make_train_step(task, tool, dataclasses.replace(CONFIG, accumulate=n)))(
            start, batch
        )[1]
        for n in (1, 2)
    )
    names = [f"loss/{name}" for name in adversary_lib.NAMES]
    for name in ("loss", *names, "grad_norm", "grad_norm/adversary"):
        assert float(parts[name]) == pytest.approx(float(whole[name]), rel=2e-4), name
        assert float(whole[name]) > 0
