"""The report of a set: what it says, that it is safe to open, and that it stays small and quick."""

import dataclasses
import html.parser
import json
import re
import time

import numpy as np
import pytest

from a2fjax.errors import InputError
from data_pipeline.quality import findings as findings_lib
from data_pipeline.quality import report, report_html, sparklines, thresholds

THRESHOLDS = dataclasses.asdict(thresholds.Thresholds())
HOSTILE = (
    "<script>alert(1)</script>",
    '"><img src=x onerror=alert(1)>',
    "' onmouseover='alert(1)",
    "</style></title><b>&amp;&lt;",
    "Ünïcødé-演员-😀",
    "right\u202eto\u200fleft",
    "nul\x00tab\tline\nhalf\udcff",
    "{{7*7}}${7*7}",
)


def take(name="anna/one", **changes):
    """A take in use, as a build hands it over."""
    out = {
        "take": name,
        "subject": name.partition("/")[0],
        "sentence": name,
        "language": "en",
        "emotion": "neutral",
        "seconds": 360.0,
        "synthetic": False,
        "audio": {
            "rate": 48000,
            "snr_db": 30.0,
            "clipping": 0.0,
            "silence": 0.2,
            "speech_db": -20.0,
        },
        "motion": {
            "frames": 100,
            "fps": 60.0,
            "fps_name": "60",
            "frozen": 0.0,
            "jumps": 0.0,
            "saturated": {"jawOpen": 0.1},
            "range": {"jawOpen": [0.0, 0.1, 0.8], "cheekPuff": [0.0, 0.0, 0.0]},
            "dead": ["cheekPuff"],
        },
        "lips": {"correlation": 0.6, "belongs": True},
        "clock": {"seconds": 0.03, "method": "speech", "drift": 0.0, "drift_confidence": 0.0},
        "fit": {"residual_mm": 0.4},
        "thumbnail": {
            "start": 0.0,
            "seconds": 5.0,
            "loudness": [0.1, None, 0.9],
            "aperture": [0.0, 0.4, 0.1],
            "residual": [0.2, 0.3, None],
        },
        "verdict": "used",
        "reasons": [],
    }
    return out | changes


def assemble(takes, **facts):
    return report.assemble_report(takes, {"name": "captures", "thresholds": THRESHOLDS, **facts})


class Tags(html.parser.HTMLParser):
    """Checks that tags are balanced and gathers what the page would run or fetch."""

    VOID = {"meta", "br", "img", "link", "input", "hr"}
    EMPTY = {"rect", "path"}

    def __init__(self):
        super().__init__(convert_charrefs=True)
        self.open, self.text, self.seen, self.attributes = [], [], [], []
        self.ids = set()

    def handle_starttag(self, tag, attrs):
        self.seen.append(tag)
        self.attributes += [(tag, *a) for a in attrs]
        if tag not in self.VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag, attrs):
        assert tag in self.EMPTY, tag
        self.seen.append(tag)
        self.attributes += [(tag, *a) for a in attrs]

    def handle_endtag(self, tag):
        assert self.open and self.open.pop() == tag, tag

    def handle_data(self, data):
        if not self.open or self.open[-1] not in ("script", "style"):
            self.text.append(data)


def parse(text):
    tags = Tags()
    tags.feed(text)
    tags.close()
    assert not tags.open
    return tags


def test_hours_balance_and_counts():
    takes = [
        take("anna/one", splits={"train": 300.0, "val": 60.0}),
        take("anna/two", language="de", emotion="happy"),
        take("ben/one", seconds=720.0, splits={"train": 720.0}),
        take("ben/bad", verdict="quarantined", reasons=["x 1 is above 0 (most_jumps)"]),
        {"take": "ben/worse", "verdict": "rejected", "reasons": ["cut short"]},
    ]
    found = assemble(takes)
    assert found["summary"] == {
        "takes": 5,
        "rejected": 1,
        "quarantined": 1,
        "used": 3,
        "hours": pytest.approx(0.5),
        "hours_used": pytest.approx(0.4),
    }
    assert found["hours"]["subject"] == {"anna": 0.2, "ben": 0.2}
    assert found["hours"]["language"] == {"en": 0.3, "de": 0.1}
    assert found["hours"]["split"] == {"train": pytest.approx(0.283333), "val": 0.016667}
    assert found["balance"]["subject"] == {"count": 2, "effective": 2.0}
    p = np.array([0.75, 0.25])
    assert found["balance"]["language"]["effective"] == pytest.approx(np.prod(p**-p), abs=1e-3)
    assert found["reasons"] == {"most_jumps": 1}
    assert [t["take"] for t in found["takes"][:2]] == ["ben/worse", "ben/bad"]
    assert found["measures"]["residual"]["median"] == 0.4
    assert found["measures"]["snr_db"]["threshold"] == 10.0
    assert sum(found["measures"]["snr_db"]["histogram"]["counts"]) == 4
    whole = assemble([take("a/1", split="val"), take("a/2", split="train"), take("a/3", split="")])
    assert whole["hours"]["split"] == {"train": 0.1, "val": 0.1}
    given = assemble([take()], hours={"train": 3.0})
    assert given["hours"]["split"] == {"train": 3.0}


