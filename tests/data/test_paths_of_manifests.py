"""Manifests and indices name files of their own folder only."""

import dataclasses
import json

import pytest

from a2fjax.data import records
from a2fjax.encoders.whisper import weights
from a2fjax.errors import InputError


@pytest.fixture
def folder(tmp_path):
    (tmp_path / "set").mkdir()
    (tmp_path / "a.arrayrecord").touch()
    (tmp_path / "set" / "a.arrayrecord").touch()
    subjects = [records.Subject("a", "subjects/a.npz", False)]
    shard = records.Shard("a.arrayrecord", [])
    manifest = records.Manifest(subjects, [shard], [True] * 72, {}, True, {})
    records.write_manifest(tmp_path / "set", manifest)
    return tmp_path / "set"


def change(folder, kind, key, value):
    values = dataclasses.asdict(records.read_manifest(folder))
    values[kind][0][key] = value
    (folder / "manifest.json").write_text(json.dumps(values))


@pytest.mark.parametrize("name", ["../a.arrayrecord", "/etc/passwd", "sub/a.arrayrecord", "", "."])
def test_shards(folder, name):
    change(folder, "shards", "file", name)
    with pytest.raises(InputError, match=r"manifest.json: shards\[0\].file: .*expected a file"):
        records.read_manifest(folder)


@pytest.mark.parametrize("name", ["../a.npz", "/a.npz", "subjects/../../a.npz", "a\0.npz"])
def test_meshes(folder, name):
    change(folder, "subjects", "mesh", name)
    with pytest.raises(InputError, match=r"manifest.json: subjects\[0\].mesh: .*expected a path"):
        records.read_manifest(folder)


def test_indices_of_weights(tmp_path):
    (tmp_path / "model").mkdir()
    (tmp_path / "other.safetensors").touch()
    index = tmp_path / "model" / "model.safetensors.index.json"
    for name in ("../other.safetensors", str(tmp_path / "other.safetensors"), 7):
        index.write_text(json.dumps({"weight_map": {"w": name}}))
        with pytest.raises(InputError, match="weight_map: .* expected a file|7: no such file"):
            weights._read_safetensors(index)
