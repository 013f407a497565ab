"""Curve files of any tool: every spelling of names, values, times and lost faces, in every form."""

import json
import unicodedata

import numpy as np
import pytest

from a2fjax import rig
from a2fjax.animation import curve_reader, formats, livelink, row_times
from a2fjax.animation.columns import ColumnSettings, Resolver
from a2fjax.errors import InputError

FRAMES, RATE = 30, 30.0
NAMES = [n for n in rig.ARKIT if n != "tongueOut"]
COLUMNS = [rig.INDEX[n] for n in NAMES]
VALUES = np.random.default_rng(0).uniform(0.05, 0.95, (FRAMES, len(NAMES))).round(4)
TIMES = (np.arange(FRAMES) / RATE).round(6)
LOST = (7, 8, 20)


def snake(name):
    return "".join(f"_{c.lower()}" if c.isupper() else c for c in name)


def sided(name):
    both = name not in ("jawLeft", "jawRight", "mouthLeft", "mouthRight")
    return name.replace("Left", "_L").replace("Right", "_R") if both else name


def categories(row, names=NAMES, key="categoryName"):
    neutral = [{"index": 0, "score": 1e-6, key: "_neutral", "displayName": ""}]
    return neutral + [
        {"index": i + 1, "score": v, key: n, "displayName": ""}
        for i, (n, v) in enumerate(zip(names, row, strict=True))
    ]


def named(row, spell=str):
    return {spell(n): v for n, v in zip(NAMES, row, strict=True)}


def beat(rows):
    frames = [
        {"weights": [] if r is None else r, "time": t, "rotation": [0.0, 0.1, 0.2]}
        for r, t in zip(rows, TIMES.tolist(), strict=True)
    ]
    return {"names": NAMES, "frames": frames}


def lam(rows):
    frames = [
        {"weights": r, "time": t, "rotation": []} for r, t in zip(rows, TIMES.tolist(), strict=True)
    ]
    meta = {"fps": RATE, "frame_count": FRAMES, "blendshape_names": NAMES}
    return {"names": NAMES, "metadata": meta, "frames": frames}


def mediapipe_flat(rows):
    return [
        {"timestamp_ms": t * 1000, "blendshapes": [] if r is None else categories(r)}
        for r, t in zip(rows, TIMES.tolist(), strict=True)
    ]


def mediapipe_python(rows):
    return [
        {
            "timestamp_ms": t * 1000,
            "face_landmarks": [[{"x": 0.1, "y": 0.2, "z": 0.3, "visibility": 0.0}] * 3],
            "face_blendshapes": [] if r is None else [categories(r, key="category_name")],
            "facial_transformation_matrixes": [[[1, 0, 0, 0]] * 4],
        }
        for r, t in zip(rows, TIMES.tolist(), strict=True)
    ]


def mediapipe_javascript(rows):
    return {
        "fps": RATE,
        "results": [
            {
                "faceLandmarks": [[{"x": 0.1, "y": 0.2, "z": 0.3}]],
                "faceBlendshapes": []
                if r is None
                else [{"categories": categories(r), "headIndex": -1, "headName": ""}],
                "facialTransformationMatrixes": [{"rows": 4, "columns": 4, "data": [1.0] * 16}],
            }
            for r in rows
        ],
    }


def bare_categories(rows):
    return {"frameRate": "30/1", "data": [None if r is None else categories(r) for r in rows]}


def records(rows):
    return [
        {"time": t, **named([None] * len(NAMES) if r is None else r, snake)}
        for r, t in zip(rows, TIMES.tolist(), strict=True)
    ]


def nested(rows):
    return [
        {"timeCode": t, "blendShapes": {} if r is None else named(r, str.upper)}
        for r, t in zip(rows, TIMES.tolist(), strict=True)
    ]


def keyed_by_frame(rows):
    return {"fps": 30, "frames": {str(n): r and named(r, sided) for n, r in enumerate(rows)}}


def columns(rows):
    table = [[None] * len(NAMES) if r is None else r for r in rows]
    series = {n: [row[i] for row in table] for i, n in enumerate(NAMES)}
    return {"Time (s)": TIMES.tolist(), **series}


