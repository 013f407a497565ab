"""Feature caches through the command line: preflight, and the real work on this machine."""

import json
import shutil
from pathlib import Path

import numpy as np
import pytest
from array_record.python.array_record_module import ArrayRecordWriter

from a2fjax.data import records
from a2fjax.data.feature_cache import inventory
from launch import submit

ROOT = Path(__file__).parents[2]


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    """Three files of two clips each."""
    folder = tmp_path_factory.mktemp("cache") / "my sét"
    folder.mkdir()
    shards, random = [], np.random.default_rng(0)
    for k in range(3):
        file = f"clips-{k:05d}-of-00003.arrayrecord"
        writer = ArrayRecordWriter(str(folder / file), "group_size:1")
        entries = []
        for i in range(2):
            frames = 60 + 10 * k
            clip = records.Clip(
                id=f"a/{k}{i}",
                subject="a",
                sentence=f"{k}{i}",
                language="en",
                split="train",
                audio=0.1 * random.standard_normal(frames * 320).astype(np.float32),
                motion=np.zeros((frames, 72), np.float32),
                channel_mask=np.ones(72, bool),
                frame_mask=np.ones(frames, bool),
                emotion=np.tile(np.eye(5, dtype=np.float32)[0], (frames, 1)),
                speech_level=0.1,
                synthetic=True,
            )
            writer.write(records.encode(clip))
            entries.append(records.index_entry(clip))
        writer.close()
        shards.append(records.Shard(file, entries))
    subjects = [records.Subject("a", None, False)]
    records.write_manifest(folder, records.Manifest(subjects, shards, [True] * 72, {}, True, {}))
    return folder


@pytest.fixture
def shards(made, tmp_path, monkeypatch):
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    monkeypatch.setenv("KUBECONFIG", str(tmp_path / "none"))
    return shutil.copytree(made, tmp_path / made.name)


@pytest.fixture
def encoder(tiny_encoder):
    return tiny_encoder


def cache(shards, encoder, *arguments):
    return submit.main(["cache", str(shards), "--features", encoder, *arguments])


@pytest.mark.slow
def test_an_array_writes_the_same_files_as_the_command_alone(shards, encoder, capsys):
    assert cache(shards, encoder, "--elements", "2", "--max-parallel", "2") == 0
    folder = shards / "feature_cache"
    manifest = records.read_manifest(shards)
    (found,) = inventory.caches(shards, manifest)
    assert found.state == "complete"
    files = {p.name: p.read_bytes() for p in found.folder.iterdir()}
    assert len(files) == 4
    capsys.readouterr()
    assert submit.main(["status", str(folder)]) == 0
    out = capsys.readouterr().out
    assert "2 of 2 done" in out and "finalize: done" in out
    assert submit.main(["logs", str(folder), "--element", "1"]) == 0
    assert "100 %" in capsys.readouterr().out
    assert submit.main(["cancel", str(folder)]) == 0
    assert "nothing runs" in capsys.readouterr().out
    assert submit.main(["status", str(shards)]) == 2
    err = capsys.readouterr().err
    assert f"something was for {folder}" in err
    # A file is lost, and the weights are for a while: a part fails with 2, `retry` goes on.
    lost = found.folder / manifest.shards[1].file
    lost.unlink()
    weights = Path(encoder.partition(":")[2])
    (folder / ".build" / "elements" / "2" / "launch" / "exit").write_text("1\n")
    hidden = weights.rename(weights.with_name("away"))
    try:
        assert submit.main(["retry", str(folder)]) == 2
    finally:
        hidden.rename(weights)
    capsys.readouterr()
    assert submit.main(["status", str(folder)]) == 0
    assert "1 of 2 bad input: 2" in capsys.readouterr().out
    assert submit.main(["retry", str(folder)]) == 0
    assert {p.name: p.read_bytes() for p in found.folder.iterdir()} == files


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (["{shards}"], "no speech encoder among them"),
        (["{shards}", "--features", "mel"], "name one with --features, such as whisper:PATH"),
        (["{shards}", "--features", "hubrt:x"], "did you mean 'hubert:x'?"),
        (["{shards}", "--features", "hubert:"], "did you mean 'hubert:PATH'?"),
        (["{shards}", "--features", "whisper:none.npz"], "none.npz does not exist"),
        (["{shards}", "--features", "hubert:some/model"], "nor a model in the hub's cache"),
        (["{shards}", "--features", "{encoder}", "--elements", "9"], "use --elements 3"),
        (["{shards}", "--features", "{encoder}", "--config.audio.encodr.mix=1"], "'encoder'"),
        (["{shards}", "--features", "{encoder}", "--config.audio.encoder.mix=7"], "mix"),
        (["{shards}", "--features", "{encoder}", "--layout", "x"], "--layout"),
        (["{shards}", "--features", "{encoder}", "--scheduler", "slrum"], "'slurm'"),
        (
            ["{shards}", "--features", "{encoder}", "--mem", "8G"],
            "is for --scheduler kubernetes or slurm",
        ),
        (["{shards}", "--config", "none.py"], "none.py"),
        (["{shards}/none", "--features", "{encoder}"], "does not exist"),
        (["{shards}/feature_cache", "--features", "{encoder}"], "does not exist"),
    ],
)
def test_mistakes_are_one_line_before_anything_is_queued(shards, encoder, capsys, arguments, says):
    values = {"shards": shards, "encoder": encoder}
    assert submit.main(["cache", *(a.format(**values) for a in arguments)]) == 2
    err = capsys.readouterr().err
    assert says in err and err.count("\n") == 1
    assert not (shards / "feature_cache").exists()


