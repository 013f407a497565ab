import collections
import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from a2fjax import rig, timecode
from a2fjax.animation import curve_reader, formats, livelink, row_times, tracks
from a2fjax.errors import InputError

RATES = ["23.976", "24", "25", "29.97", "30", "48", "50", "59.94", "60", "100", "120"]


def motion(frames, seed=0):
    drawn = np.random.default_rng(seed).random((frames, 72)).astype(np.float32)
    drawn[:, rig.ANGLE_CHANNELS] = drawn[:, rig.ANGLE_CHANNELS] * 60 - 30
    return drawn


def write_lines(path, table, change=None):
    livelink.write(path, table)
    lines = path.read_text().split("\n")
    if change:
        change(lines)
        path.write_text("\n".join(lines))
    return path


# --- timecodes


@given(st.sampled_from(RATES), st.integers(0, 86399), st.integers(2, 400))
def test_times_of_written_frames_are_exact_at_every_rate(fps, start, count):
    rate = tracks.rate(fps)
    first = timecode.format_timecode(start, livelink.timecode_rate(rate))
    table = livelink.from_motion(np.zeros((count, 72), np.float32), fps=rate, start=first)
    exact = np.array([float(k / rate) for k in range(count)])
    times = table.times(livelink.timecode_rate(rate))
    # Half a thousandth of a frame for the row, the same for the first one.
    assert np.abs(times - exact).max() <= 1e-3 / livelink.timecode_rate(rate) + 1e-9


def test_midnight_is_crossed_without_a_jump():
    table = livelink.from_motion(motion(120), fps=60, start="23:59:59:30.000")
    assert table.timecodes[29:31] == ("23:59:59:59.000", "00:00:00:00.000")
    assert np.allclose(np.diff(table.times()), 1 / 60, atol=1e-9)


def test_5994_counts_time_of_day_and_drops_no_numbers():
    table = livelink.from_motion(motion(60 * 65), fps="59.94", start="10:00:58:00.000")
    steps = np.diff(table.times(60)) * 60
    assert steps.min() > 0.9999 and steps.max() < 1.0021
    assert table.track().fps == pytest.approx(60000 / 1001, rel=1e-6)
    rows = collections.Counter(t[:8] for t in table.timecodes)
    # 60 timecode frames a second of real time, so one second in sixteen has 59 rows.
    assert set(list(rows.values())[:-1]) == {59, 60}
    assert 3 <= list(rows.values()).count(59) <= 5


@pytest.mark.parametrize("fps", RATES)
def test_the_timecode_rate_is_found_from_the_rows(fps):
    table = livelink.from_motion(motion(260), fps=fps, start="01:02:03:00.000")
    assert table.rate == livelink.timecode_rate(fps)
    assert table.track().fps == pytest.approx(float(tracks.rate(fps)), rel=1e-4)


def test_start_frame_must_be_within_a_second():
    with pytest.raises(InputError, match="frame 50 of a second, expected less than 50"):
        livelink.check_start("00:00:00:50.000", 50)
    livelink.check_start("00:00:00:50.000", 60)
    with pytest.raises(InputError, match="expected HH:MM:SS:FF"):
        livelink.check_start("00:00:00;02", 30)


# --- files


def test_real_captures_come_back_byte_for_byte(shared, tmp_path):
    files = sorted((shared / "livelink").glob("*.csv"))
    assert files
    for path in files:
        table = livelink.read(path)
        livelink.write(tmp_path / "again.csv", table)
        assert (tmp_path / "again.csv").read_bytes() == path.read_bytes()
        assert table.header == livelink.HEADER
        steps = np.diff(table.times()) * 60
        assert table.rate == 60
        assert 0.999 < steps.min() and steps.max() < 1.004
        assert table.track().fps == pytest.approx(59.904, abs=0.001)


