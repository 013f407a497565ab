"""Findings about takes and the dataset, each listed once with the number of affected takes."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from a2fjax import rig
from a2fjax.audio.findings import SEVERITIES, Finding, sound_findings


def take_findings(take: Mapping[str, Any]) -> list[Finding]:
    """Returns the findings about a take, a mapping as described in `report.assemble_report`."""
    parts = (
        (sound_findings, take.get("audio") or {}),
        (_motion, take.get("motion") or {}),
        (_lips, take.get("lips") or {}),
        (_clock, take.get("clock") or {}),
        (_sync, take.get("sync") or {}),
    )
    return [finding for find, measures in parts for finding in find(measures)]


def _motion(m: Mapping[str, Any]) -> list[Finding]:
    out: list[Finding] = []
    if m.get("true_fps"):
        out.append(
            Finding(
                "repeated frames",
                "warning",
                f"{m['true_fps']:g} frames a second stored at {m['fps_name']}",
                "repeat frames regularly: their motion has a lower rate than their file",
            )
        )
    mirrored = m.get("mirrored")
    if mirrored == 1.0:
        out.append(
            Finding(
                "mirrored",
                "warning",
                "left and right are exactly equal",
                "have exactly equal left and right channels: no asymmetry can be learnt from them",
            )
        )
    elif mirrored and mirrored >= 0.5:
        names = ", ".join(n.removesuffix("Left") for n in m.get("unequal") or ())
        text = f"left and right are exactly equal but for {names}"
        every = "have exactly equal left and right channels but for a few"
        out.append(Finding("half mirrored", "note", text, every))
    if (m.get("jumps") or 0.0) > 0:
        text = f"{m['jumps'] * m['frames']:.0f} frames jump"
        out.append(Finding("jumps", "warning", text, "have frames that jump"))
    if (m.get("missing") or 0.0) > 0.001:
        text = f"{100 * m['missing']:.2g} % of frames missing"
        out.append(Finding("missing", "note", text, "miss frames"))
    if (m.get("jitter_ms") or 0.0) > 2.0:
        text = f"frame times jitter by {m['jitter_ms']:.1f} ms"
        out.append(Finding("jitter", "note", text, "have frame times that jitter"))
    beyond = (m.get("below") or 0.0) + (m.get("above") or 0.0)
    if beyond > 0.001:
        worst = next(iter(m.get("outside") or {"?": 0}))
        text = f"{100 * beyond:.2g} % of weights outside [0, 1], most in {worst}"
        out.append(
            Finding("outside", "note", text, "have weights outside [0, 1], which are clipped")
        )
    if m.get("range") and len(m.get("dead") or ()) == len(m["range"]):
        out.append(Finding("still", "error", "nothing moves", "have no motion at all"))
    return out


def _lips(m: Mapping[str, Any]) -> list[Finding]:
    if m.get("belongs") is not False:
        return []
    text = f"lips do not follow the sound (correlation {m['correlation']:.2f})"
    every = "have lips that do not follow their sound: swapped files, another language, or no lips?"
    return [Finding("lips", "error", text, every)]


def _clock(m: Mapping[str, Any]) -> list[Finding]:
    out: list[Finding] = []
    if m.get("method") == "none":
        text = "no sign of the clocks' offset; 0 s assumed"
        every = "give no sign of the offset between sound and motion: 0 s is assumed"
        out.append(Finding("no offset", "warning", text, every))
    drift = m.get("drift") or 0.0
    if m.get("corrected"):
        text = f"drift of the clocks, {1000 * drift:.2f} ms a second, removed"
        out.append(Finding("drift removed", "note", text, "have clocks that drift: it is removed"))
    elif abs(drift) > 2e-4 and (m.get("drift_confidence") or 0.0) >= 0.5:
        text = f"clocks drift {1000 * drift:.2f} ms a second"
        out.append(Finding("drift", "warning", text, "have clocks that drift apart"))
    return out


def _sync(m: Mapping[str, Any]) -> list[Finding]:
    if m.get("moved"):
        text = f"motion moved by {1000 * m['moved']:+.0f} ms, as the sync expert found"
        return [Finding("moved", "note", text, "were moved by what the sync expert found")]
    found, low, high = m.get("seconds"), m.get("low"), m.get("high")
    if found is None or low is None or high is None or low <= 0.0 <= high or abs(found) <= 0.02:
        return []
    text = f"sound {1000 * found:+.0f} ms late ({m.get('why')})"
    every = "have sound that is out of step with the motion, as the sync expert finds"
    return [Finding("out of step", "warning", text, every)]


def dataset_findings(
    takes: Sequence[Mapping[str, Any]],
    hours: Mapping[str, Mapping[str, float]],
    duplicates: Sequence[Mapping[str, Any]],
    warnings: Sequence[str] = (),
) -> list[dict[str, Any]]:
    """Returns the findings about a dataset, worst first.

    Args:
      takes: all takes, with their verdicts.
      hours: hours of the used takes by "split", "subject", "language" and "emotion".
      duplicates: result of `duplicates.find_duplicates`.
      warnings: warnings of the build, as text.

    Returns:
      For each finding: severity, text, count (number of affected takes) and takes (the first five).
    """
    out: list[dict[str, Any]] = []

    def add(severity: str, text: str, names: Sequence[str] = ()) -> None:
        out.append(
            {"severity": severity, "text": text, "count": len(names), "takes": list(names[:5])}
        )

    total = len(takes)
    used = [t for t in takes if t["verdict"] == "used"]
    if takes and not used:
        add("error", "no take can be used")
    for verdict, words in (("rejected", "could not be read"), ("quarantined", "are quarantined")):
        names = [t["take"] for t in takes if t["verdict"] == verdict]
        if names:
            add("error", f"{count_text(len(names), total)} {words}", names)
    for line in warnings:
        add("warning", line)
    _each_finding(takes, add)
    _copies(duplicates, add)
    _channels(used, add)
    _balance(hours, add)
    synthetic = [t["take"] for t in used if t.get("synthetic")]
    if synthetic:
        add("note", f"{count_text(len(synthetic), len(used))} are synthetic", synthetic)
    rates = sorted(
        {t["motion"]["fps_name"] for t in used if (t.get("motion") or {}).get("fps_name")}
    )
    if len(rates) > 1:
        add("note", f"takes run at {len(rates)} frame rates: {', '.join(rates[:8])}")
    return sorted(out, key=lambda w: SEVERITIES.index(w["severity"]))


_Add = Callable[..., None]


def _each_finding(takes: Sequence[Mapping[str, Any]], add: _Add) -> None:
    by_key: dict[str, tuple[Finding, list[str]]] = {}
    for take in takes:
        for finding in take_findings(take):
            by_key.setdefault(finding.key, (finding, []))[1].append(take["take"])
    for finding, names in sorted(by_key.values(), key=lambda f: (-len(f[1]), f[0].key)):
        add(finding.severity, f"{count_text(len(names), len(takes))} {finding.every}", names)


def _copies(duplicates: Sequence[Mapping[str, Any]], add: _Add) -> None:
    for kind, words in (
        ("same sound", "hold exactly the same sound as another"),
        ("same motion", "hold exactly the same motion as another"),
        ("shared sound", "share some of their sound with another"),
    ):
        names = sorted({n for d in duplicates if d["kind"] == kind for n in d["takes"]})
        if names:
            add("warning", f"{len(names)} takes {words}", names)
    leaks = [d for d in duplicates if d["kind"] != "same motion" and len(d["sentences"]) > 1]
    if leaks:
        text = (
            f"{len(leaks)} groups of takes share sound under different sentence keys: copies may "
            "be trained on and tested on"
        )
        add("error", text, sorted({n for d in leaks for n in d["takes"]}))


def _channels(used: Sequence[Mapping[str, Any]], add: _Add) -> None:
    motions = [t["motion"] for t in used if (t.get("motion") or {}).get("range")]
    if not motions:
        return
    observed = {c for m in motions for c in m["range"]}
    moving = {c for m in motions for c in m["range"] if c not in m["dead"]}
    dead = [c for c in rig.CHANNELS if c in observed - moving]
    if dead:
        names = ", ".join(dead[:8]) + (", ..." if len(dead) > 8 else "")
        add("note", f"{len(dead)} of {len(observed)} observed channels move in no take: {names}")


def _balance(hours: Mapping[str, Mapping[str, float]], add: _Add) -> None:
    for kind in ("subject", "language", "emotion"):
        each = hours.get(kind) or {}
        total = sum(each.values())
        if total <= 0:
            continue
        name, most = max(sorted(each.items()), key=lambda item: item[1])
        if len(each) == 1:
            text = f"there is one {kind} only: {name or 'not known'}"
            add("note", text)
        elif most > 0.7 * total:
            add(
                "warning", f"{100 * most / total:.0f} % of the hours are {kind} {name or 'unknown'}"
            )
        if kind == "language" and 0 < each.get("", 0.0) < total:
            add("note", f"{each['']:.2g} hours have no language")


def count_text(count: int, total: int) -> str:
    """Returns "3 of 5 takes", "all 5 takes" or "the only take"."""
    if count == total:
        return "the only take:" if total == 1 else f"all {total} takes"
    return f"{count} of {total} takes"
