"""Turns stop signals into a flag that the training loop checks between steps.

Slurm and Kubernetes send SIGTERM before they reclaim a machine, submitit sends SIGUSR2, and Ctrl-C
sends SIGINT. The run then saves and ends with exit code 75, and the same command continues it.
"""

from __future__ import annotations

import signal
import threading
from types import FrameType
from typing import Any

from a2fjax import signals


class StopRequest:
    """Context in which signals request a stop instead of killing the process.

    The first Ctrl-C requests a stop; the second one interrupts at once, as usual. Outside the main
    thread, where Python cannot install handlers, signals keep their effect and only `request` sets
    the flag.
    """

    def __init__(self) -> None:
        """Initialises without a request; entering the context installs the handlers."""
        self._name: str | None = None
        self._previous: dict[signal.Signals, Any] = {}

    def __enter__(self) -> StopRequest:
        """Installs the handlers."""
        if threading.current_thread() is threading.main_thread():
            for number in signals.STOP_SIGNALS:
                self._previous[number] = signal.signal(number, self._handle)
        return self

    def __exit__(self, *_: object) -> None:
        """Restores the previous handlers."""
        for number, handler in self._previous.items():
            signal.signal(number, handler)
        self._previous.clear()

    def _handle(self, number: int, frame: FrameType | None) -> None:
        self.request(signal.Signals(number).name)
        if number == signal.SIGINT:
            signal.signal(signal.SIGINT, signal.default_int_handler)

    def request(self, name: str) -> None:
        """Requests a stop; `name` is the source of the request."""
        self._name = name

    @property
    def name(self) -> str:
        """Name of the signal that requested the stop, "" if there was none."""
        return self._name or ""

    def requested(self) -> bool:
        """Returns True if this process was asked to save and stop.

        The loop combines the requests of all processes through stop flags.
        """
        return self._name is not None
