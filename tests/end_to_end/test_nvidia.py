"""NVIDIA's networks trained in the loop on real shards with tiny random encoders, then used."""

import contextlib
import itertools
import json

import jax
import numpy as np
import pytest

from a2fjax import configuration as config_lib
from a2fjax import rig, tasks
from a2fjax.cli import main
from a2fjax.encoders import wav2vec2
from a2fjax.errors import InputError
from a2fjax.infer.predictor import Predictor, Request, batch_shapes
from a2fjax.models import params as trees
from a2fjax.training import tracking, trainer
from a2fjax.training.inputs import ShardInputs

TINY = {
    "conv_dim": (8,) * 7,
    "hidden_size": 16,
    "num_hidden_layers": 2,
    "num_attention_heads": 2,
    "intermediate_size": 16,
    "num_conv_pos_embeddings": 8,
    "num_conv_pos_embedding_groups": 2,
    "mask_time_prob": 0.0,
}


@pytest.fixture(scope="module")
def encoders(tmp_path_factory):
    """Folders of tiny random encoders, by kind."""
    root = tmp_path_factory.mktemp("encoders")
    for kind in ("wav2vec2", "hubert"):
        layout = wav2vec2.Wav2Vec2Config(model_type=kind, **TINY)
        params = wav2vec2.Wav2Vec2Encoder(layout).init(jax.random.key(0))
        wav2vec2.save(root / kind, layout, jax.tree.map(np.asarray, params))
    return root


@pytest.fixture(scope="module")
def head(tmp_path_factory):
    """A small head of which every channel moves some vertex."""
    rng = np.random.default_rng(0)
    names = [n for n in rig.CHANNELS if n not in rig.EYE_ANGLES]
    deltas = rng.normal(size=(len(names), 60, 3))
    path = tmp_path_factory.mktemp("head") / "head.npz"
    tongue = np.arange(40, 60)
    for k, name in enumerate(names):
        deltas[k, : 40 if name in rig.TONGUE else 0] = 0.0
    values = {"neutral": 4 * rng.normal(size=(60, 3)), "names": np.array(names)}
    lips = {"lip_upper": np.array([1, 2]), "lip_lower": np.array([3, 4])}
    np.savez(path, **values, **lips, deltas=deltas, tongue=tongue)
    return path


