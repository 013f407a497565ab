"""Evaluates the held-out loss and its terms during training."""

from __future__ import annotations

import contextlib
from collections.abc import Callable
from typing import Any

import numpy as np

from a2fjax import losses
from a2fjax.batch import Batch
from a2fjax.errors import WorkFailed
from a2fjax.tasks.base import Task
from a2fjax.training.compiled_steps import requested
from a2fjax.training.inputs import Inputs
from a2fjax.training.state import TrainState

Terms = dict[str, losses.WeightedSum]


def evaluate(
    task: Task,
    inputs: Inputs,
    eval_step: Callable[[TrainState, Batch, int], tuple[Terms, Any]],
    state: TrainState,
    step: int,
    *,
    on_batch: Callable[[int], None],
) -> dict[str, float]:
    """Computes "eval/loss" and "eval/loss/<term>" of the averaged parameters.

    With several datasets, "eval/set/<name>/..." holds the same values for each dataset.

    Args:
      task: computes the total loss from the terms.
      inputs: held-out batches.
      eval_step: (state, local batch, index) -> (terms as sums, combined stop flags).
      state: training state.
      step: number of finished updates, for messages.
      on_batch: called with the number of each batch before it is evaluated.

    Returns:
      Values by name; {} if a process requested a stop.

    Raises:
      WorkFailed: a value is not finite.
    """
    total: Terms = {}
    by_dataset: dict[str, Terms] = {}
    flags = None
    with contextlib.closing(inputs.eval_batches()) as batches:
        for index, local in enumerate(batches):
            on_batch(index + 1)
            if flags is not None and "stop" in requested(flags):
                return {}
            parts = inputs.eval_sets(index)
            for name in parts or [""]:
                # Terms are sums over examples, so the datasets' terms add up to the batch's.
                batch = _only(local, parts[name]) if parts else local
                terms, flags = eval_step(state, batch, index)
                total = _add(total, terms)
                by_dataset[name] = _add(by_dataset.get(name, {}), terms)
    if flags is not None and "stop" in requested(flags):
        return {}
    values = _values("eval", task, total)
    for name in filter(None, by_dataset):
        values |= _values(f"eval/set/{name}", task, by_dataset[name])
    if not np.isfinite(list(values.values())).all():
        raise WorkFailed(f"step {step}: the held-out loss is not finite: {values}")
    return values


def _only(batch: Batch, examples: np.ndarray) -> Batch:
    """Returns the batch with the frames of all other examples masked."""
    return batch.replace(frame_mask=batch.frame_mask & examples[:, None])


def _add(first: Terms, second: Terms) -> Terms:
    return losses.merge(first, second) if first else second


def _values(prefix: str, task: Task, terms: Terms) -> dict[str, float]:
    values = {f"{prefix}/loss": float(task.total(terms))}
    return values | {f"{prefix}/loss/{name}": float(t.value) for name, t in terms.items()}
