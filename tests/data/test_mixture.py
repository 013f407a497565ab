import dataclasses
import itertools
import shutil

import jax
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from a2fjax import configuration as config_lib
from a2fjax import rig, tasks
from a2fjax.configuration import AugmentConfig, DataConfig, EvalConfig
from a2fjax.data import loader, mixture, records, window_sampler
from a2fjax.errors import InputError
from a2fjax.tasks import statistics
from a2fjax.training import run_dir as folder_lib
from a2fjax.training.inputs import ShardInputs


def take(config, count, **arguments):
    stream = loader.batches(config, **arguments)
    try:
        return list(itertools.islice(stream, count)), stream.source
    finally:
        stream.close()


@pytest.fixture(scope="module")
def small(build, tmp_path_factory):
    """Two training clips of 1 s and one of val: 1/15 of the other set's speech."""
    clips = [build.clip(k, seconds=1.0) for k in (40, 41)] + [build.clip(42, split="val")]
    return build.write(tmp_path_factory.mktemp("small") / "few", clips, shards=1)


SETS = st.lists(
    st.tuples(
        st.just(0.0) | st.floats(1e-6, 10),
        st.lists(st.integers(1, 900), min_size=1, max_size=12),
    ),
    min_size=1,
    max_size=5,
).filter(lambda sets: any(w > 0 for w, _ in sets))


@settings(max_examples=60, deadline=None)
@given(SETS, st.integers(1, 300), st.integers(0, 2**40))
def test_every_epoch_has_each_set_by_its_weight_whatever_its_size(sets, window, seed):
    lengths = np.array([n for _, clips in sets for n in clips])
    folder = np.repeat(np.arange(len(sets)), [len(clips) for _, clips in sets])
    weights = tuple(w for w, _ in sets)
    names = [f"set{i}" for i in range(len(sets))]
    frames = np.bincount(folder, lengths)
    share = mixture.shares(DataConfig(weights=weights), names, frames, "train")
    largest = max(weights)
    expected = np.array([w / largest for w in weights])
    np.testing.assert_allclose(share, expected / expected.sum(), atol=1e-12)
    mass = mixture.clip_masses(lengths, folder, share)
    plan = window_sampler.Plan(lengths, window, seed, mass)
    assert plan.per_epoch == max(1, round(frames[share > 0].sum() / window))
    for epoch in range(3):
        at = epoch * plan.per_epoch
        clips = np.array([plan.clip(i) for i in range(at, at + plan.per_epoch)])
        assert (share[folder[clips]] > 0).all()
        count = np.bincount(folder[clips], minlength=len(sets))
        assert np.abs(count - share * plan.per_epoch).max() < 1 + 1e-6
        # Inside a set, clips come up by their lengths.
        each = np.bincount(clips, minlength=len(lengths))
        assert np.abs(each - mass * plan.per_epoch).max() < 1 + 1e-6


def test_the_long_run_share_is_the_weight():
    lengths = np.array([5] * 40 + [900] * 7)
    folder = np.repeat([0, 1], [40, 7])
    share = mixture.shares(DataConfig(weights=(3.0, 1.0)), ("a", "b"), (200, 6300), "train")
    plan = window_sampler.Plan(lengths, 128, 1, mixture.clip_masses(lengths, folder, share))
    seen = folder[[plan.clip(i) for i in range(40 * plan.per_epoch)]]
    assert abs((seen == 0).mean() - 0.75) < 0.002


def test_a_hundred_hours_are_planned_at_once():
    """Counts work, not seconds: an epoch is drawn once, and a window is then a look-up."""
    random = np.random.default_rng(0)
    lengths = random.integers(50, 1000, 36_000)  # 105 hours
    folder = np.repeat([0, 1, 2], 12_000)
    share = mixture.shares(
        DataConfig(weights=(1.0, 1.0, 8.0)), "abc", np.bincount(folder, lengths), "train"
    )
    plan = window_sampler.Plan(lengths, 128, 0, mixture.clip_masses(lengths, folder, share))
    drawn = []
    plain = plan._order
    plan._order = lambda epoch: drawn.append(epoch) or plain(epoch)
    clips = [plan.clip(i) for i in range(0, 2 * plan.per_epoch, 7)]
    assert drawn == [0, 1]
    counts = np.bincount(folder[clips], minlength=3) / len(clips)
    np.testing.assert_allclose(counts, share, atol=0.01)


