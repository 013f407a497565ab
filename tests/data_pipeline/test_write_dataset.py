"""Which takes are quarantined and why, how splits are made, and that chance decides nothing."""

import json
import shutil

import numpy as np
import pytest
import soundfile

from a2fjax.data import records
from a2fjax.errors import InputError, WorkFailed
from data_pipeline import build
from data_pipeline.execution import console
from data_pipeline.settings import read_settings


@pytest.fixture(scope="module")
def talks(tmp_path_factory, make_talk):
    """Five people with four takes, some of them bad."""
    folder = tmp_path_factory.mktemp("talks")
    for p in range(5):
        for t in range(4):
            make_talk(folder / f"p{p}", f"t{p}{t}", seed=10 * p + t, seconds=3.0)
    rng = np.random.default_rng(0)
    rate = 16_000
    loud, _ = soundfile.read(folder / "p0/t00.wav")
    soundfile.write(folder / "p0/t00.wav", np.clip(30 * loud, -1, 1), rate)
    quiet, _ = soundfile.read(folder / "p1/t11.wav")
    soundfile.write(folder / "p1/t11.wav", quiet + 0.05 * rng.normal(size=len(quiet)), rate)
    with np.load(folder / "p2/t22.npz") as data:
        held = {k: data[k] for k in data.files}
    held["motion"] = np.repeat(held["motion"][::9], 9, axis=0)[: len(held["motion"])]
    np.savez(folder / "p2/t22.npz", **held)
    for suffix in (".npz", ".wav"):
        shutil.copy(folder / f"p3/t30{suffix}", folder / f"p4/copy{suffix}")
    return folder


def made(folder, out, log=lambda line: None, **said):
    return build.build(folder, out, "table", read_settings(said), workers=0, log=log)


def quarantined(manifest):
    return {r["take"]: r["reason"] for r in manifest.source["quarantined"]}


def used(manifest):
    return {c["id"]: c["split"] for s in manifest.shards for c in s.clips}


def test_each_bad_take_is_quarantined_with_its_reason(talks, tmp_path):
    lines = []
    manifest = made(talks, tmp_path / "out", lines.append)
    reasons = quarantined(manifest)
    assert set(reasons) == {"p0/t00", "p1/t11", "p2/t22", "p4/copy"}
    for take, words in {
        "p0/t00": "(most_clipping)",
        "p1/t11": "(least_snr_db)",
        "p2/t22": "(most_frozen)",
        "p4/copy": "the same files as p3/t30",
    }.items():
        assert words in reasons[take]
    assert len(used(manifest)) == 17 and not set(used(manifest)) & set(reasons)
    assert any("4 takes were quarantined" in line for line in lines)
    report = json.loads((tmp_path / "out/quality.json").read_text())
    said = {t["take"]: t["verdict"] for t in report["takes"]}
    assert {k for k, v in said.items() if v == "quarantined"} == set(reasons)
    assert report["reasons"]["most_clipping"] == 1
    # A threshold needs no solving, and 0 switches it off.
    lines.clear()
    manifest = made(talks, tmp_path / "out", lines.append, most_clipping="0", least_snr_db="0")
    assert "21 of 21 takes are done already" in lines
    assert set(quarantined(manifest)) == {"p2/t22", "p4/copy"}
    # What was judged too strictly is told with a report, and no work is lost.
    with pytest.raises(InputError, match=r"none of 21 takes could be used.*quality.html says more"):
        made(talks, tmp_path / "strict", least_snr_db="99")
    assert "least_snr_db" in (tmp_path / "strict/quality.html").read_text()
    lines.clear()
    made(talks, tmp_path / "strict", lines.append)
    assert "21 of 21 takes are done already" in lines


def test_a_copy_in_another_format_is_found_too(talks, tmp_path):
    for take in ("t30", "t31"):
        shutil.copy(talks / f"p3/{take}.npz", tmp_path)
        shutil.copy(talks / f"p3/{take}.wav", tmp_path)
    with np.load(tmp_path / "t30.npz") as data:
        np.savez_compressed(tmp_path / "u30.npz", **data)
    audio, rate = soundfile.read(tmp_path / "t30.wav", dtype="int16")
    soundfile.write(tmp_path / "u30.flac", audio, rate)
    manifest = made(tmp_path, tmp_path / "out", subject="mia")
    assert quarantined(manifest) == {"mia/u30": "the same sound and motion as mia/t30"}


