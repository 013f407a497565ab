"""Each metric on curves whose answer is known beforehand."""

import dataclasses

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from a2fjax import rig
from a2fjax.data.records import Clip
from a2fjax.metrics import bootstrap, energy, lips, silence, suite, timing
from a2fjax.metrics.reference import reference, with_thresholds
from a2fjax.metrics.sums import merge

JAW = rig.INDEX["jawOpen"]
ALL = np.ones(72, bool)


def talk(frames=400, seed=0, *, late=0.0):
    """Aperture of a talking mouth: syllables of 4-6 Hz that shut fully, as jawOpen alone."""
    t = (np.arange(frames) - late) / 50
    rng = np.random.default_rng(seed)
    phase = 2 * np.pi * (4.5 * t + 0.3 * np.sin(2 * np.pi * 0.4 * t + rng.uniform(0, 6)))
    size = 0.4 + 0.15 * np.sin(2 * np.pi * 0.7 * t + rng.uniform(0, 6))
    return size * np.clip(0.5 - 0.6 * np.cos(phase), 0, None)


def motion_of(opening):
    motion = np.zeros((len(opening), 72))
    motion[:, JAW] = opening
    return motion


def clip_of(motion, subject="a", pause=None):
    frames = len(motion)
    rng = np.random.default_rng(1)
    audio = 0.1 * rng.standard_normal(frames * 320)
    if pause is not None:
        audio[pause[0] * 320 : pause[1] * 320] = 0.0
    return Clip(
        id=f"{subject}/x",
        subject=subject,
        sentence="s",
        language="en",
        split="val",
        audio=audio.astype(np.float32),
        motion=motion.astype(np.float32),
        channel_mask=ALL,
        frame_mask=np.ones(frames, bool),
        emotion=np.eye(5, dtype=np.float32)[np.zeros(frames, int)],
        speech_level=0.1,
        synthetic=True,
    )


def see(clip):
    return reference(
        clip.motion,
        clip.audio,
        channel_mask=clip.channel_mask,
        frame_mask=clip.frame_mask,
        speech_level=clip.speech_level,
    )


def measure(prediction, clip):
    (truth,) = with_thresholds([see(clip)], [clip.subject])
    return {k: float(v) for k, v in suite.values(suite.sums(prediction, truth)).items()}


@pytest.fixture(scope="module")
def rich():
    """Truth that moves in every channel."""
    rng = np.random.default_rng(3)
    smooth = np.cumsum(rng.standard_normal((400, 72)), 0) * 0.01
    motion = 0.3 + smooth - smooth.mean(0)
    motion[:, 68:] *= 20
    motion[:, rig.INDEX["mouthClose"]] = 0.0
    motion[:, JAW] = talk()
    return motion


def test_a_perfect_copy(rich):
    clip = clip_of(rich, pause=(100, 130))
    got = measure(clip.motion, clip)
    for name, value in got.items():
        if name.startswith(("bs_", "vel_mae", "eye_angle")) or name in ("mod", "closure_residual"):
            assert value == 0, name
        elif name.startswith(("corr/", "amp_ratio")) or name in (
            "closure_recall closure_precision closed_ratio acc_ratio hf_ratio xcorr_peak".split()
        ):
            assert value == pytest.approx(1), name
    assert got["xcorr_lag_ms"] == pytest.approx(0, abs=0.5)
    assert got["loudness_corr"] == got["loudness_corr_truth"]
    assert got["pause_aperture"] == got["pause_aperture_truth"]


