"""A report as one HTML page without scripts or other files, for browsers and for print."""

from __future__ import annotations

import html
from collections.abc import Sequence
from typing import Any

from a2fjax import rig
from a2fjax.evaluation import page_judge, paired, predictions, report
from a2fjax.evaluation.layout import count, count_people
from a2fjax.evaluation.page_table import framed, table

SHOWN_CLIPS = 40
"""Number of clips in the table, the worst first; the JSON contains all."""

_WIDTH, _HEIGHT, _ROOM = 960.0, 110.0, 30.0
_LEAST_SECONDS = 4.0

_STYLE = """
 body { font: 14px/1.45 system-ui, sans-serif; color: #222; margin: 24px auto; max-width: 1320px;
  padding: 0 16px; }
 h1 { font-size: 22px; } h2 { font-size: 18px; margin-top: 36px; border-bottom: 1px solid #ccc; }
 h3 { font-size: 15px; margin: 22px 0 6px; }
 p { margin: 4px 0; } .note { color: #666; font-size: 12.5px; }
 .wide { overflow-x: auto; }
 table { border-collapse: collapse; font-size: 12.5px; font-variant-numeric: tabular-nums; }
 th, td { padding: 2px 8px; text-align: right; border-bottom: 1px solid #e6e6e6;
  white-space: nowrap; }
 th:first-child, td:first-child, .text th, .text td { text-align: left; }
 thead th { border-bottom: 1px solid #888; }
 tr.own td { font-weight: 600; }
 td.bar { text-align: left; width: 140px; }
 td.bar div { height: 9px; background: #4c78a8; }
 figure { margin: 10px 0 18px; } figcaption { font-size: 12.5px; }
 svg { max-width: 100%; height: auto; }
 @page { size: A4 landscape; margin: 12mm; }
 @media print { body { max-width: none; margin: 0; font-size: 10px; }
  table { font-size: 8px; } th, td { padding: 1px 3px; }
  .wide { overflow: visible; } figure, tr { break-inside: avoid; } h2, h3 { break-after: avoid; } }
"""


def page(values: dict[str, Any]) -> str:
    """Returns a report as HTML; every text in it is escaped.

    Args:
      values: a report, as `report.read` returns it.
    """
    kind = "synthetic data" if values["synthetic"] else "recorded data"
    title = f"{report.subject(values)}, on {kind}"
    parts = [f"<h1>{_text(title)}</h1>"]
    parts += [f"<p>{_text(line)}</p>" for line in values["headline"]]
    if values["predictions"]:
        found = predictions.findings(values["predictions"])
        parts += ["<h3>How the files were read</h3>", *(f"<p>{_text(x)}</p>" for x in found)]
    if "against" in values:
        parts += _against(values["against"])
    parts += page_judge.section(values)
    for split, part in values["splits"].items():
        parts += _split(split, part, values["columns"])
    used = report.figures_of(values)
    explained = [c for c in values["columns"] if c["value"] in used]
    parts += ["<h2>Columns</h2>", *_columns(explained), *_origin(values)]
    return (
        '<!doctype html>\n<html lang="en"><head><meta charset="utf-8">'
        '<meta name="viewport" content="width=device-width, initial-scale=1">'
        f"<title>{_text(title)}</title>\n<style>{_STYLE}</style></head>\n<body>\n"
        + "\n".join(parts)
        + "\n</body></html>\n"
    )


def _text(value: Any) -> str:
    return html.escape(str(value))


def _figure(value: Any, form: str) -> str:
    is_number = isinstance(value, int | float) and not isinstance(value, bool)
    return form.format(value) if is_number else "-"


def _row(name: str, figures: dict[str, Any], columns: Sequence[dict[str, str]]) -> list[str]:
    return [name, *(_figure(figures.get(c["value"]), c["form"]) for c in columns)]


