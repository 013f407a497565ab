import collections
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

from a2fjax import rig
from a2fjax.audio import SAMPLE_RATE, num_frames
from a2fjax.data import records
from a2fjax.errors import InputError
from data_pipeline.demo import check, expressions, scans, sentence_list, takes
from data_pipeline.demo import head as heads
from data_pipeline.demo.__main__ import generate, main
from data_pipeline.stages import splits

ROOT = Path(__file__).resolve().parents[2]
SIZE = dict(subjects=2, unseen=1, minutes=0.3)


@pytest.fixture(scope="module")
def corpus(tmp_path_factory):
    pytest.importorskip("espeakng_loader", reason="the demo extra is not installed")
    out = tmp_path_factory.mktemp("demo")
    generate(out, **SIZE)
    return out


def shots(folder):
    return json.loads((folder / "shots.json").read_text())["shots"]


def truth_of(corpus, person, shot):
    with np.load(corpus / "truth" / person / f"{shot}.npz") as data:
        return {name: data[name] for name in data.files}


def test_the_layout_is_whole_and_its_parts_fit(corpus):
    people = sorted(p.name for p in (corpus / "captures").iterdir())
    assert people == ["demo000", "demo001", "demo002"]
    for person in people:
        folder = corpus / "captures" / person
        index = json.loads((folder / "shots.json").read_text())
        assert (index["fps"], index["units"], index["synthetic"]) == (60, "cm", True)
        assert "slate" in index["shots"] and len(index["shots"]) >= 2
        neutral = np.load(folder / "geom/skin/neutral_pose.npy")
        faces = np.load(folder / "geom/skin/faces.npy")
        assert faces.max() < len(neutral) and faces.dtype == np.int32
        tongue = np.load(folder / "geom/tongue/neutral_pose.npy")
        rigid = json.loads((folder / "geom/tongue/rigid_vertex_list.json").read_text())
        assert len(rigid) >= 4 and max(rigid) < len(tongue)
        eyes = np.load(folder / "xform/eye_rotations_all.npz")
        for name, names, mesh in (("skin", rig.ARKIT, neutral), ("tongue", rig.TONGUE, tongue)):
            poses = np.load(folder / f"bs_data/bs_{name}.npz")
            assert list(poses["poseNames"]) == ["neutral", *names]
            assert all(poses[n].shape == mesh.shape for n in poses["poseNames"])
            np.testing.assert_array_equal(poses["neutral"], mesh)
        for shot in index["shots"]:
            info = soundfile.info(folder / "audio" / f"{shot}.wav")
            assert (info.samplerate, info.channels) == (22_050, 1)
            frames = int(info.duration * 60 + 1e-6)
            skin = np.load(folder / f"cache/skin/{shot}/{shot}.npy")
            assert skin.shape == (frames, *neutral.shape) and skin.dtype == np.float32
            assert np.load(folder / f"cache/tongue/{shot}/{shot}.npy").shape[0] == frames
            assert eyes[shot].shape == (frames, 2, 2)
            truth = truth_of(corpus, person, shot)
            samples = round(info.frames * SAMPLE_RATE / info.samplerate)
            assert truth["motion"].shape == (num_frames(samples), rig.NUM_CHANNELS)
            assert (truth["motion"] >= rig.MIN).all() and (truth["motion"] <= rig.MAX).all()
            np.testing.assert_allclose(truth["emotion"].sum(axis=1), 1.0, atol=1e-6)


