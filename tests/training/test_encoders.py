"""Runs with a speech encoder: what it costs, what is kept, and that they go on to the bit."""

import dataclasses
import json
import os
import shutil
import signal
import subprocess
import sys
from pathlib import Path

import jax
import numpy as np
import pytest

from a2fjax import configuration as config_lib
from a2fjax import rig, tasks
from a2fjax.cli import main
from a2fjax.configuration import Resolved
from a2fjax.data import records
from a2fjax.errors import InputError, Preempted
from a2fjax.infer.predictor import Predictor
from a2fjax.models import flops, pretrained
from a2fjax.models import params as params_lib
from a2fjax.models.params import paths
from a2fjax.training import checkpoints, optimizer, starting_point, state, step, trainer
from a2fjax.training.inputs import ShardInputs
from data_pipeline.stages import shard_writer as shards_lib


def clip(number, split):
    rng = np.random.default_rng(number)
    samples = 12000 + 500 * number
    frames = records.num_frames(samples)
    time_s = np.arange(samples) / 16000
    jaw = np.clip(np.sin(2 * np.pi * 1.5 * time_s), 0, None)
    audio = 0.2 * jaw * np.sin(2 * np.pi * 140 * time_s) + 0.002 * rng.normal(size=samples)
    motion = np.zeros((frames, rig.NUM_CHANNELS), np.float32)
    motion[:, rig.INDEX["jawOpen"]] = 0.6 * jaw[::320]
    emotion = np.zeros((frames, rig.NUM_EMOTIONS), np.float32)
    emotion[:, 0] = 1
    return records.Clip(
        id=f"s/{number}", subject="s", sentence=f"{split} {number}", language="en", split=split,
        audio=audio.astype(np.float32), motion=motion, channel_mask=np.ones(72, bool),
        frame_mask=np.ones(frames, bool), emotion=emotion, speech_level=0.1, synthetic=True,
    )  # fmt: skip


@pytest.fixture(scope="module")
def shards(tmp_path_factory):
    """Six clips of about a second."""
    folder = tmp_path_factory.mktemp("set") / "shards"
    folder.mkdir()
    clips = [clip(n, split) for n, split in enumerate(["train"] * 4 + ["val"] * 2)]
    shards_lib.write_shards(
        folder, lambda: iter(clips), len(clips), 1, files=1,
        subjects=[records.Subject("s", None, False)], meshes={}, source=lambda statistics: {},
    )  # fmt: skip
    return folder


def make_config(shards, *features, steps=4, fsdp=1, data_axis=-1, data=None, **encoder):
    values = {
        "name": "heard",
        "steps": steps,
        "audio": {"features": features, "encoder": {"width": 8, **encoder}},
        "data": {
            "shards": [str(shards)], "batch_size": 4, "window_frames": 16, "identity_points": 8,
            "context_frames": 50, "threads": 1, **(data or {}),
        },
        "model": {
            "identity": "none", "conv_layers": 1, "conv_width": 8, "recurrent_width": 6,
            "emotion_width": 4,
        },
        "optim": {"warmup_steps": 1},
        "checkpoint": {"every_steps": 2, "keep_latest": 9, "keep_best": 0},
        "eval": {"every_steps": 0, "batches": 1},
        "log": {"every_steps": 1},
        "sharding": {"fsdp": fsdp, "data": data_axis, "min_mib": 6e-5},
    }  # fmt: skip
    return config_lib.build(config_lib.Config, values, where="test")


def train(config, run, **options):
    return trainer.train(Resolved(config, {}), run, say=lambda line: None, **options)


def same(a, b):
    assert jax.tree.structure(a) == jax.tree.structure(b)
    leaves = zip(jax.tree.leaves(a), jax.tree.leaves(b), strict=True)
    return all(np.asarray(x).tobytes() == np.asarray(y).tobytes() for x, y in leaves)


def folder_of(feature):
    return Path(feature.partition(":")[2])


def size_of(tree):
    return sum(np.size(x) for x in jax.tree.leaves(tree))


# ---- what frozen parts cost ---------------------------------------------------------------------


def shapes(shards, *features, **settings):
    """(config, task, optimiser, batch, state), the last two without values."""
    config = make_config(shards, *features, **settings)
    task = tasks.build(config)
    tx = optimizer.build(config.optim, config.steps, config.audio.encoder.learning_rate)
    batch = ShardInputs(config).spec()
    made = jax.eval_shape(
        lambda b, p: state.create(task, tx, b, p, seed=0, average=True), batch, task.pretrained
    )
    return config, task, tx, batch, made


