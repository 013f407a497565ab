import json

import numpy as np
import pytest
from array_record.python.array_record_module import ArrayRecordWriter

from a2fjax import rig
from a2fjax.data import records
from a2fjax.errors import InputError
from a2fjax.view import dataset_summary, mixture_summary, text

SEEN = np.ones(72, bool)
NO_TONGUE = SEEN.copy()
NO_TONGUE[rig.GROUPS["tongue"]] = False


def clip(i, *, subject="anna", split="train", language="en", frames=100, mask=SEEN):
    return records.Clip(
        id=f"{subject}/{i}", subject=subject, sentence=f"s{i}", language=language, split=split,
        audio=np.zeros(frames * 320, np.float32), motion=np.zeros((frames, 72), np.float32),
        channel_mask=mask, frame_mask=np.ones(frames, bool),
        emotion=np.tile(np.eye(5, dtype=np.float32)[0], (frames, 1)),
        speech_level=0.1, synthetic=False,
    )  # fmt: skip


def write(folder, clips, *, mask=None, source=None, index=records.index_entry):
    folder.mkdir()
    writer = ArrayRecordWriter(str(folder / "a.arrayrecord"), "group_size:1,uncompressed")
    for each in clips:
        writer.write(records.encode(each))
    writer.close()
    manifest = records.Manifest(
        subjects=[records.Subject(s, None, False) for s in sorted({c.subject for c in clips})],
        shards=[records.Shard("a.arrayrecord", [index(c) for c in clips])],
        channel_mask=np.any([c.channel_mask for c in clips], 0).tolist() if mask is None else mask,
        statistics={"motion_mean": [0.1] * 72, "motion_std": [0.1] * 72},
        synthetic=False,
        source=source or {},
    )
    records.write_manifest(folder, manifest)
    return folder


def words(folder):
    return " ".join("\n".join(dataset_summary.summary_lines(folder)).split())


def test_channels_that_only_some_clips_observed_are_told_with_their_share(tmp_path):
    clips = [clip(i, mask=SEEN if i % 4 == 0 else NO_TONGUE) for i in range(8)]
    found = words(write(tmp_path / "a", clips))
    assert "observed channels: 72 of 72" in found
    assert "in 25% of clips: all tongue (17)" in found and "clips that were read" not in found
    same = words(write(tmp_path / "b", [clip(i, mask=NO_TONGUE) for i in range(3)]))
    assert "never observed: all tongue (17)" in same and "% of clips" not in same
    assert "tongue 0/17" in same and "eyes 18/18" in same


def test_records_that_cannot_be_read_are_told(tmp_path):
    folder = write(tmp_path / "a", [clip(i) for i in range(4)])
    path = folder / "a.arrayrecord"
    data = path.read_bytes()
    at = data.index(b"anna/2")
    path.write_bytes(data[:at] + b"X" + data[at + 1 :])
    found = words(folder)
    assert "1 of 4 records tried cannot be read; first: " in found and "record 2 (anna/2)" in found
    path.write_bytes(bytes(len(data)))
    with pytest.raises(InputError, match="none of the 4 records .*record 0 .anna/0.: .*build"):
        dataset_summary.summary_lines(folder)


def test_few_records_of_a_large_set_are_read(tmp_path, monkeypatch):
    monkeypatch.setattr(dataset_summary, "MOST_RECORDS", 10)
    decoded = []
    plain = records.decode
    monkeypatch.setattr(records, "decode", lambda data: decoded.append(1) or plain(data))
    folder = write(tmp_path / "a", [clip(i, frames=2) for i in range(50)])
    found = dataset_summary.read(folder)
    assert len(decoded) == 10 == found.records_read
    assert found.languages == {"en": 100}


def without_language(clip):
    return {k: v for k, v in records.index_entry(clip).items() if k != "language"}


def test_sets_whose_index_names_no_language_still_tell_it(tmp_path):
    clips = [clip(i, language="de" if i < 3 else "", frames=9000) for i in range(4)]
    found = words(write(tmp_path / "a", clips, index=without_language))
    assert "de 0.150" in found and "unknown 0.050" in found
    indexed = words(write(tmp_path / "b", clips))
    assert "de 3 0.150" in indexed and "unknown 1 0.050" in indexed


