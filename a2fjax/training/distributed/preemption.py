"""Being asked to stop: signals become a flag that the loop looks at between steps.

Slurm and Kubernetes send SIGTERM before they take a machine away, submitit sends SIGUSR2, a person
presses Ctrl-C. All of them mean: save, then end with exit code 75, and the same command continues.
"""

from __future__ import annotations

import signal
import threading
from types import FrameType
from typing import Any

from a2fjax import signals


class StopRequest:
    """Context in which the signals ask for a stop instead of killing the process.

    Ctrl-C asks once; pressed again, it interrupts at once, as usual. Outside the main thread,
    where Python can install no handlers, signals are left alone and only `request` sets the flag.
    """

    def __init__(self) -> None:
        """Starts with no stop requested; handlers are installed on entering the context."""
        self._name: str | None = None
        self._previous: dict[signal.Signals, Any] = {}

    def __enter__(self) -> StopRequest:
        """Installs the handlers."""
        if threading.current_thread() is threading.main_thread():
            for number in signals.STOP_SIGNALS:
                self._previous[number] = signal.signal(number, self._handle)
        return self

    def __exit__(self, *_: object) -> None:
        """Puts the previous handlers back."""
        for number, handler in self._previous.items():
            signal.signal(number, handler)
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

        The answer concerns this process alone; in the loop all processes vote on it.
        """
        return self._name is not None
