"""What a listener is.

A listener is a class registered by name, made with its target, the text after the flag:

    from a2fjax import registry

    @registry.listeners.register("log")
    class Log:
        def __init__(self, target): self._file = open(target, "a")
        def send(self, frame): print(frame.number, file=self._file)     # session.Frame
        def close(self): self._file.close()

`a2fjax stream RUN --audio in.wav --to log=frames.txt` uses it.
"""

from __future__ import annotations

from typing import Protocol

from a2fjax.live.session import Frame


class Listener(Protocol):
    """Takes frames one by one.

    A class may set `lossless = True`: its frames are then handed over one after the other, in the
    thread of the stream, and none is left out; `send` must return at once. After an error `close`
    is not called.
    """

    def send(self, frame: Frame) -> None:
        """Takes a frame; an `OSError` counts as a frame that was not delivered."""

    def close(self) -> None:
        """Ends after the last frame."""
