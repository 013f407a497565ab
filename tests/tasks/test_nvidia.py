"""NVIDIA's terms by hand, and what their models read of a batch; networks of a few units."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from a2fjax import rig, tasks
from a2fjax.batch import Batch
from a2fjax.configuration import (
    AudioConfig,
    Config,
    ConvW2vAutocorrConfig,
    DiffusionRnnConfig,
    EncoderConfig,
    LossConfig,
)
from a2fjax.encoders import wav2vec2
from a2fjax.encoders.wav2vec2.speech_encoder import Wav2Vec2SpeechEncoder
from a2fjax.tasks import nvidia

FRAMES, WIDTH = 20, 6
LAYOUT = wav2vec2.Wav2Vec2Config(
    conv_dim=(4,) * 7, hidden_size=WIDTH, num_hidden_layers=2, num_attention_heads=2,
    intermediate_size=8, num_conv_pos_embeddings=4, num_conv_pos_embedding_groups=2,
)  # fmt: skip


def make(kind, *, loss=None, **own):
    """A task whose encoder's states come with the batch."""
    mix = kind == "conv_w2v_autocorr"
    encoder = Wav2Vec2SpeechEncoder(wav2vec2.Wav2Vec2Encoder(LAYOUT), mix)
    if mix:
        model = ConvW2vAutocorrConfig(**{"width": 8, "lag_widths": (2, 2, 2, 2), **own})
    else:
        model = DiffusionRnnConfig(
            **{"width": 8, "recurrent_width": 8, "diffusion_steps": 50, **own}
        )
    config = Config(
        steps=100,
        audio=AudioConfig(features=("wav2vec2:none",), encoder=EncoderConfig(mix=mix)),
        model=model,
        loss=loss or LossConfig(),
    )
    task = tasks.build(config, None, {"0_wav2vec2": (encoder, {})})
    return task, encoder


def example(encoder, items=3, seed=0):
    rng = np.random.default_rng(seed)
    motion = np.clip(rng.normal(0.2, 0.2, (items, FRAMES, 72)), 0, 1).astype(np.float32)
    return Batch.zeros(items, FRAMES, 1).replace(
        audio=(0.1 * rng.normal(size=(items, FRAMES * 320))).astype(np.float32),
        motion=motion,
        channel_mask=np.ones((items, 72), bool),
        frame_mask=np.ones((items, FRAMES), bool),
        length=np.full(items, FRAMES, np.int32),
        emotion=np.tile(np.eye(5, dtype=np.float32)[0], (items, FRAMES, 1)),
        clip=np.arange(items, dtype=np.int32) % 2,
        start=np.zeros(items, np.int32),
        subject=np.full(items, -1, np.int32),
        cached_features={
            "0_wav2vec2": rng.normal(size=(items, FRAMES, encoder.num_states, WIDTH)).astype(
                np.float16
            )
        },
    )


def quick_key(seed):
    """A key whose draws compile in a fraction of the time of the default ones."""
    return jax.random.key(seed, impl="unsafe_rbg")


def start(task, batch, seed=0):
    """Parameters at random, the last layers of diffusion_rnn at zero, as theirs are."""
    rng = np.random.default_rng(seed)

    def draw(path, leaf):
        names = [k.key for k in path][1:]
        if names[0].startswith("final_layer") and names[1] == "linear_2":
            return np.zeros(leaf.shape, np.float32)
        fan_in = np.prod(leaf.shape[:-1]) if leaf.ndim > 1 else 100.0
        return (rng.normal(size=leaf.shape) / fan_in**0.5).astype(np.float32)

    params = jax.tree_util.tree_map_with_path(draw, jax.eval_shape(task.init, quick_key(0), batch))
    network = params["params"]
    if "w2v_feature_coeffs" in network:
        network["w2v_feature_coeffs"] = np.ones_like(network["w2v_feature_coeffs"])
    return {**params, "constants": task.model.constants}


def compiled(task, *, train=True):
    return jax.jit(lambda p, b, k, s: task.loss(p, b, k, step=s, train=train))


