"""The step of a bundle is the product's: any blocks, look-aheads, resets and pauses."""

import json
import runpy
from pathlib import Path

import numpy as np
import pytest

from a2fjax.animation import formats
from a2fjax.audio import io
from a2fjax.bundle import manifest
from a2fjax.cli import main
from a2fjax.errors import InputError
from a2fjax.export import writer
from a2fjax.export.example import voice
from a2fjax.infer.predictor import Predictor

onnxruntime = pytest.importorskip("onnxruntime", reason="onnxruntime is not installed")
pytestmark = pytest.mark.slow
EXAMPLES = Path(__file__).parents[2] / "examples"
DTYPES = {"tensor(float)": np.float32, "tensor(int32)": np.int32, "tensor(bool)": bool}


class Player:
    """Calls a step with the state that it returned, as a user would."""

    def __init__(self, path, rows=1):
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = 1
        self.session = onnxruntime.InferenceSession(str(path), options)
        self.inputs = {
            tensor.name: np.zeros((rows, *tensor.shape[1:]), DTYPES[tensor.type])
            for tensor in self.session.get_inputs()
        }
        self.inputs["emotion"][:, 0] = 1
        self.inputs["active"][:] = True

    @property
    def state(self):
        return {k: v for k, v in self.inputs.items() if k.startswith("in.")}

    def __call__(self, audio, **given):
        names = [output.name for output in self.session.get_outputs()]
        values = self.session.run(None, {**self.inputs, "audio": audio, **given})
        found = dict(zip(names, values, strict=True))
        self.inputs |= {k.replace("out.", "in."): v for k, v in found.items() if k != "motion"}
        return found["motion"][:, 0]


@pytest.fixture(scope="module")
def predictor(streaming_bundle):
    return Predictor.load(streaming_bundle)


def test_a_bundle_of_a_run_for_live_audio_has_its_steps(streaming_bundle):
    values = manifest.verify(streaming_bundle)
    found = {f for f in values["graphs"] if f.startswith("onnx/")}
    names = ("step", "step_0ms", "step_fp16", "step_int8", "identity")
    assert found == {f"onnx/{name}.onnx" for name in names}
    step, none = (values["graphs"][f"onnx/{n}.onnx"] for n in ("step", "step_0ms"))
    assert step["look_ahead"] == {"frames": 5, "seconds": 0.12} and step["hop"] == 320
    assert none["look_ahead"]["frames"] == 0
    assert {"audio", "level", "pitch", "gru", "ahead", "frames"} <= {
        s["name"] for s in step["state"]
    }
    names = [tensor["name"] for tensor in step["inputs"]]
    for entry in step["state"]:
        assert f"in.{entry['name']}" in names
        size = np.prod(entry["shape"][1:], dtype=int) * 4
        assert entry["bytes"] == size and entry["shape"][0] == "B"
    reports = json.loads((streaming_bundle / "parity.json").read_text())
    exact = values["graphs"].keys() - {"onnx/step_int8.onnx", "onnx/step_fp16.onnx"}
    assert all(reports[file]["largest"] <= 1e-4 for file in exact)


def test_lower_precision_reports_what_it_loses(streaming_bundle):
    for name, most in (("step_int8", 1e-2), ("step_fp16", 1e-3)):
        report = json.loads((streaming_bundle / "parity.json").read_text())[f"onnx/{name}.onnx"]
        assert 1e-6 < report["rmse"] < most and report["mouth_correlation"]["mean"] > 0.99
        player = Player(streaming_bundle / "onnx" / f"{name}.onnx")
        assert player(np.zeros((1, 320), np.float32)).shape == (1, 72)
    onnx = pytest.importorskip("onnx")
    graph = onnx.load(streaming_bundle / "onnx" / "step_fp16.onnx").graph
    halves = [t for t in graph.initializer if t.data_type == onnx.TensorProto.FLOAT16]
    # Two convolutions, both sides of the recurrence, the head.
    assert len(halves) == 5 and all(len(t.dims) == 2 for t in halves)


def test_the_example_of_the_step_is_what_the_step_gives(streaming_bundle):
    """As somebody would check a runtime of their own: arrays in, motion and state out."""
    example = dict(np.load(streaming_bundle / "example" / "step.npz"))
    calls = len(example["audio"])
    assert example["audio"].shape == (75, 2, 320) and example["motion"].shape == (75, 2, 1, 72)
    active, reset = example["active"], example["reset"]
    assert active[:, 0].all() and not reset[:, 0].any()
    assert reset[:, 1].any() and not active[:, 1].all()
    player = Player(streaming_bundle / "onnx" / "step.onnx", rows=2)
    given = {k: v for k, v in example.items() if k != "motion" and not k.startswith("out.")}
    for i in range(calls):
        motion = player(**{name: value[i] for name, value in given.items()})
        np.testing.assert_allclose(motion, example["motion"][i, :, 0], atol=1e-5)
    for name, value in player.state.items():
        last = example[name.replace("in.", "out.")]
        np.testing.assert_allclose(value, last, rtol=1e-4, atol=1e-4, err_msg=name)


def test_a_consumer_s_stream_gives_the_example(streaming_bundle):
    example = np.load(streaming_bundle / "example" / "step.npz")
    program = runpy.run_path(str(EXAMPLES / "stream_numpy.py"))
    stream = program["Stream"](streaming_bundle, {})
    stream.push(example["audio"][:, 0].reshape(-1))
    early = json.loads((streaming_bundle / "a2fjax.json").read_text())["graphs"]["onnx/step.onnx"][
        "look_ahead"
    ]["frames"]
    np.testing.assert_allclose(stream.frames(), example["motion"][early:, 0, 0], atol=1e-5)


