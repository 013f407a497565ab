"""Shows that work goes on: one line when it takes longer than two seconds, and again later."""

from __future__ import annotations

import contextlib
import sys
import threading
import time
from collections.abc import Callable, Iterator

AFTER = 2.0
EVERY = 10.0


def to_stderr(line: str) -> None:
    """Prints a line where it does not mix with a command's results."""
    print(line, file=sys.stderr, flush=True)


@contextlib.contextmanager
def shown(
    what: str | Callable[[], str],
    say: Callable[[str], None] = to_stderr,
    *,
    after: float | None = None,
    every: float | None = None,
) -> Iterator[None]:
    """Says from time to time what is being done, for as long as the block runs.

    Args:
      what: the work, or a function that returns it; "" says nothing this time.
      say: called with each line, from another thread.
      after: seconds before the first line; None for `AFTER`.
      every: seconds between later lines; None for `EVERY`.

    Example:
        >>> import time
        >>> with shown("reading the sound", print, after=0.01):
        ...     time.sleep(0.1)
        reading the sound (0 s)
    """
    start, ended = time.monotonic(), threading.Event()

    def tell() -> None:
        pause = AFTER if after is None else after
        while not ended.wait(pause):
            text = what if isinstance(what, str) else what()
            if text:
                say(f"{text} ({time.monotonic() - start:.0f} s)")
            pause = EVERY if every is None else every

    thread = threading.Thread(target=tell, name="progress", daemon=True)
    thread.start()
    try:
        yield
    finally:
        ended.set()
        thread.join()
