"""What a build says while it works and when it is done."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np

from a2fjax.data import records

WriteLine = Callable[[str], None]


MAX_LINES = 50
"""Of a kind: a set of twenty thousand takes must not bury the line that matters."""


class LimitedLines:
    """Says the first `MOST_LINES` of a kind; `end` says how many more there were."""

    def __init__(self, say: WriteLine):
        """Starts with none said."""
        self.say, self.count = say, 0

    def __call__(self, line: str) -> None:
        """Says a line, or counts it."""
        self.count += 1
        if self.count <= MAX_LINES:
            self.say(line)

    def end(self, what: str) -> None:
        """Says how many were not said; `what` they are and where they can be read."""
        if self.count > MAX_LINES:
            self.say(f"{self.count - MAX_LINES} more {what}")
        self.count = 0


class Progress:
    """Says how far the work is: every two seconds, after a minute every ten, and at the end."""

    def __init__(self, sizes: Sequence[int], say: WriteLine):
        """Starts the clock on takes of these sizes in bytes."""
        self.say, self.count = say, len(sizes)
        self.total = sum(sizes)
        self.number = self.old = self.bytes = self.old_bytes = 0
        self.seconds = 0.0
        self.start = self.last = time.monotonic()

    def done(self, size: int, seconds: float, *, fresh: bool) -> None:
        """Counts a take of that size and length; not `fresh` means that it was there."""
        self.number += 1
        self.bytes += size
        self.seconds += seconds
        if not fresh:
            self.old += 1
            self.old_bytes += size
        now = time.monotonic()
        pause = 2.0 if now - self.start < 60.0 else 10.0
        if now - self.last >= pause and self.number < self.count:
            self._say(now)

    def end(self) -> None:
        """Says the last line."""
        if self.old:
            self.say(f"{self.old} of {self.count} takes are done already")
        if self.number > self.old:
            self._say(time.monotonic())

    def _say(self, now: float) -> None:
        self.last, spent = now, max(now - self.start, 1e-3)
        left = spent * (self.total - self.bytes) / max(self.bytes - self.old_bytes, 1)
        self.say(
            f"{self.number}/{self.count} takes, {self.seconds / 60:.1f} min, "
            f"{self.seconds / spent:.0f} x real time, "
            f"{(self.bytes - self.old_bytes) / spent / 1e6:.1f} MB/s, {left:.0f} s left"
        )


def print_summary(out: Path, manifest: records.Manifest, say: WriteLine) -> None:
    """Says what is in a set that was just written, and what was found on the way."""
    source, hours = manifest.source, manifest.statistics["hours"]
    counts = {s: sum(c["split"] == s for f in manifest.shards for c in f.clips) for s in hours}
    parts = [f"{s} {counts[s]} ({hours[s] * 60:.1f} min)" for s in hours if counts[s]]
    say(f"{out}: clips: {', '.join(parts)}")
    offsets = source["offsets"].values()
    methods = sorted({o["method"] for o in offsets})
    for method in methods:
        chosen = [o for o in offsets if o["method"] == method]
        values = [1000 * o["seconds"] for o in chosen]
        sure = np.mean([o["confidence"] for o in chosen])
        say(
            f"clock offset by {method}: {len(chosen)} actors, {min(values):+.1f} to "
            f"{max(values):+.1f} ms, confidence {sure:.2f}"
        )
    if source["unobserved_zero_channels"]:
        names = source["unobserved_zero_channels"]
        say(f"{len(names)} channels are zero in every take and count as unobserved")
    if source["kkt"] > 0:
        say(f"fit {source['residual_mm']:.3f} mm rms, optimality residual {source['kkt']:.1e}")
    for name, notes in list(source["notes"].items())[:1]:
        for note in notes:
            say(f"{name}: {note}")
    empty = [w for w in source["warnings"] if w.startswith("no clip in")]
    for line in empty:
        say(f"warning: {line}")
    for key, what in (("rejected", "could not be used"), ("quarantined", "were put aside")):
        if source[key]:
            say(f"{len(source[key])} takes {what}; {out / 'quality.html'} says why")
