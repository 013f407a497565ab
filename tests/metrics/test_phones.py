"""Alignments in all their forms, and lips by phone on curves whose answer is known."""

import dataclasses
import json
import os
from pathlib import Path

import numpy as np
import pytest

from a2fjax import rig
from a2fjax.errors import InputError
from a2fjax.metrics import lips, suite
from a2fjax.metrics.phones import aligner, alignment, gestures, labels
from a2fjax.metrics.phones.alignment import Phone
from a2fjax.metrics.reference import reference

SPEECH = (
    Path(os.environ.get("A2FJAX_SHARED_DATA", Path(__file__).parents[3] / "shared/data")) / "speech"
)
PHONES = [(0.0, 0.5, ""), (0.5, 0.625, "P"), (0.7, 0.9, "AA1"), (0.9, 1.25, 'say "s"')]


def long_form(tiers, end=1.25):
    lines = [
        'File type = "ooTextFile"',
        'Object class = "TextGrid"',
        "",
        "xmin = 0",
        f"xmax = {end}",
    ]
    lines += ["tiers? <exists> ", f"size = {len(tiers)} ", "item []: "]
    for number, (name, intervals) in enumerate(tiers, 1):
        lines += [
            f"    item [{number}]:",
            '        class = "IntervalTier" ',
            f'        name = "{name}" ',
        ]
        lines += [
            "        xmin = 0 ",
            f"        xmax = {end} ",
            f"        intervals: size = {len(intervals)} ",
        ]
        for i, (start, stop, label) in enumerate(intervals, 1):
            text = label.replace('"', '""')
            lines += [f"        intervals [{i}]:", f"            xmin = {start} "]
            lines += [f"            xmax = {stop} ", f'            text = "{text}" ']
    return "\n".join(lines) + "\n"


def short_form(tiers, end=1.25):
    lines = [
        'File type = "ooTextFile"',
        '"TextGrid"',
        "",
        "0",
        str(end),
        "<exists>",
        str(len(tiers)),
    ]
    for name, intervals in tiers:
        lines += ['"IntervalTier"', f'"{name}"', "0", str(end), str(len(intervals))]
        for start, stop, label in intervals:
            text = label.replace('"', '""')
            lines += [str(start), str(stop), f'"{text}"']
    return "\n".join(lines) + "\n"


TIERS = [("words", [(0.0, 1.25, "pa 12 <x>")]), ("phones", PHONES)]
ENCODINGS = {
    "utf-8": b"",
    "utf-8-sig": b"",
    "utf-16-le": b"\xff\xfe",
    "utf-16-be": b"\xfe\xff",
}


@pytest.mark.parametrize("form", [long_form, short_form])
@pytest.mark.parametrize("encoding", ENCODINGS)
@pytest.mark.parametrize("end", ["\n", "\r\n"])
def test_textgrids_of_every_form_and_encoding(tmp_path, form, encoding, end):
    path = tmp_path / "a.TextGrid"
    tiers = [*TIERS, ("Zoë - phones", [(0.1, 0.2, "ʃ")])]
    path.write_bytes(ENCODINGS[encoding] + form(tiers).replace("\n", end).encode(encoding))
    got = alignment.read(path)
    assert [(p.start, p.end, p.label) for p in got] == sorted([*PHONES, (0.1, 0.2, "ʃ")])


def test_utf_16_without_a_mark_and_comments_and_points(tmp_path):
    path = tmp_path / "a.TextGrid"
    path.write_bytes(short_form(TIERS).encode("utf-16-le"))
    assert len(alignment.read(path)) == 4
    text = short_form(TIERS).replace('"words"', '"words" ! 3 "not" <exists>\n')
    text = text.replace("<exists>\n2\n", '<exists>\n3\n"TextTier" "clicks" 0 1.25 1\n0.4 "a"\n')
    path.write_text(text)
    assert [p.label for p in alignment.read(path)] == [label for *_, label in PHONES]


