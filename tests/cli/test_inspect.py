import json
import shutil

import jax
import numpy as np
import pytest
from array_record.python import array_record_module

from a2fjax import configuration as config_lib
from a2fjax import rig, tasks
from a2fjax.cli import main
from a2fjax.data import records
from a2fjax.infer import predictor
from a2fjax.models import params as params_lib
from a2fjax.training import checkpoint_writer
from a2fjax.training.state import TrainState

SMALL = "--config.model.conv_width=16 --config.model.recurrent_width=16".split()


def inspect(capsys, *args):
    code = main.main(["inspect", *map(str, args)])
    shown = capsys.readouterr()
    return code, shown.out, shown.err


def clip(subject, i, *, split, language, frames):
    motion = np.zeros((frames, 72), np.float32)
    return records.Clip(
        id=f"{subject}/{i}",
        subject=subject,
        sentence=f"s{i}",
        language=language,
        split=split,
        audio=np.zeros(frames * 320, np.float32),
        motion=motion,
        channel_mask=np.ones(72, bool),
        frame_mask=np.ones(frames, bool),
        emotion=np.tile(np.eye(5, dtype=np.float32)[1], (frames, 1)),
        speech_level=0.1,
        synthetic=True,
    )


@pytest.fixture
def shards(tmp_path):
    folder = tmp_path / "shards"
    folder.mkdir()
    clips = [
        clip("anna", 0, split="train", language="en", frames=9000),
        clip("anna", 1, split="val", language="de", frames=4500),
        clip("ben", 2, split="test_subjects", language="en", frames=4500),
    ]
    writer = array_record_module.ArrayRecordWriter(str(folder / "a.arrayrecord"), "group_size:1")
    for each in clips:
        writer.write(records.encode(each))
    writer.close()
    index = [
        {"id": c.id, "subject": c.subject, "sentence": c.sentence, "split": c.split,
         "frames": c.frames, "emotion": "happy"}
        for c in clips
    ]  # fmt: skip
    mask = np.ones(72, bool)
    mask[rig.INDEX["cheekPuff"]] = False
    std = np.full(72, 0.01)
    std[rig.INDEX["jawOpen"]] = 0.2
    manifest = records.Manifest(
        subjects=[records.Subject("anna", None, False), records.Subject("ben", None, True)],
        shards=[records.Shard("a.arrayrecord", index)],
        channel_mask=mask.tolist(),
        statistics={"motion_mean": [0.1] * 72, "motion_std": std.tolist()},
        synthetic=True,
        source={},
    )
    records.write_manifest(folder, manifest)
    return folder


def test_shards(shards, capsys):
    code, out, _ = inspect(capsys, shards)
    assert code == 0
    assert "3 clips, 0.10 hours, 2 subjects (1 held out, 0 with a mesh), 3 sentences" in out
    words = " ".join(out.split())
    for row in (
        "train 1 0.050",
        "val 1 0.025",
        "happy 3 0.100",
        "en 0.075",  # the index is of a version that named no languages
        "de 0.025",
        "anna 2 0.075",
        "ben (held out) 1 0.025",
    ):
        assert row in words, out
    assert "observed channels: 71 of 72" in out and "never observed: cheekPuff" in out
    assert "most moving channels mean std anna 2 0.075 jawOpen 0.100 0.200" in words


def test_several_sets(shards, tmp_path, capsys):
    other = shutil.copytree(shards, tmp_path / "others")
    code, out, _ = inspect(capsys, shards, other, "--weights", "3,1")
    assert code == 0
    rows = [line.split() for line in out.splitlines()]
    assert next(r for r in rows if r[:1] == ["shards"])[-2:] == ["50.0%", "75.0%"]
    assert next(r for r in rows if r[:1] == ["others"])[-2:] == ["50.0%", "25.0%"]
    path = tmp_path / "x.py"
    values = {"data": {"shards": [str(shards), str(other)], "weights": [1, 4]}}
    path.write_text(f"def get_config(variant=''):\n    return {values!r}\n")
    _, out, _ = inspect(capsys, path, *SMALL, "--config.data.weights", "1,0")
    assert "others: left out" in out and "trained parameters" in out


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--weights", "1,2"], "expected one for each folder of data.shards (1), got 2"),
        (["--weights", "much"], "--weights much: expected numbers, such as 1,2.5"),
        (["--weights=-1"], "-1.0 of"),
        (["--out", "x.png"], "--out goes with --take"),
        (["--take", "anna/9"], "no take 'anna/9'; did you mean 'anna/"),
        (["--take", "anna"], "may be any of 2: anna/0, anna/1"),
        (["--take", "anna/0", "--out", "x.tiff"], "unknown ending '.tiff'"),
        (["--take", "anna/0", "--range", "5"], "expected START:END"),
        (["--take", "anna/0", "--range", "500:501"], "the take has 180.00 s"),
    ],
)
def test_what_cannot_be_shown_is_said_in_one_line(shards, capsys, arguments, message):
    code, out, err = inspect(capsys, shards, *arguments)
    assert code == 2 and out == ""
    assert message in err and len(err.strip().splitlines()) == 1


