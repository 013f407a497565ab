"""Reads and writes checkpoints in the hub's format: config.json and safetensors.

Weights are checked against the weight map: errors name those that are missing, unknown or of
another shape, so that none keeps its random initialisation.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from a2fjax import budgets, files
from a2fjax.encoders.hub_cache import find_file
from a2fjax.encoders.param_paths import get_path, set_path
from a2fjax.encoders.wav2vec2.config import Wav2Vec2Config
from a2fjax.encoders.wav2vec2.weight_map import Weight, weights
from a2fjax.errors import InputError

CONFIG = "config.json"
PREPROCESSOR = "preprocessor_config.json"
SINGLE = "model.safetensors"
INDEX = "model.safetensors.index.json"

HEADS = (
    "quantizer.",
    "project_hid.",
    "project_q.",
    "lm_head.",
    "projector.",
    "classifier.",
    "layer_weights",
    "label_embs_concat",
    "final_proj.",
    "masked_spec_embed",
)
"""Prefixes of weights that do not belong to the encoder: `load` skips and reports them."""

_PREFIXED_HEADS = ("feature_extractor.weight", "feature_extractor.bias", "tdnn.", "objective.")
_LISTED = 6  # Names in a message.


def _json(path: Path) -> dict[str, Any]:
    value = budgets.load_json(path)
    if not isinstance(value, dict):
        raise InputError(f"{path}: holds a {type(value).__name__}, expected a JSON object")
    return value


def read_config(source: str | Path) -> Wav2Vec2Config:
    """Returns the architecture of a checkpoint, from config.json and preprocessor_config.json.

    Args:
      source: a folder, or the name of a model in the hub's cache.

    Raises:
      InputError: no such folder or model, or an unsupported configuration.
    """
    path = find_file(source, CONFIG)
    if path is None:
        if Path(source).is_dir():
            raise InputError(f"{source}: no {CONFIG} in this folder")
        raise InputError(
            f"{source}: neither a folder with a {CONFIG} nor a model in the hub's cache; fetch it "
            f"where there is a network with `hf download {source}`"
        )
    settings = _json(path)
    preprocessor = find_file(source, PREPROCESSOR)
    if preprocessor is not None:
        options = _json(preprocessor)
        rate = options.get("sampling_rate", 16_000)
        if rate != 16_000:
            raise InputError(f"{preprocessor}: sampling_rate={rate!r}, expected 16000")
        if "do_normalize" in options:
            settings["do_normalize"] = options["do_normalize"]
    return Wav2Vec2Config.from_config(settings, str(path))


def _shards(source: str | Path) -> list[Path]:
    """Returns the safetensors files of a checkpoint."""
    single = find_file(source, SINGLE)
    if single is not None:
        return [single]
    index = find_file(source, INDEX)
    if index is None:
        pickled = any(find_file(source, f"pytorch_model.bin{end}") for end in ("", ".index.json"))
        raise InputError(
            f"{source}: no {SINGLE}"
            + (
                "; pytorch_model.bin is a pickle, which is refused: load it with transformers "
                "and save it again with save_pretrained"
                if pickled
                else ""
            )
        )
    names = _json(index).get("weight_map")
    if not isinstance(names, dict) or not all(isinstance(n, str) for n in names.values()):
        raise InputError(f"{index}: no weight_map, expected the file of each weight")
    shards = []
    for name in sorted(set(names.values())):
        files.inside(source, name, where=f"{index}: weight_map", plain=True)
        shard = find_file(source, name)
        if shard is None:
            raise InputError(f"{index}: names {name!r}, which is not in {source}")
        shards.append(shard)
    return shards


class _Tensors:
    """Tensors of several safetensors files by name, read on demand."""

    def __init__(self, paths: Sequence[Path]):
        import ml_dtypes  # noqa: F401 - registers bfloat16 with NumPy.
        from safetensors import SafetensorError, safe_open

        self.shapes: dict[str, tuple[int, ...]] = {}
        self.files: dict[str, Any] = {}
        self.paths: dict[str, Path] = {}
        self._error = SafetensorError
        for path in paths:
            budgets.regular_file(path)
            try:
                file = safe_open(path, framework="numpy")
                for name in file.keys():  # noqa: SIM118 - not a mapping.
                    self.shapes[name] = tuple(file.get_slice(name).get_shape())
                    self.files[name], self.paths[name] = file, path
            except (SafetensorError, OSError) as error:
                raise InputError(f"{path}: cannot be read as safetensors ({error})") from None

    def read(self, name: str) -> np.ndarray:
        try:
            value = np.asarray(self.files[name].get_tensor(name))
        except (self._error, OSError, TypeError) as error:
            raise InputError(f"{self.paths[name]}: {name} cannot be read ({error})") from None
        if value.dtype.kind not in "fV" and value.dtype.name != "bfloat16":
            raise InputError(
                f"{self.paths[name]}: {name} is {value.dtype}, expected floating point"
            )
        value = value.astype(np.float32)
        if not np.isfinite(value).all():
            raise InputError(f"{self.paths[name]}: {name} holds values that are not finite")
        return value


def _listed(names: Sequence[str]) -> str:
    more = len(names) - _LISTED
    return ", ".join(names[:_LISTED]) + (f" and {more} more" if more > 0 else "")


def load(
    source: str | Path, *, layers: int | None = None
) -> tuple[Wav2Vec2Config, dict[str, Any], list[str]]:
    """Reads a checkpoint.

    Args:
      source: a folder or the name of a model in the hub's cache; see `find`.
      layers: how many of the transformer's layers to read; all when None.

    Returns:
      (config, parameters as nested dicts of float32 NumPy arrays, names of the weights that were
      left out because they are heads of other tasks).

    Raises:
      InputError: no such checkpoint, a damaged file, or weights that are missing, unknown, not
        finite or of another shape than the configuration says.
    """
    config = read_config(source)
    if layers is not None and not 0 <= layers <= config.num_hidden_layers:
        raise InputError(
            f"{source}: has {config.num_hidden_layers} layers, {layers} were asked for"
        )
    budgets.check("layers", config.num_hidden_layers, source)
    tensors = _Tensors(_shards(source))
    prefix = f"{config.model_type}."
    if not any(name.startswith(prefix) for name in tensors.shapes):
        prefix = ""

    wanted: dict[str, Weight] = {}
    missing, shapes = [], []
    known = set()
    for weight in weights(config):
        names = [prefix + name for name in weight.names]
        known.update(names)
        name = next((name for name in names if name in tensors.shapes), None)
        if name is None:
            missing.append(names[0])
        elif tensors.shapes[name] != weight.shape:
            shapes.append(f"{name} is {tensors.shapes[name]}, expected {weight.shape}")
        else:
            wanted[name] = weight
    heads = HEADS + _PREFIXED_HEADS if prefix else HEADS
    rest = sorted(set(tensors.shapes) - known)
    ignored = [n for n in rest if n.startswith(heads) or n == f"{prefix}masked_spec_embed"]
    extra = sorted(set(rest) - set(ignored))
    problems = [
        f"{len(names)} {problem} ({_listed(names)})"
        for problem, names in (
            ("weights are missing", missing),
            ("are of another shape", shapes),
            ("are unknown", extra),
        )
        if names
    ]
    if problems:
        raise InputError(f"{source}: the weights do not fit {CONFIG}: " + "; ".join(problems))

    params: dict[str, Any] = {}
    read = {weight.path for weight in weights(config, layers)}
    for name, weight in wanted.items():
        if weight.path in read:
            set_path(params, weight.path, weight.from_hub(tensors.read(name)))
    return config, params, ignored


def _present(
    config: Wav2Vec2Config, params: dict[str, Any], layers: int
) -> Iterator[tuple[Weight, Any]]:
    """Yields the weights of the first `layers` layers with their values.

    Raises:
      ValueError: one is missing or of another shape.
    """
    for weight in weights(config, layers):
        value = get_path(params, weight.path)
        if value is None:
            raise ValueError(f"parameter {weight.path!r} is missing")
        if tuple(value.shape) != weight.param_shape:
            raise ValueError(
                f"parameter {weight.path!r} has shape {value.shape}, expected {weight.param_shape}"
            )
        yield weight, value


def num_layers(params: dict[str, Any]) -> int:
    """Returns the number of transformer layers in the parameters."""
    return len(params["encoder"].get("layers", {}))


def save(folder: str | Path, config: Wav2Vec2Config, params: dict[str, Any]) -> None:
    """Writes a checkpoint that `load` and transformers' `from_pretrained` read.

    Parameters of the first layers only become a smaller model. With `do_stable_layer_norm`, the
    output of transformers then has the final norm; its last hidden state is the output here.

    Args:
      folder: made when missing.
      config: architecture.
      params: parameters.

    Raises:
      InputError, WorkFailed: the folder or a file cannot be written.
      ValueError: a parameter is missing or of another shape.
    """
    from safetensors.numpy import save_file

    folder = Path(folder)
    layers = num_layers(params)
    settings = {**config.to_config(), "num_hidden_layers": layers}
    preprocessor = {
        "do_normalize": config.do_normalize,
        "feature_extractor_type": "Wav2Vec2FeatureExtractor",
        "feature_size": 1,
        "padding_side": "right",
        "padding_value": 0.0,
        # Group norm includes padding, so those models were trained without a mask.
        "return_attention_mask": config.feat_extract_norm == "layer",
        "sampling_rate": 16_000,
    }
    tensors = {w.names[0]: w.to_hub(value) for w, value in _present(config, params, layers)}
    files.make_folder(folder)
    with files.atomic_write(folder / SINGLE) as temporary:
        # transformers refuses files without this key.
        save_file(tensors, temporary, metadata={"format": "pt"})
    files.write_text(folder / PREPROCESSOR, json.dumps(preprocessor, indent=2) + "\n")
    files.write_text(folder / CONFIG, json.dumps(settings, indent=2) + "\n")
