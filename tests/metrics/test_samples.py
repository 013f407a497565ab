"""Scores, ranks and agreement of samples against closed forms and double sums."""

import dataclasses
import itertools
import math

import numpy as np
import pytest

from a2fjax import rig
from a2fjax.metrics import agreement, ranks, scores, suite
from a2fjax.metrics.groups import WEIGHT_GROUPS
from a2fjax.metrics.reference import reference
from a2fjax.metrics.sums import merge

JAW_MOUTH = WEIGHT_GROUPS["jaw_mouth"]


def truth_of(motion, *, channels=None, frames=None):
    return reference(
        motion,
        np.zeros(len(motion) * 320),
        channel_mask=np.ones(72, bool) if channels is None else channels,
        frame_mask=np.ones(len(motion), bool) if frames is None else frames,
        speech_level=0.1,
    )


def measured(samples, truth):
    return {k: float(v) for k, v in suite.sample_values(suite.sample_sums(samples, truth)).items()}


@pytest.fixture(scope="module")
def drawn():
    """Truth and four samples that are draws of the same distribution."""
    rng = np.random.default_rng(0)
    common = np.cumsum(rng.standard_normal((200, 72)), axis=0)
    every = 0.1 * common + rng.standard_normal((5, 200, 72))
    return every[0], every[1:]


def test_the_crps_is_the_double_sum(drawn):
    truth, samples = drawn
    count = len(samples)
    expected = np.abs(samples - truth).mean(0)
    for i, j in itertools.product(range(count), repeat=2):
        expected -= np.abs(samples[i] - samples[j]) / (2 * count * (count - 1))
    np.testing.assert_allclose(scores.crps(samples, truth), expected, atol=1e-12)
    got = measured(samples, truth_of(truth))
    for name, group in WEIGHT_GROUPS.items():
        assert got[f"crps/{name}"] == pytest.approx(expected[:, group].mean(), abs=1e-12)


def test_the_energy_score_is_the_double_sum(drawn):
    truth, samples = drawn
    got = measured(samples, truth_of(truth))
    for name, channels, frames in (
        *((f"energy_score/{name}", group, 1) for name, group in WEIGHT_GROUPS.items()),
        ("energy_score_500ms", JAW_MOUTH, 25),
    ):
        total = []
        for start in range(0, 200, frames):
            part = slice(start, start + frames)
            y, x = truth[part, channels], samples[:, part][:, :, channels]
            score = sum(math.sqrt(((a - y) ** 2).mean()) for a in x) / 4
            for i, j in itertools.combinations(range(4), 2):
                score -= math.sqrt(((x[i] - x[j]) ** 2).mean()) / 12
            total.append(score)
        assert got[name] == pytest.approx(np.mean(total), abs=1e-12), name


def test_one_sample_and_equal_samples_score_the_mean_error(drawn):
    truth, samples = drawn
    error = np.abs(samples[0] - truth)[:, JAW_MOUTH].mean()
    for count in (1, 2, 5):
        got = measured(np.repeat(samples[:1], count, axis=0), truth_of(truth))
        assert got["crps/jaw_mouth"] == pytest.approx(error)
        reference = suite.values(suite.sums(samples[0], truth_of(truth)))
        assert got["crps/jaw_mouth"] == pytest.approx(float(reference["bs_mae/jaw_mouth"]))
    assert got["r_ss/jaw_mouth"] == pytest.approx(1)
    alone = measured(samples[:1], truth_of(truth))
    assert all(np.isnan(v) for k, v in alone.items() if not k.startswith(("crps", "energy")))


@pytest.mark.parametrize("count", [2, 3, 10])
def test_the_fair_crps_of_a_gaussian_is_its_closed_form_for_any_number_of_samples(count):
    """sigma (z (2 Phi(z) - 1) + 2 phi(z) - 1 / sqrt(pi)), Gneiting and Raftery 2007, eq. 21."""
    rng = np.random.default_rng(count)
    mean, sigma, y = 0.3, 0.2, 0.45
    x = mean + sigma * rng.standard_normal((count, 200_000))
    z = (y - mean) / sigma
    phi = math.exp(-(z**2) / 2) / math.sqrt(2 * math.pi)
    expected = sigma * (z * math.erf(z / math.sqrt(2)) + 2 * phi - 1 / math.sqrt(math.pi))
    assert scores.crps(x, np.full(200_000, y)).mean() == pytest.approx(expected, abs=1e-3)


def test_the_scores_are_best_for_the_truth_s_own_spread():
    rng = np.random.default_rng(1)
    truth = rng.standard_normal((2000, 72))
    noise = rng.standard_normal((6, 2000, 72))
    found = [measured(scale * noise, truth_of(truth)) for scale in (0.6, 1.0, 1.5)]
    for name in ("crps/jaw_mouth", "energy_score/jaw_mouth", "energy_score_500ms"):
        assert found[1][name] < min(found[0][name], found[2][name]), name
    assert found[0]["rank_variance"] > 1.2 and found[2]["rank_variance"] < 0.9
    assert found[1]["rank_variance"] == pytest.approx(1, abs=0.02)
    assert found[1]["rank_deviation"] < 0.05 < min(f["rank_deviation"] for f in found[::2])
    assert sum(found[1][f"rank_histogram/{k}"] for k in range(7)) == pytest.approx(1)
    assert found[0]["rank_histogram/0"] > 2 * found[0]["rank_histogram/3"]


