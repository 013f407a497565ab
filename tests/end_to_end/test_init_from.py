"""Fine-tuning by the command line: another run's averaged weights are where training starts."""

import dataclasses
import re
import shutil

import numpy as np
import pytest

from a2fjax import configuration
from a2fjax.cli import main
from a2fjax.errors import InputError
from a2fjax.models import params as params_lib
from a2fjax.training import checkpoints, starting_point


def leaves(run, step, item="ema"):
    return dict(params_lib.paths(checkpoints.load_params(run, step, item)[1]))


CHANGE = "--config.optim.learning_rate=1e-12"


@pytest.fixture(scope="module")
def tuned(trained):
    """A run that began with another one's weights, which is gone."""
    run, other = trained.root / "tuned", shutil.copytree(trained.run, trained.root / "began_with")
    assert main.main(trained.arguments(run, f"--config.init_from={other}", CHANGE)) == 0
    shutil.rmtree(other)
    return run


@pytest.mark.slow
def test_training_goes_on_from_the_other_runs_average(trained, tuned, tmp_path):
    before, after = leaves(trained.run, 3), leaves(tuned, 3, "params")
    assert before.keys() == after.keys()
    for path, value in before.items():
        np.testing.assert_allclose(after[path], value, rtol=1e-5, atol=1e-9, err_msg=path)
    at_random = tmp_path / "random"
    assert main.main(trained.arguments(at_random, CHANGE)) == 0
    moved = leaves(at_random, 3, "params")["params/head/kernel"]
    assert np.abs(moved - before["params/head/kernel"]).max() > 1e-3


def test_a_tuned_run_goes_on_without_the_run_it_began_with(trained, tuned, tmp_path):
    """What it began with is in its own states."""
    run = shutil.copytree(tuned, tmp_path / "again")
    shutil.rmtree(run / "checkpoints" / "3")
    start = f"--config.init_from={trained.root / 'began_with'}"
    assert main.main(trained.arguments(run, start, CHANGE)) == 0
    whole, parted = leaves(tuned, 3, "params"), leaves(run, 3, "params")
    assert whole.keys() == parted.keys() and any(path.startswith("constants/") for path in whole)
    for path, value in whole.items():
        np.testing.assert_array_equal(parted[path], value, err_msg=path)


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
