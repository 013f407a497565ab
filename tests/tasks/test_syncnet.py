"""Tasks of the sync experts: known losses, masks, warnings, settings."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from a2fjax import losses, rig, tasks
from a2fjax.batch import Batch
from a2fjax.configuration import (
    Config,
    DataConfig,
    RegressionConfig,
    SyncnetConfig,
    SyncnetInverseConfig,
    build_config,
)
from a2fjax.errors import InputError
from a2fjax.losses import contrast
from a2fjax.models.syncnet import channels, windows
from a2fjax.tasks import sync_health

FRAMES, ROWS = 64, 3
SMALL = dict(width=8, layers=1, audio_reach=4, motion_reach=2, window_frames=9)
MODELS = {
    "syncnet": SyncnetConfig(**SMALL, embedding=4, windows=2, shift_frames=6),
    "syncnet_inverse": SyncnetInverseConfig(**SMALL),
}


def config(kind="syncnet", **changes):
    model = dataclasses.replace(MODELS[kind], **changes)
    return Config(model=model, data=DataConfig(window_frames=FRAMES, batch_size=ROWS))


def example(rng=None):
    rng = rng or np.random.default_rng(0)
    mask = np.isin(rig.CHANNELS, ["jawOpen", "mouthClose", "mouthPucker", "tongueUp"])
    return Batch.zeros(ROWS, FRAMES, 1).replace(
        audio=(0.1 * rng.normal(size=(ROWS, FRAMES * 320))).astype(np.float32),
        motion=rng.uniform(size=(ROWS, FRAMES, 72)).astype(np.float32),
        channel_mask=np.tile(mask, (ROWS, 1)),
        frame_mask=np.ones((ROWS, FRAMES), bool),
        length=np.full(ROWS, FRAMES, np.int32),
        subject=np.full(ROWS, -1, np.int32),
    )


@pytest.fixture(scope="module", params=list(MODELS))
def made(request):
    task = tasks.build(config(request.param), None, {})
    variables = task.init(jax.random.key(0), example())
    measure = jax.jit(lambda v, b: task.loss(v, b, jax.random.key(1), step=0, train=False)[1])
    return request.param, task, variables, measure


def values(terms):
    return {name: float(term.value) for name, term in terms.items()}


def test_equal_scores_cost_the_logarithm_of_the_candidates(made):
    kind, task, variables, measure = made
    if kind != "syncnet":
        pytest.skip("has no candidates")
    zero = jax.tree.map(np.zeros_like, variables["params"])
    found = values(measure({**variables, "params": zero}, example()))
    # 64 frames leave room for all 13 shifts in the middle only; fewer near the ends.
    assert found["shifted"] == pytest.approx(found["shifted_chance"], abs=1e-5)
    assert found["others"] == pytest.approx(np.log(1 + (ROWS - 1) * 2), abs=1e-5)
    assert found["others_chance"] == pytest.approx(np.log(5), abs=1e-6)
    assert found["shifted_chance"] <= np.log(13) + 1e-6
    assert found["match"] == pytest.approx(np.log(2), abs=1e-5)


def test_info_nce_of_equal_logits_is_ln_n_and_masked_candidates_do_not_count():
    mask = jnp.array([[True, True, False, True]])
    right, counts = jnp.array([0]), jnp.array([True])
    logits = jnp.array([[0.0, 0.0, 50.0, 0.0]])
    assert float(contrast.info_nce(logits, right, mask, counts).value) == pytest.approx(np.log(3))
    assert float(contrast.chance(right, mask, counts).value) == pytest.approx(np.log(3))
    none = contrast.info_nce(logits, right, mask, ~counts)
    assert float(none.weight) == 0 and float(none.value) == 0


def test_silence_stillness_and_hidden_values_do_not_count(made):
    kind, task, variables, measure = made
    batch = example()
    whole = measure(variables, batch)
    first = "shifted" if kind == "syncnet" else "features"
    for silent in (
        batch.replace(audio=batch.audio * 1e-3),
        batch.replace(motion=np.full_like(batch.motion, 0.5)),
        batch.replace(frame_mask=np.zeros_like(batch.frame_mask)),
        batch.replace(channel_mask=np.zeros_like(batch.channel_mask)),
    ):
        assert float(measure(variables, silent)[first].weight) == 0
    motion = batch.motion.copy()
    motion[:, :, ~batch.channel_mask[0]] = 7.0
    changed = measure(variables, batch.replace(motion=motion))
    assert values(changed) == pytest.approx(values(whole), abs=1e-5)


def test_a_window_sees_no_motion_outside_itself(made):
    kind, task, variables, _ = made
    batch = example()
    statistics = channels.own_statistics(batch.motion, batch.frame_mask)
    apply = jax.jit(lambda b: task.model.apply(variables, b, statistics=statistics))
    before, motion, reach = apply(batch), batch.motion.copy(), task.model.config.motion_reach
    motion[:, 30] += 0.3
    seen = np.abs(np.asarray(apply(batch.replace(motion=motion))["seen"] - before["seen"])).max(
        (0, 2)
    )
    assert np.flatnonzero(seen > 1e-6).tolist() == list(range(30 - reach, 30 + reach + 1))
    audio = batch.audio.copy()
    audio[:, 30 * 320] += 1.0
    heard = np.asarray(apply(batch.replace(audio=audio))["heard"] - before["heard"])
    touched = np.flatnonzero(np.abs(heard).max((0, 2)) > 1e-5)
    ears = task.model.config.audio_reach if kind == "syncnet" else 0
    assert 30 - ears - 1 <= touched.min() and touched.max() <= 30 + ears + 1


def test_people_have_their_own_statistics_and_others_those_of_the_window():
    task = tasks.build(config(), None, {})
    batch = example().replace(subject=np.array([0, -1, 9], np.int32))
    constants = {"people_mean": np.full((1, 72), 0.3), "people_deviation": np.full((1, 72), 0.2)}
    found = task.model.statistics({"constants": constants}, batch)
    own = channels.own_statistics(batch.motion, batch.frame_mask)
    assert np.asarray(found.mean)[0] == pytest.approx(0.3)
    assert np.asarray(found.deviation)[1:] == pytest.approx(np.asarray(own.deviation)[1:])


def test_hidden_channels_leave_at_least_one():
    mask = np.zeros((64, len(channels.CHANNELS)), bool)
    mask[:, :3] = True
    kept = np.asarray(channels.hide(jax.random.key(0), mask, 1.0, 1.0))
    assert kept.any(1).all() and not (kept & ~mask).any() and (kept.sum(1) < 3).any()


def test_speech_is_heard_relative_to_its_level():
    batch = example()
    assert np.asarray(windows.speech(batch)).all()
    assert not np.asarray(windows.speech(batch.replace(audio=batch.audio * 0.01))).any()


GOOD = {"shifted": 1.0, "shifted_chance": 3.9, "spread": 0.5, "rank": 9.0,
        "offset": 0.1, "offset_size": 4.0}  # fmt: skip


@pytest.mark.parametrize(
    ("changes", "name", "cause"),
    [
        ({"shifted": 3.88}, "shifted", "takes out of step with their sound"),
        ({"others": 5.0, "others_chance": 5.0}, "others", "the audio of other clips"),
        ({"spread": 1e-5}, "collapsed", "learning rate is too high"),
        ({"rank": 1.0}, "collapsed", "1.0 directions"),
        ({"offset": 5.0, "offset_size": 5.5}, "offset", "100 ms later than recorded"),
        ({"offset": -5.0, "offset_size": 5.5}, "offset", "100 ms earlier than recorded"),
    ],
)
def test_what_goes_wrong_is_named(changes, name, cause):
    settings = SyncnetConfig(warn_after=100)
    assert sync_health.warnings(settings, 100, GOOD, people=20) == {}
    found = sync_health.warnings(settings, 100, GOOD | changes, people=20)
    assert list(found) == [name] and cause in found[name] and "\n" not in found[name]
    assert sync_health.warnings(settings, 99, GOOD | changes, people=20) == {}


def test_few_people_are_named_as_the_cause():
    found = sync_health.warnings(SyncnetConfig(warn_after=1), 1, GOOD | {"shifted": 3.9}, people=3)
    assert "too few people (3)" in found["shifted"]


def test_collapsed_vectors_have_no_spread_and_scattered_ones_full_rank():
    rng = np.random.default_rng(0)
    counts = jnp.ones(4000, bool)
    spread, rank = sync_health.shape_terms(jnp.ones((4000, 8)), counts)
    assert float(spread) < 1e-6
    spread, rank = sync_health.shape_terms(jnp.asarray(rng.normal(size=(4000, 8))), counts)
    assert float(rank) == pytest.approx(8.0, rel=0.02) and float(spread) > 0.99
    line = rng.normal(size=(4000, 1)) * np.ones((1, 8))
    assert float(sync_health.shape_terms(jnp.asarray(line), counts)[1]) == pytest.approx(
        1.0, rel=1e-3
    )


def test_a_batch_that_collapsed_warns(made):
    kind, task, variables, measure = made
    same = jax.tree.map(np.zeros_like, variables["params"])
    found = values(measure({**variables, "params": same}, example()))
    assert "collapsed" in task.warnings(10_000, found)


@pytest.mark.parametrize(
    ("model", "message"),
    [
        ({"window_frames": 6}, "model.motion_reach=3"),
        ({"shift_frames": 2, "ignored_frames": 2}, "model.ignored_frames=2"),
        ({"windwo_frames": 6}, "window_frames"),
    ],
)
def test_settings_that_contradict_are_one_line(model, message):
    with pytest.raises(InputError, match=message):
        build_config({"model": {"kind": "syncnet", **model}}, where="config")


def test_windows_of_data_must_have_room():
    small = dataclasses.replace(config(), data=DataConfig(window_frames=14))
    with pytest.raises(InputError, match="data.window_frames=12: expected at least 14"):
        tasks.build(dataclasses.replace(small, data=DataConfig(window_frames=12)), None, {})


def test_terms_of_two_batches_add_up(made):
    kind, task, variables, measure = made
    first, second = example(), example(np.random.default_rng(5))
    merged = losses.merge(measure(variables, first), measure(variables, second))
    total = float(task.total(merged))
    each = [float(task.total(measure(variables, batch))) for batch in (first, second)]
    assert min(each) - 1e-4 <= total <= max(each) + 1e-4


def test_an_expert_predicts_no_motion_and_regressions_do():
    assert not hasattr(tasks.build(config(), None, {}), "predict")
    regression = Config(model=RegressionConfig(conv_width=4, recurrent_width=4))
    assert hasattr(tasks.build(regression, None, {}), "predict")


def test_weights_of_another_run_meet_the_people_of_this_one(made):
    kind, task, variables, _ = made
    theirs = {**variables, "constants": {"people_mean": np.ones((5, 72))}}
    found = task.warm_start(theirs)
    assert found["params"] is variables["params"]
    assert found["constants"]["people_mean"].shape == (1, 72)
