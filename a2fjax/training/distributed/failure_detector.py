"""Detects failed, killed and unresponsive processes of a run and reports them to the others.

XLA's collectives have no time limits: if one process dies, the others wait in the next collective,
and JAX's own heartbeat ends them after a while without naming the lost process. Here every process
keeps a connection to the first one. A process that fails sends the reason before it ends. A closed
connection reveals a killed process, and missing heartbeats reveal a stopped process or a lost
machine. All other processes then print which process was lost and why, and end.

The processes exchange lines of JSON over TCP, which are never executed. The first process listens
on the configured address, waits for all others, and sends them the port of JAX's own coordinator.
"""

from __future__ import annotations

import contextlib
import json
import os
import socket
import threading
import time
from collections.abc import Callable
from typing import Any

from a2fjax.errors import EXIT_LOST, WorkFailed

BEAT_SECONDS = 2.0
SILENCE_SECONDS = 25.0
"""A process counts as lost if no message arrives for this long."""

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
        patience: float,
        ended: Ended,
    ) -> None:
        """Connects, and returns when all processes are connected.

        Args:
          address: address where process 0 listens.
          rank: index of this process.
          size: number of processes.
          session: text that all processes of the run share; others are refused.
          patience: seconds to wait for the other processes.
          ended: called when another process ends; see `Ended`.

        Raises:
          WorkFailed: some processes did not connect in time; the message names them.
        """
        self._rank, self._size, self._session, self._ended = rank, size, session, ended
        self._links: dict[int, _Link] = {}
        self._names: dict[int, str] = {}
        self._lock = threading.Lock()
        self._over = threading.Event()
        self._left: set[int] = set()
        self._all_left = threading.Event()
        self._met = threading.Condition()
        self._here: dict[int, set[int]] = {}
        self._given: dict[int, Any] = {}
        self._meetings = 0
        deadline = time.monotonic() + patience
        if rank == 0:
            self.port = self._gather(address, deadline, patience)
        else:
            self.port = self._join(address, deadline, patience)
        for other, link in self._links.items():
            threading.Thread(target=self._listen, args=(other, link), daemon=True).start()
        threading.Thread(target=self._beat, daemon=True).start()

    # ---- coming together --------------------------------------------------------------------

    def _gather(self, address: tuple[str, int], deadline: float, patience: float) -> int:
        try:
            server = socket.create_server(("", address[1]), backlog=self._size, reuse_port=False)
        except OSError as error:
            raise WorkFailed(
                f"process 0: port {address[1]} cannot be listened on ({error.strerror}); another "
                "run on this machine may hold it"
            ) from None
        with server:
            while len(self._links) < self._size - 1:
                server.settimeout(max(0.01, deadline - time.monotonic()))
                try:
                    connection, _ = server.accept()
                except TimeoutError:
                    missing = sorted(set(range(1, self._size)) - set(self._links))
                    raise WorkFailed(
                        f"{len(self._links) + 1} of {self._size} processes came within "
                        f"{patience:.0f} s; missing: {', '.join(map(str, missing))}"
                    ) from None
                link = _Link(connection)
                refusal = self._admit(link)
                if refusal:
                    link.send({"refused": refusal})
                    link.close()
        with socket.create_server(("", int(os.environ.get("JAX_COORDINATOR_PORT", "0")))) as free:
            port = int(free.getsockname()[1])
        for link in self._links.values():
            link.send({"go": port})
        return port

    def _admit(self, link: _Link) -> str:
        """Admits a process; returns the reason if it is refused, else ""."""
        try:
            hello = link.receive(10.0) or {}
        except TimeoutError:
            return "nothing was said"
        rank = hello.get("rank")
        if hello.get("session") != self._session:
            return f"process 0 belongs to session {self._session!r}, not {hello.get('session')!r}"
        if hello.get("size") != self._size:
            return f"process 0 expects {self._size} processes, not {hello.get('size')}"
        if not isinstance(rank, int) or not 0 < rank < self._size:
            return f"process number {rank!r}: expected 1 to {self._size - 1}"
        if rank in self._links:
            return f"process {rank} is there already ({self._names[rank]})"
        self._links[rank] = link
        self._names[rank] = str(hello.get("name", "?"))
        return ""

    def _join(self, address: tuple[str, int], deadline: float, patience: float) -> int:
        hello = {
            "rank": self._rank,
            "size": self._size,
            "session": self._session,
            "name": name(),
        }
        why = "no answer"
        while time.monotonic() < deadline:
            try:
                link = _Link(socket.create_connection(address, timeout=5.0))
            except OSError as error:
                why = str(error.strerror or error)
                time.sleep(0.2)
                continue
            link.send(hello)
            try:
                answer = link.receive(max(1.0, deadline - time.monotonic()))
            except TimeoutError:
                answer = None
            if answer and "go" in answer:
                self._links[0], self._names[0] = link, f"{address[0]}"
                return int(answer["go"])
            link.close()
            why = "it ended, or not all processes came"
            if answer and "refused" in answer:
                # Process 0 may be left over from an earlier start and about to end.
                why = f"turned away: {answer['refused']}"
            time.sleep(0.2)
        raise WorkFailed(
            f"process {self._rank}: process 0 at {address[0]}:{address[1]} could not be reached "
            f"within {patience:.0f} s ({why})"
        )

    # ---- while the run lasts ----------------------------------------------------------------

    def _beat(self) -> None:
        while not self._over.wait(BEAT_SECONDS):
            for link in self._links.values():
                link.send({"beat": 1})

    def _listen(self, other: int, link: _Link) -> None:
        while True:
            try:
                message = link.receive(SILENCE_SECONDS)
            except TimeoutError:
                self._lost(other, f"was not heard of for {SILENCE_SECONDS:.0f} s")
                return
            if message is None:
                if other not in self._left:
                    self._lost(other, "is gone (killed, or its machine is)")
                return
            if "bye" in message:
                self._left.add(other)
                if self._rank or len(self._left) == self._size - 1:
                    self._all_left.set()
            elif "here" in message or "value" in message:
                with self._met:
                    if "here" in message:
                        self._here.setdefault(int(message["here"]), set()).add(other)
                    else:
                        self._given[int(message["meeting"])] = message["value"]
                    self._met.notify_all()
            elif "end" in message:
                self._end(str(message["end"]), int(message["code"]), origin=other)
                return

    def _lost(self, other: int, what: str) -> None:
        self._end(f"process {other} ({self._names[other]}) {what}", EXIT_LOST, origin=other)

    def _end(self, text: str, code: int, *, origin: int) -> None:
        if self._over.is_set():
            return
        with self._lock:
            if self._over.is_set():
                return
            self._over.set()
        self._spread(text, code, but=origin)
        self._ended(text, code)

    def _spread(self, text: str, code: int, *, but: int) -> None:
        for other, link in self._links.items():
            if other != but:
                link.send({"end": text, "code": code})

    def fail(self, text: str, code: int) -> bool:
        """Reports to all other processes that this process ends, with the reason.

        Returns:
          False if the end of another process is already being handled.
        """
        with self._lock:
            if self._over.is_set():
                return False
            self._over.set()
        self._spread(f"process {self._rank} ({name()}): {text}", code, but=-1)
        return True

    def meet(self, value: Any = None) -> Any:
        """Waits for all processes and returns the JSON value of process 0 on each of them.

        There is no time limit: a lost process ends all processes, and the watchdog ends one that
        hangs. Device collectives are not used, because Gloo gives up when one process takes half a
        minute longer than the others.
        """
        self._meetings += 1
        number = self._meetings
        if self._rank:
            self._links[0].send({"here": number})
            with self._met:
                self._met.wait_for(lambda: number in self._given)
                return self._given.pop(number)
        with self._met:
            self._met.wait_for(lambda: len(self._here.get(number, ())) == self._size - 1)
            del self._here[number]
        for link in self._links.values():
            link.send({"meeting": number, "value": value})
        return value

    def leave(self, patience: float) -> None:
        """Waits until all processes are about to leave; later ends do not count as failures."""
        for link in self._links.values():
            if self._rank:
                link.send({"bye": 1})
        self._all_left.wait(patience)
        if not self._rank:
            for link in self._links.values():
                link.send({"bye": 1})
        with self._lock:
            self._over.set()


