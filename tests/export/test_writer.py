import json
import os
import shutil
import subprocess
import sys

import jax
import numpy as np
import pytest

from a2fjax import rig, sealed_json
from a2fjax.animation import formats
from a2fjax.bundle import manifest, weights
from a2fjax.cli import main
from a2fjax.configuration import load
from a2fjax.errors import InputError, WorkFailed
from a2fjax.export import example, parity, writer
from a2fjax.export.description import Rights
from a2fjax.export.graph import Case, Tensor
from a2fjax.export.graphs.model import ModelGraph
from a2fjax.infer.predictor import Predictor
from a2fjax.training import checkpoints, run_dir, starting_point

onnxruntime = pytest.importorskip("onnxruntime", reason="onnxruntime is not installed")


@pytest.fixture
def copy(bundle, tmp_path):
    return shutil.copytree(bundle, tmp_path / "bundle")


def test_a_bundle_has_every_file_and_lists_it(bundle):
    expected = {
        "README.md LICENSE NOTICE config.json model.safetensors parity.json example/in.wav",
        "example/out.csv onnx/model.onnx onnx/model_fp16.onnx onnx/identity.onnx",
        "stablehlo/model.stablehlo stablehlo/identity.stablehlo",
    }
    listed = manifest.verify(bundle)["files"]
    found = {p.relative_to(bundle).as_posix() for p in bundle.rglob("*") if p.is_file()}
    assert set(listed) == set(" ".join(expected).split()) == found - {"a2fjax.json"}
    assert not [p for p in bundle.parent.iterdir() if "partial" in p.name]


def test_every_graph_agrees_with_the_product(bundle, recordings):
    reports = json.loads((bundle / "parity.json").read_text())
    assert len(reports) == 5
    exact = {file: report for file, report in reports.items() if "fp16" not in file}
    for file, report in exact.items():
        assert report["largest"] <= 1e-4, file
        shapes = {tuple(case["shape"]) for case in report["cases"]}
        assert len(shapes) >= 3, "several lengths and batches"
    assert reports["onnx/model.onnx"]["worst"]["channel"] in rig.CHANNELS
    if not recordings:
        pytest.skip("agreed on synthetic sound: no recordings beside the checkout")


def test_half_precision_reports_what_it_loses(bundle):
    report = json.loads((bundle / "parity.json").read_text())["onnx/model_fp16.onnx"]
    assert 1e-5 < report["rmse"] < 2e-3 and report["largest"] < 2e-2
    assert report["worst_channel"]["name"] in rig.CHANNELS
    assert report["mouth_correlation"]["lowest"]["value"] > 0.99
    size = {n: (bundle / "onnx" / n).stat().st_size for n in ("model.onnx", "model_fp16.onnx")}
    assert size["model_fp16.onnx"] < size["model.onnx"]


def test_the_manifest_says_what_the_numbers_mean(bundle):
    values = manifest.read(bundle)
    assert [c["name"] for c in values["channels"]] == list(rig.CHANNELS)
    assert values["channels"][70] == {
        "name": "leftEyeRotX",
        "unit": "degree",
        "low": -45.0,
        "high": 45.0,
    }
    assert "jawOpen" in values["mouth_close"]
    assert values["rates"]["hop"] == 320 and values["look_ahead"]["seconds"] is None
    assert len(values["features"]["mel"]["floor_power"]) == 80
    assert values["license"] == "apache-2.0" and values["metrics"] == {"eval/loss": 0.25}
    inputs = values["graphs"]["onnx/model.onnx"]["inputs"]
    assert [t["name"] for t in inputs][:3] == ["audio", "samples", "speech_level"]


def test_the_graph_carries_the_manifest(bundle):
    session = onnxruntime.InferenceSession(str(bundle / "onnx" / "model.onnx"))
    props = session.get_modelmeta().custom_metadata_map
    values = manifest.read(bundle)
    for key in ("channels", "rates", "features", "fingerprint", "level", "conditions"):
        assert json.loads(props[key]) == values[key]
    assert [i.name for i in session.get_inputs()] == [
        t["name"] for t in json.loads(props["inputs"])
    ]


