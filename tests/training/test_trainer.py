import json
import os
import resource
import shutil
import signal
import time

import jax
import numpy as np
import pytest

from a2fjax.errors import InputError, Preempted, WorkFailed
from a2fjax.training import checkpoints, tracking


def numbers(run):
    """Lines of metrics.jsonl without what depends on the clock."""
    lines = tracking.read_metrics(run)
    return [{k: v for k, v in x.items() if not k.startswith(tracking.MEASURED)} for x in lines]


def same(a, b):
    leaves = zip(jax.tree.leaves(a), jax.tree.leaves(b), strict=True)
    return all(np.asarray(x).tobytes() == np.asarray(y).tobytes() for x, y in leaves)


@pytest.fixture(scope="module")
def whole(toy, tmp_path_factory):
    """An undisturbed run of 12 steps."""
    run = tmp_path_factory.mktemp("whole") / "run"
    done = toy.train(run)
    done.run = run
    return done


def test_a_run_holds_what_it_should(whole):
    config = json.loads((whole.run / "config.json").read_text())
    assert config["config"]["steps"] == 12
    assert checkpoints.steps(whole.run) == [8, 12]
    lines = tracking.read_metrics(whole.run)
    assert [x["step"] for x in lines] == [2, 4, 4, 6, 8, 8, 10, 12, 12]
    first, held_out = lines[0], lines[2]
    for key in (
        "loss", "loss/position", "loss/smooth", "grad_norm", "update_norm", "param_norm", "lr",
    ):  # fmt: skip
        assert np.isfinite(first[f"train/{key}"])
    assert set(held_out) == {"step", "eval/loss", "eval/loss/position", "eval/loss/smooth"}
    assert lines[-1]["eval/loss"] < held_out["eval/loss"]
    assert first["perf/frames_per_s"] > 0 and 0 <= first["perf/data_wait_share"] <= 1
    assert any("compiled in" in line for line in whole.said)
    assert any(line.startswith("step 12/12") and "ETA" in line for line in whole.said)
    # The task's warnings are printed once for training and once for held-out windows.
    warned = [line for line in whole.said if line.startswith("warning: ")]
    assert warned == [
        "warning: step 2: the loss is large",
        "warning: held out: step 4: the loss is large",
    ]
    assert whole.inputs.drawn == list(range(12))
    step, average, meta = checkpoints.load_params(whole.run)
    assert step == 12 and same(average, whole.state.merged(average=True))
    assert meta["metrics"]["eval/loss"] == lines[-1]["eval/loss"]


def stop_at(toy, step, number=signal.SIGTERM):
    """Batches that have this process signalled while batch `step` is being read."""
    inputs = toy.Inputs(toy.config())
    inputs.on_batch = lambda s: os.kill(os.getpid(), number) if s == step else None
    return inputs


@pytest.mark.parametrize(("batch", "step"), [(3, 4), (4, 6)])
def test_a_stopped_run_continues_with_the_same_numbers(toy, whole, tmp_path, batch, step):
    # A request is counted with the update whose batch is being read, and seen when its numbers are:
    # after the next update, or at once before an evaluation, which is then left to the run that
    # continues.
    with pytest.raises(Preempted, match=f"SIGTERM.* saved after step {step} of 12"):
        toy.train(tmp_path, inputs=stop_at(toy, batch))
    assert checkpoints.steps(tmp_path)[-1] == step
    with (tmp_path / "metrics.jsonl").open("a") as torn:
        torn.write('{"step": 99, "train/loss": 1.0}\n{"step": 1')
    again = toy.train(tmp_path)
    assert again.inputs.drawn == list(range(step, 12))
    assert same(again.state, whole.state)
    assert numbers(tmp_path) == numbers(whole.run)
    assert again.state.opt_state[1][0].count == 12


def test_a_finished_run_says_so_and_may_be_made_longer(toy, whole, tmp_path):
    run = shutil.copytree(whole.run, tmp_path / "run")
    again = toy.train(run)
    assert again.inputs.drawn == [] and "already finished" in again.said[-1]
    assert same(again.state, whole.state) and numbers(run) == numbers(whole.run)
    longer = toy.train(run, steps=14)
    assert longer.inputs.drawn == [12, 13] and int(longer.state.step) == 14
    with pytest.raises(InputError, match="seed was 0, now 5"):
        toy.train(run, seed=5)


def test_a_stop_in_the_last_evaluation_is_no_end(toy, whole, tmp_path):
    inputs = toy.Inputs(toy.config())
    evaluations = []

    def eval_batches(plain=inputs.eval_batches):
        evaluations.append(1)
        for number, batch in enumerate(plain()):
            if len(evaluations) == 3 and number == 1:
                os.kill(os.getpid(), signal.SIGTERM)
            yield batch

    inputs.eval_batches = eval_batches
    with pytest.raises(Preempted, match="saved after step 12 of 12"):
        toy.train(tmp_path, inputs=inputs)
    again = toy.train(tmp_path)
    assert "already finished" in again.said[-1]
    assert same(again.state, whole.state) and numbers(tmp_path) == numbers(whole.run)


def test_shards_that_change_under_a_run_are_seen_when_it_is_continued(toy, tmp_path):
    inputs = toy.Inputs(toy.config())

    def on_batch(step):
        if step == 2:
            inputs.fingerprint = lambda: "built anew"

    inputs.on_batch = on_batch
    toy.train(tmp_path, inputs=inputs)
    with pytest.raises(InputError, match="trained on other shards"):
        toy.train(tmp_path, inputs=inputs, steps=14)