def test_batches_are_mixed_by_weights_for_any_number_of_hosts(shards, small, build):
    config = build.config(shards, small, weights=(1.0, 3.0))
    whole, source = take(config, 12)
    seen = source.sets[np.concatenate([b.clip for b in whole])]
    assert abs(seen.mean() - 0.75) < 0.05
    parts = [take(config, 4, host=h, hosts=2, start_step=5)[0] for h in range(2)]
    for step, pair in enumerate(zip(*parts, strict=True)):
        joined = jax.tree.map(lambda *rows: np.concatenate(rows), *pair)
        jax.tree.map(np.testing.assert_array_equal, joined, whole[5 + step])


@pytest.mark.slow
def test_worker_processes_mix_the_same(shards, small, build):
    first, _ = take(build.config(shards, small, weights=(1.0, 3.0)), 4)
    again, _ = take(build.config(shards, small, weights=(1.0, 3.0), workers=2), 4)
    for a, b in zip(first, again, strict=True):
        jax.tree.map(np.testing.assert_array_equal, a, b)


def test_without_weights_and_with_those_of_the_lengths_windows_are_the_same(shards, small, build):
    plain, source = take(build.config(shards, small), 6)
    frames = mixture.frames_by_set(source.manifests, "train")
    weighted, _ = take(build.config(shards, small, weights=tuple(map(float, frames))), 6)
    for a, b in zip(plain, weighted, strict=True):
        np.testing.assert_array_equal(a.clip, b.clip)


def test_a_weight_of_zero_is_as_if_the_folder_were_not_listed(shards, small, build):
    alone, _ = take(build.config(shards), 6)
    first, _ = take(build.config(shards, small, weights=(2.0, 0.0)), 6)
    last, source = take(build.config(small, shards, weights=(0.0, 2.0)), 6)
    for a, b, c in zip(alone, first, last, strict=True):
        jax.tree.map(np.testing.assert_array_equal, a, b)
        jax.tree.map(np.testing.assert_array_equal, a, c.replace(clip=c.clip - 2))
    assert source.sets.tolist() == [0, 0] + [1] * 14


def test_the_held_out_loss_is_of_the_mixture_set_by_set(shards, small, build):
    config = build.config(shards, small, weights=(1.0, 3.0))
    names, sets = loader.eval_sets(config, "val", 2)
    assert names == ("shards", "few") and sets.shape == (2, 8)
    assert sets.ravel().tolist() == [0] * 4 + [1] * 12
    stream = loader.eval_batches(config, "val", 2)
    found = stream.source.sets[np.stack([b.clip for b in stream])]
    np.testing.assert_array_equal(found, sets)
    config = dataclasses.replace(config, eval=EvalConfig(batches=2))
    parts = [ShardInputs(config, host=h, hosts=2) for h in (0, 1)]
    assert [list(part.eval_sets(0)) for part in parts] == [["shards", "few"]] * 2
    assert parts[0].eval_sets(0)["shards"].all() and not parts[1].eval_sets(0)["shards"].any()
    assert list(parts[0].eval_sets(1)) == ["few"]
    assert ShardInputs(build.config(shards)).eval_sets(0) == {}


def test_a_held_out_split_that_a_set_lacks_is_left_to_the_others(shards, build, tmp_path):
    only_train = build.write(tmp_path / "t", [build.clip(50), build.clip(51)], shards=1)
    config = build.config(shards, only_train, weights=(1.0, 3.0))
    assert not loader.eval_sets(config, "val", 2)[1].any()
    off = build.config(shards, only_train, weights=(0.0, 3.0))
    with pytest.raises(InputError, match="no clips in split 'val' of the sets with a weight"):
        loader.eval_batches(off, "val", 2)


@pytest.mark.parametrize(
    ("weights", "message"),
    [
        ((1.0,), r"expected one for each folder of data.shards \(2\), got 1"),
        ((1.0, -0.5), r"-0.5 of .*few: expected a number of at least 0"),
        ((1.0, float("nan")), "nan of .*few: expected a number"),
        ((0.0, 0.0), "expected at least one above 0"),
    ],
)
def test_wrong_weights_are_refused_in_one_line(shards, small, build, weights, message):
    config = build.config(shards, small, weights=weights)
    for call in (lambda: loader.batches(config), lambda: tasks.constants(config)):
        with pytest.raises(InputError, match=message) as caught:
            call()
        assert "\n" not in str(caught.value)
    with pytest.raises(InputError, match=message if weights[-1] == weights[-1] else "finite"):
        values = {"shards": ["a", "x/few"], "weights": list(weights)}
        config_lib.build(config_lib.Config, {"data": values}, where="config")


def test_a_weight_for_a_set_without_training_clips_names_it(shards, build, tmp_path):
    only_val = build.write(tmp_path / "quiet", [build.clip(1, split="val")], shards=1)
    config = build.config(shards, only_val, weights=(1.0, 1.0))
    for call in (lambda: loader.batches(config), lambda: tasks.constants(config)):
        with pytest.raises(InputError, match="quiet has a weight above 0 but no clips in split"):
            call()
    take(build.config(shards, only_val), 1)  # without weights it adds nothing, as ever


