import numpy as np
import pytest

from a2fjax.bundle import manifest, weights
from a2fjax.errors import InputError
from a2fjax.export import example, writer
from a2fjax.infer.predictor import Predictor

torch = pytest.importorskip("torch", reason="torch is not installed")


@pytest.fixture(scope="module")
def twin(run, recordings, compile_once, tmp_path_factory):
    out = tmp_path_factory.mktemp("twin") / "bundle"
    return writer.export(run, out, ["pytorch"], audio=recordings)


def test_the_twin_agrees_with_the_product(twin):
    assert manifest.verify(twin)["graphs"].keys() == {"pytorch/model.py"}


def test_weights_go_there_and_back(twin, tmp_path):
    from a2fjax.export import pytorch_twin

    model = pytorch_twin.load(twin)
    pytorch_twin.save(model, tmp_path / "same.safetensors")
    theirs = weights.load(tmp_path / "same.safetensors")
    ours = weights.load(twin / "model.safetensors")
    for path, leaf in weights.paths(ours):
        np.testing.assert_array_equal(dict(weights.paths(theirs))[path], leaf, err_msg=path)


def test_weights_trained_in_pytorch_come_back_as_a_run(twin, run, recordings, tmp_path):
    from a2fjax.export import pytorch_twin

    model = pytorch_twin.load(twin)
    model.train()
    audio = torch.from_numpy(np.stack([example.voice(0.4), example.voice(0.4, seed=5)]))
    emotion = torch.eye(5)[torch.zeros(2, 20, dtype=int)]
    inputs = (audio, torch.tensor([6400, 5000]), torch.zeros(2), torch.zeros(2, 6), emotion)
    optimizer = torch.optim.SGD(model.parameters(), 0.05)
    model(*inputs).square().mean().backward()
    # Biases that only PyTorch has must be folded, not lost.
    assert model.gru.bias_hh_l0.grad[:20].abs().max() > 0
    optimizer.step()
    pytorch_twin.save(model, tmp_path / "trained.safetensors")
    out = writer.export(
        twin,
        tmp_path / "bundle",
        ["stablehlo"],
        weights_file=tmp_path / "trained.safetensors",
        audio=recordings,
    )
    predictor = Predictor.load(out)
    assert predictor.fingerprint.startswith(f"{Predictor.load(run).fingerprint}+")
    with torch.no_grad():
        found = model.eval()(*inputs).numpy()
    np.testing.assert_allclose(predictor(audio[0].numpy()), found[0], atol=1e-5)
    np.testing.assert_allclose(predictor(audio[1].numpy()[:5000]), found[1, :16], atol=1e-5)
    assert np.abs(found[0] - Predictor.load(run)(audio[0].numpy())).max() > 1e-4


def test_weights_of_another_model_are_refused(twin, tmp_path):
    wrong = weights.load(twin / "model.safetensors")
    wrong["params"]["head"]["bias"] = np.zeros(71, np.float32)
    weights.save(tmp_path / "wrong.safetensors", wrong, {})
    with pytest.raises(InputError, match=r"wrong.safetensors: of another model: params/head/bias"):
        writer.export(
            twin, tmp_path / "b", ["stablehlo"], weights_file=tmp_path / "wrong.safetensors"
        )
    assert not (tmp_path / "b").exists()
