"""Fine-tuning by the command line: another run's averaged weights are where training starts."""

import dataclasses
import re
import shutil

import jax
import numpy as np
import pytest

from a2fjax import configuration
from a2fjax.cli import main
from a2fjax.errors import InputError
from a2fjax.models import params as params_lib
from a2fjax.training import checkpoints, starting_point


def leaves(run, step, item="ema"):
    return dict(params_lib.paths(checkpoints.load_params(run, step, item)[1]))


def test_training_goes_on_from_the_other_runs_average(trained, tmp_path):
    run = tmp_path / "tuned"
    change = "--config.optim.learning_rate=1e-12"
    arguments = trained.arguments(run, f"--config.init_from={trained.run}", change)
    assert main.main(arguments) == 0
    before, after = leaves(trained.run, 3), leaves(run, 3, "params")
    assert before.keys() == after.keys()
    for path, value in before.items():
        np.testing.assert_allclose(after[path], value, rtol=1e-5, atol=1e-9, err_msg=path)
    at_random = tmp_path / "random"
    assert main.main(trained.arguments(at_random, change)) == 0
    moved = leaves(at_random, 3, "params")["params/head/kernel"]
    assert np.abs(moved - before["params/head/kernel"]).max() > 1e-3


def test_a_tuned_run_goes_on_without_the_run_it_began_with(trained, tmp_path):
    """What it began with is in its own states."""
    whole, parted = tmp_path / "whole", tmp_path / "parted"
    other = shutil.copytree(trained.run, tmp_path / "other")
    start = f"--config.init_from={other}"
    assert main.main(trained.arguments(whole, start)) == 0
    assert main.main(trained.arguments(parted, start, "--config.steps=2")) == 0
    shutil.rmtree(other)
    # The schedule stretches over the steps, so the numbers differ; that it goes on is the point.
    assert main.main(trained.arguments(parted, start)) == 0
    assert checkpoints.steps(parted)[-1] == 3
    constants = [checkpoints.load_params(r)[1]["constants"] for r in (whole, parted)]
    assert jax.tree.all(jax.tree.map(np.array_equal, *constants))


def test_a_run_s_constants_are_not_measured_again(trained, tmp_path):
    """A continued run takes them from its checkpoint and does not read its shards for them."""
    config = configuration.from_json((trained.run / "config.json").read_bytes()).config
    data = dataclasses.replace(config.data, shards=(str(tmp_path / "nowhere"),))
    config = dataclasses.replace(config, data=data)
    starting_point.build_task(config, trained.run, {})
    starting_point.build_task(dataclasses.replace(config, init_from=str(trained.run)), tmp_path, {})
    with pytest.raises(InputError, match="nowhere does not exist"):
        starting_point.build_task(config, tmp_path, {})


@pytest.mark.parametrize(
    ("changes", "told"),
    [
        (["--config.init_from=nowhere"], "run nowhere: no such folder"),
        (["--config.model.recurrent_width=9"], "init_from=.*: of another model: .*gru"),
        (["--config.audio.features=pitch"], "init_from=.*: of another model: .*conv_0/kernel"),
    ],
)
def test_a_run_of_another_model_is_refused(trained, tmp_path, capsys, changes, told):
    run = tmp_path / "run"
    arguments = trained.arguments(run, f"--config.init_from={trained.run}", *changes)
    assert main.main(arguments) == 2
    said = capsys.readouterr().err
    assert said.count("\n") == 1
    assert re.search(told, said), said
    assert not (run / "checkpoints").exists() or not checkpoints.steps(run)