def test_weights_are_read_from_the_command_line():
    overrides = ["--config.data.shards=a,b", "--config.data.weights=1,2.5"]
    data = config_lib.load(None, config_lib.parse_overrides(overrides)).config.data
    assert data.weights == (1.0, 2.5)


def test_a_run_with_other_weights_is_another_run(shards, small, build):
    plain, other = (build.config(shards, small, weights=w) for w in ((), (1.0, 2.0)))
    assert loader.fingerprint(plain) != loader.fingerprint(other)
    changed = folder_lib.differences(plain, other)
    assert set(changed) == {"data.weights"} and not folder_lib._is_free("data.weights")


def test_bad_records_are_replaced_by_clips_of_their_own_set(shards, small, build, tmp_path):
    copy = shutil.copytree(small, tmp_path / "few")
    shard = copy / "clips-00000-of-00001.arrayrecord"
    data = bytearray(shard.read_bytes())
    at = data.find(b"s1/train040")
    data[at + 200] ^= 0xFF
    shard.write_bytes(data)
    batches, source = take(build.config(shards, copy, weights=(1.0, 3.0)), 4)
    seen = source.sets[np.concatenate([b.clip for b in batches])]
    assert len(source.bad) == 1 and abs(seen.mean() - 0.75) < 0.1
    shard.write_bytes(b"")
    with pytest.raises(InputError, match="no readable clip in split 'train' of .*few; first"):
        take(build.config(shards, copy, weights=(1.0, 3.0)), 4)


def manifest(frames, mean, std, observed, emotion, pose):
    entries = [
        {"id": f"a/{i}", "subject": "a", "sentence": str(i), "split": "train", "frames": frames,
         "emotion": emotion} for i in range(2)
    ]  # fmt: skip
    return records.Manifest(
        subjects=[records.Subject("a", None, False)],
        shards=[records.Shard("x", entries)],
        channel_mask=observed.tolist(),
        statistics={
            "motion_mean": (mean * observed).tolist(),
            "motion_std": (std * observed).tolist(),
            "emotion_mean": {emotion: (pose * observed).tolist()},
        },
        synthetic=False,
        source={},
    )


def test_statistics_are_of_the_mixture_and_of_the_channels_that_were_observed():
    both = np.arange(72) < 60
    lower = np.arange(72) < 40
    upper = both & (np.arange(72) >= 20)
    a = manifest(100, 0.1, 0.05, lower, "happy", 0.3)
    b = manifest(5000, 0.6, 0.1, upper, "sad", 0.9)
    data = DataConfig(shards=("a", "b"), weights=(3.0, 1.0))
    share = statistics.dataset_weights(data, data.shards, [a, b])
    np.testing.assert_allclose(share, [0.75, 0.25])
    mean, std = statistics.motion_statistics([a, b], "train", share)
    np.testing.assert_allclose(mean[:20], 0.1, rtol=1e-6)
    np.testing.assert_allclose(mean[20:40], 0.75 * 0.1 + 0.25 * 0.6, rtol=1e-6)
    np.testing.assert_allclose(mean[40:60], 0.6, rtol=1e-6)
    assert not mean[60:].any() and not std[60:].any()
    second = 0.75 * (0.1**2 + 0.05**2) + 0.25 * (0.6**2 + 0.1**2)
    np.testing.assert_allclose(std[20:40], np.sqrt(second - 0.225**2), rtol=1e-5)
    table = statistics.emotion_means([a, b], "train", share)
    happy, sad = rig.EMOTIONS.index("happy"), rig.EMOTIONS.index("sad")
    np.testing.assert_allclose(table[happy, :40], 0.3, rtol=1e-6)
    np.testing.assert_allclose(table[happy, 40:60], mean[40:60])  # nobody showed it there
    np.testing.assert_allclose(table[sad, 20:60], 0.9, rtol=1e-6)
    np.testing.assert_allclose(table[rig.EMOTIONS.index("angry")], mean)
    alone = statistics.motion_statistics([a, b], "train", (1.0, 0.0))
    np.testing.assert_allclose(alone[0], statistics.motion_statistics([a], "train")[0])