def test_scans_are_the_truth_moved_by_the_offset(corpus):
    person = takes.draw_people(2, 1, 0.3, 0)[1]
    folder = corpus / "captures" / person.name
    shot = next(s for s in shots(folder) if s != "slate")
    skin = np.load(folder / f"cache/skin/{shot}/{shot}.npy").astype(float)
    head = heads.make_head(person.shape)
    shapes = expressions.skin_shapes(head)
    still = np.flatnonzero(heads.make_layout().of("skull"))
    truth = truth_of(corpus, person.name, shot)
    assert abs(float(truth["offset"])) <= 0.12 and float(truth["offset"]) == person.offset
    frames = np.arange(10, len(skin) - 10, 7)
    times = frames / 60 + person.offset
    fifty = np.arange(len(truth["motion"])) / rig.FPS
    inverse = np.linalg.pinv(shapes.reshape(52, -1).T)
    errors = []
    for frame, t in zip(frames, times, strict=True):
        # Kabsch on the skull, as it never moves.
        a, b = head.vertices[still], skin[frame][still]
        u, _, vt = np.linalg.svd((b - b.mean(0)).T @ (a - a.mean(0)))
        fix = np.diag([1, 1, np.sign(np.linalg.det(u @ vt))])
        steady = (skin[frame] - b.mean(0)) @ (u @ fix @ vt) + a.mean(0)
        weights = inverse @ (steady - head.vertices).ravel()
        want = [np.interp(t, fifty, truth["motion"][:, c]) for c in range(52)]
        errors.append(weights - want)
    assert np.sqrt(np.mean(np.square(errors))) < 0.02


def test_unseen_people_say_only_what_training_does_not(corpus):
    held_out = {}
    for folder in (corpus / "captures").iterdir():
        for name, shot in shots(folder).items():
            if name != "slate":
                held_out.setdefault(folder.name, set()).add(shot["held_out"])
                if shot["held_out"]:
                    assert splits.sentence_split(shot["sentence"]) != "train"
    assert held_out == {"demo000": {False}, "demo001": {False}, "demo002": {True}}


def test_sixty_people_cover_every_emotion_blend_and_language():
    everybody = takes.draw_people(60, 4, 14.0, 0)
    names, kinds = set(), set()
    for person in everybody:
        names.add(person.language)
        for index in range(3):
            rng = takes.make_rng("take", 0, person.name, index)
            knots, weights, name = takes._emotions(index + takes._first_emotion(person), rng, 1.0)
            kinds.add(name)
            np.testing.assert_allclose(weights.sum(axis=1), 1.0)
            assert len(knots) == len(weights) and (weights >= 0).all()
    assert kinds == {*rig.EMOTIONS, "blend", "track"}
    assert names == {"en", "es", "de", "fr", "it"}
    assert [p.held_out for p in everybody] == [False] * 60 + [True] * 4
    assert len({p.offset for p in everybody}) == 64
    shapes = np.array([p.shape for p in everybody])
    # A Latin hypercube: of each parameter one value in each of 64 cells.
    assert (np.sort(np.floor((shapes + 1) * 32), axis=0) == np.arange(64)[:, None]).all()
    # Every unseen person has things to say in their language that training does not.
    assert all(len(takes.sentences_for(p)) >= 4 for p in everybody)


def test_people_share_their_sentences_out_evenly():
    everybody = takes.draw_people(64, 4, 20.0, 0)
    for language, held_out in {(p.language, p.held_out) for p in everybody}:
        group = [p for p in everybody if (p.language, p.held_out) == (language, held_out)]
        lists = [[s.key for s in takes.sentences_for(p)] for p in group]
        own = [s.key for s in sentence_list.sentences_in(language)]
        if held_out:
            own = [key for key in own if splits.sentence_split(key) != "train"]
        assert all(sorted(keys) == sorted(own) for keys in lists)
        # As many takes each as there are sentences for, then twice as many.
        share = len(own) // len(group)
        said = collections.Counter(key for keys in lists for key in keys[:share])
        assert len(said) == share * len(group)
        said = collections.Counter(key for keys in lists for key in keys[: 2 * share + 2])
        assert set(said) == set(own) and max(said.values()) - min(said.values()) <= 2
    other = takes.draw_people(64, 4, 20.0, 1)[0]
    assert takes.sentences_for(other) != takes.sentences_for(everybody[0])


