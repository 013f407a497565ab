"""Counts of a server as the text that Prometheus reads.

Format: prometheus.io/docs/instrumenting/exposition_formats, version 0.0.4.
"""

from __future__ import annotations

import collections
import dataclasses
import time

_BUCKETS = (0.001, 0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.5)

CONTENT_TYPE = "text/plain; version=0.0.4; charset=utf-8"


@dataclasses.dataclass
class Counts:
    """What a server did.

    Attributes:
      speakers: connected now.
      rows: speakers that fit.
      admitted: speakers since the start.
      refused: by reason, "full", "token", "input".
      frames: sent to speakers.
      steps: calls of the network.
      seconds: how long calls took, by upper bound.
    """

    rows: int
    speakers: int = 0
    admitted: int = 0
    refused: collections.Counter[str] = dataclasses.field(default_factory=collections.Counter)
    frames: int = 0
    steps: int = 0
    seconds: collections.Counter[float] = dataclasses.field(default_factory=collections.Counter)
    spent: float = 0.0
    started: float = dataclasses.field(default_factory=time.time)

    def took(self, seconds: float) -> None:
        """Counts a call of the network."""
        self.steps += 1
        self.spent += seconds
        self.seconds[next((b for b in _BUCKETS if seconds <= b), float("inf"))] += 1

    def text(self) -> str:
        """Returns the metrics.

        Example:
            >>> counts = Counts(rows=4, started=0.0)
            >>> counts.took(0.003)
            >>> print(counts.text().split("# TYPE a2fjax_step_seconds")[0])
            # TYPE a2fjax_speakers gauge
            a2fjax_speakers 0
            # TYPE a2fjax_speakers_limit gauge
            a2fjax_speakers_limit 4
            # TYPE a2fjax_start_time_seconds gauge
            a2fjax_start_time_seconds 0.0
            # TYPE a2fjax_speakers_admitted_total counter
            a2fjax_speakers_admitted_total 0
            # TYPE a2fjax_frames_total counter
            a2fjax_frames_total 0
            # TYPE a2fjax_refused_total counter
            <BLANKLINE>
        """
        lines = []
        for name, kind, value in (
            ("speakers", "gauge", self.speakers),
            ("speakers_limit", "gauge", self.rows),
            ("start_time_seconds", "gauge", self.started),
            ("speakers_admitted_total", "counter", self.admitted),
            ("frames_total", "counter", self.frames),
        ):
            lines += [f"# TYPE a2fjax_{name} {kind}", f"a2fjax_{name} {value}"]
        lines.append("# TYPE a2fjax_refused_total counter")
        for reason, count in sorted(self.refused.items()):
            lines.append(f'a2fjax_refused_total{{reason="{reason}"}} {count}')
        lines.append("# TYPE a2fjax_step_seconds histogram")
        total = 0
        for bound in _BUCKETS:
            total += self.seconds[bound]
            lines.append(f'a2fjax_step_seconds_bucket{{le="{bound}"}} {total}')
        lines += [
            f'a2fjax_step_seconds_bucket{{le="+Inf"}} {self.steps}',
            f"a2fjax_step_seconds_sum {self.spent}",
            f"a2fjax_step_seconds_count {self.steps}",
        ]
        return "\n".join(lines) + "\n"
