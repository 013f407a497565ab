"""The whole demo as `make demo` runs it, on a corpus of a minute."""

import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import soundfile

from a2fjax.animation import formats
from a2fjax.data import records
from a2fjax.training import checkpoints

ROOT = Path(__file__).resolve().parents[2]
SIZE = ("--minutes=1", "--subjects=4", "--steps=10")


def demo(folder, *more):
    command = [sys.executable, "-m", "data_pipeline.demo.run", f"--folder={folder}", *SIZE, *more]
    return subprocess.run(
        command,
        cwd=ROOT,
        env={**os.environ, "JAX_PLATFORMS": "cpu"},
        capture_output=True,
        text=True,
        timeout=600,
    )


def processor_seconds():
    """Processor time of child processes that have ended: a busy machine does not change it."""
    spent = os.times()
    return spent.children_user + spent.children_system


def state(*folders):
    """Size and time of every file, but for the locks that processes hold while they work."""
    return {
        p: (p.stat().st_size, p.stat().st_mtime_ns)
        for folder in folders
        for p in ([folder] if folder.is_file() else sorted(folder.rglob("*")))
        if p.is_file() and p.name != "lock"
    }


@pytest.mark.slow
def test_the_whole_demo_and_then_again(tmp_path):
    pytest.importorskip("espeakng_loader", reason="the demo extra is not installed")
    folder = tmp_path / "demo"
    first = demo(folder)
    assert first.returncode == 0, first.stdout + first.stderr
    manifest = records.read_manifest(folder / "shards")
    assert manifest.synthetic and manifest.entries("train") and manifest.entries("test_subjects")
    assert checkpoints.steps(folder / "run") == [10]
    report = json.loads((folder / "evaluation.json").read_text())
    assert report["step"] == 10 and report["synthetic"]
    ending = first.stdout.partition("=== Done in")[2]
    assert report["headline"] and all(line in ending for line in report["headline"])
    assert "synthetic" in ending
    stem = folder / "animation" / "speech"
    seconds = soundfile.info(folder / "speech.wav").duration
    for end in (".csv", ".json", ".npz"):
        track = formats.read(f"{stem}{end}")
        assert abs(len(track.motion) / 60 - seconds) < 0.02 and np.isfinite(track.motion).all()
        assert str(stem) in ending
    assert (folder / "animation" / "speech.png").stat().st_size > 10_000

    # Again, and with a recording of one's own: nothing that was done is done again.
    done = [folder / name for name in ("corpus", "shards", "run", "evaluation.json", "speech.wav")]
    before = state(*done)
    t = np.arange(2 * 22_050) / 22_050
    voice = 0.2 * np.sin(2 * np.pi * 150 * t) * (np.sin(9 * t) > 0)
    soundfile.write(tmp_path / "my voice.flac", np.stack([voice, voice], 1), 22_050)
    start = processor_seconds()
    second = demo(folder, f"--audio={tmp_path / 'my voice.flac'}", "--emotion=happy")
    spent = processor_seconds() - start
    assert second.returncode == 0, second.stdout + second.stderr
    for words in ("people exist already", "is up to date", "already finished: 10 of 10"):
        assert words in second.stdout
    assert all(line in second.stdout for line in report["headline"])
    assert state(*done) == before
    assert len(formats.read(folder / "animation" / "my voice.csv").motion) == 120
    assert spent < 60, f"a second call took {spent:.0f} s"


def test_a_recording_that_is_not_there_is_told_before_anything_is_made(tmp_path):
    done = demo(tmp_path / "demo", f"--audio={tmp_path / 'no.wav'}")
    assert done.returncode == 2 and done.stdout == ""
    (line,) = done.stderr.splitlines()
    assert line.startswith("make demo: error: ") and "no.wav: no such file" in line
    assert not list(tmp_path.iterdir())
