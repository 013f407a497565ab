"""Weights of Whisper's encoder from files: the hub's safetensors, CTranslate2 folders, .npz.

What a file holds is checked name by name and shape by shape in the file's own names; nothing is
left out, made up or reshaped in silence. The decoder's weights are skipped without being read.

Sources: the binary layout of CTranslate2's model.bin is that of `ModelSpec._serialize` in
github.com/OpenNMT/CTranslate2 (python/ctranslate2/specs/model_spec.py), versions 2 to 6.
"""

from __future__ import annotations

import dataclasses
import json
import math
import mmap
import re
import struct
import zipfile
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from a2fjax.errors import InputError

HEAD_WIDTH = 64
"""Width of every published model's attention heads; where a file does not count the heads."""

Shape = tuple[int, ...]


@dataclasses.dataclass(frozen=True)
class WhisperSizes:
    """What the weights' shapes say of an encoder; see `whisper.Encoder`."""

    width: int
    layers: int
    heads: int
    hidden: int
    mels: int
    positions: int


@dataclasses.dataclass(frozen=True)
class _Names:
    """How a format calls things; {} is the number of a layer.

    Attributes:
      layer: pattern whose group 1 is a layer's number.
      positions: the position encodings.
      qkv: one fused linear map, or those of query, key and value.
      linear: other parts -> names, without `.weight` and `.bias`.
      norms: parts -> names, without the endings of `norm`.
      norm: endings of a layer norm's scale and bias.
      unbiased: linear maps without a bias.
    """

    layer: str
    positions: str
    qkv: tuple[str, ...]
    linear: dict[str, str]
    norms: dict[str, str]
    norm: tuple[str, str]
    unbiased: tuple[str, ...] = ()


_HUB = _Names(
    layer=r"^layers\.(\d+)\.",
    positions="embed_positions.weight",
    qkv=tuple(f"layers.{{}}.self_attn.{part}_proj" for part in "qkv"),
    linear={
        "out": "layers.{}.self_attn.out_proj",
        "up": "layers.{}.fc1",
        "down": "layers.{}.fc2",
    },
    norms={
        "attention_norm": "layers.{}.self_attn_layer_norm",
        "mlp_norm": "layers.{}.final_layer_norm",
        "final_norm": "layer_norm",
    },
    norm=("weight", "bias"),
    unbiased=("layers.{}.self_attn.k_proj",),
)
_PACKED = _Names(
    layer=r"^layer_(\d+)\.",
    positions="position_encodings.encodings",
    qkv=("layer_{}.self_attention.linear_0",),
    linear={
        "out": "layer_{}.self_attention.linear_1",
        "up": "layer_{}.ffn.linear_0",
        "down": "layer_{}.ffn.linear_1",
    },
    norms={
        "attention_norm": "layer_{}.self_attention.layer_norm",
        "mlp_norm": "layer_{}.ffn.layer_norm",
        "final_norm": "layer_norm",
    },
    norm=("gamma", "beta"),
)


def load(path: Path | str) -> tuple[WhisperSizes, dict[str, Any]]:
    """Reads an encoder's weights.

    Args:
      path: a folder of the hub (model.safetensors, or its shards and index; config.json where
        present), of CTranslate2 (model.bin), or one file: .safetensors, model.bin or an .npz with
        CTranslate2's names, "." for "/".

    Returns:
      (sizes, params): nested dicts of float32 as `whisper.Encoder.init` makes them.

    Raises:
      InputError: no such file, not of these formats, damaged, or a weight that is missing, unknown,
        of another shape or not finite.
    """
    path = Path(path)
    settings: dict[str, Any] = {}
    if not path.exists():
        raise InputError(f"{path}: no such file or folder")
    file, kind = _find(path)
    try:
        if kind == "npz":
            found = _read_npz(file)
        elif kind == "ctranslate2":
            found = _read_ctranslate2(file)
        else:
            found, settings = _read_safetensors(file), _read_config(file.parent / "config.json")
    except OSError as error:
        raise InputError(f"{file}: cannot be read ({error.strerror or error})") from None
    names = _HUB if kind == "safetensors" else _PACKED
    sizes = _check(file, found, names, settings)
    return sizes, _nest(found, names, sizes)


def _find(path: Path) -> tuple[Path, str]:
    """Returns (file, format) of a path that exists."""
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
    try:
        with np.load(file, allow_pickle=False) as arrays:
            names = {n.removeprefix("encoder."): n for n in arrays.files}
            return {short: arrays[name] for short, name in names.items()}
    except (ValueError, KeyError, EOFError, zipfile.BadZipFile) as error:
        raise InputError(f"{file}: not an .npz of plain arrays, or damaged ({error})") from None
    except (AttributeError, TypeError):  # np.load of a lone .npy under that name.
        raise InputError(f"{file}: not an .npz archive") from None


