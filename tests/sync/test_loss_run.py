"""Regression runs with experts in their loss: refused, recorded, resumed, used without them."""

import json
import shutil

import numpy as np
import pytest
import soundfile

from a2fjax.cli import main
from a2fjax.sync import verdict
from a2fjax.training import checkpoints, sync_experts, sync_loss

pytestmark = [pytest.mark.slow, pytest.mark.usefixtures("compile_once")]

EXPERT = [
    "--config.model.width=16", "--config.model.layers=1", "--config.model.embedding=8",
    "--config.model.windows=4", "--config.model.shift_frames=12", "--config.data.batch_size=8",
    "--config.data.identity_points=1", "--config.eval.every_steps=0",
    "--config.optim.warmup_steps=5", "--config.optim.learning_rate=0.01",
    "--config.optim.ema_decay=0.9",
    "--config.data.augment.enabled=false", "--config.checkpoint.every_steps=60",
]  # fmt: skip
MOTION = [
    "--config.model.conv_layers=1", "--config.model.conv_width=8",
    "--config.model.recurrent_width=8", "--config.model.identity=none",
    "--config.model.emotion_width=4", "--config.data.batch_size=4",
    "--config.data.window_frames=128", "--config.data.identity_points=1",
    "--config.optim.warmup_steps=1", "--config.log.every_steps=1", "--config.eval.every_steps=2",
    "--config.eval.batches=1", "--config.checkpoint.every_steps=2",
    "--config.checkpoint.keep_latest=9", "--config.loss.sync_start=1", "--config.loss.sync_ramp=2",
]  # fmt: skip


def train_expert(shards, run, *more):
    command = ["train", "--config", "experiments/syncnet.py", "--workdir", str(run), *EXPERT]
    return main.main([*command, f"--config.data.shards={shards}", "--config.steps=60", *more])


def train(shards, run, expert, *more):
    command = ["train", "--config", "experiments/regression_v2_3.py", "--workdir", str(run)]
    command += [f"--config.data.shards={shards}"]
    command += [f"--config.loss.sync={expert}"] if expert else []
    return main.main([*command, "--config.steps=4", *MOTION, *more])


def pass_gate(run, weights=None, value=0.99):
    """Writes a verdict of the gate that an expert passed, or failed by its first line."""
    loaded = sync_experts.load(run)
    line = {"split": "test_subjects", "name": "x", "value": value, "rule": ">= 0.9"}
    values = verdict.judged({"splits": {}, "run": str(run), "step": loaded.step})
    values["verdict"] = {"passed": value > 0.9, "lines": [{**line, "passed": value > 0.9}]}
    values |= {"weights": weights or loaded.weights}
    verdict.write(verdict.path_of(run, loaded.step), values)


def last_line(capsys):
    return capsys.readouterr().err.strip().splitlines()[-1]


@pytest.fixture(scope="module")
def expert(shards, tmp_path_factory, compile_once):
    folder = tmp_path_factory.mktemp("experts") / "sync"
    assert train_expert(shards, folder) == 0
    return folder


@pytest.fixture(scope="module")
def run(shards, expert, tmp_path_factory, compile_once):
    """A run that was allowed to take an expert without a gate."""
    folder = tmp_path_factory.mktemp("runs") / "a"
    assert train(shards, folder, expert, "--config.loss.sync_unchecked=true") == 0
    return folder


def test_an_expert_without_gate_and_a_failed_one_are_refused(shards, expert, tmp_path, capsys):
    copy, run = tmp_path / "sync", tmp_path / "a"
    shutil.copytree(expert, copy)
    assert train(shards, run, copy) == 2
    assert "has not passed the gate; run `a2fjax evaluate" in last_line(capsys)
    pass_gate(copy, value=0.5)
    assert train(shards, run, copy) == 2
    line = last_line(capsys)
    assert "failed the gate at step 60: test_subjects: x: 0.500, expected >= 0.9" in line
    assert train(shards, run, tmp_path / "none") == 2
    assert f"sync expert {tmp_path}/none does not exist" in last_line(capsys)
    pass_gate(copy)
    assert train(shards, run, copy, "--config.data.window_frames=32") == 2
    assert "data.window_frames=32: sync expert" in last_line(capsys)
    assert not run.exists()
    assert train(shards, run, copy, "--config.steps=2") == 0
    (record,) = sync_loss.recorded(run)
    assert record.passed and record.run == str(copy) and record.step == 60


def test_the_expert_is_recorded_and_stands_in_no_checkpoint(run, expert, capsys):
    (record,) = sync_loss.recorded(run)
    loaded = sync_experts.load(expert)
    assert (record.kind, record.weights, record.passed) == ("syncnet", loaded.weights, False)
    assert record.gap > 0.05 and record.scale > 1
    _, params, _ = checkpoints.load_params(run)
    assert set(params) == {"params", "constants"}
    rows = [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]
    shares = [row["train/loss/sync_ramp"] for row in rows if "train/loss/sync_ramp" in row]
    assert shares == [0.0, 0.0, 0.5, 1.0]
    assert all(0 < row["train/loss/sync"] < 3 for row in rows if "train/loss/sync" in row)
    assert {row["eval/loss/sync_ramp"] for row in rows if "eval/loss" in row} == {1.0}
    table = (run / "parameters.txt").read_text()
    assert "(frozen)" in next(x for x in table.splitlines() if x.startswith("sync/0/params"))


