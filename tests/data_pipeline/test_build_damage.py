"""Builds of sets in which good takes lie beside every kind of damage: the good ones survive.

Each layout has a set of good takes, one of each kind of file, and next to them takes that were
damaged in one way each. The build ends with 0, holds all good takes, and names each other one.
"""

import io
import json
import os
import struct
from fractions import Fraction

import numpy as np
import pytest
import soundfile

from a2fjax import rig
from a2fjax.animation import livelink
from a2fjax.data import records
from data_pipeline import build

FPS, FRAMES, RATE = 30, 36, 16_000
MOVING = ("jawOpen", "browInnerUp", "mouthSmileLeft", "mouthSmileRight")
COLUMNS = [rig.INDEX[c] for c in MOVING]
LAYOUTS = {
    "nvidia": ("npy", "pc2", "mc"),
    "meshes": ("obj", "ply", "usda", "glb"),
    "vertices": ("npy", "npz", "shared"),
    "livelink": ("csv", "mov"),
    "table": ("csv", "json", "npz"),
}
"""Kinds of files by layout; "shared" is vertices_npy/<person>_<take>.npy."""

VERTICES = ("nvidia", "vertices", "obj", "ply", "usda")


def curves(seed, frames=FRAMES):
    """Weights [frames, 4] of `MOVING`: each comes and goes at its own pace."""
    rng = np.random.default_rng(seed)
    at = np.arange(frames)[:, None] / FPS
    speed, phase = rng.uniform(1.0, 3.0, 4), rng.uniform(0, 6, 4)
    return 0.3 * (1.0 - np.cos(2 * np.pi * speed * at + phase))


def speech(weights, seed, seconds=FRAMES / FPS):
    """Noise as loud as the jaw is open, over a faint hiss."""
    rng = np.random.default_rng(seed)
    at = np.arange(round(seconds * RATE)) / RATE
    loud = np.interp(at, np.arange(len(weights)) / FPS, weights[:, 0])
    return 0.3 * loud**2 * rng.normal(size=len(at)) + 3e-4 * rng.normal(size=len(at))


@pytest.fixture(scope="module")
def small(head):
    """A third of the head's vertices: neutral [V, 3] cm and all deltas [52, V, 3]."""
    return head.neutral[::3], head.deltas[:, ::3], head.names


# -- writers: take in, motion and sound files out ------------------------------------------------


def array_bytes(array, **how):
    file = io.BytesIO()
    np.save(file, array, **how)
    return file.getvalue()


def maya_bytes(frames, ticks=200):
    def block(tag, body):
        return tag + struct.pack(">i", len(body)) + body + b"\0" * (-len(body) % 4)

    def group(body):
        return b"FOR4" + struct.pack(">i", len(body)) + body

    out = group(b"CACH" + block(b"VRSN", b"0.1\0") + block(b"STIM", struct.pack(">i", 0)))
    for n, frame in enumerate(frames):
        body = block(b"TIME", struct.pack(">i", n * ticks)) + block(b"CHNM", b"headShape\0")
        body += block(b"SIZE", struct.pack(">i", len(frame)))
        out += group(b"MYCH" + body + block(b"FVCA", np.asarray(frame, ">f4").tobytes()))
    return out


def pc2_bytes(frames):
    head = struct.pack("<12siiffi", b"POINTCACHE2\0", 1, frames.shape[1], 0, FPS, len(frames))
    return head + b"".join(np.asarray(f, "<f4").tobytes() for f in frames)


def obj_bytes(points):
    rows = [f"v {x:.6g} {y:.6g} {z:.6g}\n" for x, y, z in points]
    return "".join([*rows, "f 1 2 3\nf 2 3 4\n"]).encode()


def ply_bytes(points, vertices=None):
    head = (
        f"ply\nformat binary_little_endian 1.0\nelement vertex {vertices or len(points)}\n"
        "property float x\nproperty float y\nproperty float z\nelement face 1\n"
        "property list uchar int vertex_indices\nend_header\n"
    )
    return head.encode() + np.asarray(points, "<f4").tobytes() + struct.pack("<B3i", 3, 0, 1, 2)


