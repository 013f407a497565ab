"""Named curves as CSV, JSON and npz: any order, any rate, and one line for what is wrong."""

import json

import numpy as np
import pytest
import soundfile

from a2fjax import rig
from a2fjax.animation import formats
from a2fjax.errors import InputError
from data_pipeline import sources
from data_pipeline.sources import SourceOptions, curves

PLAIN = SourceOptions()
NAMES = ["mouthSmile_L", "JAWOPEN", "EyeBlinkRight", "mouthClose"]
CHANNELS = ["mouthSmileLeft", "jawOpen", "eyeBlinkRight", "mouthClose"]
COLUMNS = [rig.INDEX[c] for c in CHANNELS]


def drawn(frames=40, columns=4, seed=0):
    return np.random.default_rng(seed).uniform(0, 1, (frames, columns)).round(6)


def sound(path, seconds=1.0):
    soundfile.write(path, 0.1 * np.ones(int(16_000 * seconds)), 16_000)


def csv_text(values, names=NAMES, first=None, label="time", mark=",", newline="\n", decimal="."):
    head = list(names) if first is None else [*names[:2], label, *names[2:]]
    rows = [mark.join(head)]
    for n, row in enumerate(values):
        cells = [f"{v:.6f}".replace(".", decimal) for v in row]
        if first is not None:
            cells.insert(2, str(first[n]))
        rows.append(mark.join(cells))
    return newline.join(rows) + newline


def check(found, values, rate):
    np.testing.assert_allclose(found.curves[:, COLUMNS], values, atol=1e-6)
    assert found.observed.sum() == 4 and found.observed[COLUMNS].all()
    np.testing.assert_allclose(found.times, np.arange(len(values)) / rate, atol=1e-6)


@pytest.mark.parametrize(
    ("said", "rate"),
    [
        *((r, r) for r in (24, 25, 30, 48, 60, 120)),
        (23.976, 24000 / 1001),
        (29.97, 30000 / 1001),
        (59.94, 60000 / 1001),
    ],
)
def test_every_rate_in_every_form(tmp_path, said, rate):
    values = drawn(round(rate) * 3)
    times = np.arange(len(values)) / rate
    (tmp_path / "a.csv").write_text(csv_text(values))
    check(curves.read_curves(tmp_path / "a.csv", SourceOptions(fps=said)), values, rate)
    check(curves.read_curves(tmp_path / "a.csv", otherwise=said), values, rate)
    (tmp_path / "a.csv").write_text(csv_text(values, first=times))
    check(curves.read_curves(tmp_path / "a.csv"), values, rate)
    (tmp_path / "a.csv").write_text(csv_text(values, first=times * 1000, label="Timestamp_ms"))
    check(curves.read_curves(tmp_path / "a.csv"), values, rate)
    (tmp_path / "a.csv").write_text(csv_text(values, first=range(len(values)), label="Frame"))
    check(curves.read_curves(tmp_path / "a.csv", SourceOptions(fps=said)), values, rate)
    for data in (
        {"names": NAMES, "fps": said, "frames": values.tolist()},
        {"weights": values.tolist(), "fps": said, "names": NAMES},
        {"facsNames": NAMES, "exportFps": said, "weightMat": values.tolist(), "numPoses": 4},
        {"fps": said, "frames": [dict(zip(NAMES, r, strict=True)) for r in values.tolist()]},
        [
            {"timeCode": t, "blendShapes": dict(zip(NAMES, r, strict=True))}
            for t, r in zip(times, values.tolist(), strict=True)
        ],
        [
            {"time": t, **dict(zip(NAMES, r, strict=True))}
            for t, r in zip(times, values.tolist(), strict=True)
        ],
    ):
        (tmp_path / "a.json").write_text(json.dumps(data))
        check(curves.read_curves(tmp_path / "a.json"), values, rate)
    np.savez(tmp_path / "a.npz", motion=values, names=NAMES, fps=said)
    check(curves.read_curves(tmp_path / "a.npz"), values, rate)


