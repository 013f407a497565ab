"""Names and shapes of Whisper's weights on the hub and in CTranslate2."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator

Shape = tuple[int, ...]


@dataclasses.dataclass(frozen=True)
class WhisperSizes:
    """Architecture of an encoder as its weights have it; see `WhisperEncoder`."""

    width: int
    layers: int
    heads: int
    hidden: int
    mels: int
    positions: int


@dataclasses.dataclass(frozen=True)
class WeightNames:
    """Names of weights in a file format; {} stands for the number of a layer.

    Attributes:
      layer: regular expression whose group 1 is the number of a layer.
      positions: name of the position encodings.
      qkv: name of one fused linear map, or names of query, key and value.
      linear: names of the other linear maps by part, without `.weight` and `.bias`.
      norms: names of layer norms by part, without the suffixes of `norm`.
      norm: suffixes of a layer norm's scale and bias.
      unbiased: linear maps without a bias.
    """

    layer: str
    positions: str
    qkv: tuple[str, ...]
    linear: dict[str, str]
    norms: dict[str, str]
    norm: tuple[str, str]
    unbiased: tuple[str, ...] = ()


HUB = WeightNames(
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
PACKED = WeightNames(
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


def expected_shapes(names: WeightNames, sizes: WhisperSizes) -> Iterator[tuple[str, Shape]]:
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
