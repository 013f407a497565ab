"""MTM, SLCC and FDD against slow implementations of their published definitions."""

import math
import statistics

import numpy as np
import pytest

from a2fjax import rig
from a2fjax.metrics import mtm, slcc, suite
from a2fjax.metrics.groups import WEIGHT_GROUPS
from a2fjax.metrics.reference import reference
from a2fjax.metrics.sums import merge

JAW = rig.INDEX["jawOpen"]
UPPER = WEIGHT_GROUPS["upper_face"]
MOUTH = WEIGHT_GROUPS["jaw_mouth"]


def truth_of(motion, *, audio=None, channels=None, frames=None):
    return reference(
        motion,
        np.zeros(len(motion) * 320) if audio is None else audio,
        channel_mask=np.ones(72, bool) if channels is None else channels,
        frame_mask=np.ones(len(motion), bool) if frames is None else frames,
        speech_level=0.1,
    )


def jaw(curve):
    motion = np.zeros((len(curve), 72))
    motion[:, JAW] = curve
    return motion


def measured(*clips):
    """Values over (person, prediction, truth)."""
    parts = [(person, suite.sums(prediction, truth)) for person, prediction, truth in clips]
    return {k: float(v) for k, v in suite.values(suite.merge_clips(parts)).items()}


def smooth(curve):
    """Gaussian of 2 frames, cut at 4 sigma, mirrored at the edges."""
    kernel = [math.exp(-(d**2) / 8) for d in range(-8, 9)]
    count = len(curve)
    out = []
    for t in range(count):
        total = 0.0
        for d, weight in zip(range(-8, 9), kernel, strict=True):
            at = (t + d) % (2 * count)
            total += weight * curve[at if at < count else 2 * count - 1 - at]
        out.append(total / sum(kernel))
    return out