def _read_config(file: Path) -> dict[str, Any]:
    """Returns what config.json says, {} where there is none."""
    if not file.is_file():
        return {}
    try:
        settings = json.loads(file.read_text(encoding="utf-8"))
    except ValueError as error:
        raise InputError(f"{file}: not JSON ({error})") from None
    if not isinstance(settings, dict):
        raise InputError(f"{file}: expected a JSON object")
    for key, expected in (("model_type", "whisper"), ("activation_function", "gelu")):
        if settings.get(key, expected) != expected:
            raise InputError(f"{file}: {key} is {settings[key]!r}, expected {expected!r}")
    return settings


def _read_safetensors(file: Path) -> dict[str, np.ndarray]:
    """Returns the encoder's tensors by their names after "encoder."."""
    import ml_dtypes  # noqa: F401  (teaches NumPy bfloat16)
    from safetensors import SafetensorError, safe_open

    files = [file]
    if file.suffix == ".json":
        try:
            index = json.loads(file.read_text(encoding="utf-8"))["weight_map"]
            files = [file.parent / name for name in sorted(set(index.values()))]
        except (ValueError, KeyError, TypeError, AttributeError):
            raise InputError(f"{file}: not an index of safetensors") from None
    out: dict[str, np.ndarray] = {}
    for part in files:
        if not part.is_file():
            raise InputError(f"{part}: no such file, but {file.name} names it")
        try:
            with safe_open(part, framework="np") as tensors:
                names = list(tensors.keys())
                for name in names:
                    short = re.sub(r"^(model\.)?encoder\.", "", name)
                    # A lone encoder's file has no prefix at all.
                    if short != name or not re.match(r"(model\.)?decoder\.|proj_out\.", name):
                        out[short] = tensors.get_tensor(name)
        except (SafetensorError, ValueError, TypeError) as error:
            raise InputError(f"{part}: not safetensors, or damaged ({error})") from None
    return out


_DTYPES = ("<f4", "i1", "<i2", "<i4", "<f2", "bfloat16")
_OLD_DTYPES = {4: "<f4", 2: "<i2", 1: "i1"}


def _read_ctranslate2(file: Path) -> dict[str, np.ndarray]:
    """Returns the encoder's variables by their names after "encoder/", "." for "/", dequantised."""
    if not file.stat().st_size:
        raise InputError(f"{file}: empty")
    with open(file, "rb") as handle, mmap.mmap(handle.fileno(), 0, access=mmap.ACCESS_READ) as data:
        found = {
            name.removeprefix("encoder/").replace("/", "."): value
            for name, value in _variables(file, data)
            if name.startswith("encoder/")
        }
    for name in [n for n in found if n.endswith("_scale")]:
        scale = found.pop(name)
        weight = found.get(name.removesuffix("_scale"))
        # One scale for all, one a row, or one a row and tap: the width is what they share.
        if weight is None or scale.shape not in ((), weight.shape[:1], weight.shape[::2]):
            raise InputError(f"{file}: encoder's {name} {scale.shape} fits no weight")
        if weight.ndim == 3 and scale.ndim == 2:
            scale = scale[:, None, :]
        elif scale.ndim:
            scale = scale.reshape(-1, *[1] * (weight.ndim - 1))
        found[name.removesuffix("_scale")] = weight.astype(np.float32) / scale
    return found


def _variables(file: Path, data: mmap.mmap) -> Iterator[tuple[str, np.ndarray]]:
    """Yields (name, copy of the value) of the encoder's variables, aliases last."""
    import ml_dtypes  # noqa: F401  (teaches NumPy bfloat16)

    place = 0

    def take(form: str) -> int:
        nonlocal place
        (value,) = struct.unpack_from("<" + form, data, place)
        place += struct.calcsize("<" + form)
        return value

    def text() -> str:
        nonlocal place
        size = take("H")
        raw = data[place : place + size]
        place += size
        if len(raw) < size or not size or raw[-1]:
            raise ValueError(f"no name at byte {place - size}")
        return raw[:-1].decode()

    try:
        version = take("I")
        if not 2 <= version <= 6:
            raise ValueError(f"version {version}, expected 2 to 6")
        spec = text()
        if spec != "WhisperSpec":
            raise InputError(f"{file}: a CTranslate2 model of {spec!r}, expected 'WhisperSpec'")
        take("I")  # The layout's revision: names are checked below anyway.
        kept: dict[str, np.ndarray] = {}
        for _ in range(take("I")):
            name = text()
            shape = tuple(take("I") for _ in range(take("B")))
            code = take("B")
            dtype = np.dtype(_DTYPES[code] if version >= 4 else _OLD_DTYPES[code])
            size = take("I") * (1 if version >= 4 else code)
            if size != math.prod(shape) * dtype.itemsize:
                raise ValueError(f"{name} has {size} bytes for shape {shape}")
            if place + size > len(data):
                raise ValueError(f"it ends inside {name}")
            if name.startswith("encoder/"):
                values = np.frombuffer(data[place : place + size], dtype)
                kept[name] = values.reshape(shape)
            place += size
        yield from kept.items()
        for _ in range(take("I") if version >= 3 else 0):
            alias, name = text(), text()
            for ending in ("", "_scale"):
                if alias.startswith("encoder/") and name + ending in kept:
                    yield alias + ending, kept[name + ending]
    except (struct.error, ValueError, IndexError, KeyError, UnicodeDecodeError) as error:
        if isinstance(error, InputError):
            raise
        raise InputError(f"{file}: not a CTranslate2 model, or damaged ({error})") from None


