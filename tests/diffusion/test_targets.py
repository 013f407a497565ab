"""What a network puts out means one clean value, one noise, and no other."""

import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from a2fjax.diffusion import targets

values = st.floats(-4.0, 4.0)
angles = st.floats(0.05, 1.5)


@settings(max_examples=25, deadline=None)
@given(values, values, angles)
def test_every_target_tells_the_clean_value_and_the_noise(clean, noise, angle):
    clean, noise = jnp.float32(clean), jnp.float32(noise)
    alpha, sigma = jnp.cos(jnp.float32(angle)), jnp.sin(jnp.float32(angle))
    x = alpha * clean + sigma * noise
    for name in targets.NAMES:
        value = targets.target_value(name, clean, noise, alpha, sigma)
        found = targets.clean(name, value, x, alpha, sigma)
        np.testing.assert_allclose(found, clean, atol=1e-4)
        np.testing.assert_allclose(targets.noise(name, value, x, alpha, sigma), noise, atol=2e-4)
        # Through any other one and back again.
        for other in targets.NAMES:
            told = targets.target_value(
                other, found, targets.noise(name, value, x, alpha, sigma), alpha, sigma
            )
            np.testing.assert_allclose(
                targets.clean(other, told, x, alpha, sigma), clean, atol=1e-3
            )


def test_in_pure_noise_v_and_x0_tell_the_clean_value():
    clean, noise = jnp.array([0.3, -2.0]), jnp.array([1.5, 0.1])
    zero, one = jnp.zeros(()), jnp.ones(())
    for name in ("v", "x0"):
        value = targets.target_value(name, clean, noise, zero, one)
        np.testing.assert_array_equal(targets.clean(name, value, noise, zero, one), clean)
    np.testing.assert_array_equal(targets.target_value("v", clean, noise, one, zero), noise)


@pytest.mark.parametrize("name", targets.NAMES)
@pytest.mark.parametrize("angle", [0.2, 0.8, 1.4])
def test_the_coarse_guess_is_the_posterior_mean_of_the_clean_value(name, angle):
    coarse = np.array([-1.2, 0.0, 0.9, 2.0])
    x = np.array([0.4, -1.0, 2.0, 0.1])
    alpha, sigma = np.cos(angle), np.sin(angle)
    grid = np.linspace(-12, 12, 20_001)[:, None]
    likely = np.exp(-0.5 * (grid - coarse) ** 2 - 0.5 * ((x - alpha * grid) / sigma) ** 2)
    mean = (grid * likely).sum(0) / likely.sum(0)
    level = jnp.float32(alpha), jnp.float32(sigma)
    value = targets.coarse_guess(name, jnp.asarray(coarse), jnp.asarray(x), *level)
    np.testing.assert_allclose(targets.clean(name, value, x, *level), mean, atol=2e-5)


def test_without_a_coarse_prediction_v_starts_at_zero():
    """Standardised data need no more: the best guess of v from x alone is none."""
    x = jnp.linspace(-3, 3, 7)
    level = jnp.float32(0.6), jnp.float32(0.8)
    np.testing.assert_allclose(targets.coarse_guess("v", jnp.zeros(7), x, *level), 0.0, atol=1e-6)


def test_in_pure_noise_the_best_guess_is_the_coarse_prediction():
    coarse, x = jnp.array([0.5, -1.0]), jnp.array([2.0, 3.0])
    value = targets.coarse_guess("v", coarse, x, jnp.zeros(()), jnp.ones(()))
    np.testing.assert_array_equal(targets.clean("v", value, x, 0.0, 1.0), coarse)


def test_the_weight_of_the_clean_value_is_that_of_v_up_to_its_limit():
    alpha = jnp.array([0.0, 0.6, 0.8, 1.0])
    np.testing.assert_allclose(targets.weight(alpha, 5.0), [1.0, 1 / 0.64, 1 / 0.36, 5.0], 1e-6)
    sigma = jnp.sqrt(1 - alpha**2)
    clean, noise = jnp.full(4, 0.7), jnp.full(4, -1.1)
    x = alpha * clean + sigma * noise
    off = targets.target_value("v", clean, noise, alpha, sigma) + 0.25
    error = targets.clean("v", off, x, alpha, sigma) - clean
    weighted = targets.weight(alpha, 1e5) * error**2
    np.testing.assert_allclose(weighted[:3], 0.25**2, rtol=1e-5)


@pytest.mark.parametrize(
    "call", [targets.target_value, targets.clean, targets.noise, targets.coarse_guess]
)
def test_an_unknown_target_is_named(call):
    one = jnp.ones(())
    with pytest.raises(ValueError, match="'score'.*x0"):
        call("score", one, one, one, one)