@pytest.mark.parametrize("ending", [".json", ".npz", ".channels.csv", ".csv"])
def test_what_inference_writes_is_read_back(tmp_path, ending):
    motion = np.random.default_rng(1).uniform(0, 1, (75, 72)).astype(np.float32)
    motion[:, rig.ANGLE_CHANNELS] = motion[:, rig.ANGLE_CHANNELS] * 40 - 20
    path = tmp_path / f"take{ending}"
    formats.write(path, motion, fps="29.97")
    sound(tmp_path / "take.wav", 3)
    (actor,) = sources.open_source(tmp_path, "table", PLAIN)[0].actors()
    assert [t.name for t in actor.takes] == ["take"]
    found = sources.open_source(tmp_path, "table", PLAIN)[0].capture(actor.takes[0])
    kept = found.observed
    assert kept.sum() == (56 if ending == ".csv" else 72)
    np.testing.assert_allclose(found.curves[:, kept], motion[:, kept], atol=1e-4)
    np.testing.assert_allclose(found.times, np.arange(75) * 1001 / 30000, atol=2e-5)


@pytest.mark.parametrize(
    "form",
    [
        dict(mark=";"),
        dict(mark=";", decimal=","),
        dict(mark="\t", newline="\r\n"),
        dict(newline="\r\n"),
    ],
)
@pytest.mark.parametrize("mark", ["", "\ufeff"])
def test_spreadsheets_habits_change_nothing(tmp_path, form, mark):
    values = drawn()
    (tmp_path / "ä b.csv").write_text(mark + csv_text(values, **form), encoding="utf-8", newline="")
    check(curves.read_curves(tmp_path / "ä b.csv", SourceOptions(fps=60)), values, 60)


def test_timecodes_and_holes(tmp_path):
    path = tmp_path / "a.csv"
    values = drawn(3)
    codes = ["23:59:59:58.500", "23:59:59:59.500", "00:00:00:00.500"]
    path.write_text(csv_text(values, first=codes, label="Timecode"))
    np.testing.assert_allclose(curves.read_curves(path).times * 60, [0, 1, 2], atol=1e-6)
    path.write_text(csv_text(values, first=[10, 11, 15], label="frame"))
    np.testing.assert_allclose(
        curves.read_curves(path, SourceOptions(fps=30)).times * 30, [10, 11, 15]
    )
    numbers = [0, 1, 2, 3, 5, 6]  # a row is missing: a given rate keeps its gap
    codes = [f"10:00:00:{n:02d}.000" for n in numbers]
    path.write_text(csv_text(drawn(6), first=codes, label="Timecode"))
    times = curves.read_curves(path, SourceOptions(fps=30)).times
    np.testing.assert_allclose(times * 30, numbers, atol=1e-6)


def test_trackers_columns_that_are_no_channel_are_left_out(tmp_path):
    path = tmp_path / "a.csv"
    extra = ["_neutral", "HeadYaw", "LeftEyeRoll", "PupilDilate_L"]
    path.write_text(csv_text(np.hstack([drawn(), drawn(seed=1)]), names=NAMES + extra))
    check(curves.read_curves(path, SourceOptions(fps=60)), drawn(), 60)


def test_eye_angles_are_degrees_unless_live_link_names_them(tmp_path):
    path = tmp_path / "a.csv"
    path.write_text("leftEyeRotY,rightEyeRotX,jawOpen\n10,-5,0.5\n12,-6,0.4\n")
    found = curves.read_curves(path, SourceOptions(fps=60))
    assert found.curves[1, rig.INDEX["leftEyeRotY"]] == 12
    path.write_text("LeftEyeYaw,jawOpen\n0.1,0.5\n")
    angle = curves.read_curves(path, SourceOptions(fps=60)).curves[0, rig.INDEX["leftEyeRotY"]]
    assert angle == pytest.approx(-np.degrees(0.1), rel=1e-5)