def _check(
    file: Path, found: dict[str, np.ndarray], names: _Names, settings: Mapping[str, Any]
) -> WhisperSizes:
    """Returns the sizes once every weight is there with its shape; drops what is no weight."""
    stem = found.get("conv1.weight")
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
    numbers = {int(m[1]) for m in (re.match(names.layer, n) for n in found) if m}
    layers = settings.get("encoder_layers", max(numbers, default=-1) + 1)
    counted = found.pop("num_heads", None)
    heads = settings.get("encoder_attention_heads", max(1, width // HEAD_WIDTH))
    if counted is not None:
        if counted.shape or counted.dtype.kind not in "iu":
            raise InputError(f"{file}: num_heads is {counted!r}, expected one whole number")
        heads = int(counted)
    up = found.get(names.linear["up"].format(0) + ".bias")
    table = found.get(names.positions)
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
    if sizes.width % sizes.heads:
        raise InputError(f"{file}: width {sizes.width} is no multiple of {sizes.heads} heads")
    expected = dict(_expected(names, sizes))
    for problem, listed in (
        ("missing", [n for n in expected if n not in found]),
        ("unknown to Whisper's encoder", [n for n in found if n not in expected]),
        (
            "of another shape",
            [
                f"{n} {found[n].shape} for {shape}"
                for n, shape in expected.items()
                if n in found and found[n].shape != shape
            ],
        ),
        (
            "not finite floating-point numbers",
            [n for n in expected if n in found and not _is_finite(found[n])],
        ),
    ):
        if listed:
            raise InputError(f"{file}: {_count(listed)} {problem}: {_some(listed)}")
    return sizes


def _expected(names: _Names, sizes: WhisperSizes) -> Iterator[tuple[str, Shape]]:
    """Yields (name, shape) of every weight."""
    width, hidden = sizes.width, sizes.hidden
    for name, depth in (("conv1", sizes.mels), ("conv2", width)):
        yield f"{name}.weight", (width, depth, 3)
        yield f"{name}.bias", (width,)
    yield names.positions, (sizes.positions, width)
    shapes = {"out": (width, width), "up": (hidden, width), "down": (width, hidden)}
    shapes |= {name: (3 * width // len(names.qkv), width) for name in names.qkv}
    linear = names.linear | {name: name for name in names.qkv}
    for i in range(sizes.layers):
        for part, name in linear.items():
            yield f"{name.format(i)}.weight", shapes[part]
            if name not in names.unbiased:
                yield f"{name.format(i)}.bias", shapes[part][:1]
    for name in names.norms.values():
        for i in range(sizes.layers if "{}" in name else 1):
            for ending in names.norm:
                yield f"{name.format(i)}.{ending}", (width,)


def _nest(found: Mapping[str, np.ndarray], names: _Names, sizes: WhisperSizes) -> dict[str, Any]:
    """Returns the parameters in the order and layout of `whisper.Encoder.init`."""

    def f32(name: str) -> np.ndarray:
        return np.asarray(found[name], np.float32)

    def norm(part: str, i: int = 0) -> dict[str, np.ndarray]:
        scale, bias = (f32(f"{names.norms[part].format(i)}.{ending}") for ending in names.norm)
        return {"scale": scale, "bias": bias}

    def linear(*parts: str, i: int) -> dict[str, np.ndarray]:
        weights, biases = [], []
        for name in parts:
            weights.append(f32(f"{name.format(i)}.weight"))
            # A key's bias shifts a query's scores all alike, so it is nought in every model.
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


def _some(names: Sequence[str]) -> str:
    return ", ".join(names[:6]) + (", ..." if len(names) > 6 else "")
