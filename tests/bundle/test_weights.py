import numpy as np
import pytest

from a2fjax.bundle import weights
from a2fjax.errors import InputError
from a2fjax.models.params import paths

VARIABLES = {
    "params": {"head": {"kernel": np.arange(6, dtype=np.float32).reshape(2, 3)}},
    "constants": {"subjects": np.zeros((0, 1), np.uint8), "count": np.int32(3)},
}


def test_variables_go_there_and_back(tmp_path):
    path = tmp_path / "model.safetensors"
    weights.save(path, VARIABLES, {"rig": "x"})
    found = dict(paths(weights.load(path)))
    for name, leaf in paths(VARIABLES):
        assert found[name].dtype == leaf.dtype and found[name].shape == np.shape(leaf)
        np.testing.assert_array_equal(found[name], leaf)


def test_the_same_weights_are_the_same_bytes(tmp_path):
    for name in "ab":
        weights.save(tmp_path / name, VARIABLES, {"rig": "x", "license": "y", "more": "z"})
    assert (tmp_path / "a").read_bytes() == (tmp_path / "b").read_bytes()


def test_others_may_read_the_file_as_the_mask_says(tmp_path):
    weights.save(tmp_path / "a", VARIABLES, {})
    (tmp_path / "plain").write_bytes(b"")
    assert (tmp_path / "a").stat().st_mode == (tmp_path / "plain").stat().st_mode


def test_damage_is_one_line(tmp_path):
    path = tmp_path / "model.safetensors"
    with pytest.raises(InputError, match="no such file"):
        weights.load(path)
    path.write_bytes(b"not safetensors at all")
    with pytest.raises(InputError, match="not safetensors, or damaged"):
        weights.load(path)
    weights.save(path, {"a": np.zeros(1), "a.b": np.zeros(1)}, {})
    with pytest.raises(InputError, match="the name of a group"):
        weights.load(path)