def usda_bytes(frames, codes=None, rate=FPS):
    codes = range(len(frames)) if codes is None else codes
    samples = ",\n".join(
        f"{code}: [" + ", ".join(f"({x:.6g}, {y:.6g}, {z:.6g})" for x, y, z in points) + "]"
        for code, points in zip(codes, frames, strict=True)
    )
    return (
        f'#usda 1.0\n(\n  metersPerUnit = 0.01\n  timeCodesPerSecond = {rate}\n  upAxis = "Y"\n)\n'
        'def Mesh "face"\n{\n  int[] faceVertexCounts = [3]\n  int[] faceVertexIndices = [0, 1, 2]'
        f"\n  point3f[] points.timeSamples = {{\n{samples}\n}}\n}}\n"
    ).encode()


def glb_bytes(weights, keys=None, count=None):
    """Four named targets on a triangle fan, weights [F, 4]; `count` is a lie about the keys."""
    keys = np.arange(len(weights)) / FPS if keys is None else keys
    shapes = np.random.default_rng(3).normal(size=(5, 6, 3))
    parts = [np.asarray(p, "<f4").tobytes() for p in (*shapes, keys, weights)]
    views, at = [], 0
    for part in parts:
        views.append({"buffer": 0, "byteOffset": at, "byteLength": len(part)})
        at += len(part)
    kinds = [(6, "VEC3")] * 5 + [(count or len(keys), "SCALAR"), (weights.size, "SCALAR")]
    document = {
        "asset": {"version": "2.0"},
        "buffers": [{"byteLength": at}],
        "bufferViews": views,
        "accessors": [
            {"bufferView": i, "componentType": 5126, "count": n, "type": kind}
            for i, (n, kind) in enumerate(kinds)
        ],
        "meshes": [
            {
                "primitives": [
                    {
                        "attributes": {"POSITION": 0},
                        "targets": [{"POSITION": i} for i in range(1, 5)],
                    }
                ],
                "extras": {"targetNames": list(MOVING)},
            }
        ],
        "nodes": [{"mesh": 0}],
        "animations": [
            {
                "samplers": [{"input": 5, "output": 6}],
                "channels": [{"sampler": 0, "target": {"node": 0, "path": "weights"}}],
            }
        ],
    }
    text, data = json.dumps(document).encode(), b"".join(parts)
    text += b" " * (-len(text) % 4)
    size = 12 + 8 + len(text) + 8 + len(data)
    head = struct.pack("<4sII", b"glTF", 2, size) + struct.pack("<I4s", len(text), b"JSON")
    return head + text + struct.pack("<I4s", len(data), b"BIN\0") + data


def csv_bytes(weights, times=None):
    times = np.arange(len(weights)) / FPS if times is None else times
    rows = [",".join(("time", *MOVING))]
    rows += [",".join(f"{v:.6f}" for v in (t, *w)) for t, w in zip(times, weights, strict=True)]
    return ("\n".join(rows) + "\n").encode()


def json_bytes(weights, **more):
    data = {"names": list(MOVING), "fps": FPS, "frames": np.asarray(weights).tolist(), **more}
    return json.dumps(data).encode()


def npz_bytes(**arrays):
    file = io.BytesIO()
    np.savez(file, **arrays)
    return file.getvalue()


def livelink_bytes(path, weights):
    motion = np.zeros((len(weights), rig.NUM_CHANNELS), np.float32)
    motion[:, COLUMNS] = weights
    table = livelink.from_motion(motion, fps=FPS, start="10:00:00:00.000")
    livelink.write(path, table)


def film(path, sound):
    import av

    with av.open(str(path), "w") as out:
        track = out.add_stream("pcm_s16le", rate=RATE)
        track.layout = "mono"
        block = np.round(np.clip(sound, -1, 1) * 32_000).astype(np.int16)[None]
        frame = av.AudioFrame.from_ndarray(block, "s16", "mono")
        frame.sample_rate, frame.pts, frame.time_base = RATE, 0, Fraction(1, RATE)
        for packet in [*track.encode(frame), *track.encode()]:
            out.mux(packet)


