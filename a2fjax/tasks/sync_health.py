"""Warnings of experts that do not learn: one line each, with the likely cause."""

from __future__ import annotations

from collections.abc import Mapping

import jax.numpy as jnp
from jax import Array

from a2fjax.configuration import SyncConfig
from a2fjax.losses import WeightedSum

NEAR_CHANCE = 0.01
"""Share of the chance level within which a loss has learned nothing."""

LEAST_SPREAD = 1e-3
"""Share of a branch's power that varies; below it all windows have one vector."""

LEAST_RANK = 1.5
"""Effective number of directions; one of the vectors' values then is all that is used."""

LEAST_OFFSET = 2.0
"""Frames by which the branches see different times."""

STEADY = 0.6
"""Share of the offsets' size that their mean must have to be one offset, not a scatter."""


def shape_terms(vectors: Array, counts: Array) -> tuple[Array, Array]:
    """Returns (spread, rank) of the vectors [N, D] that count.

    Spread is the share of the power that varies, in [0, 1]. Rank is the participation ratio
    tr(C)^2 / tr(C^2) of the covariance C: the number of directions that carry it.
    """
    weight = counts.astype(jnp.float32)[:, None]
    number = jnp.maximum(weight.sum(), 1.0)
    mean = jnp.sum(weight * vectors, 0) / number
    centred = jnp.where(counts[:, None], vectors - mean, 0.0)
    covariance = centred.T @ centred / number
    trace = jnp.trace(covariance)
    power = jnp.sum(weight * vectors**2) / number
    square = jnp.sum(covariance**2)
    return trace / (power + 1e-12), trace**2 / (square + 1e-12)


def single(value: Array, counts: Array) -> WeightedSum:
    """Returns a term of one value a batch, which batches without a window leave out."""
    weight = counts.any().astype(jnp.float32)
    return WeightedSum(value * weight, weight)


def warnings(
    config: SyncConfig, step: int, values: Mapping[str, float], *, people: int
) -> dict[str, str]:
    """Returns what looks wrong, by name.

    Args:
      config: `warn_after` says from which step on.
      step: number of finished updates.
      values: the terms of a batch, or of held-out windows, by name.
      people: people trained on.
    """
    out: dict[str, str] = {}
    if step < config.warn_after:
        return out
    few = f"too few people ({people}) or clips" if people < 8 else "too few positives in a batch"
    for name, what in (("shifted", "shifted audio"), ("others", "the audio of other clips")):
        loss, chance = values.get(name), values.get(f"{name}_chance")
        if loss is not None and chance and loss > (1 - NEAR_CHANCE) * chance:
            out[name] = (
                f"step {step}: {what} is told apart as by chance (loss {loss:.3f}, chance "
                f"{chance:.3f}): takes out of step with their sound, or {few}"
            )
    spread, rank = values.get("spread", 1.0), values.get("rank", LEAST_RANK)
    if spread < LEAST_SPREAD or rank < LEAST_RANK:
        out["collapsed"] = (
            f"step {step}: the vectors collapsed (they vary by {100 * spread:.2g} % in "
            f"{rank:.1f} directions): the learning rate is too high, or channels are constant"
        )
    offset, size = values.get("offset", 0.0), values.get("offset_size", 0.0)
    if abs(offset) >= LEAST_OFFSET and abs(offset) > STEADY * size:
        side = "later" if offset > 0 else "earlier"
        out["offset"] = (
            f"step {step}: the audio fits best {abs(offset) * 20:.0f} ms {side} than recorded: the "
            "takes are out of step by that, as from another clock or frame rate"
        )
    return out
