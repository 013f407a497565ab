"""Ticks on a grid of 20 ms."""

from __future__ import annotations

import time
from collections.abc import Callable

from a2fjax import rig

MOST_BEHIND = 0.5
"""Seconds that ticks may be late before the grid is moved; late ticks follow at once."""


class Pacer:
    """Waits for the ticks of a grid, so that delays of one tick do not add up.

    Attributes:
      ticks: waited for so far.
      moved: times that the grid was moved because the process was held up.
    """

    def __init__(
        self,
        *,
        period: float = 1 / rig.FPS,
        clock: Callable[[], float] = time.monotonic,
        sleep: Callable[[float], object] = time.sleep,
    ):
        """Starts the grid at the first tick.

        Args:
          period: s.
          clock: returns s.
          sleep: waits for s.
        """
        self._period, self._clock, self._sleep = period, clock, sleep
        self._start: float | None = None
        self._count = 0
        self.ticks = self.moved = 0

    def wait(self) -> float:
        """Waits for the next tick and returns how late it is, in s."""
        now = self._clock()
        if self._start is None:
            self._start, self._count = now, 0
        due = self._start + self._count * self._period
        if now - due > MOST_BEHIND:
            self._start, self._count, due = now, 0, now
            self.moved += 1
        while now < due:
            self._sleep(due - now)
            now = self._clock()
        self._count += 1
        self.ticks += 1
        return now - due
