"""USD scenes and glTF documents of a few kilobytes that ask for gigabytes or hours."""

import json
import signal
import time

import numpy as np
import pytest

from a2fjax import budgets
from a2fjax.errors import InputError
from data_pipeline.mesh import morphs
from data_pipeline.sources import gltf, usd


def scene(prims):
    return f"#usda 1.0\n{prims}"


@pytest.fixture
def doubling(tmp_path):
    """A scene of 60 prims, each of which refers to the next one twice: 2^60 in all."""
    pytest.importorskip("pxr")
    path = tmp_path / "doubling.usda"
    child = 'def "{}" (\n references = </a{}>\n)\n{{\n}}\n'
    prims = (
        f'def "a{i}"\n{{\n{child.format("l", i + 1)}{child.format("r", i + 1)}}}\n'
        for i in range(60)
    )
    path.write_text(scene("".join(prims)))
    return path


def test_a_scene_is_composed_in_limited_time(doubling, monkeypatch):
    monkeypatch.setenv("A2F_BUDGET_USD_SECONDS", "2")
    with pytest.raises(InputError, match="A2F_BUDGET_USD_(SECONDS|GB)"):
        usd.read_usd(doubling)


def test_a_signal_ends_the_reading_of_a_scene(doubling, monkeypatch):
    """The library itself returns to Python only when it is done."""

    class Stopped(Exception):
        pass

    def stop(number, frame):
        raise Stopped

    monkeypatch.setenv("A2F_BUDGET_USD_SECONDS", "600")
    monkeypatch.setenv("A2F_BUDGET_USD_GB", "64")
    before = signal.signal(signal.SIGALRM, stop)
    began = time.monotonic()
    signal.setitimer(signal.ITIMER_REAL, 1.0)
    try:
        with pytest.raises(Stopped):
            usd.read_usd(doubling)
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)
    assert time.monotonic() - began < 30


def test_a_scene_has_a_number_of_layers(tmp_path, monkeypatch):
    pytest.importorskip("pxr")
    for i in range(30):
        (tmp_path / f"{i}.usda").write_text(f"#usda 1.0\n(\n subLayers = [@./{i + 1}.usda@]\n)\n")
    (tmp_path / "30.usda").write_text(scene('def Mesh "face" {}'))
    monkeypatch.setenv("A2F_BUDGET_LAYERS", "20")
    with pytest.raises(InputError, match="layers.*A2F_BUDGET_LAYERS"):
        usd.read_usd(tmp_path / "0.usda")


def document(count, targets, keys=2, last=1.0):
    """A glTF document of accessors without bytes, each of `count` zeros."""
    accessors = [{"componentType": 5126, "count": count, "type": "VEC3"}]
    return {
        "asset": {"version": "2.0"},
        "accessors": accessors,
        "meshes": [
            {
                "primitives": [
                    {"attributes": {"POSITION": 0}, "targets": [{"POSITION": 0}] * targets}
                ],
                "extras": {"targetNames": [f"t{i}" for i in range(targets)]},
            }
        ],
        "nodes": [{"mesh": 0}],
    }


@pytest.mark.parametrize(("count", "targets"), [(10**12, 1), (9_000_000, 4), (200_000, 2000)])
def test_accessors_unpack_to_a_multiple_of_the_file(tmp_path, count, targets):
    pytest.importorskip("pygltflib")
    path = tmp_path / "x.gltf"
    path.write_text(json.dumps(document(count, targets)))
    with pytest.raises(InputError, match="x.gltf: .*A2F_BUDGET_UNPACKED_(RATIO|GB)"):
        morphs.read_morphs(path)


def test_an_animation_has_a_number_of_frames(tmp_path):
    """Two keys a century apart."""
    keys = np.array([0.0, 3e9])
    path = tmp_path / "x.glb"
    path.write_bytes(b"")
    with pytest.raises(InputError, match="A2F_BUDGET_FRAMES_MILLIONS"):
        gltf._sample(path, keys, np.zeros(2), 1, "LINEAR")


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("[" * 100_000, "nesting"),
        (json.dumps({"nodes": [{}] * 200_000}), "A2F_BUDGET_NODES"),
        ("{", "not JSON"),
    ],
)
def test_the_text_of_a_document_is_within_the_budgets(tmp_path, text, expected):
    pytest.importorskip("pygltflib")
    path = tmp_path / "x.gltf"
    path.write_text(text)
    with pytest.raises(InputError, match=expected):
        morphs.open_document(path)
    data = text.encode()
    head = b"glTF" + (2).to_bytes(4, "little") + (20 + len(data)).to_bytes(4, "little")
    path.write_bytes(head + len(data).to_bytes(4, "little") + b"JSON" + data)
    with pytest.raises(InputError, match=expected):
        morphs.open_document(path)


def test_the_probe_fits_into_its_memory(tmp_path, monkeypatch):
    """The library itself reserves address space."""
    pytest.importorskip("pxr")
    assert budgets.budget("usd_gb") <= 2
    points = ", ".join(f"({i}, {i * i}, 1)" for i in range(9))
    samples = ", ".join(f"{code}: [{points}]" for code in range(3))
    path = tmp_path / "x.usda"
    prims = f'def Mesh "face"\n{{\n point3f[] points.timeSamples = {{ {samples} }}\n}}\n'
    path.write_text(scene(prims))
    assert usd.read_usd(path).vertices.shape == (3, 9, 3)
