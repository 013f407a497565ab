"""The first stage: what is kept under which name, what is left out, and meshes with a tongue."""

import json
import os

import numpy as np
import pytest
import soundfile

from a2fjax import rig
from a2fjax.data import records
from a2fjax.errors import WorkFailed
from data_pipeline import build
from data_pipeline.settings import BuildSettings, read_settings
from data_pipeline.solver.exclusive import EXCLUSIVE_PAIRS
from data_pipeline.sources import open_source
from data_pipeline.sources.tables import TableSource
from data_pipeline.stages import solve_take

TONGUE = [c for c in rig.CHANNELS if c.startswith("tongue") and c != "tongueOut"]


class Broken(TableSource):
    """Tables, and a defect in reading those of some names."""

    problems: dict[str, Exception] = {}

    def capture(self, take):
        if take.name in self.problems:
            raise self.problems[take.name]
        return super().capture(take)


@pytest.fixture
def broken(monkeypatch, tmp_path, make_talk):
    """Three takes, and the class whose `problems` say which cannot be read."""
    for seed, name in enumerate("abc"):
        make_talk(tmp_path / "ann", name, seed=seed, seconds=3.0)

    def opened(path, layout, options):
        return Broken(path, options), "as the test says"

    monkeypatch.setattr(build, "open_source", opened)
    monkeypatch.setattr(Broken, "problems", {})
    return Broken


def run(tmp_path, *more):
    return build.main([str(tmp_path / "ann"), f"--out={tmp_path / 'out'}", "--workers=0", *more])


def used(out):
    return sorted(c["id"] for s in records.read_manifest(out).shards for c in s.clips)


def test_a_defect_leaves_out_one_take_and_is_tried_again(broken, tmp_path, capsys):
    broken.problems = {"b": ValueError("first line\nsecond line"), "c": RecursionError()}
    assert run(tmp_path) == 0
    said = capsys.readouterr()
    assert (
        "left out: ann/b: unexpected ValueError: first line (a defect of this program" in said.out
    )
    assert said.err == "" and used(tmp_path / "out") == ["ann/a"]
    rejected = {
        r["take"]: r["reason"] for r in records.read_manifest(tmp_path / "out").source["rejected"]
    }
    assert "unexpected RecursionError (a defect" in rejected["ann/c"]
    assert all("\n" not in reason for reason in rejected.values())
    broken.problems = {}
    assert run(tmp_path) == 0
    assert "1 of 3 takes are done already" in capsys.readouterr().out
    assert used(tmp_path / "out") == ["ann/a", "ann/b", "ann/c"]


def test_parts_that_left_takes_out_can_be_finished(broken, tmp_path, capsys):
    broken.problems = {"b": KeyError("boom")}
    (tmp_path / "ann/c.npz").write_bytes(b"not an archive")
    for i in (1, 2):
        assert run(tmp_path, f"--part={i}/2") == 0
    assert run(tmp_path, "--finish") == 0
    assert "unexpected KeyError: 'boom'" in capsys.readouterr().out
    assert used(tmp_path / "out") == ["ann/a"]
    broken.problems = {}
    assert run(tmp_path, "--part=1/1") == 0 and run(tmp_path, "--finish") == 0
    assert used(tmp_path / "out") == ["ann/a", "ann/b"]


def test_a_file_that_may_not_be_read_is_the_takes_a_failing_disk_is_not(broken, tmp_path, capsys):
    broken.problems = {"b": PermissionError(13, "Permission denied", "b.npz")}
    assert run(tmp_path) == 0
    assert "left out: ann/b: b.npz: Permission denied" in capsys.readouterr().out
    broken.problems = {"b": OSError(5, "Input/output error", "b.npz")}
    assert run(tmp_path) == 1
    error = capsys.readouterr().err
    assert "Input/output error" in error and error.count("\n") == 1
    broken.problems = {"b": WorkFailed("out: could not be written (No space left on device)")}
    assert run(tmp_path) == 1
    assert "No space left" in capsys.readouterr().err
    # What was left out may be there the next time.
    broken.problems = {}
    assert run(tmp_path) == 0 and used(tmp_path / "out") == ["ann/a", "ann/b", "ann/c"]


class Deadly(TableSource):
    """Tables of which one ends the process that reads it, as a crash in a library does."""

    def capture(self, take):
        if take.name == "b":
            os._exit(9)
        return super().capture(take)


@pytest.mark.slow
def test_a_take_that_kills_its_process_fails_the_build_after_the_others(
    tmp_path, make_talk, monkeypatch, capsys
):
    for seed, name in enumerate("abc"):
        make_talk(tmp_path / "ann", name, seed=seed, seconds=3.0)

    def opened(path, layout, options):
        return Deadly(path, options), "as the test says"

    monkeypatch.setattr(build, "open_source", opened)
    assert run(tmp_path, "--workers=2") == 1
    error = capsys.readouterr().err
    assert "1 of 3 takes failed, the others are solved; first ann/b: its process died" in error
    assert error.count("\n") == 1 and len(marks(tmp_path / "out")) == 2


