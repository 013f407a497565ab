import numpy as np
import pytest

from a2fjax.data import records
from a2fjax.errors import InputError
from a2fjax.infer import identity

VERTICES = np.array([[0, 0, 0], [1, 0, 0], [0, 1, 0], [0, 0, 1]], np.float32)
FACES = np.array([[0, 1, 2], [0, 1, 3]], np.int32)


@pytest.fixture
def shards(tmp_path):
    folder = tmp_path / "shards"
    records.write_mesh(folder / "subjects" / "anna.npz", VERTICES, FACES)
    subjects = [
        records.Subject("anna", "subjects/anna.npz", False),
        records.Subject("ben", None, True),
    ]
    records.write_manifest(
        folder, records.Manifest(subjects, [], [True] * 72, {}, True, {"builder": "test"})
    )
    return folder


def test_a_mesh_file_or_a_subject(shards, tmp_path):
    for text in (str(shards / "subjects" / "anna.npz"), "anna"):
        vertices, faces = identity.load_mesh(text, [tmp_path / "gone", shards])
        assert np.array_equal(vertices, VERTICES) and np.array_equal(faces, FACES)


def test_what_is_not_there(shards, tmp_path):
    for text, message in (
        ("ana", "'ana': no such mesh file or subject; did you mean 'anna'"),
        ("ben", "'ben' has no neutral mesh"),
        ("anna.npz", "no such file"),
    ):
        with pytest.raises(InputError, match=message):
            identity.load_mesh(text, [shards])
    with pytest.raises(InputError, match="shards not found: .*gone.*--data"):
        identity.load_mesh("anna", [tmp_path / "gone"])