def test_a_block_that_is_no_whole_number_of_frames_is_refused(bundle):
    session = onnxruntime.InferenceSession(str(bundle / "onnx" / "model.onnx"))
    feeds = {
        "audio": np.zeros((1, 330), np.float32),
        "samples": np.array([330], np.int32),
        "speech_level": np.zeros(1, np.float32),
        "identity": np.zeros((1, 6), np.float32),
        "emotion": np.zeros((1, 2, 5), np.float32),
    }
    with pytest.raises(Exception, match="(?i)reshape|dimension"):
        session.run(None, feeds)


def test_the_card_has_the_hub_s_front_matter(bundle):
    yaml = pytest.importorskip("yaml")
    front = yaml.safe_load((bundle / "README.md").read_text().split("---\n")[1])
    assert front["license"] == "apache-2.0" and front["library_name"] == "a2fjax"
    assert front["language"] == ["en", "fr"] and front["datasets"] == ["Demo corpus"]


def test_a_bundle_goes_where_a_run_goes(run, bundle):
    of_run, of_bundle = Predictor.load(run), Predictor.load(bundle)
    assert of_bundle.fingerprint == of_run.fingerprint
    audio = example.voice(0.5)
    np.testing.assert_array_equal(of_bundle(audio), of_run(audio))


def test_infer_reads_a_bundle_and_repeats_its_example(bundle, tmp_path, capsys):
    out = tmp_path / "out.csv"
    assert (
        main.main(["infer", str(bundle), "--audio", f"{bundle}/example/in.wav", "--out", str(out)])
        == 0
    )
    theirs = formats.read(bundle / "example" / "out.csv").motion
    np.testing.assert_allclose(formats.read(out).motion, theirs, atol=1e-5)


def test_inspect_shows_graphs_and_their_parity(bundle, capsys):
    assert main.main(["inspect", str(bundle)]) == 0
    shown = capsys.readouterr().out
    assert "bundle of schema 1" in shown and "onnx/model.onnx" in shown and "step 7" in shown


def test_a_bundle_is_exported_again(bundle, recordings, tmp_path):
    out, rights = tmp_path / "again", Rights("apache-2.0")
    again = writer.export(bundle, out, ["stablehlo"], audio=recordings, rights=rights)
    assert manifest.read(again)["fingerprint"] == manifest.read(bundle)["fingerprint"]
    assert (again / weights.FILE).read_bytes() == (bundle / weights.FILE).read_bytes()
    assert not (again / "onnx").exists()


@pytest.mark.slow
def test_pitch_and_normals_and_a_causal_gru_agree_too(
    pitch_run, recordings, compile_once, tmp_path
):
    out = writer.export(pitch_run, tmp_path / "bundle", ["onnx"], audio=recordings[:2])
    values = manifest.read(out)
    assert values["look_ahead"]["frames"] == 5 and set(values["features"]) == {"mel", "pitch"}


@pytest.mark.slow
def test_training_subjects_are_an_identity_too(subjects_run, recordings, compile_once, tmp_path):
    out = writer.export(subjects_run, tmp_path / "b", ["onnx", "stablehlo"], audio=recordings)
    values = manifest.read(out)
    assert values["conditions"]["identity"]["subjects"] == ["anna", "bo"]
    assert {"onnx/model.onnx", "stablehlo/model.stablehlo"} <= values["graphs"].keys()
    assert "onnx/identity.onnx" not in values["graphs"]


