"""A diffusion run and its student by the command line: train, stop, distil, sample, compare."""

import functools
import json
import shutil

import jax
import numpy as np
import pytest

from a2fjax.animation import formats
from a2fjax.audio import io
from a2fjax.cli import main
from a2fjax.models import params as params_lib
from a2fjax.training import checkpoints

SMALL = (
    "--config.model.kind=diffusion",
    "--config.model.unet.widths=(8,)",
    "--config.model.unet.heads=2",
    "--config.model.unet.window=8",
    "--config.model.sample.steps=2",
    "--config.model.emotion_dropout=0.1",
)
STUDENT = (
    *SMALL,
    "--config.model.distill_steps=3",
    "--config.model.sample.sampler=consistency",
)


def same_parameters(run, other):
    """Asserts that the last parameters of two runs are the same to the bit."""
    found, expected = (
        dict(params_lib.paths(checkpoints.load_params(each, 3)[1])) for each in (run, other)
    )
    assert found.keys() == expected.keys()
    for path, value in expected.items():
        np.testing.assert_array_equal(found[path], value, err_msg=path)


@pytest.fixture(scope="module")
def teacher(trained):
    run = trained.root / "teacher"
    assert main.main(trained.arguments(run, *SMALL)) == 0
    return run


@pytest.fixture(scope="module")
def student(trained, teacher):
    """A student's run, of which the run that it learns from is gone."""
    run, other = trained.root / "student", shutil.copytree(teacher, trained.root / "other")
    assert main.main(trained.arguments(run, *STUDENT, f"--config.init_from={other}")) == 0
    shutil.rmtree(other)
    return run


@pytest.mark.slow
def test_a_run_that_stopped_goes_on_to_the_same_bytes(trained, teacher, tmp_path):
    """Noise levels and noise are functions of seed and step, like all that is drawn."""
    run = shutil.copytree(teacher, tmp_path / "again")
    shutil.rmtree(run / "checkpoints" / "3")
    assert checkpoints.steps(run)[-1] == 2
    assert main.main(trained.arguments(run, *SMALL)) == 0
    same_parameters(run, teacher)


@pytest.mark.slow
def test_a_student_keeps_its_teacher_and_hears_as_it_does(teacher, student):
    average = checkpoints.load_params(teacher, 3, "ema")[1]
    found = checkpoints.load_params(student, 3)[1]
    same = functools.partial(jax.tree.map, np.array_equal)
    assert jax.tree.all(same(found["constants"], average["constants"]))
    found, average = found["params"], average["params"]
    for mine, theirs in (("teacher", "unet"), ("condition_encoder", "condition_encoder")):
        assert jax.tree.all(same(found[mine], average[theirs])), mine
    moved = jax.tree.map(lambda a, b: float(np.abs(a - b).max()), found["unet"], average["unet"])
    assert max(jax.tree.leaves(moved)) > 1e-5


@pytest.mark.slow
def test_a_student_goes_on_without_the_run_it_learns_from(trained, student, tmp_path):
    run = shutil.copytree(student, tmp_path / "again")
    shutil.rmtree(run / "checkpoints" / "3")
    start = f"--config.init_from={trained.root / 'other'}"
    assert main.main(trained.arguments(run, *STUDENT, start)) == 0
    same_parameters(run, student)


@pytest.mark.slow
def test_both_are_sampled_and_measured_side_by_side(teacher, student, trained, tmp_path, capsys):
    wav = tmp_path / "in.wav"
    io.save(wav, 0.1 * np.random.default_rng(0).standard_normal(12_000).astype(np.float32))
    for run in (teacher, student):
        out = tmp_path / "x.npz"
        arguments = ["infer", str(run), "--audio", str(wav), "--out", str(out), "--samples", "2"]
        assert main.main([*arguments, "--sample-steps", "1"]) == 0
        samples = [formats.read(tmp_path / f"x.sample{k}.npz").motion for k in (0, 1)]
        assert samples[0].shape == (38, 72) and np.abs(samples[0] - samples[1]).max() > 1e-4
    report = tmp_path / "samples.json"
    arguments = ["evaluate", str(teacher), "--samples", "2", "--sample-steps", "1,16"]
    arguments += ["--split", "test_sentences", "--out", str(report)]
    for other in (student, trained.run):
        arguments += ["--against", str(other)]
    assert main.main(arguments) == 0
    shown = capsys.readouterr().out
    rows = json.loads(report.read_text())["splits"]["test_sentences"]["rows"]
    # A student knows the levels that it was taught and no more steps than those.
    assert list(rows) == ["teacher, 1 step", "teacher, 16 steps", "student, 1 step", "run"]
    assert all(name in shown for name in rows)
    assert rows["run"].get("mouth") is None and rows["teacher, 1 step"]["mouth"] >= 0


@pytest.mark.parametrize(
    ("changes", "told"),
    [
        ((*SMALL, "--config.model.distill_steps=3"), "expected init_from"),
        ((*SMALL, "--config.model.sample.sampler=consistency"), "not distilled"),
        ((*SMALL, "--config.model.unet.widths=(9,8)"), "multiples of"),
        ((*SMALL, "--config.model.sample.identity=2"), "condition_dropout"),
    ],
)
@pytest.mark.slow
def test_what_does_not_fit_together_is_one_line(trained, tmp_path, capsys, changes, told):
    extra = () if "identity" not in changes[-1] else ("--config.model.condition_dropout=0",)
    assert main.main(trained.arguments(tmp_path / "run", *changes, *extra)) == 2
    shown = capsys.readouterr().err
    assert told in shown and shown.count("\n") == 1
