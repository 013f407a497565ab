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

A discriminator (`tasks.adversary`) is an expert that is trained at the same time.
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
from a2fjax.models.syncnet import timing
from a2fjax.models.syncnet.model import SyncModel
from a2fjax.tasks import adversary as adversary_lib
from a2fjax.tasks.adversary import Adversary
from a2fjax.tasks.base import SingleMotionTask

COLLECTION = "sync"
"""Collection of the experts' variables, by position in `loss.sync`, and of those variables of the
discriminator that are not trained, under its name."""

TERM = "sync"
"""Name of the first expert's term; the second's is "sync_2"."""

RAMP = "sync_ramp"
"""Name of the term that holds the share of the weights that counts at this step, those of experts
and of the discriminator."""

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
        truth, made, statistics = timing.beside_truth(batch, motion, self.features)
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
      adversary: the discriminator of `config.sync_adversary`; None where nothing is trained.
    """

    config: LossConfig
    experts: tuple[LossExpert, ...] = ()
    adversary: Adversary | None = None

    def with_experts(
        self: T, experts: Sequence[LossExpert], adversary: Adversary | None = None
    ) -> T:
        """Returns the task with other experts and another discriminator.

        Raises:
          InputError: the task has no use for them.
        """
        task = copy.copy(self)
        task.experts = tuple(experts)
        task.adversary = adversary
        return task

    @property
    def auxiliary(self) -> Adversary | None:
        """The discriminator, if any."""
        return self.adversary

    @property
    def frozen(self) -> tuple[str, ...]:
        """Patterns of the frozen variables, with the experts'."""
        return (*super().frozen, *((f"^{COLLECTION}/",) if self._judged else ()))

    @property
    def pretrained(self) -> Params:
        """Pretrained weights of the encoders, the experts and the discriminator."""
        own = super().pretrained
        if not self._judged:
            return own
        every = {str(i): expert.variables for i, expert in enumerate(self.experts)}
        made = self.adversary
        if made is None:
            return params_lib.merge(own, {COLLECTION: every})
        every[made.collection] = made.frozen
        return params_lib.merge(own, {COLLECTION: every, made.collection: made.params})

    @property
    def _judged(self) -> bool:
        return bool(self.experts) or self.adversary is not None

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
        """Returns the term of each expert, those of the discriminator, and `RAMP`; {} without both.

        Held-out losses have the whole weights, so that those of different steps compare. They have
        no terms of the discriminator, which judges every step otherwise.

        Args:
          variables: with the collection `COLLECTION`.
          motion: [B, T, 72] predicted, in rig units.
          batch: the batch; see `a2fjax.batch.Batch`.
          step: number of finished updates.
          train: whether `config.sync_start` and `config.sync_ramp` apply, and the discriminator.
          items: [B] bool, items that count; None for all.
        """
        if not self._judged:
            return {}
        terms = {
            name: expert.term(variables[COLLECTION][str(i)], motion, batch, items)
            for i, (name, expert) in enumerate(zip(self._names(), self.experts, strict=True))
        }
        if self.adversary is not None and train:
            name = self.adversary.collection
            terms |= self.adversary.terms(
                variables[name], variables[COLLECTION][name], motion, batch, items
            )
        share = ramp(self.config, step) if train else jnp.ones(())
        return {**terms, RAMP: WeightedSum(share, jnp.ones(()))}

    def sync_total(self, terms: Mapping[str, WeightedSum]) -> Array:
        """Returns the share of experts and discriminator in the scalar that the model minimises."""
        if not self._judged:
            return jnp.zeros(())
        values = [
            self.config.sync_weight(i) * terms[name].value for i, name in enumerate(self._names())
        ]
        if adversary_lib.TERM in terms:
            values.append(self.config.sync_adversary_weight * terms[adversary_lib.TERM].value)
        return jax.lax.stop_gradient(terms[RAMP].value) * sum(values, jnp.zeros(()))

    def _names(self) -> list[str]:
        return [TERM + (f"_{i + 1}" if i else "") for i in range(len(self.experts))]

    def others(self, terms: Mapping[str, WeightedSum]) -> dict[str, WeightedSum]:
        """Returns the terms that are neither of experts nor of the discriminator."""
        own = {*self._names(), RAMP, *adversary_lib.NAMES} if self._judged else set()
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
