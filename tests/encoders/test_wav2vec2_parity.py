"""Parity of wav2vec 2.0 and HuBERT with transformers' PyTorch models."""

import dataclasses

import jax.numpy as jnp
import numpy as np
import pytest

from a2fjax.encoders import wav2vec2
from a2fjax.encoders.wav2vec2 import masking, network
from a2fjax.encoders.wav2vec2.config import ACTIVATIONS
from a2fjax.encoders.wav2vec2.encoder import apply_jit

torch = pytest.importorskip("torch", reason="parity needs PyTorch, of the extra `torch`")
transformers = pytest.importorskip("transformers")

BOUND = 2e-5
SMALL = dict(
    conv_dim=(24,) * 7,
    hidden_size=48,
    num_hidden_layers=3,
    num_attention_heads=4,
    intermediate_size=96,
    num_conv_pos_embeddings=16,
    num_conv_pos_embedding_groups=4,
)


def model_of(folder):
    """Returns a random model of transformers with every weight shifted from its initial value."""
    config = transformers.AutoConfig.from_pretrained(folder)
    torch.manual_seed(0)
    model = transformers.AutoModel.from_config(config).eval()
    with torch.no_grad():
        for name, value in model.named_parameters():
            noise = torch.randn(value.shape)
            if value.ndim == 1:
                value.copy_(float("norm" in name and name.endswith("weight")) + 0.1 * noise)
            elif name.endswith("original0"):
                value.mul_(1 + 0.3 * noise)
    return model


def speech_like(samples, seed=0):
    rng = np.random.default_rng(seed)
    t = np.arange(samples) / 16000
    voice = sum(np.sin(2 * np.pi * 120 * h * t + h) / h for h in range(1, 20))
    voice = voice * np.clip(np.sin(2 * np.pi * 3 * t), 0, None) + 0.05 * rng.normal(size=samples)
    return ((voice - voice.mean()) / voice.std()).astype(np.float32)