def test_dry_runs_show_what_would_be_submitted(shards, encoder, capsys, tmp_path):
    assert cache(shards, encoder, "--max-parallel", "9", "--dry-run") == 0
    out = capsys.readouterr().out
    assert [f"--part {i}/3" in out for i in (1, 2, 3)] == [True] * 3 and "--finish" in out
    assert not (shards / "feature_cache").exists()
    extra = ("--scheduler", "slurm", "--mem", "4G", "--config.audio.encoder.layers=0", "--dry-run")
    assert cache(shards, encoder, *extra, "--array-limit", "99") == 0
    out = capsys.readouterr().out
    assert "#SBATCH --array=1-3\n" in out and "#SBATCH --mem=4096M" in out
    assert "#SBATCH --job-name=cache-my-s-t" in out
    assert cache(shards, encoder, *extra, "--array-limit", "99", "--json") == 0
    assert "--config.audio.encoder.layers=0" in json.loads(capsys.readouterr().out)["command"]


def test_in_a_container(shards, capsys):
    pytest.importorskip("yaml")
    words = ["cache", "/data/set", "--scheduler", "kubernetes", "--image", "x", "--dry-run"]
    words += ["--allow-tag"]
    words += ["--record", str(shards / "record"), "--volume", "scans:/data"]
    assert submit.main([*words, "--features", "whisper:/data/w.npz,hubert:org/model"]) == 0
    out = capsys.readouterr().out
    assert "completions: 64" in out and "--finish" in out and "whisper:/data/w.npz" in out
    for features, says in (
        ("whisper:w.npz", "expected the absolute path inside the containers"),
        ("whisper:/weights/w.npz", "lies on no volume"),
    ):
        assert submit.main([*words, "--features", features]) == 2
        assert says in capsys.readouterr().err
    read_only = [w.replace("scans:/data", "scans:/data:ro") for w in words]
    assert submit.main([*read_only, "--features", "whisper:/data/w.npz"]) == 2
    assert "mounted read-only" in capsys.readouterr().err


def test_submitting_a_cache_loads_neither_jax_nor_weights(shards, encoder, loaded):
    code = f"submit.main(['cache', {str(shards)!r}, '--features', {encoder!r}, '--dry-run'])"
    assert loaded(code) == "[]"
