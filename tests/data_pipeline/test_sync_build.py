"""Takes out of step in a build, by an expert whose vectors are known."""

import dataclasses
import json
import sys
from pathlib import Path

import numpy as np
import pytest
import soundfile

from a2fjax import rig
from a2fjax.data import records
from a2fjax.errors import InputError, WorkFailed
from data_pipeline import build
from data_pipeline.quality.thresholds import Thresholds
from data_pipeline.settings import BuildSettings, read_settings
from data_pipeline.stages import sync_expert
from data_pipeline.timing import expert_offset

sys.path.insert(0, str(Path(__file__).parents[1] / "sync"))
from coded import SHOWN, Coded, curves, face, sound  # noqa: E402

LATE = {("ann", "a"): 0.08, ("ann", "b"): 0.08, ("ben", "a"): -0.14, ("cat", "a"): 0.0}
LATE |= {("cat", "b"): 0.12, ("dan", "a"): 0.26}
SEED = {key: n for n, key in enumerate(LATE)}
QUIET = ("ann", "hush")
FREE = {f.name: 0.0 for f in dataclasses.fields(Thresholds)}


@pytest.fixture(scope="module")
def captures(tmp_path_factory):
    """Ann's takes are late, one of them silent; Cat's differ; Dan's is late beyond the limit."""
    folder = tmp_path_factory.mktemp("captures")
    times = np.arange(480) / 60
    for person, take in [*LATE, QUIET]:
        (folder / person).mkdir(exist_ok=True)
        key, level = ((person, take), 0.05) if (person, take) != QUIET else (("ann", "a"), 3e-5)
        motion = face(times, SEED[key], LATE[key])[:, SHOWN]
        names = np.array([rig.CHANNELS[i] for i in SHOWN])
        np.savez(folder / person / f"{take}.npz", motion=motion, names=names, fps=60.0)
        wave = sound(8.0, SEED[key], level=level)
        soundfile.write(folder / person / f"{take}.wav", wave, 16_000, "FLOAT")
    return folder


@pytest.fixture
def expert(monkeypatch):
    """Puts the coded expert in the place of a run's; returns a function that names its weights."""
    weights = {"now": "one"}

    def check(job):
        problem = "failed the gate at step 7: a line" if job[2] else ""
        return sync_expert.SyncExpert(job[0], 7, weights["now"], not job[2], problem)

    monkeypatch.setattr(sync_expert, "_check", check)
    monkeypatch.setattr(sync_expert, "_load", lambda which: Coded())
    Coded.asked = 0
    return lambda name: weights.update(now=name)


def built(captures, out, **settings):
    lines = []
    # Lips and loudness say nothing here.
    silent = {"least_confidence": 2.0, "drift": "report"}
    settings = {**silent, "held_out_share": 0.0, **FREE, **settings}
    chosen = BuildSettings(**settings)
    manifest = build.build(captures, out, settings=chosen, workers=0, log=lines.append)
    return manifest, lines


def clips(out):
    from array_record.python.array_record_module import ArrayRecordReader

    found = {}
    for shard in records.read_manifest(out).shards:
        for record in ArrayRecordReader(str(out / shard.file)).read_all():
            clip = records.decode(record)
            found[clip.id] = clip
    return found


def error(clip, key):
    """Returns the error of a clip's motion against a face that is in step, in deviations."""
    expected = curves(np.arange(clip.frames) / 50, SEED[key])
    inner = clip.frame_mask & (np.arange(clip.frames) > 25) & (np.arange(clip.frames) < 370)
    return np.sqrt(np.mean(((clip.motion[:, SHOWN] - 0.5) / 0.1 - expected)[inner] ** 2))


def takes(out):
    return {t["take"]: t for t in json.loads((out / "quality.json").read_text())["takes"]}


