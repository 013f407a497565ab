"""Measures of motion, on curves whose answers are known."""

import json
import warnings

import numpy as np
import pytest

from a2fjax import rig
from data_pipeline.quality import motion, thresholds


def performance(frames=600, fps=60.0, seed=0):
    """Smooth curves of 72 channels with blinks of five frames, gaze that jumps, and their times."""
    rng = np.random.default_rng(seed)
    times = np.arange(frames) / fps
    knots = np.arange(0, times[-1] + 0.4, 0.12)
    curves = np.stack(
        [np.interp(times, knots, rng.uniform(0, 0.6, len(knots))) for _ in range(72)], 1
    )
    kernel = np.hanning(9) / np.hanning(9).sum()
    curves = np.apply_along_axis(
        lambda c: np.convolve(np.pad(c, 4, "edge"), kernel, "valid"), 0, curves
    )
    lids = np.zeros(frames)
    for at in range(40, frames - 10, 90):
        lids[at : at + 5] = [0.3, 0.8, 1.0, 0.6, 0.2]
    curves[:, rig.INDEX["eyeBlinkLeft"]] = lids
    curves[:, rig.INDEX["eyeBlinkRight"]] = 0.97 * lids
    gaze = 20.0 * (rng.random((frames, 4)) < 0.02).cumsum(axis=0) % 30
    curves[:, rig.ANGLE_CHANNELS] = gaze
    return times, curves


ALL = np.ones(72, bool)


def test_a_healthy_performance_has_nothing_to_report():
    found = motion.measure_motion(*performance(), ALL, np.full(600, 0.3))
    assert found["jumps"] == found["frozen"] == found["missing"] == 0
    assert found["fps"] == 60 and found["fps_name"] == "60" and found["true_fps"] is None
    assert found["mirrored"] == 0 and not found["dead"]
    assert found["residual_mm"] == {"median": 0.3, "p95": 0.3, "max": 0.3}
    assert thresholds.quarantine_reasons({"motion": found}, thresholds.Thresholds()) == []
    json.dumps(found, allow_nan=False)


@pytest.mark.parametrize(
    "fps, name",
    [
        (30000 / 1001, "30000/1001"),
        (24000 / 1001, "24000/1001"),
        (60000 / 1001, "60000/1001"),
        (25, "25"),
        (30, "30"),
    ],
)
def test_rates_by_their_true_names_with_frames_missing_and_times_in_milliseconds(fps, name):
    _, curves = performance(900)
    times = np.round(np.arange(900) / fps, 3)
    keep = np.ones(900, bool)
    keep[100:130] = keep[500] = False
    found = motion.measure_motion(times[keep], curves[keep], ALL)
    assert found["fps_name"] == name
    assert found["fps"] == pytest.approx(fps, rel=1e-6)
    assert found["missing"] == pytest.approx(31 / 900, abs=1e-4)
    assert found["longest_gap_s"] == pytest.approx(31 / fps, abs=2e-3)
    assert found["jitter_ms"] < 0.6


def test_frames_without_numbers_are_missing():
    times, curves = performance()
    curves[50:110, 17] = np.nan
    found = motion.measure_motion(times, curves, ALL)
    assert found["missing"] == pytest.approx(0.1, abs=1e-4)
    empty = motion.measure_motion(times, np.full((600, 72), np.nan), ALL)
    assert empty["missing"] == 1.0
    json.dumps(empty, allow_nan=False)


