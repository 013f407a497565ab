"""Audio features of a batch: acoustic signals, and hidden states of pretrained encoders.

Hidden states are computed from one of three fields of `a2fjax.batch.Batch`:

    cached_features     hidden states read from a feature cache
    context_audio       the audio of whole clips that contain the batch's windows
    audio               otherwise; it then holds whole clips, as in inference
"""

from __future__ import annotations

import jax.numpy as jnp
import numpy as np
from jax import Array

from a2fjax.audio import HOP
from a2fjax.audio.frontend import Frontend
from a2fjax.batch import Batch
from a2fjax.configuration import AudioConfig
from a2fjax.models import pretrained
from a2fjax.models.feature_fusion import AudioFeatures
from a2fjax.models.params import Params, merge, nest, paths
from a2fjax.models.pretrained import Encoders
from a2fjax.models.rngs import named_keys
from a2fjax.sharding import constraints

COLLECTION = "encoders"
"""Collection of encoder weights, by key, in a model's variables."""

PREFIX = f"{COLLECTION}/"


class AudioFeatureExtractor:
    """Acoustic signals and encoders of a model.

    Attributes:
      config: selected features and the use of encoders.
      frontend: computes the acoustic signals.
      encoders: encoders by key, in the order of the features.
      pretrained: their pretrained weights {"encoders": {key: ...}} as NumPy arrays; {} if none.
      frozen: patterns of the frozen weights, for `params.split`.
    """

    def __init__(self, config: AudioConfig, encoders: Encoders | None = None) -> None:
        """Creates the extractor.

        Args:
          config: selected features and the use of encoders.
          encoders: encoders with their parameters, by key; None reads the configured ones.

        Raises:
          InputError: as for `pretrained.load` and `Frontend`.
        """
        self.config = config
        self.frontend = Frontend(config)
        encoders = pretrained.load(config) if encoders is None else encoders
        self.encoders = {key: encoder for key, (encoder, _) in encoders.items()}
        self.pretrained: Params = {}
        if encoders:
            self.pretrained = {COLLECTION: {key: params for key, (_, params) in encoders.items()}}
        self.frozen = tuple(
            pattern
            for key, encoder in self.encoders.items()
            for pattern in encoder.frozen_patterns(config.encoder.train_from, f"{PREFIX}{key}/")
        )

    @property
    def lookahead_samples(self) -> int | None:
        """Samples after its centre that a frame depends on; None for all, with an encoder."""
        return None if self.encoders else self.frontend.lookahead_samples

    @property
    def most_frames(self) -> int | None:
        """Longest clip that all encoders accept in one piece; None for no limit."""
        limits = [e.max_frames for e in self.encoders.values() if e.max_frames is not None]
        return min(limits, default=None)

    def default_constants(self) -> dict[str, np.ndarray]:
        """Returns an identity standardisation of hidden states: mean 0, deviation 1, [S, D]."""
        out: dict[str, np.ndarray] = {}
        for key, encoder in self.encoders.items():
            out[f"{key}_mean"] = np.zeros((encoder.num_states, encoder.width), np.float32)
            out[f"{key}_std"] = np.ones((encoder.num_states, encoder.width), np.float32)
        return out

    def with_pretrained(self, variables: Params) -> Params:
        """Returns the variables completed with pretrained encoder weights that they lack."""
        present = {path for path, _ in paths(variables.get(COLLECTION, {}))}
        missing = {
            path: value
            for path, value in paths(self.pretrained.get(COLLECTION, {}))
            if path not in present
        }
        return merge(variables, {COLLECTION: nest(missing)}) if missing else variables

    def __call__(
        self, variables: Params, batch: Batch, *, rng: Array | None = None
    ) -> AudioFeatures:
        """Returns the audio features of the batch's frames; arguments as in `hidden_states`."""
        return AudioFeatures(
            self.signals(batch), self.silence(), self.hidden_states(variables, batch, rng=rng)
        )

    def zeros(self, batch: Batch) -> AudioFeatures:
        """Returns zeros with the shapes of the batch's audio features."""
        frames, width = batch.emotion.shape[:2], self.frontend.width
        hidden_states = {
            key: jnp.zeros((*frames, encoder.num_states, encoder.width))
            for key, encoder in self.encoders.items()
        }
        return AudioFeatures(jnp.zeros((*frames, width)), jnp.zeros(width), hidden_states)

    def signals(self, batch: Batch) -> Array:
        """Returns the signals [B, T, F] of the batch's audio; padding counts as silence."""
        audio = batch.audio
        valid = jnp.arange(audio.shape[1]) < HOP * batch.length[:, None]
        return constraints.per_example(self.frontend.features)(jnp.where(valid, audio, 0.0))

    def silence(self) -> Array:
        """Returns the signals [F] of a silent frame."""
        return self.frontend.features(jnp.zeros((1, HOP)))[0, 0]

    def hidden_states(
        self, variables: Params, batch: Batch, *, rng: Array | None = None
    ) -> dict[str, Array]:
        """Computes the hidden states [B, T, S, D] float32 of every encoder, by key.

        Args:
          variables: variables of the whole model; encoders with cached hidden states need no
            weights.
          batch: the batch; see the module.
          rng: random key of dropout inside trained encoders; None for inference.
        """
        # A frozen encoder has the same output in training and inference.
        if self.config.encoder.train_from is None:
            rng = None
        rngs = {} if rng is None else named_keys(rng, self.encoders)
        out = {}
        frames = batch.audio.shape[1] // HOP
        for key, encoder in self.encoders.items():
            cached = batch.cached_features.get(key)
            if cached is not None:
                out[key] = jnp.asarray(cached).astype(jnp.float32)
                continue
            weights, encoder_rng = variables[COLLECTION][key], rngs.get(key)
            if batch.context_audio is None:
                out[key] = encoder.apply(weights, batch.audio, batch.length, key=encoder_rng)
                continue
            context = encoder.apply(
                weights, batch.context_audio, batch.context_length, key=encoder_rng
            )
            index = batch.context_start[:, None] + jnp.arange(frames)
            index = jnp.minimum(index, context.shape[1] - 1)
            out[key] = jnp.take_along_axis(context, index[..., None, None], axis=1)
        return out
