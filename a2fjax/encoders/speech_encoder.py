"""Speech encoders by name: "wav2vec2:PATH", "hubert:PATH", "whisper:PATH", behind one interface.

    encoder, params = encoders.load("whisper:weights/tiny.npz", EncoderConfig())
    states = encoder.apply(params, audio, lengths)          # [B, T, S, D], on the motion's frames

A clip is encoded once, as a whole, and windows are cut from what comes out: features of a crop
differ from those of its clip (Whisper tells positions, base wav2vec 2.0 normalises over time), so
what a model learns from must be what it hears at inference, whether encoded live or read from a
cache. What lies beyond a clip's end changes nothing before it.
"""

from __future__ import annotations

import dataclasses
import hashlib
import json
import os
import zlib
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array

from a2fjax import files, registry
from a2fjax.audio import HOP
from a2fjax.config import EncoderConfig
from a2fjax.encoders import wav2vec2
from a2fjax.encoders.whisper import network as whisper
from a2fjax.errors import InputError, WorkFailed, nearest

Params = dict[str, Any]
"""Nested dicts of arrays."""

OVERLAP = 200
"""Frames that neighbouring windows share where a clip is longer than an encoder's window."""

_FADE = 10  # Frames of the cross-fade in the middle of an overlap.
_DTYPES = {"float32": jnp.float32, "bfloat16": jnp.bfloat16}


def is_encoder(name: str) -> bool:
    """Returns whether a feature's name is that of an encoder rather than of a signal."""
    return ":" in name


def parse(name: str) -> tuple[str, str]:
    """Returns (kind, path) of a name such as "whisper:weights/tiny.npz".

    Raises:
      InputError: another form, or an unknown kind.
    """
    kind, colon, path = name.partition(":")
    if kind not in registry.encoders:
        raise InputError(
            f"feature {name!r}: unknown encoder {kind!r}{nearest(kind, registry.encoders.names())}"
        )
    if not colon or not path:
        raise InputError(f"feature {name!r}: expected {kind}:PATH")
    return kind, path


def feature_keys(features: tuple[str, ...]) -> dict[str, str]:
    """Returns key -> name of the encoders among features; a key is place and kind, "1_whisper"."""
    return {f"{i}_{parse(n)[0]}": n for i, n in enumerate(features) if is_encoder(n)}


