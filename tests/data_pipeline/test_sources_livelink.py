"""Live Link Face recordings: what the phone writes, and what becomes of it on disks."""

import json
import re
import struct
from fractions import Fraction

import numpy as np
import pytest
import soundfile

from a2fjax import rig
from a2fjax.animation import livelink
from a2fjax.audio import SAMPLE_RATE, io
from a2fjax.errors import InputError
from data_pipeline import sources
from data_pipeline.sources import SourceOptions

PLAIN = SourceOptions()
SILENT = SourceOptions(missing_audio="silence")
START = "18:43:58:59.723"
START_S = 18 * 3600 + 43 * 60 + 58 + 59.723 / 60


def motion(frames=120, seed=0):
    values = np.random.default_rng(seed).uniform(0, 1, (frames, 72)).astype(np.float32)
    values[:, rig.ANGLE_CHANNELS] = values[:, rig.ANGLE_CHANNELS] * 40 - 20
    return values


def recording(folder, base, kinds=("",), seed=0, start=START, frames=120, fps="59.94"):
    folder.mkdir(parents=True, exist_ok=True)
    for n, kind in enumerate(kinds):
        table = livelink.from_motion(motion(frames, seed + n), fps=fps, start=start)
        livelink.write(folder / f"{base}{kind}.csv", table)


def wav(path, seconds=2.0, since_midnight=None, rate=48_000):
    path.parent.mkdir(parents=True, exist_ok=True)
    soundfile.write(path, 0.1 * np.sin(np.arange(int(seconds * rate))), rate, "PCM_16")
    if since_midnight is not None:
        data = path.read_bytes()
        body = b"\0" * 338 + struct.pack("<QH", round(since_midnight * rate), 1) + b"\0" * 254
        whole = data[:12] + b"bext" + struct.pack("<I", len(body)) + body + data[12:]
        path.write_bytes(whole[:4] + struct.pack("<I", len(whole) - 8) + whole[8:])


def film(path, seconds=2.0, timecode="", frame_rate=60, sound=True):
    av = pytest.importorskip("av")
    path.parent.mkdir(parents=True, exist_ok=True)
    rate = 44_100
    with av.open(str(path), "w") as out:
        video = out.add_stream("mpeg4", rate=frame_rate)
        video.width = video.height = 32
        if timecode:
            video.metadata["timecode"] = timecode
        track = None
        if sound:
            track = out.add_stream("aac", rate=rate)
            track.layout = "mono"
        for packet in [*video.encode(av.VideoFrame(32, 32, "yuv420p")), *video.encode()]:
            out.mux(packet)
        if track is not None:
            wave = 0.1 * np.sin(np.arange(int(seconds * rate)))[None].astype(np.float32)
            for i in range(0, wave.shape[1], 1024):
                block = np.ascontiguousarray(wave[:, i : i + 1024])
                frame = av.AudioFrame.from_ndarray(block, "fltp", "mono")
                frame.sample_rate, frame.pts, frame.time_base = rate, i, Fraction(1, rate)
                for packet in track.encode(frame):
                    out.mux(packet)
            for packet in track.encode():
                out.mux(packet)


def take_json(folder, slate, take, subject, calibrated):
    """The keys that the app writes."""
    data = {
        "frames": 120,
        "appVersion": "v1.3.0 (build 90)",
        "slate": slate,
        "calibrated": calibrated,
        "subject": subject,
        "identifier": f"20240506_{slate}_{take}",
        "date": "2024-05-06T11:31:46Z",
        "version": 1,
        "take": take,
        "deviceModel": "iPhone13,3",
    }
    (folder / "take.json").write_text(json.dumps(data))


def only(path, options=PLAIN):
    source, _ = sources.open_source(path, "auto", options)
    (actor,) = source.actors()
    return source, actor