def costs(shards, *features, **settings):
    """(operations of an update less those of the model's own forward and backward, its state)."""
    config, task, tx, batch, made = shapes(shards, *features, **settings)
    update = step.make_train_step(task, tx, config)
    found = flops.flops(update, made, batch)
    # Products and convolutions alone: no elementwise sum of optimiser or clipping is among them.
    return found["dot"] + found["convolution"], made, task


def whole_forward(task, made, batch):
    params = params_lib.merge(made.params, made.frozen)
    name, encoder = next(iter(task.model.audio_features.encoders.items()))
    weights = params["encoders"][name]
    run = flops.flops(encoder.apply, weights, batch.context_audio, batch.context_length)
    return run["dot"] + run["convolution"]


@pytest.mark.parametrize(
    ("name", "remat"),
    [
        ("wav2vec2", True),
        ("whisper", False),
        pytest.param("large", False, marks=pytest.mark.slow),
    ],
)
def test_frozen_layers_cost_no_gradient(shards, tiny_encoders, name, remat):
    """Of a training step: nothing goes back through what is frozen, nor is it computed again."""
    feature = tiny_encoders[name]
    spent, states = {}, {}
    for first in (None, 2, 1, 0):
        spent[first], states[first], task = costs(shards, feature, train_from=first, remat=remat)
    batch = ShardInputs(make_config(shards, feature)).spec()
    forward = whole_forward(task, states[0], batch)
    # The same model on states that were computed before costs what it costs less the encoder.
    config = make_config(shards, feature)
    encoded = starting_point.feature_specs(pretrained.load(config.audio))
    cached = make_config(shards, feature, data={"encoder_features": "cached"})
    spec = ShardInputs(cached, cached=encoded).spec()
    task = tasks.build(cached)
    tx = optimizer.build(cached.optim, cached.steps)
    made = jax.eval_shape(
        lambda b, p: state.create(task, tx, b, p, seed=0, average=True), spec, task.pretrained
    )
    found = flops.flops(step.make_train_step(task, tx, cached), made, spec)
    without = found["dot"] + found["convolution"]
    assert spent[None] - without == forward
    # Trained from the last layer, that one's products go back twice each, and no more than that.
    one_layer = np.diff([_forward_of(feature, n, batch) for n in (1, 2)])[0]
    per_layer = spent[1] - spent[2]
    assert per_layer == spent[0] - spent[1]
    if remat:  # Once more forward, but for products that no slope needs.
        assert 2 * one_layer < per_layer <= 3 * one_layer
    else:
        assert per_layer == 2 * one_layer
    # Below the first trained layer nothing is computed but the forward; and the model's own
    # projection hands on a slope, which it need not where all is frozen.
    projection = 2 * 4 * 16 * 16 * 8
    top = spent[2] - spent[None] - projection
    assert one_layer < top <= per_layer


def _forward_of(feature, layers, batch):
    from a2fjax.configuration import EncoderConfig
    from a2fjax.encoders import storage

    encoder, params = storage.load(feature, EncoderConfig(layers=layers))
    found = flops.flops(encoder.apply, params, batch.context_audio, batch.context_length)
    return found["dot"] + found["convolution"]


@pytest.mark.parametrize("name", ["wav2vec2", "whisper"])
def test_frozen_layers_cost_no_memory_of_the_optimiser(shards, tiny_encoders, name):
    feature = tiny_encoders[name]
    *_, plain = shapes(shards, "mel")
    sizes = {}
    for first in (None, 2, 0):
        _, task, *_, made = shapes(shards, feature, train_from=first)
        whole = params_lib.count(task.pretrained)
        trained = params_lib.count(made.params.get("encoders", {}))
        assert trained + params_lib.count(made.frozen["encoders"]) == whole
        assert params_lib.count(made.ema.get("encoders", {})) == trained
        own = params_lib.count(made.params) - trained
        moments = sum(np.prod(x.shape) for x in jax.tree.leaves(made.opt_state) if x.shape)
        assert moments == 2 * (own + trained)
        sizes[first] = trained
    assert sizes[None] == 0 < sizes[2] < sizes[0] < whole
    assert "encoders" not in plain.frozen