def compare(folder, layout, seconds, masked):
    """Returns the largest differences of hidden states and of the output."""
    folder.mkdir(exist_ok=True)
    params = wav2vec2.Wav2Vec2Encoder(layout).init
    import json

    import jax

    (folder / "config.json").write_text(json.dumps(layout.to_config()))
    model = model_of(folder)
    model.save_pretrained(folder)
    encoder, params = wav2vec2.Wav2Vec2Encoder.load(folder)
    assert encoder.config == layout
    samples = int(16000 * seconds)
    audio = np.stack([speech_like(samples), speech_like(samples, 1)])
    mask, options = None, {}
    if masked:
        lengths = np.array([samples, samples * 5 // 8])
        mask = np.arange(samples) < lengths[:, None]
        audio = np.where(mask, audio, 0).astype(np.float32)
        options = dict(lengths=jnp.asarray(lengths), count_padding=True)
        mask = torch.tensor(mask.astype(np.int64))
    with torch.no_grad():
        expected = model(torch.tensor(audio), attention_mask=mask, output_hidden_states=True)
    got = jax.jit(lambda p, a: encoder.apply(p, a, all_layers=True, **options))(params, audio)
    errors = [
        np.abs(one - other.numpy()).max()
        for one, other in zip(got.hidden_states, expected.hidden_states, strict=True)
    ]
    return max(errors), np.abs(got.features - expected.last_hidden_state.numpy()).max()


def layouts(base, large):
    for kind in ("wav2vec2", "hubert"):
        for size, layout in (("base", base), ("large", large)):
            yield f"{kind}-{size}", dataclasses.replace(layout, model_type=kind)


TINY = dict(
    layouts(
        dataclasses.replace(wav2vec2.BASE, **SMALL), dataclasses.replace(wav2vec2.LARGE, **SMALL)
    )
)
TINY["hubert-odd"] = dataclasses.replace(
    TINY["hubert-base"],
    feat_proj_layer_norm=False,
    hidden_act="gelu_new",
    feat_extract_activation="quick_gelu",
    num_conv_pos_embeddings=7,
    layer_norm_eps=1e-3,
)
FULL = dict(layouts(wav2vec2.BASE, wav2vec2.LARGE))


@pytest.mark.parametrize("masked", [False, True])
@pytest.mark.parametrize("name", TINY)
def test_parity_small(tmp_path, name, masked):
    errors = compare(tmp_path / "model", TINY[name], 0.7, masked)
    assert max(errors) <= BOUND


@pytest.mark.slow
# Up to half a minute of arithmetic each: the base sizes take every length, the large ones one each.
@pytest.mark.parametrize(
    ("name", "seconds", "masked"),
    [
        *(
            (name, *case)
            for name in ("wav2vec2-base", "hubert-base")
            for case in ((0.4, True), (2.0, False), (10.0, True))
        ),
        ("wav2vec2-large", 2.0, False),
        ("hubert-large", 2.0, True),
    ],
)
def test_parity_full_size(tmp_path, name, seconds, masked):
    """Of features; hidden states before a final norm are larger, and so is their rounding."""
    assert compare(tmp_path / "model", FULL[name], seconds, masked)[1] <= BOUND


@pytest.mark.parametrize("name", TINY)
def test_transformers_reads_what_is_written(tmp_path, name):
    import jax

    layout = TINY[name]
    encoder = wav2vec2.Wav2Vec2Encoder(layout)
    params = encoder.init(jax.random.key(3))
    wav2vec2.save(tmp_path / "written", layout, params)
    model, report = transformers.AutoModel.from_pretrained(
        tmp_path / "written", output_loading_info=True
    )
    assert not report["missing_keys"] and not report["unexpected_keys"]
    audio = speech_like(8000)[None]
    with torch.no_grad():
        expected = model.eval()(torch.tensor(audio)).last_hidden_state.numpy()
    np.testing.assert_allclose(apply_jit(encoder, params, audio).features, expected, atol=BOUND)
    extractor = transformers.AutoFeatureExtractor.from_pretrained(tmp_path / "written")
    assert extractor.do_normalize and extractor.sampling_rate == 16000


@pytest.mark.parametrize("head", ["ForCTC", "ForPreTraining", "ForSequenceClassification"])
def test_checkpoints_with_heads(tmp_path, head):
    import json

    (tmp_path / "config.json").write_text(json.dumps(TINY["wav2vec2-base"].to_config()))
    config = transformers.AutoConfig.from_pretrained(tmp_path)
    model = getattr(transformers, f"Wav2Vec2{head}")(config).eval()
    model.save_pretrained(tmp_path)
    layout, params, ignored = wav2vec2.load(tmp_path)
    heads = {n.split(".")[0] for n in ignored}
    assert (
        heads
        == {
            "ForCTC": {"lm_head"},
            "ForPreTraining": {"quantizer", "project_hid", "project_q"},
            "ForSequenceClassification": {"projector", "classifier"},
        }[head]
    )
    audio = speech_like(8000)[None]
    with torch.no_grad():
        expected = model.wav2vec2(torch.tensor(audio)).last_hidden_state.numpy()
    got = apply_jit(wav2vec2.Wav2Vec2Encoder(layout), params, audio).features
    np.testing.assert_allclose(got, expected, atol=BOUND)


@pytest.mark.parametrize("name", [n for n in ACTIVATIONS if n not in ("gelu_python", "swish")])
def test_activations(name):
    from transformers.activations import ACT2FN

    x = np.linspace(-8, 8, 1001, dtype=np.float32)
    expected = ACT2FN[name](torch.tensor(x)).numpy()
    np.testing.assert_allclose(network._ACTIVATIONS[name](jnp.asarray(x)), expected, atol=2e-6)


def test_spec_augment_masks_as_much_as_transformers_does():
    import jax
    from transformers.models.wav2vec2.modeling_wav2vec2 import _compute_mask_indices

    np.random.seed(0)
    theirs = _compute_mask_indices((4000, 150), 0.33, 10, min_masks=2)
    ours = np.asarray(
        masking.sample_mask_spans(jax.random.key(0), 150, jnp.full(4000, 150), 0.33, 10, 2)
    )
    # Their rounding is drawn once a batch: 4 or 5 spans of 10; ours for each item: 4.95.
    assert abs(ours.mean() - theirs.mean()) < 0.01
    np.testing.assert_allclose(ours.mean(0)[10:-10], theirs.mean(0)[10:-10], atol=0.03)