BAD = [
    ("a.csv", "", "is empty"),
    ("a.csv", "jawOpen,mouthClose\n", "a header but no frames"),
    ("a.csv", "jawOpen,mouthClose,cheekPuff\n0.1,1\n", ":2: 2 values, expected 3"),
    ("a.csv", "jawOpen,mouthClose\n,nan\n", "no face was tracked in any of its 1 rows"),
    ("a.csv", "jawOpen,mouthClose\n0.1,0.2\n0.1,inf\n", ":3: mouthClose is 'inf'"),
    ("a.csv", "jawOpne,mouthClose\n0.1,0.2\n", "unknown channel.*did you mean 'jawOpen'|jawOpen"),
    ("a.csv", "jawOpen,JawOpen\n0.1,0.2\n", "appears twice"),
    ("a.csv", "HeadYaw,HeadRoll\n0.1,0.2\n", "holds no channel"),
    (
        "a.csv",
        "jawOpen,mouthClose\n0.5,0.2\n55,0.2\n0.1,0.9\n",
        "jawOpen is 55.*percent, give --config.columns.units=percent",
    ),
    (
        "a.csv",
        "jawOpen,mouthClose\n0.2,-9\n0.1,0.1\n0.1,0.1\n",
        "mouthClose is -9, expected weights from 0 to 1$",
    ),
    (
        "a.csv",
        "time,jawOpen\n0,0.1\n0.1,0.2\n0.1,0.3\n",
        "times do not increase, here and in 1 of 3",
    ),
    ("a.csv", "time,jawOpen\n0,0.1\n16.6,0.2\n33.3,0.3\n", "frames a second.*in seconds"),
    ("a.csv", "timecode,jawOpen\n10:00:00:00,0.1\n10:00:61:00,0.1\n", ":3: timecode"),
    ("a.json", "", "not JSON"),
    ("a.json", "3", "expected an object"),
    ("a.json", "[" * 100_000, "nesting"),
    ("a.json", "[]", "no frames"),
    ("a.json", "{}", "holds nothing; expected names"),
    ("a.json", '{"names": ["jawOpen"], "frames": []}', "no frames"),
    (
        "a.json",
        '{"names": ["jawOpen"], "frames": [[0.1, 0.2]]}',
        "0 has 2 values, expected 1",
    ),
    ("a.json", '{"names": ["jawOpen"], "frames": [0.1]}', "frame 0 is not an object"),
    ("a.json", '{"names": ["jawOpen"], "frames": [["x"]]}', "frame 0: jawOpen is 'x'"),
    ("a.json", '{"names": ["jawOpen"], "frames": [[NaN]]}', "no face was tracked"),
    ("a.json", '{"names": ["jawOpen"], "frames": [[1e999]]}', "frame 0: jawOpen is 'inf'"),
    ("a.json", '{"names": ["jawOpen"], "fps": 0, "frames": [[0.1]]}', "fps is '0'"),
    ("a.json", '{"names": ["jawOpen"], "fps": "fast", "frames": [[0.1]]}', "fps is 'fast'"),
    ("a.json", '{"names": ["jawOpen"], "frames": [[0.1]], "times": [0, 1]}', "times has 2 values"),
    ("a.json", '[{"jawOpen": 0.1}, 4]', "frame 1 is not an object"),
    ("a.json", '[{"jawOpen": null}]', "no face was tracked"),
]


@pytest.mark.parametrize(("name", "text", "message"), BAD)
def test_what_is_wrong_is_one_line(tmp_path, name, text, message):
    (tmp_path / name).write_text(text)
    with pytest.raises(InputError, match=message) as error:
        curves.read_curves(tmp_path / name, otherwise=60)
    assert "\n" not in str(error.value) and str(tmp_path / name) in str(error.value)


def test_no_rate_is_refused_with_the_option(tmp_path):
    (tmp_path / "a.csv").write_text("jawOpen\n0.1\n")
    with pytest.raises(InputError, match="give --config.fps"):
        curves.read_curves(tmp_path / "a.csv")


def test_pickles_are_refused(tmp_path):
    np.savez(tmp_path / "a.npz", motion=np.array([[{}]], object), names=["jawOpen"], fps=60)
    with pytest.raises(InputError, match="pickled objects, which are refused"):
        curves.read_curves(tmp_path / "a.npz")


@pytest.mark.parametrize("ending", [".csv", ".json", ".npz"])
def test_damaged_bytes_are_one_line_or_curves(tmp_path, ending):
    path = tmp_path / f"täke{ending}"
    values = drawn(12)
    if ending == ".csv":
        path.write_text(csv_text(values, first=np.arange(12) / 60))
    elif ending == ".json":
        path.write_text(json.dumps({"names": NAMES, "fps": 60, "frames": values.tolist()}))
    else:
        np.savez(path, motion=values, names=NAMES, fps=60.0, text="hello")
    whole = path.read_bytes()
    rng = np.random.default_rng(3)
    refused = 0
    for n in range(200):
        damaged = bytearray(whole)
        if n % 2:
            damaged = damaged[: int(rng.integers(0, len(whole)))]
        else:
            at = int(rng.integers(0, len(whole) - 4))
            damaged[at : at + 4] = rng.bytes(4)
        path.write_bytes(damaged)
        for read in (curves.read_metadata, curves.read_curves):
            try:
                found = read(path)
                if read is curves.read_curves:
                    whole = np.isfinite(found.curves).all(axis=1)
                    assert whole.any() and (np.diff(found.times) > 0).all()
            except InputError as error:
                refused += 1
                assert "\n" not in str(error) and path.name in str(error)
    assert refused > 50


