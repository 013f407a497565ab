"""The interface of speech encoders: audio in, hidden states on the motion's frames out.

A clip is encoded once, as a whole, and windows are cut from the hidden states. Features of a crop
differ from those of its clip (Whisper encodes positions, base wav2vec 2.0 normalises over time), so
a model must be trained on what it gets at inference, whether encoded live or read from a cache.
Nothing beyond a clip's end changes its frames.
"""

from __future__ import annotations

import abc
import hashlib
import json
from typing import Any, Self

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array

from a2fjax.audio import HOP
from a2fjax.configuration import EncoderConfig
from a2fjax.encoders.param_paths import Params, leaves
from a2fjax.errors import InputError

OVERLAP = 200
"""Frames that neighbouring windows share where a clip is longer than `max_frames`."""

_FADE = 10  # Frames of the cross-fade in the middle of an overlap.


class SpeechEncoder(abc.ABC):
    """A pretrained network, as a pure function of its parameters and audio.

    An encoder holds the architecture and options, never weights; it is immutable. A subclass
    implements the abstract members and is registered by its kind, here "bands":

        from a2fjax import registry

        registry.encoders.register("bands", "my_package.bands:BandEncoder")

    Then "bands:PATH" in `audio.features` works in training (live and cached), evaluation and
    inference. docs/extending.md shows a whole package.

    Symbols: B clips, S samples, T frames (50 a second, S = 320 T), N hidden states, D width.
    """

    # ---- what a subclass implements ----

    @property
    @abc.abstractmethod
    def kind(self) -> str:
        """The name under which the class is registered."""

    @property
    @abc.abstractmethod
    def width(self) -> int:
        """Values of one hidden state in one frame, D."""

    @classmethod
    @abc.abstractmethod
    def load(cls, path: str, config: EncoderConfig) -> tuple[Self, Params]:
        """Reads an encoder.

        Args:
          path: what follows the colon in the feature's name, "~" expanded.
          config: `layers`, `mix`, `precision` and `remat`, as far as the encoder has them.

        Returns:
          (encoder, parameters as nested dicts of float32 NumPy arrays).

        Raises:
          InputError: no such weights, or weights that do not fit.
        """

    @classmethod
    @abc.abstractmethod
    def from_description(cls, description: dict[str, Any], config: EncoderConfig) -> Self:
        """Returns the encoder that `describe` describes, with the options of `config`.

        Raises:
          KeyError, TypeError, ValueError: not a description of this class.
        """

    @abc.abstractmethod
    def describe(self) -> dict[str, Any]:
        """Returns the architecture as JSON values; "kind" must be among them."""

    @abc.abstractmethod
    def init(self, key: Array) -> Params:
        """Returns random parameters in the structure that `load` gives."""

    @abc.abstractmethod
    def encode(
        self, params: Params, audio: Array, lengths: Array, *, key: Array | None = None
    ) -> Array:
        """Returns the hidden states of clips of at most `max_frames` frames; called by `apply`.

        Args:
          params: of `init` or `load`.
          audio: [B, 320 T] float32, 16 kHz, full scale 1, zero beyond a clip's end.
          lengths: [B] int, frames of each clip, 1 to T. Frames of a clip must not depend on T.
          key: of dropout and masking inside a network that is being trained; None for neither.

        Returns:
          [B, T, N, D] float32, frame t centred on sample 320 t. Frames beyond a clip's end hold
          anything finite.
        """

    # ---- what a subclass may override ----

    @property
    def num_states(self) -> int:
        """Hidden states a frame, N; more than one with `audio.encoder.mix`."""
        return 1

    @property
    def num_layers(self) -> int:
        """Layers that run and that `audio.encoder.train_from` counts."""
        return 0

    @property
    def max_frames(self) -> int | None:
        """Longest clip that `encode` takes, in frames; None without a limit."""
        return None

    def frozen_patterns(self, train_from: int | None, prefix: str = "") -> tuple[str, ...]:
        """Returns regular expressions of the paths of parameters that are not trained.

        By default -1 trains everything.

        Args:
          train_from: first layer that is trained, counted from 0; -1 also trains what feeds the
            layers; None trains nothing.
          prefix: path of the encoder's parameters in the whole tree, with its "/".

        Raises:
          InputError: no such layer among those that run.
        """
        self.check_train_from(train_from, range(-1, 0))
        return (f"^{prefix}",) if train_from is None else ()

    # ---- what all share ----

    def check_train_from(self, train_from: int | None, choices: range) -> None:
        """Checks `audio.encoder.train_from`.

        Raises:
          InputError: neither None nor one of the choices.
        """
        if train_from is None or train_from in choices:
            return
        among = ""
        if choices:
            among = f"{choices[0]} to {choices[-1]} (-1 also trains what comes before), or "
        raise InputError(
            f"audio.encoder.train_from={train_from}: {self.kind} runs {self.num_layers} layers; "
            f"expected {among}None, which trains nothing of it"
        )

    def apply(
        self,
        params: Params,
        audio: Array,
        lengths: Array | None = None,
        *,
        key: Array | None = None,
    ) -> Array:
        """Returns the hidden states of every motion frame.

        Clips longer than `max_frames` are encoded in windows that overlap by `OVERLAP` frames; the
        last window ends with the clip. Neighbours are cross-faded in the middle of their overlap.
        Windows follow from a clip's own length, so padding changes nothing.

        Args:
          params: of `init` or `load`.
          audio: [B, S] float, 16 kHz, full scale 1, S a multiple of 320. Samples beyond a clip's
            end are ignored.
          lengths: [B] int, frames of each clip, at least 1; all when None. Normalisation over time
            counts whole frames, up to 319 samples of silence at the end included.
          key: see `encode`.

        Returns:
          [B, S / 320, N, D] float32; frame t is centred on sample 320 t. Frames beyond a clip's
          end hold anything finite.

        Raises:
          ValueError: S is no multiple of 320, or 0.
        """
        frames, odd = divmod(audio.shape[1], HOP)
        if odd or not frames:
            raise ValueError(f"audio has {audio.shape[1]} samples, expected a multiple of {HOP}")
        if lengths is None:
            lengths = jnp.full(audio.shape[0], frames, jnp.int32)
        lengths = jnp.asarray(lengths)
        exists = jnp.arange(audio.shape[1]) < HOP * lengths[:, None]
        audio = jnp.where(exists, audio, 0.0)
        if self.max_frames is None or frames <= self.max_frames:
            return self.encode(params, audio, lengths, key=key)
        return self._encode_in_windows(params, audio, lengths, self.max_frames, key)

    def _encode_in_windows(
        self, params: Params, audio: Array, lengths: Array, window: int, key: Array | None
    ) -> Array:
        """Returns the hidden states of clips longer than `window` frames; see `apply`."""
        frames = audio.shape[1] // HOP
        # Each clip has windows of its own, up to where the longest could need one.
        last_start = jnp.maximum(lengths - window, 0)
        starts = [jnp.minimum(i, last_start) for i in range(0, frames - OVERLAP, window - OVERLAP)]
        cut = jax.vmap(lambda a, i: jax.lax.dynamic_slice_in_dim(a, HOP * i, HOP * window))
        out, previous = jnp.zeros(()), starts[0]
        for number, start in enumerate(starts):
            inside = jnp.minimum(lengths - start, window)
            states = self.encode(params, cut(audio, start), inside, key=key)
            offset = jnp.arange(frames) - start[:, None]
            states = jnp.take_along_axis(
                states, jnp.clip(offset, 0, window - 1)[..., None, None], axis=1
            )
            if number == 0:
                out = states
                continue
            # A clip that ended in the previous window gets that one again, which changes nothing.
            shared = (previous + window - start)[:, None]
            weight = jnp.clip((offset + 0.5 - (shared - _FADE) / 2) / _FADE, 0.0, 1.0)
            weight = jnp.where((start > previous)[:, None], weight, 0.0)[..., None, None]
            out, previous = (1 - weight) * out + weight * states, start
        return out

    def fingerprint(self, params: Params) -> str:
        """Returns 16 hex digits of all that hidden states depend on, wherever the weights lie."""
        digest = hashlib.sha256(json.dumps(self.identity(), sort_keys=True).encode())
        for path, value in leaves(params):
            digest.update(path.encode())
            digest.update(np.ascontiguousarray(value, np.float32).tobytes())
        return digest.hexdigest()[:16]

    def identity(self) -> dict[str, Any]:
        """Returns what beside the weights decides hidden states; JSON values.

        `describe` by default; a subclass adds options that change the numbers, such as precision.
        """
        return self.describe()


def resolve_layers(layers: int, available: int, name: str) -> int | None:
    """Checks `audio.encoder.layers` against an encoder's layers.

    Args:
      layers: -1 for all, or how many of the first layers to run.
      available: layers that the weights hold.
      name: of the encoder, for the message.

    Returns:
      The number of layers, None for all.

    Raises:
      InputError: below -1, or more than there are.
    """
    if layers == -1:
        return None
    if layers < 0:
        raise InputError(f"audio.encoder.layers={layers}: expected -1 (all) or at least 0")
    if layers > available:
        raise InputError(
            f"audio.encoder.layers={layers}: {name} has {available} layers; expected 0 to "
            f"{available}, or -1 for all"
        )
    return layers


def compiled_apply(encoder: SpeechEncoder) -> Any:
    """Returns `encoder.apply` compiled: (params, audio, lengths) -> hidden states."""
    return jax.jit(lambda params, audio, lengths: encoder.apply(params, audio, lengths))
