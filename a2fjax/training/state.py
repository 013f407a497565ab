"""What training changes, and the random streams it draws from.

Neither the position in the data nor a random key is part of the state: the data are a function of
`step`, and every key is folded in from (seed, name, step). A run that dies anywhere therefore
continues with the same numbers from nothing but the arrays below.
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


@flax.struct.dataclass
class TrainState:
    """All that training changes.

    Attributes:
      step: int32 scalar, completed updates. Batch number `step` is the next one.
      params: trained parameters; what gradients are taken of.
      frozen: parameters that are not trained; in neither gradients, optimiser nor average.
      opt_state: of the optimiser, for `params`.
      ema: exponential moving average of `params`, or None when it is not kept.
    """

    step: jax.Array
    params: Params
    frozen: Params
    opt_state: optax.OptState
    ema: Params | None

    def merged(self, *, average: bool) -> Params:
        """Returns whole parameters, constants included; averaged ones when asked and kept."""
        trained = self.ema if average and self.ema is not None else self.params
        return params_lib.merge(trained, self.frozen)


def stream(seed: int, name: str, step: jax.Array | int) -> jax.Array:
    """Returns the key of the random stream `name` at `step`.

    A key depends on these three alone: adding a stream disturbs no other, and resuming needs no
    saved key.
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
) -> TrainState:
    """Returns the state before the first update. Pure; runs under `jit` and `eval_shape`.

    Args:
      task: gives the parameters.
      optimizer: gives its own state for the trained ones.
      batch: arrays of the shapes and types training will see; the values do not matter.
      pretrained: weights of `task.pretrained`, and any others that are not to start at random; an
        argument, so that they do not become part of the compiled program.
      seed: of the parameters.
      average: keep an exponential moving average.
    """
    params = params_lib.overlay(task.init(stream(seed, "init", 0), batch), pretrained or {})
    trained, frozen = params_lib.split(params, task.frozen)
    return TrainState(
        step=jnp.zeros((), jnp.int32),
        params=trained,
        frozen=frozen,
        opt_state=optimizer.init(trained),
        ema=jax.tree.map(jnp.copy, trained) if average else None,
    )


def ema_update(ema: Params, params: Params, step: jax.Array, *, decay: float) -> Params:
    """Returns the moving average after one more update.

    The decay is min(`decay`, (1 + t) / (10 + t)) after t updates, so that early on the average
    forgets the initial values quickly (the warm-up of TensorFlow's ExponentialMovingAverage with
    `num_updates`).

    Args:
      ema: average so far.
      params: parameters after the update.
      step: updates completed before this one, t.
      decay: in the long run, in [0, 1).
    """
    t = step.astype(jnp.float32)
    keep = jnp.minimum(decay, (1.0 + t) / (10.0 + t))
    return jax.tree.map(lambda e, p: (keep * e + (1.0 - keep) * p).astype(e.dtype), ema, params)
