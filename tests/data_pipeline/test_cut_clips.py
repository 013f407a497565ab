"""Clocks through a whole build of tables: silence, offsets, drift, and what a clip holds."""

import dataclasses

import numpy as np
import pytest
from array_record.python import array_record_module

from a2fjax import rig
from a2fjax.data import records
from data_pipeline import build
from data_pipeline.execution import content_key
from data_pipeline.settings import BuildSettings, read_settings
from data_pipeline.sources.tables import TableSource
from data_pipeline.stages import cut_clips
from data_pipeline.stages.solve_take import SolvedTake

COLUMNS = [rig.INDEX[c] for c in ("jawOpen", "browInnerUp", "mouthSmileLeft", "mouthSmileRight")]


def read(out):
    found = {}
    for shard in records.read_manifest(out).shards:
        reader = array_record_module.ArrayRecordReader(str(out / shard.file))
        found |= {c.id: c for c in map(records.decode, reader.read_all())}
    return found


def made(folder, out, **said):
    settings = read_settings({"least_snr_db": "0", **said})
    return build.build(folder, out, "table", settings, workers=0)


def error(clip, motion, delay=0.0):
    """RMS over frames that the clip says it has, after the first and last tenth of a second."""
    good = clip.frame_mask.copy()
    good[:5] = good[-5:] = False
    at = np.arange(clip.frames) / rig.FPS - delay
    return float(np.sqrt(((clip.motion[:, COLUMNS] - motion(at))[good] ** 2).mean()))


def test_silent_takes_have_the_length_of_their_capture(tmp_path, make_talk):
    motion = make_talk(tmp_path / "ann", "a", seconds=3.0, sound=False)
    make_talk(tmp_path / "ann", "b", seed=1, seconds=3.0, fps=29.97)
    manifest = made(tmp_path / "ann", tmp_path / "reject")
    assert [r["take"] for r in manifest.source["rejected"]] == ["ann/a"]
    assert "missing_audio=silence" in manifest.source["rejected"][0]["reason"]
    made(tmp_path / "ann", tmp_path / "out", missing_audio="silence")
    clip = read(tmp_path / "out")["ann/a"]
    assert clip.frames == 150 and not clip.audio.any() and clip.frame_mask.all()
    assert clip.extra["offset_method"] == "silence" and error(clip, motion) < 0.01


def test_a_clock_of_a_person_or_of_each_take(tmp_path, make_talk):
    truth, offsets = {}, {"a": 0.10, "b": -0.06, "c": 0.02}
    for seed, (name, offset) in enumerate(offsets.items()):
        truth[name] = make_talk(tmp_path / "ann", name, seed=seed, seconds=12.0, offset=offset)
    made(tmp_path / "ann", tmp_path / "each", clock="take")
    found = read(tmp_path / "each")
    for name, offset in offsets.items():
        clip = found[f"ann/{name}"]
        # 12 s of speech do not support 20 ms, which therefore is not corrected.
        expected = offset if abs(offset) > 0.03 else 0.0
        assert clip.extra["offset_s"] == pytest.approx(expected, abs=0.012), name
        assert error(clip, truth[name], expected - offset) < 0.05
    made(tmp_path / "ann", tmp_path / "one")
    assert len({c.extra["offset_s"] for c in read(tmp_path / "one").values()}) == 1
    # Speech that ends before or begins after its capture has no frames there.
    mask = found["ann/a"].frame_mask
    assert not mask[:4].any() and mask[6:].all() and not found["ann/b"].frame_mask[-3:].any()


def test_drift_is_taken_out_or_the_take_is_set_aside(tmp_path, make_talk):
    truth = make_talk(tmp_path / "ann", "a", seed=3, seconds=60.0, fast=1.003)
    manifest = made(tmp_path / "ann", tmp_path / "out", segment_seconds="90")
    assert manifest.source["offsets"]["ann"]["drift"] == pytest.approx(-0.00299, abs=3e-4)
    assert manifest.source["offsets"]["ann"]["error"] <= 0.02
    clip = read(tmp_path / "out")["ann/a"]
    # Over a minute the clocks part by 180 ms: what is left is less than a frame at both ends.
    for end in (slice(0, 500), slice(2400, 2900)):
        part = dataclasses.replace(clip, frame_mask=np.zeros(clip.frames, bool))
        part.frame_mask[end] = clip.frame_mask[end]
        best = min(np.arange(-60, 61, 2) / 1000, key=lambda d: error(part, truth, d))
        assert abs(best) <= 0.02
    with pytest.raises(Exception, match=r"error of the lips' times 0\.09.*most_lip_error"):
        made(tmp_path / "ann", tmp_path / "aside", drift="report")


def test_clocks_that_count_from_a_phones_start_count_from_the_first_row(tmp_path, make_talk):
    truth = {}
    for seed, start in enumerate((10_873.44, 21.0)):
        name = f"up{seed}"
        truth[name] = make_talk(tmp_path / "ann", name, seed=seed, seconds=12.0)
        path = tmp_path / "ann" / f"{name}.npz"
        with np.load(path) as data:
            motion, names = data["motion"], data["names"]
        np.savez(path, motion=motion, names=names, times=start + np.arange(len(motion)) / 60)
    manifest = made(tmp_path / "ann", tmp_path / "out")
    assert any("count from the first row's, 10873.440 s" in n for n in said(manifest))
    for name, motion in truth.items():
        assert error(read(tmp_path / "out")[f"ann/{name}"], motion) < 0.03


