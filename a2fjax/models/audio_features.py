"""Audio features of a batch: acoustic signals, and hidden states of pretrained encoders.

Hidden states reach a model in one of three ways (see `a2fjax.batch.Batch`):

    cached_features     read from a feature cache
    context_audio       computed from whole clips, of which the batch's frames are a part
    neither             computed from `audio`, which holds whole clips, as at inference
"""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array

from a2fjax.audio import HOP
from a2fjax.audio.frontend import Frontend
from a2fjax.batch import Batch
from a2fjax.config import AudioConfig
from a2fjax.models import pretrained
from a2fjax.models.params import Params, merge, nest, paths
from a2fjax.models.pretrained import Encoders
from a2fjax.sharding import constraints

COLLECTION = "encoders"
"""Top-level key of the encoders' weights in a model's parameters; each is under its key."""

PREFIX = f"{COLLECTION}/"


class AudioFeatureExtractor:
    """Signals and encoders of a model.

    Attributes:
      config: which features, and how.
      frontend: of the signals.
      encoders: by key, in the order of the features.
      pretrained: their weights as read, {"encoders": {key: ...}}, NumPy arrays; {} without any.
      frozen: patterns of the weights that are not trained, for `params.split`.
    """

    def __init__(self, config: AudioConfig, found: Encoders | None = None) -> None:
        """Makes the hearing of a model.

        Args:
          config: which features, and how.
          found: encoders with their parameters, by key; None reads those that `config` names.

        Raises:
          InputError: as `load` and `Frontend`.
        """
        self.config = config
        self.frontend = Frontend(config)
        found = pretrained.load(config) if found is None else found
        self.encoders = {key: encoder for key, (encoder, _) in found.items()}
        self.pretrained: Params = {}
        if found:
            self.pretrained = {COLLECTION: {key: params for key, (_, params) in found.items()}}
        self.frozen = tuple(
            pattern
            for key, encoder in self.encoders.items()
            for pattern in encoder.frozen_patterns(config.encoder.train_from, f"{PREFIX}{key}/")
        )

    @property
    def lookahead_samples(self) -> int | None:
        """How far beyond its centre a frame hears; None with an encoder, which hears all."""
        return None if self.encoders else self.frontend.lookahead_samples

    @property
    def most_frames(self) -> int | None:
        """Longest clip that all encoders hear at once; None without such a limit."""
        limits = [e.max_frames for e in self.encoders.values() if e.max_frames is not None]
        return min(limits, default=None)

    def default_constants(self) -> dict[str, np.ndarray]:
        """Returns the statistics of states that change nothing: mean 0 and deviation 1, [S, D]."""
        out: dict[str, np.ndarray] = {}
        for key, encoder in self.encoders.items():
            out[f"{key}_mean"] = np.zeros((encoder.num_states, encoder.width), np.float32)
            out[f"{key}_std"] = np.ones((encoder.num_states, encoder.width), np.float32)
        return out

    def with_pretrained(self, params: Params) -> Params:
        """Returns parameters with the weights of encoders that they leave out, as read."""
        have = {path for path, _ in paths(params.get(COLLECTION, {}))}
        found = {p: v for p, v in paths(self.pretrained.get(COLLECTION, {})) if p not in have}
        return merge(params, {COLLECTION: nest(found)}) if found else params

    def signals(self, batch: Batch) -> Array:
        """Returns the signals [B, T, F] of the batch's audio; padding is heard as silence."""
        audio = batch.audio
        heard = jnp.arange(audio.shape[1]) < HOP * batch.length[:, None]
        return constraints.per_example(self.frontend.features)(jnp.where(heard, audio, 0.0))

    def silence(self) -> Array:
        """Returns the signals [F] of a frame of silence."""
        return self.frontend.features(jnp.zeros((1, HOP)))[0, 0]

    def hidden_states(
        self, params: Params, batch: Batch, *, key: Array | None = None
    ) -> dict[str, Array]:
        """Returns the states [B, T, S, D] float32 of every encoder on the batch's frames, by key.

        Args:
          params: of the whole model; encoders are under "encoders". Not needed of what the batch
            brings along.
          batch: see the module.
          key: of dropout inside encoders that are trained; None when not training.
        """
        out = {}
        frames = batch.audio.shape[1] // HOP
        for i, (name, encoder) in enumerate(self.encoders.items()):
            cached = batch.cached_features.get(name)
            if cached is not None:
                out[name] = jnp.asarray(cached).astype(jnp.float32)
                continue
            inside = None
            # Frozen, it gives in training what it gives at inference.
            if key is not None and self.config.encoder.train_from is not None:
                inside = jax.random.fold_in(key, i)
            weights = params[COLLECTION][name]
            if batch.context_audio is None:
                out[name] = encoder.apply(weights, batch.audio, batch.length, key=inside)
                continue
            whole = encoder.apply(weights, batch.context_audio, batch.context_length, key=inside)
            place = batch.context_start[:, None] + jnp.arange(frames)
            place = jnp.minimum(place, whole.shape[1] - 1)
            out[name] = jnp.take_along_axis(whole, place[..., None, None], axis=1)
        return out
