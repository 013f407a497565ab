import numpy as np
import pytest

from data_pipeline import align

RATES = [23.976, 24, 25, 29.97, 30, 48, 59.94, 60, 120]


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
    assert abs(lag(found[start], at[start])) <= 0.002
    assert abs(lag(found[end], at[end])) <= 0.002
    assert np.sqrt(((found - movement(at)) ** 2).mean()) < 0.02 * movement(at).std()


@pytest.mark.parametrize(("fps", "bound"), [(25, 0.35), (60, 0.1), (120, 0.1)])
def test_dropped_frames_do_not_shift_the_rest(fps, bound):
    times = np.arange(int(20 * fps)) / fps
    kept = np.random.default_rng(1).random(len(times)) > 0.1
    times = times[kept]
    at = np.arange(100, 900) / 50
    found = align.resample(times, movement(times)[:, None], at)[:, 0]
    assert abs(lag(found, at)) <= 0.002
    assert np.sqrt(((found - movement(at)) ** 2).mean()) < bound * movement(at).std()


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
    good = align.covered(times, at)
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
    assert align.exact_rate(30) == 30 and align.exact_rate(59.9) == 59.9
