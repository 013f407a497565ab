import jax
import jax.numpy as jnp
import numpy as np
import pytest

from a2fjax import mesh_descriptor
from a2fjax.batch import Batch
from a2fjax.data.identity.points import sample_points
from a2fjax.models import conditioning, rngs


def cloud(seed, count=64, stretch=(1.0, 1.0, 1.0)):
    points = np.random.default_rng(seed).normal(size=(count, 3)) * stretch
    points -= points.mean(0)
    return (points / np.sqrt((points**2).sum(-1).mean())).astype(np.float32)


def sphere(count, stretch):
    """A closed triangle mesh of a stretched sphere; `count` sets its resolution."""
    theta, phi = np.meshgrid(
        np.linspace(0.05, np.pi - 0.05, count), np.linspace(0, 2 * np.pi, 2 * count, False)
    )
    x = np.stack([np.sin(theta) * np.cos(phi), np.cos(theta), np.sin(theta) * np.sin(phi)], -1)
    index = np.arange(theta.size).reshape(theta.shape)
    a, b = index[:, :-1], np.roll(index, -1, 0)[:, :-1]
    c, d = index[:, 1:], np.roll(index, -1, 0)[:, 1:]
    faces = np.concatenate([np.stack([a, b, c], -1), np.stack([b, d, c], -1)]).reshape(-1, 3)
    return x.reshape(-1, 3) * stretch, faces


def test_descriptor_does_not_know_the_order_of_points():
    points = cloud(0)
    shuffled = np.random.default_rng(1).permutation(points)
    both = conditioning.descriptor(jnp.stack([points, shuffled]))
    np.testing.assert_allclose(both[0], both[1], atol=1e-5)


def test_descriptor_is_the_mean_of_its_definition():
    points = cloud(0).astype(np.float64)
    value = np.asarray(conditioning.descriptor(jnp.asarray(points, jnp.float32)[None]))[0]
    radii = np.linalg.norm(mesh_descriptor.CENTRES, axis=-1)
    np.testing.assert_allclose(np.unique(radii.round(4)), [0.6, 1.0, 1.4])
    square = ((points[:, None] - mesh_descriptor.CENTRES) ** 2).sum(-1)
    np.testing.assert_allclose(value[:64], np.exp(-square / (2 * 0.3**2)).mean(0), atol=1e-5)
    np.testing.assert_allclose(value[64:128], np.exp(-square / (2 * 0.6**2)).mean(0), atol=1e-5)
    x, y, z = points.T
    np.testing.assert_allclose(value[128], (x * x).mean(), atol=1e-5)
    np.testing.assert_allclose(value[130], (x * z).mean(), atol=1e-5)
    np.testing.assert_allclose(value[134 + 4], (x * y * z).mean(), atol=1e-5)
    assert value.shape == (conditioning.DESCRIPTOR_WIDTH,) == (144,)


def test_remeshing_moves_a_descriptor_less_than_a_little_shape_does():
    def described(count, stretch):
        points = sample_points(*sphere(count, stretch), 128)
        return np.asarray(conditioning.descriptor(points[None]))[0]

    one = described(16, (1.0, 1.3, 1.1))
    remeshed = described(23, (1.0, 1.3, 1.1))
    other = described(16, (1.0, 1.4, 1.1))
    assert np.linalg.norm(remeshed - one) < 0.35 * np.linalg.norm(other - one)


def shapes(count, factors, seed=0):
    rng = np.random.default_rng(seed)
    directions = np.random.default_rng(9).normal(size=(factors, conditioning.DESCRIPTOR_WIDTH))
    values = rng.normal(size=(count, factors))
    return values @ directions * 0.01 + 0.3, values


def test_standardisation_whitens_and_finds_the_factors_of_variation():
    rows, _ = shapes(40, 5)
    mean, projection = conditioning.standardisation(rows)
    code = (rows - mean) @ projection
    np.testing.assert_allclose(np.cov(code.T)[:5, :5], np.eye(5), atol=1e-3)
    assert not projection[:, 5:].any()
    new_rows, values = shapes(40, 5, seed=1)
    new = np.c_[(new_rows - mean) @ projection[:, :5], np.ones(40)]
    rest = values - new @ np.linalg.lstsq(new, values, rcond=None)[0]
    assert np.abs(rest).max() < 1e-3


def test_standardisation_leaves_out_what_sampling_made():
    clean, _ = shapes(40, 3)
    rows, repeated = (
        clean + 1e-3 * np.random.default_rng(seed).normal(size=clean.shape) for seed in (5, 6)
    )
    _, projection = conditioning.standardisation(rows, repeated)
    _, unaware = conditioning.standardisation(rows)
    assert projection.any(0).sum() == 3
    assert unaware.any(0).sum() == conditioning.COMPONENTS


@pytest.mark.parametrize("count", [0, 1, 2, 3])
def test_standardisation_of_few_subjects_is_finite(count):
    rows, _ = shapes(count, 5)
    mean, projection = conditioning.standardisation(rows)
    assert mean.shape == (144,) and projection.shape == (144, conditioning.COMPONENTS)
    assert np.isfinite(mean).all() and np.isfinite(projection).all()
    assert projection.any(0).sum() == max(count - 1, 0)


@pytest.fixture(scope="module")
def encoder():
    rows = np.stack([cloud(i, stretch=(1, 1 + 0.1 * i, 1 + 0.02 * i * i)) for i in range(5)])
    mean, projection = conditioning.standardisation(conditioning.descriptor(rows))
    module = conditioning.IdentityEncoder(8, dropout=0.0)
    known = jnp.ones(5, bool)
    params = module.init(jax.random.key(0), rows, known, mean, projection)

    def encode(points, known, dropout=0.0, **kwargs):
        module = conditioning.IdentityEncoder(8, dropout)
        return np.asarray(module.apply(params, points, known, mean, projection, **kwargs))

    return rows, encode