def said(manifest):
    return [note for notes in manifest.source["notes"].values() for note in notes]


class Timecoded(TableSource):
    """Tables whose takes say how their clocks stand."""

    said = 0.08

    def _take(self, *args):
        return dataclasses.replace(super()._take(*args), offset=self.said)


def test_offsets_that_files_say_are_used(tmp_path, make_talk, monkeypatch):
    truth = make_talk(tmp_path / "ann", "a", seconds=10.0, offset=0.08)

    def opened(path, layout, options):
        return Timecoded(path, options), "as the test says"

    monkeypatch.setattr(build, "open_source", opened)
    made(tmp_path / "ann", tmp_path / "out")
    clip = read(tmp_path / "out")["ann/a"]
    assert clip.extra["offset_method"] == "timecode" and clip.extra["offset_s"] == 0.08
    assert error(clip, truth) < 0.01
    # Another time said is another clip, of the same curves.
    monkeypatch.setattr(Timecoded, "said", 0.06)
    made(tmp_path / "ann", tmp_path / "out")
    assert read(tmp_path / "out")["ann/a"].extra["offset_s"] == 0.06


def job(tmp_path, make_talk, curves=None):
    """A person with one take that was solved, as the first stage leaves it."""
    make_talk(tmp_path / "ann", "a", seconds=4.0)
    settings = BuildSettings(offset="0")
    actor = TableSource(tmp_path, settings).actors()[0]
    work = tmp_path / "work"
    for folder in ("takes", "clips", "actors"):
        (work / folder).mkdir(parents=True, exist_ok=True)
    times = np.concatenate([np.arange(90), np.arange(120, 240)]) / 60.0  # half a second is missing
    curves = np.zeros((210, 72), np.float32) if curves is None else curves
    curves[:, COLUMNS[0]] = 0.2 + 0.2 * np.sin(5 * times)
    facts = {"solved": True, "kkt": 0.0, "notes": [], "warnings": [], "audio": {}, "motion": {}}
    solved = SolvedTake(
        times,
        curves,
        np.ones(72, bool),
        times.astype(np.float32),
        np.zeros(800),
        np.zeros(0),
        facts,
    )
    solved.save(work / "takes" / "mark.npz")
    return cut_clips.Job("ann", ((actor.takes[0], "mark"),), settings, work)


def test_missing_frames_are_masked_and_the_residual_is_of_each_frame(tmp_path, make_talk):
    import msgpack

    one = job(tmp_path, make_talk)
    _, (said,) = cut_clips.run_job(one)
    with (one.work / "clips" / said["file"]).open("rb") as file:
        (clip,) = [records.decode(r) for r in msgpack.Unpacker(file)]
    gap = slice(76, 99)  # 1.5 s to 2 s
    assert not clip.frame_mask[gap].any() and clip.frame_mask[:75].all()
    assert clip.frame_mask[100:].sum() >= 98 and clip.frames == 200
    assert len(clip.extra["residual"]) == clip.frames
    good = clip.frame_mask
    at = np.arange(200) / 50
    np.testing.assert_allclose(np.array(clip.extra["residual"])[good], at[good], atol=0.02)
    assert clip.extra["residual_mm"] == pytest.approx(at[good].mean(), abs=0.01)
    # Found again without any work, and packed the same.
    again = cut_clips.run_job(one)[1][0]
    assert set(again) == set(said)
    for key, value in again["thumbnail"].items():
        np.testing.assert_array_equal(value, said["thumbnail"][key])


def test_a_defect_in_cutting_one_take_leaves_it_out_and_is_not_kept(
    tmp_path, make_talk, monkeypatch
):
    one = job(tmp_path, make_talk)

    def broken(*args):
        raise ZeroDivisionError("boom")

    with monkeypatch.context() as patch:
        patch.setattr(cut_clips.level, "speech_level", broken)
        _, (said,) = cut_clips.run_job(one)
    assert "unexpected ZeroDivisionError: boom" in said["rejected"] and said["retry"]
    assert said["entries"] == [] and not list((one.work / "clips").iterdir())
    assert cut_clips.run_job(one)[1][0]["rejected"] == ""


def test_a_defect_in_reading_clocks_leaves_the_persons_takes_out(tmp_path, make_talk, monkeypatch):
    one = job(tmp_path, make_talk)

    def broken(*args, **kwargs):
        raise IndexError("boom")

    with monkeypatch.context() as patch:
        patch.setattr(cut_clips.clocks, "estimate_clocks", broken)
        _, (said,) = cut_clips.run_job(one)
    assert "unexpected IndexError: boom" in said["rejected"] and said["retry"]
    assert cut_clips.run_job(one)[1][0]["rejected"] == ""


def test_damaged_work_is_removed_and_made_again(tmp_path, make_talk):
    one = job(tmp_path, make_talk)
    path = one.work / "takes" / "mark.npz"
    path.write_bytes(path.read_bytes()[:2000])
    with pytest.raises(content_key.WorkFailed, match="run it again"):
        cut_clips.run_job(one)
    assert not path.exists()
