import contextlib
import dataclasses
import errno
import fcntl
import json
import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
import soundfile
from array_record.python import array_record_module
from hypothesis import given
from hypothesis import strategies as st

from a2fjax import rig
from a2fjax.audio import num_frames
from a2fjax.data import records
from a2fjax.errors import InputError
from data_pipeline import build
from data_pipeline.execution import build_lock
from data_pipeline.settings import BuildSettings, read_settings
from data_pipeline.stages import cut_clips as clips_of
from data_pipeline.stages import take_list

ROOT = Path(__file__).resolve().parents[2]
OFFSETS = {"ann": 0.08, "bob": -0.11, "cat": 0.03}


@pytest.fixture(scope="module")
def captures(tmp_path_factory, head, make_actor):
    """Three actors, the last held out, with truth by (actor, shot)."""
    folder, truth = tmp_path_factory.mktemp("captures"), {}
    for seed, (name, offset) in enumerate(OFFSETS.items()):
        made = make_actor(
            folder / name, head, offset=offset, seed=seed, held_out=name == "cat", fps=59.94
        )
        truth |= {(name, shot): motion for shot, motion in made.items()}
    return folder, truth


@pytest.fixture(scope="module")
def built(captures, tmp_path_factory):
    """The shards of `captures`, made by one worker process, and the lines of that build."""
    out, lines = tmp_path_factory.mktemp("shards") / "set", []
    settings = BuildSettings(test_sentences=("line 2",))
    manifest = build.build(captures[0], out, settings=settings, workers=1, log=lines.append)
    return out, manifest, lines


def clips(out):
    manifest = records.read_manifest(out)
    found = {}
    for shard in manifest.shards:
        reader = array_record_module.ArrayRecordReader(str(out / shard.file))
        for entry, record in zip(shard.clips, reader.read_all(), strict=True):
            clip = records.decode(record)
            assert {k: getattr(clip, k) for k in ("id", "subject", "sentence", "split")} == {
                k: entry[k] for k in ("id", "subject", "sentence", "split")
            }
            assert entry["frames"] == clip.frames
            found[clip.id] = clip
    return found


def contents(out):
    files = sorted(p for p in out.rglob("*") if p.is_file() and ".build" not in p.parts)
    return {str(p.relative_to(out)): p.read_bytes() for p in files}


def test_truth_comes_back(built, captures):
    out, manifest, lines = built
    found = clips(out)
    assert set(found) == {f"{a}/{s}" for a in OFFSETS for s in ("joy_00", "calm_01")}
    for clip in found.values():
        name, shot = clip.id.split("/")
        at = np.arange(clip.frames) / rig.FPS
        good = clip.frame_mask
        error = (clip.motion[:, :52] - captures[1][name, shot](at))[good]
        assert np.sqrt((error**2).mean()) <= 0.02
        # The capture starts `offset` after the audio, or before it.
        first = int(np.argmax(good))
        assert abs(first / rig.FPS - max(0.0, OFFSETS[name])) <= 0.03
        assert clip.channel_mask[:52].all() and not clip.channel_mask[52:68].any()
        np.testing.assert_allclose(
            clip.motion[good][:, 68:], [[1, 2, 3, 4]] * good.sum(), atol=1e-4
        )
        assert clip.synthetic and clip.language == "en" and clip.extra["residual_mm"] < 0.1
        assert clip.frames == num_frames(len(clip.audio))
    for name, offset in OFFSETS.items():
        got = manifest.source["offsets"][name]
        assert got["method"] == "slate" and abs(got["seconds"] - offset) <= 0.010
    assert manifest.source["kkt"] <= 1e-4
    assert any("layout nvidia (3 folders" in line for line in lines)


def test_splits_subjects_and_statistics(built):
    out, manifest, _ = built
    found = clips(out)
    split = {i: c.split for i, c in found.items()}
    assert split["cat/joy_00"] == "unused" and split["cat/calm_01"] == "test_subjects"
    assert split["ann/calm_01"] == "test_sentences" and split["ann/joy_00"] == "train"
    assert {s.id: s.held_out for s in manifest.subjects} == dict(ann=False, bob=False, cat=True)
    for subject in manifest.subjects:
        vertices, faces = records.read_mesh(out / subject.mesh)
        assert vertices.shape == (450, 3) and faces.shape == (0, 3)
    train = [c for c in found.values() if c.split == "train"]
    motion = np.concatenate([c.motion[c.frame_mask] for c in train]).astype(np.float64)
    seen = train[0].channel_mask
    stats = manifest.statistics
    np.testing.assert_allclose(
        np.array(stats["motion_mean"])[seen], motion.mean(0)[seen], atol=1e-5
    )
    np.testing.assert_allclose(np.array(stats["motion_std"])[seen], motion.std(0)[seen], atol=1e-5)
    # Half happy, half neutral throughout: both means are the mean.
    for emotion in ("happy", "sad"):
        np.testing.assert_allclose(stats["emotion_mean"][emotion], stats["motion_mean"], atol=1e-5)
    hours = sum(len(c.audio) for c in train) / 16_000 / 3600
    assert stats["hours"]["train"] == pytest.approx(hours, abs=1e-5)
    assert manifest.channel_mask == seen.tolist() and manifest.synthetic