class Set:
    """A set on disk; `write` adds a take to it."""

    def __init__(self, path, layout, small):
        self.path, self.layout, self.count = path, layout, 0
        self.neutral, self.deltas, self.names = small
        self.person = path / "anna"
        self.person.mkdir(parents=True)
        if layout in ("nvidia", "meshes", "vertices"):
            self.shapes(self.person)
            if layout == "vertices":
                self.shapes(path)
                self.shapes(path / "nils", fps=0)
                (path / "templates").mkdir()
                np.save(path / "templates" / "ben.npy", self.neutral.astype(np.float32))
        if layout == "meshes":
            self.shapes(path / "uma", fps=0)
            np.save(path / "uma" / "neutral.npy", self.neutral.astype(np.float32))

    def shapes(self, folder, fps=FPS):
        """Writes a person's rig and shot list; without a rate, the takes' files say it."""
        where = folder / ("bs_data" if self.layout == "nvidia" else "")
        where.mkdir(exist_ok=True, parents=True)
        named = dict(zip(self.names, self.deltas.astype(np.float32), strict=True))
        np.savez(
            where / ("bs_skin.npz" if self.layout == "nvidia" else "rig.npz"),
            poseNames=np.array(["neutral", *self.names]),
            neutral=self.neutral.astype(np.float32),
            **named,
        )
        (folder / "shots.json").write_text(json.dumps({"fps": fps, "units": "cm"}))

    def frames(self, weights):
        moving = np.array([self.names.index(c) for c in MOVING])
        points = self.neutral + np.einsum("fk,kvi->fvi", weights, self.deltas[moving])
        noise = np.random.default_rng(self.count).normal(size=points.shape)
        return (points + 0.002 * noise).astype(np.float32)

    def places(self, kind, name):
        """Returns (motion, sound) of a take: where they go."""
        person, layout = self.person, self.layout
        if layout == "nvidia":
            cache = person / "cache" / "skin" / name
            return cache / f"{name}.{kind}", person / "audio" / f"{name}.wav"
        if kind == "shared":
            return self.path / f"vertices_npy/ben_{name}.npy", self.path / f"wav/ben_{name}.wav"
        if layout == "livelink":
            ending = "mov" if kind == "mov" else "wav"
            return person / f"{name}_1_ph.csv", person / f"{name}_1_ph.{ending}"
        # Those with a unit of their own, those whose targets have the rig's names, those with fps.
        others = {"usda": "uma", "glb": "gina"} if layout == "meshes" else {"npz": "nils"}
        if kind in others and layout != "table":
            person = self.path / others[kind]
        ending = "" if kind in ("obj", "ply") else f".{kind}"
        return person / f"{name}{ending}", person / f"{name}.wav"

    def write(self, kind, name, change=None, sound=None, seconds=FRAMES / FPS):
        """Writes a take; `change` makes damaged motion of good, `sound` the same of sound.

        Motion is vertices [F, V, 3] or weights [F, 4], a list where frames may differ in shape.
        """
        self.count += 1
        weights = curves(self.count)
        audio = speech(weights, self.count, seconds)
        motion, heard = self.places(kind, name)
        for path in (motion, heard):
            path.parent.mkdir(parents=True, exist_ok=True)
        is_mesh = self.layout in VERTICES or kind in VERTICES
        data = self.frames(weights) if is_mesh else weights
        data = change(data.copy()) if change else data
        if kind in ("obj", "ply"):
            motion.mkdir()
            for n, points in enumerate(data):
                content = obj_bytes(points) if kind == "obj" else ply_bytes(points)
                (motion / f"{name}.{n:04d}.{kind}").write_bytes(content)
        elif self.layout == "livelink":
            livelink_bytes(motion, data)
        else:
            motion.write_bytes(self.content(kind, data))
        audio = sound(audio) if sound else audio
        if kind == "mov":
            film(heard, audio)
        else:
            soundfile.write(heard, audio, RATE, "FLOAT")
        return motion, heard

    def content(self, kind, data):
        if self.layout == "table":
            if kind == "npz":
                return npz_bytes(motion=np.asarray(data), names=np.array(MOVING), fps=FPS)
            return {"csv": csv_bytes, "json": json_bytes}[kind](data)
        if kind in ("npy", "shared"):
            return array_bytes(np.asarray(data, np.float32))
        if kind == "npz":
            return npz_bytes(vertices=np.asarray(data, np.float32), fps=FPS)
        return {"pc2": pc2_bytes, "mc": maya_bytes, "usda": usda_bytes, "glb": glb_bytes}[kind](
            data
        )


def run(path, out, capsys, *more):
    """Returns (exit code, manifest or None, all that was printed)."""
    code = build.main([str(path), f"--out={out}", "--workers=0", "--config.offset=0", *more])
    said = capsys.readouterr()
    printed = said.out + said.err
    assert "Traceback" not in printed and not any(len(x) > 2000 for x in printed.splitlines())
    return code, records.read_manifest(out) if code == 0 else None, printed


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
    "no-sound": lambda audio: audio[:0],
    "one-sample": lambda audio: audio[:1],
    "silence": lambda audio: 0.0 * audio,
}
COUNT = 10**12
ODD = ("a b", 'it\'s "so"', "Ünïcode-日本語", "\U0001f600", "<b>&amp;", "x" * 180, "%s{0}")
"""Names of takes that are as good as any."""


