"""Runs one source through one session to its listeners, at speed or as fast as it goes."""

from __future__ import annotations

import collections
import dataclasses
from collections.abc import Callable, Iterable, Iterator

import numpy as np

from a2fjax.audio import HOP
from a2fjax.live.hub import Hub
from a2fjax.live.pacing import Pacer
from a2fjax.live.session import Frame, Session


@dataclasses.dataclass
class Summary:
    """What a stream did.

    Attributes:
      frames: sent.
      moved: times that the process was held up for more than half a second.
    """

    frames: int = 0
    moved: int = 0


def never() -> bool:
    """Returns False: a stream that only its source ends."""
    return False


def burst(
    blocks: Iterable[np.ndarray],
    session: Session,
    hub: Hub,
    *,
    stopped: Callable[[], bool] = never,
) -> Summary:
    """Sends frames as fast as they are made.

    Args:
      blocks: [S] float32 at 16 kHz.
      session: the speaker.
      hub: its listeners.
      stopped: whether to end before the source does.

    Raises:
      InputError: audio that is none.
    """
    summary = Summary()
    for block in blocks:
        for begin in range(0, len(block), HOP):
            if stopped():
                break
            _send(session.push(block[begin : begin + HOP]), hub, summary)
        if stopped():
            break
    _send(session.flush(), hub, summary)
    return summary


def paced(
    take: Callable[[], np.ndarray | None],
    session: Session,
    hub: Hub,
    *,
    pacer: Pacer | None = None,
    stopped: Callable[[], bool] = never,
) -> Summary:
    """Sends a frame every 20 ms.

    Args:
      take: returns the next hop [320], fewer samples at the end or before the start, and None
        after the end; called once a tick.
      session: the speaker.
      hub: its listeners.
      pacer: the grid.
      stopped: whether to end before the source does; what was heard is not shown then.

    Raises:
      InputError: audio that is none.
    """
    pacer = Pacer() if pacer is None else pacer
    summary = Summary()
    waiting: collections.deque[Frame] = collections.deque()
    ended = False
    while not stopped():
        pacer.wait()
        if not ended:
            hop = take()
            ended = hop is None
            if hop is None:
                waiting.extend(session.flush())
            elif len(hop):
                waiting.extend(session.push(hop))
        if waiting:
            _send([waiting.popleft()], hub, summary)
        elif ended:
            break
    summary.moved = pacer.moved
    return summary


def hops(blocks: Iterable[np.ndarray]) -> Callable[[], np.ndarray | None]:
    """Returns a function that returns the blocks' samples hop by hop, and None after them."""

    def run() -> Iterator[np.ndarray]:
        rest = np.zeros(0, np.float32)
        for block in blocks:
            rest = np.concatenate([rest, block])
            while len(rest) >= HOP:
                yield rest[:HOP]
                rest = rest[HOP:]
        if len(rest):
            yield rest

    iterator = run()
    return lambda: next(iterator, None)


def _send(frames: list[Frame], hub: Hub, summary: Summary) -> None:
    for frame in frames:
        hub.send(frame)
        summary.frames += 1