def marks(out):
    return {p.stem: p.stat().st_mtime_ns for p in (out / ".build/takes").glob("*.npz")}


def test_work_is_named_after_content_alone(tmp_path, make_talk):
    for seed, name in enumerate("abc"):
        make_talk(tmp_path / "in/ann", name, seed=seed, seconds=3.0)
    out = tmp_path / "out"

    def made(folder, **said):
        build.build(folder, out, "table", read_settings({"least_snr_db": "0", **said}), workers=0)
        return marks(out)

    first = made(tmp_path / "in")
    assert len(first) == 3
    clips = {p.name for p in (out / ".build/clips").iterdir()}
    # Other times, another place, another spelling of the place.
    for file in (tmp_path / "in/ann").iterdir():
        os.utime(file, ns=(1, 1))
    assert made(tmp_path / "in") == first
    (tmp_path / "in").rename(tmp_path / "moved")
    assert made(tmp_path / "moved") == first
    assert made(tmp_path / "moved" / ".." / "moved") == first
    assert {p.name for p in (out / ".build/clips").iterdir()} == clips
    # Thresholds, splits, clocks and words need no solving.
    assert made(tmp_path / "moved", most_jumps="0.5", seed="3", offset="0.02") == first
    assert made(tmp_path / "moved", language="de", emotion="happy=1") == first
    # How files are read, and the solver, do.
    assert not made(tmp_path / "moved", l1="0.3").keys() & first.keys()
    second = made(tmp_path / "moved")
    assert second.keys() == first.keys()
    # One sound that changed, by a byte and at the same time, is one take.
    path = tmp_path / "moved/ann/b.wav"
    audio, rate = soundfile.read(path)
    soundfile.write(path, audio * 0.9, rate)
    third = made(tmp_path / "moved")
    assert len(third.items() & second.items()) == 2 and len(third) == 3


def test_permissions_count_as_a_change(tmp_path, make_talk):
    make_talk(tmp_path / "ann", "a", seconds=3.0)

    def last_line(mode):
        lines = []
        (tmp_path / "ann/a.npz").chmod(mode)
        build.build(tmp_path / "ann", tmp_path / "out", workers=0, log=lines.append)
        return lines[1]

    last_line(0o644)
    assert last_line(0o644).endswith("is up to date")
    # Nothing is done again but looking at the file's bytes.
    assert last_line(0o600) == "1 of 1 takes are done already"


def with_tongue(folder, head, make_actor, hidden=0.0):
    """An actor with a tongue of 40 vertices and four shapes; returns its weights by shot."""
    make_actor(folder, head, offset=0.0, fps=50.0)
    rng = np.random.default_rng(5)
    neutral = rng.normal(size=(40, 3)) * [1.5, 0.5, 2.5]
    names = ["tongueTipUp", "tongueTipDown", "tongueIn", "tongueTipLeft"]
    assert set(names) <= set(TONGUE)
    deltas = rng.normal(size=(4, 40, 3)) * 0.3
    deltas[:, :15] = 0.0  # its root
    np.savez(
        folder / "bs_data/bs_tongue.npz",
        poseNames=np.array(["neutral", *names]),
        neutral=neutral.astype(np.float32),
        **{n: d.astype(np.float32) for n, d in zip(names, deltas, strict=True)},
    )
    (folder / "geom/tongue").mkdir(parents=True)
    np.save(folder / "geom/tongue/neutral_pose.npy", neutral.astype(np.float32))
    (folder / "geom/tongue/rigid_vertex_list.json").write_text(json.dumps(list(range(15))))
    truth = {}
    for shot in ("slate", "joy_00", "calm_01"):
        frames = len(np.load(folder / f"cache/skin/{shot}/{shot}.npy"))
        at = np.arange(frames)[:, None] / 50
        weights = np.clip(np.sin(at * [2.0, 3.0, 4.0, 5.0] + [0, 1, 2, 3]) * 0.6, 0, 1)
        weights[:, 1] *= weights[:, 0] == 0
        moved = (neutral + np.einsum("fk,kvi->fvi", weights, deltas)).astype(np.float32)
        moved[: int(hidden * frames)] = np.nan
        (folder / "cache/tongue" / shot).mkdir(parents=True)
        np.save(folder / f"cache/tongue/{shot}/{shot}.npy", moved)
        truth[shot] = weights
    return names, truth


