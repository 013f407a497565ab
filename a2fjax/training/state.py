"""Defines the training state and its random streams.

The state holds neither a position in the data nor a random key: the data are a function of `step`,
and every key is derived from (seed, name, step). A run that is interrupted anywhere therefore
continues with the same numbers from the arrays of the state alone.
"""

from __future__ import annotations

import zlib

import flax.struct
import jax
import jax.numpy as jnp
import optax

from a2fjax.batch import Batch
from a2fjax.models import params as params_lib
from a2fjax.models.params import Params
from a2fjax.tasks.base import Task
from a2fjax.training import auxiliary
from a2fjax.training.auxiliary import AuxiliaryState


@flax.struct.dataclass
class TrainState:
    """State of a training run.

    Attributes:
      step: int32 scalar, completed updates; also the number of the next batch.
      params: trained parameters, which have gradients.
      frozen: parameters that are not trained; they have no gradient, optimiser state or average.
      opt_state: optimiser state of `params`.
      ema: exponential moving average of `params`, or None if the run keeps none.
      auxiliary: state of the network that the task trains beside its model, or None.
    """

    step: jax.Array
    params: Params
    frozen: Params
    opt_state: optax.OptState
    ema: Params | None
    auxiliary: AuxiliaryState | None = None

    def merged(self, *, average: bool) -> Params:
        """Returns all of the model, including constants; averaged if requested and available."""
        trained = self.ema if average and self.ema is not None else self.params
        return params_lib.merge(trained, self.frozen)


def stream(seed: int, name: str, step: jax.Array | int) -> jax.Array:
    """Returns the key of the random stream `name` at `step`.

    A key depends only on the three arguments, so a new stream does not affect the others, and
    resuming needs no saved key.
    """
    key = jax.random.fold_in(jax.random.key(seed), zlib.crc32(name.encode()))
    return jax.random.fold_in(key, step)


def create(
    task: Task,
    optimizer: optax.GradientTransformation,
    batch: Batch,
    pretrained: Params | None = None,
    *,
    seed: int,
    average: bool,
    steps: int = 0,
) -> TrainState:
    """Returns the initial state; a pure function that runs under `jit` and `eval_shape`.

    Args:
      task: initialises the parameters.
      optimizer: initialises its state for the trained parameters.
      batch: arrays with the shapes and types of training batches; the values do not matter.
      pretrained: weights that replace random initial values, such as `task.pretrained`; passed as
        an argument so that they do not become constants of the compiled program.
      seed: seed of the parameters.
      average: whether to keep an exponential moving average.
      steps: updates of the whole run, for the task's auxiliary network.
    """
    params = params_lib.overlay(task.init(stream(seed, "init", 0), batch), pretrained or {})
    params, beside = auxiliary.split(task.auxiliary, params)
    trained, frozen = params_lib.split(params, task.frozen)
    return TrainState(
        step=jnp.zeros((), jnp.int32),
        params=trained,
        frozen=frozen,
        opt_state=optimizer.init(trained),
        ema=jax.tree.map(jnp.copy, trained) if average else None,
        auxiliary=auxiliary.create(task.auxiliary, steps, beside),
    )


def ema_update(ema: Params, params: Params, step: jax.Array, *, decay: float) -> Params:
    """Returns the moving average after one more update.

    The decay is min(`decay`, (1 + t) / (10 + t)) after t updates, so the average quickly forgets
    the initial values (the warm-up of TensorFlow's ExponentialMovingAverage with `num_updates`).

    Args:
      ema: average so far.
      params: parameters after the update.
      step: updates completed before this one, t.
      decay: decay after the warm-up, in [0, 1).
    """
    t = step.astype(jnp.float32)
    keep = jnp.minimum(decay, (1.0 + t) / (10.0 + t))
    return jax.tree.map(lambda e, p: (keep * e + (1.0 - keep) * p).astype(e.dtype), ema, params)
