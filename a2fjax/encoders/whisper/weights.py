"""Reads weights of Whisper's encoder: safetensors of the hub, CTranslate2 folders, .npz.

Every name and shape is checked; errors use the file's own names. The decoder's weights are skipped
without being read.
"""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from a2fjax import archives, budgets, files
from a2fjax.encoders.whisper.ctranslate2 import read_ctranslate2
from a2fjax.encoders.whisper.weight_names import (
    HUB,
    PACKED,
    WeightNames,
    WhisperSizes,
    expected_shapes,
)
from a2fjax.errors import InputError

HEAD_WIDTH = 64
"""Width of an attention head in all published models, for files without a number of heads."""


def load(path: Path | str) -> tuple[WhisperSizes, dict[str, Any]]:
    """Reads an encoder's weights.

    Args:
      path: a folder of the hub (model.safetensors, or its shards and index; config.json if
        present) or of CTranslate2 (model.bin), or one file: .safetensors, model.bin or an .npz with
        CTranslate2's names, "." for "/".

    Returns:
      (sizes, params): nested dicts of float32 arrays in the structure of `WhisperEncoder.init`.

    Raises:
      InputError: no such file, another format, a damaged file, or a weight that is missing,
        unknown, of another shape or not finite.
    """
    path = Path(path)
    settings: dict[str, Any] = {}
    if not path.exists():
        raise InputError(f"{path}: no such file or folder")
    file, kind = _locate(path)
    try:
        if kind == "npz":
            tensors = _read_npz(file)
        elif kind == "ctranslate2":
            tensors = read_ctranslate2(file)
        else:
            tensors, settings = _read_safetensors(file), _read_config(file.parent / "config.json")
    except OSError as error:
        raise InputError(f"{file}: cannot be read ({error.strerror or error})") from None
    names = HUB if kind == "safetensors" else PACKED
    sizes = _check(file, tensors, names, settings)
    return sizes, _nest(tensors, names, sizes)


def _locate(path: Path) -> tuple[Path, str]:
    """Returns (file, format) of an existing path."""
    if path.is_dir():
        for name, kind in (
            ("model.safetensors.index.json", "safetensors"),
            ("model.safetensors", "safetensors"),
            ("model.bin", "ctranslate2"),
        ):
            if (path / name).is_file():
                return path / name, kind
        hint = ""
        if (path / "model.bin.part1").is_file():
            hint = "; join its parts: cat model.bin.part1 model.bin.part2 > model.bin"
        elif (path / "pytorch_model.bin").is_file():
            hint = "; pytorch_model.bin is a pickle and pickles are refused: save it as safetensors"
        raise InputError(
            f"{path}: no model.safetensors (hub) and no model.bin (CTranslate2) in it{hint}"
        )
    if path.suffix == ".npz":
        return path, "npz"
    if path.suffix == ".safetensors" or path.name.endswith(".safetensors.index.json"):
        return path, "safetensors"
    if path.suffix == ".bin":
        return path, "ctranslate2"
    raise InputError(
        f"{path}: not a format of Whisper's weights; expected a folder, .safetensors, .bin or .npz"
    )


def _read_npz(file: Path) -> dict[str, np.ndarray]:
    with archives.load_npz(file) as arrays:
        return {name.removeprefix("encoder."): array for name, array in arrays.items()}


def _read_config(file: Path) -> dict[str, Any]:
    """Returns the contents of config.json, {} without one."""
    if not file.is_file():
        return {}
    settings = budgets.load_json(file)
    if not isinstance(settings, dict):
        raise InputError(f"{file}: expected a JSON object")
    for key, expected in (("model_type", "whisper"), ("activation_function", "gelu")):
        if settings.get(key, expected) != expected:
            raise InputError(f"{file}: {key} is {settings[key]!r}, expected {expected!r}")
    return settings


def _read_safetensors(file: Path) -> dict[str, np.ndarray]:
    """Returns the encoder's tensors by names without "encoder."."""
    import ml_dtypes  # noqa: F401 - registers bfloat16 with NumPy.
    from safetensors import SafetensorError, safe_open

    parts = [file]
    if file.suffix == ".json":
        try:
            index = budgets.load_json(file)["weight_map"]
            names = sorted(set(map(str, index.values())))
        except (ValueError, KeyError, TypeError, AttributeError):
            raise InputError(f"{file}: not an index of safetensors") from None
        where = f"{file}: weight_map"
        parts = [files.inside(file.parent, name, where=where, plain=True) for name in names]
    out: dict[str, np.ndarray] = {}
    for part in parts:
        if not part.is_file():
            raise InputError(f"{part}: no such file, but {file.name} names it")
        try:
            with safe_open(budgets.regular_file(part), framework="np") as opened:
                names = list(opened.keys())
                for name in names:
                    short = re.sub(r"^(model\.)?encoder\.", "", name)
                    # A file with an encoder only has no prefix.
                    if short != name or not re.match(r"(model\.)?decoder\.|proj_out\.", name):
                        out[short] = opened.get_tensor(name)
        except (SafetensorError, ValueError, TypeError) as error:
            raise InputError(f"{part}: not safetensors, or damaged ({error})") from None
    return out


