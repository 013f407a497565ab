"""The examples run, each in a fresh process; they share one folder, so that data are made once."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

EXAMPLES = Path(__file__).parents[2] / "examples"
# The first ones make the data and the run that the others use.
ORDER = ("load_and_plot", "train", "own_loss", "own_data")
# tests/export runs the programs that animate a recording, or a live one, with a bundle.
NO_NOTEBOOKS = {"tiny_data", "animate_numpy", "stream_numpy", "denoise_numpy", "blender_import"}


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return tmp_path_factory.mktemp("examples")


def test_every_example_is_run():
    assert {p.stem for p in EXAMPLES.glob("*.py")} == {*NO_NOTEBOOKS, *ORDER}


@pytest.mark.parametrize("name", ORDER)
@pytest.mark.slow
def test_an_example_runs(folder, name):
    pytest.importorskip("matplotlib")
    environment = {**os.environ, "A2F_EXAMPLES": str(folder), "MPLBACKEND": "agg"}
    done = subprocess.run(
        [sys.executable, str(EXAMPLES / f"{name}.py")],
        capture_output=True, text=True, env=environment, cwd=folder,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    if name == "load_and_plot":
        assert (folder / "motion.png").stat().st_size > 10_000
        assert len((folder / "motion.channels.csv").read_text().splitlines()) == 181
    if name == "train":
        assert "jaw+mouth RMSE" in done.stdout and (folder / "report.json").is_file()
    if name == "own_loss":
        before, after = map(float, done.stdout.split("jerk ")[-1].split(" to "))
        assert after < before
    if name == "own_data":
        assert "9 clips" in done.stdout and "150 frames" in done.stdout


@pytest.mark.parametrize("path", sorted(EXAMPLES.glob("*.py")), ids=lambda p: p.stem)
def test_examples_are_notebooks(path):
    """Cells are marked as Jupyter, VS Code and jupytext read them; the first says what it is."""
    text = path.read_text()
    if path.stem not in NO_NOTEBOOKS:
        assert text.startswith("# %% [markdown]\n# # ") and text.count("\n# %%\n") >= 2