def test_eyes_of_real_captures_are_radians_and_look_the_same_way(shared):
    path = sorted((shared / "livelink").glob("*.csv"))[0]
    table = livelink.read(path)
    found, observed = table.to_motion()
    c = rig.INDEX
    # eyeLook weights reach 1 near 35 degrees; read as degrees the slope would be below 1. The rig's
    # yaw is positive to the person's left: outwards for the left eye, inwards for the right one.
    for side, sign in (("Left", 1), ("Right", -1)):
        out = found[:, c["eyeLookOut" + side]] - found[:, c["eyeLookIn" + side]]
        slope = np.polyfit(out, found[:, c[side.lower() + "EyeRotY"]], 1)[0]
        assert 25 < sign * slope < 45
        down = found[:, c["eyeLookDown" + side]] - found[:, c["eyeLookUp" + side]]
        assert np.polyfit(down, found[:, c[side.lower() + "EyeRotX"]], 1)[0] > 15
    assert np.abs(found[:, rig.ANGLE_CHANNELS]).max() < rig.ANGLE_LIMIT
    assert observed.sum() == 56 and not observed[rig.INDEX["tongueUp"]]


def test_a_writer_in_blocks_writes_what_the_table_holds(tmp_path):
    curves = motion(77)
    start = "12:00:00:00.500"
    with formats.writer(tmp_path / "a.csv", fps="59.94", frames=77, start=start) as writer:
        for part in np.split(curves, [10, 11, 50]):
            writer.write(part)
    livelink.write(
        tmp_path / "b.csv", livelink.from_motion(curves, fps="59.94", start="12:00:00:00.500")
    )
    assert (tmp_path / "a.csv").read_bytes() == (tmp_path / "b.csv").read_bytes()


def test_motion_survives_the_file(tmp_path):
    curves = motion(40)
    livelink.write(tmp_path / "x.csv", livelink.from_motion(curves))
    found, observed = livelink.read(tmp_path / "x.csv").to_motion()
    assert np.abs(found - curves)[:, observed].max() < 1e-5
    assert (found[:, ~observed] == 0).all()
    head = (tmp_path / "x.csv").read_text().split("\n")[0].split(",")
    # The one order that is Live Link's own.
    assert head[16:19] == ["JawForward", "JawRight", "JawLeft"]
    assert (len(head), head[-1]) == (63, "RightEyeRoll")


def test_columns_are_mapped_by_name_and_crlf_is_kept(tmp_path):
    table = livelink.from_motion(motion(5))
    order = np.random.default_rng(1).permutation(61)[:51]
    names = tuple(livelink.LAYOUT.names[i].upper() for i in order)
    mixed = livelink.Table(
        table.timecodes, table.values[:, order], ("Timecode", "BlendShapeCount", *names), "\r\n"
    )
    livelink.write(tmp_path / "x.csv", mixed)
    again = livelink.read(tmp_path / "x.csv")
    assert again.header == mixed.header and again.newline == "\r\n"
    found, observed = again.to_motion()
    assert np.abs(found - table.to_motion()[0])[:, observed].max() < 1e-6
    livelink.write(tmp_path / "y.csv", again)
    assert (tmp_path / "x.csv").read_bytes() == (tmp_path / "y.csv").read_bytes()


def cut(lines):
    lines[3] = lines[3].rsplit(",", 1)[0]


def swap(lines, old, new, row=0):
    lines[row] = lines[row].replace(old, new, 1)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (cut, ":4: 62 values, expected 63"),
        (lambda x: swap(x, "JawOpen", "JawOpn"), ":1: unknown column 'JawOpn'.*'JawOpen'"),
        (lambda x: swap(x, "JawOpen", "JawLeft"), ":1: column 'JawLeft' appears twice"),
        (lambda x: swap(x, "Timecode", "time"), ":1: first column is 'time'"),
        (lambda x: swap(x, ",61,", ",52,", 2), ":3: BlendshapeCount is '52', expected 61"),
        (lambda x: swap(x, "00:00:00", "00-00-00", 2), ":3: timecode '00-00-00"),
        (lambda x: x.__setitem__(2, x[2][:19] + "nan" + x[2][31:]), ":3: .*expected a finite"),
        (lambda x: x.__setitem__(2, x[2][:19] + "abc" + x[2][31:]), ":3: .*expected a finite"),
        (lambda x: x.__delitem__(slice(1, None)), "has a header but no frames"),
        (lambda x: x.__delitem__(slice(0, None)), "is empty"),
    ],
)
def test_what_is_wrong_is_told_with_file_and_line(tmp_path, change, message):
    path = write_lines(tmp_path / "x.csv", livelink.from_motion(motion(4)), change)
    with pytest.raises(InputError, match=r"x\.csv.*" + message) as error:
        livelink.read(path)
    assert "\n" not in str(error.value)


