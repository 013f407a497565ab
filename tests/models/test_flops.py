import jax
import jax.numpy as jnp
import pytest
from jax import lax

from a2fjax import tasks
from a2fjax.configuration import Config
from a2fjax.infer import predictor
from a2fjax.models import flops

X = jax.ShapeDtypeStruct((4, 32, 16), jnp.float32)
W = jax.ShapeDtypeStruct((16, 8), jnp.float32)


def test_known_answers():
    assert flops.flops(lambda x, w: x @ w, X, W) == {"dot": 2 * 4 * 32 * 16 * 8}
    kernel = jax.ShapeDtypeStruct((5, 16, 24), jnp.float32)

    def conv(x, k):
        return lax.conv_general_dilated(
            x, k, (1,), [(2, 2)], dimension_numbers=("NWC", "WIO", "NWC")
        )

    assert flops.flops(conv, X, kernel) == {"convolution": 2 * 4 * 32 * 24 * 5 * 16}
    assert flops.flops(lambda x: (x + 1).reshape(-1)[:7], X) == {"elementwise": 4 * 32 * 16}
    assert flops.flops(lambda x: jnp.fft.rfft(x)[..., :2], X)["fft"] == 2.5 * 4 * 32 * 16 * 4


def test_loops_are_multiplied_out_and_programs_inside_are_seen():
    w = jax.ShapeDtypeStruct((8, 8), jnp.float32)

    @jax.jit
    def loop(w):
        return lax.scan(lambda h, _: (h @ w, None), jnp.ones((8,)), None, length=100)[0]

    assert flops.flops(loop, w)["dot"] == 100 * 2 * 8 * 8
    assert flops.flops(jax.checkpoint(loop), w)["dot"] == 100 * 2 * 8 * 8


def test_agrees_with_xla_where_there_are_no_loops():
    def network(x, w):
        return jnp.tanh(jax.nn.relu(x @ w) @ w.T).sum()

    own = flops.flops(network, X, W)
    theirs = jax.jit(network).lower(X, W).cost_analysis()["flops"]
    assert sum(own.values()) == pytest.approx(theirs, rel=0.1)
    back = flops.flops(jax.grad(network, argnums=(0, 1)), X, W)
    assert back["dot"] == 3 * own["dot"]


def test_a_training_step_costs_about_three_predictions():
    config = Config()
    batch = predictor.batch_shapes(config, 2, 64)
    task = tasks.build(config, None)
    params = jax.eval_shape(lambda b: task.init(jax.random.key(0), b), batch)

    def loss(params, batch):
        key = jax.random.key(0)
        return task.loss(params, batch, key, step=jnp.int32(0), train=True)[0]

    forward = sum(flops.flops(task.predict, params, batch).values())
    training = sum(flops.flops(jax.grad(loss), params, batch).values())
    assert 2.5 < training / forward < 3.5
