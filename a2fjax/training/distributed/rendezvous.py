"""Connects the processes of a run: process 0 listens, and the others prove that they belong to it.

The handshake, in which each side proves that it knows the job's secret:

    other -> 0   hello: rank, size, session, name, nonce    key: the secret
    0 -> other   welcome: another nonce                     key: the secret and the first nonce
    other -> 0   confirm                                    key: the secret and both nonces
    0 -> other   go: port of JAX's coordinator, once all have come; or refused: why

A connection that sends anything else gets no answer at all. Connections are served concurrently, so
one that says nothing delays no other.
"""

from __future__ import annotations

import contextlib
import dataclasses
import os
import secrets
import selectors
import socket
import time
from typing import Any

from a2fjax.errors import WorkFailed
from a2fjax.training.distributed import interface, links
from a2fjax.training.distributed.links import Closed, Link
from a2fjax.training.distributed.messages import Violation

HANDSHAKE_SECONDS = 10.0
_MOST_STRANGERS = 256
"""Connections that have not proved anything yet; the oldest are closed beyond this number."""

_RETRY_SECONDS = 0.2


@dataclasses.dataclass(frozen=True, kw_only=True)
class Member:
    """This process, as the rendezvous needs to know it.

    Attributes:
      rank: index of this process.
      size: number of processes.
      session: text that all processes of this start of the run share.
      secret: bytes that only the processes of this run know.
      name: host and process id, for messages.
    """

    rank: int
    size: int
    session: str
    secret: bytes
    name: str


@dataclasses.dataclass(frozen=True)
class Connected:
    """The result of a rendezvous.

    Attributes:
      links: connection by rank: those of all other processes on process 0, else that of process 0.
      names: name by rank.
      host: address that process 0 listened on; "" elsewhere.
      port: port for JAX's coordinator on process 0.
    """

    links: dict[int, Link]
    names: dict[int, str]
    host: str
    port: int


def gather(member: Member, host: str, port: int, *, bind: str, patience: float) -> Connected:
    """Waits on process 0 for all others.

    Args:
      member: this process.
      host: name by which the others reach this process.
      port: port that they look for.
      bind: address to listen on; "" for that of `host`.
      patience: seconds to wait.

    Raises:
      InputError, WorkFailed: as `interface.listen`, or some processes did not come in time.
    """
    deadline = time.monotonic() + patience
    with (
        interface.listen(host, port, bind=bind, deadline=deadline) as server,
        selectors.DefaultSelector() as selector,
    ):
        server.setblocking(False)
        selector.register(server, selectors.EVENT_READ)
        gathering = _Gathering(member, selector)
        try:
            while len(gathering.links) < member.size - 1:
                left = deadline - time.monotonic()
                if left <= 0:
                    raise WorkFailed(_missing(member, gathering.links, patience))
                for key, _ in selector.select(min(left, 0.5)):
                    if key.fileobj is server:
                        gathering.accept(server)
                    elif isinstance(key.fileobj, Link):
                        gathering.serve(key.fileobj)
                gathering.expire()
        except BaseException:
            for link in gathering.links.values():
                link.close()
            raise
        finally:
            gathering.dismiss()
        address = str(server.getsockname()[0])
    family = socket.AF_INET6 if ":" in address else socket.AF_INET
    fixed = int(os.environ.get("JAX_COORDINATOR_PORT", "0"))
    with socket.create_server((address, fixed), family=family) as free:
        coordinator = int(free.getsockname()[1])
    for link in gathering.links.values():
        link.put("go", port=coordinator)
    return Connected(gathering.links, gathering.names, address, coordinator)


def _missing(member: Member, come: dict[int, Link], patience: float) -> str:
    missing = sorted(set(range(1, member.size)) - set(come))
    some = ", ".join(map(str, missing[:20])) + (", ..." if len(missing) > 20 else "")
    return (
        f"{len(come) + 1} of {member.size} processes came within {patience:.0f} s; missing: {some}"
    )


@dataclasses.dataclass
class _Stranger:
    """A connection during its handshake; `hello` is None until it has proved its first message."""

    until: float
    hello: dict[str, Any] | None = None


