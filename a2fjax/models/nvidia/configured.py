"""Both networks as configuration names them: hearing in front, a head behind, `base.Model` around.

What a network hears is one speech encoder. conv_w2v_autocorr mixes what comes out of each of its
layers (`audio.encoder.layers`, with `audio.encoder.mix`; NVIDIA: 1 or 4 of wav2vec 2.0 base);
diffusion_rnn hears the last state (NVIDIA: all 12 of HuBERT base).

The head gives the rig's channels or geometry (`geometry`). Weights of encoders are under
"encoders", statistics and the geometry's maps under "constants", learned emotions under "implicit".
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array

from a2fjax import rig
from a2fjax.batch import Batch
from a2fjax.config import Config, ConvW2vAutocorrConfig, NvidiaConfig
from a2fjax.diffusion import samplers, schedule
from a2fjax.encoders.wav2vec2.speech_encoder import Wav2Vec2SpeechEncoder
from a2fjax.errors import InputError
from a2fjax.models.audio_features import PREFIX
from a2fjax.models.audio_model import AudioModel
from a2fjax.models.nvidia.conv_w2v_autocorr import network as regression
from a2fjax.models.nvidia.diffusion_rnn import network as diffusion
from a2fjax.models.nvidia.frame_layout import RIG, FrameLayout
from a2fjax.models.nvidia.geometry import maps, shapes
from a2fjax.models.nvidia.presets import ConvW2vAutocorr, DiffusionRnn, Inputs
from a2fjax.models.params import FROZEN, Params
from a2fjax.models.pretrained import Encoders

GEOMETRY = "geometry_"
"""Beginning of the names of the geometry's constants."""

_LIMIT = 10.0


def check(config: Config) -> None:
    """Checks what one network or head has and the other has not.

    Raises:
      InputError: names the key, its value and what was expected.
    """
    kind = config.model.kind
    assert isinstance(config.model, NvidiaConfig)
    features = config.audio.features
    if len(features) != 1 or ":" not in features[0]:
        example = "hubert" if kind == "diffusion_rnn" else "wav2vec2"
        raise InputError(
            f"audio.features={features!r}: model.kind={kind!r} hears exactly one speech encoder "
            f"and nothing else; expected for example ('{example}:PATH',)"
        )
    if kind == "diffusion_rnn" and config.audio.encoder.mix:
        raise InputError(
            "audio.encoder.mix=True: diffusion_rnn hears the last state alone; expected False"
        )
    config.model.validate()


def geometry_constants(config: Config, moments: maps.Moments) -> dict[str, np.ndarray]:
    """Returns the constants of the geometry head, {} for the rig's; reads the files of shapes.

    Raises:
      InputError: no file given, or one that cannot be read or has no lips where they are needed.
    """
    own = config.model
    assert isinstance(own, NvidiaConfig)
    if own.head != "geometry":
        return {}
    if not own.rig:
        raise InputError(
            "model.head='geometry' needs the shapes of a head: expected "
            "model.rig=PATH of an .npz file with neutral, names and deltas"
        )
    head = shapes.read(own.rig, own.tongue_rig)
    if own.lip_dist and head.lips is None:
        raise InputError(
            f"model.lip_dist={own.lip_dist}: {own.rig} has neither lip_upper nor lip_lower; "
            "expected both, or lip_dist=0"
        )
    if config.model.kind == "diffusion_rnn":
        found = maps.vertex_constants(head, moments, own.solve_error)
    else:
        assert isinstance(own, ConvW2vAutocorrConfig)
        found = maps.pca_constants(head, moments, own.skin, own.tongue, own.solve_error)
    return {f"{GEOMETRY}{name}": value for name, value in found.items()}


def _geometry(constants: Mapping[str, Any]) -> dict[str, Any]:
    return {k[len(GEOMETRY) :]: v for k, v in constants.items() if k.startswith(GEOMETRY)}


