"""Files for other programs: each is read back by its reader, or by one that shares no code."""

import json
import struct

import numpy as np
import pytest

from a2fjax import registry, rig
from a2fjax.animation import curve_reader, formats, tracks
from a2fjax.animation.columns import ColumnSettings, Resolver
from a2fjax.api.motion import Motion
from a2fjax.errors import InputError
from a2fjax.evaluation import prediction_files

WEIGHTS = rig.WEIGHT_CHANNELS
JAW, CLOSE = rig.INDEX["jawOpen"], rig.INDEX["mouthClose"]


def motion(frames=9, seed=0):
    """Random curves whose lips are at most closed, so that both conventions hold them."""
    drawn = np.random.default_rng(seed).random((frames, 72)).astype(np.float32)
    drawn[:, rig.ANGLE_CHANNELS] = drawn[:, rig.ANGLE_CHANNELS] * 60 - 30
    drawn[:, CLOSE] = np.minimum(drawn[:, CLOSE], drawn[:, JAW])
    return drawn


@pytest.mark.parametrize("ending", [".nim.csv", ".omniverse.json", ".glb", ".anim"])
@pytest.mark.parametrize("fps", ["24", "29.97", "50", "60", "12.5"])
def test_curves_and_times_survive(tmp_path, ending, fps):
    path, curves = tmp_path / f"x{ending}", motion()
    formats.write(path, curves, fps=fps)
    track = formats.read(path)
    assert np.abs(track.motion - curves)[:, WEIGHTS].max() < 2e-6
    eyes = track.observed[rig.ANGLE_CHANNELS]
    assert eyes.all() == (ending in (".glb", ".anim")) and track.observed[WEIGHTS].all()
    if eyes.all():
        assert np.abs(track.motion - curves).max() < 1e-5  # degrees
    rate = tracks.rate(fps)
    exact = [k * rate.denominator / rate.numerator for k in range(len(curves))]
    assert np.abs(track.times - exact).max() < 1e-9
    assert [p.name for p in tmp_path.iterdir()] == [path.name]


@pytest.mark.parametrize("ending", [".glb", ".anim", ".nim.csv", ".omniverse.json"])
def test_blocks_make_the_same_file(tmp_path, ending):
    curves = motion(30)
    formats.write(tmp_path / f"a{ending}", curves)
    (tmp_path / "b").mkdir()
    with formats.writer(tmp_path / "b" / f"a{ending}", frames=30) as out:
        for part in np.split(curves, [1, 20]):
            out.write(part)
    first, second = (tmp_path / f"a{ending}", tmp_path / "b" / f"a{ending}")
    assert first.read_bytes() == second.read_bytes()
    if ending in (".glb", ".anim"):
        with pytest.raises(ValueError, match="9 frames written, 10 announced"):
            with formats.writer(tmp_path / f"c{ending}", frames=10) as out:
                out.write(motion(9))
        assert not (tmp_path / f"c{ending}").exists()