def huge_npy(shape, kind="<f4"):
    head = f"{{'descr': '{kind}', 'fortran_order': False, 'shape': {shape}, }}"
    head += " " * (-(len(head) + 11) % 64) + "\n"
    return b"\x93NUMPY\x01\x00" + struct.pack("<H", len(head)) + head.encode() + b"\0" * 99


def huge_npz(**members):
    import zipfile

    file = io.BytesIO()
    with zipfile.ZipFile(file, "w") as archive:
        for name, content in members.items():
            archive.writestr(f"{name}.npy", content)
    return file.getvalue()


def pickled(*_):
    return array_bytes(np.array([{"a": 1}, None], object), allow_pickle=True)


def times_of(change):
    times = np.arange(FRAMES) / FPS
    return change(times)


def backward(times):
    times[7:9] = times[8:6:-1]
    return times


def special(made, layout):
    """Returns {(kind, name): bytes of the motion} that only one kind of file can be wrong in."""
    weights = curves(1)
    names = np.array(MOVING)
    frames = made.frames(weights) if layout in ("nvidia", "meshes", "vertices") else None
    back = times_of(backward)
    if layout == "nvidia":
        mixed = other_topology(frames)
        return {
            ("npy", "huge"): huge_npy((COUNT, 150, 3)),
            ("npy", "negative"): huge_npy((-5, 150, 3)),
            ("npy", "pickle"): pickled(),
            ("npy", "complex"): array_bytes(frames.astype(np.complex64)),
            ("pc2", "huge"): pc2_bytes(frames)[:28] + struct.pack("<i", 2**31 - 1),
            ("pc2", "negative"): pc2_bytes(frames)[:16] + struct.pack("<iffi", -9, 0, 30, -9),
            ("mc", "topology"): maya_bytes(mixed),
            ("mc", "backward"): maya_bytes(frames[:9], ticks=-200),
            ("mc", "huge"): maya_bytes(frames).replace(
                struct.pack(">i", 150), struct.pack(">i", 2**31 - 1)
            ),
        }
    if layout == "meshes":
        return {
            ("usda", "topology"): usda_bytes(other_topology(frames)),
            ("usda", "rate-0"): usda_bytes(frames, rate=0),
            ("usda", "rate-negative"): usda_bytes(frames, rate=-30),
            ("usda", "rate-huge"): usda_bytes(frames, rate=10**9),
            ("glb", "backward"): glb_bytes(weights, back),
            ("glb", "rate-huge"): glb_bytes(weights, np.arange(FRAMES) * 1e-9),
            ("glb", "nan-times"): glb_bytes(weights, back * np.nan),
            ("glb", "long"): glb_bytes(weights, np.arange(FRAMES) * 1e9),
            ("glb", "huge"): glb_bytes(weights, count=COUNT),
        }
    if layout == "vertices":
        arrays = dict(vertices=frames)
        return {
            ("npy", "huge"): huge_npy((COUNT, 450)),
            ("npy", "pickle"): pickled(),
            ("shared", "pickle"): pickled(),
            ("npz", "huge"): huge_npz(vertices=huge_npy((COUNT, 150, 3))),
            ("npz", "pickle"): huge_npz(vertices=pickled()),
            ("npz", "rate-0"): npz_bytes(**arrays, fps=0.0),
            ("npz", "rate-negative"): npz_bytes(**arrays, fps=-30.0),
            ("npz", "rate-huge"): npz_bytes(**arrays, fps=1e9),
            ("npz", "rate-nan"): npz_bytes(**arrays, fps=np.nan),
            ("npz", "backward"): npz_bytes(**arrays, times=back),
            ("npz", "counts"): npz_bytes(**arrays, times=back[:5]),
        }
    if layout == "table":
        many = npz_bytes(motion=np.zeros((3, 9)), names=names, fps=30)
        arrays = dict(motion=weights, names=names)
        return {
            ("csv", "backward"): csv_bytes(weights, back),
            ("csv", "rate-huge"): csv_bytes(weights, np.arange(FRAMES) * 1e-9),
            ("csv", "counts"): csv_bytes(weights)[:-9] + b"\n",
            ("csv", "columns"): csv_bytes(weights).replace(b"jawOpen", b"browInnerUp"),
            ("csv", "zeros"): csv_bytes(weights).replace(b"0.1", b"\0\0\0"),
            ("json", "rate-0"): json_bytes(weights, fps=0),
            ("json", "rate-negative"): json_bytes(weights, fps=-30),
            ("json", "rate-huge"): json_bytes(weights, fps=1e9),
            ("json", "backward"): json_bytes(weights, times=back.tolist()),
            ("json", "deep"): b'{"frames": ' + b"[" * 200_000,
            ("json", "infinite"): json_bytes(weights).replace(b"0.1", b"1e999"),
            ("npz", "counts"): many,
            ("npz", "rate-huge"): npz_bytes(**arrays, fps=1e9),
            ("npz", "rate-negative"): npz_bytes(**arrays, fps=-1.0),
            ("npz", "backward"): npz_bytes(**arrays, times=back),
            ("npz", "huge"): huge_npz(
                motion=huge_npy((COUNT, 4)), names=array_bytes(names), fps=array_bytes(30)
            ),
            ("npz", "pickle"): huge_npz(motion=pickled(), names=array_bytes(names)),
            ("npz", "words"): npz_bytes(**arrays, fps=30, emotion=np.array("jolly=2")),
        }
    rows = (made.path / "anna/good-csv_1_ph.csv").read_bytes().split(b"\n")[:-1]
    return {
        ("csv", "backward"): b"\n".join([rows[0], *rows[:0:-1]]),
        ("csv", "counts"): b"\n".join([*rows[:9], rows[9][:40], *rows[10:]]),
        ("csv", "nan-cells"): b"\n".join([rows[0], *(r[:20] + b"nan" + r[23:] for r in rows[1:])]),
        ("csv", "timecode"): b"\n".join([rows[0], *(b"99" + r[2:] for r in rows[1:])]),
    }


