import base64
import io
import re
import sys

import numpy as np
import pytest
from array_record.python.array_record_module import ArrayRecordWriter

from a2fjax import rig
from a2fjax.data import records
from a2fjax.errors import InputError
from a2fjax.view import page, take, take_figure

JAW, SMILES = rig.INDEX["jawOpen"], [rig.INDEX[f"mouthSmile{s}"] for s in ("Left", "Right")]


def clip(name, frames, *, first=0, mask=None, residual=True, samples=None, **extra):
    rng = np.random.default_rng(frames)
    motion = np.zeros((frames, 72), np.float32)
    motion[:, JAW] = (np.arange(first, first + frames) % 100) / 100
    motion[:, SMILES[0]] = 0.4 * (np.arange(frames) % 20 < 10)
    motion[:, SMILES[1]] = motion[:, SMILES[0]] + 0.01
    motion[:, rig.INDEX["eyeBlinkLeft"]] = np.arange(frames) % 30 < 4
    motion[:, rig.INDEX["browInnerUp"]] = 0.3
    seen = np.ones(72, bool)
    seen[rig.GROUPS["tongue"]] = False
    if residual:
        extra = {**extra, "residual": [0.2 + 0.001 * (first + i) for i in range(frames)],
                 "residual_mm": 0.3, "offset_s": 0.012, "offset_method": "speech",
                 "offset_confidence": 0.8}  # fmt: skip
    audio = 0.1 * rng.standard_normal(samples or 320 * frames).astype(np.float32)
    return records.Clip(
        id=name, subject=name.split("/")[0], sentence="a sentence", language="en", split="train",
        audio=audio, motion=motion, channel_mask=seen,
        frame_mask=np.ones(frames, bool) if mask is None else mask,
        emotion=np.tile(np.eye(5, dtype=np.float32)[2], (frames, 1)),
        speech_level=0.1, synthetic=False, extra=extra,
    )  # fmt: skip


def write(folder, clips):
    folder.mkdir()
    writer = ArrayRecordWriter(str(folder / "a.arrayrecord"), "group_size:1")
    for each in clips:
        writer.write(records.encode(each))
    writer.close()
    names = sorted({c.subject for c in clips})
    shard = records.Shard("a.arrayrecord", [records.index_entry(c) for c in clips])
    manifest = records.Manifest(
        [records.Subject(n, None, False) for n in names], [shard], [True] * 72, {}, False, {}
    )
    records.write_manifest(folder, manifest)
    return folder


@pytest.fixture(scope="module")
def shards(tmp_path_factory):
    """A long take in eleven segments out of order, and some short ones."""
    parts = [clip(f"zoë/long#{i}", 40, first=40 * i) for i in range(11)]
    parts[10] = clip("zoë/long#10", 30, first=400, samples=320 * 29 + 7)
    order = [3, 10, 0, 1, 2, 9, 8, 7, 6, 5, 4]
    others = [clip(f"ben/{n}", 25, residual=False) for n in ("one", "one_more", "two")]
    gap = [clip("ben/gap#0", 50), clip("ben/gap#2", 50, first=150, start_s=3.0)]
    folder = tmp_path_factory.mktemp("set") / "a"
    return write(folder, [*(parts[i] for i in order), *others, *gap])


def test_segments_are_joined_in_order_on_one_time_axis(shards):
    found = take.read(*take.find_take([shards], "zoë/long"))
    assert found.motion.shape == (430, 72) and len(found.audio) == 430 * 320
    np.testing.assert_allclose(found.motion[:, JAW], (np.arange(430) % 100) / 100)
    np.testing.assert_allclose(found.residual, 0.2 + 0.001 * np.arange(430), rtol=1e-5)
    np.testing.assert_allclose(found.cuts, 0.8 * np.arange(1, 11))
    assert found.frame_mask.all() and not found.audio[-313:].any()
    assert "zoë/long · en · train · 8.6 s" in found.title and "+12.0 ms by speech" in found.title


