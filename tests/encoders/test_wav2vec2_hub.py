"""Checkpoints on disk: all naming schemes of the hub, and all errors of files."""

import dataclasses
import json
import os
import subprocess
import sys

import jax
import numpy as np
import pytest
from safetensors.numpy import load_file, save_file

from a2fjax.encoders import wav2vec2
from a2fjax.errors import InputError

TINY = wav2vec2.Wav2Vec2Config(
    conv_dim=(8, 8),
    conv_kernel=(40, 10),
    conv_stride=(40, 8),
    hidden_size=16,
    num_hidden_layers=2,
    num_attention_heads=4,
    intermediate_size=24,
    num_conv_pos_embeddings=6,
    num_conv_pos_embedding_groups=4,
    do_normalize=False,
)
LARGE = dataclasses.replace(
    TINY,
    model_type="hubert",
    conv_bias=True,
    feat_extract_norm="layer",
    do_stable_layer_norm=True,
    feat_proj_layer_norm=False,
)
OLD = {
    "parametrizations.weight.original0": "weight_g",
    "parametrizations.weight.original1": "weight_v",
}
# Written out by hand: names and shapes of a base model on the hub.
NAMES = {
    "masked_spec_embed": (16,),
    "feature_extractor.conv_layers.0.conv.weight": (8, 1, 40),
    "feature_extractor.conv_layers.0.layer_norm.weight": (8,),
    "feature_extractor.conv_layers.0.layer_norm.bias": (8,),
    "feature_extractor.conv_layers.1.conv.weight": (8, 8, 10),
    "feature_projection.layer_norm.weight": (8,),
    "feature_projection.layer_norm.bias": (8,),
    "feature_projection.projection.weight": (16, 8),
    "feature_projection.projection.bias": (16,),
    "encoder.pos_conv_embed.conv.bias": (16,),
    "encoder.pos_conv_embed.conv.parametrizations.weight.original0": (1, 1, 6),
    "encoder.pos_conv_embed.conv.parametrizations.weight.original1": (16, 4, 6),
    "encoder.layer_norm.weight": (16,),
    "encoder.layer_norm.bias": (16,),
}
for _i in range(2):
    for _part in ("attention.q_proj", "attention.k_proj", "attention.v_proj", "attention.out_proj"):
        NAMES |= {f"encoder.layers.{_i}.{_part}.weight": (16, 16)}
        NAMES |= {f"encoder.layers.{_i}.{_part}.bias": (16,)}
    for _part in ("layer_norm", "final_layer_norm"):
        NAMES |= {f"encoder.layers.{_i}.{_part}.weight": (16,)}
        NAMES |= {f"encoder.layers.{_i}.{_part}.bias": (16,)}
    NAMES |= {
        f"encoder.layers.{_i}.feed_forward.intermediate_dense.weight": (24, 16),
        f"encoder.layers.{_i}.feed_forward.intermediate_dense.bias": (24,),
        f"encoder.layers.{_i}.feed_forward.output_dense.weight": (16, 24),
        f"encoder.layers.{_i}.feed_forward.output_dense.bias": (16,),
    }


@pytest.fixture
def tensors():
    rng = np.random.default_rng(0)
    return {name: rng.normal(size=shape).astype(np.float32) for name, shape in NAMES.items()}


@pytest.fixture
def folder(tmp_path, tensors):
    folder = tmp_path / "modèle"
    folder.mkdir()
    (folder / "config.json").write_text(json.dumps(TINY.to_config()))
    (folder / "preprocessor_config.json").write_text('{"do_normalize": false}')
    save_file(tensors, folder / "model.safetensors")
    return folder


def same(one, other):
    assert jax.tree.structure(one) == jax.tree.structure(other)
    return all(
        np.array_equal(a, b)
        for a, b in zip(jax.tree.leaves(one), jax.tree.leaves(other), strict=True)
    )


def test_weights_are_assigned_to_their_parameters(folder, tensors):
    layout, params, ignored = wav2vec2.load(folder)
    assert layout == TINY and ignored == []
    layer = params["encoder"]["layers"]["1"]
    name = "encoder.layers.1.feed_forward.output_dense.weight"
    np.testing.assert_array_equal(layer["feed_forward"]["output_dense"]["kernel"], tensors[name].T)
    conv = params["encoder"]["pos_conv_embed"]["conv"]
    name = "encoder.pos_conv_embed.conv.parametrizations.weight.original"
    np.testing.assert_array_equal(conv["g"], tensors[f"{name}0"][0, 0])
    np.testing.assert_array_equal(conv["v"], tensors[f"{name}1"].transpose(2, 1, 0))
    expected = jax.eval_shape(wav2vec2.Wav2Vec2Encoder(TINY).init, jax.random.key(0))
    assert jax.tree.map(np.shape, params) == jax.tree.map(np.shape, expected)


