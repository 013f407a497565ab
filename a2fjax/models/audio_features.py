"""What a model hears: signals, and states of pretrained encoders, joined frame by frame.

`Hearing` belongs to a model: it holds the encoders, runs them or takes what was computed before,
and says which of their weights are trained. `Mix` is the part of a network that standardises,
mixes and projects the states and lays them beside the signals.

Encoded clips reach a batch in one of three ways (see `a2fjax.data.loader`):

    encoded/<key> [B, T, S, D]     read from a cache
    heard [B, H * 320], heard_length [B], heard_start [B]
                                   the audio of whole clips, of which the batch's frames are a part
    neither                        `audio` itself is whole clips, as at inference

Source of the mix: Peters et al. 2018, "Deep contextualized word representations"; as used on
speech encoders by Yang et al. 2021, "SUPERB". Of the masks: Park et al. 2019, "SpecAugment".
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
from jax import Array

from a2fjax import files
from a2fjax.audio import HOP
from a2fjax.audio.frontend import Frontend
from a2fjax.config import AudioConfig, Config, EncoderConfig
from a2fjax.encoders import speech_encoder
from a2fjax.encoders.wav2vec2.network import sample_mask_spans
from a2fjax.errors import InputError
from a2fjax.models.base import Batch
from a2fjax.models.params import FROZEN, Params, merge, nest, paths
from a2fjax.sharding import constraints

PREFIX = "encoders/"
"""Where encoders are in a model's parameters; each is under its key."""

FOLDER = "encoders"
"""Of a run folder: what encoders were before training, one file each."""

ENCODED = "encoded/"
"""Beginning of the names of cached states in a batch."""

_LIMIT = 10.0  # Deviations: a few of Whisper's units stray by far more on single frames.

Encoders = Mapping[str, tuple[speech_encoder.Encoder, Params]]
"""Encoders with their parameters as read, by key."""


def load(config: AudioConfig) -> dict[str, tuple[speech_encoder.Encoder, Params]]:
    """Reads the encoders that a configuration names, by key; empty where it names none.

    Raises:
      InputError: as `encoders.load`, or nothing to train of an encoder.
    """
    found = {
        key: speech_encoder.load(name, config.encoder)
        for key, name in speech_encoder.feature_keys(config.features).items()
    }
    for encoder, _ in found.values():
        encoder.frozen(config.encoder.train_from)
    return found


def save(run: Path, found: Encoders) -> None:
    """Keeps encoders in a run folder, which is then all that its users need.

    Files that are there stay: training starts from them only once.
    """
    for key, (encoder, params) in found.items():
        path = _path(run, key)
        if not path.is_file():
            files.make_folder(path.parent)
            speech_encoder.save(path, encoder, params)


def restore(
    run: str | Path, config: AudioConfig
) -> dict[str, tuple[speech_encoder.Encoder, Params]]:
    """Reads the encoders of a run folder.

    Raises:
      InputError: one is missing, damaged or of another kind.
    """
    return {
        key: speech_encoder.restore(
            _path(Path(run), key), config.encoder, speech_encoder.parse(name)[0]
        )
        for key, name in speech_encoder.feature_keys(config.features).items()
    }


def begin(
    run: str | Path, config: AudioConfig, init_from: str | Path = ""
) -> dict[str, tuple[speech_encoder.Encoder, Params]]:
    """Reads the encoders of a run that has no state yet: those it keeps, or else those named.

    A run that was ended while it was keeping its encoders has some of them, or none.

    Args:
      run: its folder.
      config: which features, and how.
      init_from: folder of another run, whose encoders stand in for those named; "" for none.

    Raises:
      InputError: as `restore` and `load`.
    """
    found = {}
    for key, name in speech_encoder.feature_keys(config.features).items():
        path = _path(Path(run), key)
        if init_from and not path.is_file():
            path = _path(Path(init_from), key)
        found[key] = (
            speech_encoder.restore(path, config.encoder, speech_encoder.parse(name)[0])
            if init_from or path.is_file()
            else speech_encoder.load(name, config.encoder)
        )
        found[key][0].frozen(config.encoder.train_from)
    return found


def _path(run: Path, key: str) -> Path:
    return run / FOLDER / f"{key}.safetensors"


