import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from a2fjax import rig, tasks
from a2fjax.batch import Batch
from a2fjax.configuration import Config, DataConfig, LossConfig, RegressionConfig
from a2fjax.data import records
from a2fjax.errors import InputError
from a2fjax.models import params as trees

FRAMES = 16
SUBJECTS = 4
CONFIG = Config(
    model=RegressionConfig(
        conv_layers=1, conv_width=16, recurrent_width=12, identity_width=8, emotion_width=4,
        dropout=0.0,
    ),
    data=DataConfig(identity_points=32),
)  # fmt: skip


def mesh(subject):
    """A subject's tetrahedron-like cloud: bodies that differ in two proportions."""
    rng = np.random.default_rng(0)
    stretch = 1.0 + 0.2 * np.array([subject % 2, subject // 2, 0.0])
    vertices = rng.normal(size=(40, 3)) * stretch
    return vertices.astype(np.float32), np.zeros((0, 3), np.int32)


def write_set(folder, *, meshes=True, mean=0.2, std=0.1, frames=100, observed=None):
    """Writes a manifest of four training subjects and a held-out one, as a build does."""
    folder.mkdir(parents=True, exist_ok=True)
    observed = np.ones(72, bool) if observed is None else observed
    names = [f"s{i}" for i in range(SUBJECTS)] + ["unseen"]
    subjects = []
    for i, name in enumerate(names):
        path = f"subjects/{name}.npz" if meshes else None
        if meshes:
            vertices, faces = mesh(i)
            records.write_mesh(folder / path, vertices * (1 if name != "unseen" else 7), faces)
        subjects.append(records.Subject(name, path, name == "unseen"))
    clips = [
        dict(id=f"{n}/a", subject=n, sentence=n, frames=frames, emotion="neutral",
             split="test_subjects" if n == "unseen" else "train")
        for n in names
    ]  # fmt: skip
    (folder / "clips.arrayrecord").touch()
    manifest = records.Manifest(
        subjects=subjects,
        shards=[records.Shard("clips.arrayrecord", clips)],
        channel_mask=observed.tolist(),
        statistics={
            "motion_mean": (mean * observed).tolist(),
            "motion_std": (std * observed).tolist(),
        },
        synthetic=True,
        source={},
    )
    records.write_manifest(folder, manifest)
    return folder


def example(items=2 * SUBJECTS):
    """A tiny set whose motion depends on the audio's loudness, the identity and the emotion."""
    rng = np.random.default_rng(0)
    from a2fjax.data.identity.points import sample_points

    loud = 0.5 + 0.5 * np.sin(np.arange(FRAMES) * rng.uniform(0.3, 0.8, (items, 1)))
    audio = 0.2 * np.repeat(loud, 320, 1) * rng.normal(size=(items, FRAMES * 320))
    subject = np.arange(items) % SUBJECTS
    emotion = np.eye(5)[np.arange(items) // SUBJECTS]  # Everybody once neutral, once happy.
    amplitude = 0.1 + 0.2 * (subject % 2) + 0.2 * (subject // 2)
    motion = np.zeros((items, FRAMES, 72))
    motion[..., rig.INDEX["jawOpen"]] = amplitude[:, None] * loud
    motion[..., rig.INDEX["mouthSmileLeft"]] = emotion[:, 1:2] * 0.5
    return Batch.zeros(items, FRAMES, 32).replace(
        audio=audio.astype(np.float32),
        motion=motion.astype(np.float32),
        channel_mask=np.ones((items, 72), bool),
        frame_mask=np.ones((items, FRAMES), bool),
        length=np.full(items, FRAMES, np.int32),
        identity=np.stack([sample_points(*mesh(s), 32) for s in subject]),
        identity_mask=np.ones(items, bool),
        emotion=np.repeat(emotion[:, None], FRAMES, 1).astype(np.float32),
        clip=np.arange(items, dtype=np.int32),
        start=np.zeros(items, np.int32),
    )


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    """A task trained on one batch by plain Adam, with its first and last loss."""
    folder = write_set(tmp_path_factory.mktemp("set"))
    task = tasks.build(CONFIG, tasks.constants(CONFIG, [folder]))
    batch = example()
    params = jax.jit(task.init)(jax.random.key(0), batch)
    trainable, frozen = trees.split(params)
    optimiser = optax.adam(1e-2)

    @jax.jit
    def update(trainable, state, step):
        def scalar(trainable):
            key = jax.random.fold_in(jax.random.key(1), step)
            merged = trees.merge(trainable, frozen)
            return task.loss(merged, batch, key, step=step, train=True)

        (value, _), gradient = jax.value_and_grad(scalar, has_aux=True)(trainable)
        changes, state = optimiser.update(gradient, state)
        return optax.apply_updates(trainable, changes), state, value

    state = optimiser.init(trainable)
    values = []
    for step in range(200):
        trainable, state, value = update(trainable, state, step)
        values.append(float(value))
    return task, batch, trees.merge(trainable, frozen), values


def test_a_tiny_batch_is_learnt(trained):
    *_, values = trained
    assert np.isfinite(values).all()
    assert np.mean(values[-5:]) < values[0] / 10


def test_identity_and_emotion_are_heard_after_training(trained):
    task, batch, params, _ = trained
    predict = jax.jit(task.predict)
    jaw, smile = rig.INDEX["jawOpen"], rig.INDEX["mouthSmileLeft"]
    own = np.asarray(predict(params, batch))
    target = batch.motion
    assert np.abs(own - target)[..., jaw].mean() < 0.05
    other = batch.replace(identity=batch.identity[[3, 2, 1, 0, 7, 6, 5, 4]])
    swapped = np.asarray(predict(params, other))
    assert np.abs(swapped - target)[..., jaw].mean() > 2 * np.abs(own - target)[..., jaw].mean()
    # The quiet subject moves more with the body of the lively one, and the reverse.
    assert swapped[0, :, jaw].std() > 1.2 * own[0, :, jaw].std()
    assert swapped[3, :, jaw].std() < own[3, :, jaw].std() / 1.2
    happy = batch.replace(emotion=np.zeros_like(batch.emotion))
    happy.emotion[..., 1] = 1.0
    changed = np.asarray(predict(params, happy))
    assert (changed - own)[0, :, smile].mean() > 0.2


def test_evaluation_does_not_depend_on_chance_and_terms_make_up_the_loss(trained):
    task, batch, params, _ = trained
    motion = jax.jit(task.predict)(params, batch)
    assert (motion >= rig.MIN).all() and (motion <= rig.MAX).all()
    loss = jax.jit(lambda p, b, key: task.loss(p, b, key, step=0, train=False))
    value, terms = loss(params, batch, jax.random.key(0))
    assert value == loss(params, batch, jax.random.key(1))[0]
    assert set(terms) == {"position", "velocity", "aperture", "closure"}
    assert jnp.allclose(value, sum(t.total / t.weight for t in terms.values()), rtol=1e-5)
    assert jnp.allclose(value, task.total(terms), rtol=1e-6)


def test_constants_get_no_gradient_and_do_not_move(trained):
    task, batch, params, _ = trained
    trainable, frozen = trees.split(params)
    assert set(frozen) == {"constants"} and "constants" not in trainable
    jax.tree.map(np.testing.assert_array_equal, frozen["constants"], task.model.constants)


def test_constants_pool_sets_by_their_frames_and_skip_unobserved_channels(tmp_path):
    half = np.arange(72) < 36
    half[71] = False
    first = write_set(tmp_path / "a", mean=0.1, std=0.1, frames=100)
    second = write_set(tmp_path / "b", mean=0.5, std=0.0, frames=300, observed=half)
    found = tasks.constants(CONFIG, [first, second])
    values = np.r_[np.full(100, 0.0), np.full(100, 0.2), np.full(600, 0.5)]  # 0.1 +- 0.1, 0.5
    np.testing.assert_allclose(found["motion_mean"][:36], values.mean(), rtol=1e-5)
    np.testing.assert_allclose(found["motion_std"][:36], values.std(), rtol=1e-5)
    np.testing.assert_allclose(found["motion_mean"][36:], 0.1, rtol=1e-5)
    only = tasks.constants(CONFIG, [second])
    assert not only["motion_mean"][36:].any() and not only["motion_std"][36:].any()
    assert (only["motion_std"][:36] > 0).all()


def test_a_set_without_clips_of_the_split_adds_nothing(tmp_path):
    folder = write_set(tmp_path / "a", mean=0.1)
    other = write_set(tmp_path / "b", mean=0.9)
    manifest = records.read_manifest(other)
    clips = [{**clip, "split": "test_subjects"} for clip in manifest.shards[0].clips]
    shards = [dataclasses.replace(manifest.shards[0], clips=clips)]
    records.write_manifest(other, dataclasses.replace(manifest, shards=shards))
    alone, both = (tasks.constants(CONFIG, f) for f in ([folder], [folder, other]))
    jax.tree.map(np.testing.assert_array_equal, alone, both)


def test_constants_describe_training_subjects_only(tmp_path):
    folder = write_set(tmp_path)
    found = tasks.constants(CONFIG, [folder])
    again = tasks.constants(dataclasses.replace(CONFIG, data=dataclasses.replace(
        CONFIG.data, shards=(str(folder),))))  # fmt: skip
    jax.tree.map(np.testing.assert_array_equal, found, again)
    (folder / "subjects/unseen.npz").unlink()
    jax.tree.map(np.testing.assert_array_equal, found, tasks.constants(CONFIG, [folder]))
    # Four bodies differ in two proportions.
    assert 2 <= found["identity_projection"].any(0).sum() <= SUBJECTS - 1


def test_a_set_without_meshes_needs_identity_none(tmp_path):
    folder = write_set(tmp_path, meshes=False)
    with pytest.raises(InputError, match="model.identity='none'"):
        tasks.constants(CONFIG, [folder])
    without = dataclasses.replace(CONFIG, model=dataclasses.replace(CONFIG.model, identity="none"))
    found = tasks.constants(without, [folder])
    assert not found["identity_projection"].any()
    batch = example()
    batch.identity_mask[:] = False
    task = tasks.build(without, found)
    shapes = jax.eval_shape(task.init, jax.random.key(0), batch)
    assert "identity" not in shapes["params"]["backbone"]
    motion = jax.eval_shape(task.predict, shapes, batch)
    assert motion.shape == (8, FRAMES, 72)


def test_no_folder_and_no_training_clip_are_named(tmp_path):
    with pytest.raises(InputError, match="data.shards is empty"):
        tasks.constants(CONFIG)
    with pytest.raises(InputError, match="does not exist"):
        tasks.constants(CONFIG, [tmp_path / "nowhere"])
    folder = write_set(tmp_path)
    other = dataclasses.replace(CONFIG, data=dataclasses.replace(CONFIG.data, split="val"))
    with pytest.raises(InputError, match="no clips in split 'val'"):
        tasks.constants(other, [folder])


def test_terms_of_weight_zero_are_left_out_of_the_task():
    config = dataclasses.replace(CONFIG, loss=LossConfig(velocity=0.0, closure=0.0))
    task = tasks.build(config)
    batch = example()
    shapes = jax.eval_shape(task.init, jax.random.key(0), batch)
    _, terms = jax.eval_shape(
        lambda p, b: task.loss(p, b, jax.random.key(0), step=0, train=True), shapes, batch
    )
    assert set(terms) == {"position", "aperture"}
