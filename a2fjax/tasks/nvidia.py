"""Losses of NVIDIA's two networks: this package's terms, plus NVIDIA's additional ones.

The formulas follow `train_regression.train_step` and `gaussian_diffusion.training_losses` of the
Audio2Face-3D Training Framework 1.0.1, with masked means that ignore invalid and padded frames.

    position    mean (y' - y)^2 of the head's values ("mse"); diffusion: SmoothL1 of beta 1 of
                w (x0' - x0), w by part ("simple")
    velocity    mean (dy' - dy)^2, d between neighbouring frames ("motion"; diffusion: of the skin)
    aperture, closure
                as in `losses`, on the channels; those of geometry by unbounded least squares
    vol_stab    mean over frames of exp(-5000 mean|audio|) mean(dy'^2), without the eyes; audio of
                the half second that the frame depends on
    lip_dist    mean (w dist' - w dist)^2, w = exp(-max(dist, 0)) (diffusion: -10 max), dist of the
                lip vertices in the units of the shapes file
    emo_reg     mean(d e^2) / mean(e^2) of the learned emotions
    exp_smooth  mean (m d x0')^2 with the upper face's share m in a value's movement; NVIDIA's m is
                a sigmoid around the eyelids [?]

With the rig's head, position and velocity of the regression are those of `losses` with the group
weights of the channels.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import Any, ClassVar, TypeVar

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array

from a2fjax import losses, rig
from a2fjax.audio import HOP
from a2fjax.batch import Batch
from a2fjax.configuration import (
    Config,
    ConvW2vAutocorrConfig,
    DiffusionRnnConfig,
    LossConfig,
    NvidiaConfig,
)
from a2fjax.diffusion import schedule
from a2fjax.errors import InputError
from a2fjax.losses import WeightedSum, masked_mean
from a2fjax.models import rngs as rngs_lib
from a2fjax.models.nvidia.conv_w2v_autocorr.autocorrelation import BUFFER
from a2fjax.models.nvidia.conv_w2v_autocorr.model import ConvW2vAutocorr
from a2fjax.models.nvidia.diffusion_rnn.model import DiffusionRnn
from a2fjax.models.nvidia.model import GEOMETRY
from a2fjax.models.params import Params
from a2fjax.models.pretrained import Encoders
from a2fjax.tasks.base import SingleMotionTask

NORMALISED = ("position", "velocity", "emo_reg")
_QUIETER = 5000.0
_TINY = 1e-8

T = TypeVar("T", bound="_NvidiaTask")


class _NvidiaTask(SingleMotionTask):
    """Losses common to both networks; see `a2fjax.tasks.base.Task`."""

    model: Any
    network: ClassVar[type[Any]]
    settings_class: ClassVar[type[NvidiaConfig]]

    def __init__(self, config: LossConfig, settings: NvidiaConfig, model: Any, steps: int) -> None:
        """Combines `model` with the losses of `config`.

        Args:
          config: weights of the loss terms.
          settings: settings of the network, including the weights of its specific terms.
          model: the network.
          steps: number of updates of the run.

        Raises:
          InputError: a loss setting that these networks do not support.
        """
        if config.balance:
            raise InputError(
                f"loss.balance={config.balance}: model.kind={settings.kind!r} has units "
                "of its own for every number; expected 0"
            )
        self.model = model
        self.steps = steps
        self.config = config
        self.settings: Any = settings
        self.weights = losses.term_weights(config) | settings.term_weights

    @classmethod
    def build(
        cls: type[T],
        config: Config,
        constants: Mapping[str, np.ndarray] | None = None,
        encoders: Encoders | None = None,
    ) -> T:
        """Returns the task with its network; arguments as in `a2fjax.tasks.build`."""
        settings = config.model
        assert isinstance(settings, cls.settings_class)
        model = cls.network(
            settings,
            config.audio,
            precision=config.precision,
            constants=constants,
            encoders=encoders,
        )
        return cls(config.loss, settings, model, config.steps)

    def total(self, terms: dict[str, WeightedSum]) -> Array:
        """Returns the weighted sum of the terms' values."""
        parts = (self.weights[name] * term.value for name, term in terms.items())
        return sum(parts, jnp.zeros(()))

    def _of_channels(self, motion: Array, batch: Batch, *, all_terms: bool) -> dict[str, Any]:
        config = self.config
        if not all_terms:
            config = dataclasses.replace(config, position=0.0, velocity=0.0)
        return losses.compute_terms(motion, batch, config)

    def _lip_dist(
        self, constants: Params, values: Array, target: Array, batch: Batch, exponent: float
    ) -> dict[str, WeightedSum]:
        if not self.settings.lip_dist:
            return {}
        good = batch.valid_frames() & batch.channel_mask[:, rig.INDEX["jawOpen"], None]
        true = self.model.lips(constants, target)
        near = jnp.exp(-exponent * jnp.maximum(true, 0.0))
        error = near * (self.model.lips(constants, values) - true)
        return {"lip_dist": masked_mean(error**2, good)}


