"""A small real task on random data: a few dense layers, quick to compile."""

import dataclasses
import types

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from a2fjax import configuration as config_lib
from a2fjax.batch import Batch
from a2fjax.losses import WeightedSum
from a2fjax.models.params import FROZEN

FRAMES, CHANNELS = 6, 4


class Net(nn.Module):
    width: int = 8

    @nn.compact
    def __call__(self, x, key):
        x = nn.LayerNorm()(nn.tanh(nn.Dense(self.width)(x)))
        if key is not None:
            x = nn.Dropout(0.2, deterministic=False)(x, rng=key)
        return nn.Dense(CHANNELS)(x)


class ToyTask:
    """Predicts motion from audio; the constant is the mean that the output starts from."""

    frozen = FROZEN
    pretrained = {}
    auxiliary = None

    def __init__(self, width=8):
        self.net = Net(width)
        self.mean = jnp.full((CHANNELS,), 0.25)

    def init(self, key, batch):
        params = self.net.init(key, batch.audio, None)["params"]
        return {"net": params, "constants": {"mean": self.mean}}

    def warm_start(self, params):
        return {**params, "constants": {"mean": self.mean}}

    def loss(self, params, batch, key, *, step, train):
        predicted = self.net.apply({"params": params["net"]}, batch.audio, key if train else None)
        error = (predicted + params["constants"]["mean"] - batch.motion) ** 2
        mask = batch.frame_mask[..., None].astype(jnp.float32)
        position = WeightedSum((error * mask).sum(), mask.sum() * CHANNELS)
        speed = (jnp.diff(predicted, axis=1) ** 2).sum()
        terms = {"position": position, "smooth": WeightedSum(speed, jnp.float32(predicted.size))}
        return self.total(terms), terms

    def total(self, terms):
        return terms["position"].value + 0.1 * terms["smooth"].value

    def warnings(self, step, values):
        return {"large": f"step {step}: the loss is large"} if values["position"] > 1e-9 else {}


class ToyInputs:
    def __init__(self, config, poison=None):
        self.config, self.poison, self.drawn = config, poison, []
        self.on_batch = lambda step: None

    def _batch(self, name, step):
        size = self.config.data.batch_size
        rng = np.random.default_rng([name, self.config.seed, step])
        audio = rng.normal(size=(size, FRAMES, 3)).astype(np.float32)
        motion = np.cumsum(audio, axis=1)[..., [0, 1, 2, 0]] / 3
        if self.poison == step and name == 0:
            audio[1, 2, 0] = np.nan
        return Batch.zeros(size, FRAMES, 1).replace(
            audio=audio,
            motion=motion,
            frame_mask=rng.random((size, FRAMES)) < 0.8,
            length=np.full((size,), FRAMES, np.int32),
            clip=rng.integers(0, 9, size).astype(np.int32),
            start=np.zeros((size,), np.int32),
        )

    def spec(self):
        return jax.tree.map(lambda a: jax.ShapeDtypeStruct(a.shape, a.dtype), self._batch(0, 0))

    def batches(self, start_step):
        step = start_step
        while True:
            self.drawn.append(step)
            self.on_batch(step)
            yield self._batch(0, step)
            step += 1

    def eval_batches(self):
        return (self._batch(1, i) for i in range(self.config.eval.batches))

    def eval_sets(self, index):
        return {}

    def describe(self, batch):
        return [f"toy/{c}" for c in batch.clip]

    def fingerprint(self):
        return "toy"

    def bad_records(self):
        return 0


def make_config(**changes):
    values = {
        "name": "toy",
        "steps": 12,
        "data": {"batch_size": 4, "window_frames": FRAMES},
        "optim": {"warmup_steps": 2, "learning_rate": 1e-2},
        "checkpoint": {"every_steps": 4},
        "eval": {"every_steps": 4, "batches": 2},
        "log": {"every_steps": 2},
    }
    for key, value in changes.items():
        *parents, last = key.split("__")
        branch = values
        for parent in parents:
            branch = branch.setdefault(parent, {})
        branch[last] = value
    return config_lib.build(config_lib.Config, values, where="test")


@pytest.fixture(autouse=True)
def compiled(compile_once):
    """Every test trains the same few programs."""


@pytest.fixture(scope="session")
def toy():
    """The task, its data, configurations and a way to train quietly."""

    def train(workdir, config=None, *, width=8, inputs=None, **changes):
        from a2fjax.training import trainer

        config = config or make_config(**changes)
        inputs = inputs or ToyInputs(config)
        said = []
        resolved = config_lib.Resolved(config, {})
        state = trainer.train(
            resolved, workdir, task=ToyTask(width), inputs=inputs, say=said.append
        )
        return types.SimpleNamespace(state=state, said=said, inputs=inputs)

    return types.SimpleNamespace(
        Task=ToyTask,
        Inputs=ToyInputs,
        config=make_config,
        train=train,
        replace=dataclasses.replace,
    )