def test_a_folder_a_take_as_the_app_writes_it(tmp_path):
    for take in (7, 8):
        folder = tmp_path / "ann" / f"20240506_MySlate_{take}"
        recording(folder, f"MySlate_{take}_iPhone", ("_cal", "_raw", "_neutral"), seed=take)
        film(folder / f"MySlate_{take}_iPhone.mov", timecode="18:43:58:30")
        take_json(folder, "MySlate", take, "iPhone", True)
        (folder / "frame_log.csv").write_text("V,0,12,600,18:43:58:30.500,0\nA,0,12,600,1:2:3:4\n")
        (folder / "thumbnail.jpg").write_bytes(b"\xff\xd8")
    source, why = sources.open_source(tmp_path, "auto", PLAIN)
    assert (source.layout, why) == ("livelink", "2 Live Link Face recordings")
    (actor,) = source.actors()
    assert actor.name == "ann" and not actor.rejected
    assert [t.name for t in actor.takes] == ["MySlate_7_iPhone", "MySlate_8_iPhone"]
    take = actor.takes[0]
    assert take.audio.name == "MySlate_7_iPhone.mov" and len(io.load(take.audio)) == 2 * SAMPLE_RATE
    # The log has fractions of a frame, the film's own timecode has not.
    assert take.offset == pytest.approx(START_S - (START_S // 1 + 30.5 / 60), abs=1e-3)
    assert take.sentence != actor.takes[1].sentence
    capture = source.capture(take)
    kept = capture.observed
    assert kept.sum() == 56 and not kept[52:68].any()
    np.testing.assert_allclose(capture.curves[:, kept], motion(seed=7)[:, kept], atol=1e-5)
    np.testing.assert_allclose(capture.times, np.arange(120) * 1001 / 60000, atol=2e-5)
    assert capture.notes == (
        "calibrated weights (MySlate_7_iPhone_cal.csv is taken before MySlate_7_iPhone_raw.csv)",
    )


@pytest.mark.parametrize(
    ("kinds", "read", "note"),
    [
        (("",), 0, "uncalibrated weights"),
        (("_raw",), 0, "uncalibrated weights"),
        (("_cal",), 0, "calibrated weights"),
        (("", "_cal"), 1, "calibrated weights (a_1_Ann_cal.csv is taken before a_1_Ann.csv)"),
        (("_neutral", "_raw"), 1, "uncalibrated weights"),
    ],
)
def test_calibrated_before_raw_and_never_the_neutral_pose(tmp_path, kinds, read, note):
    recording(tmp_path, "a_1_Ann", kinds)
    source, actor = only(tmp_path, SILENT)
    assert (actor.name, len(actor.takes)) == ("Ann", 1)
    capture = source.capture(actor.takes[0])
    jaw = rig.INDEX["jawOpen"]
    np.testing.assert_allclose(capture.curves[:, jaw], motion(seed=read)[:, jaw], atol=1e-6)
    assert capture.notes == (note,)


def test_people_are_folders_or_named_devices_and_can_be_given(tmp_path):
    recording(tmp_path / "a" / "flat", "MySlate_1_iPhone")
    assert only(tmp_path / "a" / "flat", SILENT)[1].name == "flat"
    assert only(tmp_path / "a", SILENT)[1].name == "flat"
    named = SourceOptions(missing_audio="silence", subject="Mia")
    assert only(tmp_path / "a" / "flat", named)[1].name == "Mia"
    folder = tmp_path / "b" / "20240506_line_3"
    recording(folder, "line_3_Björn Å")
    assert only(tmp_path / "b", SILENT)[1].name == "Björn Å"
    take_json(folder, "line", 3, "Astrid", False)
    assert only(tmp_path / "b", SILENT)[1].name == "Astrid"
    assert only(folder, SILENT)[1].name == "Astrid"
    # As the phone's own export folds it.
    export = tmp_path / "c" / "LiveLinkFace_20240506_MySlate_1_iPhone" / "20240506_MySlate_1"
    recording(export, "MySlate_1_iPhone")
    assert only(tmp_path / "c", SILENT)[1].name == "c"
    two = tmp_path / "d"
    recording(two / "x", "s_1_iPhone")
    recording(two / "y", "s_1_iPhone")
    source, _ = sources.open_source(two, "auto", SILENT)
    assert [a.name for a in source.actors()] == ["x", "y"]


def test_takes_of_one_name_on_two_days_are_told_apart(tmp_path):
    for day in ("20240506", "20240507"):
        recording(tmp_path / f"{day}_hello_1", "hello_1_iPhone")
    _, actor = only(tmp_path, SILENT)
    assert [t.name for t in actor.takes] == [
        "20240506_hello_1_hello_1_iPhone",
        "20240507_hello_1_hello_1_iPhone",
    ]
    # A slate that someone named is a line; its takes never cross splits.
    assert {t.sentence for t in actor.takes} == {"hello"}


def test_names_and_shot_lists_say_emotion_sentence_and_language(tmp_path):
    recording(tmp_path, "cp1_joy_3_iPhone")
    recording(tmp_path, "cp1_4_iPhone")
    recording(tmp_path, "slate_1_Joyce")
    (tmp_path / "shots.json").write_text(
        json.dumps({"shots": {"cp1_4_iPhone": {"emotion": "sad", "language": "zh", "text": "x"}}})
    )
    options = SourceOptions(
        missing_audio="silence", emotion="angry=0.5", language="en", subject="Mia"
    )
    _, actor = only(tmp_path, options)
    four, joy, slate = actor.takes
    assert actor.files == (tmp_path / "shots.json",)
    np.testing.assert_allclose(joy.emotion, [0, 1, 0, 0, 0])
    np.testing.assert_allclose(four.emotion, [0, 0, 0, 1, 0])
    np.testing.assert_allclose(slate.emotion, [0.5, 0, 0.5, 0, 0])
    assert (joy.sentence, four.sentence) == ("cp1", "cp1")
    assert (four.language, four.text, joy.language) == ("zh", "x", "en")
    assert slate.slate and not joy.slate


@pytest.mark.parametrize("name", ["a_1_Ann.wav", "a_1_Ann_cal.wav", "a_1.flac", "A_1_ANN.WAV"])
def test_sound_beside_a_recording_comes_before_its_film(tmp_path, name):
    recording(tmp_path, "a_1_Ann", ("_cal",))
    film(tmp_path / "a_1_Ann.mov")
    wav(tmp_path / name)
    _, actor = only(tmp_path)
    assert actor.takes[0].audio.name == name and actor.takes[0].offset is None


def test_sound_of_any_name_in_a_takes_own_folder(tmp_path):
    folder = tmp_path / "20240506_a_1"
    recording(folder, "a_1_Ann", ("_cal",))
    wav(folder / "ZOOM0001.WAV")
    assert only(tmp_path)[1].takes[0].audio.name == "ZOOM0001.WAV"
    wav(folder / "ZOOM0002.WAV")
    assert not only(tmp_path)[1].takes


def test_without_sound_the_option_is_named(tmp_path):
    recording(tmp_path, "a_1_Ann")
    _, actor = only(tmp_path)
    ((name, reason),) = actor.rejected
    assert name == "a_1_Ann" and "--config.missing_audio=silence" in reason and not actor.takes
    film(tmp_path / "a_1_Ann.mov", sound=False)
    _, actor = only(tmp_path)
    assert "has no audio track" in actor.rejected[0][1]
    _, actor = only(tmp_path, SILENT)
    assert actor.takes[0].audio is None and actor.takes[0].offset is None


@pytest.mark.parametrize("lead", [-1.5, -0.04, 0.0, 0.25, 1.2])
def test_offsets_from_the_sounds_own_start(tmp_path, lead):
    """Sound that starts `lead` s before the capture: capture time 0 is audio time `lead`."""
    recording(tmp_path, "a_1_Ann")
    wav(tmp_path / "a_1_Ann.wav", since_midnight=START_S - lead)
    offset = only(tmp_path)[1].takes[0].offset
    assert offset == pytest.approx(lead, abs=2e-5)


def test_offsets_cross_midnight(tmp_path):
    recording(tmp_path, "a_1_Ann", start="00:00:00:12.000")
    wav(tmp_path / "a_1_Ann.wav", since_midnight=86400 - 0.5)
    assert only(tmp_path)[1].takes[0].offset == pytest.approx(0.7, abs=1e-4)


def sync_box(path, count=900):
    """Rows with the whole numbers of 29.97 frames a second, without drop-frame numbering."""
    recording(path.parent, path.stem, fps="30", start="10:00:00:00.000", frames=count)


def test_numbers_of_2997_frames_lag_behind_the_day_of_a_recorder(tmp_path):
    """At ten o'clock by the numbers it is 36 s past ten."""
    sync_box(tmp_path / "a_1_Ann.csv", 2400)
    wav(tmp_path / "a_1_Ann.wav", seconds=85.0, since_midnight=36_036.0 - 0.25, rate=8000)
    assert only(tmp_path)[1].takes[0].offset == pytest.approx(0.25, abs=1e-3)
    wav(tmp_path / "a_1_Ann.wav", seconds=85.0, since_midnight=36_000.0 - 0.25, rate=8000)
    assert only(tmp_path)[1].takes[0].offset == pytest.approx(0.25, abs=1e-3)


def test_drop_frame_numbers_keep_step_with_the_day_of_a_recorder(tmp_path):
    sync_box(tmp_path / "a_1_Ann.csv")
    path = tmp_path / "a_1_Ann.csv"
    path.write_text(re.sub(r"(?m)^(\d\d:\d\d:\d\d):", r"\1;", path.read_text()))
    wav(tmp_path / "a_1_Ann.wav", seconds=31.0, since_midnight=36_000.0 - 0.25)
    source, actor = only(tmp_path)
    assert actor.takes[0].offset == pytest.approx(0.25 - 0.036, abs=1e-3)
    np.testing.assert_allclose(
        source.capture(actor.takes[0]).times, np.arange(900) * 1001 / 30000, atol=1e-6
    )


def test_clocks_that_were_never_set_together_say_nothing(tmp_path):
    recording(tmp_path, "a_1_Ann")
    wav(tmp_path / "a_1_Ann.wav", since_midnight=START_S - 3600)
    assert only(tmp_path)[1].takes[0].offset is None


def test_offsets_from_a_films_timecode(tmp_path):
    recording(tmp_path, "a_1_Ann")
    film(tmp_path / "a_1_Ann.mov", timecode="18:43:58:30")
    offset = only(tmp_path)[1].takes[0].offset
    assert offset == pytest.approx(START_S - (START_S // 1 + 0.5), abs=1e-4)


def test_rows_left_out_are_noted_and_leave_a_hole(tmp_path):
    recording(tmp_path, "a_1_Ann", fps="60", start="10:00:00:00.000")
    path = tmp_path / "a_1_Ann.csv"
    lines = path.read_text().split("\n")
    lines[51] = lines[50]
    lines[71] = lines[71].split(",")[0] + ",0"
    path.write_text("\n".join(lines))
    source, actor = only(tmp_path, SILENT)
    capture = source.capture(actor.takes[0])
    lost = np.isnan(capture.curves).all(axis=1)
    assert (len(lost), lost.sum()) == (119, 1) and np.isfinite(capture.curves[~lost]).all()
    np.testing.assert_allclose(capture.times[lost] * 60, 70, atol=2e-3)
    np.testing.assert_allclose(np.sort(np.diff(capture.times))[-2:] * 60, [1, 2], atol=2e-3)
    assert capture.notes[1:] == (
        "1 of 120 rows out of order in time left out, the first in line 51",
        "1 of 120 rows without a tracked face",
    )


def damage(data, rng):
    lines = data.split(b"\n")
    kind = int(rng.integers(0, 7))
    row = int(rng.integers(1, len(lines) - 1))
    if kind == 0:
        return data[: int(rng.integers(0, len(data)))]
    if kind == 1:
        return b""
    if kind == 2:
        lines[row] = lines[row].replace(b",", b",nan,", 1)
    elif kind == 3:
        cells = lines[row].split(b",")
        cells[int(rng.integers(0, len(cells)))] = [b"nan", b"inf", b"x", b"", b"1e999"][row % 5]
        lines[row] = b",".join(cells)
    elif kind == 4:
        lines[0] = lines[0].replace(b"JawOpen", b"JawOpne")
    elif kind == 5:
        return data.replace(b",", b";")
    else:
        at = int(rng.integers(0, len(data) - 8))
        return data[:at] + rng.bytes(8) + data[at + 8 :]
    return b"\n".join(lines)


def test_damaged_recordings_are_named_and_the_others_survive(tmp_path):
    recording(tmp_path, "好_1_iPhone", frames=20)
    recording(tmp_path, "b_2_iPhone", frames=20)
    path = tmp_path / "好_1_iPhone.csv"
    whole = path.read_bytes()
    rng = np.random.default_rng(4)
    refused = 0
    for _ in range(150):
        path.write_bytes(damage(whole, rng))
        source, actor = only(tmp_path, SILENT)
        takes = {t.name: t for t in actor.takes}
        assert "b_2_iPhone" in takes and len(takes) + len(actor.rejected) == 2
        assert len(source.capture(takes["b_2_iPhone"]).times) == 20
        for _, reason in actor.rejected:
            refused += 1
            assert "\n" not in reason and "好_1_iPhone.csv" in reason
        if "好_1_iPhone" in takes:
            try:
                found = source.capture(takes["好_1_iPhone"])
                whole_rows = np.isfinite(found.curves).all(axis=1)
                assert whole_rows.any() and (np.diff(found.times) > 0).all()
                assert whole_rows.all() or any("rows with" in n for n in found.notes)
            except InputError as error:
                refused += 1
                assert "\n" not in str(error) and "好_1_iPhone.csv" in str(error)
    assert refused > 30


@pytest.mark.parametrize("change", ["bom", "crlf", "one row", "header"])
def test_other_forms_of_the_file(tmp_path, change):
    recording(tmp_path, "a_1_Ann", frames=5)
    path = tmp_path / "a_1_Ann.csv"
    text = path.read_text()
    if change == "bom":
        path.write_bytes(b"\xef\xbb\xbf" + text.encode())
    elif change == "crlf":
        path.write_bytes(text.replace("\n", "\r\n").encode())
    else:
        path.write_text("\n".join(text.split("\n")[: 2 if change == "one row" else 1]) + "\n")
    source, actor = only(tmp_path, SILENT)
    if change == "header":
        assert "a header but no frames" in actor.rejected[0][1]
    else:
        assert len(source.capture(actor.takes[0]).times) == (1 if change == "one row" else 5)


def test_damaged_neighbours_of_a_recording_do_not_matter(tmp_path):
    folder = tmp_path / "20240506_a_1"
    recording(folder, "a_1_Ann")
    (folder / "take.json").write_text("{")
    (folder / "frame_log.csv").write_bytes(b"\xff\xfeV,0")
    (folder / "a_1_Ann.mov").write_bytes(b"\0\0\0\x14ftypqt  ")
    _, actor = only(tmp_path)
    assert actor.name == "Ann" and actor.takes[0].offset is None
    with pytest.raises(InputError, match="a_1_Ann.mov"):
        io.load(actor.takes[0].audio)


def test_a_rate_that_is_given_replaces_timecodes(tmp_path):
    recording(tmp_path, "a_1_Ann", fps="59.94")
    options = SourceOptions(missing_audio="silence", fps=29.97)
    source, actor = only(tmp_path, options)
    times = source.capture(actor.takes[0]).times
    np.testing.assert_allclose(times, np.arange(120) * 1001 / 30000)
    path = tmp_path / "a_1_Ann.csv"
    lines = path.read_text().split("\n")
    path.write_text("\n".join(lines[:30] + lines[33:]))  # rows that are missing stay missing
    times = source.capture(actor.takes[0]).times
    np.testing.assert_allclose(times, np.delete(np.arange(120), [29, 30, 31]) * 1001 / 30000)


def test_no_recordings_is_one_line(tmp_path):
    (tmp_path / "a.csv").write_text("time,jawOpen\n0,0\n")
    with pytest.raises(InputError, match="no Live Link Face CSV"):
        sources.open_source(tmp_path, "livelink", PLAIN)


def test_six_real_recordings_become_takes(shared):
    source, actor = only(shared / "livelink", SILENT)
    assert source.layout == "livelink" and len(actor.takes) == 6 and not actor.rejected
    for take in actor.takes:
        capture = source.capture(take)
        assert capture.observed.sum() == 56 and capture.notes == ("calibrated weights",)
        assert 30 < capture.times[-1] < 32 and len(capture.times) > 1800
    assert len({t.sentence for t in actor.takes}) == 6
    refused = only(shared / "livelink")[1].rejected
    assert len(refused) == 6 and all("missing_audio=silence" in reason for _, reason in refused)