def test_stablehlo_runs_with_jax_alone(bundle, tmp_path):
    code = (
        "import sys, numpy as np\n"
        "from jax import export\n"
        "model = export.deserialize(open(sys.argv[1], 'rb').read())\n"
        "assert set(model.platforms) == {'cpu', 'cuda', 'rocm', 'tpu'}, model.platforms\n"
        "audio = np.load(sys.argv[2])\n"
        "b, t = 2, audio.shape[1] // 320\n"
        "emotion = np.eye(5, dtype=np.float32)[np.zeros((b, t), int)]\n"
        "zeros = np.zeros((b, 6), np.float32)\n"
        "samples = np.full(b, audio.shape[1], np.int32)\n"
        "(motion,) = model.call(audio, samples, np.zeros(b, np.float32), zeros, emotion)\n"
        "np.save(sys.argv[3], motion)\n"
        "assert not [m for m in sys.modules if m.startswith(('flax', 'a2fjax'))]\n"
    )
    audio = np.stack([example.voice(0.4), example.voice(0.4, seed=2)])
    np.save(tmp_path / "audio.npy", audio)
    names = [bundle / "stablehlo" / "model.stablehlo", tmp_path / "audio.npy", tmp_path / "out.npy"]
    subprocess.run(
        [sys.executable, "-c", code, *map(str, names)], check=True, cwd=tmp_path, env=_bare()
    )
    found = np.load(tmp_path / "out.npy")
    predictor = Predictor.load(bundle)
    for row, samples in zip(found, audio, strict=True):
        np.testing.assert_allclose(row, predictor(samples), atol=1e-4)


def _bare():
    """The environment without the checkout on the path."""
    import os

    return {k: v for k, v in os.environ.items() if k != "PYTHONPATH"} | {"JAX_PLATFORMS": "cpu"}


def test_a_graph_that_differs_leaves_nothing_behind(run, recordings, tmp_path, monkeypatch):
    kept = ModelGraph.onnx

    def wrong(self, source):
        head = source.variables["params"]["head"]
        head["bias"] = head["bias"] + 0.1 * np.eye(72, dtype=np.float32)[rig.INDEX["jawOpen"]]
        return kept(self, source)

    monkeypatch.setattr(ModelGraph, "onnx", wrong)
    with pytest.raises(WorkFailed, match=r"onnx/model.onnx: differs .* in jawOpen \(.*expected at"):
        writer.export(run, tmp_path / "bundle", ["onnx"], audio=recordings)
    assert not list(tmp_path.iterdir())


def test_not_a_number_is_a_difference(run):
    graph = ModelGraph()
    found = [parity.Difference("c", "motion", float("nan"), "jawOpen", (1,))]
    with pytest.raises(WorkFailed):
        parity.check(found, "onnx/model.onnx")
    assert graph.columns(None, "motion") == rig.CHANNELS


def test_a_changed_byte_is_named(copy):
    path = copy / "model.safetensors"
    data = bytearray(path.read_bytes())
    data[-1] ^= 1
    path.write_bytes(data)
    with pytest.raises(InputError, match="bundle .*: model.safetensors was changed"):
        Predictor.load(copy)
    os.truncate(path, 1 << 40)  # Takes no room, and would take an hour to read.
    with pytest.raises(InputError, match="bundle .*: model.safetensors was changed"):
        Predictor.load(copy)
    path.unlink()
    with pytest.raises(InputError, match="model.safetensors is missing"):
        Predictor.load(copy)


def changed_weights(folder, change):
    """Changes the weights of a bundle, and states their digest."""
    path = folder / weights.FILE
    values = weights.load(path)
    change(values)
    weights.save(path, values, {})
    described = json.loads((folder / manifest.FILE).read_text())
    described["files"][weights.FILE] = manifest.file_digest(path)
    described.pop("crc32")
    (folder / manifest.FILE).write_text(json.dumps(sealed_json.seal(described)))


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (
            lambda v: v["params"]["head"].update(kernel=np.zeros((3, 72), np.float32)),
            "of another m",
        ),
        (lambda v: v["params"].pop("head"), "of another model than config.json"),
        (lambda v: v["constants"].update(motion_std=np.ones(71, np.float32)), "of another model"),
        (lambda v: v.pop("constants"), "model.safetensors: has no 'constants'"),
    ],
)
def test_weights_of_another_model_are_one_line(copy, change, words):
    changed_weights(copy, change)
    with pytest.raises(InputError, match=words) as caught:
        Predictor.load(copy)
    assert "\n" not in str(caught.value)


def test_a_training_starts_from_a_bundle_in_another_folder(run, bundle, tmp_path):
    resolved = load(None, {"init_from": str(bundle)})
    started = starting_point.initial_params(resolved.config, tmp_path / "new")
    _, averaged, _ = checkpoints.load_params(run)
    jax.tree.map(np.testing.assert_array_equal, started, averaged)
    with pytest.raises(InputError, match=r"is a bundle.*--config.init_from=.*in another folder"):
        run_dir.check(bundle, resolved)


