import itertools

import numpy as np
import pytest

from a2fjax import rig
from data_pipeline.demo import articulation, phones, takes, upper_face
from data_pipeline.demo.phones import CLASSES, Segment
from data_pipeline.demo.style import SHAPE, draw_style

RATE = articulation.RATE


def say(*parts, tail=0.4):
    """Segments from (class, seconds) pairs, silence around them."""
    out, t = [], 0.0
    for name, length in (("SIL", 0.4), *parts, ("SIL", tail)):
        out.append(Segment(name.lower(), CLASSES[name], t, t + length, t + length, 1))
        t += length
    return tuple(out), np.arange(int(round(t * RATE)) + 1) / RATE


UTTERANCE = [
    ("P", 0.07), ("A", 0.14), ("M", 0.06), ("AH", 0.12), ("P", 0.05), ("U", 0.1), ("F", 0.08),
    ("A", 0.12), ("SIL", 0.4), ("E", 0.1), ("F", 0.07), ("O", 0.12), ("M", 0.05), ("P", 0.06),
    ("EH", 0.1), ("S", 0.09), ("A", 0.1), ("SIL", 0.16), ("I", 0.09), ("B", 0.06), ("AO", 0.13),
]  # fmt: skip

CORNERS = [np.array(c) for c in itertools.product((-1.0, 1.0), repeat=5)]


def pose(segments, times, shape=None, emotion=0):
    shape = np.zeros(len(SHAPE)) if shape is None else np.pad(shape, (0, len(SHAPE) - len(shape)))
    weights = np.tile(np.eye(rig.NUM_EMOTIONS)[emotion], (len(times), 1))
    return articulation.articulate(segments, times, weights, draw_style(shape))


@pytest.mark.parametrize("emotion", range(rig.NUM_EMOTIONS))
def test_closures_and_rest_hold_in_every_corner_of_style(emotion):
    segments, times = say(*UTTERANCE)
    for corner in CORNERS[emotion % 2 :: 3]:
        motion = pose(segments, times, corner, emotion)
        curves = articulation.Curves(motion)
        aperture = rig.aperture(motion)
        for s in segments:
            inside = (times >= s.start) & (times <= s.release)
            if s.phone.name in ("P", "M"):
                assert aperture[inside].min() < 1e-6
                # A closure is wide enough for the coarsest clock that looks at it.
                for phase in np.linspace(0, 1 / rig.FPS, 5, endpoint=False):
                    frames = np.arange(phase, times[-1], 1 / rig.FPS)
                    near = (frames >= s.start - 0.02) & (frames <= s.release + 0.02)
                    assert rig.aperture(curves.at(frames[near])).min() <= 0.02
            elif s.phone.name == "F":
                assert aperture[inside].min() <= 0.08
                assert motion[inside, rig.INDEX["mouthRollLower"]].max() > 0.2
            elif s.phone.kind == "silence":
                middle = 0.5 * (s.start + s.end)
                assert aperture[np.abs(times - middle).argmin()] <= 0.02
                if s.end - s.start >= 0.4:
                    rests = (times > s.start + 0.15) & (times < s.end - 0.12)
                    assert np.abs(aperture[rests]).max() <= 0.02
        assert np.abs(aperture[times < 0.25]).max() <= 0.02
        assert np.abs(aperture[times > times[-1] - 0.2]).max() <= 0.02
        assert aperture.max() > 0.12


def test_values_are_in_range_and_do_not_step():
    segments, times = say(*UTTERANCE)
    for corner, emotion in itertools.product(CORNERS[::5], range(rig.NUM_EMOTIONS)):
        motion = pose(segments, times, corner, emotion)
        assert (motion >= rig.MIN).all() and (motion <= rig.MAX).all()
        # 40 a second is a full swing in the 50 ms of a minimum-jerk stop gesture.
        assert np.abs(np.diff(motion, axis=0)).max() * RATE < 40.0


def test_curves_are_band_limited():
    segments, times = say(*UTTERANCE)
    motion = pose(segments, times)
    motion = (motion - motion.mean(axis=0)) * np.hanning(len(motion))[:, None]
    power = np.abs(np.fft.rfft(motion, axis=0)) ** 2
    high = np.fft.rfftfreq(len(motion), 1 / RATE) > 12.0
    assert power[high].sum() < 0.01 * power.sum()
    assert power[np.fft.rfftfreq(len(motion), 1 / RATE) > 25.0].sum() < 0.0005 * power.sum()


def test_lips_part_before_speech_and_not_long_before():
    segments, times = say(("A", 0.2))
    aperture = rig.aperture(pose(segments, times))
    opens = times[np.flatnonzero(aperture > 0.02)[0]]
    assert 0.04 < segments[1].start - opens < 0.12


def test_lips_stay_shut_between_a_pause_and_a_bilabial():
    segments, times = say(("A", 0.1), ("M", 0.08), ("SIL", 0.5), ("P", 0.06), ("A", 0.1))
    aperture = rig.aperture(pose(segments, times))
    shut = (times > segments[2].start + 0.01) & (times < segments[4].release - 0.005)
    assert np.abs(aperture[shut]).max() < 0.02


def test_a_long_phone_reaches_its_target():
    segments, times = say(("EH", 1.0))
    motion = pose(segments, times)
    middle = np.abs(times - 0.9).argmin()
    manner = draw_style(np.zeros(8))
    want = manner.amplitude * (1 + 0.4 * manner.jaw) * CLASSES["EH"].targets[phones.INDEX["jaw"]]
    assert motion[middle, rig.INDEX["jawOpen"]] == pytest.approx(want, rel=0.02)


