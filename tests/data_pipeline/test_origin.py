"""Captures whose clock does not start with the sound."""

import numpy as np
import pytest

from data_pipeline.timing.origin import count_from_first_row


@pytest.mark.parametrize(
    "first",
    [1.7e9, 200_000.0, 10_873.4417, 61.0, 12.0, 1001 / 24],
    ids=["since 1970", "days", "hours", "a minute", "seconds", "frame 1001"],
)
@pytest.mark.parametrize("seconds", [4.0, 60.0, 600.0])
def test_clocks_of_devices_count_from_the_first_row(first, seconds):
    steps = np.arange(int(seconds * 60) - 7) / 60
    times, note = count_from_first_row(first + steps, seconds)
    np.testing.assert_allclose(times, steps, atol=1e-6)
    assert "count from the first row" in note and "\n" not in note


@pytest.mark.parametrize(
    ("first", "last"),
    [(0.0, 60.0), (0.0, 75.0), (0.9, 62.0), (12.0, 60.0), (12.0, 63.0), (-3.0, 61.0), (61.0, 66.0)],
    ids=["whole", "runs on", "first frames", "late face", "late, runs on", "early", "after it"],
)
def test_times_of_the_sound_are_kept(first, last):
    times = np.linspace(first, last, 500)
    found, note = count_from_first_row(times, 60.0)
    assert found is times and not note
