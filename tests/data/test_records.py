import dataclasses
import json

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from a2fjax import rig
from a2fjax.audio import num_frames
from a2fjax.data import records
from a2fjax.errors import InputError


def make_clip(samples=3211, seed=0, **changes):
    rng = np.random.default_rng(seed)
    frames = num_frames(samples)
    emotion = rng.dirichlet(np.ones(5), frames).astype(np.float32)
    values = {
        "id": "anna/take_1",
        "subject": "anna",
        "sentence": "s1",
        "language": "en",
        "split": "train",
        "audio": rng.uniform(-1, 1, samples).astype(np.float32),
        "motion": rng.uniform(0, 1, (frames, 72)).astype(np.float32),
        "channel_mask": rng.uniform(size=72) > 0.2,
        "frame_mask": rng.uniform(size=frames) > 0.1,
        "emotion": emotion,
        "speech_level": 0.05,
        "synthetic": True,
        "extra": {"offset": 0.01},
    }
    return records.Clip(**(values | changes))


@settings(max_examples=20, deadline=None)
@given(st.integers(1, 4000), st.integers(0, 100))
def test_a_clip_survives_the_record(samples, seed):
    clip = make_clip(samples, seed)
    back = records.decode(records.encode(clip))
    for field in dataclasses.fields(records.Clip):
        a, b = getattr(clip, field.name), getattr(back, field.name)
        if field.name == "audio":
            np.testing.assert_allclose(a, b, atol=1 / 65534 + 1e-6)
        elif isinstance(a, np.ndarray):
            np.testing.assert_array_equal(a, b)
        else:
            assert a == b
    assert back.frames == -(-samples // 320)


@settings(max_examples=60, deadline=None)
@given(st.data())
def test_any_damage_is_noticed(data):
    record = bytearray(records.encode(make_clip(700)))
    if data.draw(st.booleans()):
        record = record[: data.draw(st.integers(0, len(record) - 1))]
    else:
        at = data.draw(st.integers(0, len(record) - 1))
        record[at] ^= data.draw(st.integers(1, 255))
    with pytest.raises(records.BadRecord):
        records.decode(bytes(record))


def test_what_does_not_fit_is_not_written():
    clip = make_clip()
    with pytest.raises(ValueError, match="motion has shape"):
        records.encode(dataclasses.replace(clip, motion=clip.motion[:-1]))
    bad = clip.motion.copy()
    bad[0, 0] = np.nan
    with pytest.raises(ValueError, match="anna/take_1: motion has values that are not finite"):
        records.encode(dataclasses.replace(clip, motion=bad))


def manifest(**changes):
    entry = {"id": "a/1", "subject": "a", "sentence": "s", "split": "train", "frames": 10}
    values = {
        "subjects": [records.Subject("anna", None, False)],
        "shards": [records.Shard("clips-00000-of-00001.arrayrecord", [entry])],
        "channel_mask": [True] * 72,
        "statistics": {},
        "synthetic": True,
        "source": {},
    }
    return records.Manifest(**(values | changes))


def test_manifest_round_trip_and_refusals(tmp_path):
    with pytest.raises(InputError, match="does not exist"):
        records.read_manifest(tmp_path / "none")
    with pytest.raises(InputError, match="no manifest.json"):
        records.read_manifest(tmp_path)
    records.write_manifest(tmp_path, manifest())
    with pytest.raises(InputError, match="clips-00000-of-00001.arrayrecord.*missing"):
        records.read_manifest(tmp_path)
    (tmp_path / "clips-00000-of-00001.arrayrecord").write_bytes(b"")
    back = records.read_manifest(tmp_path)
    assert back == manifest()
    assert back.entries("train")[0]["id"] == "a/1"
    assert back.entries("val") == []
    records.check_split("train", [back, back], ["a", "b"])
    with pytest.raises(InputError, match="a, b: no clips in split 'val'.*train"):
        records.check_split("val", [back, back], ["a", "b"])
    with pytest.raises(InputError, match="'ana'.*'anna'"):
        back.subject("ana")
    records.write_manifest(tmp_path, manifest(rig="0" * 16))
    with pytest.raises(InputError, match=rig.FINGERPRINT):
        records.read_manifest(tmp_path)
    (tmp_path / "manifest.json").write_text(json.dumps({"schema": 99}))
    with pytest.raises(InputError, match="schema 99"):
        records.read_manifest(tmp_path)


def test_meshes_are_checked(tmp_path):
    path = tmp_path / "m.npz"
    vertices = np.random.default_rng(0).normal(size=(9, 3)).astype(np.float32)
    faces = np.array([[0, 1, 2], [3, 4, 8]])
    records.write_mesh(path, vertices, faces)
    v, f = records.read_mesh(path)
    np.testing.assert_array_equal(v, vertices)
    np.testing.assert_array_equal(f, faces)
    for bad_vertices, bad_faces, says in [
        (np.zeros((0, 3)), np.zeros((0, 3)), "0 vertices"),
        (np.full((9, 3), np.nan), faces, "not finite"),
        (np.zeros((9, 3)), faces, "one point"),
        (vertices, faces - 1, "names vertex -1"),
        (vertices, np.array([[0, 1, 9]]), "vertex 9"),
    ]:
        records.write_mesh(path, bad_vertices, bad_faces)
        with pytest.raises(InputError, match=says):
            records.read_mesh(path)
    records.write_mesh(path, vertices, faces)
    path.write_bytes(path.read_bytes()[:-40])
    with pytest.raises(InputError, match="not a mesh file"):
        records.read_mesh(path)
    path.write_bytes(b"not a mesh")
    with pytest.raises(InputError, match="not a mesh file"):
        records.read_mesh(path)