def _difference(x: Array) -> Array:
    return x[:, 1:] - x[:, :-1]


def quietness(audio: Array) -> Array:
    """Returns exp(-5000 mean|audio|) of the half second around each frame [B, T].

    Args:
      audio: [B, 320 T], zeros beyond the end of an item.
    """
    loud = jnp.abs(audio).reshape(audio.shape[0], -1, HOP).mean(axis=-1)
    half = BUFFER // HOP // 2
    frames = loud.shape[1]
    sums = jnp.cumsum(jnp.pad(loud, ((0, 0), (half + 1, half))), axis=1)
    mean = (sums[:, 2 * half : 2 * half + frames] - sums[:, :frames]) / (2 * half)
    return jnp.exp(-_QUIETER * jnp.maximum(mean, 0.0))


class ConvW2vAutocorrTask(_NvidiaTask):
    """Task of `conv_w2v_autocorr`, which predicts one motion per recording."""

    model: ConvW2vAutocorr
    network = ConvW2vAutocorr
    settings_class = ConvW2vAutocorrConfig

    def loss(
        self, variables: Params, batch: Batch, key: Array, *, step: Array | int, train: bool
    ) -> tuple[Array, dict[str, WeightedSum]]:
        """Returns the scalar and its terms.

        With `model.normalise`, the terms that NVIDIA normalises enter the training scalar as l /
        |l|^e with e falling from 1 to 0 over the run, where |l| is the term's size in this batch.
        (NVIDIA uses its root mean square over about the last hundred batches, which would need
        additional state.) `total` uses the terms unchanged.
        """
        constants = variables["constants"]
        out = self.model.apply(variables, batch, key=key, train=train)
        is_geometry = self.model.is_geometry
        # Losses use a linear function of the geometry in evaluation as well, to keep both
        # comparable.
        motion = out["motion"]
        if is_geometry and not train:
            motion = self.model.motion(constants, out["frames"], train=True)
        terms = self._of_channels(motion, batch, all_terms=not is_geometry)
        good = batch.valid_frames()
        pairs = (good[:, 1:] & good[:, :-1])[..., None]
        if is_geometry:
            target, _ = self.model.target(constants, batch)
            target = jnp.where(good[..., None], target, 0.0)
            error = out["frames"] - target
            if self.config.position:
                terms["position"] = masked_mean(error**2, good[..., None])
            if self.config.velocity:
                terms["velocity"] = masked_mean(_difference(error) ** 2, pairs)
            terms |= self._lip_dist(constants, out["frames"], target, batch, 1.0)
        if self.settings.vol_stab:
            values = out["frames"] if is_geometry else motion / rig.SCALE
            speed = (_difference(values[..., : -len(rig.EYE_ANGLES)]) ** 2).mean(axis=-1)
            exists = jnp.arange(batch.audio.shape[1]) < HOP * batch.length[:, None]
            quiet = quietness(jnp.where(exists, batch.audio, 0.0))
            terms["vol_stab"] = masked_mean(quiet[:, 1:] * speed, pairs[..., 0])
        if train and self.settings.implicit_emotion and self.settings.emo_reg:
            vectors = out["implicit"]
            size = jnp.where(good[..., None], vectors**2, 0.0).sum() / vectors.shape[-1]
            size = size / jnp.maximum(good.sum(), 1) + _TINY
            change = masked_mean(_difference(vectors) ** 2, pairs)
            terms["emo_reg"] = WeightedSum(change.total / size, change.weight)
        if not (train and self.settings.normalise):
            return self.total(terms), terms
        exponent = jnp.clip(1.0 - step / self.steps, 0.0, 1.0)
        total = jnp.zeros(())
        for name, term in terms.items():
            value = term.value
            if name in NORMALISED:
                size = jax.lax.stop_gradient(jnp.maximum(jnp.abs(value), _TINY))
                value = value / size**exponent
            total = total + self.weights[name] * value
        return total, terms


