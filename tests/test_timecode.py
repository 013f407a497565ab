"""Timecodes in the forms that devices and exporters write."""

import datetime
from fractions import Fraction

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from a2fjax import timecode
from a2fjax.errors import InputError

SECONDS = {"short": 2.5, "long": 95.0}


def column(texts):
    return timecode.Column([timecode.parse(t) for t in texts])


def clock(seconds):
    return f"{seconds // 3600:02d}:{seconds // 60 % 60:02d}:{seconds % 60:02d}"


def live_link(fps, rate, count, start=50_000):
    """Live Link Face: a time of day with thousandths of a frame."""
    return [timecode.format_timecode(start + k / Fraction(fps), rate) for k in range(count)]


def milliseconds_after_frames(fps, count, start=0):
    """NeuroSync: FF and, after the point, the milliseconds of the second."""
    texts = []
    for k in range(count):
        ms = int(1000 * k / fps + 1e-6)
        texts.append(f"{clock(start + ms // 1000)}:{ms % 1000 * fps // 1000:02d}.{ms % 1000:03d}")
    return texts


def row_counts(fps, count, start=0):
    """Writers that put the number of the row after the point."""
    return [f"{clock(start + k // fps)}:{k % fps:02d}.{k % 1000:03d}" for k in range(count)]


def drop_frame(nominal, count, first, mark=":", tail=""):
    """SMPTE ST 12-1, with the numbers skipped one by one from `first` = (hours, minutes, s)."""
    hours, minutes, seconds = first
    number, texts = 0, []
    while len(texts) < count:
        if seconds == 0 and number == 0 and minutes % 10:
            number = nominal // 15
        texts.append(f"{hours:02d}:{minutes:02d}:{seconds:02d}{mark}{number:02d}{tail}")
        number += 1
        if number == nominal:
            number, seconds = 0, seconds + 1
        if seconds == 60:
            seconds, minutes = 0, minutes + 1
        if minutes == 60:
            minutes, hours = 0, (hours + 1) % 24
    return texts


def evenly(texts, fps, tolerance):
    """Checks that rows are fps a second; returns the column."""
    found = column(texts)
    np.testing.assert_allclose(found.times(), np.arange(len(texts)) / float(fps), atol=tolerance)
    return found


# --- one timecode


@given(st.integers(0, 24 * 3600 * 60000 - 1), st.sampled_from([24, 25, 30, 50, 60, 120]))
def test_timecodes_keep_a_thousandth_of_a_frame(count, rate):
    seconds = Fraction(count, 60000)
    text = timecode.format_timecode(seconds, rate)
    code = timecode.parse(text)
    found = code.seconds + Fraction(str(code.frames)) / rate
    assert min(abs(found - seconds), abs(found + 86400 - seconds)) <= Fraction(1, 2000 * rate)
    assert 0 <= code.frames < rate
    assert timecode.format_timecode(found, rate) == text


def test_fraction_is_of_a_frame_and_not_milliseconds():
    assert timecode.format_timecode(Fraction("53882.7441"), 60) == "14:58:02:44.646"
    code = timecode.parse("14:58:02:44.643")
    assert (code.seconds, code.frames, code.mark) == (53882, 44.643, ":")


@pytest.mark.parametrize(
    "text",
    ["", "1:2", "24:00:00:00", "00:60:00:00", "00:00:61:00", "a:b:c:d", "1:2:3:4", "-1:00:00:00"],
)
def test_wrong_timecodes(text):
    with pytest.raises(InputError, match="timecode") as error:
        timecode.parse(text)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize(
    ("text", "rate", "seconds"),
    [
        ("01:00:00:15", Fraction(30), 3600.5),
        ("01:00:00:12", Fraction(24000, 1001), 3600.5),
        ("00:01:00;02", Fraction(30000, 1001), 1800 * 1001 / 30000),
        ("00:01:00;02", Fraction(30), 1800 * 1001 / 30000),
        ("00:00:01;20", Fraction(25), 1.8),  # no such form at 25
        ("00:00:01.033", Fraction(30), 1.033),
        ("soon", Fraction(30), None),
    ],
)
def test_time_of_day_of_a_film(text, rate, seconds):
    found = timecode.time_of_day(text, rate)
    assert found is None if seconds is None else found == pytest.approx(seconds, abs=1e-9)


# --- columns


