"""Any program's curves: every form and convention gives what the same curves of a model give."""

import json
import re

import numpy as np
import pytest

import a2fjax as a2f
from a2fjax import channel_orders, rig
from a2fjax.animation import formats
from a2fjax.cli import main as cli
from a2fjax.data import records
from a2fjax.errors import InputError
from a2fjax.evaluation import mouth_close, report_text, time_offset

SPLIT = "test_subjects"
JAW, CLOSE = rig.INDEX["jawOpen"], rig.INDEX["mouthClose"]


@pytest.fixture(scope="module")
def closing(tmp_path_factory, write_clip, write_set):
    """Shards whose lips meet by mouthClose on an open jaw, as ARKit's do."""
    rng = np.random.default_rng(3)
    clips = []
    for subject in ("a", "b"):
        for take in range(3):
            clip = write_clip(subject, take, SPLIT, "neutral", rng)
            jaw = clip.motion[:, JAW] + 0.15
            shut = np.clip(np.sin(np.arange(clip.frames) / 7 + take), 0, 1) ** 4
            clip.motion[:, JAW], clip.motion[:, CLOSE] = jaw, shut * jaw
            clips.append(clip)
    folder = tmp_path_factory.mktemp("closing")
    people = [records.Subject(name, None, True) for name in "ab"]
    write_set(folder, clips, people, {})
    return folder, clips


def write_all(folder, clips, write, change=lambda motion: motion):
    for clip in clips:
        path = folder / clip.id
        path.parent.mkdir(parents=True, exist_ok=True)
        write(path, change(clip.motion), clip)
    return folder


def write_json(path, motion, clip):
    formats.write(path.with_name(f"{path.name}.json"), motion)


def write_csv(path, motion, clip):
    formats.write(path.with_name(f"{path.name}.channels.csv"), motion)


def write_npz(path, motion, clip):
    formats.write(path.with_name(f"{path.name}.npz"), motion)


def write_nim(path, motion, clip):
    order = channel_orders.order("nvidia68")
    header = ["timeCode", *(f"blendShapes.{name}" for name in order.names)]
    values = order.from_rig(motion)
    rows = [f"{t / 50:.6f},{','.join(f'{v:.7f}' for v in row)}" for t, row in enumerate(values)]
    path.with_name(f"{path.name}.csv").write_text("\n".join([",".join(header), *rows]))


def write_omniverse(path, motion, clip):
    data = {
        "exportFps": 50,
        "numFrames": len(motion),
        "facsNames": list(rig.ARKIT),
        "weightMat": motion[:, :52].tolist(),
    }
    path.with_name(f"{path.name}.json").write_text(json.dumps(data))


def write_mediapipe(path, motion, clip):
    frames = [
        {
            "timestampMs": 20 * t,
            "faceBlendshapes": [
                {
                    "categories": [
                        {"index": i, "score": float(v), "categoryName": name}
                        for i, (name, v) in enumerate(zip(rig.ARKIT, row[:52], strict=True))
                    ]
                }
            ],
        }
        for t, row in enumerate(motion)
    ]
    path.with_name(f"{path.name}.json").write_text(json.dumps(frames))


def write_azure(path, motion, clip):
    times = np.arange(int(clip.frames * 60 / 50)) / 60
    sampled = np.stack([np.interp(times, np.arange(len(motion)) / 50, c) for c in motion.T], 1)
    rows = channel_orders.order("azure55").from_rig(sampled).tolist()
    events = [{"FrameIndex": n, "BlendShapes": rows[n : n + 25]} for n in range(0, len(rows), 25)]
    path.with_name(f"{path.name}.json").write_text("\n".join(map(json.dumps, events)))


def write_livelink(path, motion, clip):
    formats.write(path.with_name(f"{path.name}.csv"), motion)


WRITERS = {
    "json": write_json,
    "csv": write_csv,
    "npz": write_npz,
    "nim": write_nim,
    "omniverse": write_omniverse,
    "mediapipe": write_mediapipe,
    "azure": write_azure,
    "livelink": write_livelink,
}


def measured(folder, data, **given):
    given.setdefault("quick", True)
    return a2f.evaluate(None, data[0], SPLIT, predictions=folder, **given).values


