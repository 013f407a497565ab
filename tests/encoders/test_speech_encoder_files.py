"""Speech encoders by name, and their files: weights, those that a run keeps, damaged ones."""

import dataclasses
import json
import shutil
from pathlib import Path

import jax
import numpy as np
import pytest

from a2fjax.configuration import EncoderConfig
from a2fjax.encoders import feature_names, storage, wav2vec2
from a2fjax.errors import InputError, WorkFailed
from a2fjax.models.params import paths

# ---- names --------------------------------------------------------------------------------------


def test_names():
    assert feature_names.parse("whisper:a/b:c.npz") == ("whisper", "a/b:c.npz")
    assert feature_names.feature_keys(("mel", "whisper:a", "pitch", "hubert:b")) == {
        "1_whisper": "whisper:a",
        "3_hubert": "hubert:b",
    }
    with pytest.raises(InputError, match="did you mean 'whisper'"):
        feature_names.parse("wisper:a")
    with pytest.raises(InputError, match="expected hubert:PATH"):
        feature_names.parse("hubert:")


def test_weights_of_another_kind_are_refused(tiny_encoders):
    folders = {name: text.partition(":")[2] for name, text in tiny_encoders.items()}
    for name, holds in (
        (f"hubert:{folders['wav2vec2']}", "wav2vec2"),
        (f"wav2vec2:{folders['hubert-large']}", "hubert"),
        (f"wav2vec2:{folders['whisper']}", "whisper"),
        (f"hubert:{folders['whisper']}", "whisper"),
        (f"whisper:{folders['large']}", "wav2vec2"),
    ):
        with pytest.raises(InputError) as error:
            storage.load(name, EncoderConfig())
        path = name.partition(":")[2]
        assert f"holds a {holds} model; write {holds}:{path}" in str(error.value)
    file = Path(folders["whisper"]) / "model.safetensors"
    with pytest.raises(InputError, match="is a file; expected a folder with config.json"):
        storage.load(f"wav2vec2:{file}", EncoderConfig())


@pytest.mark.parametrize("name", ["hubert", "whisper"])
@pytest.mark.parametrize(("layers", "message"), [(4, "has 3 layers; expected 0 to 3"), (-2, "-1")])
def test_more_layers_than_the_encoder_has_are_refused(load, name, layers, message):
    with pytest.raises(InputError, match=f"audio.encoder.layers={layers}: .*{message}"):
        load(name, layers=layers)


@pytest.mark.parametrize("kind", ["wav2vec2", "hubert", "whisper"])
def test_missing_weights_are_refused(tmp_path, kind):
    for path in (str(tmp_path / "none"), "someone/nothing"):
        with pytest.raises(InputError, match="hub's cache") as error:
            storage.load(f"{kind}:{path}", EncoderConfig())
        assert path in str(error.value) and "\n" not in str(error.value)


def test_tilde_is_the_home_folder(tiny_encoders, tmp_path, monkeypatch):
    shutil.copytree(tiny_encoders["whisper"].partition(":")[2], tmp_path / "mine")
    monkeypatch.setenv("HOME", str(tmp_path))
    assert storage.load("whisper:~/mine", EncoderConfig())[0].num_layers == 3


def test_other_frame_rates_are_refused(tiny_encoders, tmp_path):
    folder = shutil.copytree(tiny_encoders["hubert"].partition(":")[2], tmp_path / "other")
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps({**config, "conv_stride": [40, 4]}))
    with pytest.raises(InputError, match="a frame every 160 samples, expected 320"):
        storage.load(f"hubert:{folder}", EncoderConfig())


# ---- files of a run -----------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["wav2vec2", "hubert-large", "whisper"])
def test_saved_and_restored_is_the_same_to_the_bit(load, tmp_path, name):
    for layers in (-1, 1):
        encoder, params = load(name, layers=layers)
        storage.save(tmp_path / "x.safetensors", encoder, params)
        again, read = storage.restore(tmp_path / "x.safetensors", EncoderConfig(mix=True))
        assert again.all_states and again.num_layers == encoder.num_layers
        assert again.kind == encoder.kind and again.describe() == encoder.describe()
        assert {p: v.tobytes() for p, v in paths(read)} == {
            p: v.tobytes() for p, v in paths(params)
        }
        assert again.fingerprint(read) == encoder.fingerprint(params)
        (tmp_path / "x.safetensors").unlink()


def test_fingerprints_tell_encoders_apart(load, tmp_path, tiny_encoders):
    """They depend on weights, layers, architecture and precision, not on the location of files."""
    encoder, params = load("wav2vec2")
    prints = {"plain": encoder.fingerprint(params)}
    folder = shutil.copytree(tiny_encoders["wav2vec2"].partition(":")[2], tmp_path / "moved")
    moved, same = storage.load(f"wav2vec2:{folder}", EncoderConfig(layers=3, remat=True))
    assert moved.fingerprint(same) == prints["plain"]
    for key, settings in {"fewer": {"layers": 2}, "rough": {"precision": "bfloat16"}}.items():
        other, values = load("wav2vec2", **settings)
        prints[key] = other.fingerprint(values)
    changed = jax.tree.map(np.array, params)
    changed["encoder"]["layers"]["1"]["layer_norm"]["bias"][3] += 1e-6
    prints["weights"] = encoder.fingerprint(changed)
    layout = dataclasses.replace(encoder.network.config, hidden_act="relu")
    relu = dataclasses.replace(encoder, network=wav2vec2.Wav2Vec2Encoder(layout))
    prints["layout"] = relu.fingerprint(params)
    hubert, hubert_params = load("hubert")
    prints["hubert"] = hubert.fingerprint(hubert_params)
    assert len(set(prints.values())) == len(prints)


def test_files_that_are_damaged(load, tmp_path):
    from safetensors.numpy import load_file, save_file

    encoder, params = load("whisper", layers=1)
    path = tmp_path / "0_whisper.safetensors"
    storage.save(path, encoder, params)
    whole = path.read_bytes()

    def refused(message):
        with pytest.raises(InputError, match=message) as error:
            storage.restore(path, EncoderConfig(), "whisper")
        assert str(path) in str(error.value) and "\n" not in str(error.value)

    for size in (0, 7, 100, len(whole) - 1):
        path.write_bytes(whole[:size])
        refused("not a saved encoder, or damaged")
    flipped = bytearray(whole)
    flipped[-5] ^= 1
    path.write_bytes(flipped)
    refused("checksum")
    path.write_bytes(whole)
    tensors = load_file(path)
    metadata = {"encoder": json.dumps(encoder.describe()), "crc32": "0"}
    for wrong in ({}, {k: v for k, v in tensors.items() if "conv1" not in k}):
        save_file(wrong, path, metadata=metadata)
        refused("its weights do not fit its description")
    save_file(tensors, path)
    refused("not a saved encoder")
    save_file(tensors, path, metadata={"encoder": '{"kind": "whisper", "layers": 1}'})
    refused("not the description of an encoder")
    storage.save(path, *load("hubert"))
    refused("holds a hubert encoder, expected whisper")
    path.unlink()
    refused("no such file")


def test_a_full_disk_leaves_no_half_file(load, tmp_path):
    import resource

    path = tmp_path / "0_whisper.safetensors"
    encoder, params = load("whisper")
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (4096, hard))
    try:
        with pytest.raises(WorkFailed, match="could not be written"):
            storage.save(path, encoder, params)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    assert list(tmp_path.iterdir()) == []
