"""Paired intervals against what they mean."""

import numpy as np
import pytest

from a2fjax.metrics import bootstrap


def values(total):
    return {"mean": total["sum"] / total["count"]}


def people(numbers):
    return [{"sum": np.asarray(x), "count": np.asarray(1.0)} for x in numbers]


def test_pairs_tell_a_small_change_among_people_who_differ_much():
    rng = np.random.default_rng(0)
    first = rng.normal(size=40)
    second = first + 0.1 + 0.05 * rng.normal(size=40)
    low, high = bootstrap.differences(people(first), people(second), values, seed=1)["mean"]
    assert 0.05 < low < np.mean(second - first) < high < 0.15
    alone = [bootstrap.intervals(people(x), values, seed=1)["mean"] for x in (first, second)]
    assert alone[0][1] > alone[1][0], "without pairs the intervals overlap"
    # The normal theory's interval for the mean of the differences.
    width = 2 * 1.96 * np.std(second - first, ddof=1) / 40**0.5
    assert high - low == pytest.approx(width, rel=0.15)


def test_no_change_is_no_change_and_one_person_tells_nothing():
    some = people([1.0, 2.0, 3.0])
    assert bootstrap.differences(some, some, values, seed=0)["mean"] == (0, 0)
    assert bootstrap.differences(some[:1], some[:1], values, seed=0)["mean"] is None
    with pytest.raises(ValueError, match="expected as many"):
        bootstrap.differences(some, some[:2], values, seed=0)
