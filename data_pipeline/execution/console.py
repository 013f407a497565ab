"""Prints the progress, warnings and summary of a build."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from a2fjax.data import records

WriteLine = Callable[[str], None]


_DECISIONS = ("neutral mesh:", "unit of the takes:", "topology:", "axes")
"""Notes about these are written for everybody, as they may differ between people."""

MAX_LINES = 50
"""Lines of one kind: twenty thousand takes must not bury the line that matters."""


class LimitedLines:
    """Writes the first `MAX_LINES` lines of a kind; `end` writes the number of omitted lines."""

    def __init__(self, log: WriteLine):
        """Starts with no lines written."""
        self.log, self.count = log, 0

    def __call__(self, line: str) -> None:
        """Writes a line, or counts it."""
        self.count += 1
        if self.count <= MAX_LINES:
            self.log(line)

    def end(self, what: str) -> None:
        """Writes the number of omitted lines; `what` describes them and where to read them."""
        if self.count > MAX_LINES:
            self.log(f"{self.count - MAX_LINES} more {what}")
        self.count = 0


class Progress:
    """Writes progress every two seconds, after a minute every ten seconds, and at the end."""

    def __init__(self, sizes: Sequence[int], log: WriteLine):
        """Starts the clock on takes of these sizes in bytes."""
        self.log, self.count = log, len(sizes)
        self.total = sum(sizes)
        self.number = self.old = self.bytes = self.old_bytes = 0
        self.seconds = 0.0
        self.start = self.last = time.monotonic()

    def done(self, size: int, seconds: float, *, fresh: bool) -> None:
        """Counts a take of `size` bytes and `seconds`; `fresh` means solved by this run."""
        self.number += 1
        self.bytes += size
        self.seconds += seconds
        if not fresh:
            self.old += 1
            self.old_bytes += size
        now = time.monotonic()
        pause = 2.0 if now - self.start < 60.0 else 10.0
        if now - self.last >= pause and self.number < self.count:
            self._write(now)

    def waiting(self) -> str:
        """Returns a line for a long time without a finished take; "" if one was just written."""
        if time.monotonic() - self.last < 9.0 and self.number:
            return ""
        return f"{self.number}/{self.count} takes, working"

    def end(self) -> None:
        """Writes the last line."""
        if self.old:
            self.log(f"{self.old} of {self.count} takes are done already")
        if self.number > self.old:
            self._write(time.monotonic())

    def _write(self, now: float) -> None:
        self.last, spent = now, max(now - self.start, 1e-3)
        left = spent * (self.total - self.bytes) / max(self.bytes - self.old_bytes, 1)
        self.log(
            f"{self.number}/{self.count} takes, {self.seconds / 60:.1f} min, "
            f"{self.seconds / spent:.0f} x real time, "
            f"{(self.bytes - self.old_bytes) / spent / 1e6:.1f} MB/s, {left:.0f} s left"
        )


def print_summary(out: Path, manifest: records.Manifest, log: WriteLine) -> None:
    """Writes the contents of a new dataset and the findings of its build."""
    source, hours = manifest.source, manifest.statistics["hours"]
    counts = {s: sum(c["split"] == s for f in manifest.shards for c in f.clips) for s in hours}
    parts = [f"{s} {counts[s]} ({hours[s] * 60:.1f} min)" for s in hours if counts[s]]
    log(f"{out}: clips: {', '.join(parts)}")
    offsets = source["offsets"].values()
    methods = sorted({o["method"] for o in offsets})
    for method in methods:
        chosen = [o for o in offsets if o["method"] == method]
        values = [1000 * o["seconds"] for o in chosen]
        sure = np.mean([o["confidence"] for o in chosen])
        log(
            f"clock offset by {method}: {len(chosen)} actors, {min(values):+.1f} to "
            f"{max(values):+.1f} ms, confidence {sure:.2f}"
        )
    if "sync" in source:
        log(sync_line(source["sync"]))
    if source["unobserved_zero_channels"]:
        names = source["unobserved_zero_channels"]
        log(f"{len(names)} channels are zero in every take and count as unobserved")
    if source["kkt"] > 0:
        log(f"fit {source['residual_mm']:.3f} mm rms, optimality residual {source['kkt']:.1e}")
    _print_notes(source["notes"], log)
    empty = [w for w in source["warnings"] if w.startswith("no clip in")]
    for line in empty:
        log(f"warning: {line}")
    for key, what in (("rejected", "could not be used"), ("quarantined", "were quarantined")):
        if source[key]:
            log(f"{len(source[key])} takes {what}; {out / 'quality.html'} says why")


def sync_line(facts: Mapping[str, Any]) -> str:
    """Returns the line about offsets that a sync expert found; see `sync_report.facts`."""
    unchecked = "" if facts["gate_passed"] else ", which has not passed its gate"
    text = (
        f"sync expert {facts['run']} step {facts['step']}{unchecked}: {facts['judged']} of "
        f"{facts['takes']} takes have an offset"
    )
    if facts["median_s"] is not None:
        text += f", median {1000 * facts['median_s']:.0f} ms"
    text += f"; {facts['out_of_step']} out of step, {facts['moved']} moved"
    return text + " (sync_offset=report)" * (facts["mode"] == "report")


def _print_notes(by_name: Mapping[str, Sequence[str]], log: WriteLine) -> None:
    """Writes the notes of the first person, and of the others those where decisions differ."""
    write, known = LimitedLines(log), set()
    for number, (name, notes) in enumerate(by_name.items()):
        for note in notes:
            # Decisions name files, which differ between people in their folder alone.
            decision = note.replace(name, "")
            is_decision = any(word in note for word in _DECISIONS)
            if not number or (is_decision and decision not in known):
                write(f"{name}: {note}")
            known.add(decision)
    write.end("notes; manifest.json has them all")
