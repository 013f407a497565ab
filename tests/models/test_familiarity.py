"""How far a condition is from the training's, and how much it counts."""

import jax.numpy as jnp
import numpy as np
import pytest

from a2fjax.models import conditioning, familiarity

GROUPS = (slice(0, 20), slice(20, 40))


def people(count, seed=0):
    rng = np.random.default_rng(seed)
    return rng.normal(size=(count, 8)) @ np.random.default_rng(9).normal(size=(8, 40))


@pytest.mark.parametrize("count", [3, 8, 40])
def test_others_of_the_same_kind_count_and_strangers_do_not(count):
    rows = people(count)
    deviation, bounds = familiarity.spread(rows, GROUPS)
    mean = rows.mean(0)
    near = familiarity.distance(people(50, seed=1), mean, deviation)
    assert (familiarity.weight(near, bounds) > 0).all()
    assert (familiarity.weight(near, bounds) == 1).mean() > 0.9
    far = familiarity.distance(mean + 100 * deviation, mean, deviation)
    assert far == pytest.approx(100, rel=1e-3) and familiarity.weight(far, bounds) == 0


def test_one_person_bounds_nothing_and_two_bound_generously():
    for rows in (people(0), people(1)):
        deviation, bounds = familiarity.spread(rows.reshape(-1, 40), GROUPS)
        assert (bounds == familiarity.UNBOUNDED).all() and (deviation == 1).all()
    assert familiarity.spread(people(2), GROUPS)[1][0] > 5


def test_the_embedding_shrinks_to_the_mean_identity():
    """The same values as without bounds up to the first, the mean's beyond the second."""
    rng = np.random.default_rng(0)
    points = jnp.asarray(rng.normal(size=(3, 64, 3)) / 3**0.5, jnp.float32)
    described = np.asarray(conditioning.descriptor(points))
    mean, projection = conditioning.standardisation(described)
    module, known = conditioning.IdentityEncoder(8), jnp.ones(3, bool)
    params = module.init({"params": jnp.zeros(2, jnp.uint32)}, points, known, mean, projection)
    distance = familiarity.distance(described, mean, np.ones(144, np.float32))

    def embed(bounds, known=known):
        return module.apply(params, points, known, mean, projection, np.ones(144), bounds)

    free = module.apply(params, points, known, mean, projection)
    np.testing.assert_array_equal(embed(np.array([2.0, 4.0]) * distance.max()), free)
    unknown = module.apply(params, points, ~known, mean, projection)
    np.testing.assert_array_equal(embed(np.array([0.2, 0.4]) * distance.min()), unknown)
    between = embed(np.array([0.5, 1.5]) * distance.mean())
    assert np.abs(between - free).max() > 1e-4 and np.abs(between - unknown).max() > 1e-4
