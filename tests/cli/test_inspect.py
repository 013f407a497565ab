import json

import jax
import numpy as np
import pytest
from array_record.python import array_record_module

from a2fjax import config as config_lib
from a2fjax import rig, tasks
from a2fjax.cli import main
from a2fjax.data import records
from a2fjax.infer import predictor
from a2fjax.models import params as params_lib
from a2fjax.train import checkpoints
from a2fjax.train.state import TrainState

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
    rows = [line.split() for line in out.splitlines()]
    for row in (
        ["train", "1", "0.050"],
        ["val", "1", "0.025"],
        ["happy", "3", "0.100"],
        ["en", "2", "0.075"],
        ["de", "1", "0.025"],
        ["anna", "2", "0.075"],
    ):
        assert row in rows, out
    assert "observed channels: 71 of 72" in out and "never observed: cheekPuff" in out
    assert rows[rows.index(["most", "moving", "channels", "mean", "std"]) + 1][0] == "jawOpen"


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
    with checkpoints.Checkpoints(run, resolved.config.checkpoint) as saver:
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