def findings(found):
    return {(w["severity"], w["text"]) for w in found["warnings"]}


def test_what_is_wrong_is_said_in_words_worst_first():
    motion = take()["motion"]
    takes = [take(f"a/{i}", motion=motion | {"mirrored": 1.0 if i < 3 else 0.0}) for i in range(5)]
    for t in takes:
        t["audio"] = t["audio"] | {"upsampled": True, "true_rate": 8000, "band_hz": 3980.0}
    takes[0]["lips"] = {"correlation": 0.02, "belongs": False}
    found = assemble(takes, warnings=["a/3: is the frame rate right?"])
    assert ("warning", "a/3: is the frame rate right?") in findings(found)
    said = findings(found)
    assert (
        "warning",
        "3 of 5 takes have exactly equal left and right channels: "
        "no asymmetry can be learnt from them",
    ) in said
    assert any(t.startswith("all 5 takes hold 8 kHz sound stored at a higher") for _, t in said)
    assert any(s == "error" and t.startswith("1 of 5 takes have lips that do not") for s, t in said)
    assert ("note", "1 of 2 observed channels move in no take: cheekPuff") in said
    order = [findings_lib.SEVERITIES.index(w["severity"]) for w in found["warnings"]]
    assert order == sorted(order)
    assert found["takes"][0]["take"] == "a/0"
    tags = parse(report_html.render_html(found))
    text = " ".join(tags.text)
    assert text.index("lips that do not follow") < text.index("exactly equal left and right")


def test_copies_are_named_and_leaks_are_errors():
    audio = take()["audio"]
    takes = [
        take("a/1", audio=audio | {"digest": "x"}, sentence="s1"),
        take("b/1", audio=audio | {"digest": "x"}, sentence="s2"),
        take("c/1", audio=audio | {"digest": "y"}, motion=take()["motion"] | {"digest": "m"}),
        take("c/2", audio=audio | {"digest": "z"}, motion=take()["motion"] | {"digest": "m"}),
    ]
    found = assemble(takes)
    assert [(d["kind"], d["takes"]) for d in found["duplicates"]] == [
        ("same sound", ["a/1", "b/1"]),
        ("same motion", ["c/1", "c/2"]),
    ]
    assert any(s == "error" and "different sentence keys" in t for s, t in findings(found))
    takes[1]["sentence"] = "s1"
    assert not any("sentence keys" in t for _, t in findings(assemble(takes)))


def test_a_clean_set_has_nothing_to_complain_of():
    takes = [
        take(f"{who}/{i}", language="en" if i % 2 else "de", emotion="happy" if i % 2 else "sad")
        for who in ("anna", "ben")
        for i in range(4)
    ]
    for t in takes:
        t["motion"] = t["motion"] | {"dead": []}
    found = assemble(takes)
    assert found["warnings"] == []
    assert "Nothing was found." in report_html.render_html(found)


def test_files_are_equal_for_equal_input_in_any_order(tmp_path):
    takes = [take(f"p{i % 3}/{i}", seconds=10.0 + i) for i in range(20)]
    for name, given in (("a", takes), ("b", takes[::-1])):
        (tmp_path / name).mkdir()
        report.write_report(tmp_path / name, assemble(given))
    for file in ("quality.json", "quality.html"):
        assert (tmp_path / "a" / file).read_bytes() == (tmp_path / "b" / file).read_bytes()
    assert sorted(p.name for p in (tmp_path / "a").iterdir()) == ["quality.html", "quality.json"]
    assert json.loads((tmp_path / "a" / "quality.json").read_text()) == assemble(takes)
    with pytest.raises(InputError, match="does not exist"):
        report.write_report(tmp_path / "none", assemble(takes))