def test_new_takes_and_people_move_no_other(talks, tmp_path, make_talk):
    folder = tmp_path / "in"
    shutil.copytree(talks, folder)
    first = made(folder, tmp_path / "out", held_out_share="0.4", val="0.2", test="0.2")
    assert len(set(used(first).values())) >= 3
    for t in range(6):
        make_talk(folder / "p1", f"more{t}", seed=100 + t, seconds=3.0)
    for t in range(2):
        make_talk(folder / "q0", f"new{t}", seed=200 + t, seconds=3.0)
    lines = []
    second = made(
        folder, tmp_path / "out", lines.append, held_out_share="0.4", val="0.2", test="0.2"
    )
    assert "21 of 29 takes are done already" in lines
    assert used(first).items() <= used(second).items() and len(used(second)) == 25
    before = {s.id: s.held_out for s in first.subjects}
    assert before.items() <= {s.id: s.held_out for s in second.subjects}.items()
    assert any(before.values())


def test_an_incomplete_set_is_not_up_to_date(talks, tmp_path):
    folder, out = tmp_path / "in", tmp_path / "out"
    shutil.copytree(talks / "p1", folder)
    for t in range(3):  # one good take is enough
        (folder / f"t1{t}.npz").unlink()
        (folder / f"t1{t}.wav").unlink()
    manifest = made(folder, out)
    shard = out / manifest.shards[0].file
    whole, lines = shard.read_bytes(), []
    shard.unlink()
    made(folder, out, lines.append)
    assert shard.read_bytes() == whole and "1 of 1 takes are done already" in lines
    # Clips that a disk lost half of are not passed off as all there are.
    (clips_file,) = (out / ".build/clips").glob("*.clips")
    clips_file.write_bytes(clips_file.read_bytes()[:-100])
    shard.unlink()
    with pytest.raises(WorkFailed, match="run it again"):
        made(folder, out)
    made(folder, out)
    assert shard.read_bytes() == whole
    # Other settings, stopped after the manifest: the first ones are not up to date.
    (out / ".build/state.json").unlink()
    lines.clear()
    made(folder, out, lines.append)
    assert not any("up to date" in line for line in lines)


def test_what_is_said_stays_short():
    said = []
    few = console.LimitedLines(said.append)
    for n in range(20_000):
        few(f"left out: {n}")
    few.end("were left out; quality.html says why")
    assert len(said) == console.MAX_LINES + 1
    assert said[-1] == "19950 more were left out; quality.html says why"
    few("one")
    few.end("more")
    assert said[-1] == "one"


def test_progress_is_rarer_after_a_minute(monkeypatch):
    now, said = [0.0], []
    monkeypatch.setattr(console.time, "monotonic", lambda: now[0])
    progress = console.Progress([1] * 1000, said.append)
    for n in range(999):
        now[0] = 0.5 * (n + 1)
        progress.done(1, 1.0, fresh=True)
    assert 29 <= sum(int(s.split("/")[0]) <= 120 for s in said) <= 31
    assert len(said) <= 31 + 44


def test_a_clip_of_each_name_is_written_once(tmp_path):
    from data_pipeline.stages import shard_writer

    clip = records.Clip(
        id="a/b",
        subject="a",
        sentence="s",
        language="",
        split="train",
        audio=np.zeros(320, np.float32),
        motion=np.zeros((1, 72), np.float32),
        channel_mask=np.ones(72, bool),
        frame_mask=np.ones(1, bool),
        emotion=np.array([[1, 0, 0, 0, 0]], np.float32),
        speech_level=0.1,
        synthetic=False,
        extra={},
    )

    def write(clips, count):
        return shard_writer.write_shards(
            tmp_path,
            lambda: iter(clips),
            count,
            1,
            files=0,
            subjects=[records.Subject(id="a", mesh=None, held_out=False)],
            meshes={},
            source=lambda statistics: {},
        )

    with pytest.raises(InputError, match="a/b: two clips have this name"):
        write([clip, clip], 2)
    with pytest.raises(WorkFailed, match="1 of the 2 clips"):
        write([clip], 2)
    with pytest.raises(WorkFailed, match="more than the 1 clips"):
        write([clip, clip], 1)
    assert not (tmp_path / "manifest.json").exists()
