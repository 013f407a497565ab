import jax
import jax.numpy as jnp
import numpy as np
import optax

from a2fjax.losses import WeightedSum
from a2fjax.training import optimizer, state, step


def make(toy, **changes):
    config = toy.config(**changes)
    task, inputs = toy.Task(), toy.Inputs(config)
    tx = optimizer.build(config.optim, config.steps)
    average = config.optim.ema_decay > 0
    start = jax.jit(lambda: state.create(task, tx, inputs._batch(0, 0), seed=0, average=average))()
    return config, task, inputs, tx, start


def test_step_equals_its_parts(toy):
    config, task, inputs, tx, start = make(toy)
    update = jax.jit(step.make_train_step(task, tx, config))
    now, metrics = start, {}
    for index in range(3):
        batch, before = inputs._batch(0, index), now
        now, metrics = update(now, batch)
    key = state.stream(config.seed, "train", 2)

    def loss(params):
        whole = {**params, **before.frozen}
        return task.loss(whole, batch, key, step=2, train=True)[0]

    value, grads = jax.jit(jax.value_and_grad(loss))(before.params)
    updates, _ = jax.jit(tx.update)(grads, before.opt_state, before.params)
    params = optax.apply_updates(before.params, updates)
    for a, b in zip(jax.tree.leaves(now.params), jax.tree.leaves(params), strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-5, atol=1e-7)
    norm = np.sqrt(sum(float((np.asarray(g) ** 2).sum()) for g in jax.tree.leaves(grads)))
    np.testing.assert_allclose(metrics["grad_norm"], norm, rtol=1e-5)
    np.testing.assert_allclose(metrics["loss"], value, rtol=1e-6)
    terms = metrics["loss/position"] + 0.1 * metrics["loss/smooth"]
    np.testing.assert_allclose(metrics["loss"], terms, rtol=1e-6)
    np.testing.assert_allclose(metrics["update_norm"], optax.tree.norm(updates), rtol=1e-4)
    np.testing.assert_allclose(metrics["param_norm"], optax.tree.norm(params), rtol=1e-5)
    rate = optimizer.learning_rate(config.optim, config.steps)
    np.testing.assert_allclose(metrics["lr"], rate(2), rtol=1e-6)
    assert int(now.step) == 3 and bool(metrics["finite"])
    counts = [x for x in jax.tree.leaves(now.opt_state) if jnp.ndim(x) == 0]
    assert counts and all(int(c) == 3 for c in counts)


def test_constants_keep_their_bytes_and_the_average_lags(toy):
    config, task, inputs, tx, start = make(toy)
    after, _ = jax.jit(step.make_train_step(task, tx, config))(
        start.replace(step=jnp.int32(1)), inputs._batch(0, 0)
    )
    before = np.asarray(start.frozen["constants"]["mean"]).tobytes()
    assert np.asarray(after.frozen["constants"]["mean"]).tobytes() == before
    for e, p0, p1 in zip(
        *map(jax.tree.leaves, (after.ema, start.params, after.params)), strict=True
    ):
        np.testing.assert_allclose(e, 2 / 11 * p0 + 9 / 11 * p1, rtol=1e-5, atol=1e-7)


def test_values_that_are_not_finite_are_flagged(toy):
    config, task, inputs, tx, start = make(toy)
    batch = inputs._batch(0, 0)
    batch.audio[0, 0, 0] = np.nan
    update = jax.jit(step.make_train_step(task, tx, config))
    assert not bool(update(start, batch)[1]["finite"])
    batch.audio[0, 0, 0] = 0.0
    broken = jax.tree.map(lambda x: x, start.params)
    broken["net"]["Dense_1"]["bias"] = jnp.full((4,), jnp.inf)
    assert not bool(update(start.replace(params=broken), batch)[1]["finite"])