class Hearing:
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
        found = load(config) if found is None else found
        self.encoders = {key: encoder for key, (encoder, _) in found.items()}
        self.pretrained: Params = {}
        if found:
            self.pretrained = {FOLDER: {key: params for key, (_, params) in found.items()}}
        self.frozen = tuple(
            pattern
            for key, encoder in self.encoders.items()
            for pattern in encoder.frozen(config.encoder.train_from, f"{PREFIX}{key}/")
        )

    @property
    def lookahead_samples(self) -> int | None:
        """How far beyond its centre a frame hears; None with an encoder, which hears all."""
        return None if self.encoders else self.frontend.lookahead_samples

    @property
    def most_frames(self) -> int | None:
        """Longest clip that all encoders hear at once; None without such a limit."""
        limits = [e.most_frames for e in self.encoders.values() if e.most_frames is not None]
        return min(limits, default=None)

    def default_constants(self) -> dict[str, np.ndarray]:
        """Returns the statistics of states that change nothing: mean 0 and deviation 1, [S, D]."""
        out: dict[str, np.ndarray] = {}
        for key, encoder in self.encoders.items():
            out[f"{key}_mean"] = np.zeros((encoder.states, encoder.width), np.float32)
            out[f"{key}_std"] = np.ones((encoder.states, encoder.width), np.float32)
        return out

    def with_pretrained(self, params: Params) -> Params:
        """Returns parameters with the weights of encoders that they leave out, as read."""
        have = {path for path, _ in paths(params.get(FOLDER, {}))}
        found = {p: v for p, v in paths(self.pretrained.get(FOLDER, {})) if p not in have}
        return merge(params, {FOLDER: nest(found)}) if found else params

    def signals(self, batch: Batch) -> Array:
        """Returns the signals [B, T, F] of the batch's audio; padding is heard as silence."""
        audio = batch["audio"]
        heard = jnp.arange(audio.shape[1]) < HOP * batch["length"][:, None]
        return constraints.per_example(self.frontend.features)(jnp.where(heard, audio, 0.0))

    def silence(self) -> Array:
        """Returns the signals [F] of a frame of silence."""
        return self.frontend.features(jnp.zeros((1, HOP)))[0, 0]

    def states(self, params: Params, batch: Batch, *, key: Array | None = None) -> dict[str, Array]:
        """Returns the states [B, T, S, D] float32 of every encoder on the batch's frames, by key.

        Args:
          params: of the whole model; encoders are under "encoders". Not needed of what the batch
            brings along.
          batch: see the module.
          key: of dropout inside encoders that are trained; None when not training.
        """
        out = {}
        frames = batch["audio"].shape[1] // HOP
        for i, (name, encoder) in enumerate(self.encoders.items()):
            cached = batch.get(f"{ENCODED}{name}")
            if cached is not None:
                out[name] = jnp.asarray(cached).astype(jnp.float32)
                continue
            inside = None
            # Frozen, it gives in training what it gives at inference.
            if key is not None and self.config.encoder.train_from is not None:
                inside = jax.random.fold_in(key, i)
            weights = params[FOLDER][name]
            if "heard" not in batch:
                out[name] = encoder.apply(weights, batch["audio"], batch["length"], key=inside)
                continue
            whole = encoder.apply(weights, batch["heard"], batch["heard_length"], key=inside)
            place = batch["heard_start"][:, None] + jnp.arange(frames)
            place = jnp.minimum(place, whole.shape[1] - 1)
            out[name] = jnp.take_along_axis(whole, place[..., None, None], axis=1)
        return out


class Mix(nn.Module):
    """States and signals to one vector a frame.

    Each encoder: standardised by constants → learned mix of its states → linear. Signals: linear.
    All side by side. Outside its clip a frame hears silence of the signals and, of an encoder, a
    learned vector.

    Attributes:
      config: widths and what training adds.
    """

    config: EncoderConfig

    @nn.compact
    def __call__(
        self,
        signals: Array,
        silence: Array,
        states: Mapping[str, Array],
        valid: Array,
        constants: Mapping[str, Array],
        key: Array | None = None,
    ) -> tuple[Array, Array]:
        """Returns the features [B, T, W] and those of a frame outside its clip [W].

        Args:
          signals: [B, T, F]; F may be 0.
          silence: [F], signals of silence.
          states: by key, [B, T, S, D].
          valid: [B, T, 1] bool, frames that exist.
          constants: "<key>_mean" and "<key>_std" [S, D] of the states.
          key: of noise, masks and dropout; None when not training.
        """
        config = self.config
        parts: list[Array] = []
        outside: list[Array] = []
        names = [*(["signals"] if signals.shape[-1] else []), *states]
        for_parts = None if key is None else jax.random.fold_in(key, len(names))
        for i, name in enumerate(names):
            for_part = None if key is None else jax.random.fold_in(key, i)
            if name == "signals":
                linear = nn.Dense(config.width, name="signals")
                x, out = linear(signals), linear(silence)
            else:
                x = self._mixed(states[name], name, constants, for_part)
                x = nn.Dense(config.width, name=name)(x)
                out = self.param(f"{name}_outside", nn.initializers.zeros_init(), (config.width,))
            if for_part is not None and config.time_mask > 0:
                masked = sample_mask_spans(
                    jax.random.fold_in(for_part, 2),
                    x.shape[1],
                    jnp.sum(valid[..., 0], axis=1),
                    config.time_mask,
                    config.time_mask_frames,
                )
                x = jnp.where(masked[..., None], out, x)
            parts.append(jnp.where(valid, x, out))
            outside.append(out)
        if for_parts is not None and config.part_dropout > 0 and len(parts) > 1:
            which, whether = jax.random.split(for_parts)
            batch = (parts[0].shape[0],)
            left_out = jnp.where(
                jax.random.bernoulli(whether, config.part_dropout, batch),
                jax.random.randint(which, batch, 0, len(parts)),
                -1,
            )
            for i, out in enumerate(outside):
                parts[i] = jnp.where((left_out == i)[:, None, None], out, parts[i])
        return jnp.concatenate(parts, axis=-1), jnp.concatenate(outside)

    def _mixed(
        self, states: Array, name: str, constants: Mapping[str, Array], key: Array | None
    ) -> Array:
        """Returns [B, T, D] of states [B, T, S, D]."""
        config = self.config
        states = (states - constants[f"{name}_mean"]) / constants[f"{name}_std"]
        states = jnp.clip(states, -_LIMIT, _LIMIT)
        x = states[:, :, 0]
        if states.shape[2] > 1:
            logits = self.param(f"{name}_mix", nn.initializers.zeros_init(), (states.shape[2],))
            x = jnp.einsum("btsd,s->btd", states, jax.nn.softmax(logits))
        if key is None:
            return x
        for_noise, for_dropout = jax.random.split(key)
        if config.noise > 0:
            x = x + config.noise * jax.random.normal(for_noise, x.shape)
        if config.dropout > 0:
            keep = jax.random.bernoulli(
                for_dropout, 1 - config.dropout, (x.shape[0], 1, x.shape[2])
            )
            x = x * keep / (1 - config.dropout)
        return x