@pytest.mark.parametrize("form", WRITERS)
def test_the_truth_in_any_form_is_perfect(closing, tmp_path, form):
    result = measured(write_all(tmp_path, closing[1], WRITERS[form]), closing)
    model, facts = result["splits"][SPLIT]["model"], result["predictions"]
    exact = form != "azure"  # At 60 frames a second, resampled to 50.
    assert model["rmse_ratio"] < (2e-3 if exact else 0.05)
    assert abs(facts["offset_ms"]) < (0.5 if exact else 3) and facts["files"] == 6
    assert model["closure_recall"] == 1 and facts["units"] == "weight"
    observed = {"json": 72, "csv": 72, "npz": 72, "nim": 68, "livelink": 56}.get(form, 52)
    assert len(facts["missing_channels"]) == 72 - observed
    assert facts["fps"] == [60.0 if form == "azure" else 50.0]


def test_files_of_a_model_s_curves_measure_as_the_model(shards, stand_in, tmp_path):
    def change(motion):
        return 0.8 * motion + 0.02

    folder = write_all(tmp_path, [c for c in shards[1] if c.split == SPLIT], write_npz, change)
    files = measured(folder, shards)["splits"][SPLIT]
    model = a2f.evaluate(stand_in(shards, lambda g, r: change(g)), split=SPLIT, quick=True)
    for name, value in model.metrics().items():
        found = files["model"][name]
        assert found == value or found == pytest.approx(value, rel=1e-4, abs=1e-5), name
    of_model = model.values["splits"][SPLIT]["baselines"]
    assert files["baselines"]["constant_mean"] == of_model["constant_mean"]


def test_missing_channels_are_masked_in_the_truth_as_well(shards, tmp_path):
    """Lip channels that files lack must count neither in errors nor in the aperture."""

    def write(path, motion, clip):
        data = {"names": ["jawOpen"], "fps": 50, "frames": motion[:, [JAW]].tolist()}
        path.with_name(f"{path.name}.json").write_text(json.dumps(data))

    clips = [c for c in shards[1] if c.split == SPLIT]
    result = measured(write_all(tmp_path, clips, write), shards)
    model = result["splits"][SPLIT]["model"]
    assert model["rmse_ratio"] == pytest.approx(0, abs=1e-6) and model["mod"] < 1e-6
    assert model["bs_rmse/tongue"] is None
    assert len(result["predictions"]["missing_channels"]) == 71


@pytest.mark.parametrize("gain", [1.0, 0.6])
def test_nvidia_s_mouth_close_is_found_by_reconstruction(closing, tmp_path, gain):
    rng = np.random.default_rng(0)

    def nvidia(motion):
        out = motion.copy()
        out[:, JAW] = motion[:, JAW] - motion[:, CLOSE]
        out[:, [JAW, CLOSE]] *= gain
        out[:, [JAW, CLOSE]] += 0.02 * rng.standard_normal((len(out), 2))
        return out

    def arkit(motion):
        out = gain * motion
        out[:, [JAW, CLOSE]] += 0.02 * rng.standard_normal((len(out), 2))
        return out

    one = measured(write_all(tmp_path / "nvidia", closing[1], write_json, nvidia), closing)
    two = measured(write_all(tmp_path / "arkit", closing[1], write_json, arkit), closing)
    assert "includes jawOpen" in one["predictions"]["mouth_close"]
    assert "relative to an open jaw (error" in two["predictions"]["mouth_close"]
    for result in (one, two):
        assert result["splits"][SPLIT]["model"]["corr/jaw_mouth"] > 0.9
    forced = measured(tmp_path / "nvidia", closing, mouth_close="arkit")
    worse = forced["splits"][SPLIT]["model"]
    assert worse["rmse_ratio"] > 1.2 * one["splits"][SPLIT]["model"]["rmse_ratio"]


def test_maxine_s_name_states_the_convention(closing, tmp_path):
    def write(path, motion, clip):
        names = ["jawOpen", "jawOpen_+_mouthClose"]
        values = np.stack([motion[:, JAW] - motion[:, CLOSE], motion[:, CLOSE]], 1)
        data = {"names": names, "fps": 50, "frames": values.tolist()}
        path.with_name(f"{path.name}.json").write_text(json.dumps(data))

    result = measured(write_all(tmp_path, closing[1], write), closing)
    assert result["predictions"]["mouth_close"].startswith("column jawOpen_+_mouthClose")
    assert result["splits"][SPLIT]["model"]["rmse_ratio"] < 1e-5


def test_unused_mouth_close_is_no_convention():
    readings = mouth_close.Readings()
    motion = np.random.default_rng(0).random((50, 72))
    motion[:, CLOSE] = 0
    readings.add(motion, motion, np.ones(50, bool))
    assert readings.errors() is None and readings.convention()[0] == "arkit"