def name() -> str:
    """Returns host name and process id, for messages."""
    return f"{socket.gethostname()}, pid {os.getpid()}"


class _Link:
    """Sends and receives lines of JSON; `send` never raises, as the listener detects errors."""

    def __init__(self, connection: socket.socket) -> None:
        self._socket = connection
        self._socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self._socket.settimeout(None)
        self._buffer = b""
        self._sending = threading.Lock()

    def send(self, message: dict[str, Any]) -> None:
        with self._sending, contextlib.suppress(OSError):
            self._socket.sendall(json.dumps(message).encode() + b"\n")

    def receive(self, seconds: float) -> dict[str, Any] | None:
        """Returns the next message; None if the connection is closed or the data are not JSON.

        Raises:
          TimeoutError: no message arrived within the time.
        """
        deadline = time.monotonic() + seconds
        while b"\n" not in self._buffer[-65536:]:
            left = deadline - time.monotonic()
            if left <= 0:
                raise TimeoutError
            try:
                found = _readable(self._socket, left)
                data = self._socket.recv(65536) if found else None
            except OSError:
                return None
            if data == b"" or len(self._buffer) > 1 << 30:
                return None
            self._buffer += data or b""
        line, _, self._buffer = self._buffer.partition(b"\n")
        try:
            message = json.loads(line)
        except ValueError:
            return None
        return message if isinstance(message, dict) else None

    def close(self) -> None:
        with contextlib.suppress(OSError):
            self._socket.close()


def _readable(connection: socket.socket, seconds: float) -> bool:
    # A socket timeout would apply to sending too.
    import select

    return bool(select.select([connection], [], [], seconds)[0])
