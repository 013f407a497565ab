"""Measures how a run spends its time, and its device utilisation and memory use."""

from __future__ import annotations

import contextlib
import resource
import sys
import time
from collections.abc import Iterator

import jax

KINDS = ("start", "compile", "data", "eval", "save")
"""Activities that are not training; "start" lasts from the call until the first compilation."""


class Clock:
    """Measures time by activity, between two log lines and since the start of the run."""

    def __init__(self, *, flops: float = 0.0, peak: float | None = None) -> None:
        """Starts the clock with the activity "start".

        Args:
          flops: operations of an update on all devices together; may be set later.
          peak: peak operations per second of all devices together, None if unknown.
        """
        self.flops, self._peak = flops, peak
        self._began = time.perf_counter()
        self._whole = dict.fromkeys(KINDS, 0.0)
        self.reset()

    def started(self) -> None:
        """Counts the time so far as "start"."""
        self._whole["start"] = time.perf_counter() - self._began

    def reset(self) -> None:
        """Starts a new interval."""
        self.start = time.perf_counter()
        self.steps = 0
        self.frames = 0
        self.spent = dict.fromkeys(KINDS, 0.0)

    @contextlib.contextmanager
    def time(self, what: str) -> Iterator[None]:
        """Adds the duration of the block to an activity of `KINDS`."""
        began = time.perf_counter()
        try:
            yield
        finally:
            seconds = time.perf_counter() - began
            self.spent[what] += seconds
            self._whole[what] += seconds

    def read(self) -> dict[str, float]:
        """Returns the metrics of the interval; speeds exclude evaluation, saving and compiling.

        "perf/goodput" is the share of the time since the start that was spent on updates, and
        "perf/share_<kind>" are the shares of the other activities. "perf/mfu" is the model's
        operations per second divided by the devices' peak (Chowdhery et al. 2022, "PaLM";
        recomputation for gradients does not count). It is left out if the peak is unknown.
        """
        now = time.perf_counter()
        wall = max(now - self.start, 1e-9)
        other = sum(self.spent[k] for k in ("start", "compile", "eval", "save"))
        training = max(wall - other, 1e-9)
        whole = max(now - self._began, 1e-9)
        rate = self.steps / training
        values = {
            "perf/steps_per_s": rate,
            "perf/frames_per_s": self.frames / training,
            "perf/data_wait_share": min(self.spent["data"] / training, 1.0),
            "perf/goodput": max(0.0, 1.0 - sum(self._whole.values()) / whole),
            **{f"perf/share_{k}": min(1.0, v / whole) for k, v in self._whole.items()},
            "perf/tflop_per_s": rate * self.flops / 1e12,
            "time/step_s": wall / max(self.steps, 1),
            "time/eval_s": self.spent["eval"],
            "time/save_s": self.spent["save"],
        }
        if self._peak:
            values["perf/mfu"] = rate * self.flops / self._peak
        return values | memory()


def memory() -> dict[str, float]:
    """Returns the peak memory in GB of this process and, if known, of its first device."""
    scale = 1e9 if sys.platform == "darwin" else 1e6  # ru_maxrss is in bytes on macOS, else in KiB
    factor = 1.0 if sys.platform == "darwin" else 1.024
    host = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * factor / scale
    values = {"perf/host_memory_gb": host}
    stats = jax.local_devices()[0].memory_stats() or {}
    if "peak_bytes_in_use" in stats:
        values["perf/device_memory_gb"] = stats["peak_bytes_in_use"] / 1e9
    return values