def test_frozen_frames_and_regular_repeats():
    times, curves = performance()
    held = curves.copy()
    held[200:260] = held[199]
    found = motion.measure_motion(times, held, ALL)
    assert found["frozen"] == pytest.approx(60 / 599, abs=1e-4)
    assert found["longest_frozen_s"] == pytest.approx(1.0, abs=0.001)
    assert found["true_fps"] is None
    twice = motion.measure_motion(times, np.repeat(curves[:300], 2, axis=0), ALL)
    assert twice["true_fps"] == pytest.approx(30.0)
    pulled = motion.measure_motion(times, curves[(np.arange(600) * 24 // 60)], ALL)
    assert pulled["true_fps"] == pytest.approx(24.0, rel=0.02)
    # Frames at a lower rate are not frozen, but a pose that is held among them is.
    assert twice["frozen"] == pulled["frozen"] == 0.0
    paused = motion.measure_motion(times, np.repeat(held[:300], 2, axis=0), ALL)
    assert paused["true_fps"] == pytest.approx(30.0)
    assert paused["frozen"] == pytest.approx(120 / 599, abs=0.01)
    slow = motion.measure_motion(times, curves[np.arange(600) // 6], ALL)
    assert slow["true_fps"] == pytest.approx(10.0) and slow["frozen"] > 0.8


def test_jumps_are_single_frames_and_not_blinks_or_gaze():
    times, curves = performance()
    for at in (77, 300, 420):
        curves[at, rig.INDEX["jawOpen"]] += 0.4
    curves[500:] += np.where(np.arange(72) < 68, 0.9, 0.0)
    found = motion.measure_motion(times, curves, ALL)
    assert found["jump_times"] == [round(times[i], 4) for i in (77, 300, 420, 500)]
    assert found["jumps"] == pytest.approx(4 / 600, abs=1e-5)


def test_limits_ranges_and_what_lies_beyond():
    times, curves = performance()
    curves[:150, 17] = 1.0
    curves[:60, 20] = 1.4
    curves[:30, 21] = -0.2
    curves[:, 30] = 0.25
    curves[:90, 70] = -45.0
    found = motion.measure_motion(times, curves, ALL)
    saturated = found["saturated"]
    assert saturated["jawOpen"] == pytest.approx(0.25)
    assert saturated["mouthPucker"] == pytest.approx(0.1)
    assert saturated[rig.CHANNELS[70]] == pytest.approx(0.15)
    assert found["above"] == pytest.approx(60 / 600 / 68, abs=1e-5)
    assert found["below"] == pytest.approx(30 / 600 / 68, abs=1e-5)
    assert list(found["outside"])[:2] == [rig.CHANNELS[20], rig.CHANNELS[21]]
    assert found["dead"] == [rig.CHANNELS[30]]
    np.testing.assert_allclose(
        found["range"]["jawOpen"], np.percentile(curves[:, 17], [1, 50, 99]), atol=1e-4
    )


def test_the_noise_is_that_which_was_added():
    times, curves = performance(3000)
    rng = np.random.default_rng(0)
    base = motion.measure_motion(times, curves, ALL)["noise"]
    for level in (0.01, 0.03):
        noisy = curves + level * rng.normal(size=curves.shape) * rig.SCALE
        assert motion.measure_motion(times, noisy, ALL)["noise"] == pytest.approx(level, rel=0.2)
    assert base < 0.005


def test_left_that_equals_right():
    times, curves = performance()
    equal = curves.copy()
    for a, b in rig.MIRROR_PAIRS:
        equal[:, rig.INDEX[b]] = equal[:, rig.INDEX[a]]
    assert motion.measure_motion(times, equal, ALL)["mirrored"] == 1.0
    equal[7, rig.INDEX["mouthSmileLeft"]] += 0.01
    found = motion.measure_motion(times, equal, ALL)
    assert 0.9 < found["mirrored"] < 1.0
    assert found["unequal"] == ["mouthSmileLeft"]


def test_values_beyond_any_number_of_32_bits_are_measured_without_a_warning():
    times, curves = performance()
    curves[7, 0], curves[8, 1], curves[9, 2] = 1e300, -1e12, np.inf
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        found = motion.measure_motion(times, curves, ALL)
    assert found["above"] > 0 and found["below"] > 0 and found["digest"]


def test_copies_of_motion_have_one_digest():
    times, curves = performance()
    first = motion.measure_motion(times, curves, ALL)["digest"]
    assert motion.measure_motion(times + 3, curves.astype(np.float32), ALL)["digest"] == first
    assert motion.measure_motion(times, performance(seed=1)[1], ALL)["digest"] != first


@pytest.mark.parametrize("frames", [0, 1, 2, 3, 4, 6])
def test_very_short_motion(frames):
    times, curves = performance(10)
    for seen in (ALL, ~ALL):
        found = motion.measure_motion(times[:frames], curves[:frames], seen, np.ones(frames))
        json.dumps(found, allow_nan=False)
        assert found["frames"] == frames
        thresholds.quarantine_reasons({"motion": found}, thresholds.Thresholds())