def test_identity_is_of_the_sets_that_have_meshes_and_a_weight(shards, small, build, tmp_path):
    """Subject s2 has no mesh: a set of s2 alone is one of curves."""
    curves = build.write(tmp_path / "curves", [build.clip(k) for k in (2, 5)], shards=1)
    shards = shutil.copytree(shards, tmp_path / "shards")
    small = shutil.copytree(small, tmp_path / "small")
    for path in (shards, small, curves):
        found = records.read_manifest(path)
        zeros = {"motion_mean": [0.1] * 72, "motion_std": [0.1] * 72}
        found.statistics.update(zeros)
        records.write_manifest(path, found)

    def constants(*folders, **data):
        return tasks.constants(build.config(*folders, augment=AugmentConfig(), **data))

    alone, mixed = constants(shards), constants(shards, curves, weights=(1.0, 5.0))
    for name in ("identity_mean", "identity_projection"):
        np.testing.assert_array_equal(alone[name], mixed[name])
    off = constants(shards, small, weights=(1.0, 0.0))
    np.testing.assert_array_equal(alone["identity_mean"], off["identity_mean"])
    with pytest.raises(InputError, match="model.identity='none'"):
        constants(shards, curves, weights=(0.0, 1.0))


def test_names_tell_sets_apart():
    assert mixture.names(["x/demo", "y/faces/"]) == ("demo", "faces")
    assert mixture.names(["x/shards", "y/shards"]) == ("x/shards", "y/shards")
    assert mixture.names(["s", "s"]) == ("s:0", "s:1")


JAW, BROW = rig.INDEX["jawOpen"], rig.INDEX["browInnerUp"]


def half_seen(build, number, seen, other, **changes):
    """A clip of which one channel follows the voice, and another one holds what nobody observed."""
    plain = build.clip(number, **changes)
    motion = np.zeros_like(plain.motion)
    motion[:, seen] = plain.motion[:, JAW]
    motion[:, other] = 0.9
    return dataclasses.replace(plain, motion=motion, channel_mask=np.arange(72) == seen)


def write_half(build, folder, seen, other, numbers):
    clips = [half_seen(build, k, seen, other) for k in numbers]
    clips += [half_seen(build, k, seen, other, split="val") for k in (60, 61)]
    build.write(folder, clips, shards=1)
    found = records.read_manifest(folder)
    mask = clips[0].channel_mask
    values = np.concatenate([c.motion for c in clips[:-2]])
    found.statistics.update(
        motion_mean=(values.mean(0) * mask).tolist(), motion_std=(values.std(0) * mask).tolist()
    )
    records.write_manifest(folder, dataclasses.replace(found, channel_mask=mask.tolist()))
    return folder


@pytest.mark.slow
def test_sets_of_disjoint_channels_teach_one_model_each_its_own(build, tmp_path):
    """The large set never shows a brow, the small one never a jaw; both follow the voice."""
    from a2fjax.infer.predictor import Predictor
    from a2fjax.training import tracking, trainer

    jaws = write_half(build, tmp_path / "jaws", JAW, BROW, range(10))
    brows = write_half(build, tmp_path / "brows", BROW, JAW, (30, 31))
    values = {
        "steps": 150,
        "data": {"shards": [str(jaws), str(brows)], "weights": [1, 1], "batch_size": 8,
                 "window_frames": 50, "augment": {"enabled": False}},
        "model": {"conv_layers": 1, "conv_width": 24, "recurrent_width": 16, "identity": "none",
                  "dropout": 0.0},
        "optim": {"learning_rate": 1e-2, "warmup_steps": 5, "ema_decay": 0.9},
        "eval": {"every_steps": 150, "batches": 2},
        "checkpoint": {"every_steps": 150},
        "log": {"every_steps": 150},
    }  # fmt: skip
    config = config_lib.build(config_lib.Config, values, where="test")
    said = []
    trainer.train(config_lib.Resolved(config, {}), tmp_path / "run", say=said.append)
    predictor = Predictor.load(str(tmp_path / "run"))
    truth = build.clip(60, split="val")
    motion = predictor(truth.audio)
    follow = truth.motion[:, JAW]
    for channel in (JAW, BROW):
        assert np.corrcoef(motion[:, channel], follow)[0, 1] > 0.9
        # Nothing was learnt of the 0.9 that the other set holds where it observed nothing.
        assert np.abs(motion[:, channel] - follow).mean() < 0.1
    quiet = np.setdiff1d(np.arange(72), [JAW, BROW])
    assert not motion[:, quiet].any()
    (held_out,) = [x for x in tracking.read_metrics(tmp_path / "run") if "eval/loss" in x]
    each = [held_out[f"eval/set/{name}/loss/position"] for name in ("jaws", "brows")]
    # Half of the windows and of the observed values are of either set.
    np.testing.assert_allclose(np.mean(each), held_out["eval/loss/position"], rtol=1e-5)
    assert max(each) < 0.5 * follow.var()
    assert any("by set: jaws" in line for line in said)