# ---- whole runs ---------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def tuned(shards, tiny_encoders, tmp_path_factory):
    """A run of four steps that trains the last layer of a copy of the encoder, then lost it."""
    root = tmp_path_factory.mktemp("tuned")
    weights = shutil.copytree(folder_of(tiny_encoders["wav2vec2"]), root / "weights")
    config = make_config(
        shards, "mel", f"wav2vec2:{weights}", train_from=2, mix=True, learning_rate=0.5,
        noise=0.1, dropout=0.1, time_mask=0.1, feature_dropout=0.2,
    )  # fmt: skip
    before = pretrained.load(config.audio)["1_wav2vec2"][1]
    done = train(config, root / "run")
    shutil.rmtree(weights)
    return config, root / "run", done, before


@pytest.mark.slow
def test_only_the_trained_layers_move(tuned):
    config, run, done, before = tuned
    after = params_lib.merge(done.params, done.frozen)["encoders"]["1_wav2vec2"]
    for path, value in paths(before):
        now = dict(paths(after))[path]
        moved = not np.array_equal(np.asarray(now), value)
        assert moved == path.startswith("encoder/layers/2/"), path
    assert not np.array_equal(
        np.asarray(done.params["params"]["backbone"]["feature_fusion"]["1_wav2vec2_mix"]),
        np.zeros(4),
    )


@pytest.mark.slow
def test_a_checkpoint_holds_the_trained_part_only(tuned):
    _, run, done, before = tuned
    for item in checkpoints.ITEMS:
        _, params, _ = checkpoints.load_params(run, item=item)
        assert list(params["encoders"]["1_wav2vec2"]["encoder"]["layers"]) == ["2"]
        assert set(params["encoders"]["1_wav2vec2"]) == {"encoder"}
    kept = pretrained.restore(run, tuned[0].audio)["1_wav2vec2"][1]
    assert same(kept, before)
    assert [p.name for p in (run / "encoders").iterdir()] == ["1_wav2vec2.safetensors"]


@pytest.mark.slow
def test_bytes_on_disk_do_not_hold_the_frozen_encoder(shards, tmp_path):
    """With an encoder of 3 MB: not in a state, once in the run."""
    from a2fjax.encoders import wav2vec2

    layout = wav2vec2.Wav2Vec2Config(
        conv_dim=(12, 12), conv_kernel=(40, 10), conv_stride=(40, 8), hidden_size=128,
        num_hidden_layers=4, num_attention_heads=2, intermediate_size=512,
        num_conv_pos_embeddings=16, num_conv_pos_embedding_groups=4,
    )  # fmt: skip
    params = wav2vec2.Wav2Vec2Encoder(layout).init(jax.random.key(0))
    wav2vec2.save(tmp_path / "weights", layout, params)
    bytes_of = {}
    for name, features in (
        ("without", ("mel",)), ("frozen", ("mel", f"wav2vec2:{tmp_path / 'weights'}"))
    ):  # fmt: skip
        config = make_config(shards, *features, steps=2)
        train(config, tmp_path / name)
        files = [p for p in (tmp_path / name / "checkpoints").rglob("*") if p.is_file()]
        bytes_of[name] = sum(p.stat().st_size for p in files)
    kept = (tmp_path / "frozen" / "encoders" / "1_wav2vec2.safetensors").stat().st_size
    assert kept > 2.5e6
    assert bytes_of["frozen"] - bytes_of["without"] < 1e5


@pytest.mark.slow
def test_a_stopped_run_goes_on_to_the_bit_without_the_original_weights(tuned, tmp_path):
    """Elsewhere, too: all it needs of the encoder is in the folder."""
    config, whole, done, _ = tuned
    run = tmp_path / "moved"
    run.mkdir()
    shutil.copytree(whole / "encoders", run / "encoders")
    shutil.copy(whole / "config.json", run)
    inputs = ShardInputs(config)
    plain = inputs.batches

    def batches(start):
        source = plain(start)
        for number in range(start, 99):
            if number == 1:
                os.kill(os.getpid(), signal.SIGTERM)
            yield next(source)
        source.close()

    inputs.batches = batches
    with pytest.raises(Preempted):
        train(config, run, inputs=inputs)
    assert checkpoints.steps(run)[-1] == 2
    again = train(config, shutil.move(run, tmp_path / "elsewhere"))
    assert same(again, done)