def test_the_same_seed_gives_the_same_truth_and_another_seed_another(corpus, tmp_path):
    generate(tmp_path / "again", **SIZE)
    for path in sorted((corpus / "truth").rglob("*.npz")):
        with np.load(path) as one, np.load(tmp_path / "again" / path.relative_to(corpus)) as two:
            assert str(one["phones"]) == str(two["phones"])
            np.testing.assert_array_equal(one["motion"], two["motion"])
    generate(tmp_path / "other", **{**SIZE, "subjects": 1, "unseen": 0}, seed=1)
    other = takes.draw_people(1, 0, 0.3, 1)[0]
    assert not np.allclose(other.shape, takes.draw_people(1, 0, 0.3, 0)[0].shape)
    assert list((tmp_path / "other" / "truth" / "demo000").glob("*.npz"))


def test_what_is_done_is_used_again_and_what_is_missing_is_made(corpus, tmp_path, capsys):
    out = tmp_path / "copy"
    shutil.copytree(corpus, out)
    stamps = {p.name: p.stat().st_mtime_ns for p in (out / "captures").iterdir()}
    shutil.rmtree(out / "captures" / "demo001")
    (out / "captures" / ".demo001.partial" / "audio").mkdir(parents=True)
    (out / "captures" / "mine").mkdir()
    generate(out, **SIZE)
    text = capsys.readouterr().out
    assert "2 of 3 people exist already" in text and "phones without a target: 0" in text
    made = {p.name for p in (out / "captures").iterdir()}
    assert made == {"demo000", "demo001", "demo002", "mine"}
    for name in ("demo000", "demo002"):
        assert (out / "captures" / name).stat().st_mtime_ns == stamps[name]
    generate(out, **{**SIZE, "unseen": 0})
    made = {p.name for p in (out / "captures").iterdir()}
    assert made == {"demo000", "demo001", "mine"}, "surplus people go, others' folders stay"
    assert not (out / "truth" / "demo002").exists()


def test_a_killed_run_leaves_whole_people_only_and_continues(tmp_path):
    pytest.importorskip("espeakng_loader", reason="the demo extra is not installed")
    out = tmp_path / "demo"
    command = [sys.executable, "-m", "data_pipeline.demo", f"--out={out}", "--subjects=6"]
    command += ["--unseen=0", "--minutes=1.2", "--workers=1"]
    process = subprocess.Popen(command, cwd=ROOT, start_new_session=True)
    for _ in range(600):
        if (out / "captures" / "demo000").is_dir() or process.poll() is not None:
            break
        time.sleep(0.05)
    os.killpg(process.pid, signal.SIGKILL)
    process.wait()
    whole = sorted(p.name for p in (out / "captures").iterdir() if not p.name.startswith("."))
    assert whole and len(whole) < 6
    for name in whole:
        assert (out / "captures" / name / "xform" / "eye_rotations_all.npz").is_file()
        assert list((out / "truth" / name).glob("slate.npz"))
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True)
    assert f"{len(whole)} of 6 people exist already" in done.stdout
    assert len(list((out / "captures").iterdir())) == 6


@pytest.mark.parametrize(
    ("option", "message"),
    [
        ("--subjects=0", "--subjects 0: expected at least 1"),
        ("--unseen=-1", "--unseen -1: expected at least 0"),
        ("--minutes=0", "--minutes 0: expected more than 0"),
        ("--minutes=nan", "--minutes nan"),
        ("--workers=0", "--workers 0: expected at least 1"),
    ],
)
def test_sizes_without_sense_are_one_line(option, message, tmp_path, capsys):
    assert main([f"--out={tmp_path / 'x'}", option]) == 2
    error = capsys.readouterr().err
    assert message in error and error.count("\n") == 1
    assert not (tmp_path / "x").exists()


def test_out_that_is_a_file_is_one_line(tmp_path, capsys):
    path = tmp_path / "file"
    path.write_text("x")
    assert main([f"--out={path}"]) == 2
    assert "is a file; expected a folder" in capsys.readouterr().err


