"""The fuzz itself: its mutations repeat, and its checks see what a command must not do."""

import importlib.util
import json
import sys
from pathlib import Path

import numpy as np
import pytest

HERE = Path(__file__).parent


def load(name):
    spec = importlib.util.spec_from_file_location(f"fuzz_{name}", HERE / f"{name}.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


mutations, run, target = load("mutations"), load("run"), load("target")


@pytest.mark.parametrize("ending", [".json", ".csv", ".npz", ".npy", ".obj", ".bin"])
def test_a_seed_repeats_a_mutation(tmp_path, ending):
    path = tmp_path / f"x{ending}"

    def damaged(seed):
        if path.is_symlink() or path.exists():
            path.unlink() if not path.is_dir() else path.rmdir()
        if ending == ".npz":
            np.savez(path, a=np.arange(9.0), b=np.array("x"))
        elif ending == ".npy":
            np.save(path, np.arange(9.0))
        elif ending == ".json":
            path.write_text(json.dumps({"a": [1, 2.5, {"b": "c"}], "d": None}))
        else:
            path.write_text("time,a\n0,1\n0.5,2\n")
        how = mutations.change_file(path, np.random.default_rng(seed))
        small = path.is_file() and path.stat().st_size < 1 << 20
        return how, path.read_bytes() if small and how != "device" else None

    # The time that an archive states for its members is the clock's.
    kinds = {damaged(seed)[0] for seed in range(9)}
    assert len(kinds) > 1
    for seed in range(3):
        first, again = damaged(seed), damaged(seed)
        assert first == again or (ending == ".npz" and first[0] == again[0])


@pytest.mark.parametrize(
    ("code", "text", "problem"),
    [
        (0, "done", None),
        (2, "a2fjax infer: error: x.json: not JSON", None),
        (2, "nothing", "no line of error"),
        (1, "Traceback (most recent call last):\n", "traceback"),
        (3, "", "exit code 3"),
        (2, "a2fjax: error: " + "x" * 5000, "characters"),
    ],
)
def test_an_end_is_judged(tmp_path, code, text, problem):
    found = run.check(code, text, tmp_path, set())
    assert (problem is None and not found) or problem in found[0]


def test_partial_files_are_seen(tmp_path):
    before = set(tmp_path.rglob("*"))
    (tmp_path / "out.csv").touch()
    (tmp_path / ".x.1.partial").touch()
    assert run.check(0, "", tmp_path, before) == ["left .x.1.partial"]
    assert "left out.csv" in run.check(2, "a: error: b", tmp_path, before)


def test_memory_and_time_of_a_process_are_measured():
    memory, spent = run.usage("self") if sys.platform == "linux" else (1e7, 0.1)
    assert 1e7 < memory < 1e11 and spent > 0


def test_files_that_a_command_needs_are_known(tmp_path):
    (tmp_path / "run").mkdir()
    for name in ("run/config.json", "run/metrics.jsonl", "a.npz"):
        (tmp_path / name).touch()
    made = target.Target("x", tmp_path, ("run/*",), lambda work: 0, needed=("run/config.json",))
    assert made.files(tmp_path) == [tmp_path / "run/config.json", tmp_path / "run/metrics.jsonl"]
    assert made.needs(tmp_path, tmp_path / "run/config.json")
    assert not made.needs(tmp_path, tmp_path / "run/metrics.jsonl")
    (tmp_path / "run/config.json").unlink()
    assert made.needs(tmp_path, tmp_path / "run/config.json")