def test_a_stop_before_the_first_step_leaves_nothing_to_restore(toy, tmp_path):
    inputs = toy.Inputs(toy.config())
    inputs.spec = lambda spec=inputs.spec: (os.kill(os.getpid(), signal.SIGTERM), spec())[1]
    with pytest.raises(Preempted):
        toy.train(tmp_path, inputs=inputs)
    assert checkpoints.steps(tmp_path) == [] and inputs.drawn == []


def test_a_loss_that_is_not_finite_stops_and_names_the_clip(toy, tmp_path):
    config = toy.config()
    inputs = toy.Inputs(config, poison=6)
    with pytest.raises(WorkFailed) as error:
        toy.train(tmp_path, inputs=inputs)
    text = str(error.value)
    bad = inputs.describe(inputs._batch(0, 6))[1]
    assert "step 7: grad_norm, loss" in text and "checkpoint 4 is the last good" in text
    assert f"whose data are not finite: {bad};" in text
    assert checkpoints.steps(tmp_path) == [4]
    assert all(np.isfinite(list(line.values())).all() for line in numbers(tmp_path))
    _, params, _ = checkpoints.load_params(tmp_path)
    assert all(np.isfinite(x).all() for x in jax.tree.leaves(params))


def test_a_loss_that_is_not_finite_is_never_saved(toy, tmp_path):
    # Step 8 is both bad and due to be saved.
    with pytest.raises(WorkFailed, match="step 8"):
        toy.train(tmp_path, inputs=toy.Inputs(toy.config(), poison=7))
    assert checkpoints.steps(tmp_path) == [4]


def test_other_data_are_refused(toy, whole, tmp_path):
    run = shutil.copytree(whole.run, tmp_path / "run")
    inputs = toy.Inputs(toy.config())
    inputs.fingerprint = lambda: "other"
    with pytest.raises(InputError, match="trained on other shards"):
        toy.train(run, inputs=inputs)


def test_settings_are_checked_before_anything_is_written(toy, tmp_path):
    for changes, says in (
        ({"optim__warmup_steps": 12}, "optim.warmup_steps=12"),
        ({"sharding__fsdp": 64}, "sharding.fsdp=64"),
    ):
        with pytest.raises(InputError, match=says):
            toy.train(tmp_path / "run", **changes)
    assert not (tmp_path / "run").exists()
    with pytest.raises(InputError, match="best_metric='eval/los'; did you mean 'eval/loss'"):
        toy.train(tmp_path / "run", checkpoint__best_metric="eval/los")


def test_a_full_disk_ends_the_run_and_keeps_the_good_checkpoint(toy, whole, tmp_path):
    inputs = toy.Inputs(toy.config())
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)

    def fill(step):
        if step == 6:  # No file can grow any more, as on a full disk.
            while not (tmp_path / "checkpoints" / "4").exists():
                time.sleep(0.01)
            resource.setrlimit(resource.RLIMIT_FSIZE, (64, hard))

    inputs.on_batch = fill
    try:
        with pytest.raises(WorkFailed, match="could not be written .*"):
            toy.train(tmp_path, inputs=inputs, log__every_steps=100)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    assert checkpoints.load_params(tmp_path)[0] == 4
    again = toy.train(tmp_path)
    assert same(again.state, whole.state)


def test_saving_by_the_clock(toy, tmp_path):
    toy.train(
        tmp_path, steps=4, checkpoint__every_steps=100, checkpoint__every_minutes=1e-9,
        checkpoint__keep_latest=9,
    )  # fmt: skip
    # What is asked for at an update is known to all with the next one.
    assert checkpoints.steps(tmp_path) == [2, 4]


def test_a_task_object_starts_from_another_run_too(toy, whole, tmp_path):
    rate = {"optim__learning_rate": 1e-20, "optim__warmup_steps": 0}
    done = toy.train(tmp_path / "run", steps=1, init_from=str(whole.run), **rate)
    _, start, _ = checkpoints.load_params(whole.run)
    for a, b in zip(*map(jax.tree.leaves, (done.state.params["net"], start["net"])), strict=True):
        np.testing.assert_allclose(a, b, atol=1e-12)
    with pytest.raises(InputError, match="init_from=.*: of another model"):
        toy.train(tmp_path / "other", steps=1, init_from=str(whole.run), width=9, **rate)


def test_a_task_class_is_recorded_by_its_import_path(tmp_path):
    from a2fjax import configuration
    from a2fjax.tasks.regression import RegressionTask
    from a2fjax.training import run_dir, starting_point

    class Local(RegressionTask):
        pass

    resolved = starting_point.with_task(configuration.load(None), RegressionTask)
    assert resolved == starting_point.with_task(configuration.load(None), resolved.config.task)
    run_dir.record(tmp_path, resolved)
    saved = configuration.from_json((tmp_path / "config.json").read_bytes(), name="config.json")
    assert saved.config.task == "a2fjax.tasks.regression:RegressionTask"
    for wrong, message in (
        (Local, "cannot be imported when the run is loaded"),
        ("a2fjax.tasks.regression:Nothing", "has no 'Nothing'"),
    ):
        with pytest.raises(InputError, match=message):
            starting_point.with_task(configuration.load(None), wrong)