def test_a_run_moved_elsewhere_predicts(tuned, tmp_path, capsys):
    config, run, done, _ = tuned
    moved = shutil.copytree(run, tmp_path / "moved")
    audio = clip(9, "test").audio
    predictor = Predictor.load(moved)
    motion = predictor(audio)
    whole = done.merged(average=True)
    task = tasks.build(config, encoders=pretrained.restore(run, config.audio))
    expected = Predictor(config, task, jax.tree.map(np.asarray, whole))(audio)
    np.testing.assert_array_equal(motion, expected)
    # The trained layer counts: without it the face moves otherwise.
    layer = whole["encoders"]["1_wav2vec2"]["encoder"]["layers"]["2"]
    assert not same(layer, tuned[3]["encoder"]["layers"]["2"])
    assert main.main(["inspect", str(moved)]) == 0
    out = capsys.readouterr().out
    assert "1_wav2vec2: 3 layers of width 16, 4 states a frame, trained from layer 2" in out
    assert "training encodes up to 55 frames" in out and "MB that are not trained" in out


def test_a_run_without_its_encoder_says_so(tuned, tmp_path, capsys):
    config, run, _, _ = tuned
    moved = shutil.copytree(run, tmp_path / "moved")
    file = moved / "encoders" / "1_wav2vec2.safetensors"
    whole = file.read_bytes()
    for change, said in ((whole[:1000], "damaged"), (None, "no such file")):
        file.unlink()
        if change is not None:
            file.write_bytes(change)
        for use in (lambda: Predictor.load(moved), lambda: train(config, moved)):
            with pytest.raises(InputError, match=said) as error:
                use()
            assert str(file) in str(error.value)
        assert main.main(["inspect", str(moved)]) == 2
        shown = capsys.readouterr().err
        assert said in shown and len(shown.strip().splitlines()) == 1


def test_another_encoder_is_another_run(tuned, tiny_encoders):
    """Also where the one that is named now could not even be read."""
    config, run, _, _ = tuned
    for name in (tiny_encoders["hubert"], "wav2vec2:/moved/weights"):
        audio = dataclasses.replace(config.audio, features=("mel", name))
        with pytest.raises(InputError, match="audio.features was .*, now .*take another folder"):
            train(dataclasses.replace(config, audio=audio), run)


@pytest.mark.slow
def test_a_run_that_died_while_it_kept_its_encoders_starts_again(shards, tiny_encoders, tmp_path):
    features = ("mel", tiny_encoders["hubert"], tiny_encoders["whisper"])
    config = make_config(shards, *features, steps=2)
    done = train(config, tmp_path / "whole")
    run = tmp_path / "died"
    (run / "encoders").mkdir(parents=True)
    shutil.copy(tmp_path / "whole" / "config.json", run)
    shutil.copy(tmp_path / "whole" / "encoders" / "1_hubert.safetensors", run / "encoders")
    assert same(train(config, run), done)
    assert len(list((run / "encoders").iterdir())) == 2
    # What lies there of no known run is not taken for this one's.
    stray = tmp_path / "stray"
    shutil.copytree(tmp_path / "whole" / "encoders", stray / "encoders")
    with pytest.raises(InputError, match="holds encoders but no config.json"):
        train(config, stray)


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"train_from": 3}, "train_from=3: whisper runs 3 layers; expected -1 to 2"),
        ({"layers": 5}, "audio.encoder.layers=5: .* has 3 layers"),
        ({"heard": 20}, "data.context_frames=20: clip s/3 .* has 43 frames"),
    ],
)
def test_what_does_not_fit_is_said_before_the_folder_is_made(
    shards, tiny_encoders, tmp_path, change, said
):
    heard = {"context_frames": change.pop("heard")} if "heard" in change else {}
    config = make_config(shards, tiny_encoders["whisper"], data=heard, **change)
    with pytest.raises(InputError, match=said):
        train(config, tmp_path / "run")


@pytest.mark.parametrize(
    ("value", "said"),
    [
        ("mle", "did you mean 'mel'"),
        ("whisper", "did you mean 'whisper:PATH'"),
        ("whisper:", "whisper:PATH"),
        ("wisper:/some/where", "did you mean 'whisper:/some/where'"),
        ("mel:x", "expected one of: hubert:x, wav2vec2:x, whisper:x"),
        ("tone", "expected one of: mel, pitch, hubert:PATH, wav2vec2:PATH, whisper:PATH"),
    ],
)
def test_features_that_there_are_not(value, said):
    with pytest.raises(InputError, match=said):
        config_lib.build(config_lib.Config, {"audio": {"features": [value]}}, where="config")


