"""Speakers over WebSocket, and health and metrics over HTTP, on one port.

A speaker connects to /speak?rate=48000&format=s16le&emotion=happy and sends binary messages of
samples. It may send texts: {"emotion": {"sad": 1}} changes the emotion, {"end": true} ends the
utterance. It receives the texts of `listeners.websocket`, or binary messages where the query has
binary=1, and {"end": true} after the last frame. An error is {"error": "..."} and the end of the
connection; close code 1013 says that the server is full.

/health answers 200 while the process lives, /ready 200 while speakers are admitted and 503
otherwise, /metrics counts.
"""

from __future__ import annotations

import asyncio
import http
import json
from typing import Any
from urllib.parse import parse_qsl, urlsplit

import numpy as np

from a2fjax.audio import HOP
from a2fjax.errors import InputError, one_line
from a2fjax.live.listeners import websocket as frames_lib
from a2fjax.live.resample import Resampler
from a2fjax.live.serving import counts as counts_lib
from a2fjax.live.serving import emotions as emotions_lib
from a2fjax.live.serving.engine import Engine, Full, Speaker
from a2fjax.live.session import Frame
from a2fjax.live.sources import PCM, decode
from a2fjax.live.voice import VoiceActivity

LARGEST_MESSAGE = 1 << 20
"""Bytes of a message."""

_KEYS = {"rate", "format", "emotion", "binary", "token"}


class Service:
    """Serves speakers of an engine.

    Attributes:
      draining: whether no more speakers are admitted.
    """

    def __init__(self, engine: Engine, *, token: str | None = None):
        """Serves the speakers of an engine."""
        self._engine, self._token = engine, token
        self.draining = False

    async def start(self, host: str, port: int) -> Any:
        """Returns the running server.

        Raises:
          InputError: the extra is not installed.
          OSError: the port cannot be bound.
        """
        return await frames_lib.library().serve(
            self._speak,
            host,
            port,
            process_request=self._request,
            max_size=LARGEST_MESSAGE,
            max_queue=4,
            close_timeout=1,
        )

    def _request(self, connection: Any, request: Any) -> Any:
        path = urlsplit(request.path).path
        if path == "/health":
            return connection.respond(http.HTTPStatus.OK, "ok\n")
        if path == "/ready":
            if self.draining:
                return connection.respond(http.HTTPStatus.SERVICE_UNAVAILABLE, "draining\n")
            return connection.respond(http.HTTPStatus.OK, "ready\n")
        refused = frames_lib.refuse(self._token, connection, request)
        if refused is not None:
            self._engine.counts.refused["token"] += 1
            return refused
        if path == "/metrics":
            answer = connection.respond(http.HTTPStatus.OK, self._engine.counts.text())
            del answer.headers["Content-Type"]
            answer.headers["Content-Type"] = counts_lib.CONTENT_TYPE
            return answer
        if path != "/speak":
            return connection.respond(http.HTTPStatus.NOT_FOUND, "expected /speak\n")
        if self.draining:
            return connection.respond(http.HTTPStatus.SERVICE_UNAVAILABLE, "draining\n")
        return None

    async def _speak(self, connection: Any) -> None:
        try:
            query = dict(parse_qsl(urlsplit(connection.request.path).query))
            call = _Call(query)
            speaker = self._engine.open(call.emotions)
        except Full as error:
            await connection.close(1013, str(error))
            return
        except InputError as error:
            await self._refuse(connection, error)
            return
        reading = asyncio.ensure_future(call.read(connection, speaker))
        try:
            await connection.send(frames_lib.greeting())
            while (motion := await speaker.take()) is not None:
                for row in motion:
                    await connection.send(call.frame(row))
            await reading
            await connection.send(json.dumps({"end": True}))
        except InputError as error:
            await self._refuse(connection, error)
        except Exception as error:  # noqa: BLE001
            if "ConnectionClosed" not in type(error).__name__:
                raise
        finally:
            reading.cancel()
            speaker.close()

    async def _refuse(self, connection: Any, error: InputError) -> None:
        self._engine.counts.refused["input"] += 1
        await connection.send(json.dumps({"error": one_line(str(error))}))
        await connection.close(1007)


class _Call:
    """One speaker: what its address asks for, and how far it is."""

    def __init__(self, query: dict[str, str]):
        for key in query.keys() - _KEYS:
            raise InputError(f"{key}: expected some of {', '.join(sorted(_KEYS))}")
        try:
            rate = float(query.get("rate", 16_000))
        except ValueError:
            raise InputError(f"rate {query['rate']!r}: expected Hz") from None
        self._resampler = Resampler(rate)
        self._format = query.get("format", "s16le")
        if self._format not in PCM:
            raise InputError(f"format {self._format!r}: expected {' or '.join(PCM)}")
        self._binary = query.get("binary", "0") == "1"
        name = query.get("emotion", "neutral")
        self.emotions = emotions_lib.Emotions(emotions_lib.weights({name: 1.0}))
        self._voice = VoiceActivity()
        self._heard = np.zeros(0, np.float32)
        self._number = 0

    async def read(self, connection: Any, speaker: Speaker) -> None:
        """Hears the client's messages until it ends the utterance or goes away."""
        try:
            async for message in connection:
                if isinstance(message, bytes):
                    await self._hear(self._resampler.push(decode(message, self._format)), speaker)
                elif self._ends(message):
                    break
            await self._hear(self._resampler.finish(), speaker)
        finally:
            speaker.end()

    async def _hear(self, samples: np.ndarray, speaker: Speaker) -> None:
        if len(samples):
            self._heard = np.concatenate([self._heard, samples])
            await speaker.push(samples)

    def _ends(self, text: str) -> bool:
        try:
            found = json.loads(text)
        except ValueError:
            raise InputError("text: expected JSON") from None
        if not isinstance(found, dict) or len(found) != 1 or not found.keys() <= {"emotion", "end"}:
            raise InputError('text: expected {"emotion": {...}} or {"end": true}')
        if "end" in found:
            return True
        try:
            weights = emotions_lib.weights({k: float(v) for k, v in found["emotion"].items()})
        except (AttributeError, TypeError, ValueError) as error:
            raise InputError(f"emotion: expected weights by name ({error})") from None
        self.emotions.add(self._number / 50, weights)
        return False

    def frame(self, motion: np.ndarray) -> str | bytes:
        """Returns the message of the next frame [72]."""
        audio = np.zeros(HOP, np.float32)
        part = self._heard[:HOP]
        audio[: len(part)] = part
        self._heard = self._heard[HOP:]
        frame = Frame(self._number, motion, np.zeros(3), audio, self._voice(audio))
        self._number += 1
        return frames_lib.as_bytes(frame) if self._binary else frames_lib.as_text(frame)
