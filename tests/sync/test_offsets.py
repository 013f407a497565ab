"""Offsets of recordings: known shifts come back with their sign, and nothing is not zero."""

import sys
from pathlib import Path

import numpy as np
import pytest

from a2fjax import rig
from a2fjax.sync import measures, offsets, votes

sys.path.insert(0, str(Path(__file__).parent))
from coded import SHOWN, Coded, curves, face, sound  # noqa: E402

OBSERVED = np.isin(np.arange(rig.NUM_CHANNELS), SHOWN)


def recording(seconds=12.0, seed=1, late=0.0, level=0.05):
    times = np.arange(round(50 * seconds)) / 50
    motion = face(times, seed, late)
    whole = np.ones(len(times), bool)
    return votes.Recording(sound(seconds, seed, level=level), motion, whole, OBSERVED)


def cast(one, search=0.6):
    mean, deviation = one.motion.mean(0), np.maximum(one.motion.std(0), 0.01)
    return votes.cast(Coded(), one, mean, deviation, search)


@pytest.mark.parametrize("late", [0.0, 0.04, -0.12, 0.2, -0.4, 0.027, -0.033])
def test_a_known_shift_comes_back_with_its_sign(late):
    found = offsets.find(cast(recording(late=late)), "a")
    assert found.seconds == pytest.approx(late, abs=0.003)  # a seventh of a frame
    assert found.low <= late <= found.high and found.high - found.low < 0.05
    assert found.confidence == 1.0 and 4 <= found.votes <= 6
    assert found.in_step == (late == 0.0)


def test_votes_are_sums_of_the_scores_of_windows():
    one = recording(seconds=8.0, late=0.06)
    got = cast(one, search=0.2).curves
    shown = curves(np.arange(400) / 50 + 0.06, 1)
    heard = one.audio.reshape(400, 320)[:, : len(SHOWN)]
    seen = shown - shown.mean(0)
    seen = seen / shown.std(0)
    expected = np.zeros((4, 21))
    for first in range(0, 301, measures.HOP):
        if first < 10 or first + 100 + 10 > 400:
            continue  # its sound is not there at all offsets
        a = seen[first : first + 100]
        for n, k in enumerate(range(-10, 11)):
            b = heard[first + k : first + k + 100]
            expected[first // 100, n] += (a * b).sum() / np.sqrt((a * a).sum() * (b * b).sum())
    np.testing.assert_allclose(got, expected[:3], rtol=2e-4, atol=2e-4)


def test_a_long_recording_is_heard_in_pieces_with_the_same_votes(monkeypatch):
    one = recording(seconds=47.0, late=0.1)
    Coded.asked = 0
    pieces = cast(one)
    assert Coded.asked >= 3
    monkeypatch.setattr(votes, "SIZES", (2400,))
    np.testing.assert_allclose(pieces.curves, cast(one).curves, rtol=1e-4, atol=1e-4)


def test_without_speech_motion_or_room_there_is_no_offset():
    for one in (recording(level=1e-5), recording(seconds=2.5), recording(seconds=0.3)):
        assert offsets.find(cast(one), "a", least_range=0.2) is None
    one = recording()
    still = votes.Recording(one.audio, 0 * one.motion, one.frame_mask, OBSERVED)
    masked = votes.Recording(one.audio, one.motion, ~one.frame_mask, OBSERVED)
    unseen = votes.Recording(one.audio, one.motion, one.frame_mask, ~OBSERVED)
    for other in (still, masked, unseen):
        assert len(cast(other).curves) == 0 and offsets.find(cast(other), "a") is None


def test_short_recordings_search_less_and_pool():
    parts = [cast(recording(seconds=3.0, seed=s, late=0.1)) for s in range(4)]
    assert {p.reach for p in parts} == {20} and offsets.find(parts[0], "a") is None
    found = offsets.find(offsets.pooled(parts), "all")
    assert found.seconds == pytest.approx(0.1, abs=0.003) and found.votes == 4
    assert offsets.find(offsets.pooled([offsets.NO_VOTES]), "none") is None


def parabolas(rng, count, spread, at=0.0, reach=30):
    frames = np.arange(-reach, reach + 1)
    centre = at + spread * rng.standard_normal((count, 1))
    return offsets.Votes(-((frames - centre) ** 2))


def test_the_interval_covers_the_truth_as_often_as_it_says():
    rng = np.random.default_rng(0)
    hits, widths = [], []
    for trial in range(300):
        found = offsets.find(parabolas(rng, 8, 4.0, at=2.3), str(trial), draws=200)
        hits.append(found.low <= 2.3 / 50 <= found.high)
        widths.append(found.high - found.low)
    assert 0.90 <= np.mean(hits) <= 0.99
    # Student's interval of a mean of 8 with deviation 4 frames: 2 x 2.365 x 4 / sqrt(8) frames.
    assert np.mean(widths) == pytest.approx(2 * 2.365 * 4 / np.sqrt(8) / 50, rel=0.15)


def test_votes_that_disagree_are_not_trusted():
    rng = np.random.default_rng(1)
    sure = offsets.find(parabolas(rng, 8, 0.5), "a")
    unsure = offsets.find(parabolas(rng, 8, 12.0), "a")
    assert sure.confidence > 0.99 > 0.7 > unsure.confidence
    assert sure.high - sure.low == pytest.approx(2 * offsets.LEAST_SPREAD, abs=0.01)
    # A hundred thousand votes take no more memory, and say the same.
    many = offsets.find(parabolas(rng, 20_000, 0.5, at=3), "a")
    assert many.votes == 20_000 and many.seconds == pytest.approx(0.06, abs=0.001)


def test_a_peak_at_an_end_a_flat_score_and_two_votes_are_no_offset():
    rng = np.random.default_rng(2)
    assert offsets.find(parabolas(rng, 8, 0.1, at=40), "a") is None
    assert offsets.find(offsets.Votes(np.ones((8, 61))), "a") is None
    assert offsets.find(parabolas(rng, 2, 0.1), "a") is None
    assert offsets.find(parabolas(rng, 8, 0.1, reach=9), "a", least_range=0.2) is None
    assert offsets.find(parabolas(rng, 8, 0.1, reach=10), "a", least_range=0.2) is not None


def test_equal_names_and_seeds_draw_the_same():
    cast_votes = parabolas(np.random.default_rng(3), 6, 3.0)
    first = offsets.find(cast_votes, "a")
    assert first == offsets.find(cast_votes, "a")
    assert first != offsets.find(cast_votes, "a", seed=1)


def test_contradiction_needs_intervals_apart_and_more_than_a_frame():
    def offset(seconds, half):
        return offsets.Offset(seconds, seconds - half, seconds + half, 1.0, 9)

    assert offset(0.1, 0.01).contradicts(offset(0.0, 0.01))
    assert not offset(0.1, 0.06).contradicts(offset(0.0, 0.05))
    assert not offset(0.015, 0.001).contradicts(offset(0.0, 0.001))
