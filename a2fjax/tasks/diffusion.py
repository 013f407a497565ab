"""Diffusion: predicts clean from noisy motion at a random noise level.

The losses are those of the regression: the terms of `losses` on the clean motion that the U-Net
predicts, with each item weighted by `targets.weight` at its noise level. All terms except closure
are squared errors of linear functions of the motion, so their optimum at every level is the mean of
the possible motions, and no term pulls samples away from the data distribution. Terms with the
prefix "coarse_" apply to the coarse prediction.

A student (`model.distill_steps`) instead learns, at a few noise levels, the endpoint of its
teacher's deterministic path. This is consistency distillation (Song et al. 2023) with the teacher's
full path as the target instead of the student's prediction one step further. A path takes a few
calls of a small U-Net on conditions that are encoded once, so it requires neither a target network
nor a schedule of increasing steps, and errors do not accumulate.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TypeVar

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array

from a2fjax import losses
from a2fjax.batch import Batch
from a2fjax.configuration import Config, DiffusionConfig, LossConfig
from a2fjax.diffusion import schedule, targets
from a2fjax.errors import InputError
from a2fjax.losses import WeightedSum
from a2fjax.models import rngs as rngs_lib
from a2fjax.models.diffusion import TEACHER, Diffusion
from a2fjax.models.params import Params
from a2fjax.models.pretrained import Encoders
from a2fjax.tasks.adversary import Adversary
from a2fjax.tasks.sync_loss import LossExpert, SyncedMotionTask

COARSE = "coarse_"
"""Prefix of the loss terms of the coarse prediction."""

T = TypeVar("T", bound="DiffusionTask")


class DiffusionTask(SyncedMotionTask):
    """Task of diffusion models; see the module and `a2fjax.tasks.base.Task`.

    Attributes:
      model: the network.
      config: weights of the loss terms.
    """

    model: Diffusion

    def __init__(self, config: LossConfig, model: Diffusion) -> None:
        """Combines `model` with the losses of `config`."""
        self.model = model
        self.config = config

    @classmethod
    def build(
        cls: type[T],
        config: Config,
        constants: Mapping[str, np.ndarray] | None = None,
        encoders: Encoders | None = None,
    ) -> T:
        """Builds the task with its diffusion model; arguments as in `a2fjax.tasks.build`.

        Raises:
          InputError: contradictory settings, such as a student without a teacher.
        """
        assert isinstance(config.model, DiffusionConfig)
        if config.model.distill_steps and not config.init_from:
            raise InputError(
                f"model.distill_steps={config.model.distill_steps}: a student needs its teacher; "
                "expected init_from=RUN"
            )
        model = Diffusion(
            config.model,
            config.audio,
            precision=config.precision,
            constants=constants,
            encoders=encoders,
        )
        return cls(config.loss, model)

    def warm_start(self, variables: Params) -> Params:
        """Returns the initial variables of a run, given others; a student keeps its teacher."""
        return self.model.init_student(variables)

    def with_experts(
        self: T, experts: Sequence[LossExpert], adversary: Adversary | None = None
    ) -> T:
        """Returns the task with other experts and another discriminator.

        Raises:
          InputError: the model is a student, which learns its teacher's motion.
        """
        if self.model.config.distill_steps:
            steps = self.model.config.distill_steps
            raise InputError(
                f"config: sync experts with model.distill_steps={steps}: a student learns its "
                "teacher's motion; expected experts in the teacher's training"
            )
        return super().with_experts(experts, adversary)

    def loss(
        self, variables: Params, batch: Batch, key: Array, *, step: Array | int, train: bool
    ) -> tuple[Array, dict[str, WeightedSum]]:
        """Returns the scalar and its terms.

        Noise is drawn from `key` in evaluation as well. Sync experts judge the denoised motion of
        items with audio at low noise (`loss.sync_least_alpha`).
        """
        model, constants = self.model, variables["constants"]
        streams = rngs_lib.streams(key)
        rngs = streams if train else None
        mask = batch.valid_frames()[..., None] & batch.channel_mask[:, None]
        clean = model.standardised(constants, jnp.where(mask, batch.motion, 0.0))
        clean = jnp.where(mask, clean, 0.0)
        time = self.sample_times(streams["noise_level"], clean.shape[0])
        alpha, sigma = model.level(time)
        noise = jax.random.normal(streams["motion_noise"], clean.shape)
        x = schedule.noised(clean, noise, alpha, sigma)
        factors = None
        if self.config.balance > 0:
            factors = losses.balance(constants["motion_std"], self.config.balance)
        if model.config.distill_steps:
            terms = self._student_terms(variables, batch, x, time, factors, rngs)
            return self.total(terms), terms
        audio_dropped = None
        if train and model.config.audio_dropout:
            rng = rngs_lib.named_keys(streams["dropout"], ["audio"])["audio"]
            audio_dropped = jax.random.bernoulli(rng, model.config.audio_dropout, alpha.shape)
        conditions = model.encode_conditions(
            variables, batch, rngs=rngs, audio_dropped=audio_dropped
        )
        unet = variables["params"]["unet"]
        predicted = model.denoise(unet, x, alpha, sigma, conditions, rngs=rngs)
        weight = targets.weight(alpha, model.config.snr_limit)
        motion = model.motion(constants, predicted)
        terms = losses.compute_terms(motion, batch, self.config, factors, weight)
        judged = alpha >= self.config.sync_least_alpha
        if audio_dropped is not None:
            judged &= ~audio_dropped
        terms |= self.sync_terms(variables, motion, batch, step=step, train=train, items=judged)
        if model.config.coarse:
            coarse = conditions["coarse_prediction"][:, : clean.shape[1]]
            coarse = model.motion(constants, coarse)
            # Items without audio have no coarse prediction.
            counts = jnp.ones_like(alpha) if audio_dropped is None else 1.0 - audio_dropped
            coarse_terms = losses.compute_terms(coarse, batch, self.config, None, counts)
            terms |= {f"{COARSE}{name}": term for name, term in coarse_terms.items()}
        return self.total(terms), terms

    def sample_times(self, key: Array, items: int) -> Array:
        """Draws the items' times [items], evenly spaced so that all batches cover the same levels.

        It shifts a regular grid instead of drawing independent numbers (Kingma et al. 2021,
        "Variational Diffusion Models", appendix I).

        Args:
          key: random key.
          items: size of the batch.
        """
        config = self.model.config
        keys = rngs_lib.named_keys(key, ("shift", "pure_noise", "order"))
        time = (jnp.arange(items) + jax.random.uniform(keys["shift"])) / items
        if config.distill_steps:
            count = config.distill_levels
            time = jnp.ceil(jax.random.permutation(keys["order"], time) * count) / count
            return jnp.maximum(time, 1.0 / count) * self.model.last_time
        pure = jax.random.bernoulli(keys["pure_noise"], config.pure_noise, time.shape)
        return jnp.where(pure, 1.0, time) * self.model.last_time

    def _student_terms(
        self,
        variables: Params,
        batch: Batch,
        x: Array,
        time: Array,
        factors: Array | None,
        rngs: dict[str, Array] | None,
    ) -> dict[str, WeightedSum]:
        """Returns the loss terms of a single student step from x [B, T, 72] at `time` [B]."""
        model, config = self.model, self.model.config
        sample, steps = config.sample, config.distill_steps
        params, constants = variables["params"], variables["constants"]
        guided, names, plain = model.guided(variables, batch, sample)

        def ddim_step(x: Array, i: Array) -> tuple[Array, None]:
            # DDIM without noise, at evenly spaced times below each item's time.
            a, s = model.level(time * (1.0 - i / steps))
            a_next, s_next = model.level(time * (1.0 - (i + 1) / steps))
            guess = model.predict_clean(variables, params[TEACHER], guided, names, sample, x, a, s)
            ratio = s_next / s
            clean_share, noisy_share = (a_next - a * ratio)[:, None, None], ratio[:, None, None]
            return clean_share * guess + noisy_share * x, None

        end = jax.lax.scan(ddim_step, x, jnp.arange(steps))[0]
        target = jax.lax.stop_gradient(model.motion(constants, end))
        alpha, sigma = model.level(time)
        predicted = model.denoise(params["unet"], x, alpha, sigma, plain, rngs=rngs)
        motion = model.motion(constants, predicted)
        return losses.compute_terms(motion, batch.replace(motion=target), self.config, factors)

    def total(self, terms: dict[str, WeightedSum]) -> Array:
        """Returns the weighted sum of the terms' values."""
        others = self.others(terms)
        coarse = {k[len(COARSE) :]: v for k, v in others.items() if k.startswith(COARSE)}
        clean = {k: v for k, v in others.items() if not k.startswith(COARSE)}
        out = losses.total(clean, self.config) + self.sync_total(terms)
        return out + self.model.config.coarse * losses.total(coarse, self.config)
