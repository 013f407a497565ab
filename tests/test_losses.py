import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from a2fjax import losses, registry, rig
from a2fjax.batch import Batch
from a2fjax.configuration import LossConfig, LossTermConfig, load
from a2fjax.errors import InputError


class Frozen(dict):
    """A mapping that `jax.jit` can tell apart."""

    def __hash__(self):
        return hash(tuple(self.items()))


ALL = LossConfig(group_weights=Frozen(jaw_mouth=2.0, jaw=3.0), terms=Frozen())
SEEDS = st.integers(0, 2**32 - 1)
compute = jax.jit(losses.compute_terms, static_argnames="config")


@jax.jit
def scalar_and_gradient(prediction, batch):
    def scalar(prediction):
        return losses.total(losses.compute_terms(prediction, batch, ALL), ALL)

    return jax.value_and_grad(scalar)(prediction)


def example(seed, items=2, frames=6):
    rng = np.random.default_rng(seed)
    batch = Batch.zeros(items, frames, 1).replace(
        motion=rng.uniform(rig.MIN, rig.MAX, (items, frames, 72)).astype(np.float32),
        channel_mask=rng.random((items, 72)) < 0.8,
        frame_mask=rng.random((items, frames)) < 0.8,
        length=rng.integers(1, frames + 1, items).astype(np.int32),
    )
    noise = 0.3 * rng.normal(size=batch.motion.shape) * rig.SCALE
    return (batch.motion + noise).astype(np.float32), batch


def counted(batch):
    good = batch.frame_mask & (np.arange(batch.frame_mask.shape[1]) < batch.length[:, None])
    return good[..., None] & batch.channel_mask[:, None]


def reference(prediction, batch, config):
    """Loops over items, frames and channels, written from the definitions."""
    sums = {name: [0.0, 0.0] for name in ("position", "velocity", "aperture", "closure")}
    weights = np.ones(72)
    for group, factor in config.group_weights.items():
        for c in rig.GROUPS[group]:
            weights[c] *= factor
    mask = counted(batch)
    error = (prediction.astype(np.float64) - batch.motion) / rig.SCALE
    for b, t, c in zip(*np.nonzero(mask), strict=True):
        sums["position"][0] += weights[c] * error[b, t, c] ** 2
        sums["position"][1] += weights[c]
        if t > 0 and mask[b, t - 1, c]:
            sums["velocity"][0] += weights[c] * (error[b, t, c] - error[b, t - 1, c]) ** 2
            sums["velocity"][1] += weights[c]
    for b, t in np.ndindex(mask.shape[:2]):
        if not mask[b, t, rig.INDEX["jawOpen"]]:
            continue
        seen = np.where(mask[b, t], rig.APERTURE, 0.0)
        square = float(error[b, t] @ seen) ** 2
        near = np.exp(-max(float(batch.motion[b, t] @ seen), 0.0) / config.closure_width)
        sums["aperture"][0] += square
        sums["aperture"][1] += 1.0
        sums["closure"][0] += near * square
        sums["closure"][1] += near
    return sums


@settings(max_examples=25, deadline=None)
@given(SEEDS)
def test_terms_are_those_of_the_definitions(seed):
    prediction, batch = example(seed)
    terms = compute(prediction, batch, ALL)
    expected = reference(prediction, batch, ALL)
    assert set(terms) == set(expected)
    for name, term in terms.items():
        np.testing.assert_allclose((term.total, term.weight), expected[name], rtol=1e-4, atol=1e-5)


@settings(max_examples=25, deadline=None)
@given(SEEDS)
def test_masked_and_padded_values_count_for_nothing_even_if_not_numbers(seed):
    prediction, batch = example(seed)
    hidden = ~counted(batch)
    other = batch.replace(motion=np.where(hidden, np.nan, batch.motion))
    value, gradient = scalar_and_gradient(prediction, batch)
    value_other, gradient_other = scalar_and_gradient(prediction, other)
    assert value == value_other and jnp.isfinite(value)
    np.testing.assert_array_equal(gradient, gradient_other)
    assert not np.asarray(gradient)[hidden].any()
    assert np.asarray(gradient)[~hidden].all() or not (~hidden).any()
    moved = np.where(hidden, prediction + 1e3, prediction)
    assert scalar_and_gradient(moved, batch)[0] == value


@settings(max_examples=25, deadline=None)
@given(SEEDS, st.integers(1, 3))
def test_microbatches_add_up(seed, cut):
    prediction, batch = example(seed, items=4)
    whole = compute(prediction, batch, ALL)
    parts = [
        compute(prediction[part], batch.select(part), ALL)
        for part in (slice(0, cut), slice(cut, None))
    ]
    merged = losses.merge(*parts)
    for name, term in whole.items():
        np.testing.assert_allclose(merged[name].total, term.total, rtol=1e-5)
        np.testing.assert_allclose(merged[name].weight, term.weight, rtol=1e-5)
        np.testing.assert_allclose(merged[name].value, term.value, rtol=1e-5)


def everything_counts(items=1, frames=4):
    return Batch.zeros(items, frames, 1).replace(
        motion=np.zeros((items, frames, 72), np.float32),
        channel_mask=np.ones((items, 72), bool),
        frame_mask=np.ones((items, frames), bool),
        length=np.full(items, frames, np.int32),
    )