def test_errors_have_the_units_they_claim(rich):
    clip = clip_of(rich)
    moved = clip.motion.astype(float)
    moved[:, rig.GROUPS["jaw_mouth"]] += 0.1
    moved[::2, rig.GROUPS["brows"]] += 0.2
    moved[:, rig.ANGLE_CHANNELS] += [3.0, 1.0, 5.0, 3.0]
    got = measure(moved, clip)
    assert got["bs_mae/jaw_mouth"] == pytest.approx(0.1)
    assert got["bs_rmse/jaw_mouth"] == pytest.approx(0.1)
    assert got["bs_mae/brows"] == pytest.approx(0.1)
    assert got["bs_rmse/brows"] == pytest.approx(0.2 / np.sqrt(2))
    assert got["vel_mae/brows"] == pytest.approx(0.2 * 50), "0.2 a frame is 10 weights a second"
    assert got["vel_mae/jaw_mouth"] == pytest.approx(0, abs=1e-6)
    assert got["eye_angle_mae/eye_angles"] == pytest.approx(3.0)
    assert got["eye_angle_rmse/eye_angles"] == pytest.approx(np.sqrt(11.0))
    # Angles are no part of the mean over weights.
    assert got["bs_mae/all"] == pytest.approx((0.1 * 27 + 0.1 * 5) / 68)


def test_masked_channels_and_frames_do_not_count(rich):
    clip = clip_of(rich)
    mask = ALL.copy()
    mask[rig.GROUPS["brows"]] = False
    mask[rig.INDEX["mouthUpperUpLeft"]] = False
    frames = np.ones(400, bool)
    frames[50:90] = False
    clip = dataclasses.replace(clip, channel_mask=mask, frame_mask=frames)
    spoiled = clip.motion.copy()
    spoiled[:, ~mask] = 0.77
    spoiled[50:90] = 0.5
    got = measure(spoiled, clip)
    assert np.isnan(got["bs_mae/brows"])
    assert got["bs_mae/all"] == 0 and got["vel_mae/all"] == 0 and got["mod"] == 0
    assert got["closure_recall"] == got["closure_precision"] == 1
    assert got["amp_ratio/jaw_mouth"] == got["hf_ratio"] == pytest.approx(1)


def test_acceleration_does_not_reach_across_a_lost_frame(rich):
    frames = np.ones(400, bool)
    frames[200] = False
    spoiled = rich.copy()
    spoiled[200] += 0.4
    got = measure(spoiled, dataclasses.replace(clip_of(rich), frame_mask=frames))
    assert got["acc_ratio"] == pytest.approx(1)


def test_a_slow_movement_does_not_leak_into_high_frequencies():
    t = np.arange(400) / 50
    slow, jitter = 0.6 * t / t[-1], 0.002 * np.sin(2 * np.pi * 15 * t)
    got = measure(motion_of(slow + 2 * jitter), clip_of(motion_of(slow + jitter)))
    assert got["hf_ratio"] == pytest.approx(4, rel=0.02)


def test_the_peak_lies_on_a_parabola_between_two_frames():
    lags = np.arange(-timing.MAX_LAG, timing.MAX_LAG + 1)
    r = 0.9 - 0.01 * (lags - 0.3) ** 2
    ones = np.ones(len(lags))
    got = timing.values({"timing/pg": r, "timing/pp": ones, "timing/gg": ones})
    assert got["xcorr_lag_ms"] == pytest.approx(6.0) and got["xcorr_peak"] == pytest.approx(0.9)


def test_nothing_observed_is_no_number_and_no_warning(rich):
    clip = dataclasses.replace(clip_of(rich), frame_mask=np.zeros(400, bool))
    assert all(np.isnan(v) for v in measure(clip.motion, clip).values())
    clip = dataclasses.replace(clip_of(rich), channel_mask=np.arange(72) != JAW)
    got = measure(clip.motion, clip)
    assert np.isnan(got["mod"]) and np.isnan(got["xcorr_lag_ms"]) and got["bs_mae/tongue"] == 0


@pytest.mark.parametrize("frames", [-5, -2, 1, 2, 5])
def test_a_late_copy_has_a_positive_lag(frames):
    truth = motion_of(talk())
    got = measure(motion_of(talk(late=frames)), clip_of(truth))
    assert got["xcorr_lag_ms"] == pytest.approx(20 * frames, abs=1.0)


@settings(max_examples=25, deadline=None)
@given(late=st.floats(-4, 4), offset=st.floats(-0.1, 0.4), gain=st.floats(0.3, 1.5))
def test_lag_is_read_between_frames_whatever_the_offset_and_gain(late, offset, gain):
    mask = np.ones(400, bool)
    total = timing.sums(offset + gain * talk(late=late), talk(), frame_mask=mask)
    assert timing.values(total)["xcorr_lag_ms"] == pytest.approx(20 * late, abs=1.5)


