"""Animate live audio and send the frames to listeners, every 20 ms or as fast as it goes.

--audio is a file, mic, or - for raw samples on standard input. Frames of a file with --burst and
without --idle and --smooth are those of `a2fjax infer`.
"""

from __future__ import annotations

import argparse
import signal
import sys
from collections.abc import Callable
from types import FrameType
from typing import Any

from a2fjax.errors import InputError


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Adds the arguments of `a2fjax stream`."""
    add = parser.add_argument
    add("run", metavar="RUN|BUNDLE", help="run folder of a model that streams, or a bundle of it")
    add("--audio", required=True, metavar="FILE|mic|-", help="where the audio comes from")
    add("--device", metavar="NAME", help="microphone: part of its name, or its number")
    add("--rate", type=float, default=16_000, metavar="HZ", help="of --audio -; default: 16000")
    add("--format", default="s16le", metavar="s16le|f32le", help="samples of --audio -")
    add("--channels", type=int, default=1, metavar="N", help="of --audio -; averaged")
    add("--burst", action="store_true", help="as fast as it goes, rather than a frame every 20 ms")
    add("--buffer-ms", type=float, default=20.0, metavar="MS", help="held against jitter: mic, -")
    add("--lookahead-ms", type=int, metavar="MS", help="audio heard ahead")
    add("--step", type=int, help="checkpoint; default: the newest")
    add("--emotion", metavar="E", help="as in `a2fjax infer`; default: neutral")
    add("--identity", metavar="MESH|SUBJECT", help="as in `a2fjax infer`; default: the mean")
    add("--data", action="append", default=[], metavar="SHARDS", help="shards with the subjects")
    add(
        "--idle",
        default="none",
        metavar="LAYERS",
        help="all, none, or some of blinks,gaze,breath,head; default: none",
    )
    add("--seed", type=int, default=0, help="of the idle motion")
    add("--smooth", type=float, metavar="HZ", help="One-Euro filter: cutoff of curves at rest")
    group = parser.add_argument_group("listeners; each may be repeated")
    add = group.add_argument
    add("--meter", action="store_true", help="a line in the terminal")
    add("--livelink", action="append", default=[], metavar="HOST:PORT", help="Unreal; port 11111")
    add("--osc", action="append", default=[], metavar="HOST:PORT", help="an address a channel")
    add("--vmc", action="append", default=[], metavar="HOST:PORT", help="Perfect Sync; port 39539")
    add("--ws", action="append", default=[], metavar="[HOST:]PORT", help="WebSocket server")
    add("--out", action="append", default=[], metavar="FILE", help="animation file")
    add("--to", action="append", default=[], metavar="KIND=TARGET", help="of a plugin")


def run(args: argparse.Namespace, extra: list[str]) -> int:
    """Runs `a2fjax stream`.

    Raises:
      InputError: what is wrong with an argument, the audio, the run or a listener.
    """
    if extra:
        raise InputError(f"unexpected argument {extra[0]!r}; see a2fjax stream --help")
    from a2fjax import registry
    from a2fjax.live import hub as hub_lib
    from a2fjax.live import idle, one_euro, session
    from a2fjax.live import run as run_lib

    registry.load_plugins()
    targets = [(kind, target) for kind in ("livelink", "osc", "vmc") for target in vars(args)[kind]]
    targets += [("websocket", target) for target in args.ws]
    targets += [("file", target) for target in args.out]
    targets += [hub_lib.parse(text) for text in args.to] + [("meter", "")] * args.meter
    if not targets:
        raise InputError("nobody listens: name --meter, --livelink, --osc, --vmc, --ws or --out")
    if not 0 <= args.seed < 2**63:
        raise InputError(f"--seed {args.seed}: expected 0 to 2^63 - 1")
    layers = idle.parse_layers(args.idle)
    smoothing = None if args.smooth is None else one_euro.OneEuro(args.smooth)
    start = _source(args)  # Before the weights: what is wrong with it shows at once.
    listeners = []
    from a2fjax.api import model

    loaded = model.load(args.run, args.step, lookahead_ms=args.lookahead_ms)
    stream = loaded.stream(emotion=args.emotion, identity=args.identity, shards=args.data)
    for kind, target in targets:
        listeners.append(hub_lib.make(kind, target))
    motion = idle.IdleMotion(seed=args.seed, layers=layers) if layers else None
    speaker = session.Session(stream, idle=motion, smoothing=smoothing)
    hub = hub_lib.Hub(listeners)
    stopped = _stop_on_signals()
    drive, waits = start()
    delay = 1000 * (speaker.delay_seconds + waits)
    print(f"delay {delay:.0f} ms from sound to frame, computation aside", file=sys.stderr)
    follow = run_lib.burst if args.burst else run_lib.paced
    try:
        summary = follow(drive, speaker, hub, stopped=stopped)
    except BaseException:
        hub.close(complete=False)
        raise
    hub.close()
    for path in args.out:
        if summary.frames:
            print(f"{path}: {summary.frames} frames at 50 fps")
    left_out = sum(hub.left_out)
    tail = f", {left_out} left out for slow listeners" if left_out else ""
    print(f"{summary.frames} frames, {summary.frames / 50:.2f} s{tail}")
    return 0


def _source(args: argparse.Namespace) -> Callable[[], tuple[Any, float]]:
    """Returns a function that starts the source and returns (source, delay in s)."""
    from a2fjax.infer.recording import Recording
    from a2fjax.live import resample, run, sources

    if args.audio not in ("mic", "-"):
        recording = Recording(args.audio)
        if args.burst:
            return lambda: (recording.blocks(), 0.0)
        return lambda: (run.hops(recording.blocks()), 0.0)
    if args.audio == "mic":
        if args.burst:
            raise InputError("--burst: a microphone is as fast as it is; leave it out")
        blocks, rate = sources.microphone(args.device)
    else:
        rate = args.rate
        file = sys.stdin.buffer
        blocks = sources.pcm_blocks(file, rate, args.format, args.channels)
        resample.Resampler(rate)
        sources.decode(b"", args.format, 1)
    if args.burst:
        return lambda: (sources.resampled(blocks, rate), 0.0)

    def start() -> tuple[Any, float]:
        waits = args.audio == "-"
        source = sources.Buffered(blocks, rate, buffer_ms=args.buffer_ms, waits=waits)
        return source.take, source.delay_seconds

    return start


def _stop_on_signals() -> Callable[[], bool]:
    """Returns whether a signal asked to stop: files are completed then."""
    asked = []

    def handle(number: int, frame: FrameType | None) -> None:
        asked.append(number)

    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, handle)
    return lambda: bool(asked)
