"""NVIDIA's networks against two independent ones: loops in NumPy, and PyTorch where it is.

Both read the same state dict, with the names and layouts of NVIDIA's source, which `weights`
converts. What they compute is written here from the description of the networks.
"""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from a2fjax.models.nvidia.conv_w2v_autocorr import network as regression
from a2fjax.models.nvidia.diffusion_rnn import network as diffusion
from a2fjax.models.nvidia.frame_layout import RIG, FrameLayout
from a2fjax.models.nvidia.weights import convert, torch_name
from a2fjax.models.params import paths

LAYOUTS = {"geometry": FrameLayout(6, 5, 15, 4), "no tongue": FrameLayout(6, 0, 15, 4), "rig": RIG}
B, S = 2, 3


def regression_size(layout, phonemes=()):
    return regression.Size(
        layout,
        encoder_layers=2,
        encoder_width=7,
        implicit=4,
        explicit_width=3,
        width=8,
        lag_widths=(3, 4, 5, 6),
        phonemes=phonemes,
    )


def diffusion_size(layout, stack=1):
    return diffusion.Size(
        layout,
        actors=3,
        encoder_width=6,
        stack=stack,
        steps=11,
        width=8,
        tongue_width=3,
        jaw_width=4,
        eyes_width=2,
        emotion_width=5,
        actor_width=4,
        recurrent_width=8,
    )


def regression_shapes(size):
    joint = size.width + size.implicit + size.explicit_width
    rest, tongue = size.layout.width - size.layout.tongue, size.layout.tongue
    a, b, c, d = size.lag_widths
    shapes = {
        "w2v_linear_mapping": (size.width, size.encoder_width),
        "freq1": (a, 1, 1, 3),
        "freq2": (b, a, 1, 3),
        "freq3": (c, b, 1, 3),
        "freq4": (d, c, 1, 3),
        "freq5": (size.width, d, 1, 2),
        "time1": (size.width, 2 * size.width, 3, 1),
        "time2": (size.width, joint, 3, 1),
        "time3": (size.width, joint, 3, 1),
        "time4": (size.width, joint, 3, 1),
        "time5": (size.width, 2 * joint),
        "linear_skin_jaw_eyes1": (rest, joint),
        "linear_skin_jaw_eyes2": (rest, rest),
        "linear_explicit_emo": (size.explicit_width, size.explicit),
    }
    if tongue:
        shapes |= {"linear_tongue1": (tongue, joint), "linear_tongue2": (tongue, tongue)}
    if size.phonemes:
        shapes |= dict.fromkeys(["phoneme_conv1", "phoneme_conv2"], (size.width, size.width, 3, 1))
    for i, count in enumerate(size.phonemes):
        shapes[f"phoneme_regressors.{i}"] = (count, size.width)
    out = {f"{name}.weight": shape for name, shape in shapes.items()}
    out |= {f"{name}.bias": shape[:1] for name, shape in shapes.items()}
    return out | {"w2v_feature_coeffs": (size.encoder_layers,)}


