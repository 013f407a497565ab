"""Files of Whisper's weights: all formats, and all errors of files."""

import dataclasses
import json
import struct
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from a2fjax.encoders import whisper
from a2fjax.errors import InputError


def packed(params, heads=2, dot="."):
    """Returns parameters with CTranslate2's names and layout."""
    out = {"num_heads": np.int16(heads), "position_encodings.encodings": params["positions"]}
    for name in ("conv1", "conv2"):
        out[f"{name}.weight"] = params[name]["kernel"].transpose(2, 1, 0)
        out[f"{name}.bias"] = params[name]["bias"]
    norms = {"layer_norm": params["final_norm"]}
    for i in range(sum(k.startswith("layers_") for k in params)):
        layer = params[f"layers_{i}"]
        prefix = f"layer_{i}."
        norms |= {
            f"{prefix}self_attention.layer_norm": layer["attention_norm"],
            f"{prefix}ffn.layer_norm": layer["mlp_norm"],
        }
        for part, name in (
            ("qkv", "self_attention.linear_0"),
            ("out", "self_attention.linear_1"),
            ("up", "ffn.linear_0"),
            ("down", "ffn.linear_1"),
        ):
            out[f"{prefix}{name}.weight"] = layer[part]["kernel"].T
            out[f"{prefix}{name}.bias"] = layer[part]["bias"]
    for name, norm in norms.items():
        out[f"{name}.gamma"], out[f"{name}.beta"] = norm["scale"], norm["bias"]
    return {f"encoder.{k}".replace(".", dot): np.asarray(v) for k, v in out.items()}


TYPES = [np.dtype(t) for t in ("f4", "i1", "i2", "i4", "f2")]


def write_ctranslate2(file, variables, aliases=(), spec="WhisperSpec", version=6):
    def text(value):
        return struct.pack("<H", len(value) + 1) + value.encode() + b"\0"

    out = [struct.pack("<I", version), text(spec), struct.pack("<II", 3, len(variables))]
    for name, value in variables.items():
        value = np.asarray(value)
        out += [
            text(name),
            struct.pack("<B", value.ndim),
            struct.pack(f"<{value.ndim}I", *value.shape),
        ]
        out += [struct.pack("<BI", TYPES.index(value.dtype), value.nbytes), value.tobytes()]
    out.append(struct.pack("<I", len(aliases)))
    out += [text(a) + text(b) for a, b in aliases]
    Path(file).write_bytes(b"".join(out))


def write_hub(folder, tensors, **config):
    from safetensors.numpy import save_file

    folder.mkdir(exist_ok=True)
    save_file(tensors, folder / "model.safetensors")
    settings = {"model_type": "whisper", "encoder_attention_heads": 2} | config
    (folder / "config.json").write_text(json.dumps(settings))
    return folder


def test_every_format_gives_the_same_encoder(case, tmp_path, hub):
    params = case.random_params()
    np.savez(tmp_path / "a.npz", **packed(params))
    (tmp_path / "ct2").mkdir()
    variables = packed(params, dot="/") | {"decoder/embeddings/weight": np.ones((3, 2), "f4")}
    write_ctranslate2(tmp_path / "ct2" / "model.bin", variables)
    tensors = {f"model.encoder.{k}": v for k, v in hub(params).items()}
    tensors |= {"model.decoder.x.weight": np.ones(3, "f4"), "proj_out.weight": np.ones(3, "f4")}
    write_hub(tmp_path / "hub", tensors)
    write_hub(tmp_path / "bare", hub(params))
    for path in ("a.npz", "ct2", "ct2/model.bin", "hub", "hub/model.safetensors", "bare"):
        encoder, loaded = whisper.load(tmp_path / path)
        assert encoder == case.SMALL, path
        case.same(loaded, params)
        assert all(leaf.dtype == np.float32 for leaf in jax.tree.leaves(loaded))
    encoder, _ = whisper.load(tmp_path / "hub", pad=True, peak=1.0)
    assert encoder == dataclasses.replace(case.SMALL, pad=True, peak=1.0)
    init = jax.eval_shape(case.SMALL.init, jax.random.key(0))
    assert jax.tree.map(jnp.shape, init) == jax.tree.map(jnp.shape, params)


