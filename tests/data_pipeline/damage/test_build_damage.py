"""Builds of sets in which good takes lie beside every kind of damage: the good ones survive.

Each layout has a set of good takes, one of each kind of file, and next to them takes that were
damaged in one way each. The build ends with 0, holds all good takes, and names each other one.
"""

import io
import json
import os
import struct
import zipfile

import numpy as np
import pytest

LAYOUTS = ("nvidia", "meshes", "vertices", "livelink", "table")


def held(manifest):
    """Returns the takes in the shards."""
    return {entry["id"].split("#")[0] for shard in manifest.shards for entry in shard.clips}


def told(manifest):
    """Returns the reasons by take of those that are not in the shards."""
    both = manifest.source["rejected"] + manifest.source["quarantined"]
    reasons = {said["take"]: said["reason"] for said in both}
    assert len(reasons) == len(both)
    return reasons


# -- damage ----------------------------------------------------------------------------------------


def replaced(content):
    """Returns damage that puts other bytes in a file's place."""

    def damage(path):
        data = path.read_bytes()
        path.write_bytes(content(data) if callable(content) else content)

    return damage


def folder(path):
    path.unlink()
    path.mkdir()


def dangling(path):
    path.unlink()
    path.symlink_to(path.with_name("nowhere"))


def unreadable(path):
    path.chmod(0)


