import numpy as np
import pytest

from a2fjax import mesh_descriptor
from a2fjax.data.identity import canonical_pose, disk_cache, points


@pytest.fixture
def place(tmp_path, monkeypatch):
    monkeypatch.setenv("A2F_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache"


def test_what_is_kept_is_found_and_damage_is_not(place):
    array = np.arange(6, dtype=np.float32).reshape(2, 3)
    assert disk_cache.find("a", (2, 3)) is None
    disk_cache.keep("a", array)
    assert (disk_cache.find("a", (2, 3)) == array).all() and disk_cache.find("a", (3, 2)) is None
    (place / "a.npy").write_bytes((place / "a.npy").read_bytes()[:-5])
    assert disk_cache.find("a", (2, 3)) is None
    disk_cache.keep("b", np.full((2, 3), np.nan, np.float32))
    assert disk_cache.find("b", (2, 3)) is None
    np.save(place / "c.npy", np.array([{}], object), allow_pickle=True)
    assert disk_cache.find("c", (1,)) is None


def test_a_place_that_cannot_be_written_is_as_none(tmp_path, monkeypatch):
    (tmp_path / "file").write_text("")
    for text in (str(tmp_path / "file" / "cache"), ""):
        monkeypatch.setenv("A2F_CACHE", text)
        disk_cache.keep("a", np.zeros(3, np.float32))
        assert disk_cache.find("a", (3,)) is None
    monkeypatch.delenv("A2F_CACHE")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    assert disk_cache.folder() == tmp_path / "a2fjax"


def test_points_of_a_mesh_are_computed_once_on_a_machine(place, build, monkeypatch):
    vertices, faces = build.head(4)
    first = points.sample_points(vertices, faces, 16)
    assert len(list(place.glob("points-*.npy"))) == 1
    monkeypatch.setattr(points, "_FOUND", {})
    monkeypatch.setattr(points, "_sample", None)
    assert (points.sample_points(vertices, faces, 16) == first).all()
    # Another code would make other points.
    asked = []
    monkeypatch.setattr(disk_cache, "code", lambda modules: (asked.extend(modules), b"other")[1])
    monkeypatch.setattr(points, "_FOUND", {})
    with pytest.raises(TypeError):
        points.sample_points(vertices, faces, 16)
    assert set(asked) == {points, canonical_pose, mesh_descriptor}
