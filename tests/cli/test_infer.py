"""The command as a user gives it, on a run folder as training leaves it."""

import json
import os

import jax
import numpy as np
import pytest
import soundfile

from a2fjax import configuration as config_lib
from a2fjax import rig
from a2fjax.animation import formats, livelink
from a2fjax.audio import io
from a2fjax.cli import main
from a2fjax.data import records
from a2fjax.infer import predictor
from a2fjax.models import params as params_lib
from a2fjax.training import checkpoint_writer
from a2fjax.training.state import TrainState

VERTICES = np.random.default_rng(0).standard_normal((40, 3)).astype(np.float32)


@pytest.fixture(scope="module")
def run(tmp_path_factory, random_params, compile_once):
    folder = tmp_path_factory.mktemp("work")
    shards = folder / "shards"
    records.write_mesh(shards / "anna.npz", VERTICES, np.zeros((0, 3)))
    subjects = [records.Subject("anna", "anna.npz", False)]
    records.write_manifest(shards, records.Manifest(subjects, [], [True] * 72, {}, True, {}))
    overrides = {
        "name": "small",
        "model.conv_width": "16",
        "model.recurrent_width": "16",
        "model.identity_width": "8",
        "data.identity_points": "32",
        "data.shards": str(shards),
    }
    return write_run(folder / "run", overrides, random_params)


def write_run(run, overrides, random_params):
    """A run folder with two checkpoints of random weights."""
    resolved = config_lib.load(None, overrides)
    run.mkdir()
    (run / "config.json").write_text(resolved.to_json())
    with checkpoint_writer.CheckpointWriter(run, resolved.config.checkpoint) as saver:
        for step in (10, 20):
            trained, frozen = params_lib.split(random_params(resolved.config, step))
            trained, frozen = jax.tree.map(jax.numpy.asarray, (trained, frozen))
            opt_state = {"mu": jax.numpy.zeros(3)}
            saver.save(step, TrainState(np.int32(step), trained, frozen, opt_state, None), {}, {})
            saver.wait()
    return run


@pytest.fixture(scope="module")
def wav(tmp_path_factory):
    path = tmp_path_factory.mktemp("audio") / "in.wav"
    t = np.arange(24_000) / 16_000
    voice = sum(np.sin(2 * np.pi * 120 * k * t) / k for k in range(1, 15))
    io.save(path, (0.05 * voice * (np.sin(6 * t) > 0)).astype(np.float32))
    return path


def infer(*args):
    return main.main(["infer", *map(str, args)])


def test_all_formats_hold_the_same_curves(run, wav, tmp_path, capsys):
    paths = [tmp_path / f"x{e}" for e in (".csv", ".channels.csv", ".json", ".npz")]
    outs = [a for p in paths for a in ("--out", p)]
    assert infer(run, "--audio", wav, *outs) == 0
    beside = "x.tongue_eyes.channels.csv"
    assert sorted(p.name for p in tmp_path.iterdir()) == sorted([beside, *(p.name for p in paths)])
    tracks = [formats.read(p) for p in paths]
    model = predictor.Predictor.load(run)
    expected = model(io.load(wav))
    for track in tracks:
        seen = track.observed
        assert track.motion.shape == (75, 72) and track.fps == pytest.approx(50)
        assert np.abs(track.motion - expected)[:, seen].max() < 1e-5
    assert [int(t.observed.sum()) for t in tracks] == [56, 72, 72, 72]
    assert json.loads(paths[2].read_text())["audio"] == "in.wav"
    said = capsys.readouterr().out
    assert str(paths[0]) in said and f"{beside}: 75 frames at 50 fps" in said
    assert (
        np.abs(formats.read(tmp_path / beside).motion - expected)[:, rig.INDEX["tongueUp"]].max()
        < 1e-5
    )


