"""Schedules against their formulas, written a second time."""

import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from a2fjax.diffusion import schedule

TIMES = np.linspace(0.0, 1.0, 101)


@pytest.mark.parametrize("name", schedule.NAMES)
@pytest.mark.parametrize("xp", [np, jnp], ids=["numpy", "jax"])
def test_a_schedule_goes_from_the_clean_value_to_nothing_but_noise(name, xp):
    alpha, sigma = (np.asarray(v) for v in schedule.level(name, xp.asarray(TIMES), xp))
    assert alpha[0] == 1.0 and sigma[0] == 0.0
    assert alpha[-1] == 0.0 and sigma[-1] == 1.0
    assert (np.diff(alpha) < 0).all() and (np.diff(sigma) > 0).all()
    np.testing.assert_allclose(alpha**2 + sigma**2, 1.0, atol=1e-6)


@pytest.mark.parametrize("name", schedule.NAMES)
def test_both_array_libraries_give_the_same_in_any_shape(name):
    times = np.random.default_rng(0).uniform(0.05, 1.0, (3, 1, 4))
    exact = schedule.level(name, times, np)
    found = jax.jit(lambda t: schedule.level(name, t))(times)
    for ours, theirs in zip(found, exact, strict=True):
        assert ours.shape == times.shape
        np.testing.assert_allclose(ours, theirs, atol=2e-6)


def test_the_linear_schedule_is_its_integral_shifted_and_scaled():
    fine = np.linspace(0.0, 1.0, 100_001)
    beta = 0.1 + 19.9 * fine
    steps = 0.5 * (beta[1:] + beta[:-1]) * np.diff(fine)
    root = np.exp(-0.5 * np.concatenate([[0.0], np.cumsum(steps)]))
    expected = (root - root[-1]) * root[0] / (root[0] - root[-1])
    alpha, _ = schedule.level("linear", fine, np)
    np.testing.assert_allclose(alpha, expected, atol=1e-9)


def test_the_thousand_steps_of_the_linear_schedule_are_those_of_its_source():
    """Before it is shifted: beta from 1e-4 to 0.02 in 1,000 steps, as Ho et al. have it."""
    discrete = np.cumprod(1.0 - np.linspace(1e-4, 0.02, 1000)) ** 0.5
    shifted = (discrete - discrete[-1]) / (1.0 - discrete[-1])
    alpha, _ = schedule.level("linear", (np.arange(1000) + 1) / 1000, np)
    np.testing.assert_allclose(alpha, shifted, atol=2e-3)


def test_the_cosine_schedule_is_a_quarter_of_a_circle():
    alpha, sigma = schedule.level("cosine", np.array([1 / 3, 0.5, 2 / 3]), np)
    np.testing.assert_allclose(alpha, [3**0.5 / 2, 0.5**0.5, 0.5], rtol=1e-12)
    np.testing.assert_allclose(sigma, alpha[::-1], rtol=1e-12)


def test_an_unknown_schedule_is_named():
    with pytest.raises(ValueError, match="'quadratic'.*cosine"):
        schedule.level("quadratic", TIMES)


def test_trailing_times_begin_in_pure_noise_however_few():
    assert schedule.trailing(1).tolist() == [1.0, 0.0]
    assert schedule.trailing(4).tolist() == [1.0, 0.75, 0.5, 0.25, 0.0]
    np.testing.assert_allclose(schedule.trailing(2, 0.98), [0.98, 0.49, 0.0])
    with pytest.raises(ValueError, match="0 steps"):
        schedule.trailing(0)


@pytest.mark.parametrize("name", schedule.NAMES)
def test_levels_end_at_the_clean_value_exactly(name):
    found = schedule.levels(name, 5, 0.98)
    assert found.count == 5 and found.alpha.dtype == np.float64
    assert found.alpha[-1] == 1.0 and found.sigma[-1] == 0.0
    assert 0.0 < found.alpha[0] < 0.05
    alpha, sigma = schedule.level(name, schedule.trailing(5, 0.98), np)
    np.testing.assert_array_equal(found.alpha[:-1], alpha[:-1])
    np.testing.assert_array_equal(found.sigma[:-1], sigma[:-1])


def test_the_discrete_cosine_schedule_is_its_formula_and_ends_in_noise():
    signal = schedule.cosine_steps(1000)
    f = [math.cos((s / 1000 + 0.008) / 1.008 * math.pi / 2) ** 2 for s in range(1001)]
    # Until the largest beta is reached, at the last step, the product telescopes.
    np.testing.assert_allclose(signal[:999], np.array(f[1:1000]) / f[0], rtol=1e-9)
    assert signal[999] == pytest.approx(signal[998] * 0.001, rel=1e-9)
    assert (np.diff(signal) < 0).all() and signal[0] > 0.9999 and signal[-1] < 1e-8
    with pytest.raises(ValueError, match="steps=0"):
        schedule.cosine_steps(0)


def test_visited_steps_are_those_of_the_reference():
    assert schedule.spaced(1000, 2).tolist() == [0, 999]
    assert schedule.spaced(1000, 5).tolist() == [0, 250, 500, 749, 999]
    assert schedule.spaced(1000, 1).tolist() == [999]
    assert schedule.spaced(7, 7).tolist() == list(range(7))
    for count in (0, 8):
        with pytest.raises(ValueError, match=f"{count} of 7"):
            schedule.spaced(7, count)


def test_levels_of_steps_come_from_the_noisiest_on_and_end_clean():
    signal = np.array([0.9, 0.5, 0.2, 0.04])
    found = schedule.levels_of_steps(signal, np.array([0, 2, 3]))
    assert found.count == 3
    np.testing.assert_allclose(found.alpha, np.sqrt([0.04, 0.2, 0.9, 1.0]))
    np.testing.assert_allclose(found.sigma, np.sqrt([0.96, 0.8, 0.1, 0.0]), atol=1e-12)


def test_noised_values_have_the_signal_and_the_variance_of_their_level():
    alpha = jnp.sqrt(jnp.array([0.9, 0.2]))
    clean = jnp.stack([jnp.full((100, 2000), 2.0), jnp.full((100, 2000), -1.0)])
    noise = jax.random.normal(jax.random.key(0), clean.shape)
    x = np.asarray(schedule.noised(clean, noise, alpha, jnp.sqrt(1 - alpha**2)))
    np.testing.assert_allclose(x.mean((1, 2)), [2 * 0.9**0.5, -(0.2**0.5)], atol=0.01)
    np.testing.assert_allclose(x.var((1, 2)), [0.1, 0.8], rtol=0.02)
