"""Losses by an expert and a discriminator on four pretended devices, in a process of their own."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

CHILD = """
import dataclasses

import jax
import numpy as np

from a2fjax import rig, tasks
from a2fjax.batch import Batch
from a2fjax.configuration import (
    Config, DataConfig, LossConfig, RegressionConfig, ShardingConfig, SyncnetConfig,
)
from a2fjax.plan import collectives, hlo
from a2fjax.sharding import device_mesh
from a2fjax.tasks.adversary import Adversary, first_params
from a2fjax.tasks.sync_loss import LossExpert
from a2fjax.training.compiled_steps import CompiledSteps

ROWS, FRAMES = 8, 96
rng = np.random.default_rng(0)
batch = Batch.zeros(ROWS, FRAMES, 1).replace(
    audio=(0.1 * rng.normal(size=(ROWS, FRAMES * 320))).astype(np.float32),
    motion=np.cumsum(0.02 * rng.normal(size=(ROWS, FRAMES, 72)), 1).astype(np.float32),
    channel_mask=np.ones((ROWS, 72), bool),
    frame_mask=np.ones((ROWS, FRAMES), bool),
    length=np.full(ROWS, FRAMES, np.int32),
    subject=np.full(ROWS, -1, np.int32),
)
settings = Config(model=SyncnetConfig(width=8, layers=1, embedding=4))
judge = tasks.build(settings, None, {})
variables = jax.tree.map(np.asarray, jax.jit(judge.init)(jax.random.key(1), batch))
expert = LossExpert(judge.model, variables, 20.0, 0.5)

config = Config(
    steps=200,
    model=RegressionConfig(
        conv_layers=1, conv_width=16, recurrent_width=16, identity="none", dropout=0.0
    ),
    data=DataConfig(batch_size=ROWS, window_frames=FRAMES),
    loss=LossConfig(
        sync=("runs/a",), sync_weights=(0.5,), sync_start=0, sync_ramp=0, sync_adversary="runs/a"
    ),
)
frozen = {k: v for k, v in variables.items() if k != "params"}
start = first_params(variables["params"], 0.2, 0.0)
adversary = Adversary(judge.model, start, frozen, config.optim, 1.0)
task = tasks.build(config, None, {}).with_experts([expert], adversary)


def step(sharding, devices):
    one = dataclasses.replace(config, sharding=sharding)
    mesh = device_mesh.build(sharding, devices)
    spec = jax.tree.map(lambda a: jax.ShapeDtypeStruct(a.shape, a.dtype), batch)
    with jax.set_mesh(mesh):
        made = CompiledSteps(one, task, spec, mesh)
        state = made.initialise(task.pretrained)
        compiled = made.lower().compile()
        on = jax.device_put(batch, made.batch_sharding)
        flags = jax.device_put(np.zeros((mesh.size, 2), np.int32), made.batch_sharding)
        text = compiled.as_text()
        metrics = compiled(state, on, flags)[1]
    sent = {}
    for row in collectives.count(hlo.parse(text), mesh.size):
        sent[row.kind] = sent.get(row.kind, 0) + row.times * row.bytes
    return {k: float(v) for k, v in metrics.items()}, sent


devices = jax.devices()
assert len(devices) == 4
whole, nothing = step(ShardingConfig(data=1), devices[:1])
assert whole["loss/sync"] > 0 and nothing == {}, (whole, nothing)
copies, reduced = step(ShardingConfig(), devices)
cut, gathered = step(ShardingConfig(fsdp=4, min_mib=1e-3), devices)
beside = ("loss/adversary_shifted", "loss/adversary_penalty", "grad_norm/adversary")
for name in ("loss", "loss/sync", "grad_norm", *beside):
    for other in (copies, cut):
        np.testing.assert_allclose(other[name], whole[name], rtol=2e-4, err_msg=name)
rival = sum(a.nbytes for a in jax.tree.leaves(start))
trained = rival + 4 * sum(
    int(np.prod(a.shape))
    for a in jax.tree.leaves(jax.eval_shape(task.init, jax.random.key(0), batch)["params"])
)
assert set(reduced) == {"all-reduce"}, reduced
# The discriminator sees true motion twice and generated motion, each with a gradient of its own.
assert reduced["all-reduce"] <= 1.03 * trained + 2 * rival + 4096, (reduced, trained)
frozen = sum(a.nbytes for a in jax.tree.leaves(task.pretrained))
assert set(gathered) <= {"all-reduce", "all-gather", "reduce-scatter"}, gathered
assert gathered["all-gather"] <= trained + frozen, (gathered, trained, frozen)
print("done")
"""


@pytest.mark.slow
def test_four_devices_give_the_numbers_of_one_and_exchange_no_activations():
    environment = {
        **os.environ,
        "JAX_PLATFORMS": "cpu",
        "XLA_FLAGS": f"{os.environ.get('XLA_FLAGS', '')} --xla_force_host_platform_device_count=4",
    }
    done = subprocess.run(
        [sys.executable, "-c", CHILD],
        cwd=Path(__file__).resolve().parents[2],
        env=environment,
        capture_output=True,
        text=True,
        timeout=300,
    )
    assert done.returncode == 0 and done.stdout.endswith("done\n"), done.stdout + done.stderr