def test_silence_is_that_of_the_half_second_a_frame_hears():
    audio = np.zeros((1, 60 * 320), np.float32)
    audio[0, 30 * 320 + 5] = 0.01
    quiet = np.asarray(nvidia.quietness(jnp.asarray(audio)))[0]
    for t in range(60):
        buffer = np.zeros(8320)
        first = 320 * t - 4160
        inside = np.arange(max(first, 0), min(first + 8320, audio.shape[1]))
        buffer[inside - first] = audio[0, inside]
        assert quiet[t] == pytest.approx(np.exp(-5000 * np.abs(buffer).mean()), rel=1e-3), t
    assert quiet[0] == 1.0 and quiet[30] < 0.995


def test_movement_in_silence_costs_and_in_speech_does_not():
    task, encoder = make("conv_w2v_autocorr", vol_stab=100.0, loss=LossConfig(position=1e-9))
    batch = example(encoder)
    params = start(task, batch)
    loss = compiled(task)
    loud = loss(params, batch, quick_key(1), 0)[1]["vol_stab"].value
    silent = batch.replace(audio=np.zeros_like(batch.audio))
    assert loud == 0.0 < loss(params, silent, quick_key(1), 0)[1]["vol_stab"].value


def test_normalised_terms_are_of_size_one_at_first_and_themselves_at_the_end():
    loss = LossConfig(position=1.0, velocity=10.0, aperture=0.0, closure=0.0)
    task, encoder = make("conv_w2v_autocorr", normalise=True, loss=loss)
    batch = example(encoder)
    params = start(task, batch)
    run = compiled(task)
    for step, power in ((0, 1.0), (50, 0.5), (100, 0.0)):
        total, terms = run(params, batch, quick_key(1), step)
        size = {name: float(term.value) for name, term in terms.items()}
        expected = size["position"] ** (1 - power) + 10 * size["velocity"] ** (1 - power)
        assert total == pytest.approx(expected, rel=1e-5)
        assert task.total(terms) == pytest.approx(size["position"] + 10 * size["velocity"])


def test_a_training_frame_has_a_learned_emotion_of_its_own():
    task, encoder = make("conv_w2v_autocorr", implicit_emotion=True)
    task.model.constants["clip_offset"] = np.array([0, 25, 60], np.int32)
    batch = example(encoder).replace(start=np.array([3, 30, 0], np.int32))
    params = start(task, batch)
    table = np.arange(60 * 16, dtype=np.float32).reshape(60, 16)
    params["implicit"] = {"table": jnp.asarray(table)}
    trained = task.model._implicit(params, batch, True)
    np.testing.assert_array_equal(trained[0, :, 0], 16 * np.minimum(3 + np.arange(20), 24))
    # Clip 1 has frames 25 to 59: what lies beyond its end is its last.
    np.testing.assert_array_equal(trained[1, :, 0], 16 * np.minimum(55 + np.arange(20), 59))
    np.testing.assert_allclose(task.model._implicit(params, batch, False)[2, 5], table.mean(0))


def test_actors_are_subjects_and_the_even_mixture_without_one():
    task, encoder = make("diffusion_rnn", actors=3)
    batch = example(encoder)
    np.testing.assert_allclose(task.model.actor(batch), np.full((3, 3), 1 / 3))
    told = batch.replace(subject=np.array([2, -1, 0], np.int32))
    np.testing.assert_allclose(task.model.actor(told), [[0, 0, 1], [1 / 3] * 3, [1, 0, 0]])