def pandas_columns(rows):
    return {k: {str(n): v for n, v in enumerate(s)} for k, s in columns(rows).items()}


def pandas_split(rows):
    table = [
        [t, *([None] * len(NAMES) if r is None else r)] for r, t in zip(rows, TIMES, strict=True)
    ]
    return {"columns": ["time", *NAMES], "index": list(range(FRAMES)), "data": table}


def named_rows(rows):
    return {"names": NAMES, "fps": RATE, "frames": [r or [None] * len(NAMES) for r in rows]}


JSON = [
    *(beat, lam, mediapipe_flat, mediapipe_python, mediapipe_javascript, bare_categories),
    *(records, nested, keyed_by_frame, columns, pandas_columns, named_rows),
]


def face_cap(rows):
    pose = ",".join(["0.1"] * 10)
    lines = ["info,Face Cap", "bs," + ",".join(map(sided, NAMES))]
    for n, row in enumerate(rows):
        values = "" if row is None else "," + pose + "," + ",".join(map(str, row))
        lines.append(f"k,{round(TIMES[n] * 1000, 3)}{values}")
    return "\n".join(lines)


def ifacialmocap(rows, mark="-"):
    tail = "=head#-21.4,-6.0,-6.6,-0.03,-0.1,-0.6|rightEye#6.0,2.4,0.2|leftEye#6.0,-1.6,-0.1|"
    lines = []
    for n, row in enumerate(rows):
        cells = (
            []
            if row is None
            else [f"{sided(k)}{mark}{100 * v:g}" for k, v in zip(NAMES, row, strict=True)]
        )
        lines.append("|".join([f"{TIMES[n]:.6f}", *cells, tail]))
    return "\n".join(lines)


def ifacialmocap_2(rows):
    return ifacialmocap(rows, "&")


def csv(rows, mark=",", decimal=".", spell=str, first="timestamp", scale=1.0, quote="", lost=""):
    lines = [mark.join([first, *map(spell, NAMES)])]
    for n, row in enumerate(rows):
        cells = [lost] * len(NAMES) if row is None else [f"{scale * v:.6f}" for v in row]
        time = f"{TIMES[n] * (1000 if first.endswith('Ms') else 1):.6f}"
        cells = [f"{quote}{c}{quote}".replace(".", decimal) for c in (time, *cells)]
        lines.append(mark.join(cells))
    return "\n".join(lines) + "\n"


CSV = {
    "plain": {},
    "null": dict(lost="null"),
    "nan": dict(lost="NaN", spell=snake),
    "unit": dict(first="Time (s)", spell=sided),
    "ms": dict(first="timestampMs", spell=lambda n: f"blendShape1.{n}"),
    "german": dict(mark=";", decimal=",", first="Time [s]"),
    "quoted": dict(decimal=",", quote='"'),
    "tabs": dict(mark="\t", decimal=","),
    "percent": dict(scale=100.0, spell=lambda n: f"{n} (%)"),
    "rokoko": dict(scale=100.0, spell=lambda n: f"Face.{n}"),
    "bars": dict(spell=lambda n: f"head|{n}"),
}


def write(folder, form, rows):
    if form in CSV:
        path, text = folder / "a.csv", csv(rows, **CSV[form])
    elif form in (face_cap, ifacialmocap, ifacialmocap_2):
        path, text = folder / "a.txt", form(rows)
    else:
        path, text = folder / "a.json", json.dumps(form(rows))
    path.write_text(text, encoding="utf-8")
    return path


FORMS = [*JSON, pandas_split, face_cap, ifacialmocap, ifacialmocap_2, *CSV]


@pytest.mark.parametrize("form", FORMS, ids=lambda f: getattr(f, "__name__", f))
def test_every_form_holds_the_same_curves_and_times(tmp_path, form):
    found = curve_reader.read(write(tmp_path, form, VALUES.tolist()))
    np.testing.assert_allclose(found.motion[:, COLUMNS], VALUES, atol=1e-5)
    np.testing.assert_allclose(found.times, TIMES, atol=2e-6)
    assert set(np.flatnonzero(found.observed)) == set(COLUMNS)