def _split(split: str, part: dict[str, Any], columns: Sequence[dict[str, str]]) -> list[str]:
    interval = part["interval"]
    shown = [part["model"], *part["baselines"].values(), *part["robustness"].values()]
    columns = [c for c in columns if any(row.get(c["value"]) is not None for row in shown)]
    header = ["", *(c["label"] for c in columns)]
    sides = [{k: v[side] if v else None for k, v in interval.items()} for side in (0, 1)]
    rows = [_row("model", part["model"], columns)]
    for name, side in zip(("95% low", "95% high"), sides, strict=True):
        rows.append(_row(f"  {name}", side, columns))
    clips = part.get("baseline_clips", {})
    for name, figures in part["baselines"].items():
        fewer = clips.get(name, part["clips"]) < part["clips"]
        label = f"{name} ({count(clips[name], 'clip')})" if fewer else name
        rows.append(_row(label, figures, columns))
    rows += [_row(f"model, {n}", f, columns) for n, f in part["robustness"].items()]
    people = count_people(part["subjects"])
    out = [
        f"<h2>{_text(split)}</h2>",
        f"<p>{count(part['clips'], 'clip')}, {people}, {part['seconds']:.0f} s</p>",
        table(header, rows, own=1),
    ]
    changes = _changes(part)
    if changes:
        title = f"What a condition adds to the ratio (paired over {people})"
        names = ["", "added", "95% low", "95% high", "p"]
        out += [f"<h3>{title}</h3>", table(names, changes)]
    for key, name in (("by_subject", "person"), ("by_emotion", "emotion")):
        every = sorted(
            part[key].items(), key=lambda item: -(item[1]["metrics"].get("rmse_ratio") or 0.0)
        )
        rows = [_row(f"{n} ({count(p['clips'], 'clip')})", p["metrics"], columns) for n, p in every]
        out += [f"<h3>By {name}, the worst first</h3>", table(header, rows)]
    out += _channels(part["by_channel"])
    out += _clips(part, columns)
    if part["timelines"]:
        out += ["<h3>Closures of the worst clips</h3>", _LEGEND]
        out += [_timeline(line) for line in part["timelines"]]
    return out


def _changes(part: dict[str, Any]) -> list[list[str]]:
    rows = []
    for name, tests in part.get("difference", {}).items():
        change = tests.get("rmse_ratio", {})
        shown = [_figure(change.get(k), "{:+.3f}") for k in ("difference", "low", "high")]
        rows.append([name, *shown, _figure(change.get("p"), "{:.3f}")])
    return rows


def _channels(found: dict[str, Any]) -> list[str]:
    if not found:
        return []

    def size(name: str) -> float:
        scale = float(rig.SCALE[rig.INDEX[name]]) if name in rig.INDEX else 1.0
        return (found[name].get("rmse") or 0.0) / scale

    largest = max(map(size, found)) or 1.0
    lines = []
    wrong = [name for name in sorted(found, key=size, reverse=True) if size(name) > 0]
    for name in wrong:
        angle = name in rig.EYE_ANGLES
        cells = [
            _figure(found[name].get(key), form)
            for key, form in (
                ("rmse", "{:.2f} deg" if angle else "{:.4f}"),
                ("mae", "{:.2f} deg" if angle else "{:.4f}"),
                ("corr", "{:.2f}"),
                ("amp_ratio", "{:.2f}"),
            )
        ]
        bar = f'<td class="bar"><div style="width:{100 * size(name) / largest:.1f}%"></div></td>'
        data = "".join(f"<td>{_text(cell)}</td>" for cell in cells)
        lines.append(f"<tr><td>{_text(name)}</td>{bar}{data}</tr>")
    head = "".join(f"<th>{cell}</th>" for cell in ("", "", "rmse", "mae", "corr", "amp"))
    exact = len(found) - len(wrong)
    note = f'<p class="note">and {count(exact, "channel")} without error</p>'
    return [
        "<h3>By channel, the worst first</h3>",
        framed(head, lines),
        *([note] if exact else []),
    ]


def _clips(part: dict[str, Any], columns: Sequence[dict[str, str]]) -> list[str]:
    shown = [c for c in columns if c["value"] in report.CLIP_METRICS]
    rows = [
        [clip["id"], clip["subject"], clip["emotion"], *_row("", clip, shown)[1:]]
        for clip in part["by_clip"][:SHOWN_CLIPS]
    ]
    more = len(part["by_clip"]) - len(rows)
    header = ["clip", "person", "emotion", *(c["label"] for c in shown)]
    note = [f'<p class="note">and {more} more in the JSON</p>'] if more > 0 else []
    return ["<h3>By clip, the worst first</h3>", table(header, rows), *note]