def test_hub_in_shards_and_bfloat16(case, tmp_path, hub):
    import ml_dtypes
    from safetensors.numpy import save_file

    params = case.random_params()
    tensors = {f"model.encoder.{k}": v for k, v in hub(params).items()}
    folder = write_hub(
        tmp_path / "hub", {k: v.astype(ml_dtypes.bfloat16) for k, v in tensors.items()}
    )
    _, loaded = whisper.load(folder)
    case.same(loaded, params, rtol=2**-8)
    (folder / "model.safetensors").unlink()
    names = sorted(tensors)
    index = {}
    for i, part in enumerate((names[::2], names[1::2])):
        save_file({n: tensors[n] for n in part}, folder / f"model-{i}.safetensors")
        index |= {n: f"model-{i}.safetensors" for n in part}
    (folder / "model.safetensors.index.json").write_text(json.dumps({"weight_map": index}))
    case.same(whisper.load(folder)[1], params)
    (folder / "model-1.safetensors").unlink()
    with pytest.raises(InputError, match=r"model-1.safetensors: no such file, but .*index.json"):
        whisper.load(folder)


def test_ctranslate2_quantised_half_and_aliased(case, tmp_path):
    params = case.random_params()
    params["layers_1"]["mlp_norm"] = params["layers_0"]["mlp_norm"]
    variables, file = packed(params, dot="/"), tmp_path / "model.bin"
    half = {k: v.astype("f2") if v.dtype == "f4" else v for k, v in variables.items()}
    write_ctranslate2(file, half)
    case.same(whisper.load(file)[1], params, rtol=1e-3, atol=1e-6)
    aliases = []
    for part in ("gamma", "beta"):
        twin, name = (f"encoder/layer_{i}/ffn/layer_norm/{part}" for i in (1, 0))
        del variables[twin]
        aliases.append((twin, name))
    quantised = {}
    for name, value in variables.items():
        if name.endswith("weight"):
            axes = tuple(range(1, value.ndim)) if "conv2" in name else 1
            scale = (127 / np.abs(value).max(axis=axes)).astype("f4")
            wide = scale.reshape(-1, 1, 1) if "conv2" in name else np.expand_dims(scale, 1)
            quantised[name] = np.rint(value * wide).astype("i1")
            quantised[f"{name}_scale"] = scale
        else:
            quantised[name] = value
    write_ctranslate2(file, quantised, aliases)
    loaded = whisper.load(file)[1]
    case.same(loaded["layers_1"]["mlp_norm"], params["layers_0"]["mlp_norm"])
    case.same(loaded, params, atol=0.02)
    quantised["encoder/conv2/weight_scale"] = np.ones(7, "f4")
    write_ctranslate2(file, quantised, aliases)
    with pytest.raises(InputError, match=r"conv2.weight_scale \(7,\) fits no weight"):
        whisper.load(file)


def drop(d, name):
    del d[name]


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda d: drop(d, "layers.1.fc2.bias"), "1 weight missing: layers.1.fc2.bias"),
        (lambda d: [drop(d, k) for k in list(d) if "layers.1" in k], "15 weights missing"),
        (lambda d: d.update({"adapter.weight": d["conv1.bias"]}), "unknown.*: adapter.weight"),
        (lambda d: d.update({"layers.0.self_attn.k_proj.bias": d["conv1.bias"]}), "k_proj.bias"),
        (
            lambda d: d.update({"layers.0.fc1.weight": d["layers.0.fc1.weight"].T.copy()}),
            r"another shape: layers.0.fc1.weight \(16, 24\) for \(24, 16\)",
        ),
        (lambda d: d["layers.0.fc1.bias"].__setitem__(3, np.nan), "not finite.*layers.0.fc1.bias"),
        (lambda d: d.update({"conv1.bias": np.zeros(16, np.int32)}), "floating.*conv1.bias"),
        (lambda d: drop(d, "conv1.weight"), "conv1.weight is missing"),
        (lambda d: d.update({"conv1.weight": d["conv1.bias"]}), "conv1.weight has shape"),
    ],
)
def test_weights_that_are_wrong_are_named(case, tmp_path, hub, change, message):
    tensors = hub(case.random_params())
    change(tensors)
    folder = write_hub(tmp_path / "hub", tensors, encoder_layers=2)
    with pytest.raises(InputError, match=message) as error:
        whisper.load(folder)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize(
    ("config", "message"),
    [
        ({"model_type": "wav2vec2"}, "model_type is 'wav2vec2', expected 'whisper'"),
        ({"activation_function": "relu"}, "activation_function is 'relu'"),
        ({"d_model": 32}, "of another shape"),
        ({"encoder_layers": "two"}, "the encoder has layers 'two'"),
        ({"encoder_attention_heads": 3}, "width 16 is no multiple of 3 heads"),
        ({"max_source_positions": 1499}, "embed_positions.weight"),
    ],
)
def test_config_that_does_not_fit(case, tmp_path, hub, config, message):
    folder = write_hub(tmp_path / "hub", hub(case.random_params()), **config)
    with pytest.raises(InputError, match=message):
        whisper.load(folder)


