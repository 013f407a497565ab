"""The model for live audio: one set of weights, a look-ahead drawn for each window."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from a2fjax import configuration as config_lib
from a2fjax import tasks
from a2fjax.batch import Batch
from a2fjax.errors import InputError
from a2fjax.models.streaming import LookaheadConv


def build(**model):
    values = {
        "name": "small",
        "model": {
            "kind": "streaming",
            "conv_layers": 2,
            "conv_width": 6,
            "recurrent_width": 6,
            "identity": "none",
            **model,
        },
    }
    return tasks.build(config_lib.build(config_lib.Config, values, where="test"))


@pytest.mark.parametrize("lookahead", [0, 2, 5])
def test_a_shorter_look_ahead_leaves_out_the_last_taps(lookahead):
    conv = LookaheadConv(width=4, past=2, future=5)
    x = np.random.default_rng(0).normal(size=(2, 12, 3)).astype(np.float32)
    params = conv.init(jax.random.key(0), x, jnp.zeros(2, jnp.int32))
    own = conv.apply(params, x, jnp.array([lookahead, 1]))
    after = np.pad(x, ((0, 0), (0, lookahead), (0, 0)))
    np.testing.assert_allclose(own[0], conv.apply(params, after, lookahead)[0], atol=1e-6)
    kernel, padded = params["params"]["kernel"], np.pad(x[0], ((2, 5), (0, 0)))
    window = padded[4 : 4 + 3 + lookahead]  # Around frame 4.
    np.testing.assert_allclose(own[0, 4], np.einsum("kc,kcw->w", window, kernel[: len(window)]),
                               atol=1e-5)  # fmt: skip


def test_look_aheads_are_drawn_by_key_and_all_occur():
    model = build().model
    a = model.draw_lookahead(jax.random.key(3), 200)
    np.testing.assert_array_equal(a, model.draw_lookahead(jax.random.key(3), 200))
    assert (a != model.draw_lookahead(jax.random.key(4), 200)).any()
    assert sorted(set(a.tolist())) == [0, 2, 5, 8, 16]


def test_frames_without_their_future_do_not_count():
    task = build(lookaheads_ms=(40,), lookahead_ms=40)
    rng = np.random.default_rng(0)
    batch = Batch.zeros(2, 12, 0).replace(
        audio=0.1 * rng.normal(size=(2, 12 * 320)).astype(np.float32),
        motion=rng.random((2, 12, 72)).astype(np.float32),
        channel_mask=np.ones((2, 72), bool),
        frame_mask=np.ones((2, 12), bool),
        length=np.array([12, 12], np.int32),
    )
    variables = task.init(jax.random.key(0), batch)

    @jax.jit
    def loss(motion):
        given = batch.replace(motion=motion)
        return task.loss(variables, given, jax.random.key(1), step=0, train=True)[0]

    base = loss(batch.motion)
    for frame, counts in ((10, False), (11, False), (9, True)):
        motion = batch.motion.copy()
        motion[:, frame] += 1.0
        assert (loss(motion) != base) == counts, frame


@pytest.mark.parametrize(
    "model, says",
    [
        ({"lookaheads_ms": (0, 30)}, "multiples of 20"),
        ({"lookaheads_ms": (40, 0)}, "ascending"),
        ({"lookahead_ms": 60}, "has the look-aheads 0, 40, 100, 160, 320 ms; the nearest is 40"),
    ],
)
def test_wrong_look_aheads_are_refused(model, says):
    with pytest.raises(InputError, match=says):
        build(**model)


def test_encoders_are_refused():
    values = {
        "audio": {"features": ("mel", "whisper:tiny.npz")},
        "model": {"kind": "streaming"},
    }
    config = config_lib.build(config_lib.Config, values, where="test")
    with pytest.raises(InputError, match="hears whole clips and cannot stream"):
        tasks.build(config)