@pytest.mark.parametrize("form", FORMS, ids=lambda f: getattr(f, "__name__", f))
def test_frames_without_a_face_leave_a_gap_in_every_form(tmp_path, form):
    rows = [None if n in LOST else row for n, row in enumerate(VALUES.tolist())]
    found = curve_reader.read(write(tmp_path, form, rows))
    kept = [n for n in range(FRAMES) if n not in LOST]
    np.testing.assert_allclose(found.motion[:, COLUMNS], VALUES[kept], atol=1e-5)
    np.testing.assert_allclose(found.times, TIMES[kept], atol=2e-6)
    assert "3 of 30 rows without a tracked face" in found.notes
    np.testing.assert_allclose(found.times_at(25), np.array(kept) / 25)


@pytest.mark.parametrize("encoding", ["utf-8-sig", "utf-16", "utf-16-le", "utf-16-be", "utf-32"])
@pytest.mark.parametrize("form", ["german", named_rows, ifacialmocap])
def test_encodings(tmp_path, encoding, form):
    path = write(tmp_path, form, VALUES.tolist())
    text = path.read_text(encoding="utf-8").replace("\n", "\r\n")
    path.write_bytes(text.encode(encoding))
    np.testing.assert_allclose(curve_reader.read(path).motion[:, COLUMNS], VALUES, atol=1e-5)


def test_json_lines_and_a_spreadsheets_first_line(tmp_path):
    lines = "\n".join(json.dumps(frame) for frame in mediapipe_flat(VALUES.tolist()))
    (tmp_path / "a.jsonl").write_text(lines)
    (tmp_path / "b.csv").write_text("sep=;\n" + csv(VALUES.tolist(), mark=";", decimal=","))
    (tmp_path / "c.csv").write_text("# exported 2024\nactor,anna\n\n" + csv(VALUES.tolist()))
    for name in ("a.jsonl", "b.csv", "c.csv"):
        found = curve_reader.read(tmp_path / name)
        np.testing.assert_allclose(found.motion[:, COLUMNS], VALUES, atol=1e-5)


def neurosync(count=68, emotions=("Angry", "Disgusted", "Happy", "Neutral")):
    motion = np.zeros((FRAMES, rig.NUM_CHANNELS), np.float32)
    motion[:, COLUMNS] = VALUES
    table = livelink.from_motion(motion, fps=60)
    lines = [",".join([*livelink.HEADER, *emotions])]
    for code, row in zip(table.timecodes, table.values, strict=True):
        cells = [code, str(count), *(f"{v:.6f}" for v in row), *["0.1"] * len(emotions)]
        lines.append(",".join(cells))
    return "\n".join(lines)


def test_live_link_with_emotion_columns(tmp_path):
    (tmp_path / "shapes.csv").write_text(neurosync())
    found = curve_reader.read(tmp_path / "shapes.csv")
    np.testing.assert_allclose(found.motion[:, COLUMNS], VALUES, atol=1e-5)
    np.testing.assert_allclose(found.times * 60, np.arange(FRAMES), atol=1e-3)
    left_out = "columns without a channel left out: Angry, Disgusted, Happy, Neutral"
    assert found.notes == (left_out,) and found.observed.sum() == 56
    (tmp_path / "shapes.csv").write_text(neurosync(emotions=("Angry", "Angry")))
    with pytest.raises(InputError, match="column 'Angry' appears twice"):
        curve_reader.read(tmp_path / "shapes.csv")


def test_times_of_a_recording_count_from_its_first_row(tmp_path):
    path = tmp_path / "a.csv"
    lines = neurosync().split("\n")
    for n in (1, 2, 3):  # the face is found later
        lines[n] = lines[n].split(",")[0] + ",0"
    path.write_text("\n".join(lines))
    found = curve_reader.read(path)
    np.testing.assert_allclose(found.times[:2] * 60, [3, 4], atol=1e-3)
    np.testing.assert_allclose(found.times_at(60)[:2] * 60, [3, 4])
    assert row_times.read_timecodes(path).times()[-1] == pytest.approx(found.times[-1])