def test_files_for_programs_hold_the_same_frames(run, wav, tmp_path, capsys):
    paths = [tmp_path / f"face{e}" for e in (".glb", ".anim", ".omniverse.json", ".json")]
    outs = [a for p in paths for a in ("--out", p)]
    (tmp_path / "adjust.json").write_text('{"jawOpen": {"clamp": [0.1, 0.2]}}')
    asked = ["--fps", 60, "--adjust", tmp_path / "adjust.json"]
    assert infer(run, "--audio", wav, *outs, *asked) == 0
    found = [formats.read(p) for p in paths]
    weights = rig.WEIGHT_CHANNELS
    for track in found:
        assert len(track.motion) == 90 and track.times[-1] == pytest.approx(89 / 60)
        assert np.abs(track.motion - found[-1].motion)[:, weights].max() < 2e-6
        jaw = track.motion[:, rig.INDEX["jawOpen"]]
        assert jaw.min() > 0.1 - 1e-6 and jaw.max() < 0.2 + 1e-6
    capsys.readouterr()
    for words, message in (
        (["--out", tmp_path / "x.gbl"], "unknown ending '.gbl'"),
        (["--out", paths[0], "--head", "dmo"], "did you mean 'demo'?"),
        (["--out", paths[0], "--order", "arkit25"], "did you mean 'arkit52'?"),
        (["--out", paths[1], "--mouth-close", "nvidia"], "takes no --mouth-close"),
        (["--out", paths[0], "--adjust", tmp_path / "no.json"], "no.json: no such file"),
    ):
        assert infer(run, "--audio", wav, *words) == 2
        said = capsys.readouterr().err
        assert message in said and said.count("\n") == 1


def test_fps_timecode_step_and_adjustments(run, wav, tmp_path):
    out = tmp_path / "x.csv"
    options = ("--fps", "59.94", "--timecode", "18:43:58:59.723", "--gain", "jawOpen=0.5")
    assert infer(run, "--audio", wav, "--out", out, *options, "--step", "10") == 0
    table = livelink.read(out)
    assert table.timecodes[:2] == ("18:43:58:59.723", "18:43:59:00.724")
    assert len(table.timecodes) == 90
    motion = predictor.Predictor.load(run, 10)(io.load(wav))
    jaw = np.interp(np.arange(90) * 1001 / 60000, np.arange(75) / 50, motion[:, 17])
    assert np.abs(table.to_motion()[0][:, 17] - 0.5 * jaw).max() < 1e-5


def test_identity_and_emotion_change_the_face(run, wav, tmp_path):
    np.save(tmp_path / "anna.npy", VERTICES)
    (tmp_path / "track.csv").write_text("time,happy,sad\n0,1,0\n1.5,0,1\n")
    cases = {
        "plain": [],
        "subject": ["--identity", "anna"],
        "mesh": ["--identity", tmp_path / "anna.npy"],
        "happy": ["--emotion", "happy=0.7,sad=0.3"],
        "track": ["--emotion", tmp_path / "track.csv"],
    }
    found = {}
    for name, options in cases.items():
        assert infer(run, "--audio", wav, "--out", tmp_path / f"{name}.npz", *options) == 0
        found[name] = formats.read(tmp_path / f"{name}.npz").motion
    assert np.array_equal(found["subject"], found["mesh"])
    for name in ("subject", "happy", "track"):
        assert np.abs(found[name] - found["plain"]).max() > 1e-3, name


def test_three_channels_at_7_khz(run, tmp_path):
    rng = np.random.default_rng(0)
    soundfile.write(tmp_path / "odd.wav", 0.1 * rng.standard_normal((7000, 3)), 7000)
    assert infer(run, "--audio", tmp_path / "odd.wav", "--out", tmp_path / "x.npz") == 0
    track = formats.read(tmp_path / "x.npz")
    assert track.motion.shape == (50, 72) and np.isfinite(track.motion).all()


def test_a_picture(run, wav, tmp_path):
    pytest.importorskip("matplotlib")
    options = ("--plot", tmp_path / "x.png", "--emotion", "happy=0.5")
    assert infer(run, "--audio", wav, *options) == 0
    from matplotlib import image

    drawn = image.imread(tmp_path / "x.png")
    assert drawn.shape[0] > 400 and drawn.shape[1] > 900
    assert drawn[..., :3].std() > 0.05
    assert os.listdir(tmp_path) == ["x.png"]


@pytest.fixture(scope="module")
def bad(tmp_path_factory):
    folder = tmp_path_factory.mktemp("bad")
    nan = np.zeros(8000, np.float32)
    nan[4000] = np.nan
    soundfile.write(folder / "nan.wav", nan, 16000, subtype="FLOAT")
    soundfile.write(folder / "empty.wav", np.zeros(0), 16000)
    soundfile.write(folder / "one.wav", np.zeros(1), 16000)
    (folder / "text.wav").write_text("this is no sound")
    (folder / "zero.wav").write_bytes(b"")
    np.save(folder / "none.npy", np.zeros((0, 3)))
    (folder / "none.obj").write_text("# empty\n")
    (folder / "file").write_text("")
    (folder / "back.csv").write_text("time,happy\n1,1\n0,1\n")
    (folder / "norun").mkdir()
    return folder