def test_ctm_and_pocketsphinx(tmp_path):
    ctm = tmp_path / "a.ctm"
    ctm.write_text(";; comment\ns1/a 1 0.50 0.125 P_B 0.9\ns1/a 1 0.7 0.2 AA1_E\n\n")
    assert alignment.read(ctm) == (Phone(0.5, 0.625, "P_B"), Phone(0.7, 0.7 + 0.2, "AA1_E"))
    ctm.write_text("a A 0 1 P\nb A 0 2 M\n")
    assert alignment.read(ctm, "s1/b") == (Phone(0, 2, "M"),)
    path = tmp_path / "a.phone.json"
    words = [{"b": 0, "d": 1, "t": "<sil>"}, {"t": "pa", "w": [{"b": 0.5, "d": 0.1, "t": "P"}]}]
    path.write_text(json.dumps({"w": words}))
    assert alignment.read(path) == (Phone(0.5, 0.6, "P"),)


BAD = {
    "latin.TextGrid": (short_form([("phones", [(0, 1, "ä")])]).encode("latin-1"), "not UTF-8"),
    "words.TextGrid": (long_form(TIERS[:1]).encode(), "no tier of phones (tiers: 'words')"),
    "cut.TextGrid": (short_form(TIERS)[:-30].encode(), "the end of the file in place of"),
    "pitch.TextGrid": (b'File type = "ooTextFile"\n"Pitch 1"\n0\n1\n', "expected a TextGrid"),
    "text.TextGrid": (b"hello", "not a TextGrid"),
    "back.TextGrid": (short_form([("phones", [(0.9, 0.4, "P")])]).encode(), "'P' from 0.9 to 0.4"),
    "minus.ctm": (b"a 1 -0.5 0.1 P\n", "'P' from -0.5"),
    "short.ctm": (b"a 1 0.5 P\n", "short.ctm:1"),
    "two.ctm": (b"a 1 0 1 P\nb 1 0 1 P\n", "2 recordings, none named 's/c'"),
    "list.phone.json": (b"[1]", "not a phone alignment"),
    "words.phone.json": (b'{"w": [{"b": 0, "d": 1, "t": "x"}]}', "words without phones"),
    "nan.phone.json": (b'{"w": [{"w": [{"b": NaN, "d": 1, "t": "x"}]}]}', "from nan to nan"),
    "a.lab": (b"0 1 P", "expected a .TextGrid, .ctm or .phone.json"),
}


@pytest.mark.parametrize("name", BAD)
def test_damaged_alignments_are_one_line(tmp_path, name):
    data, says = BAD[name]
    (tmp_path / name).write_bytes(data)
    with pytest.raises(InputError) as caught:
        alignment.read(tmp_path / name, "s/c")
    assert says in str(caught.value) and name in str(caught.value) and "\n" not in str(caught.value)


def test_labels_of_both_alphabets():
    expected = {
        "closed": "P B M P_B M_E p b m pʰ mʲ m̩ bː EM em",
        "teeth": "F V f v ɱ vː ʋ",
        "rounded": "UW1 OW0 W u uː o oʊ w uw ow OY2",
        "open": "AA1 AA aa AY AW0 a aː ɑ aɪ ɐ",
        "": "AH0 ah ae AE1 N t k ʃ UH IY i ə sil SIL <eps> spn [NOISE] ++NOISE++ HH laugh <breath>",
    }
    for name, group in expected.items():
        assert {label: labels.phone_class(label) for label in group.split()} == dict.fromkeys(
            group.split(), name
        )
    kinds = {
        "<breath>": "breath",
        "[laughter]": "laugh",
        "HUM": "hum",
        "mm": "",
        "M": "",
        "<mm>": "hum",
    }
    assert {label: labels.nonspeech_kind(label) for label in kinds} == kinds


JAW, PUCKER, LOWER, UPPER = (
    rig.INDEX[n] for n in ("jawOpen", "mouthPucker", "mouthRollLower", "mouthRollUpper")
)
CYCLE = ("P", "T", "UW1", "N", "V", "K", "AA1", "S")


