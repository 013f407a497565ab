import numpy as np
import pytest

from a2fjax import shape
from a2fjax.data import identity, kept, pose


@pytest.fixture
def place(tmp_path, monkeypatch):
    monkeypatch.setenv("A2F_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache"


def test_what_is_kept_is_found_and_damage_is_not(place):
    array = np.arange(6, dtype=np.float32).reshape(2, 3)
    assert kept.find("a", (2, 3)) is None
    kept.keep("a", array)
    assert (kept.find("a", (2, 3)) == array).all() and kept.find("a", (3, 2)) is None
    (place / "a.npy").write_bytes((place / "a.npy").read_bytes()[:-5])
    assert kept.find("a", (2, 3)) is None
    kept.keep("b", np.full((2, 3), np.nan, np.float32))
    assert kept.find("b", (2, 3)) is None
    np.save(place / "c.npy", np.array([{}], object), allow_pickle=True)
    assert kept.find("c", (1,)) is None


def test_a_place_that_cannot_be_written_is_as_none(tmp_path, monkeypatch):
    (tmp_path / "file").write_text("")
    for text in (str(tmp_path / "file" / "cache"), ""):
        monkeypatch.setenv("A2F_CACHE", text)
        kept.keep("a", np.zeros(3, np.float32))
        assert kept.find("a", (3,)) is None
    monkeypatch.delenv("A2F_CACHE")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    assert kept.folder() == tmp_path / "a2fjax"


def test_points_of_a_mesh_are_computed_once_on_a_machine(place, build, monkeypatch):
    vertices, faces = build.head(4)
    first = identity.sample_points(vertices, faces, 16)
    assert len(list(place.glob("points-*.npy"))) == 1
    monkeypatch.setattr(identity, "_FOUND", {})
    monkeypatch.setattr(identity, "_sample", None)
    assert (identity.sample_points(vertices, faces, 16) == first).all()
    # Another code would make other points.
    asked = []
    monkeypatch.setattr(kept, "code", lambda modules: (asked.extend(modules), b"other")[1])
    monkeypatch.setattr(identity, "_FOUND", {})
    with pytest.raises(TypeError):
        identity.sample_points(vertices, faces, 16)
    assert set(asked) == {identity, pose, shape}