_LEGEND = (
    '<p class="note">Aperture over time: truth grey, model blue; dashed: lips below it count '
    "as closed; shaded: speech. Bars above: closures of the truth (green where the model "
    "closes too, red where it misses); below: closures of the model (blue where the truth is "
    "closed, orange where it is not).</p>"
)


def _timeline(line: dict[str, Any]) -> str:
    truth, model = line["truth"], line["model"]
    frames = max(len(truth), 2)
    step = _WIDTH / max(frames - 1, _LEAST_SECONDS * rig.FPS)
    values = [*truth, *model, 0.0, line["bound"] or 0.0]
    low, high = min(values), max(max(values), min(values) + 0.05)

    def x(frame: float) -> float:
        return frame * step

    def y(value: float) -> float:
        return _ROOM / 2 + _HEIGHT * (1 - (value - low) / (high - low))

    def bars(events: Sequence[Sequence[Any]], top: float, met: str, missed: str) -> str:
        return "".join(
            f'<rect x="{x(start):.1f}" y="{top}" width="{max(x(stop - start), 2):.1f}" height="8" '
            f'fill="{met if good else missed}"/>'
            for start, stop, good in events
        )

    def curve(points: Sequence[float], colour: str) -> str:
        path = " ".join(f"{x(t):.1f},{y(v):.1f}" for t, v in enumerate(points))
        return f'<polyline points="{path}" fill="none" stroke="{colour}" stroke-width="1.3"/>'

    shaded = "".join(
        f'<rect x="{x(start):.1f}" y="{_ROOM / 2}" width="{x(stop - start):.1f}" '
        f'height="{_HEIGHT}" fill="#f3f3ee"/>'
        for start, stop in line["speech"]
    )
    bound = ""
    if line["bound"] is not None:
        at = f"{y(line['bound']):.1f}"
        bound = (
            f'<line x1="0" x2="{x(frames - 1):.1f}" y1="{at}" y2="{at}" stroke="#999" '
            'stroke-dasharray="4 3"/>'
        )
    seconds = "".join(
        f'<text x="{x(t):.1f}" y="{_HEIGHT + _ROOM + 12:.0f}" font-size="10" fill="#888">'
        f"{t // rig.FPS} s</text>"
        for t in range(0, frames, rig.FPS * max(1, frames // (20 * rig.FPS)))
    )
    caption = f"{line['id']} ({line['emotion']}), ratio {line['ratio']:.3f}"
    return (
        f"<figure><figcaption>{_text(caption)}</figcaption>"
        f'<svg viewBox="0 0 {_WIDTH + 24:.0f} {_HEIGHT + _ROOM + 16:.0f}" '
        f'width="{_WIDTH + 24:.0f}" role="img" aria-label="{_text(caption)}">'
        f"{shaded}{bound}{curve(truth, '#777')}{curve(model, '#1f6fb4')}"
        f"{bars(line['truth_closures'], 2, '#2a9d4a', '#d62728')}"
        f"{bars(line['model_closures'], _HEIGHT + _ROOM / 2 + 5, '#1f6fb4', '#ff7f0e')}{seconds}"
        "</svg></figure>"
    )


def _against(compared: dict[str, Any]) -> list[str]:
    out = ["<h2>Against other runs</h2>"]
    out += [f"<p>{side}: {_text(', '.join(compared[side]))}</p>" for side in ("first", "second")]
    out.append(f'<p class="note">{_text(paired.LEGEND)}</p>')
    for split, part in compared["splits"].items():
        title = _text(paired.title(split, part))
        out += [f"<h3>{title}</h3>", table(*paired.rows(part))]
    return out


def _columns(columns: Sequence[dict[str, str]]) -> list[str]:
    rows = [[c["label"], c["value"], c["unit"] or "-", c["better"], c["meaning"]] for c in columns]
    shown = table(["column", "figure", "unit", "better", "meaning"], rows)
    return [f'<div class="text">{shown}</div>']


def _origin(values: dict[str, Any]) -> list[str]:
    folders = ", ".join(f"{d['folder']} ({d['fingerprint']})" for d in values.get("data", []))
    text = (
        f"model {values.get('model')}, rig {values.get('rig')}, shards {folders}, seed "
        f"{values.get('seed')}, {values.get('resamples')} bootstrap draws over people"
    )
    return ["<h2>Origin</h2>", f'<p class="note">{_text(text)}</p>']
