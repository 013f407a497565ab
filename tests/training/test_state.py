import jax
import jax.numpy as jnp
import numpy as np
import pytest

from a2fjax.training import optimizer, state


def test_average_of_constant_is_constant_and_decay_warms_up():
    ema = {"w": jnp.array([0.0])}
    # After t updates the decay is (1 + t) / (10 + t): 0.1, 2 / 11, 3 / 12 ...
    expected = 0.0
    for t, value in enumerate([1.0, 2.0, 3.0]):
        ema = state.ema_update(ema, {"w": jnp.array([value])}, jnp.int32(t), decay=0.999)
        keep = (1 + t) / (10 + t)
        expected = keep * expected + (1 - keep) * value
    assert float(ema["w"][0]) == pytest.approx(expected, rel=1e-6)
    late = state.ema_update({"w": jnp.ones(1)}, {"w": jnp.zeros(1)}, jnp.int32(10**6), decay=0.99)
    assert float(late["w"][0]) == pytest.approx(0.99)


def test_streams_are_functions_of_seed_name_and_step():
    def bits(*args):
        return jax.random.bits(state.stream(*args), (4,)).tolist()

    assert bits(0, "train", 3) == bits(0, "train", jnp.int32(3))
    different = [bits(0, "train", 3), bits(1, "train", 3), bits(0, "eval", 3), bits(0, "train", 4)]
    assert len({tuple(d) for d in different}) == 4


def test_constants_are_frozen_and_in_neither_optimiser_nor_average(toy):
    config = toy.config()
    batch = toy.Inputs(config)._batch(0, 0)
    made = state.create(toy.Task(), optimizer.build(config.optim, 12), batch, seed=0, average=True)
    assert set(made.frozen) == {"constants"} and "constants" not in made.params
    shapes = {np.shape(x) for x in jax.tree.leaves(made.opt_state)}
    assert shapes == {np.shape(x) for x in jax.tree.leaves(made.params)} | {()}
    assert jax.tree.structure(made.ema) == jax.tree.structure(made.params)
    assert set(made.merged(average=True)) == {"net", "constants"}


def test_without_average_the_parameters_stand_in(toy):
    config = toy.config(optim__ema_decay=0.0)
    batch = toy.Inputs(config)._batch(0, 0)
    made = state.create(toy.Task(), optimizer.build(config.optim, 12), batch, seed=0, average=False)
    assert made.ema is None
    assert made.merged(average=True)["net"] == made.params["net"]