def add_damage(made):
    """Adds damaged takes to a set; returns (names of the bad, of the odd that are good)."""
    layout = made.layout
    bad, odd = [], []

    def of(kind, name):
        bad.append(name)
        return kind, name

    for kind in LAYOUTS[layout]:
        vertices = layout in VERTICES or kind in VERTICES
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
    first = LAYOUTS[layout][0]
    for what, damage in BYTES.items():
        damage(made.write(*of(first, f"{what}-sound"))[1])
        if layout == "livelink":
            damage(made.write(*of("mov", f"{what}-film"))[1])
    for what, sound in SOUND.items():
        made.write(*of(first, what), sound=sound)
    replaced(lambda data: data[:40] + struct.pack("<I", 2**31) + data[44:])(
        made.write(*of(first, "huge-sound"))[1]
    )
    for (kind, what), content in special(made, layout).items():
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


@pytest.mark.parametrize("layout", LAYOUTS)
def test_the_good_survive_and_the_bad_are_named(tmp_path, small, layout, capsys):
    made = Set(tmp_path / "set", layout, small)
    good = [f"good-{kind}" for kind in LAYOUTS[layout]]
    for kind, name in zip(LAYOUTS[layout], good, strict=True):
        made.write(kind, name)
    bad, odd = add_damage(made)
    code, manifest, printed = run(made.path, tmp_path / "out", capsys, "--layout", layout)
    assert code == 0, printed
    used, reasons = held(manifest), told(manifest)
    short = {take.partition("/")[2].removesuffix("_1_ph"): take for take in (*used, *reasons)}
    assert not [n for n in (*good, *odd) if short.get(n) not in used], reasons
    missed = {n: short.get(n) for n in bad if short.get(n) not in reasons}
    assert not missed
    for name in bad:
        reason = reasons[short[name]]
        assert "\n" not in reason and len(reason) < 1000, reason
        # Of a take that can be read, the measure is told that puts it aside; else the file.
        assert name in reason or name == "silence", reason
    report = json.loads((tmp_path / "out/quality.json").read_text(encoding="utf-8"))
    verdicts = {take["take"]: take["verdict"] for take in report["takes"]}
    page = (tmp_path / "out/quality.html").read_text(encoding="utf-8")
    for name in bad:
        assert verdicts[short[name]] in ("rejected", "quarantined")
        assert name in page
    assert all(verdicts[short[name]] == "used" for name in (*good, *odd))