@dataclasses.dataclass(frozen=True)
class Encoder:
    """An encoder as models hear it: pure functions of parameters and audio, hashable.

    Attributes:
      kind: name in `registry.encoders`.
      network: what runs.
      layers: transformer layers that run.
      all_states: gives all `layers + 1` states, for a learned mix, instead of the last one.
      precision: of activations; what comes out is float32.
      remat: whether a layer's inside is computed again for gradients.
    """

    kind: str
    network: wav2vec2.Wav2Vec2Encoder | whisper.WhisperEncoder
    layers: int
    all_states: bool = False
    precision: str = "float32"
    remat: bool = False

    @property
    def width(self) -> int:
        """Numbers a frame of one state, D."""
        return self.network.width

    @property
    def states(self) -> int:
        """States a frame, S."""
        return self.layers + 1 if self.all_states else 1

    @property
    def most_frames(self) -> int | None:
        """Frames that the encoder hears at once, where it has such a limit."""
        if isinstance(self.network, whisper.WhisperEncoder):
            return self.network.positions
        return None

    def init(self, key: Array) -> Params:
        """Returns random parameters of the layers that run."""
        params = self.network.init(key)
        return _shortened(self, params)

    def apply(
        self,
        params: Params,
        audio: Array,
        lengths: Array | None = None,
        *,
        key: Array | None = None,
    ) -> Array:
        """Returns the states of every motion frame.

        Clips longer than `most_frames` are heard in windows that overlap by `OVERLAP` frames, the
        last one moved back to end with the clip, and are cross-faded in the middle of what they
        share. Where windows lie depends on a clip's own length: padding changes nothing.

        Args:
          params: of `init` or `load`.
          audio: [B, S] float, 16 kHz, S a multiple of 320; nothing is heard beyond a
            clip's end.
          lengths: [B] int, frames of each clip, at least 1; all when None. What normalises over
            time counts whole frames, up to 319 samples of silence at the end included.
          key: of dropout and masking inside a network that is being trained, as its layout says;
            None for neither. Whisper has neither.

        Returns:
          [B, S / 320, states, width] float32; frame t is centred on sample 320 t. Frames beyond a
          clip's end hold anything finite.

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
        most = self.most_frames
        if most is None or frames <= most:
            return self._run(params, audio, lengths, key)

        # The place of every window is each clip's own, up to where the longest could need one.
        last = jnp.maximum(lengths - most, 0)
        places = [jnp.minimum(i, last) for i in range(0, frames - OVERLAP, most - OVERLAP)]
        cut = jax.vmap(lambda a, i: jax.lax.dynamic_slice_in_dim(a, HOP * i, HOP * most))
        out, before = jnp.zeros(()), places[0]
        for number, start in enumerate(places):
            heard = jnp.minimum(lengths - start, most)
            found = self._run(params, cut(audio, start), heard, key)
            place = jnp.arange(frames) - start[:, None]
            found = jnp.take_along_axis(
                found, jnp.clip(place, 0, most - 1)[..., None, None], axis=1
            )
            if number == 0:
                out = found
                continue
            # A clip that ended in the window before gets that one again, which changes nothing.
            shared = (before + most - start)[:, None]
            share = jnp.clip((place + 0.5 - (shared - _FADE) / 2) / _FADE, 0.0, 1.0)
            share = jnp.where((start > before)[:, None], share, 0.0)[..., None, None]
            out, before = (1 - share) * out + share * found, start
        return out

    def _run(self, params: Params, audio: Array, lengths: Array, key: Array | None) -> Array:
        if isinstance(self.network, whisper.WhisperEncoder):
            states = self.network.apply(
                params,
                audio,
                length=HOP * lengths,
                layers=self.layers,
                all_layers=self.all_states,
                dtype=_DTYPES[self.precision],
                remat=self.remat,
            )
        else:
            encoded = self.network.motion(
                params,
                audio,
                lengths=HOP * lengths,
                layers=self.layers,
                all_layers=self.all_states,
                key=key,
                train=key is not None,
            )
            states = encoded.features if encoded.hidden is None else encoded.hidden
        if not self.all_states:
            return states[:, :, None]
        return jnp.moveaxis(states, 0, 2)

    def frozen(self, train_from: int | None, prefix: str = "") -> tuple[str, ...]:
        """Returns patterns of the parameters that are not trained, for `params.split`.

        Args:
          train_from: first layer that is trained, counted from 0; -1 also trains what feeds the
            layers (not the convolutions on the waveform or spectrogram, nor Whisper's fixed
            positions, so that with Whisper it is the same as 0); None trains nothing.
          prefix: path of the parameters in the whole tree, with its "/".

        Raises:
          InputError: no such layer among those that run.
        """
        network = self.network
        is_whisper = isinstance(network, whisper.WhisperEncoder)
        choices = range(0) if is_whisper and not self.layers else range(-1, self.layers)
        if train_from is not None and train_from not in choices:
            among = ""
            if choices:
                among = f"{choices[0]} to {choices[-1]} (-1 also trains what comes before), or "
            raise InputError(
                f"audio.encoder.train_from={train_from}: {self.kind} runs {self.layers} layers; "
                f"expected {among}None, which trains nothing of it"
            )
        if isinstance(network, wav2vec2.Wav2Vec2Encoder):
            patterns = wav2vec2.frozen_patterns(network.layout, train_from, prefix)
            unheard = self.layers < network.layout.num_hidden_layers
            if unheard and network.layout.do_stable_layer_norm:
                # The final norm comes after the last layer of all.
                patterns += (f"^{prefix}encoder/layer_norm/",)
            return patterns
        if train_from is None:
            return (f"^{prefix}",)
        patterns = tuple(f"^{prefix}{name}" for name in ("conv1/", "conv2/", "positions$"))
        return patterns + tuple(f"^{prefix}layers_{i}/" for i in range(max(train_from, 0)))

    def describe(self) -> dict[str, Any]:
        """Returns JSON values from which `from_description` makes the encoder again."""
        network = self.network
        if isinstance(network, wav2vec2.Wav2Vec2Encoder):
            own: dict[str, Any] = dataclasses.asdict(network.layout)
        else:
            own = dataclasses.asdict(network)
        return {"kind": self.kind, "layers": self.layers, "network": own}

    def fingerprint(self, params: Params) -> str:
        """Returns 16 hex digits of all that states depend on, wherever the weights lie."""
        values = {**self.describe(), "precision": self.precision}
        digest = hashlib.sha256(json.dumps(values, sort_keys=True).encode())
        for path, value in _leaves(params):
            digest.update(path.encode())
            digest.update(np.ascontiguousarray(value, np.float32).tobytes())
        return digest.hexdigest()[:16]


def load(name: str, config: EncoderConfig) -> tuple[Encoder, Params]:
    """Reads an encoder.

    Args:
      name: such as "wav2vec2:facebook/wav2vec2-base" (a folder, or a model in the hub's cache) or
        "whisper:tiny.npz"; see `wav2vec2.load` and `whisper.load`.
      config: how many layers, which states, precision.

    Returns:
      (encoder, parameters as nested dicts of float32 NumPy arrays).

    Raises:
      InputError: no such encoder, weights that do not fit, another kind than the name says, or
        more layers than it has.
    """
    kind, path = parse(name)
    path = os.path.expanduser(path)
    layers = None if config.layers == -1 else config.layers
    if layers is not None and layers < 0:
        raise InputError(f"audio.encoder.layers={layers}: expected -1 (all) or at least 0")
    _check_kind(name, path)
    if kind == "whisper":
        network, params = whisper.load(_whisper_path(path))
        _check_layers(layers, network.layers, name)
        encoder = _whisper(network, network.layers if layers is None else layers, config)
        return encoder, _shortened(encoder, params)
    layout = wav2vec2.read_config(path)
    _check_layers(layers, layout.num_hidden_layers, name)
    if layout.hop != HOP:
        raise InputError(
            f"feature {name!r}: a frame every {layout.hop} samples, expected {HOP} (conv_stride "
            f"{layout.conv_stride})"
        )
    _, params, _ = wav2vec2.load(path, layers=layers)
    return _wav2vec2(layout, layers, config), params


def _check_layers(layers: int | None, most: int, name: str) -> None:
    """Raises `InputError` when more layers are asked for than there are."""
    if layers is not None and layers > most:
        raise InputError(
            f"audio.encoder.layers={layers}: {name} has {most} layers; expected 0 to {most}, or "
            "-1 for all"
        )


def _check_kind(name: str, path: str) -> None:
    """Raises `InputError` when a configuration beside the weights says that they are others."""
    kind = parse(name)[0]
    file = wav2vec2.find_file(path, "config.json") if not Path(path).is_file() else None
    try:
        found = None if file is None else json.loads(file.read_text(encoding="utf-8"))
        found = found.get("model_type") if isinstance(found, dict) else None
    except (OSError, ValueError):
        return  # Said by what reads it for good.
    if Path(path).is_file() and kind != "whisper":
        raise InputError(
            f"feature {name!r}: {path} is a file; expected a folder with config.json and "
            "model.safetensors (files are read as whisper:PATH)"
        )
    if found in registry.encoders and found != kind:
        raise InputError(
            f"feature {name!r}: {path} holds a {found} model; write {found}:{parse(name)[1]}"
        )


def from_description(description: dict[str, Any], config: EncoderConfig) -> Encoder:
    """Returns the encoder of `Encoder.describe`, with states and precision of `config`.

    Raises:
      InputError: not a description.
    """
    try:
        kind, layers, own = (description[key] for key in ("kind", "layers", "network"))
        if kind == "whisper":
            return _whisper(whisper.WhisperEncoder(**own), layers, config)
        own = {key: tuple(v) if isinstance(v, list) else v for key, v in own.items()}
        return _wav2vec2(wav2vec2.Wav2Vec2Config(**own), layers, config)
    except (KeyError, TypeError) as error:
        raise InputError(f"not the description of an encoder ({error})") from None


def save(path: str | Path, encoder: Encoder, params: Params) -> None:
    """Writes an encoder to one file that `restore` reads, whole or not at all.

    Raises:
      InputError, WorkFailed: it cannot be written.
    """
    from safetensors import SafetensorError
    from safetensors.numpy import save_file

    tensors = {p: np.ascontiguousarray(v, np.float32) for p, v in _leaves(params)}
    metadata = {"encoder": json.dumps(encoder.describe()), "crc32": _crc(tensors)}
    with files.atomic_write(path) as temporary:
        try:
            save_file(tensors, temporary, metadata=metadata)
        except SafetensorError as error:
            raise WorkFailed(f"{path}: could not be written ({error})") from None


def restore(
    path: str | Path, config: EncoderConfig, kind: str | None = None
) -> tuple[Encoder, Params]:
    """Reads what `save` wrote.

    Args:
      path: of the file.
      config: which states, precision.
      kind: that it must be of; None for any.

    Raises:
      InputError: no such file, not what `save` wrote, or of another kind.
    """
    from safetensors import SafetensorError, safe_open

    if not Path(path).is_file():
        raise InputError(f"{path}: no such file; a run with an encoder keeps its weights there")
    try:
        with safe_open(path, framework="numpy") as file:
            metadata = file.metadata()
            encoder = from_description(json.loads(metadata["encoder"]), config)
            found = {name: file.get_tensor(name) for name in sorted(file.keys())}
    except (SafetensorError, OSError, KeyError, TypeError, ValueError) as error:
        if isinstance(error, InputError):
            raise InputError(f"{path}: {error}") from None
        raise InputError(f"{path}: not a saved encoder, or damaged ({error})") from None
    shapes = jax.eval_shape(encoder.init, jax.random.key(0))
    expected = {name: leaf.shape for name, leaf in _leaves(shapes)}
    if {name: value.shape for name, value in found.items()} != expected:
        raise InputError(f"{path}: damaged (its weights are not those that it describes)")
    if metadata.get("crc32") != _crc(found):
        raise InputError(f"{path}: damaged (the checksum of its weights does not match)")
    if kind is not None and encoder.kind != kind:
        raise InputError(f"{path}: holds a {encoder.kind} encoder, expected {kind}")
    params: Params = {}
    for name, value in found.items():
        *parents, last = name.split("/")
        branch = params
        for parent in parents:
            branch = branch.setdefault(parent, {})
        branch[last] = value
    return encoder, params


def _crc(tensors: dict[str, np.ndarray]) -> str:
    """Returns the checksum of tensors in the order of their names."""
    value = 0
    for name in sorted(tensors):
        value = zlib.crc32(np.ascontiguousarray(tensors[name]).view(np.uint8).data, value)
    return f"{value:08x}"


def _whisper(network: whisper.WhisperEncoder, layers: int, config: EncoderConfig) -> Encoder:
    return Encoder("whisper", network, layers, config.mix, config.precision, config.remat)


def _wav2vec2(
    layout: wav2vec2.Wav2Vec2Config, layers: int | None, config: EncoderConfig
) -> Encoder:
    network = wav2vec2.Wav2Vec2Encoder(
        layout, layers=layers, precision=config.precision, remat=config.remat
    )
    count = layout.num_hidden_layers if layers is None else layers
    return Encoder(layout.model_type, network, count, config.mix, config.precision, config.remat)


def _whisper_path(path: str) -> str | Path:
    """Returns where Whisper's weights are: a path, or the folder of a model in the hub's cache.

    Raises:
      InputError: neither.
    """
    if Path(path).exists():
        return path
    for name in ("model.safetensors", "model.safetensors.index.json"):
        found = wav2vec2.find_file(path, name)
        if found is not None:
            return found.parent
    raise InputError(
        f"{path}: no such file or folder, and no model in the hub's cache; fetch it where there is "
        f"a network with `hf download {path}`"
    )


def _shortened(encoder: Encoder, params: Params) -> Params:
    """Leaves out what does not run of Whisper's parameters."""
    network = encoder.network
    if not isinstance(network, whisper.WhisperEncoder) or encoder.layers == network.layers:
        return params
    beyond = {f"layers_{i}" for i in range(encoder.layers, network.layers)} | {"final_norm"}
    return {name: value for name, value in params.items() if name not in beyond}


def _leaves(params: Params, prefix: str = "") -> list[tuple[str, Any]]:
    """Returns (path, leaf) of nested dicts, sorted by path."""
    out: list[tuple[str, Any]] = []
    for key, value in params.items():
        if isinstance(value, dict):
            out += _leaves(value, f"{prefix}{key}/")
        else:
            out.append((f"{prefix}{key}", value))
    return sorted(out, key=lambda item: item[0])


def compiled_apply(encoder: Encoder) -> Any:
    """Returns `encoder.apply` compiled: (params, audio, lengths) -> states."""
    return jax.jit(lambda params, audio, lengths: encoder.apply(params, audio, lengths))