def spoken(cycles=20, frames=6):
    """Motion whose phones of 120 ms make their gestures, and the phones."""
    rng = np.random.default_rng(0)
    order = [label for _ in range(cycles) for label in rng.permutation(CYCLE)]
    motion = np.zeros((len(order) * frames, 72))
    motion[:, JAW] = 0.3
    phones = []
    for i, label in enumerate(order):
        part = slice(i * frames, (i + 1) * frames)
        middle = slice(i * frames + 2, (i + 1) * frames - 2)
        motion[middle, JAW] = {"P": 0.0, "AA1": 0.7}.get(label, 0.3)
        motion[middle, PUCKER] = 0.6 * (label == "UW1")
        motion[middle, LOWER] = 0.5 * (label == "V")
        motion[middle, UPPER] = 0.2 * (label == "P")
        phones.append(Phone(part.start / 50, part.stop / 50 - 0.03, label))
    return motion, tuple(phones)


def truth_of(motion, phones, **changes):
    frames = len(motion)
    given = {"channel_mask": np.ones(72, bool), "frame_mask": np.ones(frames, bool)} | changes
    truth = reference(motion, np.full(frames * 320, 0.1), speech_level=0.1, **given)
    bounds = {"closed": -0.03, "open": 0.6, "rounded": 0.5, "teeth": 0.4}
    return dataclasses.replace(truth, phones=phones, threshold=0.0, bounds=bounds)


def measured(motion, truth):
    total = suite.merge_clips([("a", suite.sums(motion, truth))])
    return {k: float(v) for k, v in suite.values(total).items() if k.startswith("phone_")}


def test_gestures_that_are_made_and_gestures_that_are_not():
    motion, phones = spoken()
    truth = truth_of(motion, phones)
    got = measured(motion, truth)
    for name in labels.CLASSES:
        assert got[f"phone_{name}_rate"] == got[f"phone_{name}_rate_truth"] == 1
        assert got[f"phone_{name}_false"] == got[f"phone_{name}_false_truth"] == 0
        assert 0.02 < got[f"phone_{name}_chance"] < 0.4
    still = measured(np.full_like(motion, 0.2), truth)
    assert all(v == 0 for k, v in still.items() if k.endswith(("_rate", "_false", "_chance")))
    assert still["phone_closed_rate_truth"] == 1
    shut = measured(0 * motion, truth)
    assert (
        shut["phone_closed_rate"] == shut["phone_closed_false"] == shut["phone_closed_chance"] == 1
    )
    swapped = motion.copy()
    swapped[:, [PUCKER, LOWER]] = motion[:, [LOWER, PUCKER]]
    assert measured(swapped, truth)["phone_rounded_rate"] < 0.4
    late = measured(np.roll(motion, 6, axis=0), truth)
    assert late["phone_closed_rate"] < 0.4


def test_half_of_the_phones_are_half_the_rate():
    motion, phones = spoken()
    for i, phone in enumerate(p for p in phones if p.label == "P"):
        if i % 2:
            motion[round(phone.start * 50) : round(phone.end * 50) + 2, JAW] = 0.3
    made = truth_of(motion, phones)
    assert measured(motion, made)["phone_closed_rate"] == pytest.approx(0.5)


def test_a_phone_reaches_20_ms_beyond_its_ends():
    motion = np.zeros((100, 72))
    motion[:, JAW] = 0.3
    phones = tuple(Phone(t, t + 0.1, "M") for t in (0.5, 1.0, 1.5))
    motion[24, JAW] = motion[56, JAW] = motion[73, JAW] = 0.0  # 20 ms before, after; 40 ms before
    got = measured(motion, truth_of(motion, phones))
    assert got["phone_closed_rate"] == pytest.approx(2 / 3)


def test_neighbours_silence_and_laughs_are_no_false_gestures():
    motion, _ = spoken(1)
    motion[:] = 0.0
    phones = tuple(
        Phone(i * 0.1, i * 0.1 + 0.05, label)
        for i, label in enumerate(("P", "T", "sil", "<laugh>", "K", "N", "M"))
    )
    got = suite.metrics()["phones"].sums(motion, truth_of(motion, phones))
    assert got["phones/closed_others"] == 1 == got["phones/closed_false_p"]