@pytest.mark.parametrize("old", [False, True])
@pytest.mark.parametrize("prefix", ["", "wav2vec2."])
@pytest.mark.parametrize("sharded", [False, True])
def test_names_of_the_hub(folder, tensors, old, prefix, sharded):
    expected = wav2vec2.load(folder)[1]
    renamed = {}
    for name, value in tensors.items():
        for new, before in OLD.items():
            name = name.replace(new, before) if old else name
        renamed[prefix + name] = value
    renamed |= {
        "lm_head.weight": np.zeros((3, 16), np.float32),
        "quantizer.codevectors": np.ones(2),
    }
    (folder / "model.safetensors").unlink()
    if sharded:
        names = list(renamed)
        parts = {"a.safetensors": names[:20], "b.safetensors": names[20:]}
        for part, part_names in parts.items():
            save_file({name: renamed[name] for name in part_names}, folder / part)
        index = {
            "weight_map": {name: part for part, part_names in parts.items() for name in part_names}
        }
        (folder / "model.safetensors.index.json").write_text(json.dumps(index))
    else:
        save_file(renamed, folder / "model.safetensors")
    layout, params, ignored = wav2vec2.load(folder)
    assert same(params, expected) and ignored == ["lm_head.weight", "quantizer.codevectors"]
    encoder, first = wav2vec2.Wav2Vec2Encoder.load(folder, layers=1, precision="bfloat16")
    assert encoder == wav2vec2.Wav2Vec2Encoder(TINY, layers=1, precision="bfloat16")
    expected["encoder"]["layers"].pop("1")
    assert same(first, expected)


@pytest.mark.parametrize("dtype", ["float16", "bfloat16", "float64"])
def test_other_float_types_become_float32(folder, tensors, dtype):
    import ml_dtypes  # noqa: F401 - teaches numpy the name "bfloat16".

    save_file({n: v.astype(dtype) for n, v in tensors.items()}, folder / "model.safetensors")
    params = wav2vec2.load(folder)[1]
    got = params["feature_projection"]["projection"]["bias"]
    assert got.dtype == np.float32
    expected = tensors["feature_projection.projection.bias"].astype(dtype).astype(np.float32)
    np.testing.assert_array_equal(got, expected)


@pytest.mark.parametrize("layout", [TINY, LARGE], ids=["base", "large"])
def test_written_and_read_again(tmp_path, layout):
    params = wav2vec2.Wav2Vec2Encoder(layout).init(jax.random.key(1))
    wav2vec2.save(tmp_path / "made" / "here", layout, params)
    again, read, ignored = wav2vec2.load(tmp_path / "made" / "here")
    assert again == (layout if layout is LARGE else dataclasses.replace(layout))
    assert same(read, params) and ignored == []
    names = load_file(tmp_path / "made" / "here" / "model.safetensors")
    if layout is TINY:
        assert {n: v.shape for n, v in names.items()} == NAMES
    changed = jax.tree.map(np.array, params)
    del changed["encoder"]["layers"]["1"]
    wav2vec2.save(tmp_path / "first", layout, changed)
    assert wav2vec2.load(tmp_path / "first")[0] == dataclasses.replace(layout, num_hidden_layers=1)
    del changed["encoder"]["layers"]["0"]["layer_norm"]["bias"]
    with pytest.raises(ValueError, match="encoder/layers/0/layer_norm/bias' is missing"):
        wav2vec2.save(tmp_path / "second", layout, changed)
    assert not (tmp_path / "second").exists()


def refused(folder, *messages):
    with pytest.raises(InputError) as error:
        wav2vec2.load(folder)
    message = str(error.value)
    assert "\n" not in message
    for part in messages:
        assert part in message, message


@pytest.mark.parametrize("name", NAMES)
def test_no_weight_may_be_missing(folder, tensors, name):
    del tensors[name]
    save_file(tensors, folder / "model.safetensors")
    refused(folder, "1 weights are missing", name)


def test_weights_that_do_not_fit_are_named(folder, tensors):
    tensors["encoder.layers.0.attention.q_proj.bias"] = np.zeros(17, np.float32)
    tensors["encoder.layers.2.attention.q_proj.bias"] = np.zeros(16, np.float32)
    tensors["adapter.proj.weight"] = np.zeros(16, np.float32)
    del tensors["encoder.layer_norm.bias"]
    save_file(tensors, folder / "model.safetensors")
    refused(
        folder,
        "1 weights are missing (encoder.layer_norm.bias)",
        "q_proj.bias is (17,), expected (16,)",
        "2 are unknown (adapter.proj.weight, encoder.layers.2.attention.q_proj.bias)",
    )
    save_file({"a": np.zeros(1, np.float32)}, folder / "model.safetensors")
    refused(folder, f"{len(NAMES)} weights are missing", "and 40 more")


def test_values_that_are_not_numbers_are_named(folder, tensors):
    tensors["encoder.layer_norm.bias"][2] = np.nan
    save_file(tensors, folder / "model.safetensors")
    refused(folder, "encoder.layer_norm.bias holds values that are not finite")
    tensors["encoder.layer_norm.bias"] = np.zeros(16, np.int32)
    save_file(tensors, folder / "model.safetensors")
    refused(folder, "encoder.layer_norm.bias is int32, expected floating point")