def test_a_take(shards, tmp_path, capsys):
    code, out, _ = inspect(capsys, shards, "--take", "ben")
    assert code == 0 and out.startswith("take ben/2 · en · test_subjects · 90.0 s")
    file = tmp_path / "take.html"
    code, out, _ = inspect(capsys, shards, "--take", "ben/2", "--range", "3:5", "--out", file)
    assert code == 0 and str(file) in out and "100 of 100 frames" in out
    assert file.read_text().startswith("<!doctype html>")


def test_an_experiment(tmp_path, capsys):
    path = tmp_path / "x.py"
    path.write_text("def get_config(variant=''):\n    return {'name': 'try', 'steps': 5}\n")
    code, out, _ = inspect(capsys, path, *SMALL)
    assert code == 0
    assert f"steps = 5  ({path})" in out
    assert "model.conv_width = 16  (--config.model.conv_width)" in out
    config = config_lib.load(path, config_lib.parse_overrides(SMALL)).config
    task = tasks.build(config, None)
    batch = predictor.batch_shapes(config, 1, 64)
    params = jax.eval_shape(lambda b: task.init(jax.random.key(0), b), batch)
    trained = params_lib.count(params_lib.split(params)[0])
    assert f"{trained:,} trained parameters" in out
    assert "MFLOP a frame" in out and "the whole clip (bidirectional)" in out
    assert "conv_0/kernel" in out


def test_look_ahead_of_a_causal_model(tmp_path, capsys):
    path = tmp_path / "x.py"
    path.write_text("def get_config(variant=''):\n    return {'model': {'recurrent': 'causal'}}\n")
    _, out, _ = inspect(capsys, path, *SMALL)
    config = config_lib.load(path).config
    ahead = tasks.build(config, None).model.lookahead_seconds
    assert f"look-ahead: {1000 * ahead:.1f} ms (5 frames" in out


def test_a_run(tmp_path, capsys):
    resolved = config_lib.load(None, config_lib.parse_overrides([*SMALL, "--config.name=mine"]))
    run = tmp_path / "run"
    run.mkdir()
    (run / "config.json").write_text(resolved.to_json())
    code, out, _ = inspect(capsys, run)
    assert code == 0 and "checkpoints: none yet" in out and "name = 'mine'" in out
    trained = {"head": {"kernel": jax.numpy.zeros((3, 72))}}
    frozen = {"constants": {"motion_mean": jax.numpy.zeros(72)}}
    with checkpoint_writer.CheckpointWriter(run, resolved.config.checkpoint) as saver:
        for step in (10, 20):
            state = TrainState(np.int32(step), trained, frozen, {"m": jax.numpy.zeros(1)}, None)
            saver.save(step, state, {}, {"eval/loss": 1.0 / step})
            saver.wait()
    lines = [{"step": 10, "train/loss": 0.5}, {"step": 20, "train/loss": 0.25}]
    (run / "metrics.jsonl").write_text("".join(json.dumps(x) + "\n" for x in lines))
    code, out, _ = inspect(capsys, run)
    assert code == 0
    assert "checkpoints: 10, 20" in out and "eval/loss = 0.05" in out
    assert "216 trainable values, 72 frozen" in out
    assert ["train/loss", "0.25", "20"] in [line.split() for line in out.splitlines()]
    code, _, err = inspect(capsys, run, "--step", "11")
    assert code == 2 and "the nearest is 10" in err


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("none", "no such file or folder"),
        ("empty", "neither a run (config.json) nor shards (manifest.json)"),
        ("file.txt", "expected a run folder"),
        ("none.py", "not found"),
        ("damaged", "not a run's configuration"),
    ],
)
def test_what_is_none_of_them(tmp_path, capsys, name, message):
    (tmp_path / "empty").mkdir()
    (tmp_path / "file.txt").write_text("")
    (tmp_path / "damaged").mkdir()
    (tmp_path / "damaged" / "config.json").write_text("{")
    code, out, err = inspect(capsys, tmp_path / name)
    assert code == 2 and out == ""
    assert message in err and len(err.strip().splitlines()) == 1