def test_second_run_reuses_and_changed_input_is_done_again(captures, tmp_path):
    folder = tmp_path / "captures"
    shutil.copytree(captures[0], folder)
    settings = BuildSettings(offset="0")
    first = build.build(folder, tmp_path / "out", settings=settings, workers=0)
    before = contents(tmp_path / "out")
    lines = []
    again = build.build(folder, tmp_path / "out", settings=settings, workers=0, log=lines.append)
    assert lines[-1].endswith("is up to date") and again == first
    # Another split needs no solving; another audio file needs that take alone.
    other = dataclasses.replace(settings, test_sentences=("line 1",), files=2)
    lines.clear()
    moved = build.build(folder, tmp_path / "out", settings=other, workers=0, log=lines.append)
    assert "9 of 9 takes are done already" in lines
    assert len(moved.shards) == 2 and len(list((tmp_path / "out").glob("clips-*"))) == 2
    audio, rate = soundfile.read(folder / "ann/audio/joy_00.wav")
    soundfile.write(folder / "ann/audio/joy_00.wav", audio * 0.5, rate)
    lines.clear()
    build.build(folder, tmp_path / "out", settings=settings, workers=0, log=lines.append)
    assert "8 of 9 takes are done already" in lines
    assert contents(tmp_path / "out") != before


@pytest.mark.slow
def test_same_bytes_for_any_number_of_processes_and_after_a_kill(captures, built, tmp_path):
    def command(out, *more):
        base = [sys.executable, "-m", "data_pipeline.build", str(captures[0]), f"--out={out}"]
        return [*base, "--config.test_sentences=line 2", *more]

    killed = subprocess.Popen(
        command(tmp_path / "two", "--workers=2"),
        cwd=ROOT,
        stdout=subprocess.PIPE,
        start_new_session=True,
    )
    work = tmp_path / "two" / ".build"
    deadline = time.monotonic() + 120
    while (
        not list(work.glob("takes/*.npz")) and killed.poll() is None and time.monotonic() < deadline
    ):
        time.sleep(0.02)
    os.kill(killed.pid, signal.SIGKILL)  # its workers must end by themselves
    killed.wait()
    killed.stdout.close()
    two = subprocess.run(
        command(tmp_path / "two", "--workers=2"), cwd=ROOT, capture_output=True, text=True
    )
    assert two.returncode == 0, two.stderr
    assert "takes are done already" in two.stdout or "is up to date" in two.stdout
    a, b = contents(built[0]), contents(tmp_path / "two")
    assert a == b and any(n.endswith(".arrayrecord") for n in a)


def damage(folder):
    """One damaged take of each kind; returns {take: part of the reason}."""
    skin = folder / "cache" / "skin"
    for name in ("cut", "wrong", "silent", "deaf", "nan"):
        shutil.copytree(skin / "joy_00", skin / name)
        (skin / name / "joy_00.npy").rename(skin / name / f"{name}.npy")
        shutil.copy(folder / "audio/joy_00.wav", folder / f"audio/{name}.wav")
    path = skin / "cut/cut.npy"
    path.write_bytes(path.read_bytes()[:5000])
    np.save(skin / "wrong/wrong.npy", np.zeros((20, 449, 3), np.float32))
    bad = np.load(skin / "nan/nan.npy")
    bad[:] = np.nan
    np.save(skin / "nan/nan.npy", bad)
    (folder / "audio/silent.wav").write_bytes(b"")
    (folder / "audio/deaf.wav").unlink()
    soundfile.write(folder / "audio/orphan.wav", np.zeros(100), 16_000)
    np.savez(folder / "xform/eye_rotations_all.npz", joy_00=np.zeros((3, 2, 2)))
    return {
        "cut": "truncated or damaged",
        "wrong": "expected [frames, 450, 3]",
        "nan": "nan.npy: ",
        "silent": "silent.wav",
        "deaf": "deaf.wav: no such file",
        "orphan": "no cache of type",
        "joy_00": "has shape (3, 2, 2)",
    }


