"""Programs on more devices than a process of tests has are made by processes of their own."""

import json
import subprocess
import sys

import pytest

from a2fjax import configuration as config_lib
from a2fjax.plan import topologies

HEADER = """
import json, sys
import jax, jax.numpy as jnp
jax.config.update("jax_num_cpu_devices", 16)
from jax.sharding import AxisType, PartitionSpec as P
def mesh(**sizes):
    kinds = (AxisType.Auto,) * len(sizes)
    return jax.make_mesh(tuple(sizes.values()), tuple(sizes), axis_types=kinds)
def text(function, mesh, inside, outside, *shapes):
    mapped = jax.shard_map(function, mesh=mesh, in_specs=inside, out_specs=outside, check_vma=False)
    args = [jax.ShapeDtypeStruct(shape, jnp.float32) for shape in shapes]
    return jax.jit(mapped).lower(*args).compile().as_text()
"""


@pytest.fixture(scope="session")
def programs():
    """Returns the texts of compiled programs, by name, that a piece of Python puts into `out`."""

    def make(code):
        done = subprocess.run(
            [sys.executable, "-c", f"{HEADER}\nout = {{}}\n{code}\nprint(json.dumps(out))"],
            env=topologies.environment(topologies.Topology("cpu", 16)),
            capture_output=True,
            text=True,
        )
        assert done.returncode == 0, done.stderr
        return json.loads(done.stdout.splitlines()[-1])

    return make


@pytest.fixture(scope="session")
def look():
    """Returns what is found of an experiment on a topology; each is compiled once."""
    found = {}

    def of(experiment, devices, *overrides, batch=2):
        key = (experiment, devices, overrides, batch)
        if key not in found:
            values = config_lib.parse_overrides([f"--config.{value}" for value in overrides])
            resolved = config_lib.load(f"experiments/{experiment}", values)
            (topology,) = topologies.parse(devices)
            found[key] = topologies.look(resolved, topology, batch_per_device=batch)
        return found[key]

    return of
