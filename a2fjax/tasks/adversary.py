"""A discriminator of motion in step with its sound, trained beside a motion model.

It is the network of a contrastive expert: D of a window of motion and its audio is the cosine of
their vectors with a learned scale and bias. Real is the true motion with its sound; fake is the
generated motion, and the true motion with sound of another moment (`timing.OFFSETS`). With D at 1
or above for real and at -1 or below for fake the discriminator has nothing more to learn:

    L_D = mean max(0, 1 - D(real)) + 1/2 mean max(0, 1 + D(generated))
          + 1/2 mean max(0, 1 + D(shifted)) + gamma/2 mean |grad D(real)|^2

The hinge loss is that of Lim and Ye 2017 ("Geometric GAN"), the penalty R1 of Mescheder et al. 2018
("Which training methods for GANs do actually converge?"), with the gradient by the window's motion
in standard deviations. The motion model minimises

    L_G = mean max(0, D(real) - D(generated)) / 2,

which is 0 for the truth and 1 from one margin to the other. D starts with means of 1 and -1 for
true motion and that of other clips (`sync.normalisation`).

Neither loss has a gradient to the other's parameters. Means are over the windows that count for
the loss by an expert (`tasks.sync_loss`).
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import ClassVar

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array

from a2fjax import losses
from a2fjax.batch import Batch
from a2fjax.configuration import OptimConfig
from a2fjax.losses import WeightedSum
from a2fjax.models import params as params_lib
from a2fjax.models.params import Params
from a2fjax.models.syncnet import timing
from a2fjax.models.syncnet.model import MATCH_SCALE, Syncnet
from a2fjax.tasks.syncnet import match_logits

TERM = "adversary"
"""Name of the motion model's term, and prefix of the discriminator's."""

UNIT = 2.0
"""Distance of the margins, the unit of the motion model's term."""

_REAL, _GENERATED, _SHIFTED, _PENALTY = (
    f"{TERM}_{name}" for name in ("real", "generated", "shifted", "penalty")
)
NAMES = (TERM, _REAL, _GENERATED, _SHIFTED, _PENALTY)
"""Names of all terms."""


def first_params(params: Params, right: float, wrong: float) -> Params:
    """Returns an expert's parameters with the scale and bias that a discriminator starts from.

    Args:
      params: of the network.
      right: mean cosine of true motion, whose D becomes 1.
      wrong: mean cosine of other clips' motion, whose D becomes -1.

    Example:
        >>> params = first_params({}, 0.5, 0.0)
        >>> [float(match_logits(params, cosine)) for cosine in (0.5, 0.25, 0.0)]
        [1.0, 0.0, -1.0]
    """
    scale = np.float32(UNIT / (MATCH_SCALE * (right - wrong)))
    bias = np.float32(-(right + wrong) / 2.0)
    return {**params, "match_scale": scale, "match_bias": bias}


@dataclasses.dataclass(frozen=True)
class Adversary:
    """A discriminator; see the module and `a2fjax.tasks.base.Auxiliary`.

    Attributes:
      model: the network.
      params: the parameters that it starts from.
      frozen: the other collections of its variables.
      features: for each of its speech encoders the run's key in `Batch.cached_features`.
      optim: its optimiser.
      penalty: gamma.
    """

    collection: ClassVar[str] = "adversary"

    model: Syncnet
    params: Params
    frozen: Params
    optim: OptimConfig
    penalty: float
    features: Mapping[str, str] = dataclasses.field(default_factory=dict)

    def terms(
        self,
        params: Params,
        frozen: Params,
        motion: Array,
        batch: Batch,
        items: Array | None = None,
    ) -> dict[str, WeightedSum]:
        """Returns the terms of both losses by name (`NAMES`).

        Args:
          params: parameters of the discriminator.
          frozen: the other collections of its variables.
          motion: [B, T, 72] generated, in rig units; need not be in range.
          batch: audio, true motion and masks. Masked and unobserved values may be anything.
          items: [B] bool, items whose generated motion counts; None for all.
        """
        truth, made, statistics = timing.beside_truth(batch, motion, self.features)
        whole = timing.countable(self.model, truth, statistics)

        def judge(params: Params, batch: Batch, heard: Array | None = None) -> tuple[Array, ...]:
            variables = params_lib.merge({"params": params}, frozen)
            vectors = self.model.apply(variables, batch, statistics=statistics)
            heard = vectors["heard"] if heard is None else heard
            found = timing.compare_vectors(self.model, heard, vectors["seen"], batch)
            return match_logits(params, found.scores), found.audible, heard

        def of_truth(push: Array) -> tuple[Array, tuple[Array, ...]]:
            pushed = truth.motion + push * statistics.deviation[:, None]
            found, audible, heard = judge(params, truth.replace(motion=pushed))
            # Windows without a common frame, so that the gradient of their sum is that of each.
            chosen = whole & audible[:, 0] & self._apart(whole.shape[1])
            return jnp.sum(jnp.where(chosen, found[:, 0], 0.0)), (found, audible, heard, chosen)

        slope, (found, audible, heard, chosen) = jax.grad(of_truth, has_aux=True)(
            jnp.zeros_like(truth.motion)
        )
        real, shifted = found[:, 0], found[:, 1:]
        counts = whole & audible[:, 0]
        judged = counts if items is None else counts & items[:, None]
        still = made.replace(motion=jax.lax.stop_gradient(made.motion))
        generated = judge(params, still, heard)[0][:, 0]
        fixed, fixed_heard = jax.lax.stop_gradient((params, heard))
        pleasing = judge(fixed, made, fixed_heard)[0][:, 0]
        # Without a gradient where both are equal, unlike `jnp.maximum`.
        short = jax.nn.relu(jax.lax.stop_gradient(real) - pleasing)
        number = jnp.sum(chosen.astype(jnp.float32))
        return {
            TERM: losses.masked_mean(short / UNIT, judged),
            _REAL: losses.masked_mean(jax.nn.relu(1.0 - real), counts),
            _GENERATED: losses.masked_mean(jax.nn.relu(1.0 + generated), judged),
            _SHIFTED: losses.masked_mean(
                jax.nn.relu(1.0 + shifted), counts[:, None] & audible[:, 1:]
            ),
            _PENALTY: WeightedSum(jnp.sum(slope**2), number),
        }

    def total(self, terms: Mapping[str, WeightedSum]) -> Array:
        """Returns the discriminator's loss L_D."""
        fake = 0.5 * (terms[_GENERATED].value + terms[_SHIFTED].value)
        return terms[_REAL].value + fake + 0.5 * self.penalty * terms[_PENALTY].value

    def _apart(self, windows: int) -> Array:
        """Returns [W] bool: windows without a common frame."""
        return jnp.arange(windows) % self.model.config.window_frames == 0
