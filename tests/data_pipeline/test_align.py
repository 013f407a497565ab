import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from data_pipeline.timing import align

RATES = [23.976, 24, 25, 29.97, 30, 47.952, 48, 50, 59.94, 60, 100, 119.88, 120]


def movement(t):
    """A lively but band-limited signal: up to 8 Hz, as fast as lips move."""
    rng = np.random.default_rng(0)
    speed, phase = rng.uniform(0.5, 8, 24), rng.uniform(0, 2 * np.pi, 24)
    return np.sin(2 * np.pi * speed * np.asarray(t)[:, None] + phase).mean(axis=1)


def lag(found, at, around=0.02):
    """Returns by how much `found` is late, to 0.1 ms, by search over shifts of the truth."""
    shifts = np.arange(-around, around, 1e-4)
    errors = [((found - movement(at - s)) ** 2).sum() for s in shifts]
    return shifts[int(np.argmin(errors))]


@pytest.mark.parametrize("fps", RATES)
def test_every_rate_ends_in_step_after_a_minute(fps):
    rate = align.exact_rate(fps)
    times = np.arange(int(61 * rate)) / rate
    at = np.arange(3000) / 50
    found = align.resample(times, movement(times)[:, None], at)[:, 0]
    start, end = slice(50, 250), slice(2750, 2950)
    assert abs(lag(found[start], at[start])) <= 0.001
    assert abs(lag(found[end], at[end])) <= 0.001
    assert np.sqrt(((found - movement(at)) ** 2).mean()) < 0.015 * movement(at).std()
    assert align.covered_by_capture(times, at).all()


@pytest.mark.parametrize("fps", RATES)
def test_events_stay_where_they_are_after_a_minute(fps):
    rate = align.exact_rate(fps)
    times = np.arange(int(61 * rate)) / rate
    at = np.arange(3000) / 50
    events = np.arange(1.0, 60.0, 0.7317)  # every phase of the frames

    def lips(t):
        return np.exp(-(((t[:, None] - events) / 0.06) ** 2)).sum(axis=1)

    found = align.resample(times, lips(times)[:, None], at)[:, 0]
    for event in events[-8:]:
        near = np.abs(at - event) < 0.15
        centre = at[near] @ found[near] / found[near].sum()
        truth = at[near] @ lips(at[near]) / lips(at[near]).sum()
        assert abs(centre - truth) <= 0.001
        assert abs(found[near].max() - lips(at[near]).max()) <= 0.02


def test_a_rounded_rate_would_be_late_by_what_the_table_says():
    # What the exact rate is worth: 29.97 read as 30 is 60 ms off after a minute.
    times = np.arange(1830) / 30.0
    true = np.arange(1830) / align.exact_rate(29.97)
    at = np.arange(2700, 2900) / 50
    found = align.resample(times, movement(true)[:, None], at)[:, 0]
    assert lag(found, at, around=0.1) == pytest.approx(-0.056, abs=0.003)


@pytest.mark.parametrize("fps", [23.976, 30, 59.94, 120])
@pytest.mark.parametrize("kind", ["rounded", "jitter", "wild", "dropped"])
def test_uneven_time_stamps_are_honoured(fps, kind):
    rate = align.exact_rate(fps)
    rng = np.random.default_rng(1)
    times = np.arange(int(61 * rate)) / rate
    if kind == "rounded":
        times = np.round(times, 3)
    elif kind == "dropped":
        times = times[rng.random(len(times)) > 0.02]
    else:
        times = times + rng.uniform(-1, 1, len(times)) * {"jitter": 0.1, "wild": 0.4}[kind] / rate
    at = np.arange(3000) / 50
    found = align.resample(times, movement(times)[:, None], at)[:, 0]
    end = slice(2750, 2950)
    assert abs(lag(found[end], at[end])) <= 0.002
    bound = {"rounded": 0.015, "jitter": 0.015, "wild": 0.1, "dropped": 0.12}[kind]
    assert np.sqrt(((found - movement(at)) ** 2).mean()) < bound * movement(at).std()


@pytest.mark.parametrize(("fps", "bound"), [(25, 0.25), (60, 0.06), (120, 0.02)])
def test_dropped_frames_do_not_shift_the_rest(fps, bound):
    times = np.arange(int(20 * fps)) / fps
    kept = np.random.default_rng(1).random(len(times)) > 0.1
    times = times[kept]
    at = np.arange(100, 900) / 50
    found = align.resample(times, movement(times)[:, None], at)[:, 0]
    good = align.covered_by_capture(times, at)
    assert good.mean() > 0.95
    assert abs(lag(found, at)) <= 0.002
    error = (found - movement(at))[good]
    assert np.sqrt((error**2).mean()) < bound * movement(at).std()


