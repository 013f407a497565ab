"""The page: whole by itself, valid, escaped, and showing what the JSON holds."""

import html.parser
import json

import numpy as np
import pytest

import a2fjax as a2f
from a2fjax import rig
from a2fjax.cli import main as cli
from a2fjax.errors import InputError
from a2fjax.evaluation import report_page, report_text, timelines
from a2fjax.evaluation.evaluator import evaluate

VOID = {"meta", "br", "img", "link", "rect", "line", "polyline"}


class Reader(html.parser.HTMLParser):
    """Checks nesting, and collects tags, attributes and text."""

    def __init__(self, text):
        super().__init__()
        self.open, self.tags, self.values, self.text = [], [], [], []
        self.feed(text)
        self.close()
        assert not self.open

    def handle_starttag(self, tag, attrs):
        self.tags.append(tag)
        self.values += [value or "" for name, value in attrs]
        if tag not in VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag, attrs):
        self.tags.append(tag)

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def handle_data(self, data):
        self.text.append(data)


@pytest.fixture(scope="module")
def values(shards, stand_in):
    def change(truth, request):
        out = 0.9 * truth
        out[:, rig.INDEX["jawOpen"]] += 0.05 * np.sin(np.arange(len(out)) / 5)
        return out

    return json.loads(json.dumps(evaluate(stand_in(shards, change), resamples=20)))


def test_the_page_needs_nothing_else_and_holds_the_figures(values):
    text = report_page.page(values)
    read = Reader(text)
    assert "script" not in read.tags and "link" not in read.tags
    assert not any("http" in value or "url(" in value for value in read.values)
    assert "url(" not in text and "@import" not in text
    shown = "\n".join(read.text)
    part = values["splits"]["test_subjects"]
    assert f"{part['model']['rmse_ratio']:.3f}" in shown
    for name in ("u0 (4 clips)", "jawOpen", "shifted_2", "model, noise_20db", "ridge"):
        assert name in shown, name
    assert read.tags.count("svg") == sum(len(p["timelines"]) for p in values["splits"].values())
    assert "@media print" in text
    # Columns without figures, such as a judge's without a judge, are neither shown nor explained.
    legend = report_text.table(values)
    for label, there in (("j_dist", False), ("pbm", False), ("recall", True)):
        assert (label in read.text) is there and (f"{label} = " in legend) is there


def test_names_are_escaped_everywhere(values):
    wicked = "<script>alert('x')</script>&\"'"
    spoilt = json.loads(json.dumps(values))
    spoilt["run"] = wicked
    spoilt["headline"].append(wicked)
    spoilt["data"][0]["folder"] = wicked
    for part in spoilt["splits"].values():
        part["by_subject"][wicked] = part["by_subject"].pop(next(iter(part["by_subject"])))
        part["by_clip"][0].update(id=wicked, subject=wicked, emotion=wicked)
        part["timelines"][0].update(id=wicked, emotion=wicked)
        part["by_channel"][wicked] = part["by_channel"].pop("jawOpen")
        part["baselines"][wicked] = part["baselines"].pop("ridge")
    spoilt["splits"][wicked] = spoilt["splits"].pop("test_subjects")
    for column in spoilt["columns"]:
        column["label"] = column["meaning"] = wicked
    text = report_page.page(spoilt)
    assert "script" not in Reader(text).tags and "<script" not in text


def test_channels_are_measured_one_by_one(shards, values):
    part = values["splits"]["test_subjects"]
    clips = [c for c in shards[1] if c.split == "test_subjects"]
    jaw = rig.INDEX["jawOpen"]
    errors = [
        0.05 * np.sin(np.arange(c.frames) / 5) - 0.1 * c.motion[:, jaw].astype(float) for c in clips
    ]
    expected = np.sqrt(np.mean(np.concatenate(errors) ** 2))
    assert part["by_channel"]["jawOpen"]["rmse"] == pytest.approx(expected, rel=1e-5)
    assert part["by_channel"]["mouthSmileLeft"]["amp_ratio"] == pytest.approx(0.9)
    assert len(part["by_channel"]) == 72


def test_timelines_are_of_the_worst_clips_and_tell_met_from_missed(values):
    part = values["splits"]["test_subjects"]
    worst = [clip["id"] for clip in part["by_clip"]]
    assert [line["id"] for line in part["timelines"]] == worst[: timelines.WORST]
    hits = [met for line in part["timelines"] for *_, met in line["truth_closures"]]
    made = [met for line in part["timelines"] for *_, met in line["model_closures"]]
    assert made and any(hits) and not all(hits)


def test_timelines_count_as_the_metric_does(shards, stand_in):
    from a2fjax.evaluation import eval_clips

    source = eval_clips.ClipSource([str(shards[0])], "test_subjects")
    (chunk,) = eval_clips.SplitClips(source).chunks()
    from a2fjax.metrics import suite

    for sample in chunk:
        motion = np.roll(sample.clip.motion, 3, axis=0) + 0.01
        sums = suite.sums(motion, sample.truth)
        line = timelines.timeline(sample, motion, 0.5)
        assert len(line["truth_closures"]) == sums["lips/truth_events"]
        assert sum(e[2] for e in line["truth_closures"]) == sums["lips/hit"]
        assert len(line["model_closures"]) == sums["lips/predicted_events"]
        assert sum(e[2] for e in line["model_closures"]) == sums["lips/right"]


def test_the_command_turns_json_into_a_page(values, tmp_path, capsys):
    source, out = tmp_path / "a.json", tmp_path / "new" / "a.html"
    source.write_text(json.dumps(values))
    again = tmp_path / "b.json"
    assert (
        cli.main(["evaluate", "--show", str(source), "--out", str(out), "--out", str(again)]) == 0
    )
    assert out.read_text() == report_page.page(values)
    assert a2f.Report.read(again).values == values
    argv = ["evaluate", "x", "--samples", "2", "--out", str(out)]
    assert cli.main(argv) == 2 and "JSON only" in capsys.readouterr().err


@pytest.mark.parametrize(
    "spoil",
    [
        lambda v: v["columns"][0].update(form=3),
        lambda v: v.update(columns=[{}]),
        lambda v: v["splits"]["test_subjects"]["timelines"][0].update(truth="abc"),
        lambda v: v["splits"]["test_subjects"]["by_subject"].update(x=3),
        lambda v: v["splits"].update(x=[]),
        lambda v: v.update(predictions={"folder": "x"}),
        lambda v: v.update(against={}),
    ],
)
def test_damaged_reports_of_others_are_one_line(values, tmp_path, spoil):
    broken = json.loads(json.dumps(values))
    spoil(broken)
    path = tmp_path / "broken.json"
    path.write_text(json.dumps(broken))
    with pytest.raises(InputError, match=r"broken.json"):
        a2f.Report.read(path)


@pytest.mark.parametrize("form", ["{:.999999999f}", "{0.__class__}", "{:.2f}" + 50 * " "])
def test_number_formats_of_others_are_not_run_blindly(values, tmp_path, form):
    strange = json.loads(json.dumps(values))
    strange["columns"][0]["form"] = form
    path = tmp_path / "strange.json"
    path.write_text(json.dumps(strange))
    read = a2f.Report.read(path).values
    assert read["columns"][0]["form"] == "{:.3f}"
    assert report_page.page(read) == report_page.page(values)
