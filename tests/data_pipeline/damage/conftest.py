"""Small sets of captures of every layout, good ones, written without what reads them."""

import io
import json
import struct
import sys
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


@pytest.fixture(scope="session")
def writers():
    """This module: the bytes of every kind of file."""
    return sys.modules[__name__]


@pytest.fixture(scope="session")
def make_set(head):
    """A function of (path, layout) that begins a set: see `Set`."""
    small = head.neutral[::3], head.deltas[:, ::3], head.names
    return lambda path, layout: Set(path, layout, small)


@pytest.fixture
def run(capsys):
    """Builds in this process; returns (exit code, manifest or None, all that was printed)."""

    def build_it(path, out, *more):
        arguments = [str(path), f"--out={out}", "--workers=0", "--config.offset=0", *more]
        code = build.main(arguments)
        said = capsys.readouterr()
        printed = said.out + said.err
        assert "Traceback" not in printed and not any(len(x) > 2000 for x in printed.splitlines())
        return code, records.read_manifest(out) if code == 0 else None, printed

    return build_it


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
        self.kinds = LAYOUTS[layout]
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

    def has_vertices(self, kind):
        return self.layout in VERTICES or kind in VERTICES

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
        data = self.frames(weights) if self.has_vertices(kind) else weights
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
            with heard.open("wb") as file:  # the library takes no names that are not Unicode
                soundfile.write(file, audio, RATE, "FLOAT", format="WAV")
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