@pytest.mark.parametrize("fps", [24, 30, 60, 120])
def test_steps_rise_where_they_are_and_hardly_ring(fps):
    rng = np.random.default_rng(0)
    at = np.arange(500) / 50
    for jitter in (0.0, 0.4):
        times = np.arange(10 * fps) / fps
        times = times + jitter * rng.uniform(-1, 1, len(times)) / fps
        step = (times > 5).astype(float)
        edge = (times[step > 0][0] + times[step == 0][-1]) / 2
        found = align.resample(times, step[:, None], at)[:, 0]
        assert max(found.max() - 1, -found.min()) <= (0.25 if jitter else 0.13)
        rest = np.abs(at - edge) > 4.5 / min(fps, 50)
        np.testing.assert_allclose(found[rest], (at > edge)[rest], atol=2e-2)
        area = np.trapezoid(found, at)  # the instant at which a sharp step has that area
        assert at[-1] - area == pytest.approx(edge, abs=0.5 / fps if jitter else 0.004)


@settings(max_examples=60, deadline=None, derandomize=True)
@given(data=st.data())
def test_whatever_is_missing_the_rest_stays_finite_and_bounded(data):
    seed = data.draw(st.integers(0, 2**16))
    rng = np.random.default_rng(seed)
    fps = data.draw(st.sampled_from([23.976, 30, 60, 120]))
    count = data.draw(st.integers(1, 150))
    times = np.arange(count) / fps + rng.uniform(-0.4, 0.4, count) / fps * rng.integers(0, 2)
    times = times + 2.0 * (rng.random(count) < 0.03).cumsum() * rng.integers(0, 2)
    values = rng.uniform(0, 1, (count, 4))
    whole = values.copy()
    values[rng.random(values.shape) < data.draw(st.floats(0, 0.9))] = np.nan
    at = np.arange(-5, 150) / 50 + times[0]
    found = align.resample(times, values, at)
    for n in range(4):
        seen = np.isfinite(values[:, n])
        if not seen.any():
            assert np.isnan(found[:, n]).all()
            continue
        assert np.isfinite(found[:, n]).all()
        assert -0.7 < found[:, n].min() and found[:, n].max() < 1.7
        # A channel is what it would be alone.
        alone = align.resample(times[seen], values[seen, n : n + 1], at)[:, 0]
        np.testing.assert_allclose(found[:, n], alone, atol=1e-12)
    kept = align.resample(times, whole, at)
    np.testing.assert_allclose(align.resample(times, whole[:, :1], at)[:, 0], kept[:, 0])
    good = align.covered_by_capture(times, at)
    gaps = np.abs(at[:, None] - times).min(axis=1)
    frame = np.median(np.diff(times)) if count > 1 else 0.04
    assert (
        gaps[good].max(initial=0) <= max(0.5 * frame, align.longest_bridged_gap(frame) / 2) + 1e-9
    )


def test_nothing_rings_across_a_hole():
    times = np.concatenate([np.arange(60), np.arange(120, 180)]) / 60
    values = np.where(times < 1.5, 0.0, 1.0)[:, None]
    at = np.arange(150) / 50
    found = align.resample(times, values, at)[:, 0]
    before, after = at <= times[59], at >= times[60]
    assert (found[before] == 0).all() and np.allclose(found[after], 1)
    between = found[~before & ~after]
    assert (np.diff(between) > 0).all() and 0 < between.min() and between.max() < 1
    assert (align.covered_by_capture(times, at) == (np.abs(at - 1.4917) > 0.5)).mean() > 0.98


def test_short_gaps_are_bridged_at_every_rate():
    for fps, missing in ((24, 1), (30, 1), (60, 2), (120, 5)):
        times = np.delete(np.arange(200) / fps, 100 + np.arange(missing))
        at = np.arange(0, 199 / fps, 0.001)
        assert align.covered_by_capture(times, at).all()
        more = np.delete(np.arange(200) / fps, 100 + np.arange(missing + 2))
        assert not align.covered_by_capture(more, at).all()
        seen = np.ones(200, bool)
        seen[100 : 100 + missing + 2] = False
        np.testing.assert_array_equal(
            align.covered_by_capture(np.arange(200) / fps, at, seen),
            align.covered_by_capture(more, at),
        )
    assert not align.covered_by_capture(np.arange(9) / 30, at, np.zeros(9, bool)).any()