class _Base(AudioModel):
    """What both models share."""

    def __init__(
        self,
        config: Config,
        constants: Mapping[str, np.ndarray] | None,
        encoders: Encoders | None,
    ) -> None:
        check(config)
        assert isinstance(config.model, NvidiaConfig)
        self.config: Any = config.model
        actors = max(self.config.actors, 1)
        neutral: dict[str, np.ndarray] = {}
        if constants is None:
            neutral = {
                "motion_mean": np.zeros(rig.NUM_CHANNELS, np.float32),
                "motion_std": 0.1 * rig.SCALE,
                "actor_mean": np.zeros((actors, rig.NUM_CHANNELS), np.float32),
                "clip_offset": np.array([0, 1], np.int32),
                **geometry_constants(config, maps.Moments.unknown(actors)),
            }
        super().__init__(config, neutral, constants, encoders)
        ((self.key, self.encoder),) = self.audio_features.encoders.items()
        used = ("motion_", self.key, GEOMETRY, "actor_mean", "clip_offset", "subjects")
        self.constants = {k: v for k, v in self.constants.items() if k.startswith(used)}
        self.is_geometry = self.config.head == "geometry"
        self.layout: FrameLayout = (
            maps.frame_layout(_geometry(self.constants)) if self.is_geometry else RIG
        )

    @property
    def notes(self) -> tuple[str, ...]:
        """What to know of the head, a line each."""
        if not self.is_geometry:
            return ()
        parts = {name: s.stop - s.start for name, s in self.layout.parts.items()}
        lines = ["geometry: " + ", ".join(f"{name} {width}" for name, width in parts.items())]
        left: dict[str, list[str]] = {}
        for name, why in maps.undetermined(_geometry(self.constants)).items():
            left.setdefault(why, []).append(name)
        for why, names in left.items():
            lines.append(f"channels it does not tell ({why}): {', '.join(names)}")
        return tuple(lines)

    def states(self, params: Params, batch: Batch, key: Array | None) -> Array:
        """Returns what the network hears of the encoder [B, T, S, D]."""
        found = self.audio_features.hidden_states(params, batch, key=key)[self.key]
        if self.config.standardise:
            constants = params["constants"]
            found = (found - constants[f"{self.key}_mean"]) / constants[f"{self.key}_std"]
            found = jnp.clip(found, -_LIMIT, _LIMIT)
        return found

    def target(self, constants: Params, batch: Batch) -> tuple[Array, Array]:
        """Returns the head's numbers of the batch's motion [B, T, D], and which count [B, 1, D].

        Of the rig's head, channels in deviations about their mean. Of the geometry, where a channel
        was not observed it is taken at its training mean.
        """
        mask = batch.channel_mask[:, None]
        mean = constants["motion_mean"]
        motion = jnp.where(mask, batch.motion, mean)
        if self.is_geometry:
            values = maps.head_values(_geometry(constants), motion)
            return values, jnp.ones((values.shape[0], 1, values.shape[-1]), bool)
        std = constants["motion_std"]
        moves = std > 0
        return jnp.where(moves, (motion - mean) / jnp.where(moves, std, 1.0), 0.0), mask & moves

    def motion(self, constants: Params, values: Array, *, train: bool) -> Array:
        """Returns the motion [B, T, 72] of the head's numbers; inside the ranges unless training.

        While training it is linear in them: the geometry's channels then are not bounded.
        """
        if self.is_geometry:
            own = _geometry(constants)
            return maps.rig_channels(own, values) if train else maps.solve(own, values)[0]
        out = constants["motion_mean"] + constants["motion_std"] * values
        return out if train else jnp.clip(out, rig.MIN, rig.MAX)

    def lips(self, constants: Params, values: Array) -> Array | None:
        """Returns the distance of the lips [B, T] in the shapes' unit; None where not known."""
        weight = constants.get(f"{GEOMETRY}lips")
        return None if weight is None else values @ weight + constants[f"{GEOMETRY}lips_rest"]


def _weights(params: Params) -> Params:
    return {k: v for k, v in params.items() if k not in ("constants", "encoders", "implicit")}


def _preset_inputs(batch: Batch, **more: Array) -> dict[str, Array]:
    return {"audio": batch.audio, "length": batch.length, "emotion": batch.emotion, **more}