def test_samples_shuffled_in_time_are_told_by_half_a_second_only():
    rng = np.random.default_rng(2)
    level = np.repeat(rng.standard_normal((9, 40, 1)), 25, axis=1)
    every = np.broadcast_to(level, (9, 1000, 72))
    truth, samples = every[0], every[1:]
    order = np.argsort(rng.random(samples.shape[:2] + (1,)), axis=0)
    shuffled = np.take_along_axis(samples, np.broadcast_to(order, samples.shape), axis=0)
    own, other = (measured(x, truth_of(truth)) for x in (samples, shuffled))
    assert own["crps/all"] == pytest.approx(other["crps/all"])
    assert own["energy_score/all"] == pytest.approx(other["energy_score/all"])
    assert own["energy_score_500ms"] < other["energy_score_500ms"] - 0.05


def test_a_bias_is_a_slope_of_the_ranks(drawn):
    truth, samples = drawn
    above = measured(samples + 1.0, truth_of(truth))
    below = measured(samples - 1.0, truth_of(truth))
    assert above["rank_bias"] < -0.15 and below["rank_bias"] > 0.15
    assert below["rank_histogram/4"] > 2 * below["rank_histogram/0"]


def test_ties_count_at_every_rank_that_they_could_have():
    truth = np.zeros((10, 72))
    samples = np.zeros((3, 10, 72))
    samples[2] = 1.0
    got = measured(samples, truth_of(truth))
    shares = [got[f"rank_histogram/{k}"] for k in range(4)]
    assert shares == pytest.approx([1 / 3, 1 / 3, 1 / 3, 0])
    samples[:, 5:] = -1.0  # Without ties, above all samples: half of the frames.
    got = measured(samples, truth_of(truth))
    assert [got[f"rank_histogram/{k}"] for k in range(4)] == pytest.approx([1 / 6] * 3 + [1 / 2])


def test_samples_of_the_truth_s_kind_agree_as_the_truth_does():
    rng = np.random.default_rng(3)
    heard = rng.standard_normal((3000, 72))
    own = rng.standard_normal((5, 3000, 72))
    truth = heard + own[0]
    right = measured(heard + own[1:], truth_of(truth))
    narrow = measured(heard + 0.3 * own[1:], truth_of(truth))
    wide = measured(heard + 3.0 * own[1:], truth_of(truth))
    assert right["r_ss/jaw_mouth"] == pytest.approx(0.5, abs=0.03)
    assert right["r_gap/jaw_mouth"] == pytest.approx(0, abs=0.03)
    assert narrow["r_gap/jaw_mouth"] > 0.1 and wide["r_gap/jaw_mouth"] < -0.05
    pairs = [
        np.corrcoef((heard + own[i])[:, 5], (heard + own[j])[:, 5])[0, 1]
        for i, j in itertools.combinations(range(1, 5), 2)
    ]
    one = agreement.values(agreement.sums(heard + own[1:], only(truth, 5)))
    assert float(one["r_ss/all"]) == pytest.approx(np.mean(pairs), abs=0.01)


def only(truth, channel):
    return truth_of(truth, channels=np.arange(72) == channel)


def test_masked_frames_and_channels_add_nothing(drawn):
    truth, samples = drawn
    channels, frames = np.ones(72, bool), np.ones(200, bool)
    channels[[rig.INDEX["jawOpen"], rig.INDEX["browInnerUp"]]] = False
    frames[40:77] = False
    clean = truth_of(truth, channels=channels, frames=frames)
    spoiled = samples.copy()
    spoiled[:, 40:77] = 9.0
    spoiled[:, :, ~channels] = -7.0
    other = dataclasses.replace(clean, motion=np.where(frames[:, None] & channels, truth, 55.0))
    assert measured(samples, clean) == measured(spoiled, other)
    nothing = measured(samples, truth_of(truth, frames=np.zeros(200, bool)))
    assert all(np.isnan(v) for v in nothing.values())
    hidden = measured(samples, truth_of(truth, channels=np.zeros(72, bool)))
    assert all(np.isnan(v) for v in hidden.values())


def test_sums_of_clips_are_the_sums_of_the_whole(drawn):
    truth, samples = drawn
    halves = slice(0, 75), slice(75, 200)
    parts = [suite.sample_sums(samples[:, part], truth_of(truth[part])) for part in halves]
    got, whole = suite.sample_values(merge(parts)), measured(samples, truth_of(truth))
    for name, value in got.items():
        if not name.startswith("r_"):  # Deviations are from each clip's mean.
            assert float(value) == pytest.approx(whole[name]), name
    stacked = {k: np.stack([v, 2 * v]) for k, v in merge(parts).items()}
    for name, value in suite.sample_values(stacked).items():
        np.testing.assert_allclose(value, [got[name]] * 2, err_msg=name)


def test_no_samples_and_a_wrong_shape_are_refused(drawn):
    truth, samples = drawn
    for bad in (samples[:0], samples[0], samples[:, :5]):
        with pytest.raises(ValueError, match="samples|prediction"):
            suite.sample_sums(bad, truth_of(truth))


def test_ranks_agree_with_a_count():
    rng = np.random.default_rng(5)
    truth, samples = rng.random((50, 72)), rng.random((4, 50, 72))
    expected = np.zeros(5)
    for t, c in itertools.product(range(50), JAW_MOUTH):
        expected[sum(x < truth[t, c] for x in samples[:, t, c])] += 1
    np.testing.assert_allclose(ranks.sums(samples, truth_of(truth))["ranks/histogram"], expected)
