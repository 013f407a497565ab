"""The table of a sweep: its order, its forms, and that the page needs nothing but itself."""

import csv
import html.parser
import io
import re
import xml.etree.ElementTree as ET

import pytest
from hypothesis import given
from hypothesis import strategies as st

from a2fjax.errors import InputError
from launch.monitor import table, table_files, table_html
from launch.sweeps import sweep


def row(run, value=None, state="done", **given):
    metrics = {} if value is None else {"error": value, "lag": 1.5}
    out = {"run": run, "state": state, "step": 5, "steps": 10, "seconds": 61.0}
    return {**out, "overrides": sweep.overrides(given), "metrics": metrics}


ROWS = [
    row("a", 0.3, lr=1e-3, kind="x"),
    row("b", float("nan"), lr=1e-4, kind="y"),
    row("c", 0.1, lr=1e-4, kind="y"),
    row("d", 0.01, state="running", lr=1e-2, kind="x"),
    row("e", state="failed", kind="<b>&"),
    {"run": "f"},
]


def names(rows):
    return [r["run"] for r in rows]


def test_finished_runs_come_first_and_what_is_missing_last():
    assert names(table.ordered(ROWS, "error")) == ["c", "a", "b", "d", "e", "f"]
    assert names(table.ordered(ROWS, "-error")) == ["a", "c", "b", "d", "e", "f"]
    assert names(table.ordered([{"run": "x"}], "anything")) == ["x"]
    with pytest.raises(InputError, match="eror.*did you mean 'error'"):
        table.ordered(ROWS, "eror")
    with pytest.raises(InputError, match="more is better"):
        table.text(ROWS, "-")


def test_text_has_what_differs():
    lines = table.text([row("a", 0.3, lr=1e-3, fixed=1), row("b", 0.1, lr=3e-4, fixed=1)], "error")
    head, first, _ = lines.splitlines()
    assert head.split() == ["run", "error", "lr", "state", "step", "time"]
    assert first.split() == ["b", "0.1", "0.0003", "done", "5/10", "61.0", "s"]


def test_csv_has_everything():
    found = list(csv.DictReader(io.StringIO(table.csv(ROWS, "error"))))
    assert [r["run"] for r in found] == ["c", "a", "b", "d", "e", "f"]
    assert found[0] == {
        "run": "c",
        "state": "done",
        "step": "5",
        "steps": "10",
        "seconds": "61.0",
        "metric.error": "0.1",
        "metric.lag": "1.5",
        "config.lr": "0.0001",
        "config.kind": "y",
    }
    assert found[5]["config.lr"] == "" and found[5]["step"] == ""


class Page(html.parser.HTMLParser):
    def __init__(self, text):
        super().__init__()
        self.tags, self.rows = [], []
        self.feed(text)

    def handle_starttag(self, tag, attrs):
        self.tags.append((tag, dict(attrs)))


def test_the_page_needs_nothing_else_and_names_cannot_break_it(tmp_path):
    rows = [*ROWS, row("</td><script>alert(1)</script>@table@", 0.2, kind="\"'<")]
    table_files.write(tmp_path / "t.html", rows, "error", "<i>@plot@</i>")
    text = (tmp_path / "t.html").read_text()
    page = Page(text)
    assert not [a for _, a in page.tags if {"src", "href"} & set(a)] and "http" not in text
    assert len([t for t, _ in page.tags if t == "script"]) == 1
    assert "<i>" not in text and "&lt;i&gt;@plot@" in text
    assert len([t for t, a in page.tags if t == "tr" and "data-row" in a]) == len(rows)
    svg = ET.fromstring(re.search(r"<svg.*?</svg>", text, re.DOTALL)[0])
    lines = [g for g in svg if g.get("class", "").startswith("line")]
    assert len(lines) == len(rows) and "prefers-color-scheme: dark" in text
    assert not re.search(r"\b(nan|inf)\b", "".join(g.find("path").get("d") for g in lines))
    # The best is drawn last, and is all of the best colour.
    assert lines[-1].get("data-row") == "0"
    assert "100%" in [g for g in lines if g.find("title").text.startswith("d:")][0].get("style")


def test_a_page_without_a_plot_says_why():
    assert "no value differs" in table_files.page([row("a", 0.3)], "error")
    assert "no run has the metric" in table_files.page([row("a", lr=1), row("b", lr=2)], "error")
    assert "0 runs" in table_files.page([], "error")


@pytest.mark.parametrize(
    ("values", "kind"),
    [
        ([1e-4, 3e-4, 1e-3], "log"),
        ([1, 10], "log"),
        ([1, 2], "linear"),
        ([0, 0.1, 0.2], "linear"),
        ([0.1, 0.2, 0.3, 0.4], "linear"),
        ([-1, 10, 100], "linear"),
        ([5], "linear"),
        (["x", "y"], "words"),
        ([True, False], "words"),
        ([1, "x"], "words"),
        ([(1, 2), (3,)], "words"),
    ],
)
def test_axes_are_of_the_kind_of_their_values(values, kind):
    found = table_html.axis("k", values)
    assert found.kind == kind
    assert all(0 <= found.position(v) <= 1 for v in values) and found.ticks()


@given(st.lists(st.floats(-1e9, 1e9), min_size=1, max_size=20))
def test_any_numbers_have_an_axis(values):
    found = table_html.axis("k", values)
    assert all(-1e-9 <= found.position(v) <= 1 + 1e-9 for v in values)
    assert all(-1e-9 <= place <= 1 + 1e-9 for place, _ in found.ticks()) and found.ticks()


def test_the_ending_chooses_the_format(tmp_path):
    for ending in ("csv", "txt", "html"):
        table_files.write(tmp_path / f"t.{ending}", ROWS, "error")
    with pytest.raises(InputError, match="expected one of: .csv, .html, .txt"):
        table_files.write(tmp_path / "t.pdf", ROWS, "error")
    with pytest.raises(InputError):
        table_files.write(tmp_path / "u.csv", ROWS, "eror")
    assert sorted(p.name for p in tmp_path.iterdir()) == ["t.csv", "t.html", "t.txt"]
