"""Base class of NVIDIA's networks as models with a speech encoder and a rig head.

The head outputs the rig's channels, or geometry from which they are solved (`geometry`). Statistics
and geometry maps are in the collection "constants".
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import jax.numpy as jnp
import numpy as np
from jax import Array

from a2fjax import rig
from a2fjax.batch import Batch
from a2fjax.configuration import AudioConfig, ConvW2vAutocorrConfig, NvidiaConfig
from a2fjax.errors import InputError
from a2fjax.models.audio_model import AudioModel
from a2fjax.models.nvidia.frame_layout import RIG, FrameLayout
from a2fjax.models.nvidia.geometry import maps, shapes, solver
from a2fjax.models.params import Params
from a2fjax.models.pretrained import Encoders

GEOMETRY = "geometry_"
"""Name prefix of the geometry's constants."""

_LIMIT = 10.0


def check(config: NvidiaConfig, audio: AudioConfig) -> None:
    """Checks that the network supports the audio features.

    Raises:
      InputError: unsupported features; the message names the key, its value and the expected value.
    """
    features = audio.features
    if len(features) != 1 or ":" not in features[0]:
        example = "hubert" if config.kind == "diffusion_rnn" else "wav2vec2"
        raise InputError(
            f"audio.features={features!r}: model.kind={config.kind!r} takes exactly one speech "
            f"encoder and nothing else; expected for example ('{example}:PATH',)"
        )
    if config.kind == "diffusion_rnn" and audio.encoder.mix:
        raise InputError(
            "audio.encoder.mix=True: diffusion_rnn takes the last hidden state alone; "
            "expected False"
        )
    config.validate()


def geometry_constants(config: NvidiaConfig, moments: maps.Moments) -> dict[str, np.ndarray]:
    """Reads shape files and returns the geometry head's constants; {} for the rig head.

    Raises:
      InputError: no file given, an unreadable file, or one without the lips that a loss requires.
    """
    if config.head != "geometry":
        return {}
    if not config.rig:
        raise InputError(
            "model.head='geometry' needs the shapes of a head: expected "
            "model.rig=PATH of an .npz file with neutral, names and deltas"
        )
    head = shapes.read(config.rig, config.tongue_rig)
    if config.lip_dist and head.lips is None:
        raise InputError(
            f"model.lip_dist={config.lip_dist}: {config.rig} has neither lip_upper nor lip_lower; "
            "expected both, or lip_dist=0"
        )
    if isinstance(config, ConvW2vAutocorrConfig):
        values = maps.pca_constants(head, moments, config.skin, config.tongue, config.solve_error)
    else:
        values = maps.vertex_constants(head, moments, config.solve_error)
    return {f"{GEOMETRY}{name}": value for name, value in values.items()}


def _geometry(constants: Mapping[str, Any]) -> dict[str, Any]:
    return {k[len(GEOMETRY) :]: v for k, v in constants.items() if k.startswith(GEOMETRY)}