@pytest.mark.parametrize("late", [4, -3, 2.5])
def test_an_offset_is_told_and_applied_only_on_request(closing, tmp_path, late):
    def shift(motion):
        at = np.arange(len(motion)) - late
        return np.stack([np.interp(at, np.arange(len(motion)), c) for c in motion.T], 1)

    folder = write_all(tmp_path, closing[1], write_json, shift)
    told = measured(folder, closing)
    assert told["predictions"]["offset_ms"] == pytest.approx(20 * late, abs=2)
    assert told["predictions"]["aligned_ms"] == 0
    late_ms = told["splits"][SPLIT]["model"]["xcorr_lag_ms"]
    assert late_ms == pytest.approx(20 * late, abs=2)
    aligned = measured(folder, closing, align=True)
    assert aligned["predictions"]["aligned_ms"] == pytest.approx(20 * late, abs=2)
    assert aligned["splits"][SPLIT]["model"]["xcorr_lag_ms"] == pytest.approx(0, abs=1)
    text = report_text.table(aligned)
    assert "shifted by" in text and ("late" if late > 0 else "early") in text


def test_offsets_of_noise_are_none():
    lags = time_offset.Lags()
    rng = np.random.default_rng(0)
    lags.add(rng.random(3000), rng.random(3000), np.ones(3000, bool))
    assert lags.offset() is None


def test_percent_is_seen_and_told_for_all_files(shards, tmp_path, write_clip):
    clips = [c for c in shards[1] if c.split == SPLIT]

    def write(path, motion, clip):
        data = {"names": list(rig.ARKIT), "fps": 50, "frames": (100 * motion[:, :52]).tolist()}
        path.with_name(f"{path.name}.json").write_text(json.dumps(data))

    folder = write_all(tmp_path, clips, write)
    result = measured(folder, shards)
    assert result["predictions"]["units"] == "percent"
    assert any("taken for percent" in note for note in result["predictions"]["notes"])
    assert result["splits"][SPLIT]["model"]["rmse_ratio"] < 1e-5
    # One file of small values looks like weights: no guess for a part of the files.
    write(folder / clips[0].id, 0.01 * clips[0].motion, clips[0])
    with pytest.raises(InputError, match="holds percent and .*u0/0.json weights.*--units percent"):
        measured(folder, shards)
    assert measured(folder, shards, units="percent")["predictions"]["units"] == "percent"


def test_a_rate_comes_from_the_file_or_the_flag(shards, tmp_path):
    clips = [c for c in shards[1] if c.split == SPLIT]

    def write(path, motion, clip):
        half = motion[::2, :52]
        data = {"names": list(rig.ARKIT), "frames": half.tolist()}
        path.with_name(f"{path.name}.json").write_text(json.dumps(data))

    folder = write_all(tmp_path, clips, write)
    with pytest.raises(InputError, match="states neither times nor a rate; give --fps"):
        measured(folder, shards)
    with pytest.raises(InputError, match=r"lasts .* s \(.* frames at 50 a second\), the clip"):
        measured(folder, shards, fps=50)
    assert measured(folder, shards, fps=25)["predictions"]["fps"] == [25]
    stated = write_all(tmp_path / "stated", clips, write_json)
    with pytest.raises(InputError, match="has 50 frames a second, --fps says 25"):
        measured(stated, shards, fps=25)


def test_frames_counted_from_one_start_the_clip(shards, tmp_path):
    clips = [c for c in shards[1] if c.split == SPLIT]

    def write(path, motion, clip):
        rows = [f"{t + 1},{m[JAW]:.7f}" for t, m in enumerate(motion)]
        path.with_name(f"{path.name}.csv").write_text("\n".join(["frame,jawOpen", *rows]))

    result = measured(write_all(tmp_path, clips, write), shards, fps=50)
    assert result["splits"][SPLIT]["model"]["rmse_ratio"] < 1e-5