def test_a_still_mouth_has_no_lag():
    assert np.isnan(measure(np.full((400, 72), 0.2), clip_of(motion_of(talk())))["xcorr_lag_ms"])


@settings(max_examples=15, deadline=None)
@given(scale=st.floats(0.1, 2.0), offset=st.floats(-0.2, 0.2))
def test_a_scaled_copy_has_that_amplitude(scale, offset):
    truth = motion_of(talk())
    got = measure(offset + scale * truth, clip_of(truth))
    assert got["amp_ratio/jaw_mouth"] == pytest.approx(scale, rel=1e-4)
    assert got["acc_ratio"] == pytest.approx(scale, rel=1e-4)
    assert got["hf_ratio"] == pytest.approx(scale**2, rel=1e-4)
    assert got["corr/jaw_mouth"] == pytest.approx(1, abs=1e-5)


def test_jitter_shows_above_10_hz_and_slow_drift_does_not():
    truth = motion_of(0.3 + talk())
    t = np.arange(400) / 50
    slow, fast = (
        measure(truth + motion_of(0.1 * np.sin(2 * np.pi * hz * t)), clip_of(truth))
        for hz in (3.0, 18.0)
    )
    assert slow["hf_ratio"] == pytest.approx(1, abs=0.05) and slow["acc_ratio"] < 1.2
    assert fast["hf_ratio"] > 20 and fast["acc_ratio"] > 3


def test_lips_that_stay_apart_have_no_recall():
    truth = motion_of(talk())
    got = measure(truth + motion_of(np.full(400, 0.2)), clip_of(truth))
    assert got["closure_recall"] == 0
    assert np.isnan(got["closure_precision"]), "nothing was predicted, so nothing can be right"
    assert got["closure_f1"] == 0
    assert got["closure_residual"] == pytest.approx(0.2, abs=1e-3)
    assert got["closed_ratio"] == 0


def test_an_always_closed_mouth_has_recall_but_no_precision():
    got = measure(np.zeros((400, 72)), clip_of(motion_of(talk())))
    assert got["closure_recall"] == 1
    assert got["closure_precision"] < 0.75 and got["closed_ratio"] > 2.5


def test_closure_f1_is_the_harmonic_mean_of_recall_and_precision():
    def f1(hit, truth_events, right, predicted_events):
        total = dict.fromkeys("abs frames residual closed_p closed_g".split(), np.ones(3))
        total |= {"hit": hit, "truth_events": truth_events}
        total |= {"right": right, "predicted_events": predicted_events}
        found = lips.values({f"lips/{k}": np.asarray(v, float) for k, v in total.items()})
        return found["closure_f1"].tolist()

    # Recall 3/4, precision 1/2; all right; events of the truth only.
    assert f1([3, 4, 0], [4, 4, 4], [4, 4, 0], [8, 4, 0]) == pytest.approx([0.6, 1.0, 0.0])
    # Nothing right; a truth without events; nothing at all.
    found = f1([0, 0, 0], [4, 0, 0], [0, 0, 0], [8, 8, 0])
    assert found[0] == 0 and np.isnan(found[1:]).all()


def test_closures_at_the_wrong_time_are_chance():
    # Irregular words, or a roll by a whole number of syllables would look right.
    rng = np.random.default_rng(5)
    opening = np.full(3000, 0.4)
    for start in np.cumsum(rng.integers(12, 50, 90)):
        opening[start : start + 5] = 0.0
    opening = np.convolve(opening[:3000], np.ones(3) / 3, "same")
    clip = clip_of(motion_of(opening))
    chance = measure(np.roll(motion_of(opening), 30, axis=0), clip)
    assert chance["closure_recall"] < 0.45 and chance["closure_precision"] < 0.45
    near = measure(np.roll(motion_of(opening), 2, axis=0), clip)
    assert near["closure_recall"] > 0.98 and near["closure_precision"] > 0.98