def test_damaged_takes_are_named_and_left_out(tmp_path, head, make_actor, capsys):
    make_actor(tmp_path / "ann", head)
    expected = damage(tmp_path / "ann")
    arguments = [str(tmp_path / "ann"), f"--out={tmp_path / 'out'}", "--workers=0"]
    assert build.main(arguments) == 0
    manifest = records.read_manifest(tmp_path / "out")
    rejected = {r["take"]: r["reason"] for r in manifest.source["rejected"]}
    assert set(rejected) == {f"ann/{k}" for k in expected}
    said = capsys.readouterr().out
    for take, reason in expected.items():
        assert reason in rejected[f"ann/{take}"] and "\n" not in rejected[f"ann/{take}"]
        assert f"left out: ann/{take}: " in said
    assert list(clips(tmp_path / "out")) == ["ann/calm_01"]


def test_nothing_usable_is_bad_input_and_leaves_nothing(tmp_path, head, make_actor, capsys):
    make_actor(tmp_path / "ann", head, shots=1)
    (tmp_path / "ann/bs_data/bs_skin.npz").write_bytes(b"not an archive")
    out = tmp_path / "out"
    assert build.main([str(tmp_path / "ann"), f"--out={out}", "--workers=0"]) == 2
    error = capsys.readouterr().err
    assert error.count("\n") == 1 and "bs_skin.npz: is another kind of file" in error
    assert not out.exists()


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--config.sed=1"], "did you mean 'seed'"),
        (["--config.fps=fast"], "fps='fast': expected a value of type float"),
        (["--config.fps=-1"], "fps=-1.0: expected at least 0"),
        (["--config.offset=soon"], "offset='soon': expected auto or seconds"),
        (["--config.units=inch"], "expected one of: auto, mm, cm, m"),
        (["--config.val=0.6", "--config.test=0.5"], "something to train on"),
        (["--config.held_out=amn"], "no actor 'amn'; did you mean 'ann'"),
        (["--config.test_sentences=lime 1"], "did you mean 'line 1'"),
        (["--layout=nvida"], "did you mean 'nvidia'"),
        (["--workers=-2"], "--workers -2"),
        (["--colour"], "unexpected argument '--colour'"),
    ],
)
def test_wrong_settings_are_one_line(captures, tmp_path, capsys, arguments, message):
    out = tmp_path / "out"
    code = build.main([str(captures[0]), f"--out={out}", "--workers=0", *arguments])
    error = capsys.readouterr().err
    assert code == 2 and message in error and error.count("\n") == 1
    assert not out.exists()


def test_two_builds_do_not_write_one_set(captures, tmp_path):
    out = tmp_path / "out"
    (out / ".build").mkdir(parents=True)
    with (
        build_lock.hold(out / ".build") as held,
        pytest.raises(InputError, match="another build is writing"),
    ):
        assert held
        build.build(captures[0], out, workers=0)
    # A part beside a whole build, and a whole build beside a part; parts bear each other.
    with (
        build_lock.hold(out / ".build"),
        pytest.raises(InputError, match="another build is writing"),
    ):
        build.build(captures[0], out, workers=0, part=(1, 2))
    with build_lock.hold(out / ".build", shared=True):
        with pytest.raises(InputError, match="another build is writing"):
            build.build(captures[0], out, workers=0)
        build.build(captures[0], out, workers=0, part=(1, 9))


def test_a_build_that_comes_second_leaves_the_first_ones_work(captures, tmp_path, monkeypatch):
    # Both found no folder; this one gets the lock a moment later.
    out = tmp_path / "out"
    hold = build_lock.hold

    def late(work, **said):
        stack.enter_context(hold(work))
        (work / "digests" / "first").write_text("")
        return hold(work, **said)

    monkeypatch.setattr(build_lock, "hold", late)
    with contextlib.ExitStack() as stack:
        with pytest.raises(InputError, match="another build is writing"):
            build.build(captures[0], out, workers=0)
        assert (out / ".build/digests/first").exists()


def test_disks_without_locks_are_warned_of(captures, tmp_path, monkeypatch):
    def refuse(file, kind):
        raise OSError(errno.ENOLCK, "No locks available")

    monkeypatch.setattr(fcntl, "flock", refuse)
    lines = []
    build.build(
        captures[0] / "ann",
        tmp_path / "out",
        settings=BuildSettings(offset="0"),
        workers=0,
        log=lines.append,
    )
    assert any("no locks (No locks available)" in line for line in lines)
    assert records.read_manifest(tmp_path / "out").shards


