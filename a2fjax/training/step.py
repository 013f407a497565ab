"""Makes the training and evaluation steps, which are pure functions of (state, batch)."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import jax
import jax.numpy as jnp
import optax
from jax.sharding import Mesh

from a2fjax import losses
from a2fjax.batch import Batch
from a2fjax.configuration import Config
from a2fjax.losses import WeightedSum
from a2fjax.models import params as params_lib
from a2fjax.models.params import Params
from a2fjax.sharding import constraints
from a2fjax.tasks.base import Task
from a2fjax.training import auxiliary
from a2fjax.training import optimizer as optimizer_lib
from a2fjax.training.state import TrainState, ema_update, stream

Metrics = dict[str, jax.Array]
Terms = dict[str, WeightedSum]


def make_train_step(
    task: Task,
    optimizer: optax.GradientTransformation,
    config: Config,
    mesh: Mesh | None = None,
    shardings: TrainState | None = None,
) -> Callable[[TrainState, Batch], tuple[TrainState, Metrics]]:
    """Returns the training step: (state, batch) -> (updated state, metrics).

    Gradients are computed for the trained parameters only, so frozen parameters need no backward
    pass and do not contribute to the norm for clipping. Metrics are scalars of this batch: float32
    "loss", "loss/<term>", "grad_norm" (before clipping), "update_norm", "param_norm", the same for
    each group of parameters ("grad_norm/<group>" ...), "lr"; and "finite" (bool), which is False
    if the loss, a gradient or a parameter is not finite.

    An auxiliary network of the task gets its update in the same step, with its own optimiser.
    "loss" is the model's alone, and the network's norms are "grad_norm/<its collection>" ...

    Args:
      task: computes the loss.
      optimizer: optimiser from `optimizer.build`.
      config: configuration of the run.
      mesh: device mesh of the batch, used to shard the parts of `config.accumulate`.
      shardings: shardings of the state; those of parameters are applied to their gradients too.
    """
    network = task.auxiliary
    schedule = optimizer_lib.learning_rate(config.optim, config.steps)
    encoder = config.audio.encoder

    def train_step(state: TrainState, batch: Batch) -> tuple[TrainState, Metrics]:
        key = stream(config.seed, "train", state.step)

        def loss(trained: Params, part: Batch, key: jax.Array) -> tuple[jax.Array, Terms]:
            def forward(trained: Params) -> tuple[jax.Array, Terms]:
                # Gather the parameters once. Otherwise the compiler moves activations to the
                # parameter shards, which is many times the traffic.
                params = constraints.replicate(params_lib.merge(trained, state.frozen))
                total, terms = task.loss(params, part, key, step=state.step, train=True)
                return total if network is None else total + network.total(terms), terms

            if config.remat == "none":
                return forward(trained)
            kept = jax.checkpoint_policies.dots_saveable
            return jax.checkpoint(forward, policy=kept)(trained)

        def both(terms: Terms) -> jax.Array:
            total = task.total(terms)
            return total if network is None else total + network.total(terms)

        trained = auxiliary.trained(state.params, state.auxiliary)
        if config.accumulate == 1:
            (total, terms), grads = jax.value_and_grad(loss, has_aux=True)(trained, batch, key)
        else:
            total, terms, grads = _accumulated(
                loss, both, trained, batch, key, config.accumulate, mesh
            )
        if shardings is not None:
            places = auxiliary.trained(shardings.params, shardings.auxiliary)
            grads = jax.lax.with_sharding_constraint(grads, places)
        grads, beside = auxiliary.split(network, grads)
        updates, opt_state = optimizer.update(grads, state.opt_state, state.params)
        params = optax.apply_updates(state.params, updates)
        ema = state.ema
        if ema is not None:
            ema = ema_update(ema, params, state.step, decay=config.optim.ema_decay)
        metrics = {
            "loss": total,
            **{f"loss/{name}": term.value for name, term in terms.items()},
            **_norms("grad_norm", grads),
            **_norms("update_norm", updates),
            **_norms("param_norm", params),
            "lr": jnp.asarray(schedule(state.step)),
        }
        trained_beside = state.auxiliary
        if network is not None and trained_beside is not None:
            trained_beside, norms = auxiliary.update(network, config.steps, trained_beside, beside)
            metrics |= {**norms, "loss": task.total(terms)}
        if "encoders" in state.params:
            metrics["lr/encoders"] = metrics["lr"] * encoder.learning_rate
        metrics = {name: value.astype(jnp.float32) for name, value in metrics.items()}
        finite = jnp.isfinite(jnp.stack(list(metrics.values()))).all()
        after = TrainState(state.step + 1, params, state.frozen, opt_state, ema, trained_beside)
        return after, {**metrics, "finite": finite}

    return train_step


def _norms(name: str, tree: Params) -> Metrics:
    """Returns the norm of a tree and the norms of its groups, which are the top-level modules.

    The modules of the collection "params" are groups, and so are other collections such as
    "encoders". While there is only one group, the names below it replace it.
    """
    groups: Params = {**tree, **tree["params"]} if "params" in tree else tree
    if groups is not tree:
        del groups["params"]
    while isinstance(groups, Mapping) and len(groups) == 1:
        (groups,) = groups.values()
    out = {name: optax.tree.norm(tree)}
    if isinstance(groups, Mapping):
        out |= {f"{name}/{group}": optax.tree.norm(part) for group, part in groups.items()}
    return out


def _accumulated(
    loss: Callable[[Params, Batch, jax.Array], tuple[jax.Array, Terms]],
    total: Callable[[Terms], jax.Array],
    trained: Params,
    batch: Batch,
    key: jax.Array,
    parts: int,
    mesh: Mesh | None,
) -> tuple[jax.Array, Terms, Params]:
    """Returns loss, terms and gradient of a batch that is computed in parts.

    With terms t of sums S_t and weights W_t over the parts p, the gradient of total(S, W) is
    sum_p sum_t (d total / d S_t) grad S_t,p + (d total / d W_t) grad W_t,p, with factors evaluated
    at the sums over the whole batch. The totals here are linear in the S_t, so the factors depend
    only on the W_t, which follow from masks. The first of the two passes then costs almost nothing.

    Part p consists of rows p, p + `parts`, ... of the batch. For any number of devices, each device
    thus computes its own rows, and no data move between devices.
    """

    def cut(value: jax.Array) -> jax.Array:
        value = value.reshape(value.shape[0] // parts, parts, *value.shape[1:])
        value = jnp.moveaxis(value, 1, 0)
        if mesh is None:
            return value
        spec = jax.sharding.PartitionSpec(None, mesh.axis_names)
        sharding = jax.sharding.NamedSharding(mesh, spec)
        return jax.lax.with_sharding_constraint(value, sharding)

    stacked = jax.tree.map(cut, batch)
    keys = jax.random.split(key, parts)

    # Unrolled in Python, so that XLA removes computations that the factors do not depend on.
    whole: Terms = {}
    for index in range(parts):
        part_terms = loss(trained, stacked.select(index), keys[index])[1]
        whole = losses.merge(whole, part_terms) if whole else part_terms
    factors = jax.grad(total)(jax.lax.stop_gradient(whole))

    def weighted(trained: Params, batch: Batch, key: jax.Array) -> tuple[jax.Array, Terms]:
        terms = loss(trained, batch, key)[1]
        pairs = zip(jax.tree.leaves(factors), jax.tree.leaves(terms), strict=True)
        return sum((jnp.sum(f * v) for f, v in pairs), jnp.zeros(())), terms

    def body(carry: tuple[Params, Terms], xs: Any) -> tuple[tuple[Params, Terms], None]:
        grads, terms = carry
        (_, part_terms), more = jax.value_and_grad(weighted, has_aux=True)(trained, *xs)
        return (jax.tree.map(jnp.add, grads, more), losses.merge(terms, part_terms)), None

    start = jax.tree.map(jnp.zeros_like, (trained, whole))
    (grads, terms), _ = jax.lax.scan(body, start, (stacked, keys))
    return total(terms), terms, grads


def make_eval_step(task: Task, seed: int) -> Callable[[TrainState, Batch, jax.Array], Terms]:
    """Returns the evaluation step: (state, batch, index) -> loss terms as sums.

    It uses the averaged parameters. Batch number `index` always gets the same random key, so losses
    that draw noise are comparable between evaluations.
    """

    def eval_step(state: TrainState, batch: Batch, index: jax.Array) -> Terms:
        key = stream(seed, "eval", index)
        params = constraints.replicate(state.merged(average=True))
        return task.loss(params, batch, key, step=state.step, train=False)[1]

    return eval_step