def test_a_segment_that_was_left_out_leaves_a_gap(shards):
    found = take.read(*take.find_take([shards], "ben/gap"))
    assert len(found.motion) == 200
    assert found.frame_mask.tolist() == [True] * 50 + [False] * 100 + [True] * 50
    assert np.isnan(found.residual[50:150]).all() and np.isfinite(found.residual[150:]).all()
    assert found.motion[150, JAW] == np.float32(0.5)


@pytest.mark.parametrize(
    ("name", "meant"),
    [
        ("zoë/long", "zoë/long"), ("zoë/long#4", "zoë/long"), ("zo", "zoë/long"),
        ("long", "zoë/long"), ("ben/one", "ben/one"), ("one_", "ben/one_more"), ("two", "ben/two"),
    ],
)  # fmt: skip
def test_takes_are_found_by_name_and_by_its_beginning(shards, name, meant):
    assert take.find_take([shards], name) == (str(shards), meant)


def test_names_that_mean_none_or_several_are_refused(shards, tmp_path):
    with pytest.raises(InputError, match="did you mean 'ben/two'"):
        take.find_take([shards], "ben/tow")
    with pytest.raises(InputError, match="any of 4: ben/one, ben/one_more, ben/two, ben/gap"):
        take.find_take([shards], "ben/")
    other = write(tmp_path / "b", [clip("ben/one", 20)])
    with pytest.raises(InputError, match=f"any of 2: {shards}, {other}"):
        take.find_take([shards, other], "ben/one")
    for name in ("", "#1"):
        with pytest.raises(InputError, match="no take"):
            take.find_take([shards], name)


def test_a_damaged_clip_is_named(shards, tmp_path):
    folder = write(tmp_path / "b", [clip("ben/one", 20)])
    (folder / "a.arrayrecord").write_bytes(b"no shard")
    with pytest.raises(InputError, match=r"a.arrayrecord: record 0 \(ben/one\)"):
        take.read(folder, "ben/one")


def test_a_part_of_a_take(shards):
    whole = take.read(*take.find_take([shards], "zoë/long"))
    part, start = take.cut(whole, (2.0, 4.0))
    assert start == 2.0 and len(part.motion) == 100 and len(part.audio) == 32000
    np.testing.assert_array_equal(part.motion, whole.motion[100:200])
    np.testing.assert_array_equal(part.residual, whole.residual[100:200])
    assert len(take.cut(whole, (0.0, np.inf))[0].motion) == 430
    with pytest.raises(InputError, match="nothing to draw from 20 to 30 s, the take has 8.60 s"):
        take.cut(whole, (20.0, 30.0))


def test_words_on_a_take(shards):
    found = "\n".join(take.summary_lines(take.read(*take.find_take([shards], "zoë/long"))))
    assert "11 clips, 430 of 430 frames good, 55 channels observed" in found
    assert "emotion: angry 1.00" in found
    assert "residual: median 0.414 mm, 95 % below 0.608 mm, 0.629 mm at 8.58 s" in found
    rows = [line.split() for line in found.splitlines()]
    at = rows.index(["most", "moving", "channels", "mean", "std", "range"])
    assert {row[0] for row in rows[at + 1 : at + 3]} == {"jawOpen", "eyeBlinkLeft"}
    plain = "\n".join(take.summary_lines(take.read(*take.find_take([shards], "ben/two"))))
    assert "residual" not in plain


def test_the_curves_that_move_are_chosen_and_twins_become_one(shards):
    found = take.read(*take.find_take([shards], "zoë/long"))
    mouth = take_figure.main_curves(found, rig.GROUPS["mouth"], 5)
    assert [c.label for c in mouth] == ["mouthSmile (both)"]
    np.testing.assert_allclose(mouth[0].values, found.motion[:, SMILES].mean(1), rtol=1e-6)
    assert take_figure.main_curves(found, rig.GROUPS["brows"], 5) == []  # still
    assert take_figure.main_curves(found, rig.GROUPS["tongue"], 5) == []  # not observed
    blinks = take_figure.main_curves(found, rig.GROUPS["blinks"], 5)
    assert [c.label for c in blinks] == ["eyeBlinkLeft"]