def test_hostile_names_are_text(tmp_path):
    takes = []
    for i, name in enumerate(HOSTILE):
        verdict = report.VERDICTS[i % 3]
        takes.append(
            take(
                f"{name}/{name}",
                subject=name,
                language=name,
                emotion=name,
                sentence=name,
                verdict=verdict,
                reasons=[name] if verdict != "used" else [],
                audio=take()["audio"] | {"digest": "same"},
            )
        )
    report.write_report(tmp_path, assemble(takes, name=HOSTILE[0], settings={"x": HOSTILE[1]}))
    text = (tmp_path / "quality.html").read_text(encoding="utf-8")
    tags = parse(text)
    assert tags.seen.count("script") == tags.seen.count("style") == 1
    assert not {"img", "iframe", "object", "link", "a"} & set(tags.seen)
    assert not [a for a in tags.attributes if a[1].startswith("on") or a[1] in ("src", "href")]
    # Nothing from outside, in styles and scripts too.
    assert not re.search(r"https?:|url\(|@import|fetch\(|\x00", text)
    shown = "".join(tags.text)
    assert "<script>alert(1)</script>/<script>alert(1)</script>" in shown
    assert "Ünïcødé-演员-😀" in shown
    assert "\u202e" not in shown
    names = {t["take"] for t in json.loads((tmp_path / "quality.json").read_text())["takes"]}
    assert names == {f"{n}/{n}" for n in HOSTILE}


def test_numbers_that_are_none_of_json_become_null(tmp_path):
    bad = take(seconds=np.float32(3.0), clock={"seconds": float("nan"), "spread": np.inf})
    bad["motion"] = bad["motion"] | {"jumps": np.float64("nan"), "frames": np.int64(3)}
    found = assemble([bad, take("b/1")])
    report.write_report(tmp_path, found)
    loaded = json.loads((tmp_path / "quality.json").read_text())
    assert loaded["takes"][0]["clock"] == {"seconds": None, "spread": None} or (
        loaded["takes"][1]["clock"] == {"seconds": None, "spread": None}
    )
    parse((tmp_path / "quality.html").read_text())


@pytest.mark.parametrize("takes", [[], [{"take": "a/b", "verdict": "rejected", "reasons": ["no"]}]])
def test_an_empty_set_has_a_report(tmp_path, takes):
    found = assemble(takes)
    report.write_report(tmp_path, found)
    parse((tmp_path / "quality.html").read_text())
    assert found["measures"] == {} or list(found["measures"]) == ["seconds"]
    if takes:
        assert ("error", "no take can be used") in findings(found)


def test_an_unknown_verdict_is_an_error():
    with pytest.raises(ValueError, match="verdict 'fine'"):
        assemble([take(verdict="fine")])


def test_fields_that_are_missing_or_none_are_left_out():
    found = assemble([take(audio=None, lips=None, clock=None, fit=None, thumbnail=None)])
    assert "snr_db" not in found["measures"]
    parse(report_html.render_html(found))


def test_histograms_show_the_threshold_where_it_is_near():
    takes = [take(f"a/{i}", audio={"snr_db": 12.0 + i}) for i in range(10)]
    measure = assemble(takes)["measures"]["snr_db"]
    assert measure["histogram"]["edges"][0] == 10.0
    assert sparklines.RED in sparklines.histogram(measure)
    far = assemble([take(f"a/{i}", audio={"clipping": 1e-6 * i}) for i in range(10)])
    assert far["measures"]["clipping"]["histogram"]["edges"][-1] == pytest.approx(9e-6)


@pytest.mark.parametrize(
    "value, shown",
    [(0, "0"), (None, ""), (float("nan"), ""), (1234567.0, "1.23e+06"), (0.033333, "0.0333")]
    + [(-88.0, "-88"), (4355.2, "4355"), (10.0, "10"), (99.96, "100"), (1e-6, "1.00e-06")],
)
def test_numbers_for_people(value, shown):
    assert sparklines.format_number(value) == shown


def test_thousands_of_takes_fit_on_one_page(tmp_path):
    rng = np.random.default_rng(0)
    takes = []
    for i in range(5_000):
        verdict = "quarantined" if i % 50 == 0 else "used"
        audio = take()["audio"] | {"snr_db": float(rng.normal(30, 8))}
        takes.append(take(f"p{i % 60}/take_{i:05d}", audio=audio, verdict=verdict))
    start = time.process_time()
    report.write_report(tmp_path, assemble(takes))
    assert time.process_time() - start < 4
    size = (tmp_path / "quality.html").stat().st_size
    assert size < 5e6
    text = (tmp_path / "quality.html").read_text()
    assert f"The worst {report_html.MAX_ROWS} of 5000 are shown" in text
    assert text.count("<tr>") == report_html.MAX_ROWS + 1
    lines = (tmp_path / "quality.json").read_text()
    assert lines.count('{"take":') == 5_000
    assert lines.count('"thumbnail":') == report.MAX_THUMBNAILS
