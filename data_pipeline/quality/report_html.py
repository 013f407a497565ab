"""Renders the quality report as one HTML page: findings first, names escaped, no external files.

The page is readable without scripts; a short one sorts the table.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import Any

from data_pipeline.quality import sparklines
from data_pipeline.quality.report_measures import MEASURES
from data_pipeline.quality.sparklines import escape, format_number

MAX_ROWS = 1000
"""Rows of the table of takes; the JSON has all."""

_MOST_LINES = 100
_MOST_BARS = 16
_WORDS = {"used": "used", "quarantined": "quarantined", "rejected": "not readable"}

_STYLE = """
:root{color-scheme:light}
*{box-sizing:border-box}
body{font:15px/1.5 system-ui,sans-serif;color:#1d2129;background:#f6f7f9;margin:0}
main{max-width:1180px;margin:0 auto;padding:24px 20px 60px}
h1{font-size:22px;line-height:1.3;margin:0 0 4px;overflow-wrap:anywhere}
h2{font-size:17px;margin:34px 0 10px}
h3{font-size:13px;margin:0 0 4px;font-weight:600}
h3 .soft{font-weight:400}
p{margin:4px 0 10px}
.soft{color:#5c6470;font-size:13px;overflow-wrap:anywhere}
.cards{display:grid;grid-template-columns:repeat(auto-fill,minmax(130px,1fr));gap:10px;
margin:16px 0}
.card,.plot,.box{background:#fff;border:1px solid #e1e4ea;border-radius:8px;padding:10px 12px}
.card b{display:block;font-size:22px;line-height:1.2}
.card span{color:#5c6470;font-size:13px}
ul.found{list-style:none;padding:0;margin:0}
ul.found li{background:#fff;border:1px solid #e1e4ea;border-left:4px solid #8a93a3;
border-radius:6px;padding:7px 12px;margin:6px 0;overflow-wrap:anywhere}
ul.found li.error{border-left-color:#b3261e}
ul.found li.warning{border-left-color:#d08a00}
.tag{display:inline-block;font-size:12px;border-radius:4px;padding:0 6px;background:#e9ecf1;
white-space:nowrap}
.error>.tag,.tag.rejected,.tag.quarantined{background:#f9dedc;color:#8c1d18}
.warning>.tag{background:#fdefd2;color:#7a5200}
.tag.used{background:#dcefe0;color:#1c5b2d}
.wide{overflow-x:auto;background:#fff;border:1px solid #e1e4ea;border-radius:8px}
table{border-collapse:collapse;width:100%;font-size:13px}
th,td{padding:5px 9px;text-align:right;border-bottom:1px solid #eceef2;vertical-align:top;
white-space:nowrap}
th{background:#fafbfc;font-weight:600;vertical-align:bottom}
th small{font-weight:400;color:#5c6470}
.l{text-align:left}
td.why{white-space:normal;min-width:240px;max-width:420px;overflow-wrap:anywhere}
td.take{white-space:normal;min-width:190px;max-width:260px;overflow-wrap:anywhere}
.why b{font-weight:600;color:#8c1d18}
td.bad{color:#b3261e;font-weight:600}
button.s{all:unset;cursor:pointer}
button.s:hover,button.s:focus-visible{text-decoration:underline}
.grid{display:grid;grid-template-columns:repeat(auto-fill,minmax(250px,1fr));gap:12px;
align-items:start}
svg{display:block;width:100%;height:auto}
.plot p{font-size:12px;margin:0;color:#5c6470;overflow-wrap:anywhere}
.bar{display:grid;grid-template-columns:minmax(90px,4fr) 4fr 78px;gap:8px;align-items:center;
font-size:13px}
.bar .name{overflow-wrap:anywhere}
.track{background:#eceef2;border-radius:3px;height:10px}
.track span{display:block;height:10px;border-radius:3px;background:#3b6ea5}
.value{text-align:right;white-space:nowrap}
pre{white-space:pre-wrap;overflow-wrap:anywhere;font-size:12px;margin:6px 0}
@media(max-width:560px){main{padding:14px 10px 40px}.cards{grid-template-columns:1fr 1fr}}
"""

_SCRIPT = """
document.querySelectorAll('button.s').forEach(function(b){b.onclick=function(){
var th=b.parentNode,n=th.cellIndex,body=th.closest('table').tBodies[0],
up=th.getAttribute('aria-sort')!=='ascending',
key=function(r){var c=r.cells[n],v=c.getAttribute('data-v');
return v===null?c.textContent.toLowerCase():v===''?null:parseFloat(v)};
th.parentNode.querySelectorAll('th').forEach(function(t){t.removeAttribute('aria-sort')});
th.setAttribute('aria-sort',up?'ascending':'descending');
Array.from(body.rows).map(function(r,i){return[key(r),i,r]}).sort(function(a,b){
if(a[0]===null||b[0]===null)return(a[0]===null)-(b[0]===null)||a[1]-b[1];
return(a[0]<b[0]?-1:a[0]>b[0]?1:0)*(up?1:-1)||a[1]-b[1]}).forEach(function(x){
body.appendChild(x[2])})}});
"""


def render_html(report: Mapping[str, Any]) -> str:
    """Returns the page of a report as valid HTML, the same for equal reports."""
    title = f"Quality of {escape(report.get('name') or 'a set')}"
    sections = (
        _head(title, report),
        _findings(report),
        _quarantine_reasons(report),
        _measures(report),
        _hours(report),
        _duplicates(report),
        _pictures(report),
        _takes(report),  # near the end, as it may have hundreds of rows
        _settings(report),
    )
    return (
        '<!DOCTYPE html>\n<html lang="en">\n<head>\n<meta charset="utf-8">\n'
        '<meta name="viewport" content="width=device-width,initial-scale=1">\n'
        f"<title>{title}</title>\n<style>{_STYLE}</style>\n</head>\n<body>\n<main>\n"
        + "\n".join(s for s in sections if s)
        + f"\n</main>\n<script>{_SCRIPT}</script>\n</body>\n</html>\n"
    )


def _head(title: str, report: Mapping[str, Any]) -> str:
    s = report["summary"]
    cards = [
        (f"{s['used']} of {s['takes']}", "takes used"),
        (_time(s["hours_used"]), f"used of {_time(s['hours'])}"),
    ]
    if s["quarantined"]:
        cards.append((str(s["quarantined"]), "quarantined"))
    if s["rejected"]:
        cards.append((str(s["rejected"]), "not readable"))
    for kind, many in (("subject", "people"), ("language", "languages"), ("emotion", "emotions")):
        count = report["balance"][kind]["count"]
        if count:
            cards.append((str(count), kind if kind != "subject" and count == 1 else many))
    shown = "".join(f'<div class="card"><b>{a}</b><span>{b}</span></div>' for a, b in cards)
    layout = f"Layout {escape(report['layout'])}. " if report.get("layout") else ""
    return (
        f'<h1>{title}</h1>\n<p class="soft">{layout}All numbers, of every take, are in '
        f'quality.json beside this page.</p>\n<div class="cards">{shown}</div>'
    )


def _findings(report: Mapping[str, Any]) -> str:
    rows = []
    for item in report["warnings"][:_MOST_LINES]:
        names, count = item["takes"], item["count"]
        # Names add no information if all takes are affected.
        few = names and count < report["summary"]["takes"]
        more = f" and {count - len(names)} more" if count > len(names) else ""
        which = f'<div class="soft">{_names(names)}{more}</div>' if few else ""
        words = escape(item["text"])
        kind = escape(item["severity"])
        rows.append(
            f'<li class="{kind}"><span class="tag">{kind}</span> '
            f"{words[:1].upper()}{words[1:]}.{which}</li>"
        )
    if not rows:
        return "<h2>What is wrong</h2><p>Nothing was found.</p>"
    return f'<h2>What is wrong</h2><ul class="found">{"".join(rows)}</ul>'


def _quarantine_reasons(report: Mapping[str, Any]) -> str:
    if not report["reasons"]:
        return ""
    rows = sparklines.bar_chart(list(report["reasons"].items())[:_MOST_BARS], "takes")
    return f'<h2>Why takes are quarantined</h2><div class="box">{rows}</div>'


def _takes(report: Mapping[str, Any]) -> str:
    takes = report["takes"]
    columns = [m for m in MEASURES if m.name in report["measures"]]
    head = [_th("take", "l"), _th("verdict", "l"), _th("why, and what else", "l")]
    head += [_th(m.label, "", m.unit) for m in columns]
    head += [_th("language", "l"), _th("emotion", "l")]
    rows = [_take_row(t, columns, report["thresholds"]) for t in takes[:MAX_ROWS]]
    note = ""
    if len(takes) > MAX_ROWS:
        note = f" The worst {MAX_ROWS} of {len(takes)} are shown; quality.json has all."
    return (
        f'<h2>Takes</h2><p class="soft">Worst first; press a heading to sort.{note}</p>\n'
        f'<div class="wide" tabindex="0"><table><thead><tr>{"".join(head)}</tr></thead>\n'
        f"<tbody>\n{chr(10).join(rows)}\n</tbody></table></div>"
    )


def _th(label: str, style: str, unit: str = "") -> str:
    small = f" <small>{escape(unit)}</small>" if unit else ""
    kind = f' class="{style}"' if style else ""
    return f'<th scope="col"{kind}><button class="s" type="button">{label}</button>{small}</th>'


def _take_row(take: Mapping[str, Any], columns: Sequence[Any], thresholds: Mapping) -> str:
    reasons = "".join(f"<b>{escape(r)}</b><br>" for r in take["reasons"])
    why = reasons + escape("; ".join(take["findings"]))
    cells = [
        f'<td class="l take"><bdi>{escape(take["take"])}</bdi></td>',
        f'<td class="l"><span class="tag {take["verdict"]}">{_WORDS[take["verdict"]]}</span></td>',
        f'<td class="l why">{why}</td>',
    ]
    for measure in columns:
        value, limit = measure.value(take), thresholds.get(measure.threshold)
        bad = ""
        if (
            value is not None
            and limit
            and any(f"({measure.threshold})" in r for r in take["reasons"])
        ):
            bad = ' class="bad"'
        shown = format_number(value * 100 if measure.share and value is not None else value)
        exact = "" if value is None else f"{value:.6g}"
        cells.append(f'<td{bad} data-v="{exact}">{shown}</td>')
    cells += [f'<td class="l"><bdi>{escape(take[k])}</bdi></td>' for k in ("language", "emotion")]
    return f"<tr>{''.join(cells)}</tr>"


def _measures(report: Mapping[str, Any]) -> str:
    shares = {m.name for m in MEASURES if m.share}
    boxes, same = [], []
    for name, measure in report["measures"].items():
        percent = name in shares
        factor, unit = (100.0, "%") if percent else (1.0, measure["unit"])
        if measure["min"] == measure["max"] and measure["count"] > 1:
            value = f"{format_number(measure['min'] * factor)} {escape(unit)}".strip()
            same.append(f"{escape(measure['label'])} {value}")
            continue
        middle, low, high = (format_number(measure[k] * factor) for k in ("median", "p5", "p95"))
        boxes.append(
            f'<div class="plot"><h3>{escape(measure["label"])} '
            f'<span class="soft">{escape(unit)}</span>'
            f"</h3>{sparklines.histogram(measure, percent=percent)}<p>median {middle}, "
            f"nine in ten from {low} to {high}; {measure['count']} takes</p></div>"
        )
    if not boxes and not same:
        return ""
    constant = f"<p>The same in all takes: {', '.join(same)}.</p>" if same else ""
    return (
        '<h2>Measures</h2><p class="soft">Takes by value. Beyond the dashed line a take is '
        f'quarantined.</p>{constant}<div class="grid">{"".join(boxes)}</div>'
    )


def _hours(report: Mapping[str, Any]) -> str:
    boxes = []
    for kind, each in report["hours"].items():
        if not each:
            continue
        items = list(each.items())
        shown, rest = items[:_MOST_BARS], items[_MOST_BARS:]
        # Use minutes if all hours would be below 0.1.
        factor, unit = (1.0, "h") if sum(each.values()) >= 1 else (60.0, "min")
        rows = sparklines.bar_chart([(k, v * factor) for k, v in shown], unit)
        if rest:
            hours = sum(v for _, v in rest) * factor
            rows += (
                f'<p class="soft">and {len(rest)} more, {format_number(hours)} {unit} together</p>'
            )
        balance = report["balance"][kind]
        note = ""
        if balance["count"] > 1:
            note = f"as balanced as {format_number(balance['effective'])} of {balance['count']}"
        boxes.append(
            f'<div class="box"><h3>by {kind} <span class="soft">{note}</span></h3>{rows}</div>'
        )
    if not boxes:
        return ""
    return f'<h2>What is used</h2><div class="grid">{"".join(boxes)}</div>'


def _duplicates(report: Mapping[str, Any]) -> str:
    rows = []
    for item in report["duplicates"][:_MOST_LINES]:
        names = item["takes"]
        extra = ""
        if item["kind"] == "shared sound":
            extra = f" ({format_number(item['seconds'])} s, {format_number(item['shift'])} s apart)"
        more = f" and {len(names) - 8} more" if len(names) > 8 else ""
        rows.append(f"<li>{escape(item['kind'])}: {_names(names[:8])}{more}{extra}</li>")
    if not rows:
        return ""
    beyond = len(report["duplicates"]) - _MOST_LINES
    note = f'<p class="soft">and {beyond} more in quality.json</p>' if beyond > 0 else ""
    return f'<h2>Copies</h2><div class="box"><ul>{"".join(rows)}</ul>{note}</div>'


def _pictures(report: Mapping[str, Any]) -> str:
    boxes = []
    for take in report["takes"]:
        if not (take.get("thumbnail") or {}).get("aperture"):
            continue
        why = "; ".join([*take["reasons"], *take["findings"]])
        boxes.append(
            f'<div class="plot"><h3><bdi>{escape(take["take"])}</bdi></h3>'
            f"{sparklines.take_sparkline(take['thumbnail'], take['take'])}"
            f"<p>{escape(why)}</p></div>"
        )
    if not boxes:
        return ""
    return (
        '<h2>At a glance</h2><p class="soft">Worst first: loudness in grey, opening of the lips '
        f'in blue, the residual of the solve in red.</p><div class="grid">{"".join(boxes)}</div>'
    )


def _settings(report: Mapping[str, Any]) -> str:
    shown = {k: report[k] for k in ("settings", "thresholds") if report.get(k)}
    if not shown:
        return ""
    lines = escape_lines(json.dumps(shown, indent=1, ensure_ascii=True))
    return f"<h2>Settings</h2><details><summary>of this build</summary><pre>{lines}</pre></details>"


def escape_lines(value: str) -> str:
    """Returns escaped text with its line breaks."""
    return "\n".join(escape(line) for line in value.split("\n"))


def _names(names: Sequence[str]) -> str:
    return ", ".join(f"<bdi>{escape(n)}</bdi>" for n in names)


def _time(hours: float) -> str:
    if hours >= 1:
        return f"{format_number(hours)} h"
    return (
        f"{format_number(hours * 60)} min"
        if hours * 60 >= 1
        else f"{format_number(hours * 3600)} s"
    )
