"""Identifies processes of this machine beyond their ids, which the system uses again."""

from __future__ import annotations

import contextlib
import os
import signal
from pathlib import Path

_PROC = Path("/proc")


def started(pid: int) -> str | None:
    """Returns when a process started, in the system's own units; None if that is not known."""
    if not isinstance(pid, int) or isinstance(pid, bool) or pid < 2:
        return None
    with contextlib.suppress(OSError, IndexError, OverflowError):
        # The name in parentheses may hold spaces and parentheses.
        text = (_PROC / str(pid) / "stat").read_text(errors="replace")
        return text.rpartition(")")[2].split()[19]
    return None


def is_alive(pid: object, start: object) -> bool:
    """Returns whether the process with this id still is the one that started then."""
    return isinstance(pid, int) and isinstance(start, str) and started(pid) == start


def terminate(pid: object, start: object, word: str) -> bool:
    """Sends SIGTERM to a process named in a file, if it still is the one that was meant.

    Args:
      pid: its id.
      start: as `started` returned it; another process with the id started at another time.
      word: a word of its command.

    Returns:
      False if nothing was sent: the process has ended, or is another one.
    """
    if not isinstance(pid, int) or not is_alive(pid, start):
        return False
    with contextlib.suppress(OSError):
        # The handle stays that of this process while it is checked, even if the id is used again.
        handle = os.pidfd_open(pid) if hasattr(os, "pidfd_open") else None
        try:
            words = (_PROC / str(pid) / "cmdline").read_bytes().split(b"\0")
            if word.encode() not in words or not is_alive(pid, start):
                return False
            if handle is None:
                os.kill(pid, signal.SIGTERM)
            else:
                signal.pidfd_send_signal(handle, signal.SIGTERM)
            return True
        finally:
            if handle is not None:
                os.close(handle)
    return False
