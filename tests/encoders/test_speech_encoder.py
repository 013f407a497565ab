"""The interface of speech encoders: states, padding, lengths, windows, timing, training."""

import dataclasses
import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from a2fjax.encoders import whisper
from a2fjax.encoders.whisper import chunked
from a2fjax.errors import InputError
from a2fjax.models.params import paths, split

# One of each architecture: HuBERT's network is that of wav2vec 2.0.
KINDS = ("wav2vec2", "hubert-large", "whisper")
# Nothing here runs long enough to benefit from optimisation.
compile_fast = functools.partial(jax.jit, compiler_options={"xla_backend_optimization_level": 0})


def noise(items, frames, seed=1):
    rng = np.random.default_rng(seed)
    return (0.1 * rng.normal(size=(items, 320 * frames))).astype(np.float32)


@pytest.fixture(autouse=True)
def compiled(compile_once):
    """Most tests run the same few programs."""


@functools.partial(compile_fast, static_argnums=0)
def jitted(encoder, params, audio, lengths):
    return encoder.apply(params, audio, lengths)


def run(encoder, params, audio, lengths=None):
    lengths = np.full(len(audio), audio.shape[1] // 320) if lengths is None else lengths
    return np.asarray(jitted(encoder, params, audio, np.asarray(lengths)))


# ---- what comes out -----------------------------------------------------------------------------


@pytest.mark.parametrize("name", KINDS)
def test_states_are_those_of_the_encoder_itself(load, name):
    audio = noise(2, 30)
    encoder, params = load(name, mix=True)
    network = encoder.network

    @compile_fast
    def direct(params, audio):
        if isinstance(network, whisper.WhisperEncoder):
            return network.apply(params, audio, length=np.full(2, 9600), all_layers=True)
        return network.motion_features(params, audio, all_layers=True).hidden_states

    expected = np.moveaxis(np.asarray(direct(params, audio)), 0, 2)
    for layers, mix in ((-1, True), (2, False)):
        encoder, params = load(name, layers=layers, mix=mix)
        got = run(encoder, params, audio)
        assert got.shape == (2, 30, encoder.num_states, encoder.width) and got.dtype == np.float32
        assert encoder.num_states == (4 if mix else 1)
        np.testing.assert_allclose(got, expected if mix else expected[:, :, 2:3], atol=2e-5)


@pytest.mark.parametrize("name", KINDS)
def test_the_forward_stops_at_a_layer(load, name):
    """Fewer layers cost less, have fewer weights, and give the inner states of all layers."""
    from a2fjax.models import flops

    audio = noise(2, 30)  # As above: these programs are compiled.
    whole, all_params = load(name, mix=True)
    states = run(whole, all_params, audio)
    flop_counts, param_counts = [], []
    for layers in (0, 1, 2, 3):
        encoder, params = load(name, layers=layers)
        flop_counts.append(sum(flops.flops(encoder.apply, params, audio).values()))
        param_counts.append(sum(leaf.size for _, leaf in paths(params)))
        if layers < 3:  # After the last, networks of the large layout and Whisper have a norm.
            np.testing.assert_allclose(
                run(encoder, params, audio)[:, :, 0], states[:, :, layers], atol=1e-5
            )
        expected = jax.eval_shape(encoder.init, jax.random.key(0))
        shapes = {path: leaf.shape for path, leaf in paths(expected)}
        assert {path: leaf.shape for path, leaf in paths(params)} == shapes
    steps = np.diff(flop_counts)
    assert (steps > 0).all() and steps[0] == steps[1]
    assert (np.diff(param_counts) > 0).all()


# ---- padding and lengths ------------------------------------------------------------------------


@pytest.mark.parametrize("precision", ["float32", pytest.param("bfloat16", marks=pytest.mark.slow)])
@pytest.mark.parametrize("name", KINDS)
def test_audio_beyond_a_clips_end_changes_nothing(load, name, precision):
    """For any padded length, content of the padding and other clips in the batch."""
    # One layer is enough: all have the same attention.
    encoder, params = load(name, layers=1, mix=True, precision=precision)
    audio = noise(3, 100)
    lengths = np.array([1, 37, 60])
    alone = [run(encoder, params, audio[i : i + 1, : 320 * n]) for i, n in enumerate(lengths)]
    for bucket in (60, 100):
        for beyond in (0.0, 30.0):
            exists = np.arange(320 * bucket) < 320 * lengths[:, None]
            padded = np.where(exists, audio[:, : 320 * bucket], beyond).astype(np.float32)
            got = run(encoder, params, padded, lengths)
            assert np.isfinite(got).all()
            for i, n in enumerate(lengths):
                atol = 2e-5 if precision == "float32" else 0.1
                np.testing.assert_allclose(got[i, :n], alone[i][0], atol=atol)


def test_long_clips_do_not_depend_on_their_padding(load):
    """A clip's windows are the same in a batch with longer clips and for any padded length."""
    # One layer is enough to see what is in a window.
    encoder, params = load("whisper", layers=1)
    short = dataclasses.replace(encoder.network, positions=300)
    params = {**params, "positions": whisper.sinusoids(300, 16)}
    encoder = dataclasses.replace(encoder, network=short)
    assert encoder.max_frames == 300
    audio = noise(4, 500)[:3, : 320 * 400]
    lengths = np.array([300, 301, 400])
    alone = [run(encoder, params, audio[i : i + 1, : 320 * n]) for i, n in enumerate(lengths)]
    for frames in (400, 700):
        padded = np.pad(audio, ((0, 0), (0, 320 * (frames - 400))))
        padded[np.arange(320 * frames) >= 320 * lengths[:, None]] = 9.0
        together = run(encoder, params, padded, lengths)
        for i, n in enumerate(lengths):
            np.testing.assert_allclose(together[i, :n], alone[i][0], atol=2e-5)
    # As `whisper.encode_chunked` has them: the last window is moved back to end with the clip.
    first = chunked.apply_jit(short, params, audio[2:3, : 320 * 300], layers=1)[0]
    last = chunked.apply_jit(short, params, audio[2:3, 320 * 100 : 320 * 400], layers=1)[0]
    got = alone[2][0, :, 0]
    np.testing.assert_allclose(got[:195], first[:195], atol=1e-4)
    np.testing.assert_allclose(got[205:], last[105:], atol=1e-4)
    share = (np.arange(10)[:, None] + 0.5) / 10
    joined = (1 - share) * first[195:205] + share * last[95:105]
    np.testing.assert_allclose(got[195:205], joined, atol=1e-4)


def test_audio_of_half_a_frame_is_refused(load):
    encoder, params = load("whisper")
    with pytest.raises(ValueError, match="641 samples, expected a multiple of 320"):
        encoder.apply(params, jnp.zeros((1, 641)))


# ---- time ---------------------------------------------------------------------------------------


def centre_of_clicks(respond, frame, reach=1100, step=20, level=0.5, background=None):
    """Returns the centre and extent, in samples, of the audio that one frame responds to.

    The centre is the mean position of clicks about the frame, weighted by how much they change it.

    Args:
      respond: audio [B, S] -> features [B, T, D].
      frame: index of the frame.
      reach: largest distance of a click from the frame's centre.
      step: distance of neighbouring clicks.
      level: amplitude of clicks.
      background: audio under the clicks.
    """
    middle = 320 * frame
    positions = np.arange(middle - reach, middle + reach + 1, step)
    base = np.zeros(320 * (2 * frame + 1), np.float32) if background is None else background
    clicks = np.tile(base, (len(positions) + 1, 1))
    clicks[np.arange(len(positions)), positions] += level
    states = np.asarray(respond(clicks), np.float64)[:, frame]
    change = np.square(states[:-1] - states[-1]).sum(-1)
    assert change.max() > 1e-8
    change = np.where(change > 1e-3 * change.max(), change, 0.0)
    return float((positions * change).sum() / change.sum()), positions[change > 0][[0, -1]]


@pytest.mark.parametrize("feature", ["mel", "pitch"])
def test_signals_are_centred_on_motion_frames_within_1_ms(feature):
    from a2fjax.audio.frontend import Frontend
    from a2fjax.configuration import AudioConfig

    frontend = Frontend(AudioConfig(features=(feature,), mel_floor_db=-100.0))
    rng = np.random.default_rng(0)
    first = 0 if feature == "mel" else -1
    features = compile_fast(frontend.features)
    for frame in (8, 13):
        # Over faint noise: below the floor clicks of a window's flanks would not show at all.
        base = (1e-4 * rng.normal(size=320 * 27)).astype(np.float32)

        def respond(audio):
            # Of pitch, log energy: a click has no period.
            return jnp.exp(features(audio)[..., first:])

        centre, extent = centre_of_clicks(respond, frame, background=base, step=8)
        assert abs(centre - 320 * frame) <= 16, centre / 16 - 20 * frame
        assert extent[0] < 320 * frame < extent[1]


def mirrored(encoder, params):
    """Returns weights with symmetric filters, under which a frame depends on its own audio only.

    The response is then symmetric about the centre of the frame, whatever the weights are.
    """
    params = jax.tree.map(np.array, params)
    if encoder.kind == "whisper":
        for name in ("conv1", "conv2"):
            params[name]["kernel"] += params[name]["kernel"][::-1]
        params["positions"][:] = 0
        for i in range(encoder.num_layers):
            params[f"layers_{i}"]["out"]["kernel"][:] = 0
        return params
    for layer in params["feature_extractor"]["conv_layers"].values():
        layer["conv"]["kernel"] += layer["conv"]["kernel"][::-1]
    params["encoder"]["pos_conv_embed"]["conv"]["g"][:] = 0
    for layer in params["encoder"]["layers"].values():
        layer["attention"]["out_proj"]["kernel"][:] = 0
    return params


@pytest.mark.parametrize("name", KINDS)
def test_encoders_are_centred_on_motion_frames_within_1_ms(load, name):
    encoder, params = load(name)
    if encoder.kind == "whisper":
        encoder = dataclasses.replace(
            encoder, network=dataclasses.replace(encoder.network, peak=1.0)
        )
    else:  # Normalisation over the clip would let every frame depend on every click.
        layout = dataclasses.replace(encoder.network.config, do_normalize=False)
        network = dataclasses.replace(encoder.network, config=layout)
        encoder = dataclasses.replace(encoder, network=network)
    params = mirrored(encoder, params)
    for frame in (8, 13):  # In clips of one length: one program.
        base = np.zeros(320 * 27, np.float32)
        if encoder.kind != "whisper":
            # Louder clicks outside the frame's reach keep the group norm's statistics constant.
            base[[100, 320 * 26]] = 20.0

        def respond(audio):
            return run(encoder, params, audio)[:, :, 0]

        centre, extent = centre_of_clicks(respond, frame, background=base, step=8)
        assert abs(centre - 320 * frame) <= 16, (centre - 320 * frame) / 16
        assert extent[0] < 320 * frame < extent[1]


@pytest.mark.parametrize("name", KINDS)
def test_a_click_changes_most_the_frame_it_is_in(load, name):
    """The whole network with unchanged weights, with windows and lengths."""
    encoder, params = load(name, mix=True)
    base = noise(1, 30) * 1e-2
    for frame in (5, 16, 25):
        click = base.copy()
        click[0, 320 * frame] += 0.05
        both = run(encoder, params, np.concatenate([base, click]))[:, :, -1]
        change = np.square(both[1] - both[0]).sum(-1)
        assert abs(int(change.argmax()) - frame) <= 1


# ---- training parts -----------------------------------------------------------------------------


@functools.partial(compile_fast, static_argnums=0)
def slopes_of(encoder, params):
    weights = np.random.default_rng(0).normal(size=(2, 20, 1, encoder.width)).astype(np.float32)
    return jax.grad(lambda p: jnp.sum(weights * encoder.apply(p, noise(2, 20))))(params)


@pytest.mark.parametrize("name", KINDS)
def test_trained_weights_are_those_of_running_layers(load, name):
    for layers in (-1, 2):
        encoder, params = load(name, layers=layers)
        tree = {"encoders": {"0_x": params}}
        trained_paths = {}
        for first in (None, -1, 0, 1):
            trained = split(tree, encoder.frozen_patterns(first, "encoders/0_x/"))[0]
            trained_paths[first] = {
                path.removeprefix("encoders/0_x/") for path, _ in paths(trained)
            }
        assert trained_paths[None] == set()
        layer = "layers_{}/" if name == "whisper" else "encoder/layers/{}/"
        for first in (0, 1):
            assert not any(
                path.startswith(layer.format(first - 1)) for path in trained_paths[first]
            )
            for i in range(first, encoder.num_layers):
                direct = {path for path, _ in paths(params) if path.startswith(layer.format(i))}
                assert direct and direct <= trained_paths[first]
        assert trained_paths[1] < trained_paths[0] <= trained_paths[-1]
        assert not any("feature_extractor" in path or "conv1" in path for path in trained_paths[-1])
        # Every trained weight has a gradient: none is carried along by optimiser and checkpoints.
        slopes = dict(paths(slopes_of(encoder, params)))
        idle = {path for path in trained_paths[-1] if not np.abs(slopes[path]).max() > 0}
        # Masks are drawn in training only; a bias of keys shifts a query's logits all alike.
        assert {p for p in idle if "k_proj/bias" not in p} <= {"masked_spec_embed"}


@pytest.mark.parametrize(
    ("name", "layers", "first", "message"),
    [
        ("wav2vec2", -1, 3, "train_from=3: wav2vec2 runs 3 layers; expected -1 to 2"),
        ("wav2vec2", 2, 2, "train_from=2: wav2vec2 runs 2 layers; expected -1 to 1"),
        ("large", 0, 0, "runs 0 layers; expected -1 to -1"),
        ("whisper", -1, 7, "train_from=7: whisper runs 3 layers; expected -1 to 2"),
        ("whisper", 0, -1, "runs 0 layers; expected None"),
    ],
)
def test_training_of_missing_layers_is_refused(load, name, layers, first, message):
    encoder, _ = load(name, layers=layers)
    with pytest.raises(InputError, match=message):
        encoder.frozen_patterns(first)


@pytest.mark.parametrize("name", ["hubert-large", "whisper"])
def test_remat_gives_the_same_gradient(load, name):
    slopes = []
    for remat in (False, True):
        encoder, params = load(name, remat=remat)
        slopes.append(jax.tree.leaves(slopes_of(encoder, params)))
        text = str(jax.make_jaxpr(lambda p, e=encoder: e.apply(p, noise(1, 20)))(params))
        assert ("checkpoint" in text or "remat" in text) == remat
    for one, other in zip(*slopes, strict=True):
        np.testing.assert_allclose(one, other, rtol=1e-3, atol=1e-4)


@pytest.mark.parametrize("name", KINDS)
def test_bfloat16_is_near_and_comes_out_as_float32(load, name):
    audio = noise(2, 30)
    states = (run(*load(name, mix=True, precision=p), audio) for p in ("float32", "bfloat16"))
    exact, rough = (found[:, :, -1] for found in states)
    assert rough.dtype == np.float32
    error = np.sqrt(np.mean((rough - exact) ** 2) / np.mean(exact**2))
    assert 1e-4 < error < 0.05


@pytest.mark.parametrize("name", ["wav2vec2", "hubert-large"])
def test_masks_and_dropout_need_a_key(load, name):
    """SpecAugment, layer drop and dropout of trained networks follow their configuration."""
    encoder, params = load(name, mix=True)
    audio, lengths = noise(2, 30), jnp.array([30, 20])
    train = compile_fast(lambda key: encoder.apply(params, audio, lengths, key=key)[:, :, -1])
    still = run(encoder, params, audio, lengths)[:, :, -1]
    one, again, other = (np.asarray(train(jax.random.key(k))) for k in (0, 0, 1))
    np.testing.assert_array_equal(one, again)
    assert np.abs(one - other).max() > 0.01 and np.abs(one - still).max() > 0.01