def test_times_that_go_back_are_told(tmp_path):
    path = write_lines(
        tmp_path / "x.csv",
        livelink.from_motion(motion(4)),
        lambda x: swap(x, "00:00:00:02", "00:00:00:01", 3),
    )
    with pytest.raises(InputError, match=r"x\.csv:4: timecode 00:00:00:01\.000 is not after"):
        livelink.read(path).times()


def test_missing_and_binary_files(tmp_path):
    with pytest.raises(InputError, match="no such file"):
        livelink.read(tmp_path / "none.csv")
    (tmp_path / "x.csv").write_bytes(bytes(range(256)))
    with pytest.raises(InputError, match="not text"):
        livelink.read(tmp_path / "x.csv")


def test_short_files_are_read_at_the_phones_rate():
    table = livelink.from_motion(motion(3), fps=60)
    assert table.rate == 60
    assert math.isclose(table.times()[-1], 2 / 60)


# --- recordings as phones write them


def test_rows_that_cannot_be_used_are_left_out_and_said(tmp_path):
    table = livelink.from_motion(motion(200), fps=60, start="23:59:58:30.000")

    def change(lines):
        lines[41] = lines[40]  # a row that is repeated
        lines[61], lines[62] = lines[62], lines[61]
        lines[81] = "03:00:00:00.000" + lines[81][15:]
        for n in (101, 102, 103):
            lines[n] = lines[n].split(",")[0] + ",0"

    path = write_lines(tmp_path / "a.csv", table, change)
    with pytest.raises(InputError):
        livelink.read(path).times()
    found = curve_reader.read(path)
    times, notes = found.times, found.notes
    rows = np.round(times * 60).astype(int)
    np.testing.assert_allclose(times * 60, rows, atol=0.002)
    missing = set(range(200)) - set(rows.tolist())
    # Of two that are swapped, one goes.
    assert missing in ({40, 60, 80, 100, 101, 102}, {40, 61, 80, 100, 101, 102})
    truth = livelink.read(write_lines(tmp_path / "b.csv", table)).to_motion()[0]
    np.testing.assert_allclose(found.motion, truth[rows], atol=1e-6)
    assert notes[0].startswith("3 of 200 rows out of order in time left out, the first in line 4")
    assert notes[1] == "3 of 200 rows without a tracked face"
    timecodes = row_times.read_timecodes(path)
    assert set(times) <= set(timecodes.times()) and timecodes.start == pytest.approx(86398.5)


def test_too_many_rows_out_of_order_are_refused(tmp_path):
    def change(lines):
        lines[1:] = lines[120:201] + lines[1:120]

    path = write_lines(tmp_path / "a.csv", livelink.from_motion(motion(200), fps=60), change)
    for read in (curve_reader.read, row_times.read_timecodes):
        with pytest.raises(InputError, match="a.csv:.* here and in 81 of 200 rows"):
            read(path)


def test_a_recording_without_a_face_is_refused(tmp_path):
    def change(lines):
        lines[1:] = [line.split(",")[0] + ",0" for line in lines[1:-1]]

    path = write_lines(tmp_path / "a.csv", livelink.from_motion(motion(20), fps=60), change)
    with pytest.raises(InputError, match="no face was tracked in any of its 20 rows"):
        curve_reader.read(path)
