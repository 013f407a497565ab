"""Schedules and samplers against closed forms: a Gaussian has an exact denoiser."""

import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from a2fjax.diffusion import samplers, schedule

MEAN, DEVIATION = 0.7, 0.3


def test_the_cosine_schedule_is_its_formula_and_ends_in_noise():
    signal = schedule.cosine(1000)
    f = [math.cos((s / 1000 + 0.008) / 1.008 * math.pi / 2) ** 2 for s in range(1001)]
    # Until the largest beta is reached, at the last step, the product telescopes.
    np.testing.assert_allclose(signal[:999], np.array(f[1:1000]) / f[0], rtol=1e-9)
    assert signal[999] == pytest.approx(signal[998] * 0.001, rel=1e-9)
    assert (np.diff(signal) < 0).all() and signal[0] > 0.9999 and signal[-1] < 1e-8
    with pytest.raises(ValueError, match="steps=0"):
        schedule.cosine(0)


def test_visited_steps_are_those_of_the_reference():
    assert schedule.spaced(1000, 2).tolist() == [0, 999]
    assert schedule.spaced(1000, 5).tolist() == [0, 250, 500, 749, 999]
    assert schedule.spaced(1000, 1).tolist() == [999]
    assert schedule.spaced(7, 7).tolist() == list(range(7))
    with pytest.raises(ValueError, match="8 of 7"):
        schedule.spaced(7, 8)


def test_noised_values_have_the_signal_and_the_variance_of_their_step():
    signal = jnp.array([0.9, 0.2])
    clean = jnp.stack([jnp.full(200_000, 2.0), jnp.full(200_000, -1.0)])
    x = np.asarray(
        schedule.noised(clean, jax.random.normal(jax.random.key(0), (2, 200_000)), signal)
    )
    np.testing.assert_allclose(x.mean(1), [2 * 0.9**0.5, -(0.2**0.5)], atol=0.01)
    np.testing.assert_allclose(x.var(1), [0.1, 0.8], rtol=0.02)


def exact(signal):
    """E[x_0 | x_t] of x_0 ~ N(MEAN, DEVIATION^2)."""
    table = jnp.asarray(signal, jnp.float32)

    def denoise(x, t):
        a = table[t]
        gain = DEVIATION**2 * jnp.sqrt(a) / (a * DEVIATION**2 + 1 - a)
        return MEAN + gain * (x - jnp.sqrt(a) * MEAN)

    return denoise


@pytest.mark.parametrize("kind, steps", [("ancestral", 1000), ("implicit", 250)])
def test_many_steps_give_the_distribution_itself(kind, steps):
    # The posterior's variance is a little small for data that are no single point: by 2.5 % of the
    # deviation with 250 steps, by less than 1 % with all.
    signal, visited = schedule.cosine(1000), schedule.spaced(1000, steps)
    start = jax.random.normal(jax.random.key(1), (40_000,))
    if kind == "ancestral":
        key = jax.random.key(2)

        def draw(i):
            return jax.random.normal(jax.random.fold_in(key, i), start.shape)

        x = samplers.ancestral(exact(signal), start, signal, visited, draw)
    else:
        x = samplers.implicit(exact(signal), start, signal, visited)
        # Without noise a sample is a rising function of where it started, here a straight line.
        line = MEAN + DEVIATION * np.asarray(start)
        assert np.abs(np.asarray(x) - line).max() < 0.03
    x = np.asarray(x)
    assert x.mean() == pytest.approx(MEAN, abs=0.006)
    assert x.std() == pytest.approx(DEVIATION, rel=0.02)


def test_two_steps_are_worked_out_by_hand():
    """{999, 0}: at 999 the posterior between the two steps, at 0 the prediction itself."""
    signal = schedule.cosine(1000)
    denoise, visited = exact(signal), schedule.spaced(1000, 2)
    start, noise = jnp.array([0.4, -1.3]), jnp.array([0.9, -0.2])
    got = samplers.ancestral(denoise, start, signal, visited, lambda i: noise)
    a, b = signal[999], signal[0]
    beta = 1 - a / b
    clean = np.asarray(denoise(start, 999), np.float64)
    mean = (np.sqrt(b) * beta * clean + np.sqrt(a / b) * (1 - b) * np.asarray(start)) / (1 - a)
    x = mean + np.sqrt(beta * (1 - b) / (1 - a)) * np.asarray(noise)
    np.testing.assert_allclose(got, denoise(jnp.asarray(x, jnp.float32), 0), atol=1e-6)


def test_one_step_is_the_prediction_from_pure_noise():
    signal = schedule.cosine(1000)
    start = jnp.array([0.4, -1.3])
    got = samplers.implicit(exact(signal), start, signal, schedule.spaced(1000, 1))
    np.testing.assert_allclose(got, exact(signal)(start, 999), atol=1e-6)
