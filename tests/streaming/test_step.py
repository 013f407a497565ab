"""The step is a pure function of its arguments, with rows that do not touch each other."""

import jax
import numpy as np
import pytest

from a2fjax.errors import InputError
from a2fjax.infer import live

ROWS = 3


@pytest.fixture(scope="module")
def step(streaming_model):
    return streaming_model.compiled_step(size=ROWS)


@pytest.fixture(scope="module")
def conditions(step):
    rng = np.random.default_rng(0)
    identity = rng.normal(size=(ROWS, step.step.identity_width)).astype(np.float32)
    return identity, rng.dirichlet(np.ones(5), ROWS).astype(np.float32)


def hops(speech, count, seed=0):
    audio = np.stack([speech(1.0, seed=seed + i)[: count * 320] for i in range(ROWS)])
    return audio.reshape(ROWS, count, 320).swapaxes(0, 1).copy()


def run(step, conditions, blocks, state=None, **masks):
    state = state or step.start()
    out = []
    for i, block in enumerate(blocks):
        given = {k: v[i] for k, v in masks.items()}
        motion, state = step(block, state, *conditions, **given)
        out.append(motion)
    return np.concatenate(out, axis=1), jax.tree.map(np.asarray, state)


def test_the_state_is_listed_and_starts_at_zero(step):
    start = step.start()
    assert set(start) == set(step.step.entries)
    for name, entry in step.step.entries.items():
        assert start[name].shape == (ROWS, *entry.shape) and start[name].dtype == entry.dtype
        assert not np.asarray(start[name]).any()


def test_the_first_frames_are_zero_until_the_look_ahead_is_heard(step, conditions, speech):
    motion, state = run(step, conditions, hops(speech, 8))
    assert not motion[:, :5].any() and (motion[:, 5:] != 0).any(axis=-1).all()
    assert state["frames"].tolist() == [8] * ROWS


def test_inactive_rows_do_not_change_by_a_bit(step, conditions, speech):
    blocks = hops(speech, 12)
    _, before = run(step, conditions, blocks)
    active = np.array([True, False, True])
    blocks[0][1] = np.nan  # What an inactive row holds does not matter.
    motion, after = step(blocks[0], before, *conditions, active=active)
    for name, value in after.items():
        np.testing.assert_array_equal(np.asarray(value)[1], before[name][1])
        assert (np.asarray(value)[0] != before[name][0]).any(), name
    assert not motion[1].any() and motion[0].any()


def test_a_row_that_pauses_goes_on_as_if_nothing_had_been(step, conditions, speech):
    blocks = hops(speech, 14)
    whole, _ = run(step, conditions, blocks)
    active = np.ones((20, ROWS), bool)
    active[5:11, 1] = False
    order = [*range(5), *[0] * 6, *range(5, 14)]
    mixed = np.stack([blocks[i] for i in order])
    motion, _ = run(step, conditions, mixed, active=active)
    np.testing.assert_array_equal(motion[1][active[:, 1]], whole[1])


def test_reset_is_a_new_stream_for_its_row_alone(step, conditions, speech):
    blocks, new = hops(speech, 10), hops(speech, 10, seed=9)
    _, state = run(step, conditions, blocks)
    reset = np.zeros((10, ROWS), bool)
    reset[0, 2] = True
    motion, _ = run(step, conditions, new, state, reset=reset)
    fresh, _ = run(step, conditions, new)
    going_on, _ = run(step, conditions, new, state)
    np.testing.assert_array_equal(motion[2], fresh[2])
    np.testing.assert_array_equal(motion[:2], going_on[:2])
    idle = np.zeros(ROWS, bool)
    _, freed = step(blocks[0], state, *conditions, active=idle, reset=reset[0])
    assert not any(np.asarray(x)[2].any() for x in freed.values())


def test_a_hop_of_several_frames_is_the_same_motion(streaming_model, step, conditions, speech):
    blocks = hops(speech, 12)
    motion, state = run(step, conditions, blocks)
    four = streaming_model.compiled_step(size=ROWS, hop=4)
    joined = blocks.reshape(3, 4, ROWS, 320).swapaxes(1, 2).reshape(3, ROWS, 1280)
    found, after = run(four, conditions, joined)
    np.testing.assert_allclose(found, motion, atol=1e-5)
    np.testing.assert_allclose(after["gru"], state["gru"], atol=1e-5)


def test_counting_ends_without_overflow(step, conditions, speech):
    blocks = hops(speech, 10)
    _, state = run(step, conditions, blocks)
    last = np.int32(2**31 - 2)
    late = {**state, "frames": np.full(ROWS, last)}
    first, late = run(step, conditions, blocks, late)
    assert (late["frames"] == 2**31 - 1).all()
    np.testing.assert_array_equal(first, run(step, conditions, blocks, state)[0])


@pytest.mark.parametrize(
    "change, says",
    [
        ({"audio": np.zeros((ROWS, 640), np.float32)}, r"expected \(3, 320\).*the hop is fixed"),
        ({"audio": np.zeros((ROWS, 320))}, "type float64, expected"),
        ({"emotion": np.zeros((ROWS, 4), np.float32)}, r"emotion: has shape \(3, 4\)"),
        ({"audio": np.full((ROWS, 320), np.inf, np.float32)}, "row 0 has samples"),
        ({"state": {}}, "state: has no"),
    ],
)
def test_wrong_arrays_are_one_line(step, conditions, change, says):
    given = {
        "audio": np.zeros((ROWS, 320), np.float32),
        "state": step.start(),
        "identity": conditions[0],
        "emotion": conditions[1],
    }
    with pytest.raises(InputError, match=says):
        step(**{**given, **change})


def test_sizes_of_a_step(streaming_model):
    with pytest.raises(InputError, match="at least 1"):
        live.compile_step(streaming_model, size=0)