@pytest.mark.parametrize(
    ("flag", "lost"),
    [("faceDetected", "False"), ("numFaces", 0), ("BS_Valid", "false"), ("success", "0")],
)
def test_a_flag_says_that_no_face_was_seen(tmp_path, flag, lost):
    lines = csv(VALUES.tolist()).splitlines()
    flags = [flag, *(lost if n in LOST else 1 for n in range(FRAMES))]
    path = tmp_path / "a.csv"
    path.write_text("\n".join(f"{line},{f}" for line, f in zip(lines, flags, strict=True)))
    assert len(curve_reader.read(path).times) == FRAMES - len(LOST)


def test_rows_with_a_hole_or_a_repeated_time_are_left_out(tmp_path):
    lines = csv(VALUES.tolist()).splitlines()
    cells = lines[11].split(",")
    lines[11] = ",".join([*cells[:5], "", *cells[6:]])
    lines[16] = lines[15]
    lines[21] = lines[20].split(",")[0] + "," + lines[21].split(",", 1)[1]
    path = tmp_path / "a.csv"
    path.write_text("\n".join(lines))
    found = curve_reader.read(path)
    assert len(found.times) == FRAMES - 3 and (np.diff(found.times) > 0).all()
    assert "2 of 30 rows out of order in time left out, the first in line 16" in found.notes
    assert any(n.startswith("1 of 30 rows with missing values, most often") for n in found.notes)
    track = formats.read(path)
    assert track.fps == pytest.approx(RATE, rel=1e-3) and track.notes == found.notes


def test_a_head_that_is_lost_loses_no_face(tmp_path):
    rows = csv(VALUES.tolist()).splitlines()
    (tmp_path / "a.csv").write_text("\n".join([f"HeadYaw,{rows[0]}", *(f",{r}" for r in rows[1:])]))
    found = curve_reader.read(tmp_path / "a.csv")
    assert len(found.times) == FRAMES and not found.notes


def test_large_weights_are_not_taken_for_percent(tmp_path):
    (tmp_path / "a.csv").write_text(csv((8 * VALUES).tolist()))
    with pytest.raises(InputError, match="expected weights from 0 to 1$"):
        curve_reader.read(tmp_path / "a.csv")


def test_a_column_without_values_is_not_observed(tmp_path):
    path = tmp_path / "a.csv"
    rows = [line + "," for line in csv(VALUES.tolist()).splitlines()]
    path.write_text("\n".join([rows[0] + "tongueOut", *rows[1:]]))
    found = curve_reader.read(path)
    assert len(found.times) == FRAMES and not found.observed[rig.INDEX["tongueOut"]]
    assert "columns without values: tongueOut" in found.notes
    frames = [named(r) for r in VALUES.tolist()]
    for frame in frames[:20]:
        del frame["jawOpen"]
    (tmp_path / "a.json").write_text(json.dumps({"fps": 30, "frames": frames}))
    with pytest.raises(InputError, match="jawOpen has no value in 67% of the frames"):
        curve_reader.read(tmp_path / "a.json")


def test_frames_with_several_faces_are_left_out(tmp_path):
    frames = mediapipe_python(VALUES.tolist())
    frames[4]["face_blendshapes"] *= 2
    (tmp_path / "a.json").write_text(json.dumps(frames))
    found = curve_reader.read(tmp_path / "a.json")
    assert len(found.times) == FRAMES - 1
    assert "1 of 30 frames with more than one face left out" in found.notes


