"""Detects failed, killed and unresponsive processes of a run and reports them to the others.

XLA's collectives have no time limits: if one process dies, the others wait in the next collective,
and JAX's own heartbeat ends them after a while without naming the lost process. Here every process
keeps a connection to the first one (`rendezvous`). A process that fails sends the reason before it
ends. A closed connection reveals a killed process, and missing heartbeats reveal a stopped process
or a lost machine. All other processes then print which process was lost and why, and end.
"""

from __future__ import annotations

import contextlib
import os
import selectors
import socket
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any, cast

from a2fjax.errors import EXIT_LOST, InputError
from a2fjax.training.distributed import links, rendezvous
from a2fjax.training.distributed.links import Closed, Link
from a2fjax.training.distributed.messages import Violation

BEAT_SECONDS = 2.0
SILENCE_SECONDS = 25.0
"""A process counts as lost if nothing arrives from it for this long."""

_STOOD_STILL_SECONDS = 5.0
"""After a longer pause of this process itself, the silence of the others proves nothing."""

_FLUSH_SECONDS = 2.0
_OUTLIVE_SECONDS = 10.0
"""Process 0 waits at most this long for the others to end before it ends itself.

It holds JAX's coordination service. JAX aborts every process whose connection to the service
breaks, and then neither the message nor the exit code of that process is its own.
"""

Ended = Callable[[str, int], None]
"""Called once, from a thread, with a message on the lost process and the exit code to use."""