def shard(corpus, folder, change):
    """Shards straight from the truth, each clip's motion changed by `change`."""
    from array_record.python.array_record_module import ArrayRecordWriter

    index, subjects = [], []
    folder.mkdir()
    writer = ArrayRecordWriter(str(folder / "clips-0.arrayrecord"), "group_size:1")
    for person in sorted((corpus / "truth").iterdir()):
        subjects.append(records.Subject(person.name, None, False))
        for path in sorted(person.glob("*.npz")):
            if path.stem == "slate":
                continue
            truth = truth_of(corpus, person.name, path.stem)
            frames = len(truth["motion"])
            clip = records.Clip(
                id=f"{person.name}/{path.stem}", subject=person.name, sentence="s", language="en",
                split="train", audio=np.zeros(frames * 320, np.float32),
                motion=change(truth["motion"]), channel_mask=np.ones(72, bool),
                frame_mask=np.ones(frames, bool), emotion=truth["emotion"].astype(np.float32),
                speech_level=0.1, synthetic=True,
                extra={"offset_s": float(truth["offset"]) + 0.002},
            )  # fmt: skip
            writer.write(records.encode(clip))
            names = {name: getattr(clip, name) for name in ("id", "subject", "sentence", "split")}
            index.append({**names, "frames": frames, "emotion": "neutral"})
    writer.close()
    mask = [True] * 72
    records.write_manifest(
        folder,
        records.Manifest(
            subjects, [records.Shard("clips-0.arrayrecord", index)], mask, {}, True, {}
        ),
    )


def test_check_finds_the_errors_that_were_put_in(corpus, tmp_path, capsys):
    def change(motion):
        motion = motion.copy()
        motion[:, rig.INDEX["mouthRollUpper"]] += 0.05
        motion[:, rig.INDEX["leftEyeRotY"]] += 2.0
        return motion

    shard(corpus, tmp_path / "shards", change)
    found = check.compare(corpus / "captures", tmp_path / "shards")
    assert [c.subject for c in found] == ["demo000", "demo001", "demo002"]
    for c in found:
        assert c.rmse == pytest.approx(0.05 / np.sqrt(68), rel=1e-3)
        assert c.groups["jaw_mouth"] == pytest.approx(0.05 / np.sqrt(27), rel=1e-3)
        assert c.groups["tongue"] == pytest.approx(0.0, abs=1e-6)
        assert c.worst[0] == "mouthRollUpper" and c.worst[1] == pytest.approx(0.05, rel=1e-3)
        assert c.eyes == pytest.approx(1.0, rel=1e-3)
        assert c.offset_ms == pytest.approx(2.0, abs=1e-3)
        assert c.aperture == pytest.approx(0.0, abs=1e-6)
    report = tmp_path / "report.json"
    arguments = [str(corpus / "captures"), f"--shards={tmp_path / 'shards'}", f"--json={report}"]
    assert check.main(arguments) == 0
    assert "mouthRollUpper 0.0500" in capsys.readouterr().out
    assert len(json.loads(report.read_text())) == 3
    with pytest.raises(InputError, match="does not exist"):
        check.compare(tmp_path / "nowhere", tmp_path / "shards")


def test_room_noise_falls_with_frequency_and_pauses_are_rarely_digital_silence(corpus):
    rng = np.random.default_rng(0)
    noise = takes.room_noise(22_050, rng)
    power = np.abs(np.fft.rfft(noise)) ** 2
    assert np.mean(power[40:400]) > 10 * np.mean(power[4000:])
    assert np.sqrt(np.mean(noise**2)) == pytest.approx(1.0, rel=1e-5)
    silent = []
    for path in sorted((corpus / "captures").rglob("*.wav")):
        audio, rate = soundfile.read(path)
        lead = audio[: int(0.2 * rate)]
        assert np.sqrt(np.mean(lead**2)) < 0.02 * np.abs(audio).max()
        silent.append(not lead.any())
    assert np.mean(silent) < 0.5


def test_scan_noise_is_as_stated():
    person = takes.draw_people(3, 0, 1.0, 0)[0]
    actor = scans.Actor.of(person)
    slate = takes.record_slate(person)
    scan = scans.scan(actor, slate, 60)
    still = scan.skin[:, heads.make_layout().of("skull")]
    # Second differences of slow motion are noise: sqrt(6) times its size.
    measured = np.diff(still, n=2, axis=0).std() / np.sqrt(6)
    assert measured == pytest.approx(scans.NOISE, rel=0.05)