class _Gathering:
    """Processes that have come, and connections that have still to prove that they may."""

    def __init__(self, member: Member, selector: selectors.BaseSelector) -> None:
        self._member, self._selector = member, selector
        self._hello_key = links.derive(member.secret, "hello")
        self._strangers: dict[Link, _Stranger] = {}
        self.links: dict[int, Link] = {}
        self.names: dict[int, str] = {}

    def accept(self, server: socket.socket) -> None:
        try:
            connection, _ = server.accept()
        except BlockingIOError:
            return
        except OSError:  # Out of descriptors, or the other side has gone already.
            self._drop(next(iter(self._strangers), None))
            time.sleep(0.01)
            return
        if len(self._strangers) >= _MOST_STRANGERS:
            self._drop(next(iter(self._strangers)))
        link = Link(connection, self._hello_key)
        self._strangers[link] = _Stranger(time.monotonic() + HANDSHAKE_SECONDS)
        self._selector.register(link, selectors.EVENT_READ)

    def serve(self, link: Link) -> None:
        if link not in self._strangers:
            self._check_admitted(link)
            return
        try:
            # The keys change with each message.
            while link in self._strangers and (found := link.read(most=1)):
                self._advance(link, found[0][0])
        except (Closed, Violation):
            self._drop(link)

    def _advance(self, link: Link, message: dict[str, Any]) -> None:
        member, stranger = self._member, self._strangers[link]
        if stranger.hello is None:
            if message["kind"] != "hello":
                raise Violation("no hello")
            stranger.hello = message
            nonces = message["nonce"], secrets.token_hex(16)
            link.secure(send=links.derive(member.secret, "welcome", nonces[0]), receive=b"")
            link.put("welcome", nonce=nonces[1])
            link.secure(
                send=links.derive(member.secret, "from 0", *nonces),
                receive=links.derive(member.secret, "to 0", *nonces),
            )
            return
        if message["kind"] != "confirm":
            raise Violation("no confirmation")
        refusal = self._refusal(stranger.hello)
        if refusal:
            link.put("refused", why=refusal)
            raise Closed
        del self._strangers[link]
        link.admit(values=False)
        rank = stranger.hello["rank"]
        self.links[rank], self.names[rank] = link, stranger.hello["name"]

    def _refusal(self, hello: dict[str, Any]) -> str:
        member, rank = self._member, hello["rank"]
        if hello["session"] != member.session:
            return f"process 0 belongs to session {member.session!r}, not {hello['session']!r}"
        if hello["size"] != member.size:
            return f"process 0 expects {member.size} processes, not {hello['size']}"
        if not 0 < rank < member.size:
            return f"process number {rank}: expected 1 to {member.size - 1}"
        if rank in self.links:
            return f"process {rank} is there already ({self.names[rank]})"
        return ""

    def _check_admitted(self, link: Link) -> None:
        """Forgets a process that ended while others were still to come; it may come again."""
        try:
            if not link.read(most=1):
                return
        except (Closed, Violation):
            pass
        for rank in [rank for rank, other in self.links.items() if other is link]:
            del self.links[rank], self.names[rank]
        self._close(link)

    def expire(self) -> None:
        """Closes connections whose handshake takes too long."""
        now = time.monotonic()
        for link in [k for k, stranger in self._strangers.items() if stranger.until < now]:
            self._drop(link)

    def dismiss(self) -> None:
        """Closes all connections that were not admitted."""
        for link in list(self._strangers):
            self._drop(link)

    def _drop(self, link: Link | None) -> None:
        if link is not None:
            self._strangers.pop(link, None)
            self._close(link)

    def _close(self, link: Link) -> None:
        with contextlib.suppress(KeyError, ValueError):
            self._selector.unregister(link)
        link.close()


def join(member: Member, host: str, port: int, *, patience: float) -> Connected:
    """Connects to process 0, and returns when all processes have come.

    Raises:
      WorkFailed: process 0 cannot be reached in time, or does not belong to this run.
    """
    deadline = time.monotonic() + patience
    why = "no answer"
    while time.monotonic() < deadline:
        try:
            connection = socket.create_connection((host, port), timeout=5.0)
        except (OSError, UnicodeError) as error:
            why = str(getattr(error, "strerror", None) or error)
            time.sleep(_RETRY_SECONDS)
            continue
        link = Link(connection, links.derive(member.secret, "hello"))
        try:
            go = _introduce(member, link, deadline)
            return Connected({0: link}, {0: host}, "", go)
        except TimeoutError:
            why = "it does not answer"
        except Closed:
            why = "it ended, not all processes came, or it has another A2F_SECRET"
        except Violation as error:
            why = f"what listens there has another A2F_SECRET: it sent {error}"
        except _Refused as error:
            # Process 0 may be left over from an earlier start and about to end.
            why = f"turned away: {error}"
        link.close()
        time.sleep(_RETRY_SECONDS)
    raise WorkFailed(
        f"process {member.rank}: process 0 at {host}:{port} could not be reached within "
        f"{patience:.0f} s ({why})"
    )


class _Refused(Exception):
    """Process 0 refused this process and said why."""


def _introduce(member: Member, link: Link, deadline: float) -> int:
    """Returns the port of JAX's coordinator."""
    nonce = secrets.token_hex(16)
    link.put(
        "hello",
        rank=member.rank,
        size=member.size,
        session=member.session,
        name=member.name,
        nonce=nonce,
    )
    link.secure(send=b"", receive=links.derive(member.secret, "welcome", nonce))
    welcome, _ = links.wait(link, min(deadline, time.monotonic() + HANDSHAKE_SECONDS))
    if welcome["kind"] != "welcome":
        raise Violation(f"a message {welcome['kind']!r}")
    link.secure(
        send=links.derive(member.secret, "to 0", nonce, welcome["nonce"]),
        receive=links.derive(member.secret, "from 0", nonce, welcome["nonce"]),
    )
    link.put("confirm")
    link.admit(values=True)
    message, _ = links.wait(link, deadline)
    if message["kind"] == "refused":
        raise _Refused(message["why"])
    if message["kind"] != "go":
        raise Violation(f"a message {message['kind']!r}")
    return int(message["port"])
