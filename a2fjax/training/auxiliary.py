"""Trains a task's auxiliary network (`a2fjax.tasks.base.Auxiliary`) in the step of its model."""

from __future__ import annotations

from typing import Any

import flax.struct
import jax
import optax

from a2fjax.models import params as params_lib
from a2fjax.models.params import Params
from a2fjax.tasks.base import Auxiliary
from a2fjax.training import optimizer as optimizer_lib


@flax.struct.dataclass
class AuxiliaryState:
    """State of a network that is trained beside the model.

    Attributes:
      params: its parameters, below the name of their collection.
      opt_state: optimiser state of `params`.
    """

    params: Params
    opt_state: optax.OptState


def optimizer(network: Auxiliary, steps: int) -> optax.GradientTransformation:
    """Returns the network's optimiser for a run of `steps` updates."""
    return optimizer_lib.build(network.optim, steps)


def split(network: Auxiliary | None, variables: Params) -> tuple[Params, Params]:
    """Returns the model's variables, and the network's below the name of their collection."""
    if network is None:
        return variables, {}
    name = network.collection
    return {k: v for k, v in variables.items() if k != name}, {name: variables[name]}


def create(network: Auxiliary | None, steps: int, params: Params) -> AuxiliaryState | None:
    """Returns the network's initial state; None without a network."""
    if network is None:
        return None
    return AuxiliaryState(params, optimizer(network, steps).init(params))


def update(
    network: Auxiliary, steps: int, state: AuxiliaryState, grads: Params
) -> tuple[AuxiliaryState, dict[str, jax.Array]]:
    """Returns the state after an update, and the norms of gradient, update and parameters.

    Args:
      network: the network.
      steps: updates of the whole run.
      state: the state before.
      grads: gradient of `state.params`.
    """
    updates, opt_state = optimizer(network, steps).update(grads, state.opt_state, state.params)
    params: Any = optax.apply_updates(state.params, updates)
    norms = {"grad_norm": grads, "update_norm": updates, "param_norm": params}
    metrics = {f"{k}/{network.collection}": optax.tree.norm(tree) for k, tree in norms.items()}
    return AuxiliaryState(params, opt_state), metrics


def trained(model: Params, state: AuxiliaryState | None) -> Params:
    """Returns the parameters of the model and of the network, both of which have gradients."""
    return model if state is None else params_lib.merge(model, state.params)