class DiffusionRnnTask(_NvidiaTask):
    """Task of `diffusion_rnn`, which predicts clean from noisy motion at a random step."""

    model: DiffusionRnn
    network = DiffusionRnn
    settings_class = DiffusionRnnConfig

    def __init__(
        self, config: LossConfig, settings: NvidiaConfig, model: DiffusionRnn, steps: int
    ) -> None:
        """Combines `model` with the losses of `config`; arguments as in `ConvW2vAutocorrTask`."""
        super().__init__(config, settings, model, steps)
        weight = np.ones(model.layout.width, np.float32)
        for name, columns in model.layout.parts.items():
            weight[columns] = self.settings.part_weights.get(name, 1.0)
        self.part_weights = weight
        self.upper = np.zeros(rig.NUM_CHANNELS, np.float32)
        self.upper[rig.GROUPS["upper_face"]] = 1.0

    def loss(
        self, variables: Params, batch: Batch, key: Array, *, step: Array | int, train: bool
    ) -> tuple[Array, dict[str, WeightedSum]]:
        """Returns the scalar and its terms, at one uniformly drawn step per item."""
        del step
        constants = variables["constants"]
        streams = rngs_lib.streams(key)
        target, counts = self.model.target(constants, batch)
        good = batch.valid_frames()
        # Values outside the mask are arbitrary, but must not reach valid frames as NaN.
        target = jnp.where(good[..., None], target, 0.0)
        items = target.shape[0]
        t = jax.random.randint(streams["noise_level"], (items,), 0, self.settings.diffusion_steps)
        noise = jax.random.normal(streams["motion_noise"], target.shape)
        signal = jnp.asarray(self.model.signal, jnp.float32)[t]
        noisy = schedule.noised(target, noise, jnp.sqrt(signal), jnp.sqrt(1.0 - signal))
        rngs = streams if train else None
        conditions = self.model.conditions(
            variables, batch, rng=streams["encoders"] if train else None
        )
        values = self.model.denoise(variables, noisy, t, conditions, rngs=rngs)
        values = values.astype(jnp.float32)
        mask = good[..., None] & counts
        pairs = mask[:, 1:] & mask[:, :-1]
        error = jnp.where(mask, values - target, 0.0)
        motion = self.model.motion(constants, values, train=True)
        terms = self._of_channels(motion, batch, all_terms=False)
        if self.config.position:
            terms["position"] = masked_mean(smooth_l1(error * self.part_weights), mask)
        if self.config.velocity:
            skin = self.model.layout.parts["skin"]
            terms["velocity"] = masked_mean(_difference(error[..., skin]) ** 2, pairs[..., skin])
        terms |= self._lip_dist(constants, values, target, batch, 10.0)
        if self.settings.exp_smooth:
            upper = constants.get(f"{GEOMETRY}upper", self.upper)
            terms["exp_smooth"] = masked_mean((upper * _difference(values)) ** 2, pairs)
        return self.total(terms), terms


def smooth_l1(error: Array) -> Array:
    """Returns e^2 / 2 where |e| < 1, |e| - 1/2 elsewhere (Girshick 2015, "Fast R-CNN", eq. 3)."""
    size = jnp.abs(error)
    return jnp.where(size < 1.0, 0.5 * error**2, size - 0.5)
