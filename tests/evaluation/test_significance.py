"""Paired tests against enumeration, hand calculation and SciPy."""

import itertools

import numpy as np
import pytest
from scipy import stats

from a2fjax.evaluation import significance


def test_sign_flips_are_counted_by_hand():
    # Means of all 8 sign patterns of (1, 2, 4): +-7, +-5, +-3, +-1 (over 3); 2 are as extreme.
    assert significance.sign_flip(np.array([1.0, 2.0, 4.0])) == 2 / 8
    # (-1, 2, 4) sums to 5: +-7 and +-5 are at least as far.
    assert significance.sign_flip(np.array([-1.0, 2.0, 4.0])) == 4 / 8
    assert significance.sign_flip(np.zeros(4)) == 1.0
    assert significance.sign_flip(np.full(7, 0.1)) == 2 / 2**7


def test_sign_flips_are_scipy_s_exact_permutation_test():
    rng = np.random.default_rng(0)
    for people in (3, 5, 7):
        differences = rng.normal(0.3, 1, people)
        other = stats.permutation_test(
            (differences,),
            lambda x, axis: x.mean(axis=axis),
            permutation_type="samples",
            vectorized=True,
            n_resamples=np.inf,
        )
        assert significance.sign_flip(differences) == pytest.approx(other.pvalue)


def test_sign_flips_are_significant_as_often_as_they_say():
    rng = np.random.default_rng(1)
    found = [significance.sign_flip(rng.normal(0, 1, 7)) < 0.05 for _ in range(2000)]
    assert np.mean(found) == pytest.approx(6 / 128, abs=0.012)  # 6 of 128 patterns have p < 0.05


def test_intervals_are_order_statistics_of_subset_means():
    differences = np.array([3.0, 1.0, 6.0, 2.0, 4.0, 5.0])
    means = sorted(
        np.mean(part) for size in range(1, 7) for part in itertools.combinations(differences, size)
    )
    assert len(means) == 63
    assert significance.typical_interval(differences) == (means[0], means[-1])
    assert significance.typical_interval(differences, 0.9) == (means[2], means[-3])
    assert significance.typical_interval(differences[:5]) is None


def test_intervals_of_few_people_cover():
    rng = np.random.default_rng(2)
    hits = []
    for _ in range(1500):
        low, high = significance.typical_interval(rng.normal(0.7, 1, 7))
        hits.append(low <= 0.7 <= high)
    assert np.mean(hits) == pytest.approx(1 - 6 / 128, abs=0.015)


def test_holm_by_hand():
    # Sorted: 0.01 * 4, 0.02 * 3, 0.03 * 2 and 0.04, none below the one before it.
    adjusted = significance.holm([0.04, 0.01, 0.03, 0.02])
    assert adjusted == pytest.approx([0.06, 0.04, 0.06, 0.06])
    assert significance.holm([0.6, None, 0.9]) == pytest.approx([1.0, None, 1.0], nan_ok=True)
    assert significance.holm([None]) == [None]


def test_eight_people_are_drawn_and_seven_flipped():
    rng = np.random.default_rng(3)
    first = rng.normal(0, 1, (1, 8))
    second = first + 0.5 + 0.1 * rng.normal(0, 1, (1, 8))
    found = significance.paired(first, second)
    assert found.method == "bootstrap" and found.people == 8 and found.p < 0.01
    assert found.interval[0] < found.difference < found.interval[1]
    assert significance.paired(first[:, :7], second[:, :7]).method == "sign flips"
    second[0, 0] = np.nan
    assert significance.paired(first, second).people == 7
    same = significance.paired(first, first)
    assert same.difference == 0 and same.p == 1.0
    one = significance.paired(first[:, :1], second[:, 1:2])
    assert one.p is None and one.interval is None


def test_pairs_tell_a_small_change_among_people_who_differ_much():
    rng = np.random.default_rng(0)
    first = rng.normal(size=(1, 40))
    second = first + 0.1 + 0.05 * rng.normal(size=(1, 40))
    found = significance.paired(first, second, seed=1, resamples=1000)
    assert 0.05 < found.interval[0] < found.difference < found.interval[1] < 0.15
    # The normal theory's interval for the mean of the differences.
    width = 2 * 1.96 * np.std(second - first, ddof=1) / 40**0.5
    assert np.ptp(found.interval) == pytest.approx(width, rel=0.15)


def test_intervals_of_many_people_cover_with_runs_drawn():
    """Without drawing runs, intervals would leave out what another seed would change."""
    rng = np.random.default_rng(4)
    hits, widths = [], []
    for trial in range(200):
        of_run = rng.normal(0, 0.5, (2, 5, 1))
        person = rng.normal(0, 1, (1, 20))
        first, second = person + of_run + rng.normal(0, 0.2, (2, 5, 20))
        drawn = significance.paired(first, second, seed=trial, resamples=400)
        averaged = significance.paired(
            first.mean(0, keepdims=True), second.mean(0, keepdims=True), seed=trial, resamples=400
        )
        hits.append(drawn.interval[0] <= 0 <= drawn.interval[1])
        widths.append(np.ptp(averaged.interval) / np.ptp(drawn.interval))
    assert 0.82 <= np.mean(hits) <= 0.99, "5 runs a side undercover a little"
    assert np.mean(widths) < 0.3


def test_the_detectable_difference_is_found_in_four_of_five_sets():
    for people in (6, 7):
        effect = significance.sign_flip_effect(people)
        rng = np.random.default_rng(people)
        found = [significance.sign_flip(rng.normal(effect, 1, people)) < 0.05 for _ in range(3000)]
        assert np.mean(found) == pytest.approx(0.8, abs=0.025)
    # Six differences are significant if and only if all have one sign.
    exact = stats.norm.ppf(0.8 ** (1 / 6))
    assert significance.sign_flip_effect(6) == pytest.approx(exact, abs=0.03)
    assert significance.sign_flip_effect(5) is None
    rng = np.random.default_rng(9)
    shift = significance.t_effect(12) / np.sqrt(12)
    p = stats.ttest_1samp(rng.normal(shift, 1, (4000, 12)), 0, axis=1).pvalue
    assert np.mean(p < 0.05) == pytest.approx(0.8, abs=0.02)
