"""Serve many speakers: over WebSocket, and to the clients of NVIDIA's Audio2Face-3D service.

Both ports are bound on this machine only, unless HOST:PORT names another address; then the
environment variable A2F_LIVE_TOKEN must hold a token, which clients show.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable
from typing import TYPE_CHECKING

from a2fjax.errors import InputError

if TYPE_CHECKING:
    from a2fjax.api.model import Model
    from a2fjax.live.serving.engine import Engine


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Adds the arguments of `a2fjax serve`."""
    add = parser.add_argument
    add("run", metavar="RUN|BUNDLE", help="run folder of a model that streams, or a bundle of it")
    add("--ws", metavar="[HOST:]PORT", help="WebSocket speakers, /health, /ready and /metrics")
    add("--grpc", metavar="[HOST:]PORT", help="A2FControllerService of NVIDIA's clients")
    add("--speakers", type=int, default=16, metavar="N", help="at once; default: 16")
    add("--paced", action="store_true", help="gRPC frames leave no earlier than their time")
    add("--drain", type=float, default=10.0, metavar="S", help="for speakers to finish on SIGTERM")
    add("--lookahead-ms", type=int, metavar="MS", help="audio heard ahead")
    add("--step", type=int, help="checkpoint; default: the newest")
    add("--identity", metavar="MESH", help="neutral mesh of all speakers; default: the mean")


def run(args: argparse.Namespace, extra: list[str]) -> int:
    """Runs `a2fjax serve`.

    Raises:
      InputError: what is wrong with an argument, the run or an address.
    """
    if extra:
        raise InputError(f"unexpected argument {extra[0]!r}; see a2fjax serve --help")
    if args.ws is None and args.grpc is None:
        raise InputError("nothing to serve: name --ws PORT, --grpc PORT or both")
    if not 1 <= args.speakers <= 1024:
        raise InputError(f"--speakers {args.speakers}: expected 1 to 1024")
    if not 0 <= args.drain <= 3600:
        raise InputError(f"--drain {args.drain:g}: expected 0 to 3600 s")
    import asyncio

    from a2fjax.live.listeners import addresses
    from a2fjax.live.serving import grpc, server

    parsed = {
        name: None
        if value is None
        else addresses.parse(value, where=f"--{name}", host=addresses.LOCAL)
        for name, value in (("ws", args.ws), ("grpc", args.grpc))
    }
    for name, address in parsed.items():
        if address is not None:
            addresses.token_for(address[0], where=f"--{name}")
    if args.grpc is not None:
        grpc.library()
    from a2fjax.api import model

    loaded = model.load(args.run, args.step, lookahead_ms=args.lookahead_ms)
    engine = _engine(loaded, args.speakers, args.identity)
    asyncio.run(
        server.serve(
            engine,
            websocket=parsed["ws"],
            grpc=parsed["grpc"],
            paced=args.paced,
            drain_seconds=args.drain,
            started=lambda line: print(line, flush=True),
        )
    )
    return 0


def _engine(loaded: Model, speakers: int, identity: str | None) -> Callable[[], Engine]:
    """Returns a function that makes the engine of a model; everything is compiled before."""
    from a2fjax.infer import identity as identity_lib
    from a2fjax.infer import live, lookahead
    from a2fjax.live.serving.engine import Engine

    lookahead.check_can_stream(loaded.config)
    mesh = None if identity is None else identity_lib.load_mesh(identity, loaded.config.data.shards)
    predictor = loaded.predictor()
    step = predictor.compiled_step(size=speakers)
    embedded = live.embed_identity(predictor, step, mesh, None)
    return lambda: Engine(step, embedded, predictor.training.known_emotion)
