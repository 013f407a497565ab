"""What a build says while it works and when it is done."""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path

import numpy as np

from a2fjax.data import records
from data_pipeline.sources import Actor


def weight(actor: Actor) -> int:
    """Returns the bytes of an actor's motion: what the work is in proportion to."""
    return sum(p.stat().st_size for t in actor.takes for p in t.data)


class Progress:
    """Says how far the work is, at most every two seconds and at the end."""

    def __init__(self, actors: list[Actor], say: Callable[[str], None]):
        """Starts the clock on the actors that are to be worked on."""
        self.say, self.count = say, len(actors)
        self.total = max(sum(weight(a) for a in actors), 1)
        self.bytes = self.number = 0
        self.seconds = 0.0
        self.start = self.last = time.monotonic()

    def done(self, actor: Actor, seconds: float) -> None:
        """Counts an actor whose takes last that many seconds."""
        self.number += 1
        self.bytes += weight(actor)
        self.seconds += seconds
        now = time.monotonic()
        if now - self.last < 2.0 and self.number < self.count:
            return
        self.last, spent = now, max(now - self.start, 1e-3)
        left = spent * (self.total - self.bytes) / max(self.bytes, 1)
        self.say(
            f"{self.number}/{self.count} actors, {self.seconds / 60:.1f} min of takes, "
            f"{self.seconds / spent:.0f} x real time, {left:.0f} s left"
        )


def describe(out: Path, manifest: records.Manifest, say: Callable[[str], None]) -> None:
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
    if source["rejected"]:
        say(f"{len(source['rejected'])} takes were left out; the manifest lists them")
