"""The diffusion model (v3.0) behind `init` and `apply`: motion is what noise hides.

Motion is worked on in units of each channel's deviation about its mean, weights and degrees alike.
A draft, the regression from the same hearing, is where denoising starts: the U-Net adds to the best
guess from draft and noise (`diffusion.targets.about`) what is missing.
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
from a2fjax.config import Config, DiffusionConfig, SampleConfig
from a2fjax.diffusion import guidance, samplers, schedule, targets
from a2fjax.errors import InputError
from a2fjax.models.audio_model import AudioModel
from a2fjax.models.params import Params
from a2fjax.models.pretrained import Encoders
from a2fjax.models.regression import default_constants
from a2fjax.models.unet import ConditionEncoder, Conditions, UNet, stride

TEACHER = "teacher"
"""Of the parameters: the U-Net that a student learns from."""

EPS_LAST = 0.98
"""Time at which "eps" starts: in pure noise it says nothing of the clean value."""

_FOR_ENCODERS = 1 << 20
START_INDEX = 1 << 20
"""Of the noise that samples start from, for `frame_noise`; visits count from 0."""

_TRAINED_WITHOUT = {
    "audio": "model.audio_dropout",
    "emotion": "model.emotion_dropout",
    "identity": "model.condition_dropout",
}


def check(config: Config) -> None:
    """Checks what belongs together in a diffusion model.

    Raises:
      InputError: names the key, its value and what was expected.
    """
    own = config.model
    assert isinstance(own, DiffusionConfig)
    unet = own.unet
    if not unet.widths or any(w < 1 or w % unet.heads for w in unet.widths):
        raise InputError(
            f"model.unet.widths={unet.widths}: expected widths that are multiples of "
            f"model.unet.heads={unet.heads}"
        )
    if own.distill_steps and not config.init_from:
        raise InputError(
            f"model.distill_steps={own.distill_steps}: a student needs its teacher; "
            "expected init_from=RUN"
        )
    check_sampling(config)


def check_sampling(config: Config) -> None:
    """Checks how a model is to sample against how it was trained.

    Raises:
      InputError: names the key, its value and what was expected.
    """
    own = config.model
    assert isinstance(own, DiffusionConfig)
    sample = own.sample
    if (sample.sampler == "consistency") != bool(own.distill_steps):
        expected = "consistency" if own.distill_steps else "angle, dpm, ddim or ddpm"
        kind = "distilled" if own.distill_steps else "not distilled"
        raise InputError(
            f"model.sample.sampler={sample.sampler!r}: the model is {kind}; expected {expected}"
        )
    if own.distill_steps:
        # Its strengths are its teacher's, and it knows the levels that it was taught.
        if own.distill_levels % sample.steps:
            known = [n for n in range(1, own.distill_levels + 1) if own.distill_levels % n == 0]
            raise InputError(
                f"model.sample.steps={sample.steps}: a student of "
                f"{own.distill_levels} levels takes {' or '.join(map(str, known))}"
            )
        return
    rates = {
        "audio": own.audio_dropout,
        "emotion": own.emotion_dropout,
        "identity": config.model.condition_dropout,
    }
    if config.model.identity == "none" and not config.model.identity_residual:
        rates["identity"] = 0.0  # There is none to be left out.
    for name in guidance.guided_conditions(guidance_strengths(sample)):
        if not rates[name]:
            raise InputError(
                f"model.sample.{name}={getattr(sample, name)}: guidance needs a model "
                f"that was trained without {name} at times ({_TRAINED_WITHOUT[name]} above 0); "
                "expected 1"
            )


def guidance_strengths(sample: SampleConfig) -> dict[str, float]:
    """Returns the strength of guidance by condition."""
    return {name: getattr(sample, name) for name in guidance.CONDITIONS}


def frame_noise(seed: Array, take: Array, start: Array, frames: int, index: Array | int) -> Array:
    """Returns noise [B, frames, 72] that belongs to frames of a recording, not to a chunk of it.

    Args:
      seed: key.
      take: [B] int32, number of the take.
      start: [B] int32, number of the first frame in the recording.
      frames: of each item.
      index: of what the noise is for; the same number gives the same noise.
    """

    def of_item(number: Array, first: Array) -> Array:
        key = jax.random.fold_in(jax.random.fold_in(seed, number), index)
        keys = jax.vmap(jax.random.fold_in, (None, 0))(key, first + jnp.arange(frames))
        return jax.vmap(lambda k: jax.random.normal(k, (rig.NUM_CHANNELS,)))(keys)

    return jax.vmap(of_item)(take, start)


class Diffusion(AudioModel):
    """See the module and `a2fjax.models.base.Model`; `apply` samples.

    `sample_index` and `start` of a batch choose the noise, the same in every call. Where
    `inpaint_mask` is set the motion is `inpaint_motion`, and the rest is made to fit it.

    Attributes:
      hearing: signals and encoders.
      config: of the model.
      stride: frames that become one at the lowest level; chunks must start at multiples of it.
    """

    def __init__(
        self,
        config: Config,
        constants: Mapping[str, np.ndarray] | None = None,
        encoders: Encoders | None = None,
    ) -> None:
        """Makes the model; arguments as `regression.Regression`.

        Raises:
          InputError: values that do not fit together, or an encoder that cannot be read.
        """
        check(config)
        assert isinstance(config.model, DiffusionConfig)
        super().__init__(config, default_constants(config.model), constants, encoders)
        self.config = self.own = config.model
        self.condition_encoder = ConditionEncoder(config.model, config.audio, self.dtype)
        self.unet = UNet(config.model, self.dtype)
        self.stride = stride(self.own.unet.widths)
        self.last_time = EPS_LAST if self.own.target == "eps" else 1.0

    @property
    def frozen(self) -> tuple[str, ...]:
        """See `a2fjax.models.base.Model`; a student hears as its teacher does."""
        student = (f"^{TEACHER}/", "^condition_encoder/") if self.own.distill_steps else ()
        return (*super().frozen, *student)

    def init(self, key: Array, batch: Batch) -> Params:
        """Returns parameters, with the constants under "constants", without the encoders'."""
        constants = self.device_constants()
        items, frames = batch.emotion.shape[:2]
        for_condition_encoder, for_unet = jax.random.split(key)
        signals, silence, states = self.zero_features(batch)
        heard, variables = self.condition_encoder.init_with_output(
            for_condition_encoder, signals, silence, batch, constants, None, states
        )
        x, level = jnp.zeros((items, frames, rig.NUM_CHANNELS)), jnp.ones(items)
        unet = self.unet.init(for_unet, x, level, level, heard)["params"]
        params = {"condition_encoder": variables["params"], "unet": unet, "constants": constants}
        return {**params, TEACHER: unet} if self.own.distill_steps else params

    def init_student(self, params: Params) -> Params:
        """Returns a student's parameters at its start: those of a teacher, kept a second time."""
        if not self.own.distill_steps:
            return params
        return {**params, TEACHER: params["unet"]}

    # ---- units ------------------------------------------------------------------------------

    def standardised(self, constants: Params, motion: Array) -> Array:
        """Returns motion [..., 72] in deviations about the mean; 0 of channels never observed."""
        std = constants["motion_std"]
        moves = std > 0
        values = (motion - constants["motion_mean"]) / jnp.where(moves, std, 1.0)
        return jnp.where(moves, values, 0.0)

    def motion(self, constants: Params, values: Array) -> Array:
        """Returns what `standardised` was given, of channels never observed their mean."""
        return constants["motion_mean"] + constants["motion_std"] * values

    # ---- one step ---------------------------------------------------------------------------

    def level(self, time: Array) -> tuple[Array, Array]:
        """Returns alpha and sigma of times in [0, 1]."""
        return schedule.level(self.own.schedule, time)

    def hear(
        self,
        params: Params,
        batch: Batch,
        *,
        key: Array | None = None,
        audio_dropped: Array | None = None,
    ) -> Conditions:
        """Returns what the U-Net is told of the batch; once a clip, not once a step.

        Args:
          params: of the model.
          batch: see `a2fjax.models.base.Batch`.
          key: of dropout; None when not training.
          audio_dropped: [B] bool, items whose audio is left out.
        """
        # Beyond the numbers that the condition_encoder's own keys are split into.
        for_encoders = None if key is None else jax.random.fold_in(key, _FOR_ENCODERS)
        heard: Any = self.condition_encoder.apply(
            {"params": params["condition_encoder"]},
            self.audio_features.signals(batch),
            self.audio_features.silence(),
            batch,
            params["constants"],
            key,
            self.audio_features.hidden_states(params, batch, key=for_encoders),
            audio_dropped,
        )
        return heard

    def denoise(
        self,
        unet: Params,
        x: Array,
        alpha: Array,
        sigma: Array,
        heard: Conditions,
        *,
        key: Array | None = None,
    ) -> Array:
        """Returns the clean motion [B, T, 72], standardised, that x seems to come from.

        Args:
          unet: parameters of the U-Net.
          x: [B, T, 72], noisy.
          alpha: [B], share of the clean motion.
          sigma: [B], of the noise.
          heard: of `hear`.
          key: of dropout.
        """
        exists = heard["valid"][:, : x.shape[1], None]
        x = jnp.where(exists, x, 0.0)
        # Learnt by its own loss: through here it would become whatever suits the U-Net.
        heard = {**heard, "coarse_prediction": jax.lax.stop_gradient(heard["coarse_prediction"])}
        more: Any = self.unet.apply({"params": unet}, x, alpha, sigma, heard, key)
        a, s = alpha[:, None, None], sigma[:, None, None]
        draft = heard["coarse_prediction"][:, : x.shape[1]]
        value = targets.coarse_guess(self.own.target, draft, x, a, s) + more
        return targets.clean(self.own.target, value, x, a, s)

    # ---- sampling ---------------------------------------------------------------------------

    def guided(
        self, params: Params, batch: Batch, sample: SampleConfig
    ) -> tuple[Conditions, tuple[str, ...], Conditions]:
        """Returns what is heard with all conditions and without each that is guided, and those.

        Parts lie behind each other along the batch; the first one's draft is guided already. And
        what is heard with all conditions, as it is.
        """
        names = guidance.guided_conditions(guidance_strengths(sample))
        parts = [self.hear(params, batch)]
        for name in names:
            if name == "audio":
                nobody = jnp.ones(batch.length.shape, bool)
                parts.append(self.hear(params, batch, audio_dropped=nobody))
            elif name == "emotion":
                untold = batch.replace(emotion=jnp.zeros_like(batch.emotion))
                parts.append(self.hear(params, untold))
            else:
                unknown = jnp.zeros_like(batch.identity_mask)
                stranger = jnp.full(batch.length.shape, -1, jnp.int32)
                parts.append(
                    self.hear(params, batch.replace(identity_mask=unknown, subject=stranger))
                )
        plain = parts[0]
        if not names:
            return plain, names, plain
        # The draft is guided like any prediction. To the plain one, where a condition leaves little
        # open, all that a strength moves would be pulled back step by step.
        drafts = jnp.concatenate([part["coarse_prediction"] for part in parts])
        parts[0] = {
            **plain,
            "coarse_prediction": guidance.combine(drafts, names, guidance_strengths(sample)),
        }
        return jax.tree.map(lambda *each: jnp.concatenate(each), *parts), names, plain

    def bounds(self, constants: Params) -> tuple[Array, Array]:
        """Returns the rig's limits [72] of standardised motion."""
        low, high = (self.standardised(constants, jnp.asarray(x)) for x in (rig.MIN, rig.MAX))
        return low, high

    def predict_clean(
        self,
        params: Params,
        unet: Params,
        heard: Conditions,
        names: Sequence[str],
        sample: SampleConfig,
        x: Array,
        alpha: Array,
        sigma: Array,
    ) -> Array:
        """Returns the guided prediction of the clean motion, inside the rig's limits.

        Limited at every step, as pixels are (Saharia et al. 2022, "static thresholding"): lips that
        are shut are shut, and guidance cannot drive a channel out of its range.
        """
        copies = 1 + len(names)
        x, alpha, sigma = (
            jnp.tile(each, (copies, *(1,) * (each.ndim - 1))) for each in (x, alpha, sigma)
        )
        clean = self.denoise(unet, x, alpha, sigma, heard)
        clean = guidance.combine(clean, names, guidance_strengths(sample))
        return jnp.clip(clean, *self.bounds(params["constants"]))

    def sample(self, params: Params, batch: Batch, sample: SampleConfig) -> Array:
        """Returns standardised motion [B, T, 72]."""
        own, constants = self.own, params["constants"]
        items, frames = batch.emotion.shape[:2]
        distilled = bool(own.distill_steps)
        if distilled:
            sample = dataclasses.replace(sample, audio=1.0, emotion=1.0, identity=1.0)
        heard, names, _ = self.guided(params, batch, sample)
        index = 0 if batch.sample_index is None else batch.sample_index
        sample_index = jnp.broadcast_to(jnp.asarray(index, jnp.int32), items)
        seed = jax.random.key(sample.seed)

        def draw(index: Array | int) -> Array:
            return frame_noise(seed, sample_index, jnp.asarray(batch.start), frames, index)

        given = None
        if batch.inpaint_mask is not None:
            given = self.standardised(constants, batch.inpaint_motion)
        levels = schedule.levels(own.schedule, sample.steps, self.last_time)
        alphas, sigmas = (jnp.asarray(v, jnp.float32) for v in (levels.alpha, levels.sigma))

        def denoise(x: Array, index: Array) -> Array:
            alpha, sigma = (jnp.broadcast_to(v[index], (items,)) for v in (alphas, sigmas))
            clean = self.predict_clean(
                params, params["unet"], heard, names, sample, x, alpha, sigma
            )
            return clean if given is None else jnp.where(batch.inpaint_mask, given, clean)

        # The same for any number of steps: few are then a preview of many.
        start = draw(START_INDEX)
        if given is not None and self.last_time < 1.0:
            start = jnp.where(batch.inpaint_mask, alphas[0] * given + sigmas[0] * start, start)
        return samplers.sample(sample.sampler, denoise, start, levels, draw, eta=sample.eta)

    def apply(
        self, params: Params, batch: Batch, *, key: Array | None = None, train: bool = False
    ) -> dict[str, Array]:
        """Returns {"motion": [B, T, 72]}: a sample, as `model.sample` says.

        Training goes through `hear` and `denoise`; here `key` is not read, and `train` only decides
        whether the motion is clipped to the rig's ranges.
        """
        del key
        motion = self.motion(params["constants"], self.sample(params, batch, self.own.sample))
        return {"motion": motion if train else jnp.clip(motion, rig.MIN, rig.MAX)}
