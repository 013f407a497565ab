"""Packets that come late, twice, out of order or never, as one row of samples."""

from __future__ import annotations

import collections
import dataclasses

import numpy as np

from a2fjax.errors import InputError


@dataclasses.dataclass
class Counts:
    """What happened to packets.

    Attributes:
      doubled: packets that came twice and were dropped.
      late: packets whose place had passed as silence.
      lost: packets that became silence.
      gaps: samples of silence where the source had nothing yet.
      overrun: samples dropped because nobody took them in time.
    """

    doubled: int = 0
    late: int = 0
    lost: int = 0
    gaps: int = 0
    overrun: int = 0


class JitterBuffer:
    """Puts packets in order and hands their samples out.

    A packet is waited for until `patience` packets after it have come; then it is silence of the
    same length. The buffer is bounded: what nobody takes in time is dropped, oldest first.

    Example:
        >>> buffer = JitterBuffer()
        >>> for number in (0, 1, 1):
        ...     buffer.put(np.full(2, number, np.float32), number)
        >>> buffer.take(4).tolist(), buffer.counts.doubled
        ([0.0, 0.0, 1.0, 1.0], 1)
    """

    def __init__(self, *, most_samples: int = 160_000, patience: int = 3):
        """Starts empty.

        Args:
          most_samples: held at once.
          patience: packets that may overtake another, 0 or more.
        """
        self.counts = Counts()
        self._most, self._patience = most_samples, patience
        self._waiting: dict[int, np.ndarray] = {}
        self._next: int | None = None
        self._ready: list[np.ndarray] = []
        self._length = 0
        self._packet = 0
        # Places that passed as silence, the latest ones.
        self._silent: collections.deque[int] = collections.deque(maxlen=1000)

    def __len__(self) -> int:
        """Returns the number of samples in order."""
        return self._length

    def put(self, samples: np.ndarray, number: int | None = None) -> None:
        """Takes a packet [S].

        Args:
          samples: float32.
          number: of the packet in its sequence, which may begin anywhere; None for the next.

        Raises:
          InputError: a number so far ahead that what is missing would not fit.
        """
        if self._next is None:
            self._next = 0 if number is None else number
        number = self._next if number is None else number
        if number < self._next:
            if number in self._silent:
                self.counts.late += 1
            else:
                self.counts.doubled += 1
            return
        if number in self._waiting:
            self.counts.doubled += 1
            return
        ahead = number - self._next
        if ahead * max(self._packet, len(samples)) > self._most:
            raise InputError(
                f"packet {number}: {ahead} packets after the one expected; restart the sequence"
            )
        self._waiting[number] = np.asarray(samples, np.float32)
        self._settle()

    def take(self, count: int) -> np.ndarray:
        """Returns the next samples [count]; silence where there are none."""
        out = np.zeros(count, np.float32)
        filled = 0
        while filled < count and self._ready:
            part = self._ready[0][: count - filled]
            out[filled : filled + len(part)] = part
            filled += len(part)
            rest = self._ready[0][len(part) :]
            self._ready[:1] = [rest] if len(rest) else []
        self._length -= filled
        self.counts.gaps += count - filled
        return out

    def clear(self) -> None:
        """Drops what was not taken; the sequence goes on."""
        self._ready, self._length = [], 0

    def _settle(self) -> None:
        assert self._next is not None
        while self._waiting:
            packet = self._waiting.pop(self._next, None)
            if packet is None:
                if len(self._waiting) <= self._patience:
                    return
                self.counts.lost += 1
                self._silent.append(self._next)
                packet = np.zeros(self._packet or len(next(iter(self._waiting.values()))))
            self._packet = len(packet)
            self._next += 1
            self._ready.append(np.asarray(packet, np.float32))
            self._length += len(packet)
            while self._length > self._most:
                dropped = len(self._ready.pop(0))
                self._length -= dropped
                self.counts.overrun += dropped