@given(st.lists(st.one_of(st.just(0), st.integers(0, 10**12)), max_size=40), st.integers(1, 70))
def test_parts_cover_each_take_once_and_are_about_equal(sizes, count):
    entries = [take_list.TakeEntry(None, None, str(i), "", size) for i, size in enumerate(sizes)]
    shares = [take_list.array_element(entries, i + 1, count) for i in range(count)]
    assert [e for share in shares for e in share] == entries
    fair = sum(sizes) / count
    for share in shares:
        assert sum(e.size for e in share) <= fair + max(sizes, default=0) + 1


def test_long_takes_are_cut_in_pauses():
    rng = np.random.default_rng(0)
    audio = 0.1 * rng.normal(size=16_000 * 50 + 77)
    for pause in (7.0, 16.2, 33.3, 48.0):
        audio[int(pause * 16_000) : int((pause + 0.4) * 16_000)] *= 0.001
    cuts = clips_of.cut_points(audio, 1000)
    assert cuts[0][0] == 0 and cuts[-1][1] == num_frames(len(audio))
    assert all(a[1] == b[0] for a, b in zip(cuts, cuts[1:], strict=False))
    assert all(0 < b - a <= 1000 for a, b in cuts)
    assert 16.2 <= cuts[0][1] / 50 <= 16.6 and 33.3 <= cuts[1][1] / 50 <= 33.7
    assert clips_of.cut_points(np.zeros(16_000 * 20), 1000) == [(0, 1000)]
    short = clips_of.cut_points(np.zeros(16_000 * 20 + 1), 1000)
    assert len(short) == 2 and min(b - a for a, b in short) >= 200


def test_emotion_track_is_on_the_audio_clock(captures, tmp_path):
    folder = tmp_path / "ann"
    shutil.copytree(captures[0] / "ann", folder)
    listed = json.loads((folder / "shots.json").read_text())
    listed["shots"]["joy_00"] |= {
        "emotion_track": {
            "times": [0.5, 1.5],
            "weights": [[1, 0, 0, 0, 0], [0, 0, 0, 1, 0]],
        }
    }
    (folder / "shots.json").write_text(json.dumps(listed))
    build.build(folder, tmp_path / "out", workers=0)
    emotion = clips(tmp_path / "out")["ann/joy_00"].emotion
    np.testing.assert_allclose(emotion.sum(1), 1, atol=1e-6)
    np.testing.assert_allclose(emotion[50], [0.5, 0, 0, 0.5, 0], atol=1e-6)
    assert emotion[10, 0] == 1 and emotion[-1, 3] == 1


def test_curves_that_are_zero_everywhere_count_as_unobserved(tmp_path):
    rng = np.random.default_rng(0)
    names = np.array(["jawOpen", "mouthPucker", "eyeBlinkLeft"])
    t = np.arange(900) / 30
    for n, stem in enumerate(("a", "b")):
        values = np.zeros((900, 3))
        values[:, 0] = 0.3 + 0.2 * np.sin(7 * t)
        values[:, 1] = 0.2 * n  # moves in the second take only
        np.savez(tmp_path / f"{stem}.npz", motion=values, names=names, fps=30)
        soundfile.write(tmp_path / f"{stem}.wav", 0.05 * rng.normal(size=480_000), 16_000)
    said = {"subject": "mia", "offset": "0", "val_sentences": "b"}
    said |= {"least_snr_db": "0", "most_silence": "0"}  # the sound is noise
    settings = read_settings(said)
    manifest = build.build(tmp_path, tmp_path / "out", settings=settings, workers=0)
    found = clips(tmp_path / "out")
    assert set(found) == {"mia/a#0", "mia/a#1", "mia/b#0", "mia/b#1"}
    for clip in found.values():
        assert [rig.CHANNELS[i] for i in np.flatnonzero(clip.channel_mask)] == [
            "jawOpen",
            "mouthPucker",
        ]
        assert clip.frames <= 1000 and clip.subject == "mia"
    assert "eyeBlinkLeft" in manifest.source["unobserved_zero_channels"]
    assert {c.split for c in found.values() if c.sentence == "b"} == {"val"}
    joined = np.concatenate([found["mia/a#0"].motion, found["mia/a#1"].motion])[
        :, rig.INDEX["jawOpen"]
    ]
    at = np.arange(len(joined)) / 50
    np.testing.assert_allclose(joined[20:-20], (0.3 + 0.2 * np.sin(7 * at))[20:-20], atol=0.01)


def test_facegood_builds(shared, tmp_path):
    manifest = build.build(shared / "facegood_mandarin", tmp_path / "out", workers=0)
    assert sum(manifest.channel_mask) == 17 and not manifest.synthetic
    sentences = {c["sentence"] for s in manifest.shards for c in s.clips}
    assert len(sentences) == 5
    assert {s.id for s in manifest.subjects} == {"facegood_mandarin"}