def diffusion_shapes(size):
    h, w, layout = size.recurrent_width, size.width, size.layout
    shapes = {
        "proj_hubert": (w, size.encoder_width * size.stack),
        "geometry_embedding.skin_embedding.0": (2 * w, layout.skin),
        "geometry_embedding.skin_embedding.1": (1, 1, 9),
        "final_layer_skin.0": (2 * h, h),
        "final_layer_skin.2": (layout.skin, 2 * h),
        "proj_time.0": (w, size.steps),
    }
    wide = 2 * w
    if layout.tongue:
        wide += 2 * size.tongue_width
        shapes["geometry_embedding.tongue_embedding.0"] = (2 * size.tongue_width, layout.tongue)
        shapes["geometry_embedding.tongue_embedding.1"] = (1, 1, 9)
        shapes["final_layer_tongue.0"] = (2 * h, h)
        shapes["final_layer_tongue.2"] = (layout.tongue, 2 * h)
    for part, depth, half in (
        ("jaw", layout.jaw, size.jaw_width),
        ("eye", layout.eyes, size.eyes_width),
    ):
        if depth:
            wide += 2 * half
            shapes[f"geometry_embedding.{part}_embedding.0"] = (2 * half, depth)
            shapes[f"geometry_embedding.{part}_embedding.2"] = (2 * half, 2 * half)
            shapes[f"final_layer_{part}.0"] = (h // 2, h)
            shapes[f"final_layer_{part}.2"] = (depth, h // 2)
    shapes["geometry_embedding.final.0"] = (wide, wide)
    shapes["geometry_embedding.final.2"] = (wide // 2, wide)
    out = {f"{name}.weight": shape for name, shape in shapes.items()}
    out |= {f"{name}.bias": shape[:1] for name, shape in shapes.items()}
    out["embed_actor.weight"] = (size.actor_width, size.actors)
    out["embed_emo_vector.weight"] = (size.emotion_width, size.explicit)
    depth = 2 * w + wide // 2 + size.actor_width + size.emotion_width
    for i in range(size.recurrent_layers):
        out[f"gru.weight_ih_l{i}"] = (3 * h, h if i else depth)
        out[f"gru.weight_hh_l{i}"] = (3 * h, h)
        out |= {f"gru.bias_ih_l{i}": (3 * h,), f"gru.bias_hh_l{i}": (3 * h,)}
    return out


def state_dict(shapes, seed=0):
    rng = np.random.default_rng(seed)
    out = {}
    for name, shape in sorted(shapes.items()):
        fan_in = np.prod(shape[1:]) if len(shape) > 1 else 4.0
        out[name] = (rng.normal(size=shape) / fan_in**0.5).astype(np.float32)
    if "w2v_feature_coeffs" in out:
        out["w2v_feature_coeffs"] = np.array([0.7, 1.6], np.float32)
    return out


def regression_inputs(size, seed=1):
    rng = np.random.default_rng(seed)
    return {
        "lags": rng.normal(size=(B, S, 25, 32)).astype(np.float32),
        "features": rng.normal(size=(B, S, 25, size.encoder_layers, size.encoder_width)).astype(
            np.float32
        ),
        "implicit": rng.normal(size=(B, S, size.implicit)).astype(np.float32),
        "explicit": rng.normal(size=(B, S, size.explicit)).astype(np.float32),
    }


def diffusion_inputs(size, frames=7, per_frame=False, seed=1):
    rng = np.random.default_rng(seed)
    emotion = (B, frames, size.explicit) if per_frame else (B, size.explicit)
    return {
        "noisy": rng.normal(size=(B, frames, size.layout.width)).astype(np.float32),
        "step": np.array([10, 4]),
        "features": rng.normal(size=(B, frames, size.stack * size.encoder_width)).astype("f4"),
        "actor": np.eye(size.actors, dtype=np.float32)[[2, 0]],
        "emotion": rng.normal(size=emotion).astype(np.float32),
        "mean": rng.normal(size=(size.actors, size.layout.width)).astype(np.float32),
    }


def params_of(network, state, inputs):
    return convert(
        state, jax.eval_shape(lambda: network.init(jax.random.key(0), **inputs))["params"]
    )


# NumPy, in float64, one item and one frame at a time.


def np_linear(state, name, x):
    return state[f"{name}.weight"].astype(np.float64) @ x + state.get(f"{name}.bias", 0.0)


def np_conv(weight, bias, x, stride, padding):
    """x [channels, N], weight [out, channels, taps]."""
    x = np.pad(x, ((0, 0), (padding, padding)))
    taps = weight.shape[-1]
    columns = [
        np.einsum("oit,it->o", weight.astype(np.float64), x[:, i : i + taps]) + bias
        for i in range(0, x.shape[1] - taps + 1, stride)
    ]
    return np.stack(columns, -1)


def np_named_conv(state, name, x, stride=2, padding=1):
    weight = state[f"{name}.weight"]
    weight = weight.reshape(*weight.shape[:2], -1)
    return np_conv(weight, state[f"{name}.bias"], x, stride, padding)


def relu(x):
    return np.maximum(x, 0.0)


def np_regression(state, size, lags, features, implicit, explicit):
    """One frame: lags [25, 32], features [25, layers, width]; returns the frame and the logits."""
    mix = state["w2v_feature_coeffs"] / state["w2v_feature_coeffs"].sum()
    heard, correlated = [], []
    for window in range(25):
        mixed = sum(c * f for c, f in zip(mix, features[window], strict=True))
        heard.append(relu(np_linear(state, "w2v_linear_mapping", mixed)))
        x = lags[window][None]
        for name in ("freq1", "freq2", "freq3", "freq4"):
            x = relu(np_named_conv(state, name, x)) * 2**0.5
        x = relu(np_named_conv(state, "freq5", x, 1, 0)) * 2**0.5
        assert x.shape == (size.width, 1)
        correlated.append(x[:, 0])
    heard = np.stack(heard, -1)
    emotion = np.concatenate([implicit, np_linear(state, "linear_explicit_emo", explicit)])
    x = np.concatenate([heard, np.stack(correlated, -1)])
    lengths = []
    for name in ("time1", "time2", "time3", "time4"):
        x = relu(np_named_conv(state, name, x)) * 2**0.5
        lengths.append(x.shape[1])
        x = np.concatenate([x, np.repeat(emotion[:, None], x.shape[1], 1)])
    assert lengths == [13, 7, 4, 2]
    x = np.concatenate([relu(np_linear(state, "time5", x.reshape(-1))) * 2**0.5, emotion])
    rest = np_linear(state, "linear_skin_jaw_eyes1", x)
    rest = np_linear(state, "linear_skin_jaw_eyes2", rest)
    tongue = np.zeros(0)
    if size.layout.tongue:
        tongue = np_linear(state, "linear_tongue2", np_linear(state, "linear_tongue1", x))
    skin = size.layout.skin
    logits = []
    if size.phonemes:
        y = heard
        for name in ("phoneme_conv1", "phoneme_conv2"):
            y = relu(np_named_conv(state, name, y, 1, 1)) * 2**0.5
        for i in range(len(size.phonemes)):
            head = [np_linear(state, f"phoneme_regressors.{i}", column) for column in y.T]
            logits.append(np.stack(head))
    return np.concatenate([rest[:skin], tongue, rest[skin:]]), logits


def np_gru(state, xs):
    sigmoid = lambda a: 1.0 / (1.0 + np.exp(-a))  # noqa: E731
    for layer in range(2):
        w_i, w_h = (state[f"gru.weight_{k}_l{layer}"].astype(np.float64) for k in ("ih", "hh"))
        b_i, b_h = (state[f"gru.bias_{k}_l{layer}"].astype(np.float64) for k in ("ih", "hh"))
        h, out = np.zeros(w_h.shape[1]), []
        for x in xs:
            i_r, i_z, i_n = np.split(w_i @ x + b_i, 3)
            h_r, h_z, h_n = np.split(w_h @ h + b_h, 3)
            z = sigmoid(i_z + h_z)
            h = (1 - z) * np.tanh(i_n + sigmoid(i_r + h_r) * h_n) + z * h
            out.append(h)
        xs = out
    return np.stack(xs)


def np_diffusion(state, size, noisy, step, features, actor, emotion, mean):
    """One item: noisy [T, D], emotion [T, explicit] or [explicit]."""
    layout = size.layout
    ends = np.cumsum([layout.skin, layout.tongue, layout.jaw, layout.eyes])
    tokens = []
    x = np_linear(state, "proj_time.0", np.eye(size.steps)[step])
    time = x * np.tanh(np.log1p(np.exp(x)))
    for t, frame in enumerate(noisy):
        skin, tongue, jaw, eyes = np.split(frame, ends[:-1])
        parts = []
        for name, part in (("skin", skin), ("tongue", tongue)):
            if len(part):
                name = f"geometry_embedding.{name}_embedding"
                wide = np_linear(state, f"{name}.0", part)[None]
                weight, bias = state[f"{name}.1.weight"], state[f"{name}.1.bias"]
                parts.append(relu(np_conv(weight, bias, wide, 1, 4))[0])
        for name, part in (("jaw", jaw), ("eye", eyes)):
            if len(part):
                name = f"geometry_embedding.{name}_embedding"
                hidden = relu(np_linear(state, f"{name}.0", part))
                parts.append(relu(np_linear(state, f"{name}.2", hidden)))
        hidden = relu(np_linear(state, "geometry_embedding.final.0", np.concatenate(parts)))
        felt = emotion if emotion.ndim == 1 else emotion[t]
        tokens.append(
            np.concatenate(
                [
                    np_linear(state, "proj_hubert", features[t]),
                    np_linear(state, "geometry_embedding.final.2", hidden),
                    np_linear(state, "embed_actor", actor),
                    time,
                    np_linear(state, "embed_emo_vector", felt),
                ]
            )
        )
    out = []
    for h in np_gru(state, tokens):
        frame = []
        for name in ("skin", "tongue", "jaw", "eye"):
            name = f"final_layer_{name}"
            if f"{name}.0.weight" in state:
                frame.append(np_linear(state, f"{name}.2", relu(np_linear(state, f"{name}.0", h))))
        out.append(np.concatenate(frame) + actor @ mean)
    return np.stack(out)


@pytest.mark.parametrize("layout", LAYOUTS.values(), ids=LAYOUTS)
def test_regression_is_that_of_loops_in_numpy(layout):
    size = regression_size(layout, phonemes=(5, 4))
    state, inputs = state_dict(regression_shapes(size)), regression_inputs(size)
    network = regression.Network(size)
    out = jax.jit(network.apply)({"params": params_of(network, state, inputs)}, **inputs)
    for b in range(B):
        for s in range(S):
            frame, logits = np_regression(state, size, *(inputs[k][b, s] for k in inputs))
            np.testing.assert_allclose(out["frames"][b, s], frame, atol=2e-5)
            for ours, theirs in zip(out["phonemes"], logits, strict=True):
                np.testing.assert_allclose(ours[b, s], theirs, atol=2e-5)


@pytest.mark.parametrize(
    "layout, per_frame",
    [(LAYOUTS["geometry"], False), (LAYOUTS["no tongue"], True), (RIG, True)],
    ids=["geometry", "no tongue, emotion a frame", "rig, emotion a frame"],
)
def test_diffusion_is_that_of_loops_in_numpy(layout, per_frame):
    size = diffusion_size(layout, stack=2)
    state = state_dict(diffusion_shapes(size))
    inputs = diffusion_inputs(size, per_frame=per_frame)
    network = diffusion.Network(size)
    out, _ = jax.jit(network.apply)({"params": params_of(network, state, inputs)}, **inputs)
    for b in range(B):
        items = {k: v if k == "mean" else v[b] for k, v in inputs.items()}
        np.testing.assert_allclose(out[b], np_diffusion(state, size, **items), atol=2e-5)


# PyTorch, with its own modules and their conventions.


def torch_regression(torch, size):
    nn = torch.nn

    class Net(nn.Module):
        def __init__(self):
            super().__init__()
            for name, shape in regression_shapes(size).items():
                if not name.endswith(".weight") or "." in name.removesuffix(".weight"):
                    continue
                name = name.removesuffix(".weight")
                if len(shape) == 2:
                    layer = nn.Linear(shape[1], shape[0])
                else:
                    still = name == "freq5" or name.startswith("phoneme")
                    padding = (0, 0) if name == "freq5" else tuple(k // 2 for k in shape[2:])
                    stride = (1, 1) if still else tuple(2 if k == 3 else 1 for k in shape[2:])
                    layer = nn.Conv2d(shape[1], shape[0], shape[2:], stride, padding)
                setattr(self, name, layer)
            self.phoneme_regressors = nn.ModuleList(nn.Linear(size.width, n) for n in size.phonemes)
            self.w2v_feature_coeffs = nn.Parameter(torch.ones(size.encoder_layers))

        def forward(self, lags, features, implicit, explicit):
            act = lambda x: nn.functional.relu(x) * 2**0.5  # noqa: E731
            n = lags.shape[0] * lags.shape[1]
            coeffs = self.w2v_feature_coeffs
            mixed = (features.flatten(0, 1).transpose(-1, -2) * coeffs).sum(-1) / coeffs.sum()
            heard = torch.relu(self.w2v_linear_mapping(mixed)).transpose(1, 2)[..., None]
            x = lags.reshape(n, 1, 25, 32)
            for name in ("freq1", "freq2", "freq3", "freq4", "freq5"):
                x = act(getattr(self, name)(x))
            x = torch.cat([heard, x], 1)
            emotion = torch.cat([implicit, self.linear_explicit_emo(explicit)], -1).flatten(0, 1)
            for name in ("time1", "time2", "time3", "time4"):
                x = act(getattr(self, name)(x))
                x = torch.cat([x, emotion[..., None, None].expand(-1, -1, *x.shape[2:])], 1)
            x = torch.cat([act(self.time5(x.flatten(1))), emotion], 1)
            rest = self.linear_skin_jaw_eyes2(self.linear_skin_jaw_eyes1(x))
            parts = [rest[:, : size.layout.skin], rest[:, size.layout.skin :]]
            if size.layout.tongue:
                parts.insert(1, self.linear_tongue2(self.linear_tongue1(x)))
            y = heard
            for name in ("phoneme_conv1", "phoneme_conv2")[: 2 * bool(size.phonemes)]:
                y = act(getattr(self, name)(y))
            logits = [head(y[..., 0].transpose(1, 2)) for head in self.phoneme_regressors]
            return torch.cat(parts, -1).reshape(*lags.shape[:2], -1), logits

    return Net()


def torch_diffusion(torch, size):
    nn, layout = torch.nn, size.layout
    h = size.recurrent_width

    def smoothed(depth, width):
        return nn.Sequential(nn.Linear(depth, width), nn.Conv1d(1, 1, 9, padding=4), nn.ReLU())

    def layered(depth, width):
        return nn.Sequential(nn.Linear(depth, width), nn.ReLU(), nn.Linear(width, width), nn.ReLU())

    def head(hidden, width):
        return nn.Sequential(nn.Linear(h, hidden), nn.ReLU(), nn.Linear(hidden, width))

    class Net(nn.Module):
        def __init__(self):
            super().__init__()
            embedding = self.geometry_embedding = nn.Module()
            embedding.skin_embedding = smoothed(layout.skin, 2 * size.width)
            self.final_layer_skin = head(2 * h, layout.skin)
            if layout.tongue:
                embedding.tongue_embedding = smoothed(layout.tongue, 2 * size.tongue_width)
                self.final_layer_tongue = head(2 * h, layout.tongue)
            if layout.jaw:
                embedding.jaw_embedding = layered(layout.jaw, 2 * size.jaw_width)
                self.final_layer_jaw = head(h // 2, layout.jaw)
            if layout.eyes:
                embedding.eye_embedding = layered(layout.eyes, 2 * size.eyes_width)
                self.final_layer_eye = head(h // 2, layout.eyes)
            wide = 2 * size.fused
            embedding.final = nn.Sequential(
                nn.Linear(wide, wide), nn.ReLU(), nn.Linear(wide, size.fused)
            )
            self.proj_hubert = nn.Linear(size.encoder_width * size.stack, size.width)
            self.proj_time = nn.Sequential(nn.Linear(size.steps, size.width), nn.Mish())
            self.embed_actor = nn.Linear(size.actors, size.actor_width, bias=False)
            self.embed_emo_vector = nn.Linear(size.explicit, size.emotion_width, bias=False)
            depth = 2 * size.width + size.fused + size.actor_width + size.emotion_width
            self.gru = nn.GRU(depth, h, size.recurrent_layers, batch_first=True, dropout=0.3)

        def forward(self, noisy, step, features, actor, emotion, mean, state=None):
            widths = [layout.skin, layout.tongue, layout.jaw, layout.eyes]
            named = zip(("skin", "tongue", "jaw", "eye"), noisy.split(widths, -1), strict=True)
            parts = []
            for name, x in named:
                if not x.shape[-1]:
                    continue
                embed = getattr(self.geometry_embedding, f"{name}_embedding")
                if name in ("skin", "tongue"):
                    parts.append(embed(x.reshape(-1, 1, x.shape[-1])).reshape(*x.shape[:2], -1))
                else:
                    parts.append(embed(x))
            frames = noisy.shape[1]
            time = self.proj_time(torch.eye(size.steps)[step])
            spread = lambda x: x[:, None].expand(-1, frames, -1)  # noqa: E731
            tokens = [
                self.proj_hubert(features),
                self.geometry_embedding.final(torch.cat(parts, -1)),
                spread(self.embed_actor(actor)),
                spread(time),
                spread(self.embed_emo_vector(emotion)),
            ]
            states, state = self.gru(torch.cat(tokens, -1), state)
            heads = [
                getattr(self, f"final_layer_{name}")(states)
                for name in ("skin", "tongue", "jaw", "eye")
                if hasattr(self, f"final_layer_{name}")
            ]
            return torch.cat(heads, -1) + (actor @ mean)[:, None], state

    return Net()


def loaded(torch, net, state):
    net.load_state_dict({k: torch.from_numpy(v.copy()) for k, v in state.items()}, strict=True)
    return net.eval()


def close_gradients(network, net, params, objective, gradients):
    """Their gradients, converted like parameters, are ours."""
    theirs = convert({k: v.grad.numpy() for k, v in net.named_parameters()}, params)
    jax.tree.map(
        lambda a, b: np.testing.assert_allclose(a, b, atol=2e-4 * max(1.0, np.abs(b).max())),
        gradients,
        theirs,
    )


@pytest.mark.parametrize("layout", [LAYOUTS["geometry"], RIG], ids=["geometry", "rig"])
def test_regression_and_its_gradient_are_pytorchs(layout):
    torch = pytest.importorskip("torch", reason="parity with PyTorch needs PyTorch")
    size = regression_size(layout, phonemes=(5, 4))
    state, inputs = state_dict(regression_shapes(size)), regression_inputs(size)
    net = loaded(torch, torch_regression(torch, size), state)
    frames, logits = net(*(torch.from_numpy(x) for x in inputs.values()))
    (frames.square().mean() + sum(x.square().mean() for x in logits)).backward()
    network = regression.Network(size)
    params = params_of(network, state, inputs)

    def loss(params):
        out = network.apply({"params": params}, **inputs)
        return jnp.mean(out["frames"] ** 2) + sum(jnp.mean(x**2) for x in out["phonemes"]), out

    (_, out), gradients = jax.jit(jax.value_and_grad(loss, has_aux=True))(params)
    np.testing.assert_allclose(out["frames"], frames.detach(), atol=2e-5)
    for ours, theirs in zip(out["phonemes"], logits, strict=True):
        np.testing.assert_allclose(ours, theirs.detach().reshape(ours.shape), atol=2e-5)
    close_gradients(network, net, params, loss, gradients)


@pytest.mark.parametrize("layout, stack", [(LAYOUTS["geometry"], 1), (RIG, 2)])
def test_diffusion_its_state_and_its_gradient_are_pytorchs(layout, stack):
    torch = pytest.importorskip("torch", reason="parity with PyTorch needs PyTorch")
    size = diffusion_size(layout, stack)
    state, inputs = state_dict(diffusion_shapes(size)), diffusion_inputs(size)
    net = loaded(torch, torch_diffusion(torch, size), state)
    initial = np.random.default_rng(3).normal(size=(2, B, size.recurrent_width)).astype("f4")
    given = [torch.from_numpy(x) for x in inputs.values()]
    prediction, last = net(*given, torch.from_numpy(initial))
    prediction.square().mean().backward()
    network = diffusion.Network(size)
    params = params_of(network, state, inputs)

    def loss(params):
        out = network.apply({"params": params}, **inputs, state=initial)
        return jnp.mean(out[0] ** 2), out

    (_, out), gradients = jax.jit(jax.value_and_grad(loss, has_aux=True))(params)
    np.testing.assert_allclose(out[0], prediction.detach(), atol=2e-5)
    np.testing.assert_allclose(out[1], last.detach(), atol=2e-5)
    close_gradients(network, net, params, loss, gradients)


def bound(name, shape, size):
    """PyTorch's documented default: uniform in ±1/sqrt(fan_in), of a GRU ±1/sqrt(units)."""
    if name.startswith("gru"):
        return size.recurrent_width**-0.5
    if name.startswith("final_layer") and ".2." in name:
        return 0.0
    return float(np.prod(shape[1:])) ** -0.5


CASES = {
    "regression": (regression_size(LAYOUTS["geometry"], (5,)), regression_shapes),
    "diffusion": (diffusion_size(LAYOUTS["geometry"]), diffusion_shapes),
}


@pytest.mark.slow
@pytest.mark.parametrize("kind", CASES)
def test_initial_values_fill_pytorchs_ranges(kind):
    size, shapes = CASES[kind][0], CASES[kind][1](CASES[kind][0])
    shapes.pop("w2v_feature_coeffs", None)
    if kind == "regression":
        network, inputs = regression.Network(size), regression_inputs(size)
    else:
        network, inputs = diffusion.Network(size), diffusion_inputs(size)
    init = jax.jit(lambda key: network.init(key, **inputs)["params"])
    # These keys compile in a tenth of the time of the default ones.
    keys = [jax.random.key(i, impl="unsafe_rbg") for i in range(8)]
    draws = [dict(paths(init(key))) for key in keys]
    seen = {torch_name(p): np.abs(np.stack([d[p] for d in draws])) for p in draws[0]}
    if kind == "regression":
        assert (seen.pop("w2v_feature_coeffs") == 1.0).all()
    assert seen.keys() == shapes.keys()
    for name, values in seen.items():
        matrix = name.replace("bias", "weight")
        limit = bound(name, shapes[matrix], size)
        assert values.max() <= limit, name
        # The largest of n uniform numbers is below 1 - 7/n of the bound once in a thousand times.
        assert values.max() >= limit * (1 - 7 / values.size), name
        assert np.allclose(values, 0.0) == (limit == 0.0), name


@pytest.mark.parametrize("kind", CASES)
def test_pytorch_starts_in_these_ranges(kind):
    torch = pytest.importorskip("torch", reason="parity with PyTorch needs PyTorch")
    size, shapes = CASES[kind][0], CASES[kind][1](CASES[kind][0])
    torch.manual_seed(0)
    net = (torch_regression if kind == "regression" else torch_diffusion)(torch, size)
    for name, values in net.state_dict().items():
        if name != "w2v_feature_coeffs" and not (name.startswith("final") and ".2." in name):
            limit = bound(name, shapes[name.replace("bias", "weight")], size)
            floor = 0.2 if values.numel() > 3 else 0.0
            assert floor * limit < values.abs().max() <= limit, name