def test_damaged_files(folder, tensors):
    path = folder / "model.safetensors"
    whole = path.read_bytes()
    for size in (0, 5, 100, len(whole) - 1):
        path.write_bytes(whole[:size])
        refused(folder, str(path), "cannot be read as safetensors")
    path.unlink()
    (folder / "pytorch_model.bin").write_bytes(b"")
    refused(folder, "no model.safetensors", "pickle, which is refused", "save_pretrained")
    (folder / "model.safetensors.index.json").write_text(
        '{"weight_map": {"a": "../b.safetensors"}}'
    )
    refused(folder, "weight_map: '../b.safetensors': expected a file name inside")
    (folder / "model.safetensors.index.json").write_text('{"weight_map": {"a": 3}}')
    refused(folder, "no weight_map")
    (folder / "config.json").write_text('{"model_type": "wav2vec2",')
    refused(folder, "config.json: not JSON")
    (folder / "config.json").write_text("[]")
    refused(folder, "holds a list")
    (folder / "config.json").unlink()
    refused(folder, "no config.json in this folder")


@pytest.mark.parametrize(
    ("change", "messages"),
    [
        (
            {"model_type": "hubertt"},
            "model_type='hubertt' is not supported; did you mean 'hubert'?",
        ),
        ({"model_type": None}, "model_type=None: expected str"),
        ({"hidden_act": "gelo"}, "did you mean 'gelu'?"),
        ({"feat_extract_norm": "batch"}, "expected one of: group, layer"),
        ({"add_adapter": True}, "add_adapter=True is not supported"),
        ({"adapter_attn_dim": 16}, "adapter_attn_dim=16 is not supported"),
        ({"conv_pos_batch_norm": True}, "conv_pos_batch_norm=True is not supported"),
        ({"conv_dim": [8, 8, 8]}, "have 3, 2 and 2 entries"),
        ({"conv_kernel": [40, 0]}, "conv_kernel=(40, 0): expected a list of whole numbers above 0"),
        ({"num_attention_heads": 3}, "hidden_size=16 is not a multiple of num_attention_heads=3"),
        ({"hidden_size": "16"}, "hidden_size='16': expected a whole number from 1"),
        ({"layer_norm_eps": 0}, "layer_norm_eps=0: expected a number"),
        ({"mask_time_prob": 1.5}, "mask_time_prob=1.5: expected a number from 0 to 1"),
        ({"conv_bias": 1}, "conv_bias=1: expected bool"),
    ],
)
def test_unsupported_configurations_are_refused(folder, change, messages):
    (folder / "config.json").write_text(json.dumps({**TINY.to_config(), **change}))
    refused(folder, "config.json: ", messages)


def test_other_sample_rates_are_refused(folder):
    (folder / "preprocessor_config.json").write_text('{"sampling_rate": 8000}')
    refused(folder, "preprocessor_config.json: sampling_rate=8000, expected 16000")
    # Files that may be absent must not be taken for absent where something else has their name.
    for kind, make in (
        ("is a named pipe", os.mkfifo),
        ("is a folder", os.mkdir),
        ("no such file", lambda path: os.symlink("nowhere", path)),
    ):
        (folder / "preprocessor_config.json").unlink()
        make(folder / "preprocessor_config.json")
        refused(folder, f"preprocessor_config.json: {kind}")
        if kind == "is a folder":
            (folder / "preprocessor_config.json").rmdir()
            (folder / "preprocessor_config.json").touch()


def test_models_of_the_hub_cache_are_read_without_network(folder, tmp_path):
    """A cache as huggingface_hub lays it out, in a process that only knows HF_HOME."""
    commit = "0" * 40
    model = tmp_path / "home" / "hub" / "models--someone--tiny"
    (model / "snapshots").mkdir(parents=True)
    (model / "refs").mkdir()
    (model / "refs" / "main").write_text(commit)
    folder.rename(model / "snapshots" / commit)
    code = (
        "import sys; sys.modules['torch'] = None  # is not installed\n"
        "from a2fjax.encoders import wav2vec2\n"
        "from a2fjax.errors import InputError\n"
        "print(wav2vec2.load('someone/tiny')[0].hidden_size)\n"
        "for name in ('someone/other', '/no/such/place', 'a b'):\n"
        "    try: wav2vec2.load(name)\n"
        "    except InputError as error: print(error)\n"
    )
    environment = {**os.environ, "HF_HOME": str(tmp_path / "home"), "JAX_PLATFORMS": "cpu"}
    environment.pop("HF_HUB_CACHE", None)
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, env=environment, check=True
    )
    lines = done.stdout.splitlines()
    assert lines[0] == "16" and len(lines) == 4 and done.stderr == ""
    assert all("neither a folder with a config.json nor a model" in line for line in lines[1:])