def test_what_the_target_cannot_hold_is_filtered_out_not_folded():
    times = np.arange(1200) / 120
    at = np.arange(25, 475) / 50
    buzz = np.sin(2 * np.pi * 45 * times)[:, None]  # folds to 5 Hz at 50 a second
    assert np.abs(align.resample(times, buzz, at)).max() < 0.05
    assert np.abs(buzz[:: 12 // 5]).max() > 0.9  # picking frames keeps it all
    slow = np.sin(2 * np.pi * 6 * times)[:, None]
    np.testing.assert_allclose(
        align.resample(times, slow, at)[:, 0], np.sin(12 * np.pi * at), atol=0.02
    )


def test_constants_and_ends_are_kept():
    times = np.arange(30) / 30 + 0.2
    at = np.arange(100) / 50
    np.testing.assert_allclose(align.resample(times, np.full((30, 2), 0.3), at), 0.3, atol=1e-12)
    ramp = align.resample(times, np.arange(30.0)[:, None], at)[:, 0]
    assert ramp[0] == pytest.approx(0, abs=0.2) and ramp[-1] == pytest.approx(29, abs=0.2)
    one = align.resample(np.array([1.0]), np.array([[5.0]]), at)
    assert (one == 5).all()
    with pytest.raises(ValueError, match="increase"):
        align.resample(np.array([0.0, 0.1, 0.1]), np.zeros((3, 1)), at)


def test_covered_marks_what_was_captured():
    times = np.concatenate([np.arange(30), np.arange(60, 90)]) / 30 + 0.1
    at = np.arange(200) / 50
    good = align.covered_by_capture(times, at)
    assert not good[at < 0.08].any() and not good[at > 3.1].any()
    assert good[(at > 0.1) & (at < 1.05)].all()
    assert not good[(at > 1.15) & (at < 2.05)].any()
    assert good[(at > 2.15) & (at < 3.0)].all()


def slate(offset, fps, rise, seed):
    rng = np.random.default_rng(seed)
    pops = np.array([0.8, 1.5, 2.2]) + rng.uniform(-0.05, 0.05, 3)
    audio = 3e-4 * rng.normal(size=48_000)
    for p in pops:
        n = np.arange(400)
        first = round(p * 16_000)
        audio[first : first + 400] += 0.6 * np.exp(-n / 64) * np.cos(n * 0.47)
    times = np.arange(int(3 * fps)) / fps
    t = times + offset
    aperture = sum(
        np.clip((t - p) / max(rise, 1e-6) + 0.5, 0, 1) - np.clip((t - p - 0.25) / 0.2, 0, 1)
        for p in pops
    )
    return audio, times, 0.4 * aperture + 0.01 * rng.normal(size=len(t))


@pytest.mark.parametrize("fps", [25, 30, 60])
@pytest.mark.parametrize("rise", [0.0, 0.03, 0.06])
def test_slate_gives_the_offset_finer_than_a_frame(fps, rise):
    errors = []
    for seed in range(8):
        offset = np.random.default_rng(seed).uniform(-0.15, 0.15)
        audio, times, aperture = slate(offset, fps, rise, seed)
        found = align.offset_from_slate(align.click_times(audio), times, aperture)
        assert found is not None and found.confidence > 0.4
        errors.append(found.seconds - offset)
    bound = 0.010 if fps == 60 else 0.6 / fps
    assert np.abs(errors).max() <= bound
    assert abs(np.mean(errors)) <= 0.25 / fps


def test_slate_survives_a_stray_click_and_a_missing_pop():
    audio, times, aperture = slate(0.07, 60, 0.03, 1)
    audio[20_000:20_100] += 0.5  # a knock at 1.25 s
    aperture[times > 1.9] = aperture[0]
    clicks = align.click_times(audio)
    found = align.offset_from_slate(clicks, times, aperture)
    assert abs(found.seconds - 0.07) <= 0.010 and found.confidence < 0.8
    assert align.offset_from_slate(np.zeros(0), times, aperture) is None
    assert align.offset_from_slate(clicks, times, np.zeros_like(times)) is None
    assert align.offset_from_slate(clicks, times, np.full(len(times), np.nan)) is None


def test_rounded_rates_mean_ntsc():
    assert align.exact_rate(29.97) == 30_000 / 1001
    assert align.exact_rate(23.98) == 24_000 / 1001
    assert align.exact_rate(47.952) == 48_000 / 1001
    assert align.exact_rate(119.88) == 120_000 / 1001
    assert align.exact_rate(30) == 30 and align.exact_rate(59.9) == 59.9


def test_envelope_is_the_same_in_blocks_and_follows_loudness():
    rng = np.random.default_rng(0)
    t = np.arange(400_000) / 16_000
    audio = rng.normal(size=len(t)) * (0.001 + 0.1 * (np.sin(2 * np.pi * 0.5 * t) > 0))
    level = align.envelope(audio)
    assert len(level) == 5001
    # 20 dB a decade: ten times as loud is 20 dB more, and an instant is where it is.
    assert np.median(level[20:180]) - np.median(level[220:380]) == pytest.approx(40.1, abs=0.5)
    half = (level[150:250] > (level[100] + level[300]) / 2).sum() / 200 + 0.75
    # Half way in dB is where 1 % of a window is loud: 8 ms late.
    assert half == pytest.approx(1.008, abs=0.005)
    first = align.envelope(audio[: 16_000 * 3])
    np.testing.assert_allclose(first[:590], level[:590], atol=1e-6)
    # Mains hum at -29 dB of full scale, 9 dB below the loud parts: 24 dB less at 50 Hz.
    hum = align.envelope(audio + 0.05 * np.sin(2 * np.pi * 50 * t))
    assert np.median(hum[20:180]) - np.median(hum[220:380]) == pytest.approx(33, abs=1.5)
    assert len(align.envelope(np.zeros(0))) == 1
    assert np.isfinite(align.envelope(np.zeros(1000))).all()