DOUBLED = {
    "a.csv": "time,jawOpen,JawOpen\n0,1,0\n",
    "b.csv": "time,jawOpen,jaw_open\n0,1,0\n",
    "c.csv": "time,mouthSmileLeft,mouthSmile_L\n0,1,0\n",
    "d.csv": "time,leftEyeRotY,LeftEyeYaw\n0,1,0\n",
    "e.csv": "time,browInnerUp,browInnerUp_L\n0,1,0\n",
    "f.csv": "time,jawOpen,Happy,happy\n0,1,0,0\n",
    "g.csv": "time,time,jawOpen\n0,0,1\n",
    "h.csv": "time,jawOpen,Cafe\u0301,Caf\u00e9\n0,1,0,0\n",
    "a.json": '{"fps": 30, "frames": [{"jawOpen": 0.1, "jawOpen": 0.9}]}',
    "b.json": '{"fps": 30, "names": ["jawOpen", "jawOpen"], "frames": [[0.1, 0.9]]}',
    "c.json": '{"fps": 30, "frames": [[{"name": "jawOpen", "score": 1}, '
    '{"name": "jawOpen", "score": 0}]]}',
    "d.json": '{"fps": 30, "frames": [{"jawOpen": 0.1, "blendShapes": {"jawOpen": 0.9}}]}',
    "a.txt": "bs,jawOpen,jaw_open\nk,0," + "0," * 10 + "1,0\n",
    "b.txt": "jawOpen-1|mouthClose-2|cheekPuff-3|jawOpen-4|=head#0\n",
}


@pytest.mark.parametrize("name", DOUBLED)
def test_a_doubled_column_is_refused(tmp_path, name):
    path = tmp_path / name
    path.write_text(DOUBLED[name], encoding="utf-8")
    with pytest.raises(InputError, match=r"twice|both hold"):
        curve_reader.read(path)


def test_both_sides_of_an_unsided_channel_are_averaged(tmp_path):
    (tmp_path / "a.csv").write_text("time,browInnerUp_L,browInnerUp_R\n0,0.2,0.4\n")
    assert curve_reader.read(tmp_path / "a.csv").motion[0, rig.INDEX["browInnerUp"]] == (
        pytest.approx(0.3)
    )


def test_one_wild_value_is_an_error_and_not_percent(tmp_path):
    values = VALUES.copy()
    values[9, 3] = 60.0
    (tmp_path / "a.csv").write_text(csv(values.tolist()))
    with pytest.raises(InputError, match=rf"a.csv:11: {NAMES[3]} is 60, expected weights") as error:
        curve_reader.read(tmp_path / "a.csv")
    assert "divide by 100" in str(error.value)
    percent = Resolver(ColumnSettings(units="percent"), "--config.columns")
    found = curve_reader.read(tmp_path / "a.csv", percent)
    np.testing.assert_allclose(found.motion[:, COLUMNS], values / 100, atol=1e-6)


def test_columns_are_renamed_and_ignored(tmp_path):
    path = tmp_path / "a.csv"
    path.write_text("time,M\u00e2choire,quality,jawOpen\n0,0.4,high,3\n0.1,0.5,low,4\n", "utf-8")
    with pytest.raises(InputError, match=r"unknown channel.*\(--config.columns.rename or .ignore"):
        curve_reader.read(path, Resolver(where="--config.columns"))
    decomposed = unicodedata.normalize("NFD", "m\u00e2choire")
    settings = ColumnSettings(rename={decomposed: "jawOpen"}, ignore=("Quality", "jawOpen"))
    found = curve_reader.read(path, Resolver(settings))
    np.testing.assert_allclose(found.motion[:, rig.INDEX["jawOpen"]], [0.4, 0.5])
    assert found.notes == ("columns without a channel left out: quality, jawOpen",)