def test_offsets_are_told_and_nothing_moves(captures, expert, tmp_path):
    manifest, lines = built(captures, tmp_path / "out", sync="runs/sync")
    built(captures, tmp_path / "plain")
    plain = clips(tmp_path / "plain")
    for name, clip in clips(tmp_path / "out").items():
        np.testing.assert_array_equal(clip.motion, plain[name].motion)
    said = takes(tmp_path / "out")
    for (person, take), late in LATE.items():
        sync = said[f"{person}/{take}"]["sync"]
        assert sync["seconds"] == pytest.approx(late, abs=0.004) and sync["moved"] == 0.0
        assert sync["low"] <= late <= sync["high"] and sync["confidence"] == 1.0
        assert 3 <= sync["votes"] <= 4
    quiet = said["ann/hush"]["sync"]
    assert quiet["seconds"] is None and quiet["votes"] is None
    facts = manifest.source["sync"]
    assert facts["takes"] == 7 and facts["judged"] == 6 and facts["out_of_step"] == 5
    assert facts["moved"] == 0 and facts["gate_passed"] and facts["weights"] == "one"
    assert facts["median_s"] == pytest.approx(0.1, abs=0.004)
    assert set(facts["takes_out_of_step"]) == {f"{p}/{t}" for (p, t), late in LATE.items() if late}
    (line,) = [line for line in lines if line.startswith("sync expert")]
    assert line == (
        f"sync expert runs/sync step 7: 6 of 7 takes have an offset, median "
        f"{1000 * facts['median_s']:.0f} ms; 5 out of step, 0 moved (sync_offset=report)"
    )
    page = (tmp_path / "out" / "quality.html").read_text()
    assert "sound late by" in page and "out of step with the motion" in page
    assert "sync" not in records.read_manifest(tmp_path / "plain").source
    assert "sync" not in takes(tmp_path / "plain")["ann/a"]


def test_fix_moves_a_recording_as_one_and_a_second_build_asks_nothing(captures, expert, tmp_path):
    out = tmp_path / "out"
    built(captures, out, sync="runs/sync")
    asked = Coded.asked
    manifest, lines = built(captures, out, sync="runs/sync", sync_offset="fix")
    assert Coded.asked == asked > 0
    found, said = clips(out), takes(out)
    for key in (("ann", "a"), ("ann", "b"), ("ben", "a")):
        clip = found["/".join(key)]
        assert error(clip, key) < 0.1
        assert clip.extra["offset_s"] == pytest.approx(LATE[key], abs=0.004)
        assert clip.extra["offset_method"] == "sync"
    assert found["ann/a"].extra["offset_s"] == found["ann/hush"].extra["offset_s"]
    # Cat's takes contradict each other, and Dan's offset is beyond the limit.
    for name in ("cat/a", "cat/b", "dan/a"):
        assert found[name].extra["offset_s"] == 0.0 and said[name]["sync"]["moved"] == 0.0
    assert said["dan/a"]["sync"]["why"] == "beyond 200 ms (sync_largest)"
    assert manifest.source["sync"]["moved"] == 4
    assert any("dan/a" in line and "beyond 200 ms" in line for line in lines)
    # Each by itself, within a larger limit.
    built(captures, out, sync="runs/sync", sync_offset="fix", sync_largest=0.3, clock="take")
    found = clips(out)
    for key in LATE:
        assert error(found["/".join(key)], key) < 0.1
    assert found["ann/hush"].extra["offset_s"] == 0.0  # It has no offset of its own.


def test_a_given_offset_is_not_moved(captures, expert, tmp_path, monkeypatch):
    decide, asked = expert_offset.decide, []
    monkeypatch.setattr(expert_offset, "decide", lambda *a: asked.append(a) or decide(*a))
    _, lines = built(captures, tmp_path / "o", sync="r", sync_offset="fix", offset="0.0")
    assert {c.extra["offset_s"] for c in clips(tmp_path / "o").values()} == {0.0}
    assert any("ann/a" in line and "the given offset decides" in line for line in lines)
    assert len(asked) == len([*LATE, QUIET])  # once a take


def test_another_expert_is_asked_again_and_off_asks_none(captures, expert, tmp_path):
    out = tmp_path / "out"
    built(captures, out, sync="runs/sync")
    asked = Coded.asked
    assert "up to date" in " ".join(built(captures, out, sync="runs/sync")[1])
    expert("two")
    manifest, _ = built(captures, out, sync="runs/sync")
    assert Coded.asked == 2 * asked and manifest.source["sync"]["weights"] == "two"
    assert len(list((out / ".build" / "offsets").iterdir())) == 7
    manifest, _ = built(captures, out, sync="runs/sync", sync_offset="off")
    assert "sync" not in manifest.source and Coded.asked == 2 * asked
    assert not list((out / ".build" / "offsets").iterdir())