class ConvW2vAutocorrModel(_Base):
    """`conv_w2v_autocorr` ("v2.3") as a `a2fjax.models.base.Model`; see `_Base` for its head.

    Attributes:
      preset: the network on features.
    """

    def __init__(
        self,
        config: Config,
        constants: Mapping[str, np.ndarray] | None = None,
        encoders: Encoders | None = None,
    ) -> None:
        """Makes the model.

        Args:
          config: whole experiment.
          constants: of the training data, as `a2fjax.tasks.constants` or a checkpoint has them;
            None for ones that say nothing.
          encoders: by key; None reads the one that `config.audio` names.

        Raises:
          InputError: values that do not fit together, or a file that cannot be read.
        """
        super().__init__(config, constants, encoders)
        layers = self.encoder.num_states
        if config.audio.encoder.mix:
            # Theirs mixes what comes out of layers; the first state is what goes into them.
            layers -= 1
        if layers < 1:
            raise InputError(
                f"audio.encoder.layers={config.audio.encoder.layers}: conv_w2v_autocorr mixes what "
                "comes out of layers; expected at least 1"
            )
        own = self.config
        size = regression.Size(
            self.layout,
            encoder_layers=layers,
            encoder_width=self.encoder.width,
            width=own.width,
            lag_widths=own.lag_widths,
        )
        self.preset = ConvW2vAutocorr(size, {}, config.precision)

    def init(self, key: Array, batch: Batch) -> Params:
        """Returns parameters, with the constants, without the encoder's."""
        items, frames = batch.emotion.shape[:2]
        size = self.preset.size
        features = jnp.zeros((items, frames, size.encoder_layers, size.encoder_width))
        params = self.preset.init(key, _preset_inputs(batch, features=features))
        params["constants"] = self.device_constants()
        if self.config.implicit_emotion:
            rows = int(np.asarray(self.constants["clip_offset"])[-1])
            drawn = regression.implicit_emotions(jax.random.fold_in(key, 1), rows, size.implicit)
            params["implicit"] = {"table": drawn}
        return params

    def apply(
        self, params: Params, batch: Batch, *, key: Array | None = None, train: bool = False
    ) -> dict[str, Array]:
        """Returns "motion" [B, T, 72], "frames" [B, T, D] of the head, "implicit" where learned.

        The head's numbers are normalised, those of the rig in deviations about the mean.

        Raises:
          ValueError: training without a key.
        """
        if train and key is None:
            raise ValueError("apply(train=True) needs a key")
        key = key if train else None
        heard = self.states(params, batch, None if key is None else jax.random.fold_in(key, 2))
        inputs = _preset_inputs(batch, features=heard[:, :, -self.preset.size.encoder_layers :])
        if self.config.implicit_emotion:
            inputs["implicit_emotion"] = self._implicit(params, batch, train)
        constants = params["constants"]
        out = self.preset.run(_weights(params), inputs, key=key, train=train)["frames"]
        found = {"motion": self.motion(constants, out, train=train), "frames": out}
        if self.config.implicit_emotion:
            found["implicit"] = inputs["implicit_emotion"]
        return found

    def _implicit(self, params: Params, batch: Batch, train: bool) -> Array:
        """Returns the learned emotion of each training frame, else the mean of all [B, T, E]."""
        table = params["implicit"]["table"]
        items, frames = batch.emotion.shape[:2]
        if not train:
            return jnp.broadcast_to(table.mean(axis=0), (items, frames, table.shape[1]))
        offset = params["constants"]["clip_offset"]
        first, end = offset[batch.clip], offset[batch.clip + 1]
        row = (first + batch.start)[:, None] + jnp.arange(frames)
        return table[jnp.clip(row, first[:, None], end[:, None] - 1)]