def _check(
    file: Path, tensors: dict[str, np.ndarray], names: WeightNames, settings: Mapping[str, Any]
) -> WhisperSizes:
    """Returns the sizes after checking every weight; removes entries that are not weights."""
    stem = tensors.get("conv1.weight")
    if stem is None or stem.ndim != 3:
        raise InputError(
            f"{file}: no encoder of Whisper: "
            + (
                "conv1.weight is missing"
                if stem is None
                else f"conv1.weight has shape {stem.shape}"
            )
        )
    width, mels = stem.shape[:2]
    numbers = {int(m[1]) for m in (re.match(names.layer, n) for n in tensors) if m}
    layers = settings.get("encoder_layers", max(numbers, default=-1) + 1)
    counted = tensors.pop("num_heads", None)
    heads = settings.get("encoder_attention_heads", max(1, width // HEAD_WIDTH))
    if counted is not None:
        if counted.shape or counted.dtype.kind not in "iu":
            raise InputError(f"{file}: num_heads is {counted!r}, expected one whole number")
        heads = int(counted)
    up = tensors.get(names.linear["up"].format(0) + ".bias")
    table = tensors.get(names.positions)
    sizes = WhisperSizes(
        width=settings.get("d_model", width),
        layers=layers,
        heads=heads,
        hidden=settings.get("encoder_ffn_dim", 4 * width if up is None else up.size),
        mels=settings.get("num_mel_bins", mels),
        positions=settings.get(
            "max_source_positions", 1500 if table is None or not table.ndim else len(table)
        ),
    )
    for key, value in dataclasses.asdict(sizes).items():
        if not isinstance(value, int) or value < 1:
            raise InputError(f"{file}: the encoder has {key} {value!r}")
    budgets.check("layers", sizes.layers, file)
    if sizes.width % sizes.heads:
        raise InputError(f"{file}: width {sizes.width} is no multiple of {sizes.heads} heads")
    expected = dict(expected_shapes(names, sizes))
    for problem, listed in (
        ("missing", [n for n in expected if n not in tensors]),
        ("unknown to Whisper's encoder", [n for n in tensors if n not in expected]),
        (
            "of another shape",
            [
                f"{n} {tensors[n].shape} for {shape}"
                for n, shape in expected.items()
                if n in tensors and tensors[n].shape != shape
            ],
        ),
        (
            "not finite floating-point numbers",
            [n for n in expected if n in tensors and not _is_finite(tensors[n])],
        ),
    ):
        if listed:
            raise InputError(f"{file}: {_count(listed)} {problem}: {_listed(listed)}")
    return sizes


def _nest(
    tensors: Mapping[str, np.ndarray], names: WeightNames, sizes: WhisperSizes
) -> dict[str, Any]:
    """Returns the parameters in the structure of `WhisperEncoder.init`."""

    def f32(name: str) -> np.ndarray:
        return np.asarray(tensors[name], np.float32)

    def norm(part: str, i: int = 0) -> dict[str, np.ndarray]:
        scale, bias = (f32(f"{names.norms[part].format(i)}.{ending}") for ending in names.norm)
        return {"scale": scale, "bias": bias}

    def linear(*parts: str, i: int) -> dict[str, np.ndarray]:
        weights, biases = [], []
        for name in parts:
            weights.append(f32(f"{name.format(i)}.weight"))
            # A key's bias shifts all scores of a query equally, so models have none.
            zero = np.zeros(len(weights[-1]), np.float32)
            biases.append(zero if name in names.unbiased else f32(f"{name.format(i)}.bias"))
        kernel = np.ascontiguousarray(np.concatenate(weights).T)
        return {"kernel": kernel, "bias": np.concatenate(biases)}

    params: dict[str, Any] = {
        name: {
            "kernel": np.ascontiguousarray(f32(f"{name}.weight").transpose(2, 1, 0)),
            "bias": f32(f"{name}.bias"),
        }
        for name in ("conv1", "conv2")
    }
    params["positions"] = f32(names.positions)
    for i in range(sizes.layers):
        params[f"layers_{i}"] = {
            "attention_norm": norm("attention_norm", i),
            "qkv": linear(*names.qkv, i=i),
            **{part: linear(names.linear[part], i=i) for part in ("out", "up", "down")},
            "mlp_norm": norm("mlp_norm", i),
        }
    params["final_norm"] = norm("final_norm")
    return params


def _is_finite(values: np.ndarray) -> bool:
    if values.dtype.kind != "f" and values.dtype.name != "bfloat16":
        return False
    return bool(np.isfinite(values.astype(np.float32)).all())


def _count(names: Sequence[str]) -> str:
    return f"{len(names)} weight{'s' if len(names) > 1 else ''}"


def _listed(names: Sequence[str]) -> str:
    return ", ".join(names[:6]) + (", ..." if len(names) > 6 else "")
