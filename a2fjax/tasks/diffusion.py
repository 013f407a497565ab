"""Diffusion: noisy motion of a random level to clean motion, by the losses of the regression.

The terms of `losses` are of the clean motion that the U-Net predicts, each item weighted by
`targets.weight` of its noise level. All but closure are squared errors of linear functions of the
motion, so what they teach at every level is the mean of what may be: no term pulls samples away
from the data's distribution. With "coarse_" in front they are of the draft, the regression beside
it.

A student (`model.distill_steps`) learns instead, at a few noise levels, where its
teacher's deterministic path from there ends: consistency distillation (Song et al. 2023) whose
target is the teacher's whole path rather than the student's own guess one step on. A path is a few
calls of a small U-Net on what was heard once, so neither a target network nor a schedule of ever
longer steps is needed, and no errors add up.
"""

from __future__ import annotations

from collections.abc import Mapping

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array

from a2fjax import losses
from a2fjax.batch import Batch
from a2fjax.config import Config, DiffusionConfig
from a2fjax.diffusion import schedule, targets
from a2fjax.losses import WeightedSum
from a2fjax.models.diffusion import TEACHER, Diffusion
from a2fjax.models.params import Params
from a2fjax.models.pretrained import Encoders
from a2fjax.tasks.base import SingleModelTask

COARSE = "coarse_"


class DiffusionTask(SingleModelTask):
    """See `a2fjax.tasks.base.Task`.

    Attributes:
      model: the network.
      config: weights of the loss terms.
    """

    model: Diffusion

    def __init__(self, config: Config, model: Diffusion) -> None:
        """Joins `model` to the losses of `config`."""
        self.model = model
        self.config = config.loss
        assert isinstance(config.model, DiffusionConfig)
        self.own = config.model

    def warm_start(self, params: Params) -> Params:
        """Returns the parameters that a run with `init_from` starts from."""
        return self.model.init_student(params)

    def loss(
        self, params: Params, batch: Batch, key: Array, *, step: Array | int, train: bool
    ) -> tuple[Array, dict[str, WeightedSum]]:
        """Returns the scalar and its terms; `step` changes nothing here.

        Noise is drawn also when not training, from `key`.
        """
        del step
        constants = params["constants"]
        for_level, for_noise, for_hearing, for_audio_dropout, for_unet = jax.random.split(key, 5)
        mask = losses.good_frames(batch)[..., None] & batch.channel_mask[:, None]
        clean = self.model.standardised(constants, jnp.where(mask, batch.motion, 0.0))
        clean = jnp.where(mask, clean, 0.0)
        time = self._times(for_level, clean.shape[0])
        alpha, sigma = self.model.level(time)
        noise = jax.random.normal(for_noise, clean.shape)
        x = schedule.noised(clean, noise, alpha, sigma)
        factors = None
        if self.config.balance > 0:
            factors = losses.balance(constants["motion_std"], self.config.balance)
        if self.own.distill_steps:
            terms = self._student(params, batch, x, time, factors, for_unet if train else None)
            return self.total(terms), terms
        audio_dropped = None
        if train and self.own.audio_dropout:
            audio_dropped = jax.random.bernoulli(
                for_audio_dropout, self.own.audio_dropout, alpha.shape
            )
        heard = self.model.hear(
            params, batch, key=for_hearing if train else None, audio_dropped=audio_dropped
        )
        found = self.model.denoise(
            params["unet"], x, alpha, sigma, heard, key=for_unet if train else None
        )
        weight = targets.weight(alpha, self.own.snr_limit)
        motion = self.model.motion(constants, found)
        terms = losses.regression_losses(motion, batch, self.config, factors, weight)
        if self.own.coarse:
            draft = self.model.motion(constants, heard["coarse_prediction"][:, : clean.shape[1]])
            # Of items without audio the draft is nothing that was predicted.
            counts = jnp.ones_like(alpha) if audio_dropped is None else 1.0 - audio_dropped
            drafted = losses.regression_losses(draft, batch, self.config, None, counts)
            terms |= {f"{COARSE}{name}": term for name, term in drafted.items()}
        return self.total(terms), terms

    def _times(self, key: Array, items: int) -> Array:
        """Draws the items' levels: even over the batch, so that batches are alike.

        A shifted grid in the place of independent numbers (Kingma et al. 2021, "Variational
        Diffusion Models", appendix I).
        """
        for_shift, for_pure, for_order = jax.random.split(key, 3)
        time = (jnp.arange(items) + jax.random.uniform(for_shift)) / items
        if self.own.distill_steps:
            count = self.own.distill_levels
            time = jnp.ceil(jax.random.permutation(for_order, time) * count) / count
            return jnp.maximum(time, 1.0 / count) * self.model.last_time
        pure = jax.random.bernoulli(for_pure, self.own.pure_noise, time.shape)
        return jnp.where(pure, 1.0, time) * self.model.last_time

    def _student(
        self,
        params: Params,
        batch: Batch,
        x: Array,
        time: Array,
        factors: Array | None,
        key: Array | None,
    ) -> dict[str, WeightedSum]:
        """Returns the terms of the student's one call from x [B, T, 72] at `time` [B]."""
        model, sample, steps = self.model, self.own.sample, self.own.distill_steps
        constants = params["constants"]
        heard, names, own = model.guided(params, batch, sample)

        def walk(x: Array, i: Array) -> tuple[Array, None]:
            # DDIM without noise, at the trailing levels that each item's own time has below it.
            a, s = model.level(time * (1.0 - i / steps))
            a_next, s_next = model.level(time * (1.0 - (i + 1) / steps))
            guess = model.predict_clean(params, params[TEACHER], heard, names, sample, x, a, s)
            kept = s_next / s
            shares = (a_next - a * kept)[:, None, None], kept[:, None, None]
            return shares[0] * guess + shares[1] * x, None

        end = jax.lax.scan(walk, x, jnp.arange(steps))[0]
        target = jax.lax.stop_gradient(model.motion(constants, end))
        alpha, sigma = model.level(time)
        found = model.denoise(params["unet"], x, alpha, sigma, own, key=key)
        told = batch.replace(motion=target)
        return losses.regression_losses(model.motion(constants, found), told, self.config, factors)

    def total(self, terms: dict[str, WeightedSum]) -> Array:
        """Returns the weighted sum of the terms' values."""
        drafted = {k[len(COARSE) :]: v for k, v in terms.items() if k.startswith(COARSE)}
        own = {k: v for k, v in terms.items() if not k.startswith(COARSE)}
        out = losses.total(own, self.config)
        return out + self.own.coarse * losses.total(drafted, self.config)


def build(
    config: Config,
    constants: Mapping[str, np.ndarray] | None = None,
    encoders: Encoders | None = None,
) -> DiffusionTask:
    """Returns the task of model.kind='diffusion'; arguments as `a2fjax.tasks.build`."""
    return DiffusionTask(config, Diffusion(config, constants, encoders))
