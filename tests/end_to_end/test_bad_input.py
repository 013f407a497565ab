"""Whatever a user gets wrong: one line that names it, exit code 2, and no file written or changed.

Everything goes through the command lines. What is printed is taken from the file descriptors, so
that lines of native libraries count too.
"""

import json
import logging
import os
import shutil
import types

import numpy as np
import pytest
import soundfile

from a2fjax import rig, sealed_json
from a2fjax.animation import formats
from a2fjax.audio import io
from a2fjax.cli import main
from a2fjax.data import records
from a2fjax.training import checkpoints, tracking
from data_pipeline import build
from data_pipeline.demo import __main__ as demo
from data_pipeline.demo import run as whole_demo

PROGRAMS = {
    "a2fjax": main.main,
    "build": build.main,
    "demo": demo.main,
    "whole": whole_demo.main,
}


def listing(folder):
    """What is in a folder: each path with size and time, so that a rewritten file shows."""
    return {
        str(p.relative_to(folder)): (s.st_size, s.st_mtime_ns) if p.is_file() else "folder"
        for p in sorted(folder.rglob("*"))
        for s in [p.stat()]
    }


def other_rig(path):
    """Rewrites the rig's fingerprint in a JSON file, as files of another rig have it."""
    text = path.read_text()
    assert rig.FINGERPRINT in text
    path.write_text(text.replace(rig.FINGERPRINT, "0123456789abcdef"))


def bad_audio(folder):
    nan = np.zeros(8000, np.float32)
    nan[4000] = np.nan
    soundfile.write(folder / "nan.wav", nan, 16000, subtype="FLOAT")
    soundfile.write(folder / "empty.wav", np.zeros(0), 16000)
    soundfile.write(folder / "one.wav", np.zeros(1), 16000)
    soundfile.write(folder / "cut.wav", np.zeros(16000), 16000)
    os.truncate(folder / "cut.wav", 9000)
    (folder / "bytes.wav").write_bytes(bytes(range(256)) * 20)
    (folder / "zero.wav").write_bytes(b"")
    t = np.arange(16_000) / 16_000
    voice = sum(np.sin(2 * np.pi * 120 * k * t) / k for k in range(1, 15))
    io.save(folder / "good.wav", (0.05 * voice).astype(np.float32))
    rng = np.random.default_rng(0)
    soundfile.write(folder / "odd.wav", 0.1 * rng.standard_normal((7000, 3)), 7000)


def bad_meshes_and_emotions(folder):
    np.save(folder / "none.npy", np.zeros((0, 3)))
    np.savez(folder / "none.npz", vertices=np.zeros((0, 3)))
    (folder / "none.obj").write_text("# empty\n")
    np.savez(folder / "cut.npz", vertices=np.ones((50, 3)), faces=np.zeros((0, 3), int))
    os.truncate(folder / "cut.npz", 700)
    np.save(folder / "cut.npy", np.ones((50, 3)))
    os.truncate(folder / "cut.npy", 300)
    np.save(folder / "flat.npy", np.ones((50, 2)))
    np.save(folder / "objects.npy", np.array([{}, None], object))
    (folder / "name.csv").write_text("time,hapy\n0,1\n")
    (folder / "zero.csv").write_text("time,happy\n0,0\n")
    (folder / "over.json").write_text('{"times": [0], "weights": [{"happy": 0.8, "sad": 0.7}]}')
    (folder / "cut.json").write_text('{"times": [0], "wei')


