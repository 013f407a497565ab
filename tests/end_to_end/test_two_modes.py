"""One recording, two motions that go with it: each is sampled, where regression gives the mean."""

import importlib.util
import sys
from pathlib import Path

import numpy as np
import pytest

ROOT = Path(__file__).resolve().parents[2]


def script(name):
    spec = importlib.util.spec_from_file_location(name, ROOT / "benchmarks" / f"{name}.py")
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module  # dataclasses look their module up
    spec.loader.exec_module(module)
    return module


toy = script("two_modes")


def test_motions_are_placed_on_the_line_between_the_modes():
    up, down = toy.modes()
    line = np.stack([down, up, 0.5 * (up + down), 0.1 * up + 0.9 * down])
    np.testing.assert_allclose(toy.place(line), [0.0, 1.0, 0.5, 0.1], atol=1e-6)
    found = toy.shares(line)
    assert (found.up, found.down) == (0.25, 0.5) and found.between == pytest.approx(0.25)


def test_regression_gives_the_mean_of_both():
    mean = toy.takes(*toy.train("regression", 150, items=16, rate=1e-2), 2)
    np.testing.assert_array_equal(mean[0], mean[1])
    np.testing.assert_allclose(mean[0], toy.modes().mean(0), atol=0.05)
    assert toy.place(mean)[0] == pytest.approx(0.5, abs=0.05)


@pytest.mark.slow
def test_diffusion_gives_both_in_proportion_and_hardly_anything_between(tmp_path):
    sampled = toy.takes(*toy.train("diffusion", 120, items=96), 128)
    found = toy.shares(sampled)
    assert 0.35 < found.up < 0.65 and 0.35 < found.down < 0.65
    assert found.between <= 0.03
    # Each is the motion itself: the other one's brows are still.
    up, down = toy.modes()
    rises = toy.place(sampled) > 0.5
    for takes, mode in ((sampled[rises], up), (sampled[~rises], down)):
        assert np.abs(takes - mode).mean((1, 2)).max() < 0.01
        np.testing.assert_allclose(takes.mean(0), mode, atol=0.06)
    pytest.importorskip("matplotlib")
    toy.draw(tmp_path / "picture.png", sampled, toy.modes().mean(0))
    assert (tmp_path / "picture.png").read_bytes()[:4] == b"\x89PNG"