def test_an_encoders_rate_is_a_factor_of_the_models(shards, tiny_encoders):
    """Of AdamW's whole first step, which is the rate's size whatever the gradient."""
    config = make_config(shards, tiny_encoders["whisper"], train_from=0)
    params = {
        "encoders": {"0_whisper": {"kernel": np.ones((3, 2), np.float32)}},
        "head": {"kernel": np.ones((3, 2), np.float32)},
    }
    grads = jax.tree.map(lambda x: 0.1 * x, params)
    for factor in (1.0, 0.1, 0.0):
        tx = optimizer.build(config.optim, 10, factor)
        made = tx.init(params)
        for _ in range(2):  # The first is of the warm-up, of rate 0.
            updates, made = tx.update(grads, made, params)
        head = updates["head"]["kernel"]
        assert np.abs(head).min() > 0
        np.testing.assert_allclose(
            updates["encoders"]["0_whisper"]["kernel"], factor * head, rtol=1e-6
        )


def test_experiments_with_encoders_are_inspected(shards, tiny_encoders, tmp_path, capsys):
    path = tmp_path / "x.py"
    values = dataclasses.asdict(make_config(shards, "mel", tiny_encoders["whisper"]))
    path.write_text(
        "import json\ndef get_config(variant=''):\n"
        f"    return json.loads({json.dumps(json.dumps(values))})\n"
    )
    assert main.main(["inspect", str(path)]) == 0
    out = capsys.readouterr().out
    assert "1_whisper: 3 layers of width 16, 1 state a frame, frozen" in out
    assert "encoders/1_whisper/conv1/kernel (frozen)" in out and "the whole clip (encoders)" in out
    live = float(out.split(" to train")[0].split(",")[-1])
    assert main.main(["inspect", str(path), "--config.data.encoder_features=cached"]) == 0
    out = capsys.readouterr().out
    assert "read from a cache in training" in out
    cached = float(out.split(" to train")[0].split(",")[-1])
    assert cached < live  # It does not run the encoder.
    assert main.main(["inspect", str(path), "--config.audio.features=whisper:/none"]) == 2
    assert "/none: no such file" in capsys.readouterr().err


CHILD = """
import importlib.util, json, shutil, sys
from pathlib import Path

import jax
import numpy as np

spec = importlib.util.spec_from_file_location("here", sys.argv[1])
here = importlib.util.module_from_spec(spec)
spec.loader.exec_module(here)

root, shards, feature = Path(sys.argv[2]), *sys.argv[3:]


def run(name, **changes):
    config = here.make_config(shards, "mel", feature, train_from=2, **changes)
    return here.train(config, root / name)


def close(a, b):
    for x, y in zip(jax.tree.leaves(a), jax.tree.leaves(b), strict=True):
        np.testing.assert_allclose(np.asarray(x), np.asarray(y), rtol=1e-3, atol=1e-5)


assert len(jax.devices()) == 4
one = run("one", data_axis=1)
four = run("four", fsdp=2)
for part, layer in ((four.frozen, "0"), (four.params, "2")):
    kernel = part["encoders"]["1_wav2vec2"]["encoder"]["layers"][layer]
    kernel = kernel["attention"]["q_proj"]["kernel"]
    assert len(kernel.sharding.device_set) == 4 and not kernel.is_fully_replicated
close(one, four)
# Half of it on four devices, the rest on one: the frozen weights come from the folder.
shutil.copytree(root / "four", root / "moved")
shutil.rmtree(root / "moved" / "checkpoints" / "4")
moved = run("moved", data_axis=1)
assert len(jax.tree.leaves(moved.frozen)[0].sharding.device_set) == 1
close(one, moved)
print("done")
"""


@pytest.mark.slow
def test_an_encoder_on_four_devices_gives_the_numbers_of_one(shards, tiny_encoders, tmp_path):
    here = Path(__file__).resolve()
    environment = {
        **os.environ,
        "JAX_PLATFORMS": "cpu",
        "XLA_FLAGS": f"{os.environ.get('XLA_FLAGS', '')} --xla_force_host_platform_device_count=4",
    }
    arguments = [str(here), str(tmp_path), str(shards), tiny_encoders["wav2vec2"]]
    done = subprocess.run(
        [sys.executable, "-c", CHILD, *arguments],
        cwd=here.parents[2],
        env=environment,
        capture_output=True,
        text=True,
        timeout=500,
    )
    assert done.returncode == 0 and done.stdout.endswith("done\n"), done.stdout + done.stderr