def test_masked_frames_and_channels_count_nowhere():
    motion, phones = spoken()
    frames = np.ones(len(motion), bool)
    frames[100:300] = False
    truth = truth_of(motion, phones, frame_mask=frames)
    spoiled = motion.copy()
    spoiled[100:300] = 0.0
    got = measured(spoiled, truth)
    assert got["phone_closed_rate"] == 1 and got["phone_closed_false"] == 0
    spoiled[100:300] = 0.9
    assert measured(spoiled, truth) == got, "nor does chance see what is masked"
    channels = np.ones(72, bool)
    channels[[JAW, PUCKER]] = False
    got = measured(motion, truth_of(motion, phones, channel_mask=channels))
    assert np.isnan(got["phone_closed_rate"]) and np.isnan(got["phone_rounded_chance"])
    assert got["phone_teeth_rate"] == 1
    assert all(np.isnan(v) for v in measured(motion, truth_of(motion, ())).values())


def test_phones_beyond_the_clip_do_not_count():
    motion, phones = spoken(1)
    beyond = (*phones, Phone(100.0, 100.1, "P"))
    assert measured(motion, truth_of(motion, beyond)) == measured(motion, truth_of(motion, phones))


def test_silence_around_the_speech_is_no_part_of_chance():
    motion, phones = spoken()
    closed = np.zeros((300, 72))
    late = tuple(Phone(p.start + 6, p.end + 6, p.label) for p in phones)
    around = np.concatenate([closed, motion, closed])
    sounds = (Phone(0, 6, "sil"), *late)
    inside = measured(motion, truth_of(motion, phones))["phone_closed_chance"]
    outside = measured(around, truth_of(around, sounds))["phone_closed_chance"]
    assert outside == pytest.approx(inside, abs=0.05) and inside < 0.2


def test_bounds_are_the_person_s_own():
    motion, _ = spoken()
    spoken_curves = [gestures.curves(motion, np.ones(72, bool))]
    found = gestures.bounds(spoken_curves, 0.05)
    assert found["closed"] == pytest.approx(-0.08)
    assert set(found) == {"closed"}, "gestures in an eighth of the time are below the percentile"
    wide = np.repeat([0.0, 0.5], 50)
    bound = gestures.bounds([{"rounded": wide}, {"rounded": wide}], float("nan"))
    assert bound == {"rounded": pytest.approx(0.5 - lips.MARGIN)}


def test_english_is_aligned_as_pocketsphinx_does(tmp_path, monkeypatch):
    pytest.importorskip("pocketsphinx", reason="needs the extra `phones`")
    folder = SPEECH / "librivox_pocketsphinx"
    if not folder.is_dir():
        pytest.skip("no shared speech")
    from a2fjax.audio import io

    monkeypatch.setenv("A2F_CACHE", str(tmp_path))
    path = sorted(folder.glob("*.phone.json"))[0]
    audio = io.load(path.with_name(path.name.replace(".phone.json", ".flac")))
    text = json.loads(path.read_text())["t"]
    found, known = aligner.align(audio, text), alignment.read(path)
    assert abs(len(found) - len(known)) < 5
    starts = np.array([p.start for p in found if p.label in "PBM"])
    expected = np.array([p.start for p in known if p.label in "PBM"])
    assert np.median(np.abs(starts[:, None] - expected).min(0)) <= 0.03
    (cached,) = (tmp_path / "phones").iterdir()
    cached.write_text(json.dumps([[0.0, 1.0, "KEPT"]]))
    assert aligner.align(audio, text) == (Phone(0.0, 1.0, "KEPT"),)
    cached.write_text("[[1]]")
    assert aligner.align(audio, text) == found
    assert aligner.align(audio, "xyzzyq is no word") == () == aligner.align(audio, "room 12")


def test_without_the_extra_one_line_names_it(monkeypatch):
    monkeypatch.setattr(aligner, "is_installed", lambda: False)
    with pytest.raises(InputError, match=r"pip install 'a2fjax\[phones\]'"):
        aligner.align(np.zeros(16000), "hello")
