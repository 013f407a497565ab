"""Builds AdamW with warm-up and cosine decay; every schedule is a function of the step."""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp
import optax

from a2fjax.configuration import OptimConfig


def learning_rate(config: OptimConfig, steps: int) -> optax.Schedule:
    """Returns the learning-rate schedule: linear from 0 to the peak, then a half cosine.

    The half cosine ends at `final_fraction` of the peak after `steps` updates (Loshchilov and
    Hutter 2017, "SGDR", without restarts).
    """
    return optax.warmup_cosine_decay_schedule(
        init_value=0.0,
        peak_value=config.learning_rate,
        warmup_steps=config.warmup_steps,
        decay_steps=steps,
        end_value=config.learning_rate * config.final_fraction,
    )


def decayed(params: Any) -> Any:
    """Returns a tree of bools: True for matrices, which are the parameters with weight decay.

    Biases, scales and other vectors are False. Biases that a fused layer stores as a matrix are
    recognised by name and are False too.
    """

    def is_matrix(path: tuple[Any, ...], leaf: Any) -> bool:
        name = str(getattr(path[-1], "key", path[-1])).lower() if path else ""
        return jnp.ndim(leaf) >= 2 and "bias" not in name and "scale" not in name

    return jax.tree_util.tree_map_with_path(is_matrix, params)


def build(
    config: OptimConfig, steps: int, encoder_factor: float = 1.0
) -> optax.GradientTransformation:
    """Returns gradient clipping by global norm followed by AdamW (Loshchilov and Hutter 2019).

    The optimiser's step count equals the state's step, because every step updates.

    Args:
      config: optimiser configuration.
      steps: updates of the whole run.
      encoder_factor: factor of the learning rate for the parameters under "encoders".
    """
    parts = [optax.clip_by_global_norm(config.clip_norm)] if config.clip_norm > 0 else []
    parts.append(
        optax.adamw(
            learning_rate(config, steps),
            b1=config.b1,
            b2=config.b2,
            eps=config.eps,
            weight_decay=config.weight_decay,
            mask=decayed,
        )
    )
    if encoder_factor != 1.0:
        # AdamW's update, including weight decay, is proportional to the learning rate.
        parts.append(optax.masked(optax.scale(encoder_factor), _of_encoders))
    return optax.chain(*parts)


def _of_encoders(params: Any) -> Any:
    """Returns a tree of bools: True for parameters under "encoders"."""
    return jax.tree_util.tree_map_with_path(
        lambda path, _: getattr(path[0], "key", None) == "encoders", params
    )
