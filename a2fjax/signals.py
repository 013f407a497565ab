"""Stop signals of schedulers and users, and how a process reacts to them."""

from __future__ import annotations

import contextlib
import signal
import threading
from collections.abc import Callable, Iterable, Iterator
from types import FrameType

from a2fjax.errors import Preempted

SCHEDULER_SIGNALS = (signal.SIGTERM, signal.SIGUSR2)
"""Signals that schedulers send before they end a process."""
STOP_SIGNALS = (*SCHEDULER_SIGNALS, signal.SIGINT)
"""All signals that ask a process to stop, Ctrl-C included."""


def ignore(signals: Iterable[signal.Signals] = SCHEDULER_SIGNALS) -> None:
    """Ignores signals until the process ends.

    For a process that is about to exit by itself: schedulers repeat their signals, and the
    interpreter removes handlers before it exits, but keeps ignored signals ignored. Does nothing
    outside the main thread, since only that one can set handlers.
    """
    if threading.current_thread() is threading.main_thread():
        for number in signals:
            signal.signal(number, signal.SIG_IGN)


def preempted(name: str) -> Preempted:
    """Returns the exception that `raise_on_signal` raises by default, for a signal's name."""
    return Preempted(f"{name}; run it again to go on")


@contextlib.contextmanager
def raise_on_signal(stop: Callable[[str], BaseException] = preempted) -> Iterator[None]:
    """Raises an exception in the block at the first stop signal of a scheduler.

    Later signals are ignored until the process ends, so that they do not interrupt cleanup. Does
    nothing outside the main thread, where Python cannot install handlers.

    Args:
      stop: makes the exception from the signal's name.

    Example:
        >>> with raise_on_signal():
        ...     pass
    """
    received = False

    def handle(number: int, frame: FrameType | None) -> None:
        nonlocal received
        if not received:
            received = True
            raise stop(signal.Signals(number).name)

    if threading.current_thread() is not threading.main_thread():
        yield
        return
    before = {number: signal.signal(number, handle) for number in SCHEDULER_SIGNALS}
    try:
        yield
    finally:
        if received:
            ignore()
        else:
            for number, handler in before.items():
                signal.signal(number, handler)
