"""A watcher: each checkpoint once, after a death as before, the best kept, one watcher a run."""

import fcntl
import json
import math
import shutil
import threading
from pathlib import Path

import numpy as np
import pytest

from a2fjax import rig, sealed_json
from a2fjax.cli import main as cli
from a2fjax.configuration import Config, load
from a2fjax.errors import InputError, WorkFailed
from a2fjax.evaluation import evaluator, report, watch
from a2fjax.infer.predictor import Predictor
from a2fjax.metrics.column import Column
from a2fjax.training import sync_loss

ERRORS = {10: 0.06, 20: 0.02, 30: 0.04}


@pytest.fixture
def run(shards, stand_in, tmp_path, monkeypatch):
    """A run folder of 30 steps whose predictor is a stand-in with an error of each step."""
    folder = tmp_path / "run"
    folder.mkdir()
    resolved = load(None, {"data.shards": str(shards[0]), "steps": "30"})
    (folder / "config.json").write_text(resolved.to_json())
    calls = []

    def predictor(run, step=None):
        if not (Path(run) / "checkpoints" / str(step)).is_dir():
            raise InputError(f"run {run}: has no checkpoint of step {step}")
        calls.append(step)

        def change(truth, request):
            out = truth.copy()
            out[:, rig.INDEX["jawOpen"]] += ERRORS[step] * np.sin(np.arange(len(out)) / 4)
            return out

        model = stand_in(shards, change)
        assert isinstance(model.config, Config)
        model.step = step
        return model

    monkeypatch.setattr(
        Predictor,
        "load",
        classmethod(lambda cls, run, step=None, **_: predictor(run, step)),
    )
    return folder, calls


def save(folder, step):
    """Makes a checkpoint as training does: complete when its folder has its name."""
    made = folder / "checkpoints" / f"{step}.tmp"
    (made / "ema").mkdir(parents=True)
    (made / "ema" / "data").write_text(str(step))
    (made / "opt").mkdir()
    (made / "meta").mkdir()
    made.rename(folder / "checkpoints" / str(step))


def watched(folder, **given):
    return watch.watch(folder, splits=["test_subjects"], quick=True, every=0.01, **given)


def test_each_checkpoint_is_measured_once_and_the_best_is_kept(run):
    folder, calls = run
    for step in ERRORS:
        save(folder, step)
    record = json.dumps(sealed_json.seal({"experts": []}))
    (folder / sync_loss.FILE).write_text(record)
    best = watched(folder)
    assert calls == [10, 20, 30]
    assert (best["step"], best["metric"], best["split"]) == (20, "rmse_ratio", "test_subjects")
    assert json.loads((folder / "eval" / "best.json").read_text()) == best
    assert report.read(folder / "eval" / "20.json")["step"] == 20
    kept = folder / "eval" / "best"
    assert (kept / sync_loss.FILE).read_text() == record, "whom the judge may not be"
    assert (kept / "checkpoints" / "20" / "ema" / "data").read_text() == "20"
    assert not (kept / "checkpoints" / "20" / "opt").exists()
    assert (kept / "config.json").read_text() == (folder / "config.json").read_text()
    assert watched(folder) == best and calls == [10, 20, 30], "nothing is measured twice"


def test_checkpoints_are_measured_as_they_come(run):
    folder, calls = run
    save(folder, 10)
    lines = []
    thread = threading.Thread(target=lambda: watched(folder, say=lines.append))
    thread.start()
    while not any("waiting for a checkpoint after step 10 of 30" in line for line in lines):
        thread.join(0.01)
        assert thread.is_alive(), lines
    with pytest.raises(InputError, match="another process watches it"):
        watched(folder)
    save(folder, 20)
    save(folder, 30)
    thread.join(60)
    assert not thread.is_alive() and calls == [10, 20, 30]
    assert sum("waiting" in line for line in lines) == 1


def test_a_watcher_that_died_continues(run, monkeypatch):
    folder, calls = run
    for step in ERRORS:
        save(folder, step)
    write = report.write

    def die(path, values):
        if values["step"] == 20:
            raise KeyboardInterrupt
        write(path, values)

    monkeypatch.setattr(report, "write", die)
    with pytest.raises(KeyboardInterrupt):
        watched(folder)
    assert sorted(p.name for p in (folder / "eval").glob("*.json")) == ["10.json", "best.json"]
    monkeypatch.setattr(report, "write", write)
    assert watched(folder)["step"] == 20
    assert calls == [10, 20, 20, 30]


