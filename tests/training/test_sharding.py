"""Four devices are pretended in a process of their own: their number is fixed when jax starts."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

CHILD = """
import importlib.util, sys
from pathlib import Path

import jax
import numpy as np

spec = importlib.util.spec_from_file_location("toy", sys.argv[1])
toy = importlib.util.module_from_spec(spec)
spec.loader.exec_module(toy)

from a2fjax.configuration import Resolved
from a2fjax.training import trainer


def train(name, **changes):
    # So small a network is never cut otherwise.
    config = toy.make_config(sharding__min_mib=6e-5, **changes)
    return trainer.train(
        Resolved(config, {}), Path(sys.argv[2]) / name, task=toy.ToyTask(),
        inputs=toy.ToyInputs(config), say=lambda line: None,
    )


def close(a, b):
    for x, y in zip(jax.tree.leaves(a), jax.tree.leaves(b), strict=True):
        np.testing.assert_allclose(np.asarray(x), np.asarray(y), rtol=1e-4, atol=1e-6)


assert len(jax.devices()) == 4
one = train("one", sharding__data=1)
four = train("four", sharding__fsdp=2)
kernel = four.params["net"]["Dense_0"]["kernel"]
assert kernel.sharding.spec == jax.sharding.PartitionSpec(None, "fsdp"), kernel.sharding
assert len(kernel.sharding.device_set) == 4 and not kernel.is_fully_replicated
close(one, four)
train("moved", sharding__fsdp=2, steps=12, checkpoint__every_steps=4, eval__every_steps=0)
import shutil
shutil.rmtree(Path(sys.argv[2]) / "moved" / "checkpoints" / "12")
moved = train("moved", sharding__data=1, eval__every_steps=0)
assert len(moved.params["net"]["Dense_0"]["kernel"].sharding.device_set) == 1
close(one, moved)
try:
    train("odd", data__batch_size=6)
except ValueError as error:
    assert "data.batch_size=6 cannot be divided over 4 devices" in str(error), error
else:
    raise AssertionError("a batch of 6 on 4 devices was accepted")
print("done")
"""


@pytest.mark.slow
def test_four_devices_give_the_numbers_of_one_and_hand_over_to_one(tmp_path):
    here = Path(__file__).resolve()
    environment = {
        **os.environ,
        "JAX_PLATFORMS": "cpu",
        "XLA_FLAGS": f"{os.environ.get('XLA_FLAGS', '')} --xla_force_host_platform_device_count=4",
    }
    command = [sys.executable, "-c", CHILD, str(here.parent / "conftest.py"), str(tmp_path)]
    done = subprocess.run(
        command,
        cwd=here.parents[2],
        env=environment,
        capture_output=True,
        text=True,
        timeout=300,
    )
    assert done.returncode == 0 and done.stdout.endswith("done\n"), done.stdout + done.stderr
