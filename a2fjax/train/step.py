"""The update and the held-out measurement as pure functions of (state, batch)."""

from __future__ import annotations

from collections.abc import Callable

import jax
import jax.numpy as jnp
import optax

from a2fjax.config import Config
from a2fjax.losses import WeightedSum
from a2fjax.models import params as params_lib
from a2fjax.models.base import Batch
from a2fjax.models.params import Params
from a2fjax.tasks.base import Task
from a2fjax.train import optimizer as optimizer_lib
from a2fjax.train.state import TrainState, ema_update, stream

Metrics = dict[str, jax.Array]


def make_train_step(
    task: Task, optimizer: optax.GradientTransformation, config: Config
) -> Callable[[TrainState, Batch], tuple[TrainState, Metrics]]:
    """Returns the update: (state, batch) -> (state after it, metrics).

    Gradients are taken of the trained parameters only, so frozen ones cost no backward pass and
    stay out of the norm that clipping looks at. Metrics are float32 scalars of this one batch:
    "loss", "loss/<term>", "grad_norm" (before clipping), "update_norm", "param_norm", "lr", and
    "finite" (bool), which is False when the loss, a gradient or a parameter is not a number.
    """
    schedule = optimizer_lib.learning_rate(config.optim, config.steps)

    def train_step(state: TrainState, batch: Batch) -> tuple[TrainState, Metrics]:
        key = stream(config.seed, "train", state.step)

        def loss(trained: Params) -> tuple[jax.Array, dict[str, WeightedSum]]:
            params = params_lib.merge(trained, state.frozen)
            total, terms = task.loss(params, batch, key, step=state.step, train=True)
            return total.astype(jnp.float32), terms

        (total, terms), grads = jax.value_and_grad(loss, has_aux=True)(state.params)
        updates, opt_state = optimizer.update(grads, state.opt_state, state.params)
        params = optax.apply_updates(state.params, updates)
        ema = state.ema
        if ema is not None:
            ema = ema_update(ema, params, state.step, decay=config.optim.ema_decay)
        metrics = {
            "loss": total,
            **{f"loss/{name}": term.value for name, term in terms.items()},
            "grad_norm": optax.global_norm(grads),
            "update_norm": optax.global_norm(updates),
            "param_norm": optax.global_norm(params),
            "lr": jnp.asarray(schedule(state.step)),
        }
        metrics = {name: value.astype(jnp.float32) for name, value in metrics.items()}
        finite = jnp.isfinite(jnp.stack(list(metrics.values()))).all()
        after = TrainState(state.step + 1, params, state.frozen, opt_state, ema)
        return after, {**metrics, "finite": finite}

    return train_step


def make_eval_step(
    task: Task, config: Config
) -> Callable[[TrainState, Batch, jax.Array], dict[str, WeightedSum]]:
    """Returns (state, batch, index) -> loss terms of the averaged parameters, as sums.

    Batch number `index` always gets the same key, so that losses that draw noise are comparable
    from one measurement to the next.
    """

    def eval_step(state: TrainState, batch: Batch, index: jax.Array) -> dict[str, WeightedSum]:
        key = stream(config.seed, "eval", index)
        params = state.merged(average=True)
        return task.loss(params, batch, key, step=state.step, train=False)[1]

    return eval_step
