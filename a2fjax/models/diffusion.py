"""The diffusion model (v3.0).

Motion is denoised in units of each channel's standard deviation about its mean, for weights and
angles alike. Denoising is based on a coarse prediction, a regression from the same audio features:
the U-Net corrects the best guess from coarse prediction and noisy motion
(`diffusion.targets.coarse_guess`).
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array

from a2fjax import rig
from a2fjax.batch import Batch
from a2fjax.configuration import AudioConfig, DiffusionConfig, SampleConfig
from a2fjax.diffusion import guidance, samplers, schedule, targets
from a2fjax.models.audio_model import AudioModel
from a2fjax.models.diffusion_checks import check, guidance_strengths
from a2fjax.models.params import Params
from a2fjax.models.pretrained import Encoders
from a2fjax.models.regression import default_constants
from a2fjax.models.rngs import named_keys
from a2fjax.models.unet import ConditionEncoder, Conditions, UNet, stride

TEACHER = "teacher"
"""Name of the teacher's U-Net in a student's parameters."""

EPS_LAST = 0.98
"""Start time for "eps" models: in pure noise, eps does not determine the clean value."""

START_INDEX = 1 << 20
"""Index in `frame_noise` of a sample's initial noise; the sampler's steps count from 0."""


def frame_noise(
    seed: Array, sample_index: Array, start: Array, frames: int, index: Array | int
) -> Array:
    """Returns noise [B, frames, 72] as a function of each frame's index in its recording.

    Overlapping chunks of one recording therefore receive equal noise.

    Args:
      seed: random key.
      sample_index: [B] int32, index of the sample.
      start: [B] int32, index of the first frame in the recording.
      frames: number of frames per item.
      index: index of the noise's purpose; equal indices give equal noise.
    """

    def item_noise(number: Array, first: Array) -> Array:
        key = jax.random.fold_in(jax.random.fold_in(seed, number), index)
        keys = jax.vmap(jax.random.fold_in, (None, 0))(key, first + jnp.arange(frames))
        return jax.vmap(lambda k: jax.random.normal(k, (rig.NUM_CHANNELS,)))(keys)

    return jax.vmap(item_noise)(sample_index, start)


class Diffusion(AudioModel):
    """The diffusion model, whose `apply` draws a sample; see `a2fjax.models.base.Model`.

    `sample_index` and `start` of a batch determine the noise, which is the same in every call.
    Where `inpaint_mask` is set, the motion is `inpaint_motion`, and the rest is sampled to fit it.

    Attributes:
      audio_features: acoustic signals and encoders.
      config: configuration of the model.
      stride: frames per frame of the lowest level; chunks must start at multiples of it.
    """

    def __init__(
        self,
        config: DiffusionConfig,
        audio: AudioConfig,
        *,
        precision: str = "float32",
        constants: Mapping[str, np.ndarray] | None = None,
        encoders: Encoders | None = None,
    ) -> None:
        """Creates the model; arguments as in `regression.Regression`.

        Raises:
          InputError: contradictory settings, or an unreadable encoder.
        """
        check(config)
        super().__init__(audio, precision, default_constants(config), constants, encoders)
        self.config = config
        self.condition_encoder = ConditionEncoder(config, audio.encoder, self.dtype)
        self.unet = UNet(config, self.dtype)
        self.stride = stride(config.unet.widths)
        self.last_time = EPS_LAST if config.target == "eps" else 1.0

    @property
    def frozen(self) -> tuple[str, ...]:
        """See `a2fjax.models.base.Model`; a student keeps its teacher's condition encoder."""
        student = (rf"^params/{TEACHER}/", "^params/condition_encoder/")
        return (*super().frozen, *(student if self.config.distill_steps else ()))

    def init(self, key: Array, batch: Batch) -> Params:
        """Returns {"params": ..., "constants": ...}; see `a2fjax.models.base.Model`."""
        keys = named_keys(key, ("condition_encoder", "unet"))
        features = self.audio_features.zeros(batch)
        encoder = self.draw_params(
            self.condition_encoder, keys["condition_encoder"], features, batch
        )
        constants = self.device_constants()
        conditions = jax.eval_shape(
            lambda: self.condition_encoder.apply(
                {"params": encoder, "constants": constants}, features, batch
            )
        )
        conditions = jax.tree.map(lambda leaf: jnp.zeros(leaf.shape, leaf.dtype), conditions)
        items, frames = batch.emotion.shape[:2]
        x, level = jnp.zeros((items, frames, rig.NUM_CHANNELS)), jnp.ones(items)
        unet = self.draw_params(self.unet, keys["unet"], x, level, level, conditions)
        params = {"condition_encoder": encoder, "unet": unet}
        return self.init_student({"params": params, "constants": constants})

    def init_student(self, variables: Params) -> Params:
        """Returns a student's initial variables, with a second copy of its teacher's U-Net.

        The variables of a model without distillation remain unchanged.
        """
        if not self.config.distill_steps:
            return variables
        params = variables["params"]
        return {**variables, "params": {**params, TEACHER: params["unet"]}}

    # ---- units ------------------------------------------------------------------------------

    def standardised(self, constants: Params, motion: Array) -> Array:
        """Standardises motion [..., 72] by mean and deviation; 0 for channels never observed."""
        std = constants["motion_std"]
        moves = std > 0
        values = (motion - constants["motion_mean"]) / jnp.where(moves, std, 1.0)
        return jnp.where(moves, values, 0.0)

    def motion(self, constants: Params, values: Array) -> Array:
        """Inverts `standardised`; channels never observed get their mean."""
        return constants["motion_mean"] + constants["motion_std"] * values

    def bounds(self, constants: Params) -> tuple[Array, Array]:
        """Returns the rig's limits [72] in standardised units."""
        low, high = (self.standardised(constants, jnp.asarray(x)) for x in (rig.MIN, rig.MAX))
        return low, high

    # ---- one step ---------------------------------------------------------------------------

    def level(self, time: Array) -> tuple[Array, Array]:
        """Returns alpha and sigma for times in [0, 1]."""
        return schedule.level(self.config.schedule, time)

    def encode_conditions(
        self,
        variables: Params,
        batch: Batch,
        *,
        rngs: dict[str, Array] | None = None,
        audio_dropped: Array | None = None,
    ) -> Conditions:
        """Computes the conditions of the U-Net, once per clip instead of once per step.

        Args:
          variables: variables of the model.
          batch: the batch; see `a2fjax.batch.Batch`.
          rngs: result of `rngs.streams` for training; None otherwise.
          audio_dropped: [B] bool, items without audio.
        """
        streams = rngs or {}
        features = self.audio_features(variables, batch, rng=streams.get("encoders"))
        conditions: Any = self.condition_encoder.apply(
            {
                "params": variables["params"]["condition_encoder"],
                "constants": variables["constants"],
            },
            features,
            batch,
            audio_dropped,
            train=rngs is not None,
            rngs=streams,
        )
        return conditions

    def denoise(
        self,
        unet: Params,
        x: Array,
        alpha: Array,
        sigma: Array,
        conditions: Conditions,
        *,
        rngs: dict[str, Array] | None = None,
    ) -> Array:
        """Predicts the standardised clean motion [B, T, 72].

        Args:
          unet: parameters of the U-Net.
          x: [B, T, 72], noisy.
          alpha: [B], share of the clean motion.
          sigma: [B], share of the noise.
          conditions: result of `encode_conditions`.
          rngs: result of `rngs.streams` for training; None otherwise.
        """
        valid = conditions["valid"][:, : x.shape[1], None]
        x = jnp.where(valid, x, 0.0)
        # The coarse prediction is trained by its own loss only: gradients from here would adapt it
        # to the U-Net.
        coarse = jax.lax.stop_gradient(conditions["coarse_prediction"])
        conditions = {**conditions, "coarse_prediction": coarse}
        correction: Any = self.unet.apply(
            {"params": unet},
            x,
            alpha,
            sigma,
            conditions,
            train=rngs is not None,
            rngs=rngs or {},
        )
        a, s = alpha[:, None, None], sigma[:, None, None]
        guess = targets.coarse_guess(self.config.target, coarse[:, : x.shape[1]], x, a, s)
        return targets.clean(self.config.target, guess + correction, x, a, s)

    # ---- sampling ---------------------------------------------------------------------------

    def guided(
        self, variables: Params, batch: Batch, sample: SampleConfig
    ) -> tuple[Conditions, tuple[str, ...], Conditions]:
        """Encodes the conditions with and without each guided one.

        Returns:
          the conditions concatenated along the batch (first all of them, with the coarse prediction
          already guided, then without each guided one); the names of the guided ones; and all
          conditions, unguided.
        """
        names = guidance.guided_conditions(guidance_strengths(sample))
        plain = self.encode_conditions(variables, batch)
        if not names:
            return plain, names, plain
        variants = [plain]
        for name in names:
            if name == "audio":
                dropped = jnp.ones(batch.length.shape, bool)
                variants.append(self.encode_conditions(variables, batch, audio_dropped=dropped))
            elif name == "emotion":
                without = batch.replace(emotion=jnp.zeros_like(batch.emotion))
                variants.append(self.encode_conditions(variables, without))
            else:
                without = batch.replace(
                    identity_mask=jnp.zeros_like(batch.identity_mask),
                    subject=jnp.full(batch.length.shape, -1, jnp.int32),
                )
                variants.append(self.encode_conditions(variables, without))
        # Guide the coarse prediction as well. If it were unguided, each step would undo the effect
        # of the guidance wherever the conditions leave little freedom.
        coarse = jnp.concatenate([each["coarse_prediction"] for each in variants])
        coarse = guidance.combine(coarse, names, guidance_strengths(sample))
        variants[0] = {**plain, "coarse_prediction": coarse}
        return jax.tree.map(lambda *each: jnp.concatenate(each), *variants), names, plain

    def predict_clean(
        self,
        variables: Params,
        unet: Params,
        conditions: Conditions,
        names: Sequence[str],
        sample: SampleConfig,
        x: Array,
        alpha: Array,
        sigma: Array,
    ) -> Array:
        """Returns the guided prediction of the clean motion, clipped to the rig's limits.

        Clipping at every step, as for pixels (Saharia et al. 2022, "static thresholding"), keeps
        closed lips closed and prevents guidance from driving a channel out of its range.

        Args:
          variables: variables of the model, for its constants.
          unet: parameters of the U-Net.
          conditions: conditions from `guided`.
          names: names of the guided conditions, from `guided`.
          sample: strengths of guidance.
          x: [B, T, 72], noisy.
          alpha: [B], share of the clean motion.
          sigma: [B], share of the noise.
        """
        copies = 1 + len(names)
        x, alpha, sigma = (
            jnp.tile(each, (copies, *(1,) * (each.ndim - 1))) for each in (x, alpha, sigma)
        )
        clean = self.denoise(unet, x, alpha, sigma, conditions)
        clean = guidance.combine(clean, names, guidance_strengths(sample))
        return jnp.clip(clean, *self.bounds(variables["constants"]))

    def sample(self, variables: Params, batch: Batch, sample: SampleConfig) -> Array:
        """Samples standardised motion [B, T, 72]."""
        constants, unet = variables["constants"], variables["params"]["unet"]
        items, frames = batch.emotion.shape[:2]
        if self.config.distill_steps:
            sample = dataclasses.replace(sample, audio=1.0, emotion=1.0, identity=1.0)
        conditions, names, _ = self.guided(variables, batch, sample)
        sample_index = batch.sample_index
        if sample_index is None:
            sample_index = jnp.zeros(items, jnp.int32)
        seed = jax.random.key(sample.seed)

        def draw(index: Array | int) -> Array:
            start = jnp.asarray(batch.start)
            return frame_noise(seed, jnp.asarray(sample_index), start, frames, index)

        inpaint = None
        if batch.inpaint_mask is not None:
            inpaint = self.standardised(constants, batch.inpaint_motion)
        levels = schedule.levels(self.config.schedule, sample.steps, self.last_time)
        alphas, sigmas = (jnp.asarray(v, jnp.float32) for v in (levels.alpha, levels.sigma))

        def denoise(x: Array, index: Array) -> Array:
            alpha, sigma = (jnp.broadcast_to(v[index], (items,)) for v in (alphas, sigmas))
            clean = self.predict_clean(variables, unet, conditions, names, sample, x, alpha, sigma)
            return clean if inpaint is None else jnp.where(batch.inpaint_mask, inpaint, clean)

        # The noise is independent of the number of steps, so few steps give a preview of many.
        start = draw(START_INDEX)
        if inpaint is not None and self.last_time < 1.0:
            noisy = alphas[0] * inpaint + sigmas[0] * start
            start = jnp.where(batch.inpaint_mask, noisy, start)
        return samplers.sample(sample.sampler, denoise, start, levels, draw, eta=sample.eta)

    def apply(
        self, variables: Params, batch: Batch, *, key: Array | None = None, train: bool = False
    ) -> dict[str, Array]:
        """Returns {"motion": [B, T, 72]}: a sample with the settings of `model.sample`.

        Training calls `encode_conditions` and `denoise` instead; `key` is ignored here, and `train`
        only disables clipping of the motion to the rig's ranges.
        """
        del key
        values = self.sample(variables, batch, self.config.sample)
        motion = self.motion(variables["constants"], values)
        return {"motion": motion if train else jnp.clip(motion, rig.MIN, rig.MAX)}