@pytest.mark.parametrize("fps", [24, 30, 60])
def test_no_frame_is_lost_between_rates(tmp_path, fps):
    """Where a frame of the output falls on one of the motion, it is that frame."""
    curves = motion(101)
    Motion(curves, 50).save(tmp_path / "x.glb", fps=fps)
    track = formats.read(tmp_path / "x.glb")
    assert len(track.motion) == -(-101 * fps // 50)
    for k in range(len(track.motion)):
        whole, rest = divmod(k * 50, fps)
        if not rest:
            np.testing.assert_allclose(track.motion[k], curves[whole], atol=1e-5)


def test_the_companion_holds_what_a_live_link_file_cannot(tmp_path):
    curves = motion(101)
    Motion(curves).save(tmp_path / "x.csv", fps=50)
    names = {p.name for p in tmp_path.iterdir()}
    assert names == {"x.csv", "x.tongue_eyes.channels.csv"}
    main, beside = (formats.read(tmp_path / name) for name in sorted(names))
    assert (main.observed | beside.observed).all()
    rest = beside.observed
    assert [rig.CHANNELS[i] for i in np.flatnonzero(rest)] == [*rig.TONGUE, *rig.EYE_ANGLES]
    assert np.abs(beside.motion - curves)[:, rest].max() < 1e-6
    assert np.allclose(beside.times, main.times, atol=1e-6)
    assert list(prediction_files.find(tmp_path, ["x"]).values()) == [tmp_path / "x.csv"]
    (tmp_path / "x.csv").unlink()
    with pytest.raises(InputError, match="no clip of the data is called 'x.tongue_eyes'"):
        prediction_files.find(tmp_path, ["x"])


@pytest.mark.parametrize("ending", [".json", ".npz", ".omniverse.json", ".glb"])
def test_the_convention_of_mouth_close_is_in_the_file(tmp_path, ending):
    path, curves = tmp_path / f"x{ending}", motion()
    formats.write(path, curves, options=formats.Options(mouth_close="nvidia"))
    assert b"mouth_close_convention" in path.read_bytes()
    assert np.abs(formats.read(path).motion - curves)[:, WEIGHTS].max() < 2e-6
    if ending == ".json":
        data = json.loads(path.read_text())
        frames = np.array(data["frames"])
        assert data["mouth_close_convention"] == "nvidia"
        np.testing.assert_allclose(frames[:, JAW], (curves[:, JAW] - curves[:, CLOSE]), atol=1e-6)


def test_nvidias_mouth_close_never_presses_closed_lips(tmp_path):
    curves = np.zeros((1, 72), np.float32)
    curves[0, [JAW, CLOSE]] = 0.25, 0.75
    formats.write(tmp_path / "x.npz", curves, options=formats.Options(mouth_close="nvidia"))
    found = formats.read(tmp_path / "x.npz").motion[0]
    assert found[[JAW, CLOSE]].tolist() == [0.25, 0.25] and rig.aperture(found) == 0


def test_order_and_names_of_columns(tmp_path):
    chosen = formats.Options(order="arkit52", names_map=tmp_path / "map.json")
    (tmp_path / "map.json").write_text('{"jawOpen": ["Jaw_A", "Jaw_B"], "mouthClose": null}')
    formats.write(tmp_path / "x.json", motion(), options=chosen)
    data = json.loads((tmp_path / "x.json").read_text())
    expected = [n for n in rig.ARKIT if n != "mouthClose"]
    at = expected.index("jawOpen")
    assert data["names"] == [*expected[:at], "Jaw_A", "Jaw_B", *expected[at + 1 :]]
    frames = np.array(data["frames"])
    assert np.array_equal(frames[:, at], frames[:, at + 1])
    np.testing.assert_allclose(frames[:, at], motion()[:, JAW], atol=1e-6)


def test_metahumans_tongue_comes_back_by_its_names(tmp_path):
    curves = motion()
    options = formats.Options(names_map="metahuman_tongue")
    formats.write(tmp_path / "x.channels.csv", curves, options=options)
    head = (tmp_path / "x.channels.csv").read_text().split("\n", 1)[0].split(",")
    theirs = [name for name in head if name.startswith("CTRL_expressions_tongue")]
    assert len(theirs) == 15 and "tongueStretch" not in head and "jawOpen" in head
    rename = {name: name.removeprefix("CTRL_expressions_") for name in theirs}
    found = curve_reader.read(tmp_path / "x.channels.csv", Resolver(ColumnSettings(rename=rename)))
    assert found.observed.sum() == 71
    assert np.abs(found.motion - curves)[:, found.observed].max() < 1e-6


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("[1]", "expected an object of names"),
        ("{}", "expected an object of names"),
        ('{"jawOpn": "x"}', "'jawOpn' is no channel.*did you mean 'jawOpen'"),
        ('{"jawOpen": "mouthClose"}', "two columns would be named 'mouthClose'"),
        ('{"jawOpen": "a,b"}', "jawOpen: 'a,b': expected a name without commas"),
        ('{"jawOpen": 3}', "jawOpen: '3': expected a name"),
        ("{", "not JSON"),
    ],
)
def test_wrong_maps(tmp_path, text, message):
    (tmp_path / "map.json").write_text(text)
    with pytest.raises(InputError, match=message) as error:
        formats.check_options(
            [tmp_path / "x.json"], formats.Options(names_map=tmp_path / "map.json")
        )
    assert "map.json" in str(error.value)


@pytest.mark.parametrize(
    ("name", "options", "message"),
    [
        ("x.csv", {"order": "arkit52"}, "x.csv: takes no --order; files that do: .anim,"),
        ("x.csv", {"mouth_close": "nvidia"}, "takes no --mouth-close"),
        ("x.nim.csv", {"mouth_close": "nvidia"}, "takes no --mouth-close"),
        ("x.json", {"head": "demo"}, "takes no --head; files that do: .glb, .usd"),
        ("x.json", {"order": "arkit25"}, "unknown channel order 'arkit25'.*'arkit52'"),
        ("x.json", {"mouth_close": "nvida"}, "--mouth-close='nvida'; did you mean 'nvidia'"),
        ("x.json", {"names_map": "metahuman"}, "did you mean 'metahuman_tongue'"),
        ("x.glb", {"head": "dmo"}, "no head of that name; did you mean 'demo'"),
        ("x.glb", {"head": "none.npz"}, "no such file"),
        ("x.glbb", {}, "unknown ending '.glbb'.*'.glb'"),
    ],
)
def test_what_a_file_cannot_hold_is_refused(tmp_path, name, options, message):
    with pytest.raises(InputError, match=message):
        formats.write(tmp_path / name, motion(2), options=formats.Options(**options))
    assert not list(tmp_path.iterdir())


def test_one_file_of_several_may_take_an_order(tmp_path):
    paths = [tmp_path / "x.csv", tmp_path / "x.json"]
    formats.check_options(paths, formats.Options(order="arkit52"))
    with pytest.raises(InputError, match="x.csv: takes no --mouth-close"):
        formats.check_options(paths, formats.Options(mouth_close="nvidia"))


