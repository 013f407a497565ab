import asyncio
import gc
import json
import os
import shutil
import sys

import jax
import numpy as np
import pytest

from a2fjax import rig, sealed_json
from a2fjax.configuration import CheckpointConfig, Resolved, ShardingConfig
from a2fjax.errors import InputError, WorkFailed
from a2fjax.sharding import device_mesh
from a2fjax.training import auxiliary, checkpoints, optimizer, orbax_errors, state
from a2fjax.training.checkpoint_writer import CheckpointWriter


@pytest.fixture(scope="module")
def made(toy):
    """A state whose arrays all differ, and its abstract twin."""
    config = toy.config()
    tx = optimizer.build(config.optim, config.steps)
    batch = toy.Inputs(config)._batch(0, 0)
    one = device_mesh.build(config.sharding)

    def create(width):
        start = state.create(toy.Task(width), tx, batch, seed=0, average=True)
        return start.replace(ema=jax.tree.map(lambda x: x + 1, start.ema))

    def abstract(width):
        shapes = jax.eval_shape(lambda: create(width))
        return device_mesh.with_shardings(
            shapes, device_mesh.state_shardings(shapes, one, ShardingConfig())
        )

    return jax.jit(lambda: create(8))(), abstract(8), abstract(9)


@pytest.fixture(scope="module")
def saved(toy, made, tmp_path_factory):
    """A run with checkpoints 2, 4, 6, 8 of losses 4, 1, 3, 5, of which 4, 6 and 8 are kept."""
    run = tmp_path_factory.mktemp("run")
    (run / "config.json").write_text(Resolved(toy.config(), {}).to_json())
    with CheckpointWriter(run, CheckpointConfig(keep_latest=2, keep_best=1)) as writer:
        for step, loss in ((2, 4.0), (4, 1.0), (6, 3.0), (8, 5.0)):
            writer.save(step, made[0].replace(step=step), {"data": "x"}, {"eval/loss": loss})
        writer.wait()
    return run


@pytest.fixture
def run(saved, tmp_path):
    return shutil.copytree(saved, tmp_path / "run")


def edit_meta(run, step, change):
    """Rewrites a checkpoint's meta as a version of the program with other values would."""
    path = run / "checkpoints" / str(step) / "meta" / "metadata"
    meta = {k: v for k, v in json.loads(path.read_text()).items() if k != "crc32"}
    path.write_text(json.dumps(sealed_json.seal(change(meta))))


def equal(a, b):
    leaves = zip(jax.tree.leaves(a), jax.tree.leaves(b), strict=True)
    assert jax.tree.structure(a) == jax.tree.structure(b)
    assert all(np.asarray(x).tobytes() == np.asarray(y).tobytes() for x, y in leaves)


def test_latest_and_best_are_kept(saved):
    assert checkpoints.steps(saved) == [4, 6, 8]


def test_restored_is_what_was_saved(run, made):
    with CheckpointWriter(run, CheckpointConfig()) as reader:
        assert reader.latest() == 8
        back, meta = reader.restore(8, made[1])
    equal(back.replace(step=0), made[0].replace(step=0))
    assert int(back.step) == meta["step"] == 8 and back.step.dtype == np.int32
    assert meta["rig"] == rig.FINGERPRINT and meta["metrics"] == {"eval/loss": 5.0}
    assert meta["versions"]["jax"] == jax.__version__


def test_parameters_load_without_the_optimiser(run, made):
    shutil.rmtree(run / "checkpoints" / "8" / "opt")
    step, average, meta = checkpoints.load_params(run)
    assert step == 8 and meta["data"] == "x"
    equal(average, made[0].merged(average=True))
    assert all(isinstance(x, np.ndarray) for x in jax.tree.leaves(average))
    step, params, _ = checkpoints.load_params(run, step=4, item="params")
    assert step == 4
    equal(params, made[0].merged(average=False))


def test_what_is_not_there_is_said(run, tmp_path):
    with pytest.raises(InputError, match="no checkpoint of step 5; the nearest is 4"):
        checkpoints.load_params(run, step=5)
    with pytest.raises(InputError, match="did you mean 'ema'"):
        checkpoints.load_params(run, item="emma")
    with pytest.raises(InputError, match="no such folder"):
        checkpoints.load_params(tmp_path / "nowhere")
    with pytest.raises(InputError, match="not a run folder"):
        checkpoints.load_params(tmp_path)
    shutil.rmtree(run / "checkpoints")
    with pytest.raises(InputError, match="has no checkpoint yet"):
        checkpoints.load_params(run)
    assert not (run / "checkpoints").exists()


def test_another_rig_is_refused(run, made):
    edit_meta(run, 8, lambda meta: {**meta, "rig": "0123456789abcdef"})
    with pytest.raises(InputError, match="made for rig 0123456789abcdef"):
        checkpoints.load_params(run)
    with CheckpointWriter(run, CheckpointConfig()) as reader:
        with pytest.raises(InputError, match="made for rig"):
            reader.restore(8, made[1])


def test_another_model_is_named_by_its_weights(run, made):
    with CheckpointWriter(run, CheckpointConfig()) as reader:
        with pytest.raises(InputError, match=r"net/Dense_0/bias is float32\[8\].*float32\[9\]"):
            reader.restore(8, made[2])
    have = {"a": np.zeros((2, 3), np.float32), "b": {"c": np.zeros(3, np.float32)}}
    want = {"a": np.zeros((2, 3), np.float16), "b": {"d": np.zeros(3, np.float32)}}
    checkpoints.check_params(have, have, name="x")
    with pytest.raises(InputError) as error:
        checkpoints.check_params(have, want, name="x")
    assert "b/d is missing" in str(error.value) and "b/c is unexpected" in str(error.value)
    assert "a is float32[2, 3] (the model has float16[2, 3])" in str(error.value)


