"""Damaged checkpoints are refused by the name of what is damaged, however they are loaded."""

import dataclasses
import json
import re
import shutil

import jax
import ml_dtypes
import numpy as np
import pytest

from a2fjax import configuration, sealed_json
from a2fjax.api import inspection
from a2fjax.configuration import CheckpointConfig, Resolved
from a2fjax.errors import InputError
from a2fjax.infer import run_config
from a2fjax.training import checkpoints, checksums, optimizer, run_dir, starting_point, state
from a2fjax.training.checkpoint_writer import CheckpointWriter
from launch.jobs import direct


@pytest.fixture(scope="module")
def saved(toy, tmp_path_factory):
    """A run with one checkpoint, and its abstract state."""
    config = toy.config()
    run = tmp_path_factory.mktemp("run")
    (run / "config.json").write_text(Resolved(config, {}).to_json())
    tx = optimizer.build(config.optim, config.steps)
    batch = toy.Inputs(config)._batch(0, 0)
    made = jax.jit(lambda: state.create(toy.Task(), tx, batch, seed=0, average=True))()
    with CheckpointWriter(run, CheckpointConfig()) as writer:
        writer.save(8, made, {"data": "x"}, {"eval/loss": 1.0})
        writer.wait()
    return run, made


@pytest.fixture
def run(saved, tmp_path):
    return shutil.copytree(saved[0], tmp_path / "run")


def flip(path, rng):
    """Flips a random bit of a file; returns a function that restores it."""
    data = path.read_bytes()
    at = int(rng.integers(len(data)))
    path.write_bytes(data[:at] + bytes([data[at] ^ 1 << int(rng.integers(8))]) + data[at + 1 :])
    return lambda: path.write_bytes(data)


def largest_file(folder):
    return max((p for p in folder.rglob("*") if p.is_file()), key=lambda p: p.stat().st_size)


def test_a_flipped_bit_of_an_array_is_refused_by_name(run):
    rng = np.random.default_rng(0)
    weights = {f"layer_{i}": rng.normal(size=(64, 100)).astype(np.float32) for i in range(6)}
    with CheckpointWriter(run, CheckpointConfig()) as writer:
        writer.save(9, state.TrainState(np.int32(9), weights, {}, weights, weights), {}, {})
        writer.wait()
    arrays = largest_file(run / "checkpoints" / "9" / "ema")
    names = 0
    for _ in range(40):
        restore = flip(arrays, rng)
        try:
            found = checkpoints.load_params(run)[1]
        except InputError as error:
            assert re.search(r"checkpoints/9: .*beside it: \[8\]", str(error))
            assert "\n" not in str(error)
            names += "damaged: ema/layer_" in str(error)
        else:
            # Some bits have no meaning, such as unused ones at the end of a compressed block.
            jax.tree.map(np.testing.assert_array_equal, found, weights)
        restore()
    # A few bits belong to headers of the compression, which fails before there is an array.
    assert names >= 35
    checkpoints.load_params(run)


def test_no_flipped_bit_anywhere_gives_other_weights(run, saved):
    """Some files of a checkpoint are never read: what counts is that no wrong value is loaded."""
    rng = np.random.default_rng(1)
    expected = jax.tree.map(np.asarray, saved[1].merged(average=True))
    for folder in ("ema", "meta"):
        for path in sorted((run / "checkpoints" / "8" / folder).rglob("*")):
            if not path.is_file():
                continue
            restore = flip(path, rng)
            try:
                found, meta = checkpoints.load_params(run)[1:]
            except InputError:
                continue
            finally:
                restore()
            jax.tree.map(np.testing.assert_array_equal, found, expected)
            assert meta["metrics"] == {"eval/loss": 1.0}


@pytest.mark.parametrize("item", ["params", "ema", "opt"])
def test_training_and_starting_points_refuse_damage(run, saved, item, toy):
    path = run / "checkpoints" / "8" / "meta" / "metadata"
    meta = {k: v for k, v in json.loads(path.read_text()).items() if k != "crc32"}
    name = next(iter(meta["checksums"][item]))
    meta["checksums"][item][name] = "ffffffff"
    path.write_text(json.dumps(sealed_json.seal(meta)))
    abstract = jax.tree.map(
        lambda x: jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=x.sharding), saved[1]
    )
    wrong = rf"damaged: {item}/{name} \(checksum does not match\)"
    with CheckpointWriter(run, CheckpointConfig()) as writer, pytest.raises(InputError) as error:
        writer.restore(8, abstract)
    assert error.match(wrong)
    if item == "ema":
        config = toy.config(init_from=str(run))
        with pytest.raises(InputError, match=wrong):
            starting_point.initial_params(config, run.parent / "new")