class NvidiaModel(AudioModel):
    """Encoder, head and constants of both networks.

    Attributes:
      key: key of the encoder.
      encoder: the speech encoder.
      is_geometry: true if the head outputs geometry.
      layout: layout of the head's values.
    """

    def __init__(
        self,
        config: NvidiaConfig,
        audio: AudioConfig,
        *,
        precision: str = "float32",
        constants: Mapping[str, np.ndarray] | None = None,
        encoders: Encoders | None = None,
    ) -> None:
        """Creates the encoder and the head.

        Args:
          config: configuration of the network.
          audio: the encoder and its use.
          precision: precision of activations, "float32" or "bfloat16".
          constants: constants of the training data, from `a2fjax.tasks.constants` or a checkpoint;
            None for data-independent ones.
          encoders: encoders by key; None reads the one that `audio` names.

        Raises:
          InputError: contradictory settings, or an unreadable file.
        """
        check(config, audio)
        actors = max(config.actors, 1)
        neutral: dict[str, np.ndarray] = {}
        if constants is None:
            neutral = {
                "motion_mean": np.zeros(rig.NUM_CHANNELS, np.float32),
                "motion_std": 0.1 * rig.SCALE,
                "actor_mean": np.zeros((actors, rig.NUM_CHANNELS), np.float32),
                "clip_offset": np.array([0, 1], np.int32),
                **geometry_constants(config, maps.Moments.unknown(actors)),
            }
        super().__init__(audio, precision, neutral, constants, encoders)
        ((self.key, self.encoder),) = self.audio_features.encoders.items()
        used = ("motion_", self.key, GEOMETRY, "actor_mean", "clip_offset", "subjects")
        self.constants = {k: v for k, v in self.constants.items() if k.startswith(used)}
        self.standardise = config.standardise
        self.is_geometry = config.head == "geometry"
        self.layout: FrameLayout = (
            maps.frame_layout(_geometry(self.constants)) if self.is_geometry else RIG
        )

    @property
    def notes(self) -> tuple[str, ...]:
        """Remarks on the geometry head, one line each."""
        if not self.is_geometry:
            return ()
        widths = {name: s.stop - s.start for name, s in self.layout.parts.items()}
        lines = ["geometry: " + ", ".join(f"{name} {width}" for name, width in widths.items())]
        by_reason: dict[str, list[str]] = {}
        for name, reason in maps.undetermined(_geometry(self.constants)).items():
            by_reason.setdefault(reason, []).append(name)
        for reason, names in by_reason.items():
            lines.append(f"channels it does not tell ({reason}): {', '.join(names)}")
        return tuple(lines)

    def encoder_features(self, variables: Params, batch: Batch, rng: Array | None) -> Array:
        """Returns the encoder's hidden states [B, T, S, D], standardised if configured.

        Args:
          variables: variables of the model.
          batch: the batch; see `a2fjax.batch.Batch`.
          rng: random key of dropout inside the encoder; None for inference.
        """
        features = self.audio_features.hidden_states(variables, batch, rng=rng)[self.key]
        if self.standardise:
            constants = variables["constants"]
            features = (features - constants[f"{self.key}_mean"]) / constants[f"{self.key}_std"]
            features = jnp.clip(features, -_LIMIT, _LIMIT)
        return features

    def target(self, constants: Params, batch: Batch) -> tuple[Array, Array]:
        """Returns the head's targets [B, T, D] for the batch's motion and their mask [B, 1, D].

        The targets of the rig head are channels in standard deviations about their mean. For
        geometry, unobserved channels are at their training mean.
        """
        mask = batch.channel_mask[:, None]
        mean = constants["motion_mean"]
        motion = jnp.where(mask, batch.motion, mean)
        if self.is_geometry:
            values = solver.head_values(_geometry(constants), motion)
            return values, jnp.ones((values.shape[0], 1, values.shape[-1]), bool)
        std = constants["motion_std"]
        moves = std > 0
        return jnp.where(moves, (motion - mean) / jnp.where(moves, std, 1.0), 0.0), mask & moves

    def motion(self, constants: Params, values: Array, *, train: bool) -> Array:
        """Returns the motion [B, T, 72] of the head's values, within the ranges unless training.

        In training it is linear in the values, so that channels of the geometry are not clipped.
        """
        if self.is_geometry:
            geometry = _geometry(constants)
            if train:
                return solver.rig_channels(geometry, values)
            return solver.solve(geometry, values)[0]
        out = constants["motion_mean"] + constants["motion_std"] * values
        return out if train else jnp.clip(out, rig.MIN, rig.MAX)

    def lips(self, constants: Params, values: Array) -> Array | None:
        """Returns the lip distance [B, T] in the units of the shapes file; None if unknown."""
        weight = constants.get(f"{GEOMETRY}lips")
        return None if weight is None else values @ weight + constants[f"{GEOMETRY}lips_rest"]


def network_inputs(batch: Batch, **arrays: Array) -> dict[str, Array]:
    """Returns the inputs of a network on features: those of the batch plus `arrays`."""
    return {"audio": batch.audio, "length": batch.length, "emotion": batch.emotion, **arrays}
