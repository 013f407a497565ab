"""Being asked to stop: signals become a flag that the loop looks at between steps.

Slurm and Kubernetes send SIGTERM before they take a machine away, submitit sends SIGUSR2, a person
presses Ctrl-C. All of them mean: save, then end with exit code 75, and the same command continues.
"""

from __future__ import annotations

import signal
import threading
from types import FrameType
from typing import Any

SIGNALS = (signal.SIGTERM, signal.SIGINT, signal.SIGUSR2)


class StopRequest:
    """Context in which the signals ask for a stop instead of killing the process.

    Ctrl-C asks once; pressed again, it interrupts at once, as usual. Outside the main thread,
    where Python can install no handlers, signals are left alone and only `request` sets the flag.
    """

    def __init__(self, *, last: bool = False) -> None:
        """Starts with no stop requested; handlers are installed on entering the context.

        Args:
          last: the process ends after the context. SIGTERM and SIGUSR2 have nothing to ask for any
            more and are ignored from there on: Slurm repeats them, and one that comes while JAX is
            shut down would end the process with another exit code than the one that was earned.
        """
        self._last = last
        self._name: str | None = None
        self._previous: dict[signal.Signals, Any] = {}

    def __enter__(self) -> StopRequest:
        """Installs the handlers."""
        if threading.current_thread() is threading.main_thread():
            for number in SIGNALS:
                self._previous[number] = signal.signal(number, self._handle)
        return self

    def __exit__(self, *_: object) -> None:
        """Puts the previous handlers back, or those of a process that ends."""
        for number, handler in self._previous.items():
            ignored = self._last and number != signal.SIGINT
            signal.signal(number, signal.SIG_IGN if ignored else handler)
        self._previous.clear()

    def _handle(self, number: int, frame: FrameType | None) -> None:
        self.request(signal.Signals(number).name)
        if number == signal.SIGINT:
            signal.signal(signal.SIGINT, signal.default_int_handler)

    def request(self, name: str) -> None:
        """Asks for a stop; `name` says who asked."""
        self._name = name

    @property
    def name(self) -> str:
        """Name of the signal that asked, "" when none did."""
        return self._name or ""

    def requested(self) -> bool:
        """Returns whether the run should save and stop.

        The answer concerns this process alone. With several processes they must agree on a step;
        `jax.experimental.multihost_utils.reached_preemption_sync_point` belongs here then.
        """
        return self._name is not None