def test_diffusion_terms_are_their_formulas_and_masked_frames_change_nothing():
    own = {"exp_smooth": 25.0, "part_weights": {"tongue": 0.1}}
    task, encoder = make("diffusion_rnn", loss=LossConfig(velocity=2.0, aperture=0.0), **own)
    batch = example(encoder)
    batch.frame_mask[:, 12] = False
    batch.channel_mask[:, 5] = False
    params = start(task, batch)
    run = compiled(task, train=False)
    total, terms = run(params, batch, quick_key(3), 0)
    worse = batch.replace(motion=batch.motion.copy())
    worse.motion[:, 12] = 1e6
    worse.motion[..., 5] = np.nan
    again, _ = run(params, worse, quick_key(3), 0)
    assert again == pytest.approx(float(total), rel=1e-6)
    # The network starts at the mean frame, so the error is the target itself.
    std = np.asarray(params["constants"]["motion_std"])
    target = batch.motion / std
    weight = np.ones(72)
    weight[52:68] = 0.1
    error = np.abs(weight * target)
    value = np.where(error < 1, 0.5 * error**2, error - 0.5)
    keep = np.ones((3, FRAMES, 72), bool)
    keep[:, 12] = False
    keep[..., 5] = False
    assert terms["position"].value == pytest.approx(value[keep].mean(), rel=1e-4)
    pairs = keep[:, 1:] & keep[:, :-1]
    change = np.diff(target, axis=1)[..., :52] ** 2
    assert terms["velocity"].value == pytest.approx(change[pairs[..., :52]].mean(), rel=1e-4)
    assert terms["exp_smooth"].value == pytest.approx(0.0, abs=1e-9)


def test_a_sample_is_a_function_of_its_seed_alone():
    batch, motions = None, {}
    for seed, sampler, calls in ((0, "ddpm", 2), (1, "ddpm", 2), (0, "ddim", 4)):
        task, encoder = make("diffusion_rnn", sample_seed=seed, sampler=sampler, sample_steps=calls)
        batch = example(encoder) if batch is None else batch
        params = start(task, batch)
        head = params["params"]["final_layer_skin"]["linear_2"]
        head["kernel"] = np.random.default_rng(2).normal(size=head["kernel"].shape)
        head["kernel"] = head["kernel"].astype(np.float32)
        params["params"]["skin_embedding"]["linear_0"]["kernel"] *= 5
        params["params"]["gru"]["ih_l0"]["kernel"] *= 3
        predict = jax.jit(task.predict)
        motions[seed, sampler] = np.asarray(predict(params, batch))
        np.testing.assert_array_equal(predict(params, batch), motions[seed, sampler])
        longer = jax.tree_util.tree_map_with_path(lambda path, v: pad(v, path[0].name), batch)
        np.testing.assert_allclose(predict(params, longer)[:, :FRAMES], motions[seed, sampler],
                                   atol=1e-5)  # fmt: skip
    first = motions[0, "ddpm"]
    assert np.abs(first - motions[1, "ddpm"]).max() > 1e-3
    assert np.abs(first - motions[0, "ddim"]).max() > 1e-3
    assert (first >= rig.MIN).all() and (first <= rig.MAX).all()


def pad(value, name):
    """Ten frames more, of which nothing counts."""
    if value.ndim == 1 or name in ("channel_mask", "identity"):
        return value
    width = 3200 if name == "audio" else 10
    return np.pad(value, ((0, 0), (0, width), *((0, 0),) * (value.ndim - 2)))


@pytest.mark.parametrize("kind", ["conv_w2v_autocorr", "diffusion_rnn"])
def test_a_few_steps_fit_a_batch(kind):
    """60 steps of Adam bring the loss to less than a third."""
    import optax

    own = {"recurrent_dropout": 0.0} if kind == "diffusion_rnn" else {}
    task, encoder = make(kind, loss=LossConfig(velocity=0.0, aperture=0.0, closure=0.0), **own)
    batch = example(encoder)
    batch = batch.replace(motion=np.broadcast_to(batch.motion[:1, :1], batch.motion.shape).copy())
    params = start(task, batch)
    fixed = {"constants": params.pop("constants")}
    optimizer = optax.adam(2e-2)

    @jax.jit
    def update(params, state, key):
        def loss(p):
            return task.loss({**p, **fixed}, batch, key, step=0, train=kind == "diffusion_rnn")[0]

        value, grads = jax.value_and_grad(loss)(params)
        changes, state = optimizer.update(grads, state)
        return optax.apply_updates(params, changes), state, value

    state, found = optimizer.init(params), []
    for step in range(60):
        params, state, value = update(params, state, quick_key(step))
        found.append(float(value))
    assert np.mean(found[-5:]) < found[0] / 3, found