def test_neighbours_colour_a_phone():
    ends = {}
    for vowel in ("U", "I"):
        segments, times = say(("T", 0.08), (vowel, 0.15))
        middle = np.abs(times - (segments[1].start + 0.04)).argmin()
        ends[vowel] = pose(segments, times)[middle, rig.INDEX["mouthPucker"]]
    assert ends["U"] > ends["I"] + 0.1


def test_emotions_mix_linearly_while_nothing_saturates():
    segments, times = say(("E", 0.2))
    manner = draw_style(np.zeros(8))
    eye = np.eye(rig.NUM_EMOTIONS)

    def smile(weights):
        motion = articulation.articulate(segments, times, np.tile(weights, (len(times), 1)), manner)
        return motion[0, rig.INDEX["mouthSmileLeft"]]

    mixed = smile(0.5 * eye[1] + 0.5 * eye[3])
    assert mixed == pytest.approx(0.5 * smile(eye[1]) + 0.5 * smile(eye[3]), abs=1e-6)
    assert smile(eye[1]) > smile(eye[0]) + 0.3


def test_style_and_emotion_change_the_pose_as_much_as_the_report_needs():
    rng = np.random.default_rng(0)
    segments, times = say(*UTTERANCE)
    channels = rig.GROUPS["jaw_mouth"]
    own, mean, shuffled = [], [], []
    for _ in range(60):
        shape, other = rng.uniform(-1, 1, (2, 5))
        mood, other_mood = rng.integers(rig.NUM_EMOTIONS, size=2)
        own.append(pose(segments, times, shape, mood)[:, channels])
        mean.append(pose(segments, times, None, mood)[:, channels])
        shuffled.append(pose(segments, times, other, other_mood)[:, channels])
    own, mean, shuffled = map(np.array, (own, mean, shuffled))
    constant = np.sqrt(np.mean((own - own.mean(axis=(0, 1))) ** 2))
    assert 0.45 < np.sqrt(np.mean((own - mean) ** 2)) / constant < 0.70
    assert np.sqrt(np.mean((own - shuffled) ** 2)) / constant > 1.0


def test_style_is_smooth_and_monotone_in_the_face():
    grid = np.linspace(-1, 1, 41)
    for column, field in enumerate(("amplitude", "jaw", "rounding", "smile", "asymmetry")):
        values = []
        for x in grid:
            shape = np.zeros(len(SHAPE))
            shape[column] = x
            values.append(getattr(draw_style(shape), field))
        steps = np.diff(values)
        assert (steps > 0).all()
        straight = np.polyval(np.polyfit(grid, values, 1), grid)
        assert np.abs(values - straight).max() < 0.08 * np.ptp(values)


def test_blinks_beats_and_gaze_leave_the_mouth_alone():
    segments, times = say(*UTTERANCE * 4)
    segments = tuple(s if s.phone.kind != "vowel" else Segment(
        s.ipa, s.phone, s.start, s.end, s.release, 2) for s in segments)  # fmt: skip
    before = pose(segments, times)
    after = before.copy()
    upper_face.add_upper_face(after, times, segments, np.random.default_rng(0))
    changed = np.flatnonzero(np.abs(after - before).max(axis=0) > 0)
    assert set(changed) <= set(rig.GROUPS["eyes"]) | set(rig.GROUPS["brows"])
    assert (after >= rig.MIN).all() and (after <= rig.MAX).all()
    assert after[:, rig.INDEX["eyeBlinkLeft"]].max() > 0.85
    assert after[:, rig.INDEX["browOuterUpLeft"]].max() > 0.1
    other = before.copy()
    upper_face.add_upper_face(other, times, segments, np.random.default_rng(1))
    assert not np.allclose(other, after)
    yaw, pitch = after[:, rig.INDEX["leftEyeRotY"]], after[:, rig.INDEX["leftEyeRotX"]]
    for name, angle in {
        "eyeLookOutLeft": yaw, "eyeLookInRight": yaw, "eyeLookInLeft": -yaw,
        "eyeLookDownLeft": pitch, "eyeLookUpRight": -pitch,
    }.items():  # fmt: skip
        want = np.clip(angle / upper_face.FULL_LOOK, 0, 1)
        np.testing.assert_allclose(after[:, rig.INDEX[name]], want, atol=1e-6)


def test_curves_between_samples_and_beyond_the_ends():
    times = np.arange(0, 2.0 + 1e-9, 1 / RATE)
    values = np.zeros((len(times), rig.NUM_CHANNELS))
    values[:, 0] = 0.5 + 0.4 * np.sin(2 * np.pi * 8.0 * times)
    curves = articulation.Curves(values)
    at = np.linspace(0.1, 1.9, 997)
    want = 0.5 + 0.4 * np.sin(2 * np.pi * 8.0 * at)
    np.testing.assert_allclose(curves.at(at)[:, 0], want, atol=1e-4)
    assert (curves.at(np.array([-1.0, 5.0])) == curves.at(np.array([0.0, 2.0]))).all()


def test_the_slate_snaps_open_at_its_clicks():
    person = takes.draw_people(3, 0, 1.0, 0)[1]
    slate = takes.record_slate(person)
    loud = np.flatnonzero(np.abs(slate.audio) > 0.5) / takes.RATE
    clicks = loud[np.flatnonzero(np.diff(loud, prepend=-1.0) > 0.3)]
    assert len(clicks) == 3
    times = np.arange(0, slate.curves.duration, 0.001)
    aperture = rig.aperture(slate.curves.at(times))
    speed = np.gradient(aperture, 0.001)
    for click in clicks:
        near = np.flatnonzero(np.abs(times - click) < 0.1)
        assert abs(times[near[speed[near].argmax()]] - click) <= 0.003
        assert aperture[np.abs(times - click + 0.05).argmin()] < 0.01
        assert aperture[np.abs(times - click - 0.05).argmin()] > 0.3
