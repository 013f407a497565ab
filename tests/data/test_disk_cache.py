import numpy as np
import pytest

from a2fjax import mesh_descriptor, user_cache
from a2fjax.data import records
from a2fjax.data.identity import (
    canonical_pose,
    disk_cache,
    even_samples,
    matching,
    parallel,
    points,
    surface,
)


@pytest.fixture
def folder(tmp_path, monkeypatch):
    monkeypatch.setenv("A2F_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache"


def test_stored_arrays_are_found_and_damaged_ones_are_not(folder):
    array = np.arange(6, dtype=np.float32).reshape(2, 3)
    assert disk_cache.find("a", (2, 3)) is None
    disk_cache.store("a", array)
    assert (disk_cache.find("a", (2, 3)) == array).all() and disk_cache.find("a", (3, 2)) is None
    path = folder / "a.npz"
    whole = path.read_bytes()
    at = whole.index(array.tobytes())
    for damaged in (whole[:-5], whole[:at] + bytes([whole[at] ^ 1]) + whole[at + 1 :]):
        path.write_bytes(damaged)
        assert disk_cache.find("a", (2, 3)) is None
    disk_cache.store("b", np.full((2, 3), np.nan, np.float32))
    assert disk_cache.find("b", (2, 3)) is None
    np.savez(folder / "c.npz", array=np.array([{}], object))
    assert disk_cache.find("c", (1,)) is None


def test_a_folder_that_cannot_be_written_counts_as_empty(tmp_path, monkeypatch):
    (tmp_path / "file").write_text("")
    for text in (str(tmp_path / "file" / "cache"), "", "off"):
        monkeypatch.setenv("A2F_CACHE", text)
        disk_cache.store("a", np.zeros(3, np.float32))
        assert disk_cache.find("a", (3,)) is None
    monkeypatch.delenv("A2F_CACHE")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    assert user_cache.folder() == tmp_path / "a2fjax"


def test_points_of_a_mesh_are_computed_once_on_a_machine(folder, build, monkeypatch):
    vertices, faces = build.head(4)
    first = points.sample_points(vertices, faces, 16)
    assert len(list(folder.glob("points-*.npz"))) == 1
    monkeypatch.setattr(points, "_FOUND", {})
    monkeypatch.setattr(points, "_sample", None)
    assert (points.sample_points(vertices, faces, 16) == first).all()
    # Another code would make other points.
    asked = []
    monkeypatch.setattr(
        disk_cache, "code_digest", lambda modules: (asked.extend(modules), b"other")[1]
    )
    monkeypatch.setattr(points, "_FOUND", {})
    with pytest.raises(TypeError):
        points.sample_points(vertices, faces, 16)
    assert set(asked) == {
        points,
        canonical_pose,
        even_samples,
        matching,
        surface,
        mesh_descriptor,
    }


def test_points_of_many_meshes_are_computed_by_other_processes(
    folder, build, tmp_path, monkeypatch
):
    monkeypatch.setattr(parallel, "_LEAST", 2)
    monkeypatch.setattr(points, "_FOUND", {})
    paths = [tmp_path / f"{i}.npz" for i in range(2)]
    for i, path in enumerate(paths):
        records.write_mesh(path, *build.head(4 + i))
    parallel.prepare([*paths, tmp_path / "none.npz"], 16)
    assert len(list(folder.glob("points-*.npz"))) == 2
    assert all(points.is_cached(path, 16) for path in paths)
    monkeypatch.setattr(points, "_sample", None)
    assert points.mesh_points(paths[0], 16).shape == (16, 3)
    monkeypatch.setattr(parallel, "_run", None)
    parallel.prepare(paths, 16)  # nothing is missing
