"""Sync experts as terms of a motion model's loss.

With the improbability e of a window's timing (`models.syncnet.timing`) a term is

    L = mean over windows of max(0, e(prediction) - e(truth)) / gap

with the gap such that L of another clip's motion is 1 (`sync.normalisation`). It is 0 for the
truth, and a prediction that an expert finds better in step than the truth gains nothing by it.
Windows count whose true motion moves, has speech and no frame that is masked. The motion is
standardised by the truth of its window of data: the numbers of people are others in the expert's
training.

The gradient goes into the motion only. An expert's variables are frozen and stand in the collection
`COLLECTION`, which checkpoints leave out.
"""

from __future__ import annotations

import copy
import dataclasses
from collections.abc import Mapping, Sequence
from typing import TypeVar

import jax
import jax.numpy as jnp
from jax import Array

from a2fjax import losses
from a2fjax.batch import Batch
from a2fjax.configuration import LossConfig
from a2fjax.losses import WeightedSum
from a2fjax.models import params as params_lib
from a2fjax.models.params import Params
from a2fjax.models.syncnet import channels, timing
from a2fjax.models.syncnet.model import SyncModel
from a2fjax.tasks.base import SingleMotionTask

COLLECTION = "sync"
"""Collection of the experts' variables, by position in `loss.sync`."""

TERM = "sync"
"""Name of the first expert's term; the second's is "sync_2"."""

RAMP = "sync_ramp"
"""Name of the term that holds the share of the weights that counts at this step."""

T = TypeVar("T", bound="SyncedMotionTask")


@dataclasses.dataclass(frozen=True)
class LossExpert:
    """An expert with the constants that make its term comparable to others.

    Attributes:
      model: the network.
      variables: its variables as NumPy arrays.
      scale: scale of its scores; see `timing.improbability`.
      gap: excess of the improbability for other clips' motion, in nats.
      features: for each of its speech encoders the run's key in `Batch.cached_features`.
    """

    model: SyncModel
    variables: Params
    scale: float
    gap: float
    features: Mapping[str, str] = dataclasses.field(default_factory=dict)

    def term(
        self, variables: Params, motion: Array, batch: Batch, items: Array | None = None
    ) -> WeightedSum:
        """Returns the loss of a prediction; see the module.

        Args:
          variables: the expert's variables.
          motion: [B, T, 72] predicted, in rig units; need not be in range.
          batch: audio, motion and masks. Masked and unobserved values may be anything.
          items: [B] bool, items that count; None for all.
        """
        variables = jax.lax.stop_gradient(variables)
        valid = batch.valid_frames()
        observed = valid[..., None] & batch.channel_mask[:, None]
        cached = batch.cached_features
        truth = batch.replace(
            motion=jnp.where(observed, batch.motion, 0.0),
            cached_features={key: cached[own] for key, own in self.features.items()},
        )
        made = truth.replace(motion=jnp.where(observed, motion.astype(jnp.float32), 0.0))
        statistics = channels.own_statistics(truth.motion, valid)
        right = timing.compare(self.model, variables, truth, statistics)
        found = timing.compare(self.model, variables, made, statistics)
        counts = timing.countable(self.model, truth, statistics) & right.audible[:, 0]
        if items is not None:
            counts &= items[:, None]
        least = jax.lax.stop_gradient(timing.improbability(right, self.scale))
        # Without a gradient where both are equal, unlike `jnp.maximum`.
        excess = jax.nn.relu(timing.improbability(found, self.scale) - least)
        return losses.masked_mean(excess / self.gap, counts)


class SyncedMotionTask(SingleMotionTask):
    """Base class of motion tasks that sync experts can judge.

    Attributes:
      config: weights of the loss terms.
      experts: those of `config.sync`, in its order; () where nothing is trained.
    """

    config: LossConfig
    experts: tuple[LossExpert, ...] = ()

    def with_experts(self: T, experts: Sequence[LossExpert]) -> T:
        """Returns the task with other experts.

        Raises:
          InputError: the task has no use for them.
        """
        task = copy.copy(self)
        task.experts = tuple(experts)
        return task

    @property
    def frozen(self) -> tuple[str, ...]:
        """Patterns of the frozen variables, with the experts'."""
        return (*super().frozen, *((f"^{COLLECTION}/",) if self.experts else ()))

    @property
    def pretrained(self) -> Params:
        """Pretrained weights of the encoders, and the experts' variables."""
        own = super().pretrained
        if not self.experts:
            return own
        every = {str(i): expert.variables for i, expert in enumerate(self.experts)}
        return params_lib.merge(own, {COLLECTION: every})

    def sync_terms(
        self,
        variables: Params,
        motion: Array,
        batch: Batch,
        *,
        step: Array | int,
        train: bool,
        items: Array | None = None,
    ) -> dict[str, WeightedSum]:
        """Returns the term of each expert and `RAMP`; {} without experts.

        Held-out losses have the whole weights, so that those of different steps compare.

        Args:
          variables: with the collection `COLLECTION`.
          motion: [B, T, 72] predicted, in rig units.
          batch: the batch; see `a2fjax.batch.Batch`.
          step: number of finished updates.
          train: whether `config.sync_start` and `config.sync_ramp` apply.
          items: [B] bool, items that count; None for all.
        """
        if not self.experts:
            return {}
        terms = {
            name: expert.term(variables[COLLECTION][str(i)], motion, batch, items)
            for i, (name, expert) in enumerate(zip(self._names(), self.experts, strict=True))
        }
        share = ramp(self.config, step) if train else jnp.ones(())
        return {**terms, RAMP: WeightedSum(share, jnp.ones(()))}

    def sync_total(self, terms: Mapping[str, WeightedSum]) -> Array:
        """Returns the experts' share of the scalar that is minimised."""
        if not self.experts:
            return jnp.zeros(())
        values = [
            self.config.sync_weight(i) * terms[name].value for i, name in enumerate(self._names())
        ]
        return jax.lax.stop_gradient(terms[RAMP].value) * sum(values, jnp.zeros(()))

    def _names(self) -> list[str]:
        return [TERM + (f"_{i + 1}" if i else "") for i in range(len(self.experts))]

    def others(self, terms: Mapping[str, WeightedSum]) -> dict[str, WeightedSum]:
        """Returns the terms that are not of experts."""
        own = {*self._names(), RAMP} if self.experts else set()
        return {name: term for name, term in terms.items() if name not in own}


def ramp(config: LossConfig, step: Array | int) -> Array:
    """Returns the share of the experts' weights that counts after `step` updates.

    Example:
        >>> settings = LossConfig(sync_start=100, sync_ramp=200)
        >>> [float(ramp(settings, step)) for step in (100, 200, 300, 900)]
        [0.0, 0.5, 1.0, 1.0]
    """
    done = jnp.asarray(step, jnp.float32) - config.sync_start
    if not config.sync_ramp:
        return (done >= 0).astype(jnp.float32)
    return jnp.clip(done / config.sync_ramp, 0.0, 1.0)
