"""The example of a capture layout: a package beside ours, from recognition to shards."""

import shutil
import sys
from pathlib import Path

import numpy as np
import pytest
import soundfile

from a2fjax import registry, rig
from a2fjax.data import records
from a2fjax.errors import EXIT_BAD_INPUT, EXIT_OK
from data_pipeline import build
from data_pipeline.execution import content_key

PACKAGE = "a2f_example_source"


@pytest.fixture
def plugin(tmp_path, monkeypatch):
    """A copy of the package on the path, as after `pip install`; forgotten after the test."""
    site = tmp_path / "site"
    shutil.copytree(Path(__file__).parent / PACKAGE / PACKAGE, site / PACKAGE)
    monkeypatch.syspath_prepend(site)
    # Worker processes inherit the path; those of an array job get it from PYTHONPATH.
    yield site / PACKAGE
    registry.sources._entries.pop("arkit_npy", None)
    for name in [n for n in sys.modules if n.partition(".")[0] == PACKAGE]:
        del sys.modules[name]


@pytest.fixture(scope="module")
def captures(tmp_path_factory):
    """Two subjects with two takes of syllables each; the jaw follows the loudness."""
    folder = tmp_path_factory.mktemp("captures")
    for seed, (subject, take) in enumerate((s, t) for s in ("ann", "bob") for t in ("one", "two")):
        rng = np.random.default_rng(seed)
        syllables = np.tile(rng.permutation([0.0, 1.0, 0.6]), 5)[:13]
        loudness = np.interp(np.arange(48_000) / 16_000, np.arange(13) / 4, syllables)
        (folder / subject).mkdir(exist_ok=True)
        noise = 0.2 * loudness**2 * rng.normal(size=48_000)
        soundfile.write(folder / subject / f"{take}.wav", noise + 1e-4, 16_000)
        weights = np.zeros((180, len(rig.ARKIT)), np.float32)
        weights[:, rig.ARKIT.index("jawOpen")] = 0.8 * loudness[:: 16_000 // 60][:180]
        weights[:, rig.ARKIT.index("browInnerUp")] = 0.3 + 0.2 * np.sin(np.arange(180) / 9)
        np.save(folder / subject / f"{take}.arkit.npy", weights)
    return folder


def run(captures, out, *arguments):
    return build.main([str(captures), "--out", str(out), f"--config.plugins={PACKAGE}", *arguments])


def test_a_layout_of_another_package_becomes_shards(plugin, captures, tmp_path, capsys):
    out = tmp_path / "shards"
    assert run(captures, out, "--workers", "2") == EXIT_OK
    assert "layout arkit_npy (4 takes named *.arkit.npy)" in capsys.readouterr().out
    manifest = records.read_manifest(out)
    assert manifest.source["layout"] == "arkit_npy"
    assert manifest.source["settings"]["plugins"] == [PACKAGE]
    assert {s.id for s in manifest.subjects} == {"ann", "bob"}
    assert sum(len(s.clips) for s in manifest.shards) == 4
    moving = {c for c, m in zip(rig.CHANNELS, manifest.channel_mask, strict=True) if m}
    assert moving == {"jawOpen", "browInnerUp"}


def test_array_elements_find_the_plugin_and_its_code_is_in_the_content_key(
    plugin, captures, tmp_path, capsys
):
    out = tmp_path / "shards"
    for part in ("1/2", "2/2"):
        assert run(captures, out, "--part", part, "--workers", "0") == EXIT_OK
    assert run(captures, out, "--finish", "--workers", "0") == EXIT_OK
    assert "4 of 4 takes are done already" in capsys.readouterr().out
    before = content_key.layout_digest("arkit_npy")
    source = plugin / "source.py"
    source.write_text(source.read_text() + "\n# changed\n")
    assert content_key.layout_digest("arkit_npy") != before
    # Nothing that the old code has read counts as done.
    assert run(captures, out, "--finish", "--workers", "0") == EXIT_BAD_INPUT
    assert "4 of 4 takes are not solved yet" in capsys.readouterr().err
    assert content_key.layout_digest("table") == ""


def test_mistakes_are_one_line(plugin, captures, tmp_path, capsys):
    for arguments, message in (
        (["--layout", "arkit_npz"], "unknown capture layout 'arkit_npz'; did you mean 'arkit_npy'"),
        (["--plugins", "no_such_package"], "plugins: 'no_such_package' cannot be imported"),
    ):
        assert run(captures, tmp_path / "shards", *arguments) == EXIT_BAD_INPUT
        (line,) = capsys.readouterr().err.splitlines()
        assert message in line
    assert not (tmp_path / "shards").exists()
