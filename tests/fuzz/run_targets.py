"""A small run with its shards and encoders, and the commands that read them."""

import contextlib
import functools
import json
import os
import shutil
from pathlib import Path
from unittest import mock

import numpy as np
import soundfile
from target import TESTS, Target, head_of, load

from a2fjax.cli import main as a2fjax_main
from a2fjax.errors import WorkFailed
from a2fjax.training.training_loop import TrainingLoop

CONFIG = ("run/config.json", "run/checkpoints/*/meta/*")
AVERAGE = ("run/checkpoints/2/ema/**/*",)
SHARDS = ("shards/*.json", "shards/subjects/*", "shards/*.arrayrecord")


def quietly(words):
    """Runs a command without its output."""
    with open(os.devnull, "w") as null, contextlib.redirect_stdout(null):
        assert a2fjax_main.main(words) == 0, words


def write_experiment(folder):
    """Writes an experiment and its shards into a new folder, and returns the folder."""
    folder.mkdir(parents=True)
    return load(TESTS / "end_to_end" / "conftest.py").write_experiment(folder)


def words_of(root, run, *changes):
    """Returns the words of `a2fjax train`."""
    setup = load(TESTS / "end_to_end" / "conftest.py")
    return setup.train_arguments(root, run, "--config.data.workers=0", *changes)


@functools.cache
def make_trained(folder):
    """Trains a small model for two steps, once for all targets; returns the folder."""
    root = write_experiment(folder / "trained")
    quietly(words_of(root, root / "run", "--config.steps=2"))
    return root


def make_run(folder):
    """Returns targets of infer, inspect and config, which read a run."""
    root = make_trained(folder)
    rng = np.random.default_rng(0)
    t = np.arange(16_000) / 16_000
    soundfile.write(root / "a.wav", 0.1 * np.sin(900 * t) * rng.random(len(t)), 16_000)
    neutral = head_of()[0].astype(np.float32)
    faces = np.array([[0, 1, 2], [2, 3, 4]], np.int32)
    np.save(root / "mesh.npy", neutral)
    np.savez(root / "mesh.npz", vertices=neutral, faces=faces)
    damage = load(TESTS / "data_pipeline" / "damage" / "conftest.py")
    (root / "mesh.obj").write_bytes(damage.obj_bytes(neutral))
    (root / "mesh.ply").write_bytes(damage.ply_bytes(neutral))
    track = {"times": [0.0, 0.5], "weights": [{"happy": 0.7}, [0, 0, 1, 0, 0]], "blend": 0.2}
    (root / "mood.json").write_text(json.dumps(track))
    (root / "mood.csv").write_text("time,happy,sad\n0,1,0\n0.5,0.2,0.3\n")

    def inspect(what):
        return lambda work: a2fjax_main.main(["inspect", str(work / what)])

    def infer(work, words=()):
        known = {"mood": "--emotion", "mesh": "--identity"}
        changed = os.environ["FUZZ_VICTIM"]
        words = [f"{known[p]}={changed}" for p in known if Path(changed).stem == p]
        return a2fjax_main.main(
            ["infer", str(work / "run"), f"--audio={work / 'a.wav'}",
             f"--out={work / 'out.csv'}", *words]
        )  # fmt: skip

    def pinned(work):
        return a2fjax_main.main(["config", str(work / "run" / "config.json")])

    config = (*CONFIG, "run/metrics.jsonl", *AVERAGE)
    return [
        Target("run infer inputs", root, ("mesh.*", "mood.*"), infer, 2.0, ("mesh.*", "mood.*")),
        Target("run infer", root, config, infer),
        Target("run inspect", root, config, inspect("run")),
        Target("run inspect shards", root, SHARDS, inspect("shards"), 2.0),
        Target("run config", root, ("run/config.json",), pinned, 1.5, ("run/config.json",)),
    ]


def make_bundles(folder):
    """Returns targets that read a bundle where a run is read."""
    from a2fjax.export import writer

    root = folder / "bundles"
    shutil.copytree(make_trained(folder), root)
    t = np.arange(8_000) / 16_000
    soundfile.write(root / "a.wav", 0.1 * np.sin(900 * t), 16_000)
    # One small graph: the files of graphs are only compared with the manifest.
    writer.export(root / "run", root / "bundle", ["stablehlo"], graphs=["identity"])
    words = ("--quick", "--split=test_sentences")

    def infer(work):
        given = (f"--audio={work / 'a.wav'}", f"--out={work / 'out.csv'}")
        return a2fjax_main.main(["infer", str(work / "bundle"), *given])

    def inspect(work):
        return a2fjax_main.main(["inspect", str(work / "bundle")])

    def measured(work):
        given = (f"--data={work / 'shards'}", f"--out={work / 'out.json'}")
        return a2fjax_main.main(["evaluate", str(work / "bundle"), *words, *given])

    def started(work):
        return prepared(words_of(work, work / "new", f"--config.init_from={work / 'bundle'}"))

    needed = tuple(f"bundle/{n}" for n in ("a2fjax.json", "config.json", "model.safetensors"))
    every = ("bundle/**/*", *2 * needed)
    return [
        Target("bundle infer", root, every, infer, 1.5, needed),
        Target("bundle inspect", root, every, inspect, 1.0, needed),
        Target("bundle evaluate", root, needed, measured, 1.0, needed),
        Target("bundle init_from", root, needed, started, 1.0, needed),
    ]


