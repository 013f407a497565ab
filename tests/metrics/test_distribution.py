"""Distances of distributions against closed forms, and features that see what they must."""

import functools

import numpy as np
import pytest

from a2fjax import rig
from a2fjax.metrics import distribution
from a2fjax.metrics.groups import WEIGHT_GROUPS

JAW = rig.INDEX["jawOpen"]


def gaussian(rng, count, mean, covariance):
    return rng.multivariate_normal(mean, covariance, count)


def test_the_frechet_distance_of_gaussians_is_its_formula():
    rng = np.random.default_rng(0)
    a = gaussian(rng, 200_000, [0, 0], [[2.0, 0.5], [0.5, 1.0]])
    b = gaussian(rng, 200_000, [1, -2], [[1.0, 0.0], [0.0, 4.0]])
    first, second = np.array([[2.0, 0.5], [0.5, 1.0]]), np.diag([1.0, 4.0])
    values = np.linalg.eigvals(first @ second)
    expected = 5 + np.trace(first + second) - 2 * np.sqrt(values.real).sum()
    assert distribution.frechet(a, b) == pytest.approx(expected, rel=0.02)
    assert distribution.frechet(b, a) == pytest.approx(distribution.frechet(a, b), rel=1e-6)
    assert distribution.frechet(a, a) == pytest.approx(0, abs=1e-9)
    with pytest.raises(ValueError, match="at least two"):
        distribution.frechet(a[:1], b)


def motion(rng, frames=600, scale=0.3, rate=3.0):
    t = np.arange(frames) / 50
    out = np.zeros((frames, 72), np.float32)
    drift = rng.uniform(0, 6) + 0.5 * np.cumsum(rng.standard_normal(frames)) / 50
    out[:, JAW] = scale * (1 + np.sin(2 * np.pi * rate * t + drift)) / 2
    out[:, rig.INDEX["mouthPucker"]] = 0.1 * rng.random() + 0.5 * out[:, JAW] ** 2
    return out


@functools.cache
def many(seed, count=30, **changes):
    rng = np.random.default_rng(seed)
    good = np.ones(600, bool)
    found = [distribution.windows(motion(rng, **changes), good, 25) for _ in range(count)]
    return np.concatenate(found)


def test_windows_hold_valid_frames_only():
    good = np.ones(350, bool)
    good[120] = False
    values = np.arange(350)[:, None] * np.ones((1, 72))
    starts = distribution.windows(values, good)[:, 0, 0]
    assert starts.tolist() == [0, 10, 20, *range(121, 251, 10)]
    assert distribution.windows(values[:50], good[:50]).shape == (0, 100, 72)


def test_features_tell_smaller_faster_and_shakier_motion_from_its_like():
    features = distribution.fit(many(0), WEIGHT_GROUPS["all"])
    assert set(features.channels) == {JAW, rig.INDEX["mouthPucker"]}
    codes = features.encode(many(0))
    np.testing.assert_allclose(codes.std(0), 1, rtol=0.02)
    same = distribution.frechet(codes, features.encode(many(1)))
    for changes in ({"scale": 0.2}, {"rate": 4.0}):
        other = features.encode(many(1, **changes))
        assert distribution.frechet(codes, other) > 3 * same, changes
    shaky = many(1) + 0.03 * np.random.default_rng(2).standard_normal((1, 100, 72))
    assert distribution.frechet(codes, features.encode(shaky)) > 2 * same


def test_multimodality_is_nothing_of_one_take_and_one_of_unrelated_ones():
    features = distribution.fit(many(0), WEIGHT_GROUPS["all"])
    codes = [features.encode(many(seed)) for seed in range(1, 5)]
    assert distribution.multimodality([codes[0]] * 4, features) == 0
    assert distribution.multimodality(codes, features) == pytest.approx(1, abs=0.15)
    assert np.isnan(distribution.multimodality(codes[:1], features))


def test_features_say_which_they_are():
    first, second = (distribution.fit(many(s), WEIGHT_GROUPS["all"]) for s in (0, 1))
    assert first.fingerprint == distribution.fit(many(0), WEIGHT_GROUPS["all"]).fingerprint
    assert first.fingerprint != second.fingerprint


def test_what_cannot_be_fitted_is_named():
    with pytest.raises(ValueError, match="at least 2"):
        distribution.fit(many(0)[:1], WEIGHT_GROUPS["all"])
    with pytest.raises(ValueError, match="moves"):
        distribution.fit(many(0), WEIGHT_GROUPS["brows"])
