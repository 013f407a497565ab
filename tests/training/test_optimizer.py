import math

import jax.numpy as jnp
import numpy as np
import optax
import pytest

from a2fjax.configuration import OptimConfig, check_schedule
from a2fjax.errors import InputError
from a2fjax.training import optimizer


def test_learning_rate_is_linear_then_half_cosine():
    config = OptimConfig(learning_rate=2e-3, warmup_steps=10, final_fraction=0.05)
    rate = optimizer.learning_rate(config, 110)
    assert float(rate(0)) == 0
    assert float(rate(5)) == pytest.approx(1e-3)
    assert float(rate(10)) == pytest.approx(2e-3)
    for step in (35, 60, 85):
        cosine = 0.5 * (1 + math.cos(math.pi * (step - 10) / 100))
        expected = 2e-3 * (0.05 + 0.95 * cosine)
        assert float(rate(step)) == pytest.approx(expected, rel=1e-5)
    assert float(rate(110)) == float(rate(500)) == pytest.approx(1e-4)


def test_decay_falls_on_matrices_only():
    params = {
        "dense": {"kernel": jnp.ones((3, 4)), "bias": jnp.ones((4,))},
        "norm": {"scale": jnp.ones((4,)), "bias": jnp.ones((4,))},
        "gru": {"input": jnp.ones((2, 3, 4)), "hidden_bias": jnp.ones((2, 4))},
        "vector": {"initial_state": jnp.ones((4,))},
    }
    assert optimizer.decayed(params) == {
        "dense": {"kernel": True, "bias": False},
        "norm": {"scale": False, "bias": False},
        "gru": {"input": True, "hidden_bias": False},
        "vector": {"initial_state": False},
    }


def adamw(params, grads, config, rates):
    """AdamW written out from Loshchilov and Hutter 2019, algorithm 2, in float64."""
    p = {k: np.asarray(v, np.float64) for k, v in params.items()}
    m = {k: np.zeros_like(v) for k, v in p.items()}
    v2 = {k: np.zeros_like(v) for k, v in p.items()}
    for t, (g, rate) in enumerate(zip(grads, rates, strict=True), 1):
        norm = math.sqrt(sum(float((np.asarray(x, np.float64) ** 2).sum()) for x in g.values()))
        scale = min(1.0, config.clip_norm / norm) if config.clip_norm else 1.0
        for k in p:
            x = np.asarray(g[k], np.float64) * scale
            m[k] = config.b1 * m[k] + (1 - config.b1) * x
            v2[k] = config.b2 * v2[k] + (1 - config.b2) * x**2
            mean = m[k] / (1 - config.b1**t)
            var = v2[k] / (1 - config.b2**t)
            decay = config.weight_decay * p[k] if p[k].ndim > 1 else 0
            p[k] = p[k] - rate * (mean / (np.sqrt(var) + config.eps) + decay)
    return p


@pytest.mark.parametrize("clip", [0.0, 0.5])
def test_update_equals_the_paper(clip):
    config = OptimConfig(learning_rate=0.1, warmup_steps=2, weight_decay=0.3, clip_norm=clip)
    rng = np.random.default_rng(0)
    params = {"kernel": rng.normal(size=(3, 2)), "bias": rng.normal(size=2)}
    grads = [{k: rng.normal(size=v.shape) for k, v in params.items()} for _ in range(6)]
    rate = optimizer.learning_rate(config, 6)
    expected = adamw(params, grads, config, [float(rate(t)) for t in range(6)])

    tx = optimizer.build(config, 6)
    now = {k: jnp.asarray(v, jnp.float32) for k, v in params.items()}
    state = tx.init(now)
    for g in grads:
        updates, state = tx.update(
            {k: jnp.asarray(v, jnp.float32) for k, v in g.items()}, state, now
        )
        now = optax.apply_updates(now, updates)
    for k in params:
        np.testing.assert_allclose(now[k], expected[k], rtol=2e-5, atol=2e-6)


def test_a_warm_up_longer_than_the_run_is_named():
    check_schedule(OptimConfig(warmup_steps=49), 50)
    with pytest.raises(InputError, match="optim.warmup_steps=50: expected fewer than steps=50"):
        check_schedule(OptimConfig(warmup_steps=50), 50)