def make_training(folder):
    """Returns targets of train: its configuration, shards, starting point, and resumed runs."""
    root = make_trained(folder)
    base = load(TESTS / "data" / "conftest.py").tiny_encoder(folder / "hubs", "base")
    kept = write_experiment(folder / "cached")
    encoder = (f"--config.audio.features=mel,{base}", "--config.data.encoder_features=cached")
    quietly(["cache", str(kept / "shards"), "--features", base])
    with open(os.devnull, "w") as null, contextlib.redirect_stderr(null):
        prepared(words_of(kept, kept / "run", *encoder))  # It keeps its encoders before it trains.

    def configured(work):
        changed = os.environ["FUZZ_VICTIM"]
        given = (f"--config.data.shards={work / 'shards'}", "--config.data.workers=0")
        return prepared(["train", f"--config={changed}", f"--workdir={work / 'new'}", *given])

    def started(work):
        return prepared(words_of(work, work / "new", f"--config.init_from={work / 'run'}"))

    def shards(work):
        return a2fjax_main.main(words_of(work, work / "new", "--config.steps=2"))

    def resumed(work):
        return a2fjax_main.main(words_of(root, work / "run", "--config.steps=3"))

    def restored(work):
        return prepared(words_of(kept, work / "run", *encoder))

    def features(work):
        return prepared(words_of(work, work / "new", *encoder))

    state = tuple(f"run/checkpoints/2/{item}/**/*" for item in ("params", "opt", "meta"))
    state += (*AVERAGE, "run/checkpoints/2/_CHECKPOINT_METADATA", "run/*")
    pinned = ("experiment.py", "run/config.json")
    caches = ("shards/feature_cache/*/*",)
    return [
        Target("train config", root, pinned, configured, 2.0, pinned),
        Target("train init_from", root, (*CONFIG, *AVERAGE), started, 1.0, CONFIG[:1]),
        Target("train shards", root, SHARDS, shards, 1.5, SHARDS[:2]),
        Target("train resume", root, state, resumed, 1.5),
        Target("train encoders", kept, ("run/encoders/*",), restored, 0.7, ("run/encoders/*",)),
        Target("train cached", kept, (*caches, SHARDS[0]), features, 1.0, caches),
    ]


def prepared(words):
    """Runs a training up to its first compilation, which each configuration needs anew."""

    def end(self):
        raise WorkFailed("the case ends before the model is compiled")

    with mock.patch.object(TrainingLoop, "run", end):
        return a2fjax_main.main(words)


def make_evaluation(folder):
    """Returns targets of evaluate: runs, shards and reports."""
    root = make_trained(folder)
    words = ("--quick", "--split=test_sentences")
    quietly(["evaluate", str(root / "run"), *words, f"--out={root / 'report.json'}"])

    def measured(work):
        given = (f"--data={work / 'shards'}", f"--out={work / 'out.json'}")
        return a2fjax_main.main(["evaluate", str(work / "run"), *words, *given])

    def shown(work):
        return a2fjax_main.main(["evaluate", str(work / "run"), f"--show={work / 'report.json'}"])

    report = ("report.json",)
    return [
        Target("evaluate run", root, (*CONFIG, *AVERAGE), measured, 1.0, CONFIG[:1]),
        Target("evaluate shards", root, SHARDS, measured, 1.5, SHARDS[:1]),
        Target("evaluate show", root, report, shown, 2.0, report),
    ]


def make_caches(folder):
    """Returns targets of cache: encoders, shards, and the caches of an earlier call."""
    data = load(TESTS / "data" / "conftest.py")
    root = write_experiment(folder / "cache")
    for kind in ("base", "whisper"):
        data.tiny_encoder(root, kind)

    def features(work, kind):
        return f"wav2vec2:{work / 'base'}" if kind == "base" else f"whisper:{work / 'whisper.npz'}"

    quietly(["cache", str(root / "shards"), "--features", features(root, "base")])

    def cached(work, anew=False):
        if anew:
            shutil.rmtree(work / "shards" / "feature_cache")
        changed = Path(os.environ["FUZZ_VICTIM"])
        kind = "whisper" if changed.suffix == ".npz" else "base"
        return a2fjax_main.main(["cache", str(work / "shards"), "--features", features(work, kind)])

    weights = ("whisper.npz", "base/*")
    needed = ("whisper.npz", "base/config.json", "base/*.safetensors")
    return [
        Target("cache encoders", root, weights, cached, 1.5, needed),
        Target("cache shards", root, SHARDS[::2], lambda w: cached(w, True), 1.0, SHARDS[:1]),
        Target("cache again", root, ("shards/feature_cache/*/*",), cached),
    ]