def test_a_resumed_run_has_the_same_bits(run, shards, expert, tmp_path, checksum):
    copy = tmp_path / "a"
    shutil.copytree(run, copy)
    shutil.rmtree(copy / "checkpoints" / "4")
    assert train(shards, copy, expert, "--config.loss.sync_unchecked=true") == 0
    assert checksum(copy) == checksum(run)
    assert (copy / sync_loss.FILE).read_bytes() == (run / sync_loss.FILE).read_bytes()


def test_other_weights_are_refused(run, shards, expert, tmp_path, capsys):
    copy, away = tmp_path / "a", tmp_path / "away"
    shutil.copytree(run, copy)
    shutil.rmtree(copy / "checkpoints" / "4")
    shutil.move(expert, away)
    try:
        unchecked = "--config.loss.sync_unchecked=true"
        assert train(shards, copy, expert, unchecked) == 2
        assert f"sync expert {expert} does not exist" in last_line(capsys)
        assert train_expert(shards, expert, "--config.seed=5") == 0
        assert train(shards, copy, expert, unchecked) == 2
        line = last_line(capsys)
        assert f"sync expert {expert}: step 60 has weights" in line and "the run began with" in line
    finally:
        shutil.rmtree(expert, ignore_errors=True)
        shutil.move(away, expert)


def test_a_trained_run_needs_no_expert(run, shards, expert, tmp_path, capsys):
    away = tmp_path / "away"
    shutil.move(expert, away)
    try:
        audio, out = tmp_path / "a.wav", tmp_path / "a.csv"
        soundfile.write(audio, 0.1 * np.random.default_rng(0).normal(size=16_000), 16_000)
        assert main.main(["infer", str(run), "--audio", str(audio), "--out", str(out)]) == 0
        assert out.is_file()
        report = tmp_path / "r.json"
        assert main.main(["evaluate", str(run), "--quick", "--out", str(report)]) == 0
        said = capsys.readouterr().out
        assert f"trained with the sync expert {expert}, which had not passed its gate" in said
        values = json.loads(report.read_text())
        assert [e["passed"] for e in values["sync_experts"]] == [False]
    finally:
        shutil.move(away, expert)


def stored(run, step):
    """Returns the checksums of a checkpoint's tensors by item."""
    return checkpoints.inspect(run / "checkpoints" / str(step), "params")[0]["checksums"]


def test_a_run_with_a_discriminator_resumes_with_the_same_bits(shards, expert, tmp_path):
    run, copy = tmp_path / "a", tmp_path / "b"
    more = [f"--config.loss.sync_adversary={expert}", "--config.loss.sync_unchecked=true"]
    more += ["--config.loss.sync_adversary_rate=0.01"]
    assert train(shards, run, "", *more) == 0
    (record,) = sync_loss.recorded(run)
    assert record.weights == sync_experts.load(expert).weights and record.start is not None
    assert record.start[0] > record.start[1] + 0.05
    for item in ("params", "ema"):
        assert set(checkpoints.load_params(run, item=item)[1]) == {"params", "constants"}
    shutil.copytree(run, copy)
    shutil.rmtree(copy / "checkpoints" / "4")
    assert train(shards, copy, "", *more) == 0
    assert stored(copy, 4) == stored(run, 4)
    assert any(name.startswith("params/adversary/") for name in stored(run, 4)["auxiliary"])
    assert stored(run, 4)["auxiliary"] != stored(run, 2)["auxiliary"]
    rows = [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]
    trained = [row for row in rows if "train/loss/adversary" in row]
    assert len(trained) == 4 and all(row["train/grad_norm/adversary"] > 0 for row in trained)
    assert all(0 < row["train/loss/adversary"] < 3 for row in trained)
    assert not any(name.startswith("eval/loss/adversary") for row in rows for name in row)


def test_a_discriminator_starts_from_a_contrastive_expert(shards, tmp_path, capsys):
    inverse = tmp_path / "inverse"
    command = ["train", "--config", "experiments/syncnet.py:inverse", "--workdir", str(inverse)]
    given = [word for word in EXPERT if "embedding" not in word and "shift" not in word]
    given = [word for word in given if "model.windows" not in word]
    assert main.main([*command, *given, f"--config.data.shards={shards}", "--config.steps=6"]) == 0
    adversary = [f"--config.loss.sync_adversary={inverse}", "--config.loss.sync_unchecked=true"]
    assert train(shards, tmp_path / "a", "", *adversary) == 2
    line = last_line(capsys)
    assert f"loss.sync_adversary='{inverse}': holds a 'syncnet_inverse'; expected a con" in line
