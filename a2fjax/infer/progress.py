"""Console progress of long predictions."""

from __future__ import annotations

import sys
import time
from typing import TextIO

from a2fjax import rig


class ProgressLine:
    """Prints the progress and remaining time of long predictions to the console.

    Pass an instance as the `progress` argument of `a2fjax.api.model.Model.predict`.
    """

    def __init__(self, *, out: TextIO | None = None, after: float = 3.0):
        """Creates a progress line; it restarts whenever the number of finished frames decreases.

        Args:
          out: output stream; standard error if None.
          after: seconds before the first line is printed.
        """
        self._out = sys.stderr if out is None else out
        self._after = after
        self._start = self._shown = time.monotonic()
        self._done = 0

    @property
    def done(self) -> int:
        """Frames that were predicted so far."""
        return self._done

    def __call__(self, done: int, total: int) -> None:
        """Prints a line, at most once a second on a terminal and every 10 s elsewhere."""
        now = time.monotonic()
        if done < self._done:
            self._start = self._shown = now
        self._done = done
        terminal = self._out.isatty()
        spent = now - self._start
        if not done or spent < self._after:
            return
        if done < total and now - self._shown < (1.0 if terminal else 10.0):
            return
        self._shown = now
        left = spent * (total - done) / done
        line = (
            f"{_clock(done / rig.FPS)} of {_clock(total / rig.FPS)} done "
            f"({100 * done / total:.0f} %), {done / rig.FPS / spent:.0f} x real time, "
            f"{_clock(left)} left"
        )
        end = "\n" if not terminal or done >= total else ""
        print(("\r" if terminal else "") + line + "   " * terminal, end=end, file=self._out)
        self._out.flush()


def _clock(seconds: float) -> str:
    minutes, seconds = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02d}:{seconds:02d}" if hours else f"{minutes}:{seconds:02d}"
