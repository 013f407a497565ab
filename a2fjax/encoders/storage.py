"""Speech encoders from their names, and to and from one file of a run folder."""

from __future__ import annotations

import json
import os
import zlib
from pathlib import Path
from typing import Any

import jax
import numpy as np

from a2fjax import budgets, files, registry
from a2fjax.configuration import EncoderConfig
from a2fjax.encoders import feature_names
from a2fjax.encoders.hub_cache import find_file
from a2fjax.encoders.param_paths import Params, leaves, set_path
from a2fjax.encoders.speech_encoder import SpeechEncoder
from a2fjax.errors import InputError, WorkFailed

_LARGEST = 1_000_000


def load(name: str, config: EncoderConfig | None = None) -> tuple[SpeechEncoder, Params]:
    """Reads a speech encoder by the name that `audio.features` gives it.

    Args:
      name: kind and path, such as "wav2vec2:facebook/wav2vec2-base" (a folder, or a model in the
        hub's cache) or "whisper:tiny.npz".
      config: how many layers, which hidden states, precision; the defaults when None.

    Returns:
      (encoder, parameters as nested dicts of float32 NumPy arrays).

    Raises:
      InputError: no such encoder, weights that do not fit, another kind than the name says, or
        more layers than it has.

    Example:
        >>> load("whispr:tiny.npz")
        Traceback (most recent call last):
          ...
        a2fjax.errors.InputError: feature 'whispr:tiny.npz': unknown encoder 'whispr'; did you \
mean 'whisper'?
    """
    kind, given = feature_names.parse(name)
    path = os.path.expanduser(given)
    config = EncoderConfig() if config is None else config
    _check_kind(name, kind, given, path)
    encoder, params = _class(kind).load(path, config)
    return encoder, params


def _class(kind: str) -> type[SpeechEncoder]:
    encoder_class: type[SpeechEncoder] = registry.encoders.get(kind).load()
    return encoder_class


def _check_kind(name: str, kind: str, given: str, path: str) -> None:
    """Raises `InputError` when the config.json beside the weights names another kind."""
    file = None if Path(path).is_file() else find_file(path, "config.json")
    if file is None:
        return
    try:
        settings = budgets.load_json(file)
    except (OSError, ValueError):
        return  # Reported by the encoder that reads it.
    stored = settings.get("model_type") if isinstance(settings, dict) else None
    if isinstance(stored, str) and stored != kind and stored in registry.encoders:
        raise InputError(f"feature {name!r}: {path} holds a {stored} model; write {stored}:{given}")


def save(path: str | Path, encoder: SpeechEncoder, params: Params) -> None:
    """Writes an encoder to one safetensors file that `restore` reads, whole or not at all.

    Raises:
      InputError, WorkFailed: it cannot be written.
    """
    from safetensors import SafetensorError
    from safetensors.numpy import save_file

    tensors = {p: np.ascontiguousarray(v, np.float32) for p, v in leaves(params)}
    description = json.dumps(encoder.describe())
    metadata = {"encoder": description, "crc32": _checksum(description, tensors)}
    with files.atomic_write(path) as temporary:
        try:
            save_file(tensors, temporary, metadata=metadata)
        except SafetensorError as error:
            raise WorkFailed(f"{path}: could not be written ({error})") from None


def restore(
    path: str | Path, config: EncoderConfig, kind: str | None = None
) -> tuple[SpeechEncoder, Params]:
    """Reads a file of `save`.

    Args:
      path: of the file.
      config: which hidden states, precision.
      kind: that it must be of; None for any.

    Raises:
      InputError: no such file, not written by `save`, damaged, or of another kind.
    """
    from safetensors import SafetensorError, safe_open

    if not Path(path).is_file():
        raise InputError(f"{path}: no such file; a run with an encoder keeps its weights there")
    budgets.regular_file(path)
    try:
        with safe_open(path, framework="numpy") as file:
            metadata = file.metadata()
            description = budgets.parse_json(metadata["encoder"], name="its description")
            _check_sizes(description, "its description")
            encoder = from_description(description, config)
            tensors = {name: file.get_tensor(name) for name in sorted(file.keys())}
    except (SafetensorError, OSError, KeyError, TypeError, ValueError) as error:
        if isinstance(error, InputError):
            raise InputError(f"{path}: {error}") from None
        raise InputError(f"{path}: not a saved encoder, or damaged ({error})") from None
    try:
        shapes = jax.eval_shape(encoder.init, jax.random.key(0))
        expected = {name: leaf.shape for name, leaf in leaves(shapes)}
    except Exception as error:  # noqa: BLE001 - sizes that fit nothing show as any kind of error
        raise InputError(f"{path}: its description is no encoder's ({error})") from None
    if {name: value.shape for name, value in tensors.items()} != expected:
        raise InputError(f"{path}: damaged (its weights do not fit its description)")
    if metadata.get("crc32") != _checksum(metadata["encoder"], tensors):
        raise InputError(f"{path}: damaged (its checksum does not match)")
    if kind is not None and encoder.kind != kind:
        raise InputError(f"{path}: holds a {encoder.kind} encoder, expected {kind}")
    params: Params = {}
    for name, value in tensors.items():
        set_path(params, name, value)
    return encoder, params


def from_description(description: dict[str, Any], config: EncoderConfig) -> SpeechEncoder:
    """Returns the encoder of `SpeechEncoder.describe`, with the options of `config`.

    Raises:
      InputError: not a description, or of a kind that nothing registers.
    """
    try:
        return _class(description["kind"]).from_description(description, config)
    except (KeyError, TypeError, ValueError) as error:
        if isinstance(error, InputError):
            raise
        raise InputError(f"not the description of an encoder ({error})") from None


def _check_sizes(description: Any, where: str) -> None:
    """Checks the numbers of a description before a network of these sizes is traced.

    Raises:
      InputError: more layers than the budget, or a size beyond any network's.
    """
    for key, value in description.items() if isinstance(description, dict) else ():
        if isinstance(value, dict):
            _check_sizes(value, f"{where}: {key}")
        for size in value if isinstance(value, list) else [value]:
            if isinstance(size, int) and abs(size) > _LARGEST:
                raise InputError(f"{where}: {key}={size}, expected at most {_LARGEST}")
        if "layers" in key and isinstance(value, int):
            budgets.check("layers", value, where)


def _checksum(description: str, tensors: dict[str, np.ndarray]) -> str:
    """Returns the CRC-32 of an encoder's description and of its tensors in order of their names."""
    value = zlib.crc32(description.encode())
    for name in sorted(tensors):
        value = zlib.crc32(np.ascontiguousarray(tensors[name]).view(np.uint8).data, value)
    return f"{value:08x}"