def test_a_removed_checkpoint_is_passed_over_and_the_kept_one_stays(run, monkeypatch):
    folder, calls = run
    save(folder, 20)
    save(folder, 30)
    original = evaluator.evaluate

    def evaluate(chosen, *args, **given):
        if chosen.step == 30 and not (folder / "checkpoints" / "10").exists():
            shutil.rmtree(folder / "checkpoints" / "20")  # Training keeps the newest only.
        return original(chosen, *args, **given)

    monkeypatch.setattr(evaluator, "evaluate", evaluate)
    best = watched(folder)
    assert best["step"] == 20 and best["run"] == "best"
    assert (folder / "eval" / "best" / "checkpoints" / "20" / "ema" / "data").read_text() == "20"


def test_a_checkpoint_that_vanishes_while_it_is_read_is_told(run, monkeypatch):
    folder, calls = run
    save(folder, 10)
    save(folder, 30)
    seen = []
    steps = watch.checkpoints.steps

    def listed(run):
        seen.append(steps(run))
        if len(seen) == 2:  # Training removes it after it was listed.
            shutil.rmtree(folder / "checkpoints" / "10")
        return seen[-1]

    monkeypatch.setattr(watch.checkpoints, "steps", listed)
    lines = []
    assert watched(folder, say=lines.append)["step"] == 30
    assert any("step 10: training has removed this checkpoint" in line for line in lines)


def test_a_defect_ends_the_watch_with_one_line(run, monkeypatch, capsys):
    folder, _ = run
    save(folder, 10)

    right = Predictor.load

    def fail(cls, run, step=None, **_):
        raise TypeError("unexpected keyword argument 'x'")

    monkeypatch.setattr(Predictor, "load", classmethod(fail))
    with pytest.raises(WorkFailed, match="step 10 could not be evaluated .TypeError: unexpected"):
        watched(folder)
    assert cli.main(["evaluate", str(folder), "--watch", "--quick"]) == 1
    told = capsys.readouterr().err.splitlines()
    assert told[-1].startswith("a2fjax evaluate: error: run ") and "TypeError" in told[-1]
    assert not list((folder / "eval").glob("*.json"))

    def removed(cls, run, step=None, **_):
        if step == 10:
            shutil.rmtree(folder / "checkpoints" / "10")
            raise TypeError("half a checkpoint")
        return right(run, step)

    monkeypatch.setattr(Predictor, "load", classmethod(removed))
    save(folder, 30)
    assert watched(folder)["step"] == 30


def test_the_best_is_by_the_named_figure(run):
    folder, _ = run
    for step in ERRORS:
        save(folder, step)
    best = watched(folder, best="amp_ratio/jaw_mouth")
    values = {s: report.read(folder / "eval" / f"{s}.json") for s in ERRORS}
    distance = {
        s: abs(v["splits"]["test_subjects"]["model"]["amp_ratio/jaw_mouth"] - 1)
        for s, v in values.items()
    }
    assert best["step"] == min(distance, key=distance.get) and best["better"] == "1"


def test_checkpoints_are_ranked_by_the_distance_from_the_ideal():
    row = {"slcc_truth": 0.5}
    for better, value, badness in (
        ("lower", 0.3, 0.3),
        ("higher", 0.3, -0.3),
        ("1", 0.75, 0.25),
        ("slcc_truth", 0.25, 0.25),
        ("slcc_truth", 0.75, 0.25),
        ("blink_ms_truth", 0.3, math.inf),
    ):
        assert watch._badness(value, Column("slcc", better=better), row) == badness


def test_reports_of_other_options_are_not_mixed(run):
    folder, _ = run
    save(folder, 30)
    watched(folder)
    with pytest.raises(InputError, match=r"30.json: was measured with another --seed"):
        watched(folder, seed=3)
    with pytest.raises(InputError, match="another --split"):
        watch.watch(folder, splits=["test_sentences"], quick=True)
    with pytest.raises(InputError, match="another --data"):
        watch.watch(folder, ["elsewhere"], ["test_subjects"], quick=True)


def test_the_command(run, capsys):
    folder, _ = run
    save(folder, 30)
    argv = ["evaluate", str(folder), "--watch", "--quick", "--split", "test_subjects"]
    assert cli.main([*argv, "--best", "closure_recall"]) == 0
    assert "best: step 30, closure_recall" in capsys.readouterr().out
    for extra, says in (
        (["--best", "closure_recal"], "did you mean 'closure_recall'"),
        (["--step", "3"], "--step: does not go with --watch"),
        (["--against", "x"], "--against: does not go"),
        (["--every", "0"], "every=0"),
    ):
        assert cli.main([*argv, *extra]) == 2
        assert says in capsys.readouterr().err
    assert cli.main(["evaluate", str(folder), "--best", "mod"]) == 2
    assert "--best: goes with --watch" in capsys.readouterr().err
    assert cli.main(["evaluate", "nowhere", "--watch"]) == 2
    with (folder / "eval" / "watch.lock").open("a") as held:
        fcntl.flock(held, fcntl.LOCK_EX)
        assert cli.main(argv) == 2
    assert "another process watches it" in capsys.readouterr().err