class FailureDetector:
    """Exchanges heartbeats, failures and values with the other processes of a run."""

    def __init__(
        self,
        address: tuple[str, int],
        *,
        rank: int,
        size: int,
        session: str,
        secret: bytes,
        patience: float,
        ended: Ended,
        bind: str = "",
    ) -> None:
        """Connects, and returns when all processes are connected.

        Args:
          address: address of process 0.
          rank: index of this process.
          size: number of processes.
          session: text that all processes of this start share; others are refused.
          secret: bytes that only the processes of this run know.
          patience: seconds to wait for the other processes.
          ended: called when another process ends; see `Ended`.
          bind: address that process 0 listens on; "" for that of its name.

        Raises:
          InputError, WorkFailed: as `rendezvous.gather` and `rendezvous.join`.
        """
        member = rendezvous.Member(
            rank=rank, size=size, session=session, secret=secret, name=name()
        )
        if rank == 0:
            connected = rendezvous.gather(member, *address, bind=bind, patience=patience)
        else:
            connected = rendezvous.join(member, *address, patience=patience)
        self.host, self.port = connected.host, connected.port
        self._start(rank, size, connected.links, connected.names, ended)

    def _start(
        self,
        rank: int,
        size: int,
        connections: Mapping[int, Link],
        names: Mapping[int, str],
        ended: Ended,
    ) -> None:
        self._rank, self._size, self._ended = rank, size, ended
        self._links, self._names = dict(connections), dict(names)
        self._lock = threading.Lock()
        self._over = threading.Event()
        self._told = False
        self._changed = threading.Condition()
        self._meetings = self._met = 0
        self._here: set[int] = set()
        self._given: dict[int, bytes] = {}
        self._leaving = False
        self._left: set[int] = set()
        self._woken, self._waker = socket.socketpair()
        self._woken.setblocking(False)
        for link in self._links.values():
            link.heard = time.monotonic()
        self._thread = threading.Thread(target=self._watch, name="failure detector", daemon=True)
        self._thread.start()

    # ---- the thread -------------------------------------------------------------------------

    def _watch(self) -> None:
        try:
            self._loop()
        except BaseException as error:  # noqa: BLE001 - a run without this thread is unwatched
            self._end(f"the failure detector failed: {type(error).__name__}: {error}", origin=-1)

    def _loop(self) -> None:
        # Not select.select, which fails beyond 1,024 descriptors.
        with selectors.DefaultSelector() as selector:
            selector.register(self._woken, selectors.EVENT_READ)
            for other, link in self._links.items():
                selector.register(link, selectors.EVENT_READ, other)
            for other in self._links:
                self._receive(other)  # What arrived with the last message of the rendezvous.
            beat = seen = time.monotonic()
            changed, writing = True, False
            while not self._over.is_set():
                if changed or writing:  # Not for each message of a thousand processes.
                    writing = self._watch_writes(selector)
                changed = False
                for key, events in selector.select(max(0.0, beat - time.monotonic())):
                    if key.data is None:
                        with contextlib.suppress(BlockingIOError):
                            self._woken.recv(4096)
                        changed = True
                        continue
                    if events & selectors.EVENT_WRITE:
                        self._links[key.data].flush()
                    if events & selectors.EVENT_READ:
                        self._receive(key.data)
                    if self._over.is_set():
                        return
                now = time.monotonic()
                if now - seen > BEAT_SECONDS + _STOOD_STILL_SECONDS:
                    for link in self._links.values():
                        link.heard = now
                seen = now
                if now >= beat:
                    beat, changed = now + BEAT_SECONDS, True
                    self._check_silence(now)
                    for link in self._links.values():
                        if not link.waiting:
                            link.put("beat")

    def _watch_writes(self, selector: selectors.BaseSelector) -> bool:
        """Watches the connections on which messages wait; returns whether there are any."""
        for other, link in self._links.items():
            events = selectors.EVENT_READ | (selectors.EVENT_WRITE * link.waiting)
            if selector.get_key(link).events != events:
                selector.modify(link, events, other)
        return any(link.waiting for link in self._links.values())

    def _check_silence(self, now: float) -> None:
        for other, link in self._links.items():
            if now - link.heard > SILENCE_SECONDS:
                self._lost(other, f"was not heard of for {SILENCE_SECONDS:.0f} s")
                return

    def _receive(self, other: int) -> None:
        try:
            for message, payload in self._links[other].read():
                self._handle(other, message, payload)
        except Closed:
            # A process closes its connection only after all have agreed to leave.
            if not (self._leaving and self._everyone_left()):
                self._lost(other, "is gone (killed, or its machine is)")
        except Violation as error:
            self._lost(other, f"sent {error}")

    def _handle(self, other: int, message: Mapping[str, Any], payload: bytes) -> None:
        kind = message["kind"]
        if kind == "beat":
            return
        if kind == "end":
            code = message["code"] if 0 < message["code"] < 256 else EXIT_LOST
            self._end(message["text"], code, origin=other)
            return
        with self._changed:
            if kind == "here" and not self._rank:
                if message["meeting"] != self._met + 1 or other in self._here:
                    raise Violation(f"a message for meeting {message['meeting']}")
                self._here.add(other)
            elif kind == "value" and self._rank:
                if message["meeting"] != self._meetings or self._given:
                    raise Violation(f"a value of meeting {message['meeting']}")
                self._given[message["meeting"]] = payload
            elif kind == "bye" and (self._leaving or not self._rank) and other not in self._left:
                self._left.add(other)
            else:
                raise Violation(f"a message {kind!r} that is not expected")
            self._changed.notify_all()

    def _everyone_left(self) -> bool:
        return len(self._left) == len(self._links)

    # ---- ends -------------------------------------------------------------------------------

    def _lost(self, other: int, what: str) -> None:
        self._end(f"process {other} ({self._names[other]}) {what}", origin=other, lost=True)

    def _end(self, text: str, code: int = EXIT_LOST, *, origin: int, lost: bool = False) -> None:
        with self._lock:
            if self._over.is_set():
                return
            self._over.set()
        self._spread(text, code, but=origin)
        self._outlive(but=origin if lost else -1)
        self._ended(text, code)

    def _spread(self, text: str, code: int, *, but: int) -> None:
        chosen = [link for other, link in self._links.items() if other != but]
        self._send(chosen, "end", text=text, code=code)

    def _send(self, chosen: Sequence[Link], kind: str, **fields: Any) -> None:
        """Sends the last message of this process, for which it does not wait long."""
        for link in chosen:
            link.put(kind, **fields)
        deadline = time.monotonic() + _FLUSH_SECONDS
        while any(link.waiting for link in chosen) and time.monotonic() < deadline:
            time.sleep(0.01)
            for link in chosen:
                link.flush()

    def fail(self, text: str, code: int) -> bool:
        """Reports to all other processes that this process ends, with the reason.

        Only the first report is sent.

        Returns:
          False if the end of another process is already being handled.
        """
        with self._lock:
            if self._over.is_set():
                return self._told
            self._over.set()
            self._told = True
        self._spread(f"process {self._rank} ({name()}): {text}", code, but=-1)
        self._wake()
        self._thread.join(_OUTLIVE_SECONDS)
        self._outlive(but=-1)
        return True

    def _outlive(self, *, but: int) -> None:
        """Waits on process 0 until the others have closed their connections, their last act."""
        if self._rank:
            return
        deadline = time.monotonic() + _OUTLIVE_SECONDS
        with selectors.DefaultSelector() as selector:
            for other, link in self._links.items():
                if other != but:
                    selector.register(link, selectors.EVENT_READ)
            while selector.get_map() and (left := deadline - time.monotonic()) > 0:
                for key, _ in selector.select(left):
                    link = cast(Link, key.fileobj)
                    try:
                        link.read()
                    except (Closed, Violation):
                        selector.unregister(link)

    # ---- meetings ---------------------------------------------------------------------------

    def meet(self, value: bytes = b"") -> bytes:
        """Waits for all processes and returns the bytes of process 0 on each of them.

        There is no time limit: a lost process ends all processes, and the watchdog ends one that
        hangs. Device collectives are not used, because Gloo gives up when one process takes half a
        minute longer than the others.

        Raises:
          InputError: the bytes of process 0 are more than a message can carry.
        """
        if len(value) > links.LARGEST_VALUE:
            raise InputError(
                f"{len(value)} bytes for the other processes: expected at most "
                f"{links.LARGEST_VALUE}"
            )
        self._meetings += 1
        number = self._meetings
        if self._rank:
            self._links[0].put("here", meeting=number)
            with self._changed:
                self._changed.wait_for(lambda: number in self._given)
                return self._given.pop(number)
        with self._changed:
            self._changed.wait_for(lambda: len(self._here) == self._size - 1)
            self._here.clear()
            self._met = number
        for link in self._links.values():
            link.put("value", value, meeting=number)
        self._wake()
        return value

    def leave(self) -> None:
        """Waits until all processes are about to leave; later ends do not count as failures.

        There is no time limit, as in `meet`: the first process may still upload its log.
        """
        with self._changed:
            self._leaving = True
        if self._rank:
            self._links[0].put("bye")
        with self._changed:
            self._changed.wait_for(self._everyone_left)
        if not self._rank:
            self._send(list(self._links.values()), "bye")
        with self._lock:
            self._over.set()
        self._wake()

    def _wake(self) -> None:
        with contextlib.suppress(OSError):
            self._waker.send(b"\0")


def name() -> str:
    """Returns host name and process id, for messages."""
    return f"{socket.gethostname()[:200]}, pid {os.getpid()}"
