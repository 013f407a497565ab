"""The example of a speech encoder: a package of its own in training, evaluation and inference."""

import shutil
import sys
from pathlib import Path

import numpy as np
import pytest

from a2fjax import configuration, registry, rig
from a2fjax.cli import main
from a2fjax.data import records
from a2fjax.encoders import storage
from a2fjax.errors import InputError
from a2fjax.infer.predictor import Predictor
from data_pipeline.stages import shard_writer

PACKAGE = "a2f_example_encoder"
EXPERIMENT = f"""
from ml_collections import ConfigDict

def get_config(variant=""):
    return ConfigDict({{
        "name": "filters", "steps": 2, "plugins": ("{PACKAGE}",),
        "audio": {{"features": ("mel",), "encoder": {{"width": 8}}}},
        "data": {{"batch_size": 2, "window_frames": 16, "identity_points": 8, "threads": 1,
                  "context_frames": 60, "augment": {{"enabled": False}}}},
        "model": {{"identity": "none", "conv_layers": 1, "conv_width": 8, "recurrent_width": 6,
                   "emotion_width": 4}},
        "optim": {{"warmup_steps": 1}},
        "checkpoint": {{"every_steps": 2}}, "eval": {{"every_steps": 0, "batches": 1}},
    }})
"""


@pytest.fixture
def plugin(tmp_path, monkeypatch):
    """A copy of the package on the path, as after `pip install`; removed after the test."""
    site = tmp_path / "site"
    shutil.copytree(Path(__file__).parent / PACKAGE / PACKAGE, site / PACKAGE)
    monkeypatch.syspath_prepend(site)
    yield site / PACKAGE
    registry.encoders._entries.pop("filters", None)
    for name in [n for n in sys.modules if n.partition(".")[0] == PACKAGE]:
        del sys.modules[name]


def clip(number, split):
    rng = np.random.default_rng(number)
    time_s = np.arange(16_000) / 16_000
    jaw = np.clip(np.sin(2 * np.pi * 1.5 * time_s), 0, None)
    audio = 0.2 * jaw * np.sin(2 * np.pi * 140 * time_s) + 0.002 * rng.normal(size=16_000)
    motion = np.zeros((50, rig.NUM_CHANNELS), np.float32)
    motion[:, rig.INDEX["jawOpen"]] = 0.6 * jaw[::320]
    emotion = np.tile(np.eye(rig.NUM_EMOTIONS, dtype=np.float32)[0], (50, 1))
    return records.Clip(
        id=f"s/{number}", subject="s", sentence=f"{split} {number}", language="en", split=split,
        audio=audio.astype(np.float32), motion=motion, channel_mask=np.ones(72, bool),
        frame_mask=np.ones(50, bool), emotion=emotion, speech_level=0.1, synthetic=True,
    )  # fmt: skip


@pytest.fixture
def shards(tmp_path):
    folder = tmp_path / "shards"
    folder.mkdir()
    clips = [clip(n, split) for n, split in enumerate(["train"] * 2 + ["val"])]
    shard_writer.write_shards(
        folder, lambda: iter(clips), len(clips), 1, files=1,
        subjects=[records.Subject("s", None, False)], meshes={}, source=lambda statistics: {},
    )  # fmt: skip
    return folder


@pytest.mark.slow
def test_an_encoder_of_another_package_trains_live_and_cached_and_predicts(
    plugin, shards, tmp_path, capsys
):
    kernel = np.random.default_rng(0).normal(size=(640, 5)).astype(np.float32)
    np.savez(tmp_path / "filters.npz", kernel=kernel)
    (tmp_path / "exp.py").write_text(EXPERIMENT)
    feature = f"filters:{tmp_path / 'filters.npz'}"
    plugins = f"--config.plugins={PACKAGE}"
    assert main.main(["cache", str(shards), "--features", feature, plugins]) == 0
    motions = []
    for mode in ("live", "cached"):
        run = tmp_path / mode
        assert 0 == main.main(
            [
                "train", "--config", str(tmp_path / "exp.py"), "--workdir", str(run),
                f"--config.data.shards={shards}", f"--config.audio.features=mel,{feature}",
                f"--config.data.encoder_features={mode}",
            ]
        )  # fmt: skip
        kept = run / "encoders" / "1_filters.safetensors"
        encoder, params = storage.restore(kept, configuration.EncoderConfig(), "filters")
        assert encoder.width == 5
        np.testing.assert_array_equal(params["kernel"], kernel)
        motions.append(Predictor.load(run)(clip(7, "test").audio))
    assert motions[0].shape == (50, rig.NUM_CHANNELS)
    np.testing.assert_allclose(*motions, atol=2e-3)
    assert (
        main.main(["evaluate", str(run), "--data", str(shards), "--split", "val", "--quick"]) == 0
    )


def test_defaults_of_the_interface(plugin, tmp_path):
    registry.load_plugins([PACKAGE])
    kernel = np.random.default_rng(0).normal(size=(640, 5)).astype(np.float32)
    np.savez(tmp_path / "filters.npz", kernel=kernel)
    encoder, params = storage.load(f"filters:{tmp_path / 'filters.npz'}")
    assert (encoder.num_states, encoder.num_layers, encoder.max_frames) == (1, 0, None)
    assert encoder.frozen_patterns(None, "encoders/0_x/") == ("^encoders/0_x/",)
    assert encoder.frozen_patterns(-1) == ()
    with pytest.raises(InputError, match="train_from=0: filters runs 0 layers; expected -1 to -1"):
        encoder.frozen_patterns(0)
    changed = {"kernel": kernel + 1e-3}
    assert encoder.fingerprint(params) == encoder.fingerprint(dict(params))
    assert encoder.fingerprint(params) != encoder.fingerprint(changed)
    audio = np.random.default_rng(1).normal(size=(2, 1600)).astype(np.float32)
    got = np.asarray(encoder.apply(params, audio, np.array([5, 3])))
    alone = np.asarray(encoder.apply(params, audio[1:, :960]))
    assert got.shape == (2, 5, 1, 5)
    np.testing.assert_allclose(got[1:, :3], alone, atol=1e-5)


def test_mistakes_are_one_line(plugin, shards, tmp_path, capsys):
    plugins = f"--config.plugins={PACKAGE}"
    for arguments, message in (
        (["--features", "filter:x.npz", plugins], "did you mean 'filters:x.npz'?"),
        (["--features", f"filters:{tmp_path / 'x.npz'}", plugins], "x.npz: no filters"),
        (["--features", "mel,filters:x.npz"], "config.plugins"),
    ):
        if "--config" not in arguments[-1]:
            registry.encoders._entries.pop("filters", None)
        assert main.main(["cache", str(shards), *arguments]) == 2
        (line,) = capsys.readouterr().err.splitlines()
        assert message in line