BYTES = {
    "empty": replaced(b""),
    "cut": replaced(lambda data: data[: len(data) * 2 // 3]),
    "cut-head": replaced(lambda data: data[:11]),
    "text": replaced("Versehentlich überschrieben.\n".encode() * 3),
    "noise": replaced(np.random.default_rng(5).bytes(5000)),
    "folder": folder,
    "dangling": dangling,
}
"""Damage to any file, sound or motion."""
if os.geteuid():  # the administrator may read everything
    BYTES["unreadable"] = unreadable


def spoiled(value, share=1.0):
    """Returns damage to motion: this value in a share of the frames."""

    def change(data):
        data[: max(1, round(share * len(data))), ..., 0] = value
        return data

    return change


def other_topology(data):
    return [*data[: len(data) // 2], *data[len(data) // 2 :, :-7]]


MOTION = {
    "nan": spoiled(np.nan),
    "one-frame": lambda data: data[:1],
    "no-frame": lambda data: data[:0],
}
OF_VERTICES = {
    "infinite": spoiled(np.inf),
    "astronomic": spoiled(1e30),
    "few-vertices": lambda data: data[:, :-7],
}
SOUND = {
    "nan-sound": lambda audio: np.where(np.arange(len(audio)) == 99, np.nan, audio),
    "infinite-sound": lambda audio: np.where(np.arange(len(audio)) > 99, np.inf, audio),
    "absurd-sound": lambda audio: audio * 1e30,
    "no-sound": lambda audio: audio[:0],
    "one-sample": lambda audio: audio[:1],
    "silence": lambda audio: 0.0 * audio,
}
MENDED = {
    "table": {
        *("nan-csv", "nan-json", "nan-npz", "backward-csv", "backward-json", "backward-npz"),
        "counts-csv",
    },
    "livelink": {"nan-csv", "nan-mov"},
}
"""Damage that costs one channel or one row, not the take."""

COUNT = 10**12
ODD = ("a b", 'it\'s "so"', "Ünïcode-日本語", "\U0001f600", "<b>&amp;", "x" * 180, "%s{0}")
"""Names of takes that are as good as any."""


def huge_npy(shape, kind="<f4"):
    head = f"{{'descr': '{kind}', 'fortran_order': False, 'shape': {shape}, }}"
    head += " " * (-(len(head) + 11) % 64) + "\n"
    return b"\x93NUMPY\x01\x00" + struct.pack("<H", len(head)) + head.encode() + b"\0" * 99


def huge_npz(**members):
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w") as archive:
        for name, content in members.items():
            archive.writestr(f"{name}.npy", content)
    return file.getvalue()


def pickled():
    file = io.BytesIO()
    np.save(file, np.array([{"a": 1}, None], object), allow_pickle=True)
    return file.getvalue()


def special(w, made):
    """Returns {(kind, name): bytes of the motion} that only one kind of file can be wrong in."""
    layout, weights = made.layout, w.curves(1)
    names = np.array(w.MOVING)
    frames = made.frames(weights) if layout in ("nvidia", "meshes", "vertices") else None
    back = np.arange(w.FRAMES) / w.FPS
    back[7:9] = back[8:6:-1]
    if layout == "nvidia":
        mixed = other_topology(frames)
        return {
            ("npy", "huge"): huge_npy((COUNT, 150, 3)),
            ("npy", "negative"): huge_npy((-5, 150, 3)),
            ("npy", "pickle"): pickled(),
            ("npy", "complex"): w.array_bytes(frames.astype(np.complex64)),
            ("pc2", "huge"): w.pc2_bytes(frames)[:28] + struct.pack("<i", 2**31 - 1),
            ("pc2", "negative"): w.pc2_bytes(frames)[:16] + struct.pack("<iffi", -9, 0, 30, -9),
            ("mc", "topology"): w.maya_bytes(mixed),
            ("mc", "backward"): w.maya_bytes(frames[:9], ticks=-200),
            ("mc", "huge"): w.maya_bytes(frames).replace(
                struct.pack(">i", 150), struct.pack(">i", 2**31 - 1)
            ),
        }
    if layout == "meshes":
        return {
            ("usda", "topology"): w.usda_bytes(other_topology(frames)),
            ("usda", "rate-0"): w.usda_bytes(frames, rate=0),
            ("usda", "rate-negative"): w.usda_bytes(frames, rate=-30),
            ("usda", "rate-huge"): w.usda_bytes(frames, rate=10**9),
            ("glb", "backward"): w.glb_bytes(weights, back),
            ("glb", "rate-huge"): w.glb_bytes(weights, np.arange(w.FRAMES) * 1e-9),
            ("glb", "nan-times"): w.glb_bytes(weights, back * np.nan),
            ("glb", "long"): w.glb_bytes(weights, np.arange(w.FRAMES) * 1e9),
            ("glb", "huge"): w.glb_bytes(weights, count=COUNT),
        }
    if layout == "vertices":
        arrays = dict(vertices=frames)
        return {
            ("npy", "huge"): huge_npy((COUNT, 450)),
            ("npy", "pickle"): pickled(),
            ("shared", "pickle"): pickled(),
            ("npz", "huge"): huge_npz(vertices=huge_npy((COUNT, 150, 3))),
            ("npz", "pickle"): huge_npz(vertices=pickled()),
            ("npz", "rate-0"): w.npz_bytes(**arrays, fps=0.0),
            ("npz", "rate-negative"): w.npz_bytes(**arrays, fps=-30.0),
            ("npz", "rate-huge"): w.npz_bytes(**arrays, fps=1e9),
            ("npz", "rate-nan"): w.npz_bytes(**arrays, fps=np.nan),
            ("npz", "backward"): w.npz_bytes(**arrays, times=back),
            ("npz", "counts"): w.npz_bytes(**arrays, times=back[:5]),
        }
    if layout == "table":
        many = w.npz_bytes(motion=np.zeros((3, 9)), names=names, fps=30)
        arrays = dict(motion=weights, names=names)
        return {
            ("csv", "backward"): w.csv_bytes(weights, back),
            ("csv", "rate-huge"): w.csv_bytes(weights, np.arange(w.FRAMES) * 1e-9),
            ("csv", "counts"): w.csv_bytes(weights)[:-9] + b"\n",
            ("csv", "columns"): w.csv_bytes(weights).replace(b"jawOpen", b"browInnerUp"),
            ("csv", "zeros"): w.csv_bytes(weights).replace(b"0.1", b"\0\0\0"),
            ("json", "rate-0"): w.json_bytes(weights, fps=0),
            ("json", "rate-negative"): w.json_bytes(weights, fps=-30),
            ("json", "rate-huge"): w.json_bytes(weights, fps=1e9),
            ("json", "backward"): w.json_bytes(weights, times=back.tolist()),
            ("json", "deep"): b'{"frames": ' + b"[" * 200_000,
            ("json", "infinite"): w.json_bytes(weights).replace(b"0.1", b"1e999"),
            ("npz", "counts"): many,
            ("npz", "rate-huge"): w.npz_bytes(**arrays, fps=1e9),
            ("npz", "rate-negative"): w.npz_bytes(**arrays, fps=-1.0),
            ("npz", "backward"): w.npz_bytes(**arrays, times=back),
            ("npz", "huge"): huge_npz(
                motion=huge_npy((COUNT, 4)), names=w.array_bytes(names), fps=w.array_bytes(30)
            ),
            ("npz", "pickle"): huge_npz(motion=pickled(), names=w.array_bytes(names)),
            ("npz", "words"): w.npz_bytes(**arrays, fps=30, emotion=np.array("jolly=2")),
        }
    rows = (made.path / "anna/good-csv_1_ph.csv").read_bytes().split(b"\n")[:-1]
    return {
        ("csv", "backward"): b"\n".join([rows[0], *rows[:0:-1]]),
        ("csv", "counts"): b"\n".join([*rows[:9], rows[9][:40], *rows[10:]]),
        ("csv", "nan-cells"): b"\n".join([rows[0], *(r[:20] + b"nan" + r[23:] for r in rows[1:])]),
        ("csv", "timecode"): b"\n".join([rows[0], *(b"99" + r[2:] for r in rows[1:])]),
    }


def add_damage(w, made):
    """Adds damaged takes to a set; returns (names of the bad, of the odd that are used)."""
    layout = made.layout
    bad, odd = [], []

    def of(kind, name):
        (odd if name in MENDED.get(layout, ()) else bad).append(name)
        return kind, name

    for kind in made.kinds:
        vertices = made.has_vertices(kind)
        for what, change in {**MOTION, **(OF_VERTICES if vertices else {})}.items():
            if what == "no-frame" and (layout == "livelink" or kind in ("obj", "ply", "glb")):
                continue  # a file of no bytes, or no folder at all
            made.write(*of(kind, f"{what}-{kind}"), change)
        if kind in ("obj", "ply"):
            made.write(*of(kind, f"topology-{kind}"), other_topology)
        for what, damage in BYTES.items():
            motion, _ = made.write(*of(kind, f"{what}-motion-{kind}"))
            if not motion.is_dir():
                damage(motion)
                continue
            for n, frame in enumerate(sorted(motion.iterdir())):
                if n % 2:
                    damage(frame)
    first = made.kinds[0]
    for what, damage in BYTES.items():
        damage(made.write(*of(first, f"{what}-sound"))[1])
        if layout == "livelink":
            damage(made.write(*of("mov", f"{what}-film"))[1])
    for what, sound in SOUND.items():
        made.write(*of(first, what), sound=sound)
    replaced(lambda data: data[:40] + struct.pack("<I", 2**31) + data[44:])(
        made.write(*of(first, "huge-sound"))[1]
    )
    for (kind, what), content in special(w, made).items():
        made.write(*of(kind, f"{what}-{kind}"))[0].write_bytes(content)
    for name in (
        "a b",
        'it\'s "so"',
        "Ünïcode-日本語",
        "\U0001f600",
        "<b>&amp;",
        "x" * 180,
        "%s{0}",
    ):
        made.write(first, name)
        odd.append(name)
    return bad, odd


@pytest.mark.parametrize(
    "layout",
    [pytest.param(name, marks=[pytest.mark.slow] * (name == "meshes")) for name in LAYOUTS],
)
def test_the_good_survive_and_the_bad_are_named(tmp_path, writers, make_set, layout, run):
    made = make_set(tmp_path / "set", layout)
    good = [f"good-{kind}" for kind in made.kinds]
    for kind, name in zip(made.kinds, good, strict=True):
        made.write(kind, name)
    bad, odd = add_damage(writers, made)
    code, manifest, printed = run(made.path, tmp_path / "out", "--layout", layout)
    assert code == 0, printed
    used, reasons = held(manifest), told(manifest)
    short = {take.partition("/")[2].removesuffix("_1_ph"): take for take in (*used, *reasons)}
    assert not [n for n in (*good, *odd) if short.get(n) not in used], reasons
    missed = {n: short.get(n) for n in bad if short.get(n) not in reasons}
    assert not missed
    for name in bad:
        reason = reasons[short[name]]
        assert "\n" not in reason and "defect of this program" not in reason, reason
        assert len(reason) < 1000
        # Of a take that can be read, the measure is told that puts it aside; else the file.
        assert name in reason or name == "silence", reason
    report = json.loads((tmp_path / "out/quality.json").read_text(encoding="utf-8"))
    verdicts = {take["take"]: take["verdict"] for take in report["takes"]}
    page = (tmp_path / "out/quality.html").read_text(encoding="utf-8")
    for name in bad:
        assert verdicts[short[name]] in ("rejected", "quarantined")
        assert name in page
    assert all(verdicts[short[name]] == "used" for name in (*good, *odd))


@pytest.mark.parametrize("layout", LAYOUTS)
def test_file_names_that_are_not_unicode(tmp_path, make_set, layout, run):
    made = make_set(tmp_path / "set", layout)
    made.write(made.kinds[0], "good")
    made.write(made.kinds[0], "caf\udce9")
    made.write(made.kinds[0], "two\nlines")
    code, manifest, printed = run(made.path, tmp_path / "out", "--layout", layout)
    assert code == 0, printed
    (good,), reasons = held(manifest), told(manifest)
    assert "good" in good and len(reasons) == 2
    for name, reason in reasons.items():
        assert "caf\\udce9" in name or "two\\nlines" in name
        assert "rename it" in reason and "\n" not in reason + name
    assert "caf\\udce9" in (tmp_path / "out/quality.html").read_text(encoding="utf-8")


def test_a_folder_of_a_person_that_is_not_unicode(tmp_path, make_set, run):
    made = make_set(tmp_path / "set", "table")
    made.write("csv", "good")
    made.person = made.path / "zo\udceb"
    made.write("csv", "lost")
    code, manifest, printed = run(made.path, tmp_path / "out")
    assert code == 0, printed
    assert held(manifest) == {"anna/good"} and "zo\\udceb/lost" in told(manifest)


@pytest.mark.parametrize("layout", LAYOUTS)
def test_hidden_files_are_nobody_s(tmp_path, make_set, layout, run):
    made = make_set(tmp_path / "set", layout)
    made.write(made.kinds[0], "good")
    made.write(made.kinds[0], ".hidden")
    code, manifest, printed = run(made.path, tmp_path / "out", "--layout", layout)
    assert code == 0, printed
    assert len(held(manifest)) == 1
    assert all("no cache" in reason for reason in told(manifest).values())


def test_one_take_of_another_shape_does_not_decide_for_all(tmp_path, writers, make_set, run):
    """The first in order, a glTF with a mesh of its own, is one whose targets nobody knows."""
    made = make_set(tmp_path / "set", "meshes")
    made.write("ply", "good")
    odd, _ = made.write("glb", "first")
    content = odd.read_bytes().replace(b"jawOpen", b"unnamed")
    odd.rename(made.person / "a.glb").write_bytes(content)
    odd.with_suffix(".wav").rename(made.person / "a.wav")
    code, manifest, printed = run(made.path, tmp_path / "out")
    assert code == 0, printed
    assert held(manifest) == {"anna/good"}
    assert "expected [frames, 150, 3]" in told(manifest)["anna/a"]


@pytest.mark.parametrize("seconds", [12.0, 0.25])
@pytest.mark.parametrize("layout", LAYOUTS)
def test_sound_much_longer_or_shorter_than_the_motion(tmp_path, make_set, layout, seconds, run):
    made = make_set(tmp_path / "set", layout)
    made.write(made.kinds[0], "good")
    made.write(made.kinds[0], "odd", seconds=seconds)
    code, manifest, printed = run(made.path, tmp_path / "out", "--layout", layout)
    assert code == 0, printed
    said = [*manifest.source["warnings"], *(f"{k}: {v}" for k, v in told(manifest).items())]
    assert any("odd" in x and "s of audio" in x and "s of capture" in x for x in said)
    assert any("good" in take for take in held(manifest))


def test_the_same_name_and_the_same_files_twice(tmp_path, writers, make_set, run):
    made = make_set(tmp_path / "set", "table")
    for number, folder_name in enumerate(("one", "two")):
        made.person = made.path / folder_name
        made.person.mkdir()
        motion, _ = made.write("npz", "hello")
        more = {"motion": writers.curves(number), "names": np.array(writers.MOVING), "fps": 30}
        motion.write_bytes(writers.npz_bytes(**more, subject=np.array("zoe")))
    made.person = made.path / "anna"
    csv, wav = made.write("csv", "good")
    (made.person / "copy.csv").write_bytes(csv.read_bytes())
    (made.person / "copy.wav").write_bytes(wav.read_bytes())
    code, manifest, printed = run(made.path, tmp_path / "out")
    assert code == 0, printed
    assert held(manifest) == {"anna/copy", "zoe/one_hello", "zoe/two_hello"}
    assert "the same files as anna/copy" in told(manifest)["anna/good"]


def test_what_belongs_to_a_person_and_is_damaged(tmp_path, make_set, run):
    """A neutral that is an archive, a rig that is cut: the person's takes are told, others not."""
    made = make_set(tmp_path / "set", "vertices")
    for kind in ("npy", "npz", "shared"):
        made.write(kind, "hello")
    archive = (made.path / "nils" / "rig.npz").read_bytes()
    (made.path / "templates" / "ben.npy").write_bytes(archive)
    (made.path / "nils" / "rig.npz").write_bytes(archive[:5000])
    code, manifest, printed = run(made.path, tmp_path / "out")
    assert code == 0, printed
    assert held(manifest) == {"anna/hello"}
    reasons = told(manifest)
    assert "ben.npy: an archive" in reasons["ben/hello"]
    assert "nils/rig.npz" in reasons["nils/hello"]
    assert not any("defect of this program" in reason for reason in reasons.values())


def test_a_shot_list_with_half_a_character(tmp_path, make_set, run):
    made = make_set(tmp_path / "set", "vertices")
    for name in ("good", "half", "wrong"):
        made.write("npy", name)
    shots = {"half": {"text": "\ud83d"}, "wrong": {"emotion": {"jolly": 1}}}
    (made.person / "shots.json").write_text(json.dumps({"fps": 30, "units": "cm", "shots": shots}))
    code, manifest, printed = run(made.path, tmp_path / "out")
    assert code == 0, printed
    assert held(manifest) == {"anna/good"}
    assert "not Unicode" in told(manifest)["anna/half"]
    assert "jolly" in told(manifest)["anna/wrong"]