def test_identity_tells_faces_apart_in_any_order_of_points(encoder):
    rows, encode = encoder
    known = jnp.ones(5, bool)
    value = encode(rows, known)
    assert np.ptp(value, axis=0).max() > 0.1
    shuffled = np.random.default_rng(0).permutation(rows, axis=1)
    np.testing.assert_allclose(encode(shuffled, known), value, atol=1e-3)


def test_an_unknown_identity_is_the_mean_one_whatever_its_points_hold(encoder):
    rows, encode = encoder
    unknown = jnp.zeros(5, bool)
    value = encode(np.full_like(rows, np.nan), unknown)
    np.testing.assert_array_equal(value, encode(rows, unknown))
    np.testing.assert_array_equal(value, np.broadcast_to(value[:1], value.shape))


def test_a_face_unlike_any_other_gives_a_bounded_embedding(encoder):
    rows, encode = encoder
    far = encode(rows * np.array([4.0, 0.1, 2.0], np.float32), jnp.ones(5, bool))
    assert np.isfinite(far).all() and np.abs(far).max() < 20


def test_training_adds_noise_and_drops_identities(encoder):
    rows, encode = encoder
    known = jnp.ones(5, bool)
    streams = rngs.streams(jax.random.key(1))
    noisy = encode(rows, known, train=True, rngs=streams)
    assert 0 < np.abs(noisy - encode(rows, known)).max() < 1
    dropped = encode(rows, known, dropout=1.0, train=True, rngs=streams)
    np.testing.assert_array_equal(dropped, encode(rows, ~known))


def test_modulation_starts_as_identity_and_then_scales_and_shifts():
    module = conditioning.FiLM()
    x = jax.random.normal(jax.random.key(0), (2, 3, 4))
    conditions = [jnp.ones((2, 5)), jnp.ones((2, 3, 6))]
    params = module.init(jax.random.key(1), x, conditions)
    np.testing.assert_array_equal(module.apply(params, x, conditions), x)
    params = jax.tree.map(lambda w: w + jnp.r_[jnp.full(4, 0.1), jnp.full(4, 0.01)], params)
    expected = x * (1 + 1.1) + 0.11
    np.testing.assert_allclose(module.apply(params, x, conditions), expected, rtol=1e-5)


def test_a_residual_is_of_those_who_were_trained_on_only():
    module = conditioning.IdentityResidual(3, 4)
    subject = jnp.array([0, 2, -1, 3], jnp.int32)
    params = module.init(jax.random.key(0), subject)
    value = np.asarray(module.apply(params, subject))
    np.testing.assert_array_equal(value[:2], params["params"]["table"][jnp.array([0, 2])])
    assert np.abs(value[:2]).max() > 0 and not value[2:].any()
    many = jnp.zeros(4000, jnp.int32)
    dropping = conditioning.IdentityResidual(3, 4, dropout=0.3)
    dropped = dropping.apply(params, many, train=True, rngs={"dropout": jax.random.key(1)})
    assert np.mean(~np.asarray(dropped).any(-1)) == pytest.approx(0.3, abs=0.03)
    nobody = conditioning.IdentityResidual(0, 4)
    params = nobody.init(jax.random.key(0), subject)
    assert not np.asarray(nobody.apply(params, subject)).any()


@pytest.mark.parametrize("names", [(), ("a",), ("anna", "José", "p 3/x")])
def test_names_are_kept_as_numbers(names):
    array = conditioning.encode_names(names)
    assert array.dtype == np.uint8 and len(array) == len(names)
    assert conditioning.decode_names(array) == names


def test_a_dropped_emotion_is_the_zero_vector_for_a_whole_window():
    emotion = jax.random.dirichlet(jax.random.key(0), jnp.ones(5), (2000, 3))
    module = conditioning.EmotionEncoder(4, dropout=0.25)
    params = module.init(jax.random.key(2), emotion)
    streams = {"dropout": jax.random.key(1)}
    dropped = np.asarray(module.apply(params, emotion, train=True, rngs=streams))
    plain, zero = module.apply(params, emotion), module.apply(params, jnp.zeros((1, 1, 5)))
    gone = (dropped == np.asarray(zero)).all(axis=(1, 2))
    assert gone.mean() == pytest.approx(0.25, abs=0.03)
    np.testing.assert_array_equal(dropped[~gone], np.asarray(plain)[~gone])


def test_the_network_is_told_no_emotion_in_training_only():
    from a2fjax import models
    from a2fjax.configuration import Config, RegressionConfig

    small = {"conv_layers": 1, "conv_width": 8, "recurrent_width": 6, "dropout": 0.0}
    model = models.build(
        Config(model=RegressionConfig(**small, identity="none", emotion_dropout=1.0))
    )
    rng = np.random.default_rng(0)
    batch = Batch.zeros(2, 8, 1).replace(
        audio=0.1 * rng.normal(size=(2, 8 * 320)).astype(np.float32),
        length=np.full(2, 8, np.int32),
        emotion=rng.dirichlet(np.ones(5), (2, 8)).astype(np.float32),
    )
    params = jax.tree.map(
        lambda x: x + 0.1 * rng.normal(size=x.shape).astype(np.float32),
        model.init(jax.random.key(0), batch),
    )
    untold = batch.replace(emotion=np.zeros_like(batch.emotion))

    def motion(batch, key=None):
        return model.apply(params, batch, key=key, train=key is not None)["motion"]

    key = jax.random.key(2)
    np.testing.assert_array_equal(motion(batch, key), motion(untold, key))
    assert np.abs(motion(batch) - motion(untold)).max() > 1e-3