def pixels(data):
    from matplotlib import image

    return image.imread(io.BytesIO(data), format="png")


def test_pictures_show_every_row_and_the_masked_frames(shards, tmp_path):
    found = take.read(*take.find_take([shards], "ben/gap"))
    page.write(tmp_path / "t.svg", found)
    page.write(tmp_path / "t.png", found)
    svg = (tmp_path / "t.svg").read_text()
    for word in ("sound", "loudness", "aperture", "jawOpen", "mouthSmile (both)", "eyeBlinkLeft",
                 "angry", "of the solve", "not observed: tongue", "still: cheeks and nose, brows",
                 "2.00 s of masked frames are shaded"):  # fmt: skip
        assert f"<!-- {word}" in svg or word in svg, word
    plain = take.read(*take.find_take([shards], "ben/two"))
    page.write(tmp_path / "u.svg", plain)
    text = (tmp_path / "u.svg").read_text()
    assert "of the solve" not in text and "masked" not in text
    # The middle half of the time axis is grey in the gap and white beside it, in the lips' row.
    drawn = take_figure.picture(found)
    shot = pixels(drawn.data)
    height, width = shot.shape[:2]
    left, right = drawn.left * width, drawn.right * width

    def shade(share):
        column = shot[int(0.12 * height) : int(0.95 * height), int(left + share * (right - left))]
        return float(np.median(column[:, :3].mean(1)))

    assert shade(0.5) < 0.95 < shade(0.1) and shade(0.9) > 0.95


def test_a_page_holds_the_sound_and_where_time_lies(shards, tmp_path):
    import soundfile

    found = take.read(*take.find_take([shards], "zoë/long"))
    part, start = take.cut(found, (1.0, 3.0))
    page.write(tmp_path / "t.html", part, start=start)
    text = (tmp_path / "t.html").read_text(encoding="utf-8")
    assert "http" not in re.sub(r"base64,[^\"]*", "", text)
    sound, rate = soundfile.read(
        io.BytesIO(base64.b64decode(re.search(r"audio/flac;base64,([^\"]*)", text)[1]))
    )
    assert rate == 16000
    np.testing.assert_allclose(sound, part.audio, atol=1 / 32000)
    assert pixels(base64.b64decode(re.search(r"image/png;base64,([^\"]*)", text)[1])).ndim == 3
    left, right, seconds = (
        float(x) for x in re.search(
            r"left = ([\d.]+), right = ([\d.]+), seconds = ([\d.]+);", text).groups()
    )  # fmt: skip
    assert 0 < left < right < 100 and seconds == 2.0


def test_wrong_endings_and_a_missing_library_are_told(shards, tmp_path, monkeypatch):
    found = take.read(*take.find_take([shards], "ben/two"))
    with pytest.raises(InputError, match="unknown ending '.gif'"):
        page.write(tmp_path / "t.gif", found)
    for name in [n for n in sys.modules if n.partition(".")[0] == "matplotlib"]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.setitem(sys.modules, "matplotlib", None)
    with pytest.raises(InputError, match=r"extra `view`: pip install 'a2fjax\[view\]'"):
        page.write(tmp_path / "t.png", found)
    assert not list(tmp_path.glob("t.*"))


def test_silent_and_two_frame_takes_can_be_drawn(tmp_path):
    one = clip("a/one", 2, residual=False)
    still = records.Clip(**{
        **{f: getattr(one, f) for f in one.__dataclass_fields__},
        "id": "a/still", "audio": np.zeros(640, np.float32),
        "motion": np.zeros((2, 72), np.float32), "frame_mask": np.zeros(2, bool),
    })  # fmt: skip
    folder = write(tmp_path / "s", [one, still])
    for name in ("one", "still"):
        page.write(tmp_path / f"{name}.png", take.read(folder, f"a/{name}"))
        assert (tmp_path / f"{name}.png").stat().st_size > 1000