def values_of(kind, encoders, shards, *, steps, head=None, **own):
    conv = kind == "conv_w2v_autocorr"
    model = {"kind": kind, "width": 16, "standardise": True}
    if conv:
        model |= {"lag_widths": (4, 4, 4, 4), "skin": 30}
    else:
        model |= {"recurrent_width": 16, "recurrent_dropout": 0.0, "diffusion_steps": 100}
    if head is not None:
        model |= {"head": "geometry", "rig": str(head)}
    return {
        "name": kind,
        "steps": steps,
        "audio": {
            "features": (f"wav2vec2:{encoders / 'wav2vec2'}",)
            if conv
            else (f"hubert:{encoders / 'hubert'}",),
            "encoder": {"mix": conv},
        },
        "data": {
            "shards": (str(shards),),
            "batch_size": 4,
            "window_frames": 32,
            "identity_points": 32,
            "context_frames": 150,
            "augment": {"enabled": False},
        },
        "model": {**model, **own},
        "optim": {"warmup_steps": 2, "learning_rate": 1e-2, "weight_decay": 0.0},
        "checkpoint": {"every_steps": steps // 2, "keep_best": 0},
        "eval": {"every_steps": steps, "batches": 2},
        "log": {"every_steps": 1},
    }


def resolve(values):
    return config_lib.Resolved(config_lib.build(config_lib.Config, values, where="test"), {})


def losses(run, name="train/loss"):
    return [line[name] for line in tracking.read_metrics(run) if name in line]


# Each network once, each head once, and each of the losses that are theirs alone.
KINDS = [
    ("conv_w2v_autocorr", False, {"implicit_emotion": True, "vol_stab": 100.0}),
    (
        "diffusion_rnn",
        True,
        {"lip_dist": 0.01, "exp_smooth": 0.1, "actors": 0, "sampler": "ddim", "sample_steps": 3},
    ),
]


@pytest.fixture(
    scope="module",
    params=KINDS,
    ids=["conv rig", "diffusion geometry"],
)
def run(request, tmp_path_factory, setup, encoders, head, compile_once):
    """A run of one kind and head, its configuration, and whether it is of geometry."""
    kind, is_geometry, own = request.param
    name = f"{kind[:4] if kind[0] == 'c' else 'diffusion'}_{'geometry' if is_geometry else 'rig'}"
    folder = tmp_path_factory.mktemp(name, numbered=False) / "run"
    values = values_of(
        kind, encoders, setup / "shards", steps=80, head=head if is_geometry else None, **own
    )
    trainer.train(resolve(values), folder, say=str)
    return folder, values


@pytest.mark.slow
def test_the_loss_falls_and_the_held_out_one_is_finite(run):
    """Mean of the last ten steps at most 0.6 of the first five's."""
    folder, values = run
    found = losses(folder)
    assert np.isfinite(found).all()
    assert np.mean(found[-10:]) < 0.6 * np.mean(found[:5]), found
    assert np.isfinite(losses(folder, "eval/loss")).all()
    logged = set().union(*tracking.read_metrics(folder))
    for term in ("vol_stab", "lip_dist", "exp_smooth"):
        assert (f"train/loss/{term}" in logged) == bool(values["model"].get(term))
    assert ("train/loss/emo_reg" in logged) == bool(values["model"].get("implicit_emotion"))


@pytest.mark.slow
def test_the_run_predicts_evaluates_and_inspects(run, setup, tmp_path, capsys):
    folder, values = run
    predictor = Predictor.load(folder)
    rng = np.random.default_rng(0)
    audio = (0.1 * rng.normal(size=20_000)).astype(np.float32)
    motion = predictor(audio)
    assert motion.shape == (63, 72) and (motion >= rig.MIN).all() and (motion <= rig.MAX).all()
    # The same by seed, whatever stands beside it in the batch and however long the padding is.
    np.testing.assert_array_equal(motion, Predictor.load(folder)(audio))
    long = (0.1 * rng.normal(size=50_000)).astype(np.float32)
    beside = predictor.batch([Request(audio), Request(0.5 * audio), Request(long)])
    np.testing.assert_allclose(beside[0], motion, atol=2e-3)
    if values["model"].get("actors") == 0:
        assert predictor.subjects == ("s0", "s1")
        persons = [predictor(audio, subject=s) for s in ("s0", "s1", None)]
        assert np.abs(persons[0] - persons[1]).max() > 1e-4
        assert np.abs(persons[0] - persons[2]).max() > 1e-5

    if folder.parent.name in ("conv_rig", "diffusion_geometry"):  # each network and each head once
        out = tmp_path / "report.json"
        assert main.main(["evaluate", str(folder), "--quick", f"--out={out}"]) == 0
        assert "test_sentences" in json.loads(out.read_text())["splits"]
    capsys.readouterr()
    assert main.main(["inspect", str(folder)]) == 0
    said = capsys.readouterr().out
    assert "of network and encoders" in said
    assert ("geometry: skin" in said) == ("rig" in values["model"])


@pytest.mark.slow
def test_a_stopped_run_goes_on_with_the_same_numbers(run, tmp_path):
    """Noise and steps are drawn by step: nothing of them is in a checkpoint."""
    folder, values = run
    if folder.parent.name != "diffusion_geometry":
        pytest.skip("one is enough: the others draw less")
    resolved = resolve(values)

    class Stop(Exception):
        """Something breaks after step 45."""

    class Broken(ShardInputs):
        def batches(self, start_step):
            with contextlib.closing(super().batches(start_step)) as own:
                yield from itertools.islice(own, 45)
            raise Stop

    with pytest.raises(Stop):
        trainer.train(resolved, tmp_path / "run", inputs=Broken(resolved.config), say=str)
    trainer.train(resolved, tmp_path / "run", say=str)
    assert losses(tmp_path / "run")[-40:] == losses(folder)[-40:]


# ---- what does not fit ---------------------------------------------------------------------------


@pytest.mark.parametrize(
    "changes, said",
    [
        ({"audio.features": ("mel",)}, "exactly one speech encoder"),
        ({"audio.encoder.mix": True}, "takes the last hidden state alone"),
        ({"model.vol_stab": 1.0}, "unknown key 'model.vol_stab'"),
        ({"model.sample_steps": 101}, "sample_steps=101: expected at most"),
        ({"model.part_weights": {"tonge": 1.0}}, "did you mean|tongue"),
        ({"model.head": "geometry"}, "model.rig=PATH"),
        ({"model.lip_dist": 1.0}, "model.head='geometry'"),
        ({"model.actors": 5}, "has 2 subjects; expected 0"),
        ({"model.kind": "diffusion_rn"}, "diffusion_rnn"),
    ],
)
def test_values_that_do_not_fit_are_refused_by_name(setup, encoders, changes, said):
    values = values_of("diffusion_rnn", encoders, setup / "shards", steps=4)
    for key, value in changes.items():
        *parents, last = key.split(".")
        branch = values
        for parent in parents:
            branch = branch[parent]
        branch[last] = value
    with pytest.raises(InputError, match=said):
        config = resolve(values).config
        tasks.build(config, tasks.constants(config))


# ---- published sizes through configuration ------------------------------------------------------


def counted(experiment, overrides, layout, layers, transformer):
    """Parameters of network and encoder of an experiment, from shapes alone."""
    from a2fjax.encoders.wav2vec2.speech_encoder import Wav2Vec2SpeechEncoder

    config = config_lib.load(experiment, overrides).config
    network = wav2vec2.Wav2Vec2Encoder(layout, layers=layers)
    encoder = Wav2Vec2SpeechEncoder(network, config.audio.encoder.mix)
    weights = jax.eval_shape(network.init, jax.random.key(0))
    task = tasks.build(config, None, {f"0_{layout.model_type}": (encoder, weights)})
    batch = batch_shapes(config, 1, 64)
    params = jax.eval_shape(lambda b: task.init(jax.random.key(0), b), batch)
    params = {k: v for k, v in params.items() if k not in ("constants", "implicit")}
    return trees.count(params) + trees.count(weights), task, params, weights


def sized_head(path, skin, tongue):
    """A head of so many vertices with two shapes."""
    total = skin + tongue
    neutral = np.random.default_rng(0).normal(size=(total, 3)).astype(np.float32)
    values = {"neutral": neutral, "names": np.array(["jawOpen", "tongueUp"])}
    np.savez(path, **values, deltas=np.stack([neutral, neutral]), tongue=np.arange(skin, total))
    return path


@pytest.mark.parametrize("variant, layers, count", [("mark", 1, 18_273_331), ("claire", 4, None)])
def test_v2_has_the_published_count_through_configuration(tmp_path, variant, layers, count):
    # torchaudio's network, which NVIDIA took, has no vector for masked frames.
    layout = wav2vec2.Wav2Vec2Config(mask_time_prob=0.0)
    head = sized_head(tmp_path / "h.npz", 200, 50)
    overrides = {"model.head": "geometry", "model.rig": str(head)}
    found, task, params, _ = counted(
        "experiments/nvidia_presets.py:" + variant, overrides, layout, layers, layers
    )
    assert task.model.layout.width == {"mark": 301, "claire": 169}[variant]
    assert params["params"]["w2v_feature_coeffs"].shape == (layers,)
    if count is not None:
        assert found == count


def test_v3_has_the_published_count_through_configuration(tmp_path):
    head = sized_head(tmp_path / "h.npz", 24_002, 5_602)
    overrides = {"model.head": "geometry", "model.rig": str(head)}
    overrides["model.actors"] = "3"
    layout = wav2vec2.Wav2Vec2Config(model_type="hubert")
    found, task, params, weights = counted(
        "experiments/nvidia_presets.py:diffusion", overrides, layout, 12, 12
    )
    assert task.model.layout.width == 88_831
    assert found == 179_664_830
    trained, _ = trees.split({**params, "encoders": {"0_hubert": weights}}, task.frozen)
    assert trees.count(trained) == 160_893_630