class DiffusionRnnModel(_Base):
    """`diffusion_rnn` ("v3.0") as a `a2fjax.models.base.Model`: `apply` samples.

    Attributes:
      preset: the denoising network on features.
      signal: [steps] share of signal power a_t of the cosine schedule.
      visited: steps of a sample.
    """

    def __init__(
        self,
        config: Config,
        constants: Mapping[str, np.ndarray] | None = None,
        encoders: Encoders | None = None,
    ) -> None:
        """Makes the model; as `ConvW2vAutocorrModel`."""
        super().__init__(config, constants, encoders)
        own = self.config
        self.actors = len(np.asarray(self.constants["actor_mean"]))
        size = diffusion.Size(
            self.layout,
            actors=self.actors,
            encoder_width=self.encoder.width,
            steps=own.diffusion_steps,
            width=own.width,
            recurrent_width=own.recurrent_width,
            recurrent_layers=own.recurrent_layers,
            dropout=own.recurrent_dropout,
        )
        self.preset = DiffusionRnn(size, None, config.precision)
        self.signal = schedule.cosine_steps(own.diffusion_steps)
        self.visited = schedule.spaced(own.diffusion_steps, own.sample_steps)
        self._train_from = config.audio.encoder.train_from

    @property
    def frozen(self) -> tuple[str, ...]:
        """See `a2fjax.models.base.Model`."""
        start = self._train_from
        if (
            not self.config.whole_encoder
            or start is None
            or not isinstance(self.encoder, Wav2Vec2SpeechEncoder)
        ):
            return super().frozen
        names = ["feature_extractor/", "feature_projection/"]
        names += [f"encoder/layers/{i}/" for i in range(max(start, 0))]
        return (*FROZEN, *(f"^{PREFIX}{self.key}/{name}" for name in names))

    def init(self, key: Array, batch: Batch) -> Params:
        """Returns parameters, with the constants, without the encoder's."""
        items, frames = batch.emotion.shape[:2]
        features = jnp.zeros((items, frames, self.encoder.width))
        inputs = _preset_inputs(batch, features=features, actor=self.actor(batch))
        params = self.preset.init(key, inputs)
        return {**params, "constants": self.device_constants()}

    def actor(self, batch: Batch) -> Array:
        """Returns the one-hot actor [B, A]; the even mixture where the subject is not known."""
        items = batch.emotion.shape[0]
        mixture = jnp.full((items, self.actors), 1.0 / self.actors)
        if self.actors == 1:
            return mixture
        subject = jnp.asarray(batch.subject)
        known = (subject >= 0) & (subject < self.actors)
        return jnp.where(known[:, None], jax.nn.one_hot(subject, self.actors), mixture)

    def conditions(self, params: Params, batch: Batch, key: Array | None = None) -> Inputs:
        """Returns what the network reads beside the noisy motion."""
        heard = self.states(params, batch, key)[:, :, -1]
        return _preset_inputs(batch, features=heard, actor=self.actor(batch))

    def denoise(
        self,
        params: Params,
        noisy: Array,
        step: Array,
        conditions: Inputs,
        *,
        key: Array | None = None,
    ) -> Array:
        """Returns the clean values [B, T, D] of noisy ones at `step` [B]; `key` is of dropout."""
        constants = params["constants"]
        mean = constants.get(f"{GEOMETRY}mean_geometry")
        if mean is None:
            std = constants["motion_std"]
            moved = constants["actor_mean"] - constants["motion_mean"]
            mean = jnp.where(std > 0, moved / jnp.where(std > 0, std, 1.0), 0.0)
        weights = {**_weights(params), "constants": {"mean_geometry": mean}}
        train = key is not None
        return self.preset.apply(weights, noisy, step, conditions, key=key, train=train)[0]

    def apply(
        self, params: Params, batch: Batch, *, key: Array | None = None, train: bool = False
    ) -> dict[str, Array]:
        """Samples: "motion" [B, T, 72] and "frames" [B, T, D] of the head.

        The noise is a function of `model.sample_seed`, the call and the frame: the same for
        every item, as NVIDIA's service has it, and for any padding. Training goes through
        `denoise`; here `key` and `train` only decide whether the motion is bounded.
        """
        del key
        conditions = self.conditions(params, batch)
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
            return self.denoise(params, x, step, conditions)

        values = samplers.sample(
            self.config.sampler,
            denoise,
            draw(len(self.visited)),
            schedule.levels_of_steps(self.signal, self.visited),
            draw,
        )
        motion = self.motion(params["constants"], values, train=train)
        return {"motion": motion, "frames": values}