CASES = {
    "missing audio": (["--audio", "{bad}/no.wav"], "no.wav: no such file"),
    "folder as audio": (["--audio", "{bad}"], "is a folder"),
    "empty audio": (["--audio", "{bad}/empty.wav"], "empty.wav: holds 0 samples"),
    "one sample": (["--audio", "{bad}/one.wav"], "one.wav: holds 1 samples"),
    "NaN samples": (["--audio", "{bad}/nan.wav"], "nan.wav: sample at 0.2500 s is not a finite"),
    "not audio": (["--audio", "{bad}/text.wav"], "text.wav: not an audio file"),
    "empty file": (["--audio", "{bad}/zero.wav"], "zero.wav: "),
    "emotion zero": (["--emotion", "happy=0"], "emotion weights sum to 0"),
    "emotion over one": (["--emotion", "happy=0.8,sad=0.8"], "emotion weights sum to 1.6"),
    "emotion unknown": (["--emotion", "hapy"], "did you mean 'happy'?"),
    "emotion track": (["--emotion", "{bad}/back.csv"], "back.csv:3: time 0: expected a time after"),
    "mesh without vertices": (["--identity", "{bad}/none.npy"], "none.npy: has 0 vertices"),
    "obj without vertices": (["--identity", "{bad}/none.obj"], "none.obj: has 0 vertices"),
    "unknown subject": (["--identity", "ana"], "did you mean 'anna'?"),
    "unknown ending": (["--out", "{tmp}/x.cvs"], "x.cvs: unknown ending '.cvs'"),
    "no such folder": (["--out", "{tmp}/none/x.csv"], "does not exist"),
    "file as folder": (["--out", "{bad}/file/x.csv"], "is not a folder"),
    "same output twice": (["--out", "{tmp}/x.npz"], "given twice"),
    "wrong fps": (["--fps", "0"], "fps"),
    "wrong timecode": (["--timecode", "00:00:00:50"], "expected less than 50"),
    "wrong gain": (["--gain", "jawOpn=2"], "did you mean 'jawOpen'?"),
    "wrong picture": (["--plot", "{tmp}/x.pgn"], "did you mean '.png'?"),
    "wrong range": (["--plot-range", "2:1"], "expected START:END"),
    "no such step": (["--step", "12"], "the nearest is 10"),
    "stray argument": (["--config.x=1"], "unexpected argument"),
}


@pytest.mark.parametrize("case", CASES)
def test_bad_input_is_one_line_and_leaves_nothing(run, wav, bad, tmp_path, capsys, case):
    options, message = CASES[case]
    args = ["--audio", str(wav), "--out", str(tmp_path / "x.npz")]
    args += [o.format(bad=bad, tmp=tmp_path) for o in options]
    assert infer(run, *args) == 2
    shown = capsys.readouterr()
    lines = shown.err.strip().splitlines()
    assert len(lines) == 1 and lines[0].startswith("a2fjax infer: error: "), shown.err
    assert message in lines[0]
    assert shown.out == "" and list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(("name", "message"), [("norun", "not a run folder"), ("x", "not exist")])
def test_not_a_run(wav, bad, tmp_path, capsys, name, message):
    assert infer(bad / name, "--audio", wav, "--out", tmp_path / "x.npz") == 2
    assert message in capsys.readouterr().err
    assert list(tmp_path.iterdir()) == []


def test_nothing_to_write(run, wav, capsys):
    assert infer(run, "--audio", wav) == 2
    assert "--out" in capsys.readouterr().err


def test_a_checkpoint_of_another_rig(run, wav, tmp_path, capsys, monkeypatch):
    monkeypatch.setattr(rig, "FINGERPRINT", "0123456789abcdef")
    assert infer(run, "--audio", wav, "--out", tmp_path / "x.npz") == 2
    assert "rig" in capsys.readouterr().err
    assert list(tmp_path.iterdir()) == []


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write everywhere")
def test_a_folder_without_permission(run, wav, tmp_path, capsys):
    (tmp_path / "closed").mkdir(mode=0o500)
    assert infer(run, "--audio", wav, "--out", tmp_path / "closed" / "x.csv") == 2
    assert "no permission" in capsys.readouterr().err


@pytest.mark.skipif(not os.path.isdir("/proc/self"), reason="needs a folder nobody writes to")
def test_a_folder_that_refuses_even_root(run, wav, capsys):
    assert infer(run, "--audio", wav, "--out", "/proc/self/x.csv") == 2
    shown = capsys.readouterr().err
    assert "cannot be written" in shown and len(shown.strip().splitlines()) == 1


