"""Where the time of a run goes, how much of the machine it uses, and what it holds in memory."""

from __future__ import annotations

import contextlib
import resource
import sys
import time
from collections.abc import Iterator

import jax

KINDS = ("start", "compile", "data", "eval", "save")
"""What is not training: from the call to the first compilation, and the others by name."""


class Clock:
    """Time between two log lines, and since the run was started, by what it was spent on."""

    def __init__(self, *, flops: float = 0.0, peak: float | None = None) -> None:
        """Starts now, with "start".

        Args:
          flops: operations of an update, on all devices together; may be set later.
          peak: operations a second that all devices could do at most, None where unknown.
        """
        self.flops, self._peak = flops, peak
        self._began = time.perf_counter()
        self._whole = dict.fromkeys(KINDS, 0.0)
        self.reset()

    def started(self) -> None:
        """What came before counts as "start"."""
        self._whole["start"] = time.perf_counter() - self._began

    def reset(self) -> None:
        """Starts an interval."""
        self.start = time.perf_counter()
        self.steps = 0
        self.frames = 0
        self.spent = dict.fromkeys(KINDS, 0.0)

    @contextlib.contextmanager
    def time(self, what: str) -> Iterator[None]:
        """Adds the duration of the block to one of `KINDS`."""
        began = time.perf_counter()
        try:
            yield
        finally:
            seconds = time.perf_counter() - began
            self.spent[what] += seconds
            self._whole[what] += seconds

    def read(self) -> dict[str, float]:
        """Returns the numbers of the interval, speeds without evaluation, saving and compiling.

        "perf/goodput" is the share of the time since the start that went into updates; the shares
        of what it did not go into are "perf/share_<kind>". "perf/mfu" is the share of the devices'
        peak that the operations of the model's updates make (Chowdhery et al. 2022, "PaLM", where
        what is computed again for gradients does not count), left out where the peak is unknown.
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
    """Returns GB: the largest use so far of this process, and of its first device where known."""
    scale = 1e9 if sys.platform == "darwin" else 1e6  # ru_maxrss is in bytes there, else in KiB
    factor = 1.0 if sys.platform == "darwin" else 1.024
    host = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * factor / scale
    values = {"perf/host_memory_gb": host}
    stats = jax.local_devices()[0].memory_stats() or {}
    if "peak_bytes_in_use" in stats:
        values["perf/device_memory_gb"] = stats["peak_bytes_in_use"] / 1e9
    return values
