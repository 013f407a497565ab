"""Blinks of known number, length and depth."""

import numpy as np
import pytest

from a2fjax.metrics import eyes, suite
from a2fjax.metrics.reference import reference


def lid(frames, at, depth=0.8, width=5.0):
    """Triangles of a width at half height."""
    t = np.arange(frames)
    return sum((depth * np.clip(1 - np.abs(t - c) / width, 0, None) for c in at), np.zeros(frames))


def motion_of(left, right):
    motion = np.zeros((len(left), 72))
    motion[:, eyes.LIDS[0]], motion[:, eyes.LIDS[1]] = left, right
    return motion


def measured(prediction, truth, **changes):
    frames = len(truth)
    given = {"channel_mask": np.ones(72, bool), "frame_mask": np.ones(frames, bool)} | changes
    known = reference(truth, np.zeros(frames * 320), speech_level=0.1, **given)
    return {
        k: float(v) for k, v in suite.values(suite.sums(prediction, known)).items() if "blink" in k
    }


TIMES = (100, 300, 480, 800)
TRUTH = motion_of(lid(1000, TIMES), lid(1000, TIMES))


def test_blinks_are_counted_and_measured():
    few = motion_of(lid(1000, (300,), 0.5, 8.0), lid(1000, (302,), 0.5, 8.0))
    got = measured(few, TRUTH)
    assert got["blinks_per_minute_truth"] == pytest.approx(4 / (1000 / 3000))
    assert got["blinks_per_minute"] == pytest.approx(got["blinks_per_minute_truth"] / 4)
    assert got["blink_ms_truth"] == pytest.approx(100) and got["blink_depth_truth"] == 0.8
    assert got["blink_ms"] == pytest.approx(160, abs=25) and 0.4 < got["blink_depth"] < 0.5
    assert got["blinks_together"] == got["blinks_together_truth"] == 1


def test_eyes_that_blink_apart_are_told():
    apart = motion_of(lid(1000, (100, 500)), lid(1000, (104, 900)))
    got = measured(apart, TRUTH)
    assert got["blinks_together"] == 0
    near = motion_of(lid(1000, (100, 500)), lid(1000, (103, 900)))
    assert measured(near, TRUTH)["blinks_together"] == pytest.approx(0.5)


def test_gaze_rests_and_flutter_are_no_blinks():
    slow = lid(1000, (500,), 0.8, 60.0)
    rest = np.zeros(1000)
    rest[400:460] = 0.9
    small = lid(1000, TIMES, 0.2)
    for other in (slow, rest, small):
        got = measured(motion_of(other, other), TRUTH)
        assert got["blinks_per_minute"] == 0 and np.isnan(got["blink_ms"])
    on_gaze = measured(motion_of(slow + lid(1000, TIMES), slow + lid(1000, TIMES)), TRUTH)
    assert on_gaze["blinks_per_minute"] == on_gaze["blinks_per_minute_truth"]


def test_masked_frames_and_lids_do_not_count():
    frames = np.ones(1000, bool)
    frames[250:500] = False
    spoiled = TRUTH.copy()
    spoiled[250:500] = lid(250, range(10, 250, 30))[:, None]
    got = measured(spoiled, TRUTH, frame_mask=frames)
    assert got["blinks_per_minute"] == pytest.approx(2 / (750 / 3000))
    channels = np.ones(72, bool)
    channels[eyes.LIDS[1]] = False
    spoiled = TRUTH.copy()
    spoiled[:, eyes.LIDS[1]] = lid(1000, range(20, 1000, 50))
    got = measured(spoiled, TRUTH, channel_mask=channels)
    assert got["blinks_per_minute"] == got["blinks_per_minute_truth"] == 12
    assert got["blink_depth"] == pytest.approx(0.8) and np.isnan(got["blinks_together"])
    channels[eyes.LIDS] = False
    assert all(np.isnan(v) for v in measured(TRUTH, TRUTH, channel_mask=channels).values())