def test_a_killed_build_goes_on(captures, expert, tmp_path, monkeypatch):
    class Killed(BaseException):
        pass

    class Dies(Coded):
        def embed(self, batch, statistics):
            if Coded.asked == 3:
                raise Killed
            return super().embed(batch, statistics)

    monkeypatch.setattr(sync_expert, "_load", lambda which: Dies())
    with pytest.raises(Killed):
        built(captures, tmp_path / "out", sync="r")
    monkeypatch.setattr(sync_expert, "_load", lambda which: Coded())
    built(captures, tmp_path / "out", sync="r")
    assert Coded.asked == 6  # once a take: the silent one has no window to be asked about
    (vote, *_) = (tmp_path / "out" / ".build" / "offsets").iterdir()
    vote.write_bytes(vote.read_bytes()[:99])
    with pytest.raises(WorkFailed, match="was damaged .* run it again"):
        built(captures, tmp_path / "out", sync="r", sync_offset="fix")
    assert not vote.exists()
    built(captures, tmp_path / "out", sync="r", sync_offset="fix")


def test_an_unchecked_expert_is_recorded(captures, expert, tmp_path):
    manifest, lines = built(captures, tmp_path / "out", sync="runs/sync", sync_unchecked=True)
    assert manifest.source["sync"]["gate_passed"] is False
    assert manifest.source["settings"]["sync_unchecked"] is True
    (line,) = (x for x in lines if x.startswith("warning: runs/sync: has not passed the gate"))
    assert line.endswith("not to be relied on: failed the gate at step 7: a line")
    assert any("step 7, which has not passed its gate: 6 of 7" in line for line in lines)


@pytest.mark.parametrize(
    ("values", "problem"),
    [
        ({"sync_search": "0.2"}, "sync_search=0.2: expected more than sync_largest=0.2"),
        ({"sync_search": "1.5"}, "at most 1 s"),
        ({"sync_offset": "fixed"}, "expected one of: report, fix, off"),
        ({"sync_confidence": "2"}, "sync_confidence=2: expected from 0 to 1"),
        ({"sync_largest": "0"}, "sync_largest=0.0: expected more than 0"),
        ({"snyc": "runs/sync"}, "snyc"),
    ],
)
def test_wrong_settings_are_one_line(values, problem):
    with pytest.raises(InputError) as refused:
        read_settings(values)
    assert problem in str(refused.value) and "\n" not in str(refused.value)


def test_what_is_no_expert_is_refused_before_anything_is_written(
    captures, tmp_path, capsys, monkeypatch
):
    def refused(run, *more):
        out = tmp_path / "shards"
        command = [str(captures), "--out", str(out), "--workers", "0", f"--config.sync={run}"]
        assert build.main([*command, *more]) == 2
        assert not out.exists()
        return capsys.readouterr().err.strip()

    monkeypatch.chdir(tmp_path)
    assert refused("nowhere").endswith(
        "sync expert nowhere does not exist; expected a run of experiments/syncnet.py"
    )
    (tmp_path / "empty").mkdir()
    assert "empty is not a run folder (no config.json)" in refused("empty")
    from a2fjax.training import sync_experts

    def load(run, step):
        if run.endswith("other"):
            raise InputError(f"checkpoint {run}: made for rig 1 by the gate, this version has 2")
        return sync_experts.LoadedExpert(None, None, 4, "ab", passed=False)

    def check(run, step, weights):
        raise InputError(f"sync expert {run}: failed at step {step}: a line")

    monkeypatch.setattr(sync_experts, "load", load)
    monkeypatch.setattr(sync_experts.verdict, "check", check)
    line = refused("runs/sync")
    assert line.endswith(
        "sync expert runs/sync: failed at step 4: a line; or take it unchecked: "
        "--config.sync_unchecked=true"
    )
    line = refused("runs/other")
    assert "made for rig 1" in line and line.endswith("this version has 2")
    assert sync_expert._check(("/x/runs/sync", "runs/sync", True)).problem == (
        "sync expert runs/sync: failed at step 4: a line"
    )