@pytest.mark.parametrize("seconds", SECONDS.values(), ids=SECONDS)
@pytest.mark.parametrize("fps", ["24000/1001", "24", "25", "30000/1001", "30", "60000/1001", "60"])
def test_live_link_counts_thousandths_of_a_frame(fps, seconds):
    rate = int(np.ceil(Fraction(fps)))
    texts = live_link(fps, rate, int(seconds * float(Fraction(fps))))
    found = evenly(texts, Fraction(fps), 1.1e-3 / rate)
    assert found.reading == timecode.Reading(rate)
    found = column(live_link("59.904", 60, int(seconds * 60), start=86_390))
    assert found.reading == timecode.Reading(60)
    np.testing.assert_allclose(np.diff(found.times()), 1 / 59.904, atol=4e-5)


@pytest.mark.parametrize("seconds", SECONDS.values(), ids=SECONDS)
@pytest.mark.parametrize("fps", [24, 25, 30, 50, 60])
def test_decimals_may_be_milliseconds_of_the_second(fps, seconds):
    texts = milliseconds_after_frames(fps, int(seconds * fps), start=30)
    assert evenly(texts, fps, 1.01e-3).reading.decimals == "second"


@pytest.mark.parametrize("fps", [25, 30, 50, 60])
def test_decimals_may_count_rows(fps):
    texts = row_counts(fps, 95 * fps)
    assert evenly(texts, fps, 1e-9).reading == timecode.Reading(fps, "row")


def test_decimals_of_25_frames_count_rows_in_short_files_too():
    evenly(row_counts(25, 60), 25, 1e-9)


@pytest.mark.parametrize("form", ["{0}:{1:03d}", "{0}.{1:03d}", "{0},{1:03d}", "{0}.{1:03d}000"])
@pytest.mark.parametrize("count", [6, 200])
def test_milliseconds_may_take_the_place_of_frames(form, count):
    ms = [int(1000 * k / 30 + 1e-6) for k in range(count)]
    texts = [form.format(clock(59 + m // 1000), m % 1000) for m in ms]
    evenly(texts, 30, 1.01e-3)


def test_python_writes_decimals_or_none():
    step = datetime.timedelta(seconds=1) / 25
    evenly([str(k * step) for k in range(100)], 25, 2e-6)


@pytest.mark.parametrize("nominal", [30, 60])
@pytest.mark.parametrize("mark", [":", ";", "."])
@pytest.mark.parametrize("tail", ["", ".000"])
def test_drop_frame_numbers_are_skipped_at_minutes(nominal, mark, tail):
    fps = Fraction(nominal * 1000, 1001)
    for first in ((10, 0, 55), (9, 59, 58), (9, 59, 30), (23, 59, 30)):
        found = evenly(drop_frame(nominal, 130 * nominal, first, mark, tail), fps, 1e-6)
        assert found.reading == timecode.Reading(nominal, drop=True)
    found = evenly(drop_frame(nominal, 12 * nominal, (10, 0, 55), mark, tail), fps, 1e-6)
    assert found.times()[-1] == pytest.approx((12 * nominal - 1) / float(fps), abs=1e-9)


def test_drop_frame_times_of_day_keep_step_with_the_day():
    found = column(drop_frame(30, 100, (23, 59, 57), ";"))
    assert found.of_day()[0] == pytest.approx(86_397, abs=0.1)
    assert found.reading.day == pytest.approx(86_399.9136, abs=1e-6)


@pytest.mark.parametrize("nominal", [30, 60])
def test_numbers_without_gaps_and_lost_frames_are_no_drop_frame(nominal):
    count = np.arange(3 * 60 * nominal) + 50 * nominal
    whole = [f"{clock(36000 + k // nominal)}:{k % nominal:02d}" for k in count.tolist()]
    assert not column(whole).reading.drop
    # Frames lost at one minute, while the next minute has all numbers.
    lost = whole[: 10 * nominal] + whole[10 * nominal + nominal // 15 :]
    assert not column(lost).reading.drop
    within = column(drop_frame(30, 200, (10, 0, 20)))
    assert not within.reading.drop  # nothing tells


def test_drop_frames_with_a_lost_row_and_a_bad_row():
    texts = drop_frame(30, 4000, (10, 0, 30))
    del texts[700]
    texts[100] = "03:00:00:07"
    found = column(texts)
    kept = found.in_order()
    assert found.reading.drop and len(kept) == len(texts) - 1 and 100 not in kept


def test_rows_at_twice_and_half_the_rate_of_the_numbers():
    halves = [f"{t}.{d}" for t in drop_frame(30, 60 * 30, (10, 0, 40)) for d in ("000", "500")]
    evenly(halves, Fraction(60000, 1001), 1e-6)
    evenly(drop_frame(60, 60 * 60, (10, 0, 40))[::2], Fraction(30000, 1001), 1e-6)