@pytest.mark.parametrize("late", [-5, -2, 2, 5])
def test_closures_count_within_40_ms_only(late):
    opening = np.full(200, 0.3)
    for start in range(20, 200, 30):
        opening[start : start + 5] = 0.0
    clip = clip_of(motion_of(opening))
    got = measure(np.roll(motion_of(opening), late, axis=0), clip)
    assert got["closure_recall"] == got["closure_precision"] == (1.0 if abs(late) == 2 else 0.0)


def test_truth_events_are_those_written():
    opening = np.full(300, 0.3)
    opening[20:24] = 0.01
    opening[50] = 0.0  # one frame only
    opening[80:82] = opening[83:85] = 0.0  # one event with a gap of one frame
    opening[120:160] = 0.0  # a rest of 0.8 s in speech
    opening[200:230] = 0.0  # a pause
    opening[260:262] = 0.0  # two frames are enough
    speech = np.ones(300, bool)
    speech[195:235] = False
    events = lips.closure_events(
        opening, 0.01, speech=speech, frame_mask=np.ones(300, bool), cut_long=False
    )
    assert [(e.start, e.stop) for e in events] == [(20, 24), (80, 85), (260, 262)]
    assert events[0].centre in (21, 22)
    pieces = lips.closure_events(
        opening, 0.01, speech=speech, frame_mask=np.ones(300, bool), cut_long=True
    )
    cut = [e for e in pieces if 120 <= e.start < 160]
    assert sum(e.stop - e.start for e in cut) == 40 and all(e.stop - e.start <= 15 for e in cut)
    assert not any(195 <= e.centre < 235 for e in pieces)


def test_long_rests_do_not_move_the_threshold():
    opening = 0.05 + talk(400)
    padded = np.concatenate([np.zeros(300), opening, np.zeros(300)])
    clip = clip_of(motion_of(padded), pause=None)
    audio = clip.audio.copy()
    audio[: 300 * 320] = audio[700 * 320 :] = 0
    clip = dataclasses.replace(clip, audio=audio)
    (truth,) = with_thresholds([see(clip)], ["a"])
    assert truth.threshold == pytest.approx(np.percentile(opening, 10), abs=5e-3)
    assert np.percentile(padded, 10) == 0, "the trap is there"


def test_thresholds_are_each_subject_s_own():
    loud, quiet = motion_of(0.1 + talk()), motion_of(0.02 + 0.3 * talk())
    references = [see(clip_of(m)) for m in (loud, quiet, loud)]
    thresholds = [r.threshold for r in with_thresholds(references, ["a", "b", "a"])]
    assert thresholds[0] == thresholds[2] == pytest.approx(0.1, abs=0.03)
    assert thresholds[1] == pytest.approx(0.02, abs=0.01)


def test_segments_of_speech_pause_and_rest():
    level = np.full(200, 0.1)
    level[:5] = 1e-4  # an edge, too short to be a pause
    level[60:67] = 0.0  # the closure of a stop: 140 ms
    level[100:130] = 1e-3  # a pause
    level[190:] = 0.0  # an edge that is a pause
    speech, rest = silence.segment(level, 0.1)
    expected = np.ones(200, bool)
    expected[:5] = expected[100:130] = expected[190:] = False
    np.testing.assert_array_equal(speech, expected)
    assert np.flatnonzero(rest).tolist() == [*range(103, 127), *range(193, 200)]


def test_frame_level_is_centred_and_exact_at_the_ends():
    audio = np.full(320 * 9 + 100, 0.2, np.float32)
    np.testing.assert_allclose(silence.frame_level(audio, 10), 0.2, rtol=1e-6)
    audio = np.zeros(3200, np.float32)
    audio[1600] = 1.0
    level = silence.frame_level(audio, 10)
    assert np.flatnonzero(level).tolist() == [5, 6]


