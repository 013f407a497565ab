"""Frames for pages and programs that connect: JSON, or binary under the path /binary.

JSON: first `{"channels": [72 names], "head": ["yaw", "pitch", "roll"], "fps": 50}`, then a text a
frame, `{"frame": 7, "time": 0.14, "weights": [72], "head": [3], "speaks": true}`. Binary: the same
first text, then a message a frame, little-endian: float64 time, float32 x 72, float32 x 3, int16 x
320 of the audio at 16 kHz that belongs to it.
"""

from __future__ import annotations

import asyncio
import json
import struct
import threading
from typing import Any
from urllib.parse import parse_qs, urlsplit

import numpy as np

from a2fjax import rig
from a2fjax.errors import InputError
from a2fjax.live.idle import HEAD
from a2fjax.live.listeners import addresses
from a2fjax.live.session import Frame

MOST_CLIENTS = 64
_MOST_WAITING = 1 << 20  # Bytes that may wait for a slow client before frames are left out.


def greeting() -> str:
    """Returns the first text of a connection."""
    return json.dumps({"channels": rig.CHANNELS, "head": HEAD, "fps": rig.FPS})


def as_text(frame: Frame) -> str:
    """Returns a frame as JSON."""
    return json.dumps(
        {
            "frame": frame.number,
            "time": frame.seconds,
            "weights": np.round(frame.motion.astype(float), 6).tolist(),
            "head": np.round(frame.head.astype(float), 4).tolist(),
            "speaks": frame.speaks,
        }
    )


def as_bytes(frame: Frame) -> bytes:
    """Returns a frame as a binary message."""
    audio = np.round(np.clip(frame.audio, -1, 1) * 32767)
    return (
        struct.pack("<d", frame.seconds)
        + np.asarray(frame.motion, "<f4").tobytes()
        + np.asarray(frame.head, "<f4").tobytes()
        + audio.astype("<i2").tobytes()
    )


def library() -> Any:
    """Returns the module `websockets.asyncio.server`.

    Raises:
      InputError: the extra is not installed.
    """
    try:
        from websockets.asyncio import server
    except ImportError:
        raise InputError("WebSocket needs the extra live: pip install 'a2fjax[live]'") from None
    return server


def refuse(token: str | None, connection: Any, request: Any) -> Any:
    """Returns an answer that refuses a client, or None for one that may connect.

    Browsers let a page of any site connect to this machine. Without a token, only programs and
    pages of this machine may; the header `Origin` tells, which scripts cannot change.
    """
    if token is None and not all(map(addresses.is_local_page, request.headers.get_all("Origin"))):
        return connection.respond(
            403, f"pages of other sites must show a token: set {addresses.TOKEN_VARIABLE}\n"
        )
    query = parse_qs(urlsplit(request.path).query).get("token", [None])[0]
    if addresses.admits(token, request.headers.get("Authorization"), query):
        return None
    return connection.respond(401, "the token is missing or wrong\n")


class WebSocket:
    """Serves frames to whoever connects; the target is PORT or HOST:PORT."""

    def __init__(self, target: str):
        """Binds the port.

        Raises:
          InputError: another form, a port in use, another host without a token, or the extra is
            not installed.
        """
        host, port = addresses.parse(target, where="--ws", host=addresses.LOCAL)
        self._token = addresses.token_for(host, where="--ws")
        self._server = library()
        self._clients: dict[Any, bool] = {}
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, daemon=True)
        self._thread.start()
        self.left_out = 0
        start = asyncio.run_coroutine_threadsafe(self._start(host, port), self._loop)
        try:
            self._running = start.result()
        except OSError as error:
            self._stop()
            raise InputError(f"--ws {target}: cannot be bound ({error.strerror})") from None

    def send(self, frame: Frame) -> None:
        """Sends a frame to all clients; those that do not read are left out."""
        self._loop.call_soon_threadsafe(self._send, frame)

    def close(self) -> None:
        """Closes all connections."""

        async def end() -> None:
            self._running.close()
            await self._running.wait_closed()

        asyncio.run_coroutine_threadsafe(end(), self._loop).result(5)
        self._stop()

    def _stop(self) -> None:
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join(5)

    async def _start(self, host: str, port: int) -> Any:
        return await self._server.serve(
            self._serve,
            host,
            port,
            process_request=lambda connection, request: refuse(self._token, connection, request),
            max_size=1024,
            close_timeout=1,
        )

    async def _serve(self, connection: Any) -> None:
        if len(self._clients) >= MOST_CLIENTS:
            await connection.close(1013, "full")
            return
        # Who has the greeting gets every frame from then on.
        self._clients[connection] = urlsplit(connection.request.path).path == "/binary"
        try:
            await connection.send(greeting())
            async for _ in connection:
                pass
        finally:
            del self._clients[connection]

    def _send(self, frame: Frame) -> None:
        kinds = {}
        for connection, binary in list(self._clients.items()):
            if connection.transport.get_write_buffer_size() > _MOST_WAITING:
                self.left_out += 1
                continue
            if binary not in kinds:
                kinds[binary] = as_bytes(frame) if binary else as_text(frame)
            self._broadcast(connection, kinds[binary])

    def _broadcast(self, connection: Any, message: str | bytes) -> None:
        self._server.broadcast([connection], message)