def bad_runs(folder, run):
    """Copies of a run, each with one thing wrong."""
    for name in ("rigged", "torn", "cut", "without", "older", "list", "binary"):
        shutil.copytree(run, folder / name)
    meta = next((folder / "rigged" / "checkpoints" / "3" / "meta").iterdir())
    other_rig(meta)
    values = json.loads(meta.read_text())
    del values["crc32"]
    meta.write_text(json.dumps(sealed_json.seal(values)))
    # A kill while the first state was written leaves only the temporary folder.
    shutil.rmtree(folder / "torn" / "checkpoints" / "2")
    steps = folder / "torn" / "checkpoints"
    (steps / "3").rename(steps / "3.orbax-checkpoint-tmp-7")
    for path in (folder / "cut" / "checkpoints" / "3" / "ema").rglob("*"):
        if path.is_file():
            os.truncate(path, path.stat().st_size // 2)
    shutil.rmtree(folder / "without" / "checkpoints")
    config = json.loads((folder / "older" / "config.json").read_text())
    config["config"]["model"]["conv_widht"] = 8
    del config["crc32"]
    (folder / "older" / "config.json").write_text(json.dumps(sealed_json.seal(config)))
    (folder / "list" / "config.json").write_text("[1, 2]")
    (folder / "binary" / "config.json").write_bytes(b"\xff\xfe\x00" * 9)


def bad_shards(folder, shards):
    """Copies of the shards, each with one thing wrong."""
    names = ("other_rig", "schema", "torn_manifest", "binary_manifest", "lost_shard", "lost_mesh")
    for name in (*names, "cut_mesh", "cut_shards", "only_train"):
        shutil.copytree(shards, folder / name)
    other_rig(folder / "other_rig" / "manifest.json")
    for name, change in {
        "schema": {"schema": 99},
        "only_train": {},
    }.items():
        path = folder / name / "manifest.json"
        data = json.loads(path.read_text()) | change
        if name == "only_train":
            for shard in data["shards"]:
                for clip in shard["clips"]:
                    clip["split"] = "train"
        path.write_text(json.dumps(data))
    path = folder / "torn_manifest" / "manifest.json"
    os.truncate(path, path.stat().st_size // 2)
    (folder / "binary_manifest" / "manifest.json").write_bytes(b"\xff\xfe\x00" * 9)
    next((folder / "lost_shard").glob("*.arrayrecord")).unlink()
    (folder / "lost_mesh" / "subjects" / "s1.npz").unlink()
    os.truncate(folder / "cut_mesh" / "subjects" / "s1.npz", 500)
    for path in (folder / "cut_shards").glob("*.arrayrecord"):
        os.truncate(path, path.stat().st_size // 2)


@pytest.fixture(scope="module")
def world(trained, tmp_path_factory):
    """A folder with the right files and, beside them, every wrong one; tests must not change it."""
    folder = tmp_path_factory.mktemp("world")
    bad_audio(folder)
    bad_meshes_and_emotions(folder)
    (folder / "runs").mkdir()
    bad_runs(folder / "runs", trained.run)
    (folder / "sets").mkdir()
    bad_shards(folder / "sets", trained.shards)
    (folder / "empty").mkdir()
    (folder / "foreign").mkdir()
    (folder / "foreign" / "photo.jpg").write_bytes(b"\xff\xd8\xff")
    (folder / "file").write_text("")
    (folder / "broken.py").write_text("def get_config(variant=''):\n    return {'steps': 1")
    (folder / "wrong.py").write_text("def get_config(variant=''):\n    return 3\n")
    (folder / "text.py").write_bytes(b"\xff\xfe\x00" * 9)
    return folder


@pytest.fixture
def drive(world, trained, tmp_path, capfd):
    """Runs a command line, in which the names of `places` in braces are filled in."""
    places = {
        "world": world,
        "run": trained.run,
        "shards": trained.shards,
        "experiment": trained.root / "experiment.py",
        "tmp": tmp_path,
    }

    def call(line):
        program, *arguments = line.split(" ")
        code = PROGRAMS[program]([a.format(**places) for a in arguments])
        out, err = capfd.readouterr()
        return types.SimpleNamespace(code=code, out=out, err=err)

    return call


@pytest.fixture
def refused(drive, world, trained, tmp_path):
    """Runs a command line that must be refused with a line that says `says`."""

    def call(line, says):
        folders = (world, trained.root, tmp_path)
        before = [listing(f) for f in folders]
        done = drive(line)
        assert done.code == 2, done
        # Lines of progress are set in by two spaces.
        (line,) = [x for x in done.err.splitlines() if not x.startswith("  ")]
        assert ": error: " in line and len(line) < 600, line
        assert says in line, line
        assert [listing(f) for f in folders] == before
        return done

    return call


INFER = "a2fjax infer {run} --out={tmp}/x.npz"
LISTED = {
    # What the command is told to refuse, in the order of the requirement.
    "missing file": (f"{INFER} --audio={{world}}/god.wav", "no such file; did you mean 'good.wav'"),
    "empty audio": (f"{INFER} --audio={{world}}/empty.wav", "empty.wav: holds 0 samples"),
    "empty file": (f"{INFER} --audio={{world}}/zero.wav", "zero.wav: is an empty file"),
    "one sample": (f"{INFER} --audio={{world}}/one.wav", "one.wav: holds 1 samples, expected"),
    "NaN samples": (f"{INFER} --audio={{world}}/nan.wav", "nan.wav: sample at 0.2500 s is not"),
    "no sound": (f"{INFER} --audio={{world}}/bytes.wav", "bytes.wav: not an audio file"),
    "cut audio": (f"{INFER} --audio={{world}}/cut.wav", "cut.wav: cut short"),
    "a folder as audio": (f"{INFER} --audio={{world}}", "is a folder, expected an audio file"),
}
GOOD = f"{INFER} --audio={{world}}/good.wav"
INFERRING = {
    "emotion of zero": (f"{GOOD} --emotion=happy=0", "emotion weights sum to 0"),
    "emotion over one": (f"{GOOD} --emotion=happy=0.8,sad=0.8", "emotion weights sum to 1.6"),
    "no emotion at all": (f"{GOOD} --emotion=", "expected a name"),
    "track of a wrong name": (
        f"{GOOD} --emotion={{world}}/name.csv",
        "name.csv:2: unknown emotion",
    ),
    "track of zero": (f"{GOOD} --emotion={{world}}/zero.csv", "zero.csv:2: emotion weights sum"),
    "track over one": (
        f"{GOOD} --emotion={{world}}/over.json",
        "over.json: row 0: emotion weights",
    ),
    "cut track": (f"{GOOD} --emotion={{world}}/cut.json", "cut.json: not JSON"),
    "no track": (f"{GOOD} --emotion={{world}}/no.csv", "no.csv: no such file"),
    "npy without vertices": (f"{GOOD} --identity={{world}}/none.npy", "has 0 vertices, expected"),
    "npz without vertices": (f"{GOOD} --identity={{world}}/none.npz", "has 0 vertices, expected"),
    "obj without vertices": (f"{GOOD} --identity={{world}}/none.obj", "has 0 vertices, expected"),
    "cut npz mesh": (f"{GOOD} --identity={{world}}/cut.npz", "cut.npz: not a mesh file"),
    "cut npy mesh": (f"{GOOD} --identity={{world}}/cut.npy", "cut.npy: truncated or damaged"),
    "flat mesh": (f"{GOOD} --identity={{world}}/flat.npy", "shape (50, 2), expected [V, 3]"),
    "objects as mesh": (f"{GOOD} --identity={{world}}/objects.npy", "objects.npy: holds pickled"),
    "no such mesh": (f"{GOOD} --identity={{world}}/no.obj", "no.obj: no such file"),
    "sound as mesh": (f"{GOOD} --identity={{world}}/good.wav", "unknown ending '.wav'"),
    "no such person": (f"{GOOD} --identity=s7", "no such mesh file or subject; did you mean 's1'"),
    "people of no shards": (f"{GOOD} --identity=s7 --data={{world}}/empty", "shards not found"),
    "unknown ending": (f"{GOOD} --out={{tmp}}/x.fbx", "x.fbx: unknown ending '.fbx'"),
    "no ending": (f"{GOOD} --out={{tmp}}/x", "/x: no ending"),
    "output nowhere": (f"{GOOD} --out={{tmp}}/no/x.csv", "does not exist"),
    "output in a file": (f"{GOOD} --out={{world}}/file/x.csv", "is not a folder"),
    "not a run": (
        "a2fjax infer {world}/empty --audio={world}/good.wav --out={tmp}/x.npz",
        "config",
    ),
    "no run": ("a2fjax infer {world}/no --audio={world}/good.wav --out={tmp}/x.npz", "not exist"),
    "rate as text": (f"{GOOD} --fps=fast", "fast"),
    "step as text": (f"{GOOD} --step=last", "--step: invalid int value: 'last'"),
    "no such step": (f"{GOOD} --step=1", "no checkpoint of step 1; the nearest is 2 (all: 2, 3)"),
    "no audio given": (INFER, "arguments are required: --audio"),
    "misspelt flag": (f"{GOOD} --emotoin=happy", "unexpected argument '--emotoin=happy'"),
}
RUNS = {
    "of another rig": ("rigged", "made for rig 0123456789abcdef"),
    "killed in its first save": ("torn", "has no checkpoint yet"),
    "with a cut checkpoint": ("cut", "cannot be read"),
    "without checkpoints": ("without", "has no checkpoint yet"),
    "with an unknown key": ("older", "model.conv_widht'; did you mean 'conv_width'"),
    "with a list as configuration": ("list", "not a run's configuration"),
    "with a binary configuration": ("binary", "not a run's configuration"),
}
TRAIN = "a2fjax train --config={experiment} --workdir={tmp}/run"
TRAINING = {
    "unknown key": (f"{TRAIN} --config.optim.learning_rat=1", "did you mean 'learning_rate'"),
    "unknown group": (f"{TRAIN} --config.optimizer.steps=1", "unknown key 'optimizer'"),
    "value of a wrong type": (f"{TRAIN} --config.steps=many", "steps='many': expected a value of"),
    "group as a value": (f"{TRAIN} --config.data=3", "data=3: expected a group of keys"),
    "no experiment": ("a2fjax train --config={world}/no.py --workdir={tmp}/run", "not found"),
    "broken experiment": (
        "a2fjax train --config={world}/broken.py --workdir={tmp}/run",
        "broken.py, line 2: SyntaxError",
    ),
    "experiment that gives a number": (
        "a2fjax train --config={world}/wrong.py --workdir={tmp}/run",
        "wrong.py: ",
    ),
    "experiment of bytes": (
        "a2fjax train --config={world}/text.py --workdir={tmp}/run",
        "text.py: ",
    ),
    "no workdir": ("a2fjax train --config={experiment}", "are required: --workdir"),
    "no shards given": (TRAIN, "data.shards is empty"),
    "shards that are not there": (f"{TRAIN} --config.data.shards={{world}}/no", "does not exist"),
    "empty shards": (f"{TRAIN} --config.data.shards={{world}}/empty", "has no manifest.json"),
    "foreign shards": (f"{TRAIN} --config.data.shards={{world}}/foreign", "has no manifest.json"),
    "a file as shards": (f"{TRAIN} --config.data.shards={{world}}/file", "file"),
    "workdir that is a file": (
        "a2fjax train --config={experiment} --workdir={world}/file --config.data.shards={shards}",
        "file: is a file, expected a folder",
    ),
    "workdir below a file": (
        "a2fjax train --config={experiment} --workdir={world}/file/run "
        "--config.data.shards={shards}",
        "cannot be written",
    ),
    "workdir nobody may write": (
        "a2fjax train --config={experiment} --workdir=/proc/run --config.data.shards={shards}",
        "--workdir /proc/run: cannot be written",
    ),
    "workdir of another run": (
        "a2fjax train --config={experiment} --workdir={run} --config.data.shards={shards} "
        "--config.seed=5",
        "holds a run of another configuration",
    ),
    "unknown split": (
        f"{TRAIN} --config.data.shards={{shards}} --config.data.split=trian",
        "did you mean 'train'",
    ),
    "no best metric of that name": (
        f"{TRAIN} --config.data.shards={{shards}} --config.checkpoint.best_metric=loss",
        "did you mean 'eval/loss'",
    ),
    "more devices than there are": (
        f"{TRAIN} --config.data.shards={{shards}} --config.sharding.fsdp=64",
        "64",
    ),
}
SETS = {
    "of another rig": ("other_rig", "made for rig 0123456789abcdef"),
    "of another schema": ("schema", "schema 99, this version reads 1"),
    "with a cut manifest": ("torn_manifest", "not JSON"),
    "with a binary manifest": ("binary_manifest", "not JSON"),
    "with a shard missing": ("lost_shard", "is named in the manifest but missing"),
    "with a mesh missing": ("lost_mesh", "s1.npz: no such file"),
    "with a cut mesh": ("cut_mesh", "s1.npz: not a mesh file"),
}
EVALUATING = {
    "no run": ("a2fjax evaluate {world}/no", "no does not exist"),
    "an empty folder": ("a2fjax evaluate {world}/empty", "is not a run folder"),
    "a file": ("a2fjax evaluate {world}/file", "file"),
    "shards": ("a2fjax evaluate {shards}", "is not a run folder"),
    "no such step": ("a2fjax evaluate {run} --step=7", "no checkpoint of step 7; the nearest is 3"),
    "unknown split": ("a2fjax evaluate {run} --split=test_sentence", "did you mean 'test_sentenc"),
    "split without clips": ("a2fjax evaluate {run} --split=test_subjects", "no clips in split"),
    "no such data": ("a2fjax evaluate {run} --data={world}/no", "does not exist"),
    "unreadable data": ("a2fjax evaluate {run} --data={world}/sets/cut_shards", "no readable clip"),
    "no test split": ("a2fjax evaluate {run} --data={world}/sets/only_train", "none of the splits"),
    "report nowhere": ("a2fjax evaluate {run} --quick --out={world}/file/x.json", "file"),
    "a run as report": ("a2fjax evaluate {run} --show={run}/config.json", "not an evaluation"),
    "sound as report": ("a2fjax evaluate {run} --show={world}/good.wav", "good.wav: not JSON"),
}
OTHER_COMMANDS = {
    "unknown command": ("a2fjax infre", "did you mean 'infer'"),
    "nothing to inspect": ("a2fjax inspect {world}/no", "no such file or folder"),
    "foreign folder to inspect": ("a2fjax inspect {world}/foreign", "neither a run"),
    "sound to inspect": ("a2fjax inspect {world}/good.wav", "expected a run folder"),
    "broken experiment to inspect": ("a2fjax inspect {world}/broken.py", "SyntaxError"),
    "build of nothing": ("build {world}/no --out={tmp}/set", "no does not exist"),
    "build of a file": ("build {world}/file --out={tmp}/set", "file is not a folder"),
    "build of an empty folder": ("build {world}/empty --out={tmp}/set", "no known layout"),
    "build of a foreign folder": ("build {world}/foreign --out={tmp}/set", "no known layout"),
    "unknown layout": ("build {world}/empty --out={tmp}/set --layout=nvidai", "mean 'nvidia'"),
    "wrong layout": ("build {world}/foreign --out={tmp}/set --layout=nvidia", "foreign"),
    "wrong table": ("build {world}/foreign --out={tmp}/set --layout=table", "foreign"),
    "unknown setting": ("build {world}/empty --out={tmp}/set --config.sed=1", "mean 'seed'"),
    "build without output": ("build {world}/empty", "are required: --out"),
    "workers as text": ("build {world}/empty --out={tmp}/set --workers=all", "--workers: invalid"),
    "nobody": ("demo --out={tmp}/demo --subjects=0", "--subjects 0: expected at least 1"),
    "fewer than nobody": ("demo --out={tmp}/demo --unseen=-1", "--unseen -1: expected at least 0"),
    "no time": ("demo --out={tmp}/demo --minutes=0", "--minutes 0: expected more than 0"),
    "time as text": ("demo --out={tmp}/demo --minutes=long", "--minutes: invalid float value"),
    "no number": ("demo --out={tmp}/demo --minutes=nan", "--minutes nan: expected"),
    "for ever": ("demo --out={tmp}/demo --minutes=inf", "--minutes inf: expected"),
    "no workers": ("demo --out={tmp}/demo --workers=0", "--workers 0: expected at least 1"),
    "corpus into a file": ("demo --out={world}/file", "is a file; expected a folder"),
    "whole demo: no recording": ("whole --folder={tmp}/d --audio={tmp}/me.wav", "no such file"),
    "whole demo: NaN": ("whole --folder={tmp}/d --audio={world}/nan.wav", "is not a finite number"),
    "whole demo: no sound": (
        "whole --folder={tmp}/d --audio={world}/bytes.wav",
        "not an audio file",
    ),
    "whole demo: into a file": ("whole --folder={world}/file", "file; expected a folder"),
    "whole demo: below a file": ("whole --folder={world}/file/d", "cannot be made"),
    "whole demo: emotion": ("whole --folder={tmp}/d --emotion=hapy", "did you mean 'happy'"),
    "whole demo: no steps": ("whole --folder={tmp}/d --steps=0", "--steps 0: expected at least 1"),
    "whole demo: nobody": (
        "whole --folder={tmp}/d --subjects=0",
        "--subjects 0: expected at least",
    ),
    "whole demo: no time": ("whole --folder={tmp}/d --minutes=-1", "--minutes -1: expected more"),
}


@pytest.mark.parametrize("case", LISTED)
def test_recordings(refused, case):
    refused(*LISTED[case])


@pytest.mark.parametrize("case", INFERRING)
def test_inferring(refused, case):
    refused(*INFERRING[case])


@pytest.mark.parametrize("case", RUNS)
@pytest.mark.parametrize(
    "command",
    [
        "a2fjax infer {world}/runs/%s --audio={world}/good.wav --out={tmp}/x.csv",
        "a2fjax evaluate {world}/runs/%s",
        "a2fjax inspect {world}/runs/%s",
    ],
    ids=["infer", "evaluate", "inspect"],
)
def test_a_run(drive, refused, command, case):
    name, says = RUNS[case]
    if "inspect" in command and "no checkpoint" in says:
        done = drive(command % name)
        assert done.code == 0 and "checkpoints: none yet" in done.out
    else:
        refused(command % name, says)


@pytest.mark.parametrize("case", TRAINING)
def test_training(refused, case):
    assert refused(*TRAINING[case]).out == ""


@pytest.mark.parametrize("case", SETS)
def test_training_on_shards(refused, case):
    name, says = SETS[case]
    refused(f"{TRAIN} --config.data.shards={{world}}/sets/{name}", says)


@pytest.mark.parametrize("case", EVALUATING)
def test_evaluating(refused, case):
    refused(*EVALUATING[case])


@pytest.mark.parametrize("case", OTHER_COMMANDS)
def test_other_commands(refused, case):
    refused(*OTHER_COMMANDS[case])


def test_three_channels_at_7_khz_are_no_mistake(drive, tmp_path):
    done = drive("a2fjax infer {run} --audio={world}/odd.wav --out={tmp}/x.csv --out={tmp}/x.npz")
    # On a busy machine the work may take long enough for a line of progress.
    assert done.code == 0 and all("done (" in line for line in done.err.splitlines())
    track = formats.read(tmp_path / "x.npz")
    assert track.motion.shape == (50, 72) and np.isfinite(track.motion).all()
    assert sorted(os.listdir(tmp_path)) == ["x.csv", "x.npz", "x.tongue_eyes.channels.csv"]


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write everywhere")
def test_folders_without_permission(refused, tmp_path):
    (tmp_path / "closed").mkdir(mode=0o500)
    refused("a2fjax infer {run} --audio={world}/good.wav --out={tmp}/closed/x.csv", "permission")
    refused("a2fjax train --config={experiment} --workdir={tmp}/closed/run "
            "--config.data.shards={shards}", "cannot be written")  # fmt: skip


def damaged(shards, folder, where, split="train"):
    """A copy of the shards with a split's first record, or the file it is in, cut in half."""
    shutil.copytree(shards, folder)
    path, first = next(
        (folder / shard.file, i)
        for shard in records.read_manifest(folder).shards
        for i, clip in enumerate(shard.clips)
        if clip["split"] == split
    )
    if where == "file":
        os.truncate(path, path.stat().st_size // 2)
        return folder
    from array_record.python.array_record_module import ArrayRecordReader, ArrayRecordWriter

    reader = ArrayRecordReader(str(path))
    content = [bytearray(r) for r in reader.read_all()]
    reader.close()
    content[first] = content[first][: len(content[first]) // 2]
    writer = ArrayRecordWriter(str(path), "group_size:1")
    for record in content:
        writer.write(bytes(record))
    writer.close()
    return folder


@pytest.mark.parametrize("where", ["record", "file"])
def test_training_goes_on_past_a_truncated_shard(trained, tmp_path, capfd, caplog, where):
    shards = damaged(trained.shards, tmp_path / "shards", where)
    first = records.read_manifest(shards).shards[0].clips
    names = [c["id"] for c in first if c["split"] == "train"]
    lost = names[:1] if where == "record" else names
    changes = [f"--config.data.shards={shards}", "--config.log.every_steps=1"]
    with caplog.at_level(logging.WARNING, logger="a2fjax"):
        assert main.main(trained.arguments(tmp_path / "run", *changes)) == 0
    said = [r.getMessage() for r in caplog.records if r.name.startswith("a2fjax")]
    assert said and all(".arrayrecord: record " in line for line in said)
    named = {name for name in lost if any(f"({name})" in line for line in said)}
    last = tracking.read_metrics(tmp_path / "run")[-1]
    assert named and last["perf/bad_records"] == len(said) == len(named)
    assert checkpoints.steps(tmp_path / "run") == [2, 3]
    assert "finished" in capfd.readouterr().out


# Grain's worker processes import everything anew, which takes many seconds.
BY_A_WORKER = pytest.param(1, marks=pytest.mark.slow)


@pytest.mark.parametrize(
    ("workers", "where"),
    [
        (0, "record"),
        *(pytest.param(*case, marks=pytest.mark.slow) for case in ((1, "record"), (1, "file"))),
    ],
)
def test_training_stops_at_a_truncated_shard_when_told_to(trained, tmp_path, capfd, where, workers):
    shards = damaged(trained.shards, tmp_path / "shards", where)
    run = tmp_path / "run"
    changes = [
        f"--config.data.shards={shards}",
        "--config.data.on_bad_record=raise",
        f"--config.data.workers={workers}",
    ]
    assert main.main(trained.arguments(run, *changes)) == 2
    (line,) = capfd.readouterr().err.splitlines()
    assert line.startswith("a2fjax train: error: ") and ".arrayrecord: record " in line
    # The run can be continued once the record is there again, and nothing is half-written.
    assert not [p for p in run.rglob("*") if "partial" in p.name or "tmp" in p.name]
    assert checkpoints.steps(run) == []
    shutil.rmtree(shards)
    shutil.copytree(trained.shards, shards)
    assert main.main(trained.arguments(run, *changes)) == 0
    assert checkpoints.steps(run) == [2, 3]


@pytest.mark.parametrize("workers", [0, BY_A_WORKER])
def test_no_readable_record_at_all(trained, world, tmp_path, capfd, workers):
    run = tmp_path / "run"
    changes = [
        f"--config.data.shards={world / 'sets' / 'cut_shards'}",
        f"--config.data.workers={workers}",
    ]
    assert main.main(trained.arguments(run, *changes)) == 2
    (line,) = capfd.readouterr().err.splitlines()
    assert "no readable clip in split 'train'" in line and "cut_shards" in line
    assert not [p for p in run.rglob("*") if "partial" in p.name or "tmp" in p.name]


def test_continuing_on_other_shards_or_for_another_rig(trained, world, tmp_path, capfd):
    run = tmp_path / "run"
    shutil.copytree(world / "runs" / "rigged", run)
    before = listing(run / "checkpoints")
    assert main.main(trained.arguments(run, "--config.steps=4")) == 2
    (line,) = capfd.readouterr().err.splitlines()
    assert "made for rig 0123456789abcdef" in line
    assert listing(run / "checkpoints") == before


def test_evaluation_leaves_out_and_names_what_it_cannot_read(trained, tmp_path, capfd):
    shards = damaged(trained.shards, tmp_path / "shards", "record", "test_sentences")
    report = tmp_path / "report.json"
    arguments = ["evaluate", str(trained.run), "--quick", f"--data={shards}", f"--out={report}"]
    assert main.main(arguments) == 0
    part = json.loads(report.read_text())["splits"]["test_sentences"]
    (skipped,) = part["skipped"]
    assert part["clips"] == 1 and ".arrayrecord" in skipped and "s0/8" in skipped
    assert "1 unreadable" in capfd.readouterr().out
