"""Alignments find their clips, whatever the clips are cut from."""

import dataclasses

import numpy as np
import pytest

from a2fjax.data import records
from a2fjax.errors import InputError
from a2fjax.evaluation import beside
from a2fjax.evaluation.beside import Beside
from a2fjax.metrics.phones import aligner
from a2fjax.metrics.phones.alignment import Phone

CTM = "x 1 0.5 0.1 P\nx 1 4.0 0.25 M\nx 1 4.5 0.1 AA1\n"


def clip(name, **extra):
    return records.Clip(
        id=name, subject="a", sentence="s", language="en", split="val",
        audio=np.zeros(3200, np.float32), motion=np.zeros((10, 72), np.float32),
        channel_mask=np.ones(72, bool), frame_mask=np.ones(10, bool),
        emotion=np.tile(np.eye(5, dtype=np.float32)[0], (10, 1)), speech_level=0.1,
        synthetic=True, extra=extra,
    )  # fmt: skip


def folder_with(root, *names):
    for name in names:
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_text(CTM)
    return root


def test_files_are_found_by_the_names_of_clips(tmp_path):
    root = folder_with(
        tmp_path, "a/t1.ctm", "a/t2#1.ctm", "a/t2.ctm", "t3.ctm", "t4.ctm", "b/t4.txt", "u.ctm"
    )
    ids = ["a/t1", "a/t2#0", "a/t2#1", "b/t3", "a/t4", "b/t4", "b/t5"]
    found = {k: v.relative_to(root).as_posix() for k, v in beside.find(root, ids).items()}
    assert found == {
        "a/t1": "a/t1.ctm",
        "a/t2#0": "a/t2.ctm",
        "a/t2#1": "a/t2#1.ctm",
        "b/t3": "t3.ctm",
    }, "t4 could be of either person"


def test_a_take_s_alignment_is_shifted_to_its_segments(tmp_path):
    root = folder_with(tmp_path, "a/t.ctm", "a/t#2.ctm")
    both = Beside(beside.find(root, ["a/t#0", "a/t#1", "a/t#2"]))
    whole = (Phone(0.5, 0.6, "P"), Phone(4.0, 4.25, "M"), Phone(4.5, 4.6, "AA1"))
    assert both.phones(clip("a/t#0", start_s=0.0)) == whole
    shifted = both.phones(clip("a/t#1", start_s=4.1))
    assert [p.label for p in shifted] == ["M", "AA1"] and shifted[0].start == 0
    assert shifted[1].start == pytest.approx(0.4)
    assert both.phones(clip("a/t#2", start_s=8.0)) == whole, "its own file has its own times"
    assert both.phones(clip("a/u")) == ()


def test_a_folder_that_does_not_fit_is_one_line(tmp_path):
    for folder, says in ((tmp_path / "none", "no such folder"), (tmp_path, "alignments: none")):
        with pytest.raises(InputError, match=says):
            beside.load(folder, None, ["a/t"])
    folder_with(tmp_path, "x/y.ctm")
    (tmp_path / "a").mkdir()
    (tmp_path / "a/t.ctm").write_text("x 1 0.5 P")
    with pytest.raises(InputError, match="a/t.ctm:1"):
        beside.load(tmp_path, None, ["a/t"])
    (tmp_path / "a/t.ctm").unlink()
    with pytest.raises(InputError, match="'x/y' and others.*expected a/t.TextGrid"):
        beside.load(tmp_path, None, ["a/t"])


def test_without_the_extra_one_line_names_it(monkeypatch):
    monkeypatch.setattr(aligner, "is_installed", lambda: False)
    said = []
    none = beside.load("auto", None, ["a/t", "a/u"], say=said.append)
    assert said == [
        "phones: 2 of 2 clips without an alignment: skipped; pip install 'a2fjax[phones]' "
        "aligns those in English"
    ]
    assert none.phones(clip("a/t", text="hello")) == ()


def test_only_english_with_a_text_is_aligned(monkeypatch):
    asked = []
    monkeypatch.setattr(aligner, "is_installed", lambda: True)
    monkeypatch.setattr(aligner, "align", lambda audio, text: asked.append(text) or ())
    auto = beside.load("auto", None, ["a/t"])
    auto.phones(clip("a/t", text="hello"))
    auto.phones(clip("a/t"))
    auto.phones(clip("a/t", text=3))
    auto.phones(dataclasses.replace(clip("a/t", text="hallo"), language="de"))
    assert asked == ["hello"]
    assert beside.load(None, None, ["a/t"]) == Beside()
