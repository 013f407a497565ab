import json
import os
import shutil
from pathlib import Path

import pytest

from a2fjax.configuration import Config, LogConfig
from a2fjax.errors import InputError, WorkFailed
from a2fjax.training import tracking


def test_continuing_drops_later_and_torn_lines(tmp_path):
    path = tmp_path / "metrics.jsonl"
    file = tracking.MetricsFile(path, step=0)
    for step in (2, 4, 6):
        file.write(step, {"train/loss": step / 3})
    file.write(4, {"eval/loss": 0.5})
    file.close()
    kept = path.read_text().splitlines()
    with path.open("a") as torn:
        torn.write('{"step": 4, "train/lo')
    earlier = tracking.MetricsFile(shutil.copy(path, tmp_path / "copy.jsonl"), step=2)
    assert earlier.has("train/loss") and not earlier.has("eval/loss")
    earlier.close()
    (tmp_path / "copy.jsonl").unlink()
    again = tracking.MetricsFile(path, step=4)
    assert again.has("eval/loss")
    again.write(6, {"train/loss": 1.0})
    again.close()
    lines = path.read_text().splitlines()
    # Not only the same values: the same bytes as before.
    assert lines[:3] == [kept[0], kept[1], kept[3]]
    assert json.loads(lines[3]) == {"step": 6, "train/loss": 1.0} and len(lines) == 4
    assert list(tmp_path.iterdir()) == [path]


def test_file_that_cannot_grow_is_said_to_be(tmp_path):
    path = tmp_path / "metrics.jsonl"
    file = tracking.MetricsFile(path, step=0)
    file._file.close()
    file._file = Path("/dev/full").open("ab", buffering=0)
    with pytest.raises(WorkFailed, match="No space left on device"):
        file.write(1, {"train/loss": 1.0})


def test_reading_what_is_not_there(tmp_path):
    with pytest.raises(InputError, match="has no metrics.jsonl"):
        tracking.read_metrics(tmp_path)


@pytest.mark.parametrize(
    ("seconds", "text"),
    [(0.4, "0s"), (59.4, "59s"), (185, "3m05s"), (7625, "2h07m"), (float("inf"), "?")],
)
def test_duration(seconds, text):
    assert tracking.duration(seconds) == text


def test_line_says_how_far_how_fast_and_how_long():
    values = {
        "train/loss": 0.5,
        "train/loss/position": 0.25,
        "train/grad_norm": 1.0,
        "train/lr": 1e-3,
        "perf/steps_per_s": 4.0,
        "perf/frames_per_s": 12345.0,
        "perf/data_wait_share": 0.02,
        "time/step_s": 0.25,
        "perf/bad_records": 3,
    }
    line = tracking.train_line(200, 1000, values)
    for part in (
        "200/1000", "loss 0.5", "position 0.25", "4 steps/s", "12,345 frames/s", "wait 2 %",
        "ETA 3m20s", "3 bad records",
    ):  # fmt: skip
        assert part in line


def test_due_steps():
    assert [s for s in range(1, 12) if tracking.every(s, 4, 11)] == [4, 8, 11]
    assert not any(tracking.every(s, 0, 11) for s in range(1, 12))


def test_mode_follows_environment_and_account(monkeypatch, tmp_path):
    for name in ("WANDB_MODE", "WANDB_API_KEY", "WANDB_BASE_URL"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("HOME", str(tmp_path))
    assert tracking.wandb_mode() == "offline"
    login = tmp_path / ".netrc"
    login.write_text("machine api.wandb.ai login user password x\n")
    login.chmod(0o600)
    assert tracking.wandb_mode() == "online"
    monkeypatch.setenv("WANDB_BASE_URL", "https://wandb.example.org")
    assert tracking.wandb_mode() == "offline"
    monkeypatch.setenv("WANDB_API_KEY", "x" * 40)
    assert tracking.wandb_mode() == "online"
    monkeypatch.setenv("WANDB_MODE", "disabled")
    assert tracking.wandb_mode() == "disabled"


@pytest.mark.slow
def test_wandb_offline_continues_the_same_run(tmp_path, monkeypatch):
    pytest.importorskip("wandb")
    monkeypatch.setenv("WANDB_MODE", "offline")
    config = Config(log=LogConfig(wandb=True, wandb_project="test"))
    ids = []
    for start in (0, 4):
        said = []
        tracker = tracking.Tracker(config, tmp_path, step=start, identity="ab", say=said.append)
        tracker.train(start + 2, {"train/loss": 1.0, "train/grad_norm": 1.0, "train/lr": 1e-3})
        tracker.close(failed=False)
        ids += [line.rsplit(" ", 1)[-1] for line in said if line.startswith("wandb: offline")]
    assert ids == [tracking.wandb_id(tmp_path, "ab")] * 2
    written = sorted(tmp_path.glob("wandb/offline-run-*/run-*.wandb"))
    assert written and {p.stem for p in written} == {f"run-{ids[0]}"}
    assert all(os.path.getsize(p) > 0 for p in written)
    assert tracking.wandb_id(tmp_path, "cd") != ids[0] != tracking.wandb_id(tmp_path / "x", "ab")