ANIM = "animVersion 1.1;\ntimeUnit film;\nangularUnit rad;\n"
CURVE = "anim {0} {0} face 0 0 0;\nanimData {{\n input time;\n keys {{\n{1} }}\n}}\n"


def test_mayas_own_files_are_read(tmp_path):
    """Curves with different keys, a node without any, tangents with angles, radians."""
    text = (
        ANIM
        + "anim face 0 1 0;\n"
        + CURVE.format("jawOpen", "0 0 auto auto 1 1 0;\n2 0.5 fixed fixed 1 1 0 3.5 1 3.5 1;\n")
        + CURVE.format("mouthClose", "1 0.25;\n")
    )
    text += "anim rotate.rotateY rotateY rig:leftEye 0 0 1;\nanimData {\nkeys {\n0 0.5;\n}\n}\n"
    text += CURVE.format("envelope", "0 1;\n")
    (tmp_path / "x.anim").write_text(text)
    track = formats.read(tmp_path / "x.anim")
    assert np.allclose(track.times, [0, 1 / 24, 2 / 24])
    assert track.motion[:, JAW].tolist() == [0, 0.25, 0.5]
    assert track.motion[:, CLOSE].tolist() == [0.25] * 3
    assert track.motion[0, rig.INDEX["leftEyeRotY"]] == pytest.approx(28.6479, abs=1e-4)
    assert track.observed.sum() == 3 and "face.envelope" in track.notes[0]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "not a Maya .anim file"),
        (ANIM, "no curve of a channel"),
        (ANIM.replace("film", "flim"), ":2: time unit 'flim'; did you mean 'film'"),
        (ANIM + CURVE.format("jawOpn", "0 1;\n"), "unknown channel 'jawOpn'.*'jawOpen'"),
        (ANIM + CURVE.format("jawOpen", "0 x;\n"), ":8: expected the time and value"),
        (ANIM + CURVE.format("jawOpen", "0 nan;\n"), "jawOpen is not finite"),
        (ANIM + CURVE.format("jawOpen", "1 0;\n1 0;\n"), ":9: .* not after the one before"),
        (ANIM + CURVE.format("jawOpen", "1 0;\n") * 2, "a second curve of jawOpen"),
        (ANIM + CURVE.format("jawOpen", "1 0;\n")[:-5], "truncated"),
    ],
)
def test_wrong_anim(tmp_path, text, message):
    (tmp_path / "x.anim").write_text(text)
    with pytest.raises(InputError, match=message):
        formats.read(tmp_path / "x.anim")


def glb(path):
    """The document and the binary part of a GLB."""
    data = path.read_bytes()
    size = struct.unpack("<I", data[12:16])[0]
    return json.loads(data[20 : 20 + size]), data[28 + size :]


def rewrite(path, document, binary):
    text = json.dumps(document).encode()
    text += b" " * (-len(text) % 4)
    parts = struct.pack("<I4s", len(text), b"JSON") + text
    parts += struct.pack("<I4s", len(binary), b"BIN\0") + binary
    path.write_bytes(struct.pack("<4sII", b"glTF", 2, 12 + len(parts)) + parts)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda d: d.pop("animations"), "no animation of morph target weights"),
        (lambda d: d["meshes"][0]["extras"].clear(), "0 names .* for 68 targets"),
        (lambda d: d["meshes"][0]["extras"]["targetNames"].__setitem__(17, "jawOpn"), "'jawOpen'"),
        (lambda d: d["accessors"][-3].__setitem__("count", 10**9), "damaged GLB"),
        (lambda d: d["accessors"][-3].__setitem__("componentType", 5123), "packed float32"),
        (lambda d: d["animations"][0]["channels"][0]["target"].update(node=99), "damaged GLB"),
        (lambda d: d["animations"][0]["extras"].update(mouth_close_convention="x"), "expected one"),
        (lambda d: d["animations"][0]["samplers"][0].update(interpolation="CUBICSPLINE"), "LINEAR"),
    ],
)
def test_wrong_glb(tmp_path, change, message):
    path = tmp_path / "x.glb"
    formats.write(path, motion(3))
    document, binary = glb(path)
    change(document)
    rewrite(path, document, binary)
    with pytest.raises(InputError, match=message) as error:
        formats.read(path)
    assert "x.glb" in str(error.value)


def test_cut_glb(tmp_path):
    path = tmp_path / "x.glb"
    formats.write(path, motion(3))
    data = path.read_bytes()
    for size in (0, 4, 19, 300, len(data) - 1):
        path.write_bytes(data[:size])
        with pytest.raises(InputError, match="not a GLB|truncated"):
            formats.read(path)


def test_every_built_in_format_states_only_known_options():
    for entry in registry.writers:
        assert set(getattr(entry.load(), "takes", ())) <= set(formats.FLAGS), entry.name