BAD = {
    "a.json": ("[[1, 2], [3]]", "frames of 2 values without their names"),
    "b.json": ('{"names": ["jawOpen"], "fps": 30, "frames": [[1], [1, 2]]}', "frame 1 has 2"),
    "c.json": ('{"fps": 30, "frames": [{"jawOpen": "wide"}]}', "jawOpen is 'wide'"),
    "d.json": ('{"fps": 30, "frames": [{"jawOpn": 1}]}', "unknown channel 'jawOpn'; did you mean"),
    "e.json": ('{"fps": 30, "frames": [{"jawOpen": 1e999}]}', "jawOpen is 'inf'"),
    "f.json": ('{"fps": true, "frames": [{"jawOpen": 1}]}', "fps is 'True'"),
    "g.json": (
        '{"fps": 30, "times": [1], "names": ["jawOpen"], "frames": [[1], [1]]}',
        "times has",
    ),
    "a.csv": ("time,jawOpen\n0,1\n0,2,3\n", ":3: 3 values, expected 2"),
    "b.csv": ("time,jawOpen\n0,\n1,NaN\n", "no face was tracked in any of its 2 rows"),
    "c.csv": ("time,jawOpen\n,0.1\n,0.2\n", "neither fps nor times|no row has a time"),
    "d.csv": ("time,jawOpen\n0,.1\n0,.2\n0,.3\n", "times do not increase, here and in 2 of 3"),
    "a.txt": ("hello there\n", "not a text recording"),
    "b.txt": ("bs,jawOpen\nk,0,1,2\n", ":2: 4 values, expected 13"),
    "c.txt": ("bs,jawOpen\nx,0\n", ":2: 'x': expected info, bs or k"),
    "d.csv.csv": (b"\xff\xfeabc".decode("latin-1"), "no frames|unknown|not text"),
}


@pytest.mark.parametrize("name", BAD)
def test_what_is_wrong_is_one_line(tmp_path, name):
    path = tmp_path / name
    text, message = BAD[name]
    path.write_text(text, encoding="utf-8")
    with pytest.raises(InputError, match=message) as error:
        found = curve_reader.read(path)
        if found.times is None:
            raise InputError(f"{path}: says neither fps nor times")
    assert str(path) in str(error.value) and "\n" not in str(error.value)


def test_damage_by_structure_is_one_line_or_curves(tmp_path):
    rng = np.random.default_rng(4)
    words = ['"', "{", "[", "null", "[]", "{}", "-", ",", ";", "|", "1e999", "jawOpen", "\0", "\n"]
    for form in FORMS:
        path = write(tmp_path, form, VALUES[:5].tolist()[:5] + [None] * (FRAMES - 5))
        text = path.read_text(encoding="utf-8")
        for _ in range(12):
            at = int(rng.integers(0, len(text)))
            length = int(rng.integers(0, 12))
            word = words[int(rng.integers(0, len(words)))]
            path.write_text(text[:at] + word + text[at + length :], encoding="utf-8")
            try:
                found = curve_reader.read(path)
                assert np.isfinite(found.motion).all()
                assert found.times is None or (np.diff(found.times) > 0).all()
            except InputError as error:
                assert "\n" not in str(error) and path.name in str(error)


@pytest.mark.parametrize(
    ("name", "scale"),
    [
        *((n, 1) for n in ("t", "ts", "Time(s)", "Elapsed", "captureTime", "SECONDS", "time_in_s")),
        *((n, 1000) for n in ("ms", "time [msec]", "frame_timestamp_ms", "unix_time_in_ms")),
        *((n, 1e6) for n in ("timestampUs", "Time (microseconds)")),
        *((n, 1e9) for n in ("timestamp_ns", "Time [ns]")),
    ],
)
def test_names_of_times_and_their_units(tmp_path, name, scale):
    rows = "".join(f"{n / 25 * scale:.0f},0.5\n" for n in range(0, 100, 25))
    (tmp_path / "a.csv").write_text(f"{name},jawOpen\n{rows}")
    np.testing.assert_allclose(curve_reader.read(tmp_path / "a.csv").times, range(4))
    data = {name: [n * scale for n in range(4)], "names": ["jawOpen"], "frames": [[0.5]] * 4}
    (tmp_path / "a.json").write_text(json.dumps(data))
    np.testing.assert_allclose(curve_reader.read(tmp_path / "a.json").times, range(4))


def test_cells_with_a_percent_sign_are_percent(tmp_path):
    (tmp_path / "a.csv").write_text("time,jawOpen\n0,2%\n1,1.5 %\n")
    (tmp_path / "a.json").write_text(
        '{"fps": 1, "frames": [{"jawOpen": "2%"}, {"jawOpen": "1.5%"}]}'
    )
    for ending in ("csv", "json"):
        found = curve_reader.read(tmp_path / f"a.{ending}")
        np.testing.assert_allclose(found.motion[:, rig.INDEX["jawOpen"]], [0.02, 0.015])