def test_a_bundle_is_not_watched(bundle, capsys):
    assert main.main(["evaluate", str(bundle), "--watch"]) == 2
    assert "is a bundle of one checkpoint; evaluate it without --watch" in capsys.readouterr().err
    assert not (bundle / "eval").exists()


def test_a_changed_manifest_is_named(copy):
    path = copy / "a2fjax.json"
    path.write_text(path.read_text().replace('"step": 7', '"step": 8'))
    with pytest.raises(InputError, match="a2fjax.json: was changed"):
        Predictor.load(copy)


@pytest.mark.parametrize(
    ("key", "value", "words"),
    [
        ("schema", 2, "schema 2 is newer than 1"),
        ("schema", "1", "expected the manifest of a bundle"),
        ("rig", "0123456789abcdef", "made for rig 0123456789abcdef"),
    ],
)
def test_a_manifest_of_something_else_is_refused(copy, key, value, words):
    path = copy / "a2fjax.json"
    values = json.loads(path.read_text())
    values.pop("crc32")
    path.write_text(json.dumps(sealed_json.seal({**values, key: value})))
    with pytest.raises(InputError, match=words):
        Predictor.load(copy)


def test_another_step_of_a_bundle_is_refused(bundle):
    with pytest.raises(InputError, match="has no checkpoint of step 5; the nearest is 7"):
        Predictor.load(bundle, 5)


def test_wrong_arguments_are_one_line(run, bundle, tmp_path, capsys, monkeypatch):
    def fails(*args):
        code = main.main(["export", *map(str, args)])
        return code, capsys.readouterr().err

    taken = tmp_path / "taken"
    taken.mkdir()
    (taken / "x").write_text("x")
    code, line = fails(run, "--out", taken)
    assert code == 2 and "is not empty" in line
    code, line = fails(run, "--out", tmp_path / "b", "--format", "onxx")
    assert code == 2 and "did you mean 'onnx'?" in line
    code, line = fails(tmp_path / "none", "--out", tmp_path / "b")
    assert code == 2 and "does not exist" in line
    from a2fjax.export.formats import onnx

    monkeypatch.setattr(onnx.Onnx, "packages", ("a_package_that_nobody_has",))
    code, line = fails(run, "--out", tmp_path / "b", "--format", "onnx")
    assert code == 2 and "pip install 'a2fjax[export]'" in line
    assert sorted(p.name for p in tmp_path.iterdir()) == ["taken"]


def test_a_full_disk_leaves_nothing_behind(run, tmp_path, monkeypatch, capsys):
    import errno

    def full(*args, **kwargs):
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(writer.weights, "save", full)
    code = main.main(["export", str(run), "--out", str(tmp_path / "b"), "--format", "stablehlo"])
    assert code == 1 and "could not be written (No space left" in capsys.readouterr().err
    assert not list(tmp_path.iterdir())


def test_a_manifest_names_no_file_outside(copy):
    path = copy / "a2fjax.json"
    values = json.loads(path.read_text())
    values.pop("crc32")
    values["files"]["../secret"] = {"sha256": "0", "bytes": 0}
    path.write_text(json.dumps(sealed_json.seal(values)))
    with pytest.raises(InputError, match="expected a path inside"):
        manifest.verify(copy)


def test_outputs_without_a_range_may_differ_by_a_share_of_their_value():
    class Described:
        name = "identity"

        def outputs(self, source):
            return (Tensor("components", "float32", ("B", 2), ""),)

        def columns(self, source, output):
            return ()

    case = Case("far", {}, {"components": np.float32([[400.0, 0.5]])})
    for got, largest in (([[400.02, 0.5]], 5e-5), ([[400.0, 0.501]], 1e-3)):
        (found,) = parity.compare(Described(), None, [case], lambda inputs, g=got: [np.array(g)])
        assert found.largest == pytest.approx(largest, rel=1e-2)