def test_known_values():
    batch = everything_counts()
    prediction = batch.motion.copy()
    prediction[:, 2, rig.INDEX["jawOpen"]] = 0.5
    terms = losses.compute_terms(prediction, batch, LossConfig())
    np.testing.assert_allclose(terms["position"].value, 0.25 / (4 * 72), rtol=1e-6)
    np.testing.assert_allclose(terms["velocity"].value, 2 * 0.25 / (3 * 72), rtol=1e-6)
    np.testing.assert_allclose(terms["aperture"].value, 0.25 / 4, rtol=1e-6)
    np.testing.assert_allclose(terms["closure"].value, 0.25 / 4, rtol=1e-6)
    weights = LossConfig(position=1.0, velocity=2.0, aperture=3.0, closure=4.0)
    expected = 0.25 / (4 * 72) + 2 * 2 * 0.25 / (3 * 72) + 7 * 0.25 / 4
    np.testing.assert_allclose(losses.total(terms, weights), expected, rtol=1e-6)


def test_angles_count_in_units_of_thirty_degrees():
    batch = everything_counts()
    prediction = batch.motion.copy()
    prediction[..., rig.INDEX["leftEyeRotX"]] = 30.0
    term = losses.compute_terms(prediction, batch, LossConfig())["position"]
    np.testing.assert_allclose(term.value, 1 / 72, rtol=1e-6)


def test_open_lips_count_little_for_closure():
    batch = everything_counts(frames=1)
    batch.motion[..., rig.INDEX["jawOpen"]] = 0.1
    term = losses.compute_terms(batch.motion + 0.1, batch, LossConfig(closure_width=0.05))
    np.testing.assert_allclose(term["closure"].weight, np.exp(-2.0), rtol=1e-5)


def test_closed_by_mouth_close_counts_as_closed():
    batch = everything_counts(frames=1)
    batch.motion[..., [rig.INDEX["jawOpen"], rig.INDEX["mouthClose"]]] = 0.4
    term = losses.compute_terms(batch.motion, batch, LossConfig())["closure"]
    np.testing.assert_allclose(term.weight, 1.0, rtol=1e-5)


@pytest.mark.parametrize("name", ["position", "velocity", "aperture", "closure"])
def test_a_term_of_weight_zero_is_not_computed(name):
    prediction, batch = example(0)
    terms = losses.compute_terms(prediction, batch, LossConfig(**{name: 0.0}))
    assert name not in terms and len(terms) == 3


def test_nothing_observed_is_zero_with_finite_gradient():
    prediction, batch = example(0)
    batch.frame_mask[:] = False
    value, gradient = scalar_and_gradient(prediction, batch)
    assert value == 0 and not gradient.any()


def test_balance_makes_channels_count_alike_and_keeps_what_the_mean_costs():
    rng = np.random.default_rng(3)
    deviation = np.where(rng.random(72) < 0.3, 0.0, rng.uniform(0.01, 0.3, 72)) * rig.SCALE
    variance = (deviation / rig.SCALE) ** 2
    seen = variance > 0
    full = np.asarray(losses.balance(jnp.asarray(deviation), 1.0))
    np.testing.assert_allclose((full * variance)[seen], variance.sum() / seen.sum(), rtol=1e-4)
    for exponent in (0.0, 0.5, 1.0):
        factors = np.asarray(losses.balance(jnp.asarray(deviation), exponent))
        np.testing.assert_allclose((factors * variance).sum(), variance.sum(), rtol=1e-5)
        assert np.all(factors[~seen] == 1.0)
    half = np.asarray(losses.balance(jnp.asarray(deviation), 0.5))
    small = np.argsort(np.where(seen, variance, np.inf))[0]
    assert 1 < half[small] < full[small]
    np.testing.assert_allclose(np.asarray(losses.balance(jnp.asarray(deviation), 0.0)), 1.0, 1e-5)


def test_an_added_term_counts_by_its_weight_and_a_built_in_one_is_refused(monkeypatch):
    added = registry.Registry("loss")
    for entry in registry.losses:
        added.register(entry.name, entry.target, settings=entry.settings)
    monkeypatch.setattr(registry, "losses", added)

    @added.register("bias")
    def bias(inputs, config):
        assert config.weight == 0.25
        return losses.masked_mean(inputs.error, inputs.mask)

    prediction, batch = example(3)
    config = LossConfig(terms={"bias": LossTermConfig(weight=0.25)})
    terms = losses.compute_terms(prediction, batch, config)
    mask = counted(batch)
    error = ((prediction - batch.motion) / rig.SCALE)[mask]
    np.testing.assert_allclose(terms["bias"].value, error.mean(), rtol=1e-4)
    without = {name: term for name, term in terms.items() if name != "bias"}
    difference = losses.total(terms, config) - losses.total(without, LossConfig())
    np.testing.assert_allclose(difference, 0.25 * error.mean(), rtol=1e-2)
    with pytest.raises(InputError, match="loss.terms.velocity: a built-in term; set loss.velocity"):
        load(None, {"loss.terms": "{'velocity': {'weight': 1.0}}"})
    with pytest.raises(InputError, match="unknown loss 'velocty'; did you mean 'velocity'"):
        load(None, {"loss.terms": "{'velocty': {}}"})
