import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from a2fjax.models.gru import GRU, BidirectionalGRU

FRAMES, BATCH, DEPTH, WIDTH = 9, 3, 5, 7
LENGTH = jnp.array([9, 4, 1])


@pytest.fixture
def inputs():
    return jax.random.normal(jax.random.key(0), (FRAMES, BATCH, DEPTH))


def parameters(module, inputs):
    """Parameters with no zero among them, so that a bias left out shows."""
    shapes = jax.eval_shape(module.init, jax.random.key(1), inputs)["params"]
    rng = np.random.default_rng(2)
    return jax.tree.map(lambda x: 0.4 * rng.normal(size=x.shape).astype(np.float32), shapes)


def quick(function):
    """Values, what comes with them, and gradients by parameters and inputs."""
    return jax.jit(jax.value_and_grad(function, (0, 1), has_aux=True))


def weighted(states, length=None):
    """A scalar in which every valid state counts differently."""
    weights = jax.random.normal(jax.random.key(3), states.shape)
    if length is not None:
        weights = weights * (jnp.arange(len(states))[:, None] < length)[..., None]
    return jnp.sum(weights * states)


def stock(params, inputs, reverse, length):
    rnn = nn.RNN(nn.GRUCell(WIDTH), time_major=True, reverse=reverse, keep_order=True)
    return rnn.apply({"params": {"cell": params}}, inputs, seq_lengths=length)


@pytest.mark.parametrize("length", [None, LENGTH], ids=["whole", "padded"])
@pytest.mark.parametrize("reverse", [False, True], ids=["forward", "backward"])
def test_states_and_gradients_are_those_of_flax(inputs, reverse, length):
    module = GRU(WIDTH, reverse=reverse)
    params = parameters(module, inputs)

    def ours(params, inputs):
        states = module.apply({"params": params}, inputs, length)
        return weighted(states, length), states

    def theirs(params, inputs):
        states = stock(params, inputs, reverse, length)
        return weighted(states, length), states

    # Compiled as a whole: one operation at a time, each would be a program of its own.
    (value, states), gradients = quick(ours)(params, inputs)
    (expected, other), expected_gradients = quick(theirs)(params, inputs)
    np.testing.assert_allclose(value, expected, atol=1e-5)
    jax.tree.map(
        lambda a, b: np.testing.assert_allclose(a, b, atol=1e-4), gradients, expected_gradients
    )
    for item, valid in enumerate([FRAMES] * BATCH if length is None else length.tolist()):
        np.testing.assert_allclose(states[:valid, item], other[:valid, item], atol=1e-5)


def test_states_and_gradients_are_those_of_torch(inputs):
    torch = pytest.importorskip("torch", reason="torch is not installed")
    module = BidirectionalGRU(WIDTH)
    params = parameters(module, inputs)
    twin = torch.nn.GRU(DEPTH, WIDTH, bidirectional=True)
    with torch.no_grad():
        for suffix, tree in (("", params["forward"]), ("_reverse", params["backward"])):
            gates = [[f"{side}{gate}" for gate in "rzn"] for side in "ih"]
            for names, side in zip(gates, ("ih", "hh"), strict=True):
                weight = np.concatenate([np.asarray(tree[n]["kernel"]).T for n in names])
                bias = np.concatenate(
                    [np.asarray(tree[n].get("bias", np.zeros(WIDTH))) for n in names]
                )
                getattr(twin, f"weight_{side}_l0{suffix}").copy_(torch.tensor(weight))
                getattr(twin, f"bias_{side}_l0{suffix}").copy_(torch.tensor(bias))
    x = torch.tensor(np.asarray(inputs), requires_grad=True)
    states, _ = twin(x)
    ours = module.apply({"params": params}, inputs)
    np.testing.assert_allclose(ours, states.detach().numpy(), atol=1e-5)
    weights = jax.random.normal(jax.random.key(3), ours.shape)
    (states * torch.tensor(np.asarray(weights))).sum().backward()
    gradient = jax.grad(lambda x: weighted(module.apply({"params": params}, x)))(inputs)
    np.testing.assert_allclose(gradient, x.grad.numpy(), atol=1e-4)


def test_initial_state_is_continued_and_has_a_gradient(inputs):
    module = GRU(WIDTH)
    params = {"params": parameters(module, inputs)}
    whole = module.apply(params, inputs)
    first = module.apply(params, inputs[:4])
    second = module.apply(params, inputs[4:], None, first[-1])
    np.testing.assert_allclose(jnp.concatenate([first, second]), whole, atol=1e-6)

    def scalar(initial):
        return weighted(module.apply(params, inputs[4:], None, initial))

    step = 1e-2 * jax.random.normal(jax.random.key(4), first[-1].shape)
    numeric = scalar(first[-1] + step) - scalar(first[-1] - step)
    np.testing.assert_allclose(jnp.sum(jax.grad(scalar)(first[-1]) * 2 * step), numeric, rtol=1e-2)


def test_padding_changes_nothing_and_gets_no_gradient(inputs):
    module = BidirectionalGRU(WIDTH)
    params = {"params": parameters(module, inputs)}
    padding = (jnp.arange(FRAMES)[:, None] >= LENGTH)[..., None]
    other = jnp.where(padding, 1e3, inputs)
    states, changed = (module.apply(params, x, LENGTH) for x in (inputs, other))
    np.testing.assert_array_equal(jnp.where(padding, 0, states), jnp.where(padding, 0, changed))
    gradient = jax.grad(lambda x: weighted(module.apply(params, x, LENGTH), LENGTH))(inputs)
    assert not jnp.where(padding, gradient, 0).any()
    assert jnp.where(padding, 1, gradient).all()


def test_held_frames_keep_the_last_state(inputs):
    module = GRU(WIDTH)
    states = module.apply({"params": parameters(module, inputs)}, inputs, LENGTH)
    for item, valid in enumerate(LENGTH.tolist()):
        np.testing.assert_array_equal(
            states[valid:, item],
            np.broadcast_to(states[valid - 1, item], states[valid:, item].shape),
        )


def test_bfloat16_products_keep_a_float32_state_and_stay_close(inputs):
    module = GRU(WIDTH)
    params = {"params": parameters(module, inputs)}
    half = GRU(WIDTH, dtype=jnp.bfloat16)
    states = half.apply(params, inputs)
    assert states.dtype == jnp.float32
    np.testing.assert_allclose(states, module.apply(params, inputs), atol=3e-2)
    gradient = jax.grad(lambda p: weighted(half.apply(p, inputs)))(params)
    assert all(g.dtype == jnp.float32 and jnp.isfinite(g).all() for g in jax.tree.leaves(gradient))