def test_a_checkpoint_without_checksums_is_refused(run):
    path = run / "checkpoints" / "8" / "meta" / "metadata"
    meta = json.loads(path.read_text())
    path.write_text(json.dumps({k: v for k, v in meta.items() if k != "checksums"}))
    with pytest.raises(InputError, match="meta .it has no checksums"):
        checkpoints.load_params(run)


def loads_of(run, config):
    """Every way in which a program reads a run's settings or starts from its weights."""
    again = Resolved(config, {})
    start = dataclasses.replace(config, init_from=str(run))
    return {
        "resume": lambda: run_dir.check(run, again),
        "infer and evaluate": lambda: run_config.read_config(run),
        "inspect": lambda: inspection.describe_run(run),
        "weights": lambda: checkpoints.load_params(run),
        "init_from": lambda: starting_point.initial_params(start, run.parent / "new"),
        "train --config": lambda: configuration.load(run / "config.json"),
        "list": lambda: direct.config(run),
    }


@pytest.mark.parametrize("key", ["dropout", "window_frames", "emotion_dropout", "steps", "plugins"])
def test_a_changed_setting_is_refused_on_every_load(run, toy, key):
    path = run / "config.json"
    whole = path.read_text()
    lines = whole.splitlines(keepends=True)
    at = next(i for i, line in enumerate(lines) if f'"{key}": ' in line)
    name, value = lines[at].split(": ", 1)
    digit = re.search(r"\d", value)
    value = (
        value.replace(digit[0], "7" if digit[0] != "7" else "3", 1) if digit else '{"a": "b"},\n'
    )
    path.write_text("".join([*lines[:at], f"{name}: {value}", *lines[at + 1 :]]))
    assert path.read_text() != whole
    for what, load in loads_of(run, toy.config()).items():
        with pytest.raises(InputError) as error:
            load()
        text = str(error.value)
        assert f"{path}: was changed after it was written" in text, what
        assert "--config.KEY=VALUE" in text and "\n" not in text


def test_settings_are_changed_with_flags_and_layout_does_not_count(run, toy):
    path = run / "config.json"
    path.write_text(json.dumps(json.loads(path.read_text())))
    for what, load in loads_of(run, toy.config()).items():
        if what != "inspect":  # it builds a real model, which the stand-in's weights are not
            load()
    longer = configuration.load(path, {"steps": "99"})
    run_dir.check(run, longer)
    run_dir.record(run, longer)
    assert run_config.read_config(run).config == longer.config
    with pytest.raises(InputError, match="seed was 0, now 5"):
        run_dir.check(run, configuration.load(path, {"seed": "5"}))


def test_no_flipped_bit_of_the_settings_is_loaded(run):
    path, rng = run / "config.json", np.random.default_rng(2)
    before = configuration.from_json(path.read_bytes())
    refused = 0
    for _ in range(60):
        restore = flip(path, rng)
        try:
            after = configuration.from_json(path.read_bytes())
            assert after == before  # the bit was in the layout
        except InputError:
            refused += 1
        restore()
    assert refused > 20


@pytest.mark.parametrize("dtype", [np.float32, ml_dtypes.bfloat16, np.int8, np.bool_, np.int64])
def test_any_change_of_one_value_changes_the_sum(dtype):
    values = np.random.default_rng(0).integers(0, 2, (7, 9)).astype(dtype)
    before = checksums.of_tree({"a": values})["a"]
    for at in np.ndindex(values.shape):
        changed = values.copy()
        changed[at] = 1 - int(changed[at])
        assert checksums.of_tree({"a": changed})["a"] != before
    swapped = np.flip(values, 0)
    assert checksums.of_tree({"a": swapped})["a"] != before


def test_sums_of_parts_are_the_sum_of_the_whole():
    """Each process adds the shards that it holds, along any axes."""
    whole = np.random.default_rng(0).normal(size=(6, 5, 4)).astype(np.float32)
    for dtype in (np.float32, np.float64, np.float16):
        values = whole.astype(dtype)
        total = 0
        for rows in (slice(0, 2), slice(2, 6)):
            for columns in (slice(None, 3), slice(3, None)):
                index = (rows, slice(None), columns)
                total += checksums._sum(values[index], index, values.shape)
        expected = int(checksums.of_tree([values])["0"], 16)
        assert total & 0xFFFFFFFF == expected
    large = np.zeros(100_000, np.float32)
    parts = [slice(0, 40_001), slice(40_001, 100_000)]
    total = sum(checksums._sum(large[p], (p,), large.shape) for p in parts)
    assert total & 0xFFFFFFFF == int(checksums.of_tree([large])["0"], 16)
