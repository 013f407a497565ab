import math
from fractions import Fraction

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from a2fjax.animation import tracks
from a2fjax.errors import InputError

RATES = ["23.976", "24", "25", "29.97", "30", "48", "50", "59.94", "60", "120"]


def curves(frames, seed=0):
    return np.random.default_rng(seed).random((frames, 72)).astype(np.float32)


@given(
    st.integers(1, 200),
    st.sampled_from(RATES),
    st.sampled_from(RATES),
    st.lists(st.integers(0, 200), max_size=5),
)
def test_blocks_do_not_change_the_numbers(frames, fps_in, fps_out, cuts):
    motion = curves(frames)
    whole = tracks.resample(motion, fps_in, fps_out)
    resampler = tracks.Resampler(fps_in, fps_out)
    parts = [resampler.push(p) for p in np.split(motion, sorted(min(c, frames) for c in cuts))]
    streamed = np.concatenate([*parts, resampler.finish()])
    assert np.array_equal(whole, streamed)
    ratio = tracks.rate(fps_out) / tracks.rate(fps_in)
    assert (
        len(whole) == math.ceil(frames * ratio) == tracks.resampled_frames(frames, fps_in, fps_out)
    )


@given(st.integers(2, 200), st.sampled_from(RATES), st.sampled_from(RATES))
def test_values_are_those_of_linear_interpolation_at_exact_times(frames, fps_in, fps_out):
    motion = curves(frames)
    found = tracks.resample(motion, fps_in, fps_out)
    a, b = float(tracks.rate(fps_in)), float(tracks.rate(fps_out))
    times_in, times_out = np.arange(frames) / a, np.arange(len(found)) / b
    for c in (0, 17, 71):
        assert np.allclose(found[:, c], np.interp(times_out, times_in, motion[:, c]), atol=1e-5)


def test_same_rate_changes_nothing():
    motion = curves(31)
    assert np.array_equal(tracks.resample(motion, 50, 50), motion)


def test_a_long_stream_does_not_drift_and_keeps_little():
    resampler = tracks.Resampler(50, "59.94")
    ramp = np.zeros((3000, 72), np.float32)
    count = 0
    for block in range(60):  # an hour
        ramp[:, 0] = np.arange(block * 3000, (block + 1) * 3000) % 1000
        out = resampler.push(ramp)
        count += len(out)
        assert len(resampler._kept) <= 2
    count += len(resampler.finish())
    assert count == math.ceil(Fraction(180000 * 60000, 50 * 1001))


def test_track_resamples_by_its_times():
    times = np.array([0.0, 0.1, 0.15, 0.3, 0.36])
    motion = np.zeros((5, 72), np.float32)
    motion[:, 17] = 2 * times + 0.1
    track = tracks.Track(motion, times + 5, np.ones(72, bool)).resampled(50)
    assert len(track.times) == 19 and track.fps == pytest.approx(50)
    assert np.allclose(track.motion[:, 17], 2 * (track.times - 5) + 0.1, atol=1e-6)


def test_rates():
    assert tracks.rate("59.94") == Fraction(60000, 1001) == tracks.rate(59.94)
    assert tracks.rate("30000/1001") == tracks.rate("29.97")
    assert tracks.rate(50) == 50 and tracks.rate("12.5") == Fraction(25, 2)
    for wrong in ("", "fast", "0", "-5", "1e9", "1/0", "nan", "inf"):
        with pytest.raises(InputError, match="fps"):
            tracks.rate(wrong)