class HearingModel:
    """What models have in common that hear through `Hearing`: by default, whole clips.

    Attributes:
      hearing: signals and encoders.
      constants: that `init` puts into the parameters.
      dtype: of activations.
    """

    def __init__(
        self,
        config: Config,
        default: Mapping[str, np.ndarray],
        constants: Mapping[str, np.ndarray] | None,
        encoders: Encoders | None,
    ) -> None:
        """Makes the hearing.

        Args:
          config: whole experiment.
          default: constants that say nothing, for None in their place.
          constants: of the training data or of a checkpoint.
          encoders: by key; None reads those that `config.audio` names.

        Raises:
          InputError: an encoder cannot be read.
        """
        self.hearing = Hearing(config.audio, encoders)
        neutral = {**default, **self.hearing.default_constants()}
        self.constants = dict(neutral if constants is None else constants)
        self.dtype = {"float32": jnp.float32, "bfloat16": jnp.bfloat16}[config.precision]

    @property
    def lookahead_frames(self) -> int | None:
        """See `a2fjax.models.base.Model`."""
        return None

    @property
    def lookahead_seconds(self) -> float | None:
        """See `a2fjax.models.base.Model`."""
        return None

    @property
    def frozen(self) -> tuple[str, ...]:
        """See `a2fjax.models.base.Model`."""
        return (*FROZEN, *self.hearing.frozen)

    def device_constants(self) -> Params:
        """Returns the constants as arrays of jax."""
        return {name: jnp.asarray(value) for name, value in self.constants.items()}

    def nothing_heard(self, batch: Batch) -> tuple[Array, Array, dict[str, Array]]:
        """Returns zeros of the shapes of signals [B, T, F], silence [F] and encoders' states."""
        frames, width = batch["emotion"].shape[:2], self.hearing.frontend.width
        states = {
            name: jnp.zeros((*frames, encoder.states, encoder.width))
            for name, encoder in self.hearing.encoders.items()
        }
        return jnp.zeros((*frames, width)), jnp.zeros(width), states


def check(config: Config) -> None:
    """Checks that encoders can be had the way the data say.

    Raises:
      InputError: states are to come from a cache, but the encoder is trained, so that what it gave
        before is not what it gives; or pauses are to be inserted, which no cache has heard.
    """
    if config.data.encoder_features != "cached" or not speech_encoder.feature_keys(
        config.audio.features
    ):
        return
    for key, value, wrong, why in (
        (
            "audio.encoder.train_from",
            config.audio.encoder.train_from,
            config.audio.encoder.train_from is not None,
            "an encoder that is trained must hear the audio",
        ),
        (
            "data.augment.silence_prob",
            config.data.augment.silence_prob,
            config.data.augment.enabled and config.data.augment.silence_prob > 0,
            "what an encoder makes of an inserted pause is not in a cache",
        ),
    ):
        if wrong:
            raise InputError(
                f"config: data.encoder_features='cached' with {key}={value}: {why}; "
                "set data.encoder_features='live'"
            )