BAD = {
    "missing": (lambda f: (f / "u0/1.json").unlink(), r"no file for clip 'u0/1'.*the nearest is"),
    "extra": (
        lambda f: (f / "u0/1.json").rename(f / "u0/l.json"),
        r"u0/l.json: no clip .* 'u0/l'; did you mean 'u0/",
    ),
    "doubled": (
        lambda f: (f / "u0_1.json").write_bytes((f / "u0/1.json").read_bytes()),
        r"clip 'u0/1' has ",
    ),
    "empty": (lambda f: [p.unlink() for p in f.rglob("*.json")], "has no file of curves"),
    "nan": (
        lambda f: edit(f, lambda d: d["frames"][3].__setitem__(0, float("nan"))),
        r"u0/1.json: 1 of \d+ frames have no values",
    ),
    "unknown": (
        lambda f: edit(f, lambda d: d["names"].__setitem__(17, "jawOpn")),
        "unknown channel 'jawOpn'; did you mean 'jawOpen'",
    ),
    "twice": (
        lambda f: edit(f, lambda d: d["names"].__setitem__(17, "JawForward")),
        "appears twice|both hold",
    ),
    "nameless": (
        lambda f: edit(f, lambda d: d.pop("names")),
        "without their names|expected names and frames",
    ),
    "short": (lambda f: edit(f, lambda d: d.__setitem__("frames", d["frames"][:50])), "lasts 1.0"),
    "damaged": (lambda f: (f / "u0/1.json").write_text("{"), "u0/1.json: not JSON"),
}


def edit(folder, change):
    path = folder / "u0/1.json"
    data = json.loads(path.read_text())
    change(data)
    path.write_text(json.dumps(data))


@pytest.mark.parametrize("fault", BAD)
def test_bad_files_are_one_line_and_leave_no_report(shards, tmp_path, capsys, fault):
    spoil, says = BAD[fault]
    folder = write_all(tmp_path / "p", [c for c in shards[1] if c.split == SPLIT], write_json)
    spoil(folder)
    out = tmp_path / "report.json"
    argv = ["evaluate", "--predictions", str(folder), "--data", str(shards[0]), "--split", SPLIT]
    assert cli.main([*argv, "--out", str(out), "--quick"]) == 2
    error = capsys.readouterr().err.strip().splitlines()[-1]
    assert error.startswith("a2fjax evaluate: error: ")
    assert re.search(says, error), error
    assert not out.exists()


@pytest.mark.parametrize(
    "argv, says",
    [
        ([], "expected RUN or --predictions"),
        (["run", "--predictions", "x"], "expected RUN or --predictions"),
        (["--predictions", "x"], "--data"),
        (["--predictions", "x", "--data", "y"], "--out"),
        (["run", "--align"], "--align: goes with --predictions"),
        (["run", "--samples", "2", "--units", "percent"], "--units: goes with --predictions"),
        (["--predictions", "x", "--samples", "2"], "--samples: goes with RUN"),
        (["--predictions", "x", "--watch"], "--predictions: does not go with --watch"),
        (["run", "--fps", "30"], "--fps: goes with --predictions"),
        (["--predictions", "x", "--data", "y", "--out", "z", "--step", "3"], "--step"),
        (["--predictions", "x", "--data", "y", "--out", "z", "--units", "x"], "weight, percent"),
        (["--predictions", "x", "--data", "y", "--out", "z", "--mouth-close", "nvida"], "'nvidia'"),
        (["--predictions", "x", "--data", "y", "--out", "z", "--fps", "5000"], "1 and 1000"),
    ],
)
def test_flags_are_checked_first(argv, says, capsys):
    assert cli.main(["evaluate", *argv]) == 2
    assert says in capsys.readouterr().err


def test_the_command_writes_a_report_that_is_shown_again(shards, tmp_path, capsys):
    folder = write_all(tmp_path / "p", [c for c in shards[1] if c.split == SPLIT], write_json)
    (folder / "notes.md").write_text("not curves")
    out = tmp_path / "report.json"
    argv = ["evaluate", "--predictions", str(folder), "--data", str(shards[0]), "--split", SPLIT]
    assert cli.main([*argv, "--out", str(out), "--quick"]) == 0
    shown = capsys.readouterr().out
    assert f"files of {folder}" in shown and "8 files, 50 frames a second" in shown
    assert cli.main(["evaluate", "--show", str(out)]) == 0
    assert capsys.readouterr().out.strip() in shown


def test_shards_without_a_training_split_are_their_own_reference(tmp_path, closing):
    lines = []
    folder = write_all(tmp_path, closing[1], write_json)
    result = measured(folder, closing, say=lines.append)
    constant = result["splits"][SPLIT]["baselines"]["constant_mean"]
    assert constant["rmse_ratio"] == pytest.approx(1)
    assert any("no split train" in line for line in lines)