def test_files_that_are_not_weights(tmp_path):
    with pytest.raises(InputError, match="no such file"):
        whisper.load(tmp_path / "none")
    with pytest.raises(InputError, match="no model.safetensors"):
        whisper.load(tmp_path)
    (tmp_path / "pytorch_model.bin").write_bytes(b"x")
    with pytest.raises(InputError, match="pickles are refused"):
        whisper.load(tmp_path)
    (tmp_path / "model.bin.part1").write_bytes(b"x")
    with pytest.raises(InputError, match="cat model.bin.part1 model.bin.part2"):
        whisper.load(tmp_path)
    (tmp_path / "a.txt").write_text("x")
    with pytest.raises(InputError, match="not a format"):
        whisper.load(tmp_path / "a.txt")
    for name in ("a.npz", "model.safetensors", "model.bin"):
        for content in (b"", b"\x06\0\0\0", b"no weights at all " * 9):
            (tmp_path / name).write_bytes(content)
            with pytest.raises(InputError, match=name):
                whisper.load(tmp_path / name)
    np.savez(tmp_path / "a.npz", **{"encoder.conv1.weight": np.array([object()])})
    with pytest.raises(InputError, match="pickled objects, which are refused"):
        whisper.load(tmp_path / "a.npz")
    with open(tmp_path / "a.npz", "wb") as file:
        np.save(file, np.zeros(3))
    with pytest.raises(InputError, match="a.npz"):
        whisper.load(tmp_path / "a.npz")
    write_ctranslate2(tmp_path / "model.bin", {}, spec="TransformerSpec")
    with pytest.raises(InputError, match="a CTranslate2 model of 'TransformerSpec'"):
        whisper.load(tmp_path / "model.bin")


def test_damaged_files_are_named(case, tmp_path, hub):
    params = case.random_params()
    np.savez(tmp_path / "a.npz", **packed(params))
    write_ctranslate2(tmp_path / "b.bin", packed(params, dot="/"))
    write_hub(tmp_path, hub(params))
    for name in ("a.npz", "b.bin", "model.safetensors"):
        whole = (tmp_path / name).read_bytes()
        for share in np.linspace(0.02, 0.99, 12):
            (tmp_path / name).write_bytes(whole[: int(share * len(whole))])
            with pytest.raises(InputError, match=name):
                whisper.load(tmp_path / name)
    rng = np.random.default_rng(0)
    header = whole = (tmp_path / "b.bin").read_bytes()
    write_ctranslate2(tmp_path / "b.bin", packed(params, dot="/"))
    whole = (tmp_path / "b.bin").read_bytes()
    for _ in range(60):  # A byte changed near the front: read, or refused in one line.
        broken = bytearray(whole)
        broken[rng.integers(0, 120)] ^= int(rng.integers(1, 256))
        (tmp_path / "b.bin").write_bytes(broken)
        try:
            whisper.load(tmp_path / "b.bin")
        except InputError as error:
            assert "b.bin" in str(error) and "\n" not in str(error)
    assert header != whole


@pytest.mark.parametrize("quantization", ["float16", "int8", "float32"])
def test_files_of_ctranslate2s_own_writer(case, tmp_path, quantization):
    reason = "its own writer needs ctranslate2, not installed here"
    pytest.importorskip("ctranslate2", reason=reason)
    from ctranslate2.specs import model_spec, whisper_spec

    class Spec(model_spec.ModelSpec):
        name, revision = "WhisperSpec", 3

        def __init__(self):
            super().__init__()
            self.encoder = whisper_spec.WhisperEncoderSpec(2, 2)

    params, spec = case.random_params(), Spec()
    for name, value in packed(params).items():
        parent, _, last = name.replace(".", "/").rpartition("/")
        plain = np.ascontiguousarray(value) if value.ndim else np.int16(value)
        setattr(model_spec.index_spec(spec, parent), last, plain)
    spec.validate()
    spec.optimize(quantization=quantization)
    spec._serialize(tmp_path / "model.bin")
    encoder, loaded = whisper.load(tmp_path)
    assert encoder == case.SMALL
    loss = {"float32": 0, "float16": 1e-3, "int8": 0.03}[quantization]
    case.same(loaded, params, rtol=min(loss, 1e-3), atol=loss)