def test_what_the_builder_found_is_told(tmp_path):
    source = {
        "input": "/captures", "layout": "livelink", "settings": {"fps": 0.0},
        "offsets": {
            "anna": {"seconds": 0.02, "method": "slate", "confidence": 0.9, "drift": 2e-5},
            "ben": {"seconds": -0.04, "method": "slate", "confidence": 0.7, "drift": 0.0},
            "cara": {"seconds": 0.0, "method": "none", "confidence": 0.0},
        },
        "residual_mm": 0.25,
        "rejected": [{"take": f"anna/r{i}", "reason": "no sound"} for i in range(5)],
        "quarantined": [{"take": "ben/q", "reason": "SNR 3.1 dB, below 10"}],
        "warnings": ["anna: half of it is silent", "more"],
    }  # fmt: skip
    folder = write(tmp_path / "a", [clip(0)], source=source)
    rate = {"motion": {"fps": 59.94}}
    (folder / "quality.json").write_text(json.dumps({"takes": [rate, rate, {"motion": {}}, 3]}))
    (folder / "quality.html").write_text("<p>")
    found = words(folder)
    for part in (
        "built from /captures, layout livelink, 59.94 fps",
        "clock offset: slate for 2 subjects, -40.0 to +20.0 ms, confidence 0.80 (least 0.70), "
        "drift up to 20 ppm",
        "clock offset: none for 1 subject, +0.0 ms",
        "residual 0.250 mm",
        "5 takes could not be used: anna/r0: no sound",
        "and 2 more",
        "1 take quarantined: ben/q: SNR 3.1 dB, below 10",
        "2 warnings, first: anna: half of it is silent",
        f"quality report: {folder / 'quality.html'}",
    ):
        assert part in found, found


@pytest.mark.parametrize("damage", ["[", "[]", "null", "\xff"])
def test_a_damaged_quality_report_is_told(tmp_path, damage):
    folder = write(tmp_path / "a", [clip(0)])
    (folder / "quality.json").write_text(damage, encoding="latin-1")
    found = words(folder)
    assert "1 clips" in found and "quality.json: " in found


def test_sets_together_with_the_share_of_each(tmp_path):
    a = write(tmp_path / "a", [clip(i, frames=300) for i in range(2)])
    b = write(
        tmp_path / "b",
        [clip(i, subject="ben", language="de", frames=600, mask=NO_TONGUE) for i in range(3)],
    )
    rows = [line.split() for line in mixture_summary.mixture_lines([a, b])]
    assert next(r for r in rows if r[:1] == ["a"])[-2:] == ["25.0%", "25.0%"]
    assert next(r for r in rows if r[:1] == ["b"])[-2:] == ["75.0%", "75.0%"]
    weighted = mixture_summary.mixture_lines([a, b], (4.0, 1.0))
    rows = [line.split() for line in weighted]
    assert next(r for r in rows if r[:1] == ["a"])[-2:] == ["25.0%", "80.0%"]
    assert next(r for r in rows if r[:1] == ["together"])[1:3] == ["5", "48.0"]
    joined = " ".join(weighted)
    assert "a: each clip comes up 3.20 times an epoch" in joined
    assert "observed in every set: 55 channels" in joined and "only in a: all tongue (17)" in joined
    off = " ".join(mixture_summary.mixture_lines([a, b], (0.0, 1.0)))
    assert "a: left out" in off and "b: each clip comes up 1.00 times" in off
    with pytest.raises(InputError, match="got 1"):
        mixture_summary.mixture_lines([a, b], (1.0,))


def test_blocks_stand_side_by_side_within_the_width():
    blocks = [["a" * 40, "b"], ["c" * 40], ["d" * 40, "e"]]
    found = text.beside(blocks)
    assert found == ["a" * 40 + "   " + "c" * 40, "b", "", "d" * 40, "e", ""]
    assert text.short("abcdefghij", 6) == "abc…ij" and text.short("abc", 6) == "abc"
