"""A watchdog thread that ends a process without progress."""

from __future__ import annotations

import contextlib
import faulthandler
import os
import sys
import threading
import time
from collections.abc import Callable

from a2fjax.errors import EXIT_LOST, exit_code

COMPILING = 10.0
"""Factor of the limit while reading weights, compiling, or starting the data loader."""


class Watchdog:
    """Ends this process, and with it the others, if `beat` is not called within a time limit.

    If a process hangs in Python, all others wait in a collective while the heartbeats continue.
    Only the training loop can detect that no step finishes.

    Attributes:
      notify: sends a message and an exit code to the other processes; returns False if the end of
        another process is already being handled.
    """

    def __init__(self, limit: float) -> None:
        """Starts watching at the first call of `beat`.

        Args:
          limit: seconds without a call of `beat`; 0 for no limit.
        """
        self._limit = limit
        self._activity, self._deadline = "", float("inf")
        self._paused = 0.0
        self._failure: tuple[str, int] | None = None
        self._done = threading.Event()
        self.notify: Callable[[str, int], bool] | None = None
        if limit:
            threading.Thread(target=self._watch, daemon=True).start()

    def beat(self, activity: str, *, factor: float = 1.0) -> None:
        """Reports progress.

        Args:
          activity: the activity that starts now, for the message.
          factor: multiplies the limit until the next call.
        """
        self._activity, self._deadline = activity, self._now() + self._limit * factor

    def stop(self) -> None:
        """Stops watching."""
        self._deadline = float("inf")
        self._done.set()

    def overdue(self) -> str:
        """Returns a message if the limit has passed, "" otherwise."""
        if self._now() <= self._deadline:
            return ""
        return f"no progress for {self._limit:g} s or more while {self._activity}"

    def _now(self) -> float:
        """Returns seconds during which this process was not paused."""
        return time.monotonic() - self._paused

    def _watch(self) -> None:
        interval = min(1.0, self._limit / 4)
        while not (message := self.overdue()):
            began = time.monotonic()
            if self._done.wait(interval):
                return
            # A process that was paused (SIGSTOP, `docker pause`) does not hang.
            self._paused += max(0.0, time.monotonic() - began - interval)
        self.end(message, EXIT_LOST)

    def failed(self, error: Exception) -> None:
        """Tells the other processes that this one fails, before it closes anything.

        They may wait for it in a barrier that closing would wait for, too.
        """
        if self._failure is None:
            self._failure = str(error), exit_code(error)
        if self.notify is not None:
            self.notify(str(error), exit_code(error))

    def end(self, message: str, code: int) -> None:
        """Ends this process and the others, whatever the main thread waits for.

        After `failed`, what fails next follows from that failure, which is what counts.
        """
        message, code = self._failure or (message, code)
        if self.notify is None or self.notify(message, code):
            exit_process(message, code)


def exit_process(message: str, code: int) -> None:
    """Ends the process at once, from any thread; `EXIT_LOST` prints the stacks of all threads."""
    with contextlib.suppress(Exception):
        sys.stdout.flush()
        if code == EXIT_LOST:
            faulthandler.dump_traceback(file=sys.stderr, all_threads=True)
        print(f"a2fjax train: error: {' '.join(message.split())}", file=sys.stderr, flush=True)
    # Not sys.exit: the main thread may be in a collective that never returns.
    os._exit(code)
