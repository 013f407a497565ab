"""Authenticated connections between the processes of a run.

A frame is: length of the message (4 bytes), length of its bytes (4), HMAC-SHA256 (32), message,
bytes. The HMAC covers the frame's number, both lengths, the message and the SHA-256 of the bytes,
under a key of this connection and direction. Frames that are forged, altered, repeated, left out,
reflected or taken from another connection are therefore refused, before anything in them is parsed.
"""

from __future__ import annotations

import collections
import contextlib
import hashlib
import hmac
import selectors
import socket
import struct
import threading
import time
from typing import Any

from a2fjax.training.distributed import messages
from a2fjax.training.distributed.messages import Violation

_HEAD = struct.Struct("!II32s")
_CHUNK = 1 << 18
_ROUNDS = 16

LARGEST_HELLO = 4096 + messages.LONGEST_TEXT * 2
"""Bytes of a frame of a process that has not proved yet that it belongs to the run."""

LARGEST_MESSAGE = 1 << 16
LARGEST_VALUE = 1 << 30

Received = tuple[dict[str, Any], bytes]
"""A message and the bytes that it carries."""


class Closed(Exception):
    """The other side closed the connection, or the connection broke."""


def derive(secret: bytes, purpose: str, *nonces: str) -> bytes:
    """Returns a key for one purpose, and for the connection that two nonces identify."""
    text = "\0".join(["a2fjax", purpose, *nonces])
    return hmac.digest(secret, text.encode(), "sha256")


class Link:
    """One connection; never blocks.

    `put` may be called from any thread, `read` from one thread at a time.

    Attributes:
      heard: `time.monotonic()` when bytes last arrived.
    """

    def __init__(self, connection: socket.socket, key: bytes) -> None:
        """Takes over a connection whose first frames are authenticated by `key`."""
        connection.setblocking(False)
        with contextlib.suppress(OSError):
            connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self._socket = connection
        self._lock = threading.Lock()
        self._out: collections.deque[memoryview] = collections.deque()
        self._in = bytearray()
        self._send_key = self._receive_key = key
        self._sent = self._received = 0
        self._largest, self._largest_value = LARGEST_HELLO, 0
        self.heard = time.monotonic()

    def fileno(self) -> int:
        """Returns the descriptor, for selectors."""
        return self._socket.fileno()

    def secure(self, *, send: bytes, receive: bytes) -> None:
        """Uses the keys of this connection for all later frames."""
        self._send_key, self._receive_key = send, receive
        self._sent = self._received = 0

    def admit(self, *, values: bool) -> None:
        """Accepts frames of the sizes that a process of the run sends.

        Args:
          values: whether its messages may carry bytes.
        """
        self._largest = LARGEST_MESSAGE
        self._largest_value = LARGEST_VALUE if values else 0

    def put(self, kind: str, payload: bytes = b"", **fields: Any) -> None:
        """Queues a message and sends as much as the connection takes at once.

        A broken connection is reported by `read`.
        """
        body = messages.encode(kind, **fields)
        digest = hashlib.sha256(payload).digest()
        with self._lock:
            code = _code(self._send_key, self._sent, body, len(payload), digest)
            self._sent += 1
            head = _HEAD.pack(len(body), len(payload), code)
            self._out.append(memoryview(head + body))
            if payload:
                self._out.append(memoryview(payload))  # Shared by all links, not copied.
        self.flush()

    @property
    def waiting(self) -> bool:
        """True while messages wait for the other side to read."""
        return bool(self._out)

    def flush(self) -> None:
        """Sends what the connection takes now."""
        with self._lock, contextlib.suppress(OSError):
            while self._out:
                count = self._socket.send(self._out[0])
                self._out[0] = self._out[0][count:]
                if not self._out[0]:
                    self._out.popleft()

    def read(self, most: int | None = None) -> list[Received]:
        """Returns the messages that have arrived completely.

        Args:
          most: number of messages at most; later calls return the others. None returns all.

        Raises:
          Closed: there will be no more.
          Violation: the other side is no process of this run, or not the one that it was.
        """
        admitted = self._largest == LARGEST_MESSAGE
        size = _CHUNK if admitted else _HEAD.size + LARGEST_HELLO
        for _ in range(_ROUNDS if admitted else 1):  # Other connections wait meanwhile.
            try:
                data = self._socket.recv(size)
            except BlockingIOError:
                break
            except OSError:
                raise Closed from None
            if not data:
                frames = self._frames(most)
                if frames:
                    return frames  # The next call finds the end.
                raise Closed
            self.heard = time.monotonic()
            self._in += data
            self._head(0)
        return self._frames(most)

    def close(self) -> None:
        """Closes the connection."""
        self._socket.close()

    def _head(self, start: int) -> tuple[int, int, bytes] | None:
        """Returns the lengths and the HMAC of the frame at `start`; None if they are incomplete."""
        if len(self._in) - start < _HEAD.size:
            return None
        length, extra, code = _HEAD.unpack_from(self._in, start)
        if length > self._largest or extra > self._largest_value:
            raise Violation(f"a frame of {length + extra} bytes")
        return length, extra, code

    def _frames(self, most: int | None) -> list[Received]:
        result: list[Received] = []
        start = 0
        with memoryview(self._in) as view:
            while most is None or len(result) < most:
                head = self._head(start)
                if head is None:
                    break
                length, extra, code = head
                first = start + _HEAD.size
                end = first + length + extra
                if len(view) < end:
                    break
                body = bytes(view[first : first + length])
                result.append(self._checked(body, bytes(view[first + length : end]), code))
                start = end
        del self._in[:start]
        return result

    def _checked(self, body: bytes, payload: bytes, code: bytes) -> Received:
        digest = hashlib.sha256(payload).digest()
        expected = _code(self._receive_key, self._received, body, len(payload), digest)
        if not hmac.compare_digest(code, expected):
            raise Violation("a frame that is not authentic")
        self._received += 1
        message = messages.decode(body)
        if payload and message["kind"] != "value":
            raise Violation(f"a message {message['kind']!r} that carries bytes")
        return message, payload


def wait(link: Link, deadline: float) -> Received:
    """Blocks until a message arrives; for one connection before the run.

    Raises:
      TimeoutError: none arrived until `deadline`, in `time.monotonic()`.
      Closed, Violation: as `Link.read`.
    """
    with selectors.DefaultSelector() as selector:
        selector.register(link, selectors.EVENT_READ)
        while True:
            frames = link.read(most=1)
            if frames:
                return frames[0]
            left = deadline - time.monotonic()
            if left <= 0:
                raise TimeoutError
            link.flush()
            selector.select(min(left, 0.2 if link.waiting else left))


def _code(key: bytes, number: int, body: bytes, extra: int, digest: bytes) -> bytes:
    covered = struct.pack("!QII", number, len(body), extra) + body + digest
    return hmac.digest(key, covered, "sha256")
