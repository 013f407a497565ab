"""Hands frames to listeners, each in a thread of its own, so that none waits for another."""

from __future__ import annotations

import collections
import logging
import threading
from collections.abc import Sequence

from a2fjax import registry
from a2fjax.errors import InputError, nearest
from a2fjax.live.listeners.base import Listener
from a2fjax.live.session import Frame

HELD = 100
"""Frames that wait for a slow listener; then the oldest are left out."""

_LAST_SECONDS = 2.0  # What a listener gets to end.

_log = logging.getLogger("a2fjax")


def make(kind: str, target: str) -> Listener:
    """Returns a listener of a registered kind.

    Raises:
      InputError: an unknown kind, or a target that it refuses.
    """
    return registry.listeners.get(kind).load()(target)


def parse(text: str) -> tuple[str, str]:
    """Returns (kind, target) of "KIND=TARGET".

    Raises:
      InputError: another form.
    """
    kind, equals, target = text.partition("=")
    if not equals:
        names = registry.listeners.names()
        raise InputError(f"--to {text!r}: expected KIND=TARGET{nearest(kind, names)}")
    return kind, target


class Hub:
    """Hands each frame to all listeners; `send` takes microseconds, whatever they do.

    Attributes:
      left_out: frames that listeners were too slow for, by the listener's number.
      failed: frames that could not be delivered, likewise.
    """

    def __init__(self, listeners: Sequence[Listener]):
        """Starts a thread for each listener that may leave frames out."""
        self._direct = [each for each in listeners if getattr(each, "lossless", False)]
        self._lanes = [_Lane(each) for each in listeners if each not in self._direct]

    @property
    def left_out(self) -> list[int]:
        """Frames left out, by lane."""
        return [lane.left_out for lane in self._lanes]

    @property
    def failed(self) -> list[int]:
        """Frames that failed, by lane."""
        return [lane.failed for lane in self._lanes]

    def send(self, frame: Frame) -> None:
        """Hands a frame over.

        Raises:
          OSError: a file cannot be written.
        """
        for listener in self._direct:
            listener.send(frame)
        for lane in self._lanes:
            lane.put(frame)

    def close(self, *, complete: bool = True) -> None:
        """Delivers what waits, for 2 s at most, and ends all listeners.

        Args:
          complete: whether the stream ended as it should; otherwise no file is written.

        Raises:
          InputError, WorkFailed: a file cannot be written.
        """
        for lane in self._lanes:
            lane.end()
        for lane in self._lanes:
            lane.join(_LAST_SECONDS)
        for listener in self._direct if complete else ():
            listener.close()


class _Lane:
    def __init__(self, listener: Listener):
        self._listener = listener
        self._waiting: collections.deque[Frame] = collections.deque()
        self._changed = threading.Condition()
        self._ended = False
        self.left_out = self.failed = 0
        name = type(listener).__name__
        self._thread = threading.Thread(target=self._run, name=f"listener {name}", daemon=True)
        self._thread.start()

    def put(self, frame: Frame) -> None:
        with self._changed:
            if len(self._waiting) >= HELD:
                self._waiting.popleft()
                self.left_out += 1
            self._waiting.append(frame)
            self._changed.notify()

    def end(self) -> None:
        with self._changed:
            self._ended = True
            self._changed.notify()

    def join(self, seconds: float) -> None:
        self._thread.join(seconds)

    def _run(self) -> None:
        name = type(self._listener).__name__
        while True:
            with self._changed:
                while not self._waiting and not self._ended:
                    self._changed.wait()
                if not self._waiting:
                    break
                frame = self._waiting.popleft()
            try:
                self._listener.send(frame)
            except OSError as error:
                # Said once: a listener that went away would fill the terminal.
                if not self.failed:
                    _log.warning("warning: %s: %s; going on", name, error.strerror or error)
                self.failed += 1
            except Exception:
                _log.exception("%s failed and gets no more frames", name)
                self.failed += 1
                return
        self._listener.close()