def test_metadata_says_what_the_manifest_says(streaming_bundle):
    session = Player(streaming_bundle / "onnx" / "step_0ms.onnx").session
    found = session.get_modelmeta().custom_metadata_map
    stated = manifest.read(streaming_bundle)["graphs"]["onnx/step_0ms.onnx"]
    for key in ("look_ahead", "state", "inputs"):
        assert json.loads(found[key]) == stated[key]


def test_streaming_equals_offline_for_any_blocks(streaming_bundle, predictor):
    audio = voice(4.0, seed=3)
    expected = predictor(audio)
    rng = np.random.default_rng(0)
    player = Player(streaming_bundle / "onnx" / "step.onnx")
    pending, motion = np.zeros(0, np.float32), []
    heard = np.concatenate([audio, np.zeros(-len(audio) % 320 + 5 * 320, np.float32)])
    for block in np.split(heard, np.sort(rng.integers(0, len(heard), 60))):
        pending = np.concatenate([pending, block])
        while len(pending) >= 320:
            motion.append(player(pending[None, :320])[0])
            pending = pending[320:]
    assert not np.any(motion[:5])
    np.testing.assert_allclose(motion[5:], expected, atol=1e-5)


def test_a_bundle_streams_at_the_look_ahead_that_is_asked_for(streaming_bundle, tmp_path, capsys):
    audio, found = streaming_bundle / "example" / "in.wav", {}
    for ms in (0, 100):
        out = tmp_path / f"{ms}.npz"
        words = ["infer", streaming_bundle, "--audio", audio, "--out", out, "--lookahead-ms", ms]
        assert main.main([*map(str, words)]) == 0
        found[ms] = formats.read(out).motion
    player = Player(streaming_bundle / "onnx" / "step_0ms.onnx")
    heard = np.concatenate(list(io.blocks(audio, 10.0)))
    heard = np.pad(heard, (0, -len(heard) % 320)).reshape(-1, 1, 320)
    np.testing.assert_allclose(found[0], [player(block)[0] for block in heard], atol=1e-5)
    assert np.abs(found[0] - found[100]).max() > 1e-3
    assert main.main([*map(str, words[:-1]), "60"]) == 2
    assert "the nearest is 40" in capsys.readouterr().err
    assert main.main(["inspect", str(streaming_bundle)]) == 0
    assert "onnx/step_fp16.onnx" in capsys.readouterr().out


def test_rows_that_pause_keep_their_bits_and_reset_is_a_new_stream(streaming_bundle):
    path = streaming_bundle / "onnx" / "step.onnx"
    blocks = np.stack([voice(1.2, seed=i)[: 40 * 320].reshape(40, 320) for i in range(3)], axis=1)
    player = Player(path, rows=3)
    for block in blocks[:20]:
        player(block)
    before = player.state
    noise = np.full((3, 320), np.nan, np.float32)
    noise[0] = blocks[20, 0]
    motion = player(noise, active=np.array([True, False, False]))
    assert motion[0].any() and not motion[1:].any()
    for name, value in player.state.items():
        np.testing.assert_array_equal(value[1:], before[name][1:])
        assert (value[0] != before[name][0]).any(), name
    fresh, anew = Player(path, rows=3), np.array([False, True, False])
    for i, block in enumerate(blocks[21:]):
        motion = player(block, reset=anew if i == 0 else np.zeros(3, bool))
        np.testing.assert_allclose(motion[1], fresh(block)[1], atol=1e-6)
    for name, value in player.state.items():
        np.testing.assert_allclose(value[1], fresh.state[name][1], rtol=1e-5, atol=1e-5)
        assert name in ("in.audio", "in.ahead") or (value[2] != fresh.state[name][2]).any(), name


def test_a_wrong_block_is_refused(streaming_bundle):
    player = Player(streaming_bundle / "onnx" / "step.onnx")
    with pytest.raises(Exception, match="audio"):
        player(np.zeros((1, 319), np.float32))


def test_a_step_that_differs_leaves_nothing(streaming_run, tmp_path, monkeypatch):
    from a2fjax.errors import WorkFailed
    from a2fjax.export.onnx_graphs import live_level

    right = live_level.update
    monkeypatch.setattr(
        live_level, "update", lambda g, s, f: (right(g, s, f)[0], g.constant(np.ones((1, 1))))
    )
    with pytest.raises(WorkFailed, match=r"onnx/step.onnx: differs from the product"):
        writer.export(streaming_run, tmp_path / "out", ["onnx"], graphs=["step"])
    assert not list(tmp_path.iterdir())


def test_a_run_that_cannot_stream_says_what_to_train(run, tmp_path):
    with pytest.raises(InputError, match=r"--graph step: .*cannot stream.*; train .*:streaming"):
        writer.export(run, tmp_path / "a", graphs=["step"])
    with pytest.raises(InputError, match=r"has no look-ahead to choose; train .*:streaming"):
        writer.export(run, tmp_path / "b", lookaheads_ms=[40])
    assert not list(tmp_path.iterdir())


def test_an_unknown_look_ahead_or_graph_names_the_nearest(streaming_run, tmp_path):
    with pytest.raises(InputError, match="the nearest is 40"):
        writer.export(streaming_run, tmp_path / "a", lookaheads_ms=[60])
    with pytest.raises(InputError, match="--graph.*'stepp'.*step"):
        writer.export(streaming_run, tmp_path / "a", graphs=["stepp"])