def test_damage_found_late_leaves_the_old_file(run, bad, tmp_path, capsys):
    (tmp_path / "x.npz").write_bytes(b"old")
    assert infer(run, "--audio", bad / "nan.wav", "--out", tmp_path / "x.npz") == 2
    assert (tmp_path / "x.npz").read_bytes() == b"old"
    assert os.listdir(tmp_path) == ["x.npz"]


@pytest.fixture(scope="module")
def sampled(tmp_path_factory, random_params, compile_once):
    overrides = {
        "name": "small_diffusion",
        "model.kind": "diffusion",
        "model.conv_width": "16",
        "model.recurrent_width": "8",
        "model.identity": "none",
        "model.emotion_dropout": "0.1",
        "model.unet.widths": "(8, 8)",
        "model.unet.heads": "2",
        "model.unet.window": "8",
        "model.sample.steps": "2",
    }
    return write_run(tmp_path_factory.mktemp("sampled") / "run", overrides, random_params)


def test_samples_have_a_file_each_and_are_the_same_every_time(sampled, wav, tmp_path, capsys):
    for folder in ("a", "b"):
        (tmp_path / folder).mkdir()
        out = tmp_path / folder / "x.json"
        assert infer(sampled, "--audio", wav, "--out", out, "--samples", 2) == 0
    names = ["x.sample0.json", "x.sample1.json"]
    assert sorted(p.name for p in (tmp_path / "a").iterdir()) == names
    first, second = (formats.read(tmp_path / "a" / name).motion for name in names)
    assert np.abs(first - second).max() > 0.01
    assert np.array_equal(second, formats.read(tmp_path / "b" / names[1]).motion)
    assert json.loads((tmp_path / "a" / names[1]).read_text())["sample"] == "1"
    assert "x.sample1.json: 75 frames" in capsys.readouterr().out


def test_seed_steps_sampler_and_guidance_change_a_sample(sampled, wav, tmp_path):
    def made(*flags):
        assert infer(sampled, "--audio", wav, "--out", tmp_path / "x.npz", *flags) == 0
        return formats.read(tmp_path / "x.npz").motion

    plain = made()
    for flags in (
        ("--sample-seed", 3),
        ("--sample-steps", 5),
        ("--sampler", "ddpm"),
        ("--guidance", "audio=2,emotion=0"),
    ):
        assert np.abs(made(*flags) - plain).max() > 1e-4, flags


def test_inpainting_keeps_all_but_what_is_predicted(sampled, wav, tmp_path):
    first, second = tmp_path / "a.npz", tmp_path / "b.npz"
    assert infer(sampled, "--audio", wav, "--out", first) == 0
    inpaint = (
        "--inpaint",
        first,
        "--inpaint-channels",
        "brows,jawOpen",
        "--inpaint-range",
        "0.5:1",
    )
    assert infer(sampled, "--audio", wav, "--out", second, "--sample-seed", 9, *inpaint) == 0
    before, after = (formats.read(p).motion for p in (first, second))
    changed = np.zeros(before.shape, bool)
    changed[25:50, [*rig.GROUPS["brows"], rig.INDEX["jawOpen"]]] = True
    np.testing.assert_allclose(after[~changed], before[~changed], atol=1e-6)
    assert np.abs(after[changed] - before[changed]).max() > 1e-3


@pytest.mark.parametrize(
    "which, flags, says",
    [
        ("run", ("--samples", 2), "samples: "),
        ("run", ("--guidance", "audio=2"), "audio: "),
        ("sampled", ("--samples", 0), "samples=0"),
        ("sampled", ("--guidance", "voice=2"), "voice"),
        ("sampled", ("--guidance", "identity=2"), "condition_dropout"),
        ("sampled", ("--sampler", "euler"), "euler"),
        ("sampled", ("--inpaint-channels", "brows"), "--inpaint FILE"),
        ("sampled", ("--inpaint", "missing.npz", "--inpaint-channels", "brows"), "missing.npz"),
    ],
)
def test_what_cannot_be_sampled_is_one_line_and_no_file(
    request, wav, tmp_path, capsys, which, flags, says
):
    out = tmp_path / "x.csv"
    assert infer(request.getfixturevalue(which), "--audio", wav, "--out", out, *flags) == 2
    shown = capsys.readouterr().err
    assert says in shown and shown.count("\n") == 1 and not out.exists()
