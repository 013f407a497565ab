"""Signals by which schedulers and people end a process, and work that is simply cut off by them."""

from __future__ import annotations

import contextlib
import signal
import threading
from collections.abc import Callable, Iterable, Iterator
from types import FrameType

from a2fjax.errors import Preempted

SCHEDULER_SIGNALS = (signal.SIGTERM, signal.SIGUSR2)
"""Of schedulers."""
STOP_SIGNALS = (*SCHEDULER_SIGNALS, signal.SIGINT)
"""And Ctrl-C."""


def ignore(signals: Iterable[signal.Signals] = SCHEDULER_SIGNALS) -> None:
    """From here on the process hears none of the signals: it is about to end in its own way.

    Schedulers repeat theirs, and the interpreter takes handlers away before it is gone, but leaves
    what is ignored. Outside the main thread, which alone may say so, nothing is done.
    """
    if threading.current_thread() is threading.main_thread():
        for number in signals:
            signal.signal(number, signal.SIG_IGN)


def preempted(name: str) -> Preempted:
    """Returns what a signal raises by default."""
    return Preempted(f"{name}; run it again to go on")


@contextlib.contextmanager
def raise_on_signal(stop: Callable[[str], BaseException] = preempted) -> Iterator[None]:
    """In its body, the first of the signals raises what `stop` makes of the signal's name.

    The others are not heard, to the end of the process: what is tidied up on the way out must not
    be cut off. Outside the main thread, where Python can install no handlers, signals are left
    alone.
    """
    told = False

    def handle(number: int, frame: FrameType | None) -> None:
        nonlocal told
        if not told:
            told = True
            raise stop(signal.Signals(number).name)

    if threading.current_thread() is not threading.main_thread():
        yield
        return
    before = {number: signal.signal(number, handle) for number in SCHEDULER_SIGNALS}
    try:
        yield
    finally:
        if told:
            ignore()
        else:
            for number, handler in before.items():
                signal.signal(number, handler)