def test_open_pauses_are_measured_against_the_curve_s_own_opening():
    opening = talk(400)
    opening[200:260] = 0.0
    clip = clip_of(motion_of(opening), pause=(200, 260))
    predicted = opening.copy()
    speech, rest = silence.segment(silence.frame_level(clip.audio, 400), 0.1)
    predicted[rest] = 0.5 * np.percentile(predicted[speech], 90)
    got = measure(motion_of(predicted), clip)
    assert got["pause_aperture"] == pytest.approx(0.5, abs=1e-4)
    assert got["pause_aperture_truth"] == 0
    assert measure(motion_of(3 * predicted), clip)["pause_aperture"] == pytest.approx(0.5, abs=1e-4)


def test_loudness_that_drives_the_mouth_is_found():
    level = 0.1 * 10 ** (-talk(300) * 2)
    loudness = energy.log_level(level, 0.1)
    mask = np.ones(300, bool)
    rng = np.random.default_rng(0)
    got = energy.values(
        energy.sums(rng.standard_normal(300), 0.5 * loudness, loudness=loudness, frame_mask=mask)
    )
    assert got["loudness_corr_truth"] == pytest.approx(1) and abs(got["loudness_corr"]) < 0.2
    assert energy.log_level(np.zeros(3), 0.1).tolist() == [-50.0] * 3


def test_sums_of_parts_are_the_sums_of_the_whole(rich):
    rng = np.random.default_rng(0)
    clips = [clip_of(rich + i * 0.01, subject=f"s{i % 2}", pause=(50, 80)) for i in range(4)]
    references = with_thresholds([see(c) for c in clips], [c.subject for c in clips])
    parts = [suite.sums(r.motion + 0.05 * rng.standard_normal((400, 72)), r) for r in references]
    one = suite.values(merge(parts))
    two = suite.values(merge([merge(parts[:1]), merge(parts[1:])]))
    for name in one:
        np.testing.assert_allclose(one[name], two[name], rtol=1e-12, err_msg=name)
    # Independently: the RMSE over all frames of all clips.
    rng = np.random.default_rng(0)
    noise = np.stack([0.05 * rng.standard_normal((400, 72)) for _ in clips])
    expected = np.sqrt((noise[..., rig.GROUPS["jaw_mouth"]] ** 2).mean())
    assert one["bs_rmse/jaw_mouth"] == pytest.approx(expected)


def test_bootstrap_intervals_cover_the_truth_and_repeat():
    rng = np.random.default_rng(0)

    def values(total):
        return {"mean": total["x"] / total["n"]}

    covered = 0
    for trial in range(60):
        subjects = [{"x": 20 * rng.normal(1.0, 0.3), "n": np.float64(20)} for _ in range(12)]
        low, high = bootstrap.intervals(subjects, values, seed=trial, resamples=400)["mean"]
        covered += low <= 1.0 <= high
    assert 49 <= covered <= 60, "95 % nominal; the percentile bootstrap of 12 undercovers a little"
    again = [bootstrap.intervals(subjects, values, seed=7)["mean"] for _ in range(2)]
    assert again[0] == again[1]
    assert bootstrap.intervals(subjects[:1], values, seed=0) == {"mean": None}


def test_bootstrap_takes_the_whole_suite(rich):
    clip = clip_of(rich)
    (truth,) = with_thresholds([see(clip)], ["a"])
    noisy = [
        suite.sums(rich + 0.05 * np.random.default_rng(i).standard_normal(rich.shape), truth)
        for i in range(5)
    ]
    found = bootstrap.intervals(noisy, suite.values, seed=0, resamples=50)
    point = suite.values(merge(noisy))
    for name in ("bs_rmse/jaw_mouth", "closure_recall", "xcorr_lag_ms", "amp_ratio/jaw_mouth"):
        low, high = found[name]
        assert low - 1e-9 <= point[name] <= high + 1e-9, name


def test_a_wrong_shape_or_a_nan_is_refused(rich):
    truth = see(clip_of(rich))
    with pytest.raises(ValueError, match="399"):
        suite.sums(rich[:399], truth)
    with pytest.raises(ValueError, match="finite"):
        suite.sums(np.where(rich > 0.3, np.nan, rich), truth)