def test_takes_survive_a_bad_neighbour_and_shot_lists_are_read(tmp_path):
    folder = tmp_path / "set" / "josé"
    folder.mkdir(parents=True)
    for stem in ("a", "b_joy", "c", "slate"):
        sound(folder / f"{stem}.wav")
    (folder / "a.csv").write_text(csv_text(drawn()))
    (folder / "b_joy.json").write_text(json.dumps({"names": NAMES, "frames": drawn().tolist()}))
    np.savez(folder / "b_joy.npz", motion=drawn(seed=5), names=NAMES, fps=60)
    (folder / "c.csv").write_text("jawOpen\nwide\n")
    (folder / "slate.csv").write_text(csv_text(drawn()))
    (folder / "silent.csv").write_text(csv_text(drawn()))
    (folder / "script.csv").write_text("scene,line\n1,hello\n")
    (folder / "map.json").write_text('{"jawOpen": ["a", "b"]}')
    (folder / "shots.json").write_text(
        json.dumps({"fps": 25, "shots": {"a": {"sentence": "hi", "emotion": {"sad": 0.5}}}})
    )
    source, why = sources.open_source(tmp_path / "set", "auto", PLAIN)
    assert (source.layout, why) == (
        "table",
        "4 .npz or .csv beside sound files of the same name",
    )
    (actor,) = source.actors()
    assert actor.name == "josé" and actor.files == (folder / "shots.json",)
    takes = {t.name: t for t in actor.takes}
    assert list(takes) == ["a", "b_joy", "c", "slate"]
    assert takes["slate"].slate and not takes["a"].slate
    assert (takes["a"].sentence, takes["b_joy"].sentence) == ("hi", "b")
    np.testing.assert_allclose(takes["a"].emotion, [0.5, 0, 0, 0.5, 0])
    np.testing.assert_allclose(takes["b_joy"].emotion, [0, 1, 0, 0, 0])
    ((name, reason),) = actor.rejected
    assert name == "silent" and "--config.missing_audio=silence" in reason
    check(source.capture(takes["a"]), drawn(), 25)
    both = source.capture(takes["b_joy"])
    check(both, drawn(seed=5), 60)
    assert both.notes == ("b_joy.npz is taken before b_joy.json",)
    with pytest.raises(InputError, match="c.csv:2: jawOpen is 'wide'"):
        source.capture(takes["c"])
    silent, _ = sources.open_source(
        tmp_path / "set", "table", SourceOptions(missing_audio="silence", emotion="happy=0.4")
    )
    take = next(t for t in silent.actors()[0].takes if t.name == "silent")
    assert take.audio is None
    np.testing.assert_allclose(take.emotion, [0.6, 0.4, 0, 0, 0])


def test_one_row_is_a_capture(tmp_path):
    (tmp_path / "a.csv").write_text("jawOpen\n0.5\n")
    assert curves.read_curves(tmp_path / "a.csv", SourceOptions(fps=60)).times.tolist() == [0.0]


def test_frames_without_a_face_are_in_the_capture_as_nan(tmp_path):
    values = drawn()
    text = csv_text(values, first=np.arange(40) / 60 + 3).splitlines()
    for n in (1, 2, 21):
        text[n] = ",,{},,".format(text[n].split(",")[2])
    (tmp_path / "a.csv").write_text("\n".join(text))
    found = curves.read_curves(tmp_path / "a.csv")
    np.testing.assert_allclose(found.times, np.arange(40) / 60 + 3, atol=1e-6)
    assert np.flatnonzero(np.isnan(found.curves).all(axis=1)).tolist() == [0, 1, 20]
    assert found.notes == ("3 of 40 rows without a tracked face",)
    found = curves.read_curves(tmp_path / "a.csv", SourceOptions(fps=30))
    np.testing.assert_allclose(found.times * 30, np.arange(40), atol=1e-6)
