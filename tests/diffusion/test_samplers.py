"""Samplers against closed forms: a Gaussian has an exact denoiser, and exact paths."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy import stats

from a2fjax.diffusion import samplers, schedule

MEAN = np.array([0.7, -1.0, 0.2])
_ROOT = np.array([[0.5, 0.0, 0.0], [0.6, 0.4, 0.0], [-0.3, 0.5, 0.8]])
COVARIANCE = _ROOT @ _ROOT.T
POWERS, AXES = np.linalg.eigh(COVARIANCE)
COUNT = 20_000
START = jax.random.normal(jax.random.key(1), (COUNT, 3))


def draw_from(seed, shape=(COUNT, 3)):
    key = jax.random.key(seed)
    return lambda i: jax.random.normal(jax.random.fold_in(key, i), shape)


def along_axes(levels, gains):
    """A function of x and the visit: MEAN + sum over axes of gain (x - alpha MEAN)."""
    matrices = np.stack([(AXES * g) @ AXES.T for g in gains])
    table, alphas = jnp.asarray(matrices, jnp.float32), jnp.asarray(levels.alpha, jnp.float32)
    mean = jnp.asarray(MEAN, jnp.float32)
    return lambda x, i: mean + (x - alphas[i] * mean) @ table[i]


def exact(levels):
    """E[x_0 | x] of x_0 ~ N(MEAN, COVARIANCE)."""
    a, s = levels.alpha[:, None], levels.sigma[:, None]
    return along_axes(levels, a * POWERS / (a**2 * POWERS + s**2))


def ends(levels):
    """Where the path without noise ends.

    At every level x is Gaussian of variances alpha^2 p + sigma^2 along the axes, and the path keeps
    its place among them.
    """
    a, s = levels.alpha[:, None], levels.sigma[:, None]
    return along_axes(levels, np.sqrt(POWERS / (a**2 * POWERS + s**2)))


def path_end(start):
    return MEAN + np.asarray(start, np.float64) @ (AXES * np.sqrt(POWERS)) @ AXES.T


def check_distribution(x, atol=0.03):
    """Means to some 4 of their deviations, covariances likewise."""
    x = np.asarray(x)
    np.testing.assert_allclose(x.mean(0), MEAN, atol=atol)
    np.testing.assert_allclose(np.cov(x.T), COVARIANCE, atol=atol)


def check_map(sampler, levels, atol):
    """A sampler without noise is linear for a Gaussian: what it does is known without chance."""
    starts = jnp.concatenate([jnp.zeros((1, 3)), jnp.eye(3)])
    found = np.asarray(sampler(exact(levels), starts, levels))
    matrix = found[1:] - found[0]
    np.testing.assert_allclose(found[0], MEAN, atol=atol)
    np.testing.assert_allclose(matrix.T @ matrix, COVARIANCE, atol=atol)
    np.testing.assert_allclose(found, path_end(starts), atol=atol)


@pytest.mark.parametrize("name", schedule.NAMES)
def test_ddim_with_many_steps_gives_the_distribution_itself(name):
    check_map(samplers.ddim, schedule.levels(name, 500), 0.01)


# The linear schedule is still noisy where even times end: its last step is a long one.
@pytest.mark.parametrize("name, steps", [("cosine", 20), ("linear", 50)])
def test_dpm_needs_few_steps_for_the_distribution(name, steps):
    check_map(samplers.dpm, schedule.levels(name, steps), 0.02)


@pytest.mark.parametrize("name, steps", [("cosine", 16), ("linear", 50)])
def test_angle_needs_few_steps_for_the_distribution(name, steps):
    check_map(samplers.angle, schedule.levels(name, steps), 0.02)


@pytest.mark.parametrize("deviation", [0.1, 0.3, 0.6, 1.0])
@pytest.mark.parametrize("count", [3, 4, 8])
def test_with_few_steps_angle_is_nearer_the_end_of_the_path_than_dpm(count, deviation):
    levels = schedule.levels("cosine", count)
    a, s = levels.alpha, levels.sigma
    gains = jnp.asarray(a * deviation**2 / (a**2 * deviation**2 + s**2), jnp.float32)
    errors = {
        sampler: abs(float(sampler(lambda x, i: gains[i] * x, jnp.ones(()), levels)) - deviation)
        for sampler in (samplers.angle, samplers.dpm, samplers.ddim)
    }
    assert errors[samplers.angle] < errors[samplers.dpm] <= errors[samplers.ddim]


def test_discrete_steps_give_the_distribution_as_well():
    signal = schedule.cosine_steps(1000)
    check_map(samplers.ddim, schedule.levels_of_steps(signal, schedule.spaced(1000, 250)), 0.02)


def test_ancestral_sampling_agrees_with_the_path_without_noise_in_distribution():
    levels = schedule.levels("cosine", 300)
    drawn = samplers.sample("ddpm", exact(levels), START, levels, draw_from(2))
    calm = samplers.sample("ddim", exact(levels), START, levels, draw_from(2))
    check_distribution(drawn)
    check_distribution(calm)
    # It does forget where it started.
    assert np.abs(np.corrcoef(np.asarray(drawn).T, np.asarray(START).T)[:3, 3:]).max() < 0.05
    other = path_end(jax.random.normal(jax.random.key(3), START.shape))
    for axis in np.random.default_rng(0).normal(size=(4, 3)):
        for x in (drawn, calm):
            assert stats.ks_2samp(np.asarray(x) @ axis, other @ axis).statistic < 0.02


def test_a_share_of_fresh_noise_lies_between():
    levels = schedule.levels("cosine", 300)
    x = samplers.sample("ddim", exact(levels), START, levels, draw_from(2), eta=0.5)
    check_distribution(x)
    kept = np.corrcoef(np.asarray(x)[:, 0], path_end(START)[:, 0])[0, 1]
    assert 0.05 < kept < 0.95


def test_errors_fall_with_the_square_of_the_steps_in_dpm_and_with_the_steps_in_ddim():
    start = START[:200]

    def error(sampler, count):
        levels = schedule.levels("cosine", count)
        found = np.asarray(sampler(exact(levels), start, levels))
        return np.sqrt(np.mean((found - end) ** 2))

    levels = schedule.levels("cosine", 2000)
    end = np.asarray(samplers.ddim(exact(levels), start, levels))
    np.testing.assert_allclose(end, path_end(start), atol=5e-3)
    # The closed form rather than those steps: their own error is as large as dpm's with 40.
    end = path_end(start)
    first = [error(samplers.ddim, n) for n in (5, 10, 20)]
    second = [error(samplers.dpm, n) for n in (5, 10, 20)]
    for i in (0, 1):
        assert 1.7 < first[i] / first[i + 1] < 2.3
        assert 3.3 < second[i] / second[i + 1] < 4.7
    assert second[1] < first[1] / 2.5 and second[2] < first[2] / 5
    assert error(samplers.angle, 5) < second[0]


@pytest.mark.parametrize("name", samplers.NAMES)
def test_one_step_is_the_prediction_from_pure_noise(name):
    levels, start = schedule.levels("cosine", 1), START[:5]
    got = samplers.sample(name, exact(levels), start, levels, draw_from(2, (5, 3)))
    np.testing.assert_allclose(got, exact(levels)(start, 0), atol=1e-6)


@pytest.mark.parametrize("name", samplers.NAMES)
def test_every_level_is_visited_once_from_the_noisiest_on(name):
    levels = schedule.levels("cosine", 5)

    def denoise(x, i):
        return jnp.zeros_like(x).at[i].set(1.0 + i)

    got = samplers.sample(name, denoise, jnp.zeros(5), levels, lambda i: jnp.zeros(5))
    if name == "angle":
        # The last two predictions on a line in the angle's square, which is 4 : 1 there, to 0.
        assert got[4] == pytest.approx(5.0 * 4 / 3, rel=1e-5)
        assert got[3] == pytest.approx(-4.0 / 3, rel=1e-5)
    else:
        # The prediction of the last visit is what comes out, whatever came before.
        assert got[4] == 5.0 and float(jnp.abs(got[:4]).max()) < 5.0


def test_two_steps_of_ancestral_sampling_are_worked_out_by_hand():
    """{999, 0}: at 999 the posterior between the two steps, at 0 the prediction itself."""
    signal = schedule.cosine_steps(1000)
    levels = schedule.levels_of_steps(signal, schedule.spaced(1000, 2))
    denoise = exact(levels)
    start, noise = START[:2], START[2:4]
    got = samplers.sample("ddpm", denoise, start, levels, lambda i: noise)
    a, b = signal[999], signal[0]
    beta = 1 - a / b
    clean = np.asarray(denoise(start, 0), np.float64)
    mean = (np.sqrt(b) * beta * clean + np.sqrt(a / b) * (1 - b) * np.asarray(start)) / (1 - a)
    x = mean + np.sqrt(beta * (1 - b) / (1 - a)) * np.asarray(noise)
    np.testing.assert_allclose(got, denoise(jnp.asarray(x, jnp.float32), 1), atol=1e-6)


@pytest.mark.parametrize("count", [1, 2, 4])
def test_a_network_that_knows_where_paths_end_needs_one_step(count):
    levels = schedule.levels("cosine", count)
    x = samplers.sample("consistency", ends(levels), START, levels, draw_from(5))
    check_distribution(x)
    if count == 1:
        np.testing.assert_allclose(x, path_end(START), atol=1e-5)


def test_means_of_all_ends_in_their_place_give_too_little_spread():
    levels = schedule.levels("cosine", 1)
    x = samplers.sample("consistency", exact(levels), START, levels, draw_from(5))
    np.testing.assert_allclose(np.asarray(x), np.tile(MEAN, (COUNT, 1)), atol=1e-5)


@pytest.mark.parametrize("name, steps", [("angle", 30), ("dpm", 30), ("ddim", 100), ("ddpm", 200)])
def test_two_heaps_are_sampled_in_proportion(name, steps):
    """0.3 of N(-1, 0.1^2) and 0.7 of N(1, 0.2^2): a denoiser that is far from linear."""
    share, centre, deviation = (np.array(v) for v in ([0.3, 0.7], [-1.0, 1.0], [0.1, 0.2]))
    levels = schedule.levels("cosine", steps)
    alphas = jnp.asarray(levels.alpha, jnp.float32)

    def denoise(x, i):
        a = alphas[i]
        variance = a**2 * deviation**2 + (1 - a**2)
        off = x[:, None] - a * centre
        weight = jax.nn.softmax(jnp.log(share) - 0.5 * jnp.log(variance) - 0.5 * off**2 / variance)
        return jnp.sum(weight * (centre + a * deviation**2 / variance * off), axis=-1)

    start = START[:, 0]
    x = np.asarray(samplers.sample(name, denoise, start, levels, draw_from(2, (COUNT,))))
    left = x[x < 0]
    assert len(left) / COUNT == pytest.approx(0.3, abs=0.02)
    assert left.mean() == pytest.approx(-1.0, abs=0.02)
    assert x[x > 0].mean() == pytest.approx(1.0, abs=0.02)
    assert left.std() == pytest.approx(0.1, abs=0.02)
    assert x[x > 0].std() == pytest.approx(0.2, abs=0.02)
    assert np.mean(np.abs(x) < 0.2) < 0.01


def test_an_unknown_sampler_is_named():
    levels = schedule.levels("cosine", 2)
    with pytest.raises(ValueError, match="'euler'.*dpm"):
        samplers.sample("euler", exact(levels), START[:1], levels, draw_from(0, (1, 3)))


@pytest.mark.parametrize("name", samplers.NAMES)
def test_coefficients_are_all_that_a_loop_needs(name):
    levels = schedule.levels("cosine", 5)
    own = samplers.coefficients(name, levels, eta=0.5)
    draws = np.random.default_rng(0).normal(size=(6, 3)).astype(np.float32)

    def denoise(x, i):
        return 0.3 * x + 0.1 * i

    found = samplers.sample(
        name, denoise, jnp.asarray(draws[0]), levels, lambda i: jnp.asarray(draws)[1 + i], eta=0.5
    )
    x, before = draws[0], 0.0
    for i in range(5):
        now = denoise(x, i)
        x = own.clean[i] * (now + own.change[i] * (now - before)) + own.noisy[i] * x
        x, before = x + own.fresh[i] * draws[1 + i], now
    np.testing.assert_allclose(found, x, atol=1e-5)
    assert own.change[0] == 0