def solved(folder, tmp_path, name, **said):
    settings = read_settings(said)
    source, _ = open_source(folder, "auto", settings.source_options())
    work = tmp_path / "work"
    for each in ("digests", "takes"):
        (work / each).mkdir(parents=True, exist_ok=True)
    (actor,) = source.actors()
    (take,) = [t for t in actor.takes if t.name == name]
    done = solve_take.run_job(solve_take.Job(source, take, settings, work, "stamp" + name, "actor"))
    assert not done.failed, done.failed
    return solve_take.SolvedTake.load(work / "takes" / f"{done.key}.npz")


def test_a_tongue_is_solved_beside_the_face(tmp_path, head, make_actor):
    names, truth = with_tongue(tmp_path / "ann", head, make_actor)
    found = solved(tmp_path / "ann", tmp_path, "joy_00", l1="0", l2="0.001", smoothness="0.01")
    columns = [rig.INDEX[n] for n in names]
    assert found.observed[columns].all() and found.observed[:52].all()
    error = found.curves[:, columns] - truth["joy_00"]
    assert np.sqrt((error**2).mean()) <= 0.02
    assert not found.facts["warnings"] and len(found.residual) == len(found.times)


@pytest.mark.parametrize(("hidden", "kept"), [(0.2, 0.8), (0.7, 1.0), (1.0, 1.0)])
def test_a_hidden_tongue_costs_its_frames_or_is_not_observed(
    tmp_path, head, make_actor, hidden, kept
):
    names, _ = with_tongue(tmp_path / "ann", head, make_actor, hidden)
    found = solved(tmp_path / "ann", tmp_path, "calm_01")
    columns = [rig.INDEX[n] for n in names]
    assert len(found.times) / found.facts["frames"] == pytest.approx(kept, abs=0.01)
    seen = hidden < 0.5
    assert found.observed[columns].all() == seen and found.observed[columns].any() == seen
    assert any("not observed" in w for w in found.facts["warnings"]) != seen


def test_opposite_shapes_are_not_both_on(tmp_path, head, make_actor):
    make_actor(tmp_path / "ann", head, fps=50.0)
    path = tmp_path / "ann/cache/skin/joy_00/joy_00.npy"
    pairs = [(rig.INDEX[a], rig.INDEX[b]) for a, b in EXCLUSIVE_PAIRS if rig.INDEX[b] < 52]
    weights = np.zeros((60, 52))
    for a, b in pairs:  # a shape and its opposite, as no face does it
        weights[:, a], weights[:, b] = 0.5, 0.4
    moved = head.neutral + np.einsum("fk,kvi->fvi", weights, head.deltas)
    np.save(path, moved.astype(np.float32))
    archive = tmp_path / "ann/xform/eye_rotations_all.npz"
    archive.unlink()
    found = {}
    for exclusive in ("true", "false"):
        found[exclusive] = solved(tmp_path / "ann", tmp_path, "joy_00", exclusive=exclusive).curves
    for a, b in pairs:
        assert (np.minimum(found["true"][:, a], found["true"][:, b]) == 0).all()
        assert (np.minimum(found["false"][:, a], found["false"][:, b]) > 0.2).all()


def test_frames_that_dropped_out_are_left_out(tmp_path, head, make_actor):
    make_actor(tmp_path / "ann", head, fps=50.0)
    path = tmp_path / "ann/cache/skin/joy_00/joy_00.npy"
    moved = np.load(path)
    frames = len(moved)
    moved[30:40] = np.nan
    moved[50, :300] = np.nan  # two thirds of the mesh
    moved[60, ::10] = np.nan
    np.save(path, moved)
    found = solved(tmp_path / "ann", tmp_path, "joy_00")
    gone = [*range(30, 40), 50]
    np.testing.assert_allclose(found.times, np.delete(np.arange(frames), gone) / 50, atol=1e-6)
    assert found.facts["lost"] == 11 and found.facts["motion"]["missing"] == pytest.approx(
        11 / frames, abs=1e-4
    )


def test_copies_of_shapes_do_not_matter_the_shapes_do(tmp_path, head, make_actor):
    make_actor(tmp_path / "in/ann", head, fps=50.0)
    settings = BuildSettings(offset="0")
    build.build(tmp_path / "in", tmp_path / "out", settings=settings, workers=0)
    first = marks(tmp_path / "out")
    path = tmp_path / "in/ann/bs_data/bs_skin.npz"
    with np.load(path) as data:
        held = {k: data[k] for k in data.files}
    np.savez_compressed(path, **held)
    build.build(tmp_path / "in", tmp_path / "out", settings=settings, workers=0)
    assert marks(tmp_path / "out") == first
    held["jawOpen"] = held["jawOpen"] * 1.01
    np.savez(path, **held)
    build.build(tmp_path / "in", tmp_path / "out", settings=settings, workers=0)
    assert len(marks(tmp_path / "out")) == 3 and not marks(tmp_path / "out").keys() & first.keys()
