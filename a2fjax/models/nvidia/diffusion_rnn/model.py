"""`diffusion_rnn` as a model with a speech encoder, a rig head and sampling."""

from __future__ import annotations

from collections.abc import Mapping

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array

from a2fjax.batch import Batch
from a2fjax.configuration import AudioConfig, DiffusionRnnConfig
from a2fjax.diffusion import samplers, schedule
from a2fjax.encoders.wav2vec2.speech_encoder import Wav2Vec2SpeechEncoder
from a2fjax.models.audio_features import PREFIX
from a2fjax.models.nvidia.diffusion_rnn.network import Size
from a2fjax.models.nvidia.diffusion_rnn.on_features import DiffusionRnnOnFeatures, Inputs
from a2fjax.models.nvidia.model import GEOMETRY, NvidiaModel, network_inputs
from a2fjax.models.params import FROZEN, Params
from a2fjax.models.pretrained import Encoders


class DiffusionRnn(NvidiaModel):
    """`diffusion_rnn` ("v3.0"); see `a2fjax.models.base.Model` and `NvidiaModel`.

    `apply` draws a sample. The model uses the encoder's last hidden state (NVIDIA: after all 12
    layers of HuBERT base).

    Attributes:
      on_features: the denoising network on features.
      signal: [steps] share of signal power a_t of the cosine schedule.
      visited: diffusion steps that a sample visits.
    """

    def __init__(
        self,
        config: DiffusionRnnConfig,
        audio: AudioConfig,
        *,
        precision: str = "float32",
        constants: Mapping[str, np.ndarray] | None = None,
        encoders: Encoders | None = None,
    ) -> None:
        """Creates the model; arguments and errors as in `NvidiaModel`."""
        super().__init__(config, audio, precision=precision, constants=constants, encoders=encoders)
        self.config = config
        self.actors = len(np.asarray(self.constants["actor_mean"]))
        size = Size(
            self.layout,
            actors=self.actors,
            encoder_width=self.encoder.width,
            steps=config.diffusion_steps,
            width=config.width,
            recurrent_width=config.recurrent_width,
            recurrent_layers=config.recurrent_layers,
            dropout=config.recurrent_dropout,
        )
        self.on_features = DiffusionRnnOnFeatures(size, None, precision)
        self.signal = schedule.cosine_steps(config.diffusion_steps)
        self.visited = schedule.spaced(config.diffusion_steps, config.sample_steps)
        self._train_from = audio.encoder.train_from

    @property
    def frozen(self) -> tuple[str, ...]:
        """See `a2fjax.models.base.Model`."""
        start = self._train_from
        wav2vec2 = isinstance(self.encoder, Wav2Vec2SpeechEncoder)
        if not self.config.whole_encoder or start is None or not wav2vec2:
            return super().frozen
        names = ["feature_extractor/", "feature_projection/"]
        names += [f"encoder/layers/{i}/" for i in range(max(start, 0))]
        return (*FROZEN, *(f"^{PREFIX}{self.key}/{name}" for name in names))

    def init(self, key: Array, batch: Batch) -> Params:
        """Returns {"params": ..., "constants": ...}; see `a2fjax.models.base.Model`."""
        items, frames = batch.emotion.shape[:2]
        features = jnp.zeros((items, frames, self.encoder.width))
        inputs = network_inputs(batch, features=features, actor=self.actor(batch))
        variables = self.on_features.init(key, inputs)
        return {**variables, "constants": self.device_constants()}

    def actor(self, batch: Batch) -> Array:
        """Returns the one-hot actor [B, A], or the uniform mixture for an unknown subject."""
        items = batch.emotion.shape[0]
        mixture = jnp.full((items, self.actors), 1.0 / self.actors)
        if self.actors == 1:
            return mixture
        subject = jnp.asarray(batch.subject)
        known = (subject >= 0) & (subject < self.actors)
        return jnp.where(known[:, None], jax.nn.one_hot(subject, self.actors), mixture)

    def conditions(self, variables: Params, batch: Batch, *, rng: Array | None = None) -> Inputs:
        """Returns the network's inputs other than the noisy motion.

        Args:
          variables: variables of the model.
          batch: the batch; see `a2fjax.batch.Batch`.
          rng: random key of dropout inside the encoder; None for inference.
        """
        features = self.encoder_features(variables, batch, rng)[:, :, -1]
        return network_inputs(batch, features=features, actor=self.actor(batch))

    def denoise(
        self,
        variables: Params,
        noisy: Array,
        step: Array,
        conditions: Inputs,
        *,
        rngs: dict[str, Array] | None = None,
    ) -> Array:
        """Predicts the clean values [B, T, D] from noisy ones at `step` [B].

        Args:
          variables: variables of the model.
          noisy: [B, T, D].
          step: [B] int32.
          conditions: result of `conditions`.
          rngs: result of `rngs.streams` for training; None otherwise.
        """
        constants = variables["constants"]
        mean = constants.get(f"{GEOMETRY}mean_geometry")
        if mean is None:
            std = constants["motion_std"]
            moved = constants["actor_mean"] - constants["motion_mean"]
            mean = jnp.where(std > 0, moved / jnp.where(std > 0, std, 1.0), 0.0)
        params = variables["params"]
        return self.on_features.run(params, mean, noisy, step, conditions, rngs=rngs)[0]

    def apply(
        self, variables: Params, batch: Batch, *, key: Array | None = None, train: bool = False
    ) -> dict[str, Array]:
        """Samples: "motion" [B, T, 72] and "frames" [B, T, D] of the head.

        The noise is a function of `model.sample_seed`, the call and the frame. It is the same for
        every item, as in NVIDIA's service, and for any padding. Training calls `denoise` instead;
        `key` is ignored here, and `train` only disables clipping of the motion.
        """
        del key
        conditions = self.conditions(variables, batch)
        items, frames = batch.emotion.shape[:2]
        seed = jax.random.key(self.config.sample_seed)

        def draw(index: Array | int) -> Array:
            keys = jax.vmap(jax.random.fold_in, (None, 0))(
                jax.random.fold_in(seed, index), jnp.arange(frames)
            )
            noise = jax.vmap(lambda k: jax.random.normal(k, (self.layout.width,)))(keys)
            return jnp.broadcast_to(noise, (items, *noise.shape))

        visited = jnp.asarray(self.visited[::-1].copy(), jnp.int32)

        def denoise(x: Array, index: Array) -> Array:
            step = jnp.broadcast_to(visited[index], (items,))
            return self.denoise(variables, x, step, conditions)

        values = samplers.sample(
            self.config.sampler,
            denoise,
            draw(len(self.visited)),
            schedule.levels_of_steps(self.signal, self.visited),
            draw,
        )
        motion = self.motion(variables["constants"], values, train=train)
        return {"motion": motion, "frames": values}
