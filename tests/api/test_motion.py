"""Motions are looked at, resampled and written."""

import sys
from fractions import Fraction

import numpy as np
import pytest

import a2fjax as a2f
from a2fjax import registry, rig
from a2fjax.animation import formats, tracks


@pytest.fixture
def motion():
    rng = np.random.default_rng(0)
    low = -rng.random(100)
    emotion = np.tile(np.eye(5)[1], (100, 1))
    return a2f.Motion(
        rng.random((100, 72)), waveform=(low, -low), emotion=emotion, title="a line",
        metadata={"audio": "in.wav"},
    )  # fmt: skip


def test_curves_have_names_units_and_times(motion):
    assert motion.channels == rig.CHANNELS and len(motion.units) == 72
    assert motion["jawOpen"].shape == (100,) and motion.times[-1] == pytest.approx(1.98)
    np.testing.assert_array_equal(motion["jawOpen"], motion.to_numpy()[:, rig.INDEX["jawOpen"]])
    assert repr(motion) == "<Motion of a line: 100 frames, 50 fps, 2.00 s>"
    with pytest.raises(a2f.InputError, match="jawOpen"):
        motion["jawOpn"]
    with pytest.raises(a2f.InputError, match=r"expected \[frames, 72\]"):
        a2f.Motion(np.zeros((4, 3)))


@pytest.mark.parametrize("fps", [60, "59.94", 25.0, Fraction(24000, 1001)])
def test_resampling_keeps_the_duration(motion, fps):
    other = motion.resample(fps)
    assert other.fps == tracks.rate(fps)
    assert abs(other.seconds - motion.seconds) < 1 / float(other.fps)
    np.testing.assert_allclose(other.curves[0], motion.curves[0])
    assert len(other.waveform[0]) == len(other.emotion) == len(other)


@pytest.mark.parametrize("name", ["x.csv", "x.channels.csv", "x.json", "x.npz"])
def test_what_is_saved_is_read_back(motion, tmp_path, name):
    path = motion.save(tmp_path / name)
    again = a2f.Motion.read(path)
    observed = again.observed
    assert observed.sum() == (56 if name == "x.csv" else 72)
    assert again.fps == 50 and np.abs(again.curves - motion.curves)[:, observed].max() < 1e-5
    assert len(a2f.Motion.read(motion.save(path, fps=60))) == 120


def test_a_registered_format_writes_motion(motion, tmp_path, monkeypatch):
    monkeypatch.setattr(registry.writers, "_entries", dict(registry.writers._entries))

    @registry.writers.register(".jaw.txt")
    class JawFormat:
        def __init__(self, path, header):
            self.file = open(path, "w")
            self.file.write(f"{header.fps} {header.frames}\n")

        def write(self, motion):
            for value in motion[:, rig.INDEX["jawOpen"]]:
                self.file.write(f"{value:.3f}\n")

        def close(self):
            self.file.close()

        abandon = close

    lines = motion.save(tmp_path / "x.jaw.txt", fps=25).read_text().split()
    assert lines[:2] == ["25", "50"] and float(lines[2]) == pytest.approx(
        motion["jawOpen"][0], abs=1e-3
    )
    with pytest.raises(a2f.InputError, match="are written, not read"):
        a2f.Motion.read(tmp_path / "x.jaw.txt")
    assert formats.ending("y.JAW.txt") == ".jaw.txt"


def test_a_figure_switches_no_backend_and_a_notebook_shows_it(motion, tmp_path):
    matplotlib = pytest.importorskip("matplotlib")
    matplotlib.use("svg", force=True)
    figure = motion.plot(seconds=(0.5, 1.5))
    assert matplotlib.get_backend() == "svg" and "matplotlib.pyplot" not in figure.__module__
    assert figure._repr_png_().startswith(b"\x89PNG")
    names = [axis.get_ylabel() for axis in figure.axes]
    assert names == ["sound", "aperture", "jaw", "lips", "expression", "blink", "emotion"]
    figure.savefig(tmp_path / "x.svg")
    plain = a2f.Motion(motion.curves).plot()
    assert [axis.get_ylabel() for axis in plain.axes] == names[1:-1]
    with pytest.raises(a2f.InputError, match="nothing to draw from 5 to 6 s"):
        motion.plot(seconds=(5, 6))


def test_pandas_is_optional(motion, monkeypatch):
    monkeypatch.setitem(sys.modules, "pandas", None)
    with pytest.raises(a2f.InputError, match="pip install .a2fjax.view"):
        motion.to_pandas()


def test_a_table_has_a_column_a_channel(motion):
    table = motion.to_pandas()
    assert list(table.columns) == list(rig.CHANNELS) and table.index.name == "time"
    np.testing.assert_array_equal(table["jawOpen"], motion["jawOpen"])
