"""Runs the services of an engine until a signal; then lets speakers finish."""

from __future__ import annotations

import asyncio
import signal
from collections.abc import Callable
from typing import Any

from a2fjax.errors import InputError
from a2fjax.live.listeners import addresses
from a2fjax.live.serving import grpc as grpc_lib
from a2fjax.live.serving import websocket as websocket_lib
from a2fjax.live.serving.engine import Engine


async def serve(
    make_engine: Callable[[], Engine],
    *,
    websocket: tuple[str, int] | None,
    grpc: tuple[str, int] | None,
    paced: bool = False,
    drain_seconds: float = 10.0,
    started: Callable[[str], None] = print,
    stop: asyncio.Event | None = None,
) -> None:
    """Serves until SIGTERM or SIGINT, or until `stop` is set.

    Args:
      make_engine: returns the engine; called in the event loop.
      websocket: address of WebSocket speakers, health and metrics.
      grpc: address of NVIDIA's clients.
      paced: whether NVIDIA's clients get frames no earlier than their time.
      drain_seconds: what speakers get to finish.
      started: called with a line for each address.
      stop: ends the server.

    Raises:
      InputError: a port in use, a host without a token, or an extra that is not installed.
    """
    stop = asyncio.Event() if stop is None else stop
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        try:
            loop.add_signal_handler(number, stop.set)
        except (RuntimeError, ValueError):
            pass  # Outside the main thread.
    engine = make_engine()
    task = asyncio.ensure_future(engine.run())
    services: list[websocket_lib.Service | grpc_lib.Service] = []
    ends = []
    try:
        if websocket is not None:
            token = addresses.token_for(websocket[0], where="--ws")
            service = websocket_lib.Service(engine, token=token)
            try:
                running = await service.start(*websocket)
            except OSError as error:
                raise InputError(f"--ws {_text(websocket)}: cannot be bound ({error})") from None
            services.append(service)
            ends.append(lambda: _end_websocket(running))
            started(f"WebSocket, /health and /metrics: http://{_text(websocket)}")
        if grpc is not None:
            token = addresses.token_for(grpc[0], where="--grpc")
            answering = grpc_lib.Service(engine, token=token, paced=paced)
            server = await _start_grpc(answering, grpc)
            services.append(answering)
            ends.append(lambda: server.stop(1.0))
            started(f"A2FControllerService: {_text(grpc)}")
        waiting = asyncio.ensure_future(stop.wait())
        await asyncio.wait([waiting, task], return_when=asyncio.FIRST_COMPLETED)
        if task.done():
            task.result()
        for each in services:
            each.draining = True
        deadline = loop.time() + drain_seconds
        while engine.counts.speakers and loop.time() < deadline:
            await asyncio.sleep(0.05)
    finally:
        for end in ends:
            await end()
        task.cancel()


async def _end_websocket(server: Any) -> None:
    server.close()
    await server.wait_closed()


async def _start_grpc(service: grpc_lib.Service, address: tuple[str, int]) -> Any:
    grpc, nvidia, _ = grpc_lib.library()
    from grpc import aio

    server = aio.server(
        options=[
            ("grpc.max_receive_message_length", grpc_lib.LARGEST_MESSAGE),
            # Another server on the same port would take every second client.
            ("grpc.so_reuseport", 0),
        ]
    )
    nvidia.add_A2FControllerServiceServicer_to_server(service, server)
    try:
        port = server.add_insecure_port(_text(address))
    except RuntimeError:
        port = 0
    if not port:
        raise InputError(f"--grpc {_text(address)}: cannot be bound (is the port in use?)")
    await server.start()
    return server


def _text(address: tuple[str, int]) -> str:
    host = f"[{address[0]}]" if ":" in address[0] else address[0]
    return f"{host}:{address[1]}"