def test_evaluation_uses_the_average_and_no_dropout(toy):
    config, task, inputs, tx, start = make(toy)
    zero = jax.tree.map(jnp.zeros_like, start.params)
    evaluate = step.make_eval_step(task, config.seed)
    batch = inputs._batch(1, 0)
    terms = evaluate(start.replace(ema=zero), batch, 0)
    # All-zero parameters predict the constant mean, 0.25.
    mask = batch.frame_mask[..., None]
    error = ((0.25 - batch.motion) ** 2 * mask).sum() / (mask.sum() * 4)
    np.testing.assert_allclose(terms["position"].value, error, rtol=1e-5)
    assert float(terms["smooth"].value) == 0


def without_dropout(task):
    loss = task.loss
    task.loss = lambda params, batch, key, *, step, train: loss(
        params, batch, None, step=step, train=False
    )
    return task


def ragged(batch):
    """Frames that count in the first example only, and in half of another."""
    batch.frame_mask[1:] = False
    batch.frame_mask[2, :3] = True
    return batch


def close(a, b, **tolerance):
    for x, y in zip(jax.tree.leaves(a), jax.tree.leaves(b), strict=True):
        np.testing.assert_allclose(np.asarray(x), np.asarray(y), **tolerance)


def test_a_batch_in_parts_has_the_sums_of_the_whole(toy):
    config, task, inputs, tx, start = make(toy, data__batch_size=8)
    task, batch = without_dropout(task), ragged(inputs._batch(0, 0))
    whole = jax.jit(step.make_train_step(task, tx, config))(start, batch)
    for parts in (2, 4, 8):
        cut = toy.replace(config, accumulate=parts)
        found = jax.jit(step.make_train_step(task, tx, cut))(start, batch)
        close(found[1], whole[1], rtol=2e-6, atol=1e-7)
        close(found[0].params, whole[0].params, rtol=0, atol=1e-6)


def test_parts_of_a_total_that_is_not_linear(toy):
    """The gradient is exact for any function of the sums and weights."""
    config, task, inputs, tx, start = make(toy, data__batch_size=8)
    task, batch = without_dropout(task), ragged(inputs._batch(0, 0))
    terms_of = task.loss

    def total(terms):
        return jnp.sqrt(terms["position"].value) * (1 + terms["smooth"].value)

    def loss(params, batch, key, *, step, train):
        terms = terms_of(params, batch, key, step=step, train=train)[1]
        # A weight that is learnt, too.
        weight = terms["position"].weight * (1 + params["net"]["Dense_1"]["bias"].mean() ** 2)
        terms["position"] = WeightedSum(terms["position"].total, weight)
        return total(terms), terms

    task.loss, task.total = loss, total
    bias = jnp.arange(4.0) / 4 + 0.1
    start.params["net"]["Dense_1"]["bias"] = bias
    whole = jax.jit(step.make_train_step(task, tx, config))(start, batch)
    cut = toy.replace(config, accumulate=4)
    found = jax.jit(step.make_train_step(task, tx, cut))(start, batch)
    close(found[1], whole[1], rtol=1e-5, atol=1e-7)


def test_what_is_computed_again_changes_nothing(toy):
    config, task, inputs, tx, start = make(toy)
    batch = inputs._batch(0, 0)
    whole = jax.jit(step.make_train_step(task, tx, config))(start, batch)
    again = toy.replace(config, remat="dots")
    close(jax.jit(step.make_train_step(task, tx, again))(start, batch), whole, rtol=1e-6, atol=1e-7)


def test_norms_of_groups_make_those_of_the_whole(toy):
    config, task, inputs, tx, start = make(toy)
    metrics = jax.jit(step.make_train_step(task, tx, config))(start, inputs._batch(0, 0))[1]
    for name in ("grad_norm", "update_norm", "param_norm"):
        parts = [v for k, v in metrics.items() if k.startswith(f"{name}/")]
        assert len(parts) == 3
        np.testing.assert_allclose(np.linalg.norm(parts), metrics[name], rtol=1e-5)
