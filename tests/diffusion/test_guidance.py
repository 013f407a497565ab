import jax.numpy as jnp
import numpy as np

from a2fjax.diffusion import guidance

RNG = np.random.default_rng(0)
WHOLE, NO_AUDIO, NO_EMOTION = (jnp.asarray(RNG.normal(size=(2, 3, 4))) for _ in range(3))


def test_strength_one_leaves_nothing_out():
    assert guidance.guided_conditions({}) == ()
    assert guidance.guided_conditions({"audio": 1.0, "emotion": 1, "identity": 1.0}) == ()
    np.testing.assert_array_equal(guidance.combine(WHOLE, (), {}), WHOLE)


def test_other_strengths_leave_their_conditions_out_in_a_fixed_order():
    assert guidance.guided_conditions({"identity": 0.0, "audio": 2.0}) == ("audio", "identity")
    assert guidance.guided_conditions({"emotion": 1.5}) == ("emotion",)


def test_one_condition_is_classifier_free_guidance():
    """(1 + w) conditional - w unconditional, with their w one less than ours."""
    both = jnp.concatenate([WHOLE, NO_AUDIO])
    for strength in (0.5, 2.0, 4.0):
        w = strength - 1.0
        found = guidance.combine(both, ("audio",), {"audio": strength})
        np.testing.assert_allclose(found, (1 + w) * WHOLE - w * NO_AUDIO, rtol=1e-5, atol=1e-6)


def test_two_conditions_each_move_by_what_leaving_them_out_changes():
    parts = jnp.array([[3.0], [10.0], [1.0], [4.0], [2.5], [10.0]])  # two items, three parts
    found = guidance.combine(parts, ("audio", "emotion"), {"audio": 2.0, "emotion": 1.5})
    # 3 + 1 (3 - 1) + 0.5 (3 - 2.5); 10 + 1 (10 - 4) + 0.5 (10 - 10)
    np.testing.assert_allclose(found, [[5.25], [16.0]])


def test_strength_zero_takes_a_condition_away():
    both = jnp.concatenate([WHOLE, NO_EMOTION])
    found = guidance.combine(both, ("emotion",), {"emotion": 0.0})
    np.testing.assert_allclose(found, NO_EMOTION, rtol=1e-5, atol=1e-6)