def test_damage_is_said_with_what_is_left(run):
    for path in (run / "checkpoints" / "8" / "ema").rglob("*"):
        if path.is_file() and path.parent.name == "d":
            path.write_bytes(path.read_bytes()[:10])
    with pytest.raises(InputError, match=r"cannot be read .*beside it: \[4, 6\]") as error:
        checkpoints.load_params(run)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize("name", ["ema/_sharding", "ema/_METADATA", "meta/metadata"])
def test_a_file_without_an_end_is_not_read_whole(run, name):
    step = checkpoints.steps(run)[-1]
    os.truncate(run / "checkpoints" / str(step) / name, 1 << 40)
    with pytest.raises(InputError, match=f"{name}: has .*A2F_BUDGET_TEXT_MB sets the limit"):
        checkpoints.load_params(run, step, item="ema")


def test_remains_of_an_interrupted_save_or_deletion_do_no_harm(run, made):
    folder = run / "checkpoints"
    half = folder / "10.orbax-checkpoint-tmp"
    shutil.copytree(folder / "8" / "params", half / "params")
    for path in list((folder / "4").rglob("*"))[::2]:
        if path.is_file():
            path.unlink()
    with CheckpointWriter(run, CheckpointConfig(keep_latest=1, keep_best=0)) as writer:
        assert writer.latest() == 8 and not half.exists()
        equal(writer.restore(8, made[1])[0].params, made[0].params)
        writer.save(10, made[0], {"data": "x"}, {"eval/loss": 2.0})
        writer.wait()
    assert checkpoints.steps(run) == [10]


@pytest.mark.filterwarnings("ignore:coroutine .* was never awaited")
def test_a_folder_that_went_away_fails_the_save(run, made):
    with CheckpointWriter(run, CheckpointConfig()) as writer:
        shutil.rmtree(run / "checkpoints")
        (run / "checkpoints").write_text("in the way")
        with pytest.raises(WorkFailed, match="checkpoint 10 of .* could not be written"):
            writer.save(10, made[0], {}, {})
            writer.wait()
        with pytest.raises(InputError, match="cannot be written"):
            CheckpointWriter(run, CheckpointConfig())
    gc.collect()  # What Orbax left undone is complained of here, where it is filtered.


@pytest.mark.parametrize("place", ["orbax", "elsewhere"])
@pytest.mark.parametrize("reason", ["full", "in OCDBT database: full"])
def test_of_failures_in_one_save_only_the_raised_one_is_shown(caplog, place, reason):
    source = f"async def write():\n    raise ValueError({reason!r})"
    code = compile(source, f"/site/{place}/x.py", "exec")
    scope = {}
    exec(code, scope)

    async def save():
        task = asyncio.ensure_future(scope["write"]())
        await asyncio.wait([task])  # ended, and nobody looked at its error

    orbax_errors.drop_late()
    asyncio.run(save())
    gc.collect()
    assert ("never retrieved" in caplog.text) == (place == "elsewhere" and reason == "full")


@pytest.mark.parametrize("text", ["Event loop is closed", "another"])
def test_late_errors_that_nobody_can_catch_are_dropped(monkeypatch, text):
    shown = []
    monkeypatch.setattr(sys, "unraisablehook", shown.append)
    orbax_errors.drop_late()
    orbax_errors.drop_late()

    class Late:
        def __del__(self):
            raise RuntimeError(text)

    Late()
    assert [str(unraisable.exc_value) for unraisable in shown] == ["another"] * (text == "another")


def test_an_auxiliary_network_is_kept_beside_the_model(run, made):
    _, plain, _ = made
    beside = auxiliary.AuxiliaryState(
        {"rival": {"w": np.arange(3, dtype=np.float32)}}, {"count": np.int32(7)}
    )
    with CheckpointWriter(run, CheckpointConfig(keep_latest=9)) as writer:
        first = writer.restore(8, plain)[0]
        assert first.auxiliary is None and not (run / "checkpoints" / "8" / "auxiliary").exists()
        writer.save(9, first.replace(auxiliary=beside), {"data": "x"}, {})
        writer.wait()
        place = jax.tree.leaves(plain.params)[0].sharding
        shapes = jax.tree.map(
            lambda a: jax.ShapeDtypeStruct(a.shape, a.dtype, sharding=place), beside
        )
        again, meta = writer.restore(9, plain.replace(auxiliary=shapes))
    for a, b in zip(*map(jax.tree.leaves, (again.params, first.params)), strict=True):
        np.testing.assert_array_equal(a, b)
    np.testing.assert_array_equal(
        again.auxiliary.params["rival"]["w"], np.arange(3, dtype=np.float32)
    )
    assert int(again.auxiliary.opt_state["count"]) == 7
    assert set(meta["checksums"]["auxiliary"]) == {"params/rival/w", "opt_state/count"}
    for item in checkpoints.ITEMS:
        assert set(checkpoints.load_params(run, 9, item)[1]) == {"net", "constants"}


def test_identities_described_otherwise_are_refused(run):
    """Weights that read another description of a mesh would give anybody's style."""
    edit_meta(run, 8, lambda meta: {**meta, "shape": 1})
    checkpoints.load_params(run, 8)  # This one has no identity.
    weights = {"identity": {"w": np.ones(2, np.float32)}}
    with CheckpointWriter(run, CheckpointConfig()) as writer:
        made = state.TrainState(np.int32(9), weights, {}, weights, None)
        writer.save(9, made, {"data": "x"}, {})
        writer.wait()
    edit_meta(run, 9, lambda meta: {**meta, "shape": 1})
    with pytest.raises(InputError, match="version 1 of what is measured.*train it again"):
        checkpoints.load_params(run, 9)
