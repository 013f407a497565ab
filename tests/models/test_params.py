import jax
import jax.numpy as jnp
import pytest

from a2fjax.models import params


@pytest.fixture
def tree():
    return {
        "head": {"kernel": jnp.ones((2, 3)), "bias": jnp.ones(3)},
        "encoder": {"layer": {"kernel": jnp.ones((4, 2))}},
        "constants": {"mean": jnp.ones(5)},
    }


def test_split_freezes_constants_and_merge_restores(tree):
    trainable, frozen = params.split(tree)
    assert set(trainable) == {"head", "encoder"}
    assert set(frozen) == {"constants"}
    merged = params.merge(trainable, frozen)
    assert jax.tree.structure(merged) == jax.tree.structure(tree)
    assert params.count(trainable) == 6 + 3 + 8
    assert params.count(merged) == 22


def test_split_by_pattern_inside_a_branch(tree):
    trainable, frozen = params.split(tree, [*params.FROZEN, r"kernel$"])
    assert [p for p, _ in params.paths(trainable)] == ["head/bias"]
    assert {p for p, _ in params.paths(frozen)} == {
        "head/kernel",
        "encoder/layer/kernel",
        "constants/mean",
    }
    merged = params.merge(frozen, trainable)
    assert {p for p, _ in params.paths(merged)} == {p for p, _ in params.paths(tree)}


def test_merge_refuses_a_leaf_given_twice(tree):
    with pytest.raises(ValueError, match="both"):
        params.merge(tree, {"head": {"bias": jnp.zeros(3)}})


def test_table_names_every_parameter_and_marks_the_frozen(tree):
    text = params.table(jax.eval_shape(lambda: tree))
    assert "encoder/layer/kernel" in text and "4x2" in text
    assert "constants/mean (frozen)" in text
    assert text.endswith("17 trainable values, 5 frozen")