def extrema(curve):
    """Kind by frame; a plateau counts at its middle, edges do not count."""
    found, t = {}, 1
    while t < len(curve) - 1:
        end = t
        while end < len(curve) - 1 and curve[end + 1] == curve[t]:
            end += 1
        if end < len(curve) - 1:
            rise, fall = curve[t] - curve[t - 1], curve[end + 1] - curve[t]
            if rise > 0 > fall or rise < 0 < fall:
                found[(t + end) // 2] = "max" if rise > 0 else "min"
        t = end + 1
    return found


def slow_mtm(prediction, truth):
    """Delays in frames of the published definition."""
    p, g = smooth(list(prediction)), smooth(list(truth))
    dp, dg = ([0.0] + [b - a for a, b in zip(x, x[1:], strict=False)] for x in (p, g))
    cost = {(-1, -1): 0.0}
    for i, a in enumerate(dg):
        for j, b in enumerate(dp):
            before = [cost.get(c, math.inf) for c in ((i - 1, j), (i, j - 1), (i - 1, j - 1))]
            cost[i, j] = abs(a - b) + min(before)
    path, at = [], (len(dg) - 1, len(dp) - 1)
    while min(at) >= 0:
        path.append(at)
        i, j = at
        at = min(
            ((i - 1, j - 1), (i - 1, j), (i, j - 1)), key=lambda cell: cost.get(cell, math.inf)
        )
    of_g, of_p = extrema(g), extrema(p)
    frames, delays = sorted(of_g), []
    for i, j in reversed(path):
        if i in of_g and of_g[i] == of_p.get(j):
            left = max((f for f in frames if f < i), default=0)
            right = min((f for f in frames if f > i), default=len(g) - 1)
            if left <= j <= right:
                delays.append(abs(i - j))
    return delays


def wave(rng, frames):
    return np.cumsum(rng.standard_normal(frames)) * 0.1


@pytest.mark.parametrize("kind", ["unrelated", "late", "plateaus"])
def test_mtm_is_the_published_definition(kind):
    rng = np.random.default_rng(0)
    clips, means = [], []
    for number in range(6):
        truth = wave(rng, 60 + 7 * number)
        other = wave(rng, len(truth)) if kind == "unrelated" else np.roll(truth, 3)
        if kind == "plateaus":
            truth, other = np.maximum(truth, 0.1), np.maximum(other, 0.1)
        clips.append((str(number), jaw(other), truth_of(jaw(truth))))
        delays = slow_mtm(truth_of(jaw(other)).aperture, clips[-1][2].aperture)
        if delays:
            means.append(statistics.fmean(delays))
    assert measured(*clips)["mtm_frames"] == pytest.approx(statistics.fmean(means), abs=1e-9)
    assert len(means) > 3


def test_the_path_is_the_cheapest():
    rng = np.random.default_rng(4)
    x, y = wave(rng, 30), wave(rng, 41)
    path = mtm.warping_path(x, y)
    steps = np.diff(path, axis=0)
    assert path[0].tolist() == [0, 0] and path[-1].tolist() == [29, 40]
    assert set(map(tuple, steps.tolist())) <= {(1, 1), (1, 0), (0, 1)}
    dx, dy = np.diff(x, prepend=x[0]), np.diff(y, prepend=y[0])
    cost = np.full((31, 42), np.inf)
    cost[0, 0] = 0
    for i in range(30):
        for j in range(41):
            least = min(cost[i, j], cost[i, j + 1], cost[i + 1, j])
            cost[i + 1, j + 1] = abs(dx[i] - dy[j]) + least
    assert np.abs(dx[path[:, 0]] - dy[path[:, 1]]).sum() == pytest.approx(cost[-1, -1])
    flat = mtm.warping_path(np.zeros(4), np.zeros(6)).tolist()
    assert flat[-4:] == [[0, 2], [1, 3], [2, 4], [3, 5]], "a diagonal step first among equals"


def syllables(frames=300, late=0.0, size=0.3):
    t = (np.arange(frames) - late) / 50
    return size * (1 + np.sin(2 * np.pi * 3 * t + np.sin(2 * np.pi * 0.5 * t)))


@pytest.mark.parametrize("late", [-3, 2, 4])
def test_a_late_copy_has_that_delay(late):
    got = measured(("a", jaw(syllables(late=late)), truth_of(jaw(syllables()))))
    assert got["mtm_frames"] == pytest.approx(abs(late), abs=0.4)
    assert got["mtm_ms"] == pytest.approx(20 * abs(late), abs=6)
    assert got["mtm_late_ms"] == pytest.approx(20 * late, abs=6)
    assert got["mtm_matched"] > 0.9


def test_a_face_that_hardly_moves_is_told_by_the_share_of_matched_extrema():
    truth = syllables()
    hardly = np.full(300, 0.3)
    hardly[100:] += 0.01 * np.sin(np.arange(200) / 30)
    got = measured(("a", jaw(hardly), truth_of(jaw(truth))))
    assert got["mtm_matched"] < 0.3
    still = measured(("a", jaw(np.full(300, 0.3)), truth_of(jaw(truth))))
    assert still["mtm_matched"] == 0 and np.isnan(still["mtm_ms"]) and np.isnan(still["mtm_frames"])


def test_noise_below_the_prominence_is_no_extremum_of_ours():
    rng = np.random.default_rng(1)
    truth = syllables() + 0.005 * rng.standard_normal(300)
    got = mtm.sums(jaw(truth), truth_of(jaw(truth)))
    assert got["mtm/extrema"] == pytest.approx(2 * 3 * 6, abs=3) and got["mtm/late"] == 0


def test_invalid_frames_part_sequences_and_long_ones_are_cut():
    truth = syllables(400)
    frames = np.ones(400, bool)
    frames[180:210] = False
    spoiled = syllables(400, late=2)
    spoiled[180:210] = 5.0
    got = measured(("a", jaw(spoiled), truth_of(jaw(truth), frames=frames)))
    parts = [
        slow_mtm(syllables(400, late=2)[part], truth[part])
        for part in (slice(0, 180), slice(210, 400))
    ]
    assert got["mtm_frames"] == pytest.approx(statistics.fmean(parts[0] + parts[1]), abs=1e-9)
    mask = np.ones(4000, bool)
    mask[100] = False
    pieces = mtm._pieces(mask)
    assert pieces[0] == (0, 100) and pieces[-1][1] == 4000 and len(pieces) == 4
    assert max(stop - start for start, stop in pieces) <= mtm.MAX_FRAMES
    hidden = measured(("a", jaw(truth), truth_of(jaw(truth), channels=np.arange(72) != JAW)))
    assert np.isnan(hidden["mtm_ms"]) and np.isnan(hidden["mtm_matched"])


def slow_slcc(clips):
    """Pearson's r over (person, loudness, intensity), standardised by person."""
    x, y = [], []
    for person in {c[0] for c in clips}:
        own = [c[1:] for c in clips if c[0] == person]
        if len(own) < 2:
            continue
        columns = list(zip(*own, strict=True))
        means = [statistics.fmean(c) for c in columns]
        sizes = [statistics.stdev(c) for c in columns]
        if min(sizes) == 0:
            continue
        x += [(a - means[0]) / sizes[0] for a in columns[0]]
        y += [(b - means[1]) / sizes[1] for b in columns[1]]
    return statistics.correlation(x, y)


def test_slcc_is_the_published_definition():
    rng = np.random.default_rng(2)
    clips, expected = [], {"": [], "_truth": []}
    for number in range(14):
        frames = int(rng.integers(20, 60))
        person = "aaaabbbbbbcccd"[number]
        size = rng.uniform(0.2, 1.0)
        audio = size * 0.1 * rng.standard_normal(frames * 320 - 77)
        truth = 0.1 * (size + 0.5) * np.cumsum(rng.standard_normal((frames, 72)), axis=0)
        other = np.cumsum(rng.standard_normal((frames, 72)), axis=0)
        clips.append((person, other, truth_of(truth, audio=audio)))
        loudness = math.sqrt(sum(a * a for a in audio) / len(audio))
        for name, motion in (("", other), ("_truth", truth)):
            speeds = [
                sum(abs(b - a) for a, b in zip(u[MOUTH], v[MOUTH], strict=True)) / len(MOUTH)
                for u, v in zip(motion, motion[1:], strict=False)
            ]
            intensity = math.sqrt(sum(s * s for s in speeds) / len(speeds))
            expected[name].append((person, loudness, intensity))
    got = measured(*clips)
    for name, rows in expected.items():
        assert got[f"slcc{name}"] == pytest.approx(slow_slcc(rows), abs=1e-9), name
    assert got["slcc_truth"] > got["slcc"] + 0.2


def test_slcc_needs_two_clips_of_a_person_and_people_add_once():
    rng = np.random.default_rng(3)

    def clip(size):
        motion = size * np.cumsum(rng.standard_normal((40, 72)), axis=0)
        return motion, truth_of(motion, audio=size * rng.standard_normal(12800))

    first, second, third = (clip(size) for size in (0.1, 0.2, 0.4))
    assert np.isnan(measured(("a", *first), ("b", *second))["slcc"])
    assert measured(("a", *first), ("a", *second))["slcc"] == pytest.approx(1)
    assert np.isnan(measured(("a", *first), ("a", *first))["slcc"]), "nothing varies"
    own = suite.person(merge([suite.sums(*first), suite.sums(*second), suite.sums(*third)]))
    twice = suite.person(suite.person(own))
    np.testing.assert_array_equal(twice["slcc/weight_p"], own["slcc/weight_p"])
    loose = suite.values(merge([suite.sums(*first), suite.sums(*second)]))
    assert np.isnan(loose["slcc"]), "without people there is no value, not a wrong one"


def test_slcc_hears_and_sees_valid_frames_only():
    rng = np.random.default_rng(6)
    motion, audio = rng.random((50, 72)), rng.standard_normal(16000)
    frames, channels = np.ones(50, bool), np.ones(72, bool)
    frames[10:20], channels[JAW] = False, False
    truth = truth_of(motion, audio=audio, frames=frames, channels=channels)
    spoiled = motion.copy()
    spoiled[10:20] = 7
    spoiled[:, JAW] = rng.random(50)
    assert slcc.intensity(spoiled, truth) == slcc.intensity(motion, truth)
    loud = audio.copy()
    loud[3200:6400] *= 100
    heard = truth_of(motion, audio=loud, frames=frames).level
    assert (
        heard == truth.level == pytest.approx(np.sqrt((audio[np.repeat(frames, 320)] ** 2).mean()))
    )
    assert np.isnan(truth_of(motion, frames=np.zeros(50, bool)).level)


def test_fdd_is_signed_and_absolute():
    rng = np.random.default_rng(5)
    motion = rng.random((80, 72))
    clips, differences = [], []
    for scale in (0.5, 1.8):
        clips.append((str(scale), scale * motion, truth_of(motion)))
        own = [
            statistics.pstdev(motion[:, c]) - statistics.pstdev(scale * motion[:, c]) for c in UPPER
        ]
        differences.append(statistics.fmean(own))
    got = measured(*clips)
    assert differences[0] > 0 > differences[1]
    assert got["fdd_signed"] == pytest.approx(statistics.fmean(differences), abs=1e-9)
    assert got["fdd_abs"] == pytest.approx(statistics.fmean(map(abs, differences)), abs=1e-9)
    still = measured(("a", 0 * motion, truth_of(motion)))
    assert still["fdd_signed"] == still["fdd_abs"] > 0
    channels, frames = np.ones(72, bool), np.ones(80, bool)
    channels[UPPER[:3]], frames[5:9] = False, False
    spoiled = motion.copy()
    spoiled[:, UPPER[:3]], spoiled[5:9] = 0, 9
    got = measured(("a", spoiled, truth_of(motion, channels=channels, frames=frames)))
    assert got["fdd_signed"] == pytest.approx(0, abs=1e-12)
    channels[UPPER] = False
    assert np.isnan(measured(("a", motion, truth_of(motion, channels=channels)))["fdd_abs"])
