r"""Delay, pacing and speakers at once of live audio, on this machine.

    taskset -c 0,1 python benchmarks/live.py [--run RUN] [--seconds 30] [--speakers 1,10,20,40]

Without --run, the weights are random, of the default widths: they do not change the cost.

- Delay: what the default model waits for by design, and the time from the arrival of a hop to its
  frame, computation included.
- Pacing: distance of frames from the grid of 20 ms that starts with the first.
- Speakers: each sends a hop every 20 ms to one engine, none at the same moment. Counted is the time
  from a hop's arrival to the frame that it completes.

The load of the machine, which all wall times depend on, is printed first.
"""

from __future__ import annotations

import argparse
import asyncio
import os
import resource
import sys
import time
from pathlib import Path

import numpy as np

sys.path.insert(0, str(Path(__file__).parent))
from streaming_step import predictor, speech

from a2fjax.audio import HOP
from a2fjax.infer import live
from a2fjax.infer.predictor import Predictor
from a2fjax.live import hub, run, session
from a2fjax.live.pacing import Pacer
from a2fjax.live.serving import emotions
from a2fjax.live.serving.engine import Engine


def shown(name: str, seconds: list[float]) -> None:
    p50, p95, p99 = 1000 * np.percentile(seconds, [50, 95, 99])
    print(f"{name:<36} p50 {p50:7.2f}   p95 {p95:7.2f}   p99 {p99:7.2f} ms", flush=True)


class Times:
    """A listener that notes when frames come."""

    lossless = True

    def __init__(self) -> None:
        self.at: list[float] = []

    def send(self, frame: session.Frame) -> None:
        """Notes the time."""
        self.at.append(time.monotonic())

    def close(self) -> None:
        """Has nothing to end."""


def paced(model: Predictor, seconds: float) -> None:
    start = time.perf_counter()
    speaker = session.Session(live.open_stream(model))
    print(f"{'opening a stream, compiled before or not':<36} {time.perf_counter() - start:.2f} s")
    print(f"{'delay by design':<36} {1000 * speaker.delay_seconds:.0f} ms")
    times, taken, took = Times(), run.hops([speech(seconds)]), []
    push = speaker.push

    def timed(samples: np.ndarray) -> list[session.Frame]:
        begin = time.perf_counter()
        out = push(samples)
        took.append(time.perf_counter() - begin)
        return out

    speaker.push = timed  # type: ignore[method-assign]
    run.paced(taken, speaker, hub.Hub([times]), pacer=Pacer())
    shown("computation of a hop", took[10:])
    grid = times.at[0] + np.arange(len(times.at)) / 50
    shown(f"off the grid, {len(grid)} frames", np.abs(np.array(times.at) - grid).tolist())


async def speakers(model: Predictor, count: int, seconds: float) -> None:
    step = model.compiled_step(size=count)
    identity = live.embed_identity(model, step, None, None)
    engine = Engine(step, identity, model.training.known_emotion)
    task = asyncio.ensure_future(engine.run())
    audio = speech(seconds)
    late: list[float] = []
    begin = time.monotonic() + 0.2

    async def speak(number: int) -> None:
        speaker = engine.open(emotions.Emotions(emotions.weights({})))
        due = [begin + number * 0.02 / count + k / 50 for k in range(len(audio) // HOP)]
        done = 0

        async def send() -> None:
            for k, at in enumerate(due):
                await asyncio.sleep(max(0.0, at - time.monotonic()))
                await speaker.push(audio[k * HOP : (k + 1) * HOP])
            speaker.end()

        sending = asyncio.ensure_future(send())
        while (motion := await speaker.take()) is not None:
            now = time.monotonic()
            for _ in motion:
                if done + engine.lookahead < len(due):
                    late.append(now - due[done + engine.lookahead])
                done += 1
        await sending
        speaker.close()

    cpu = time.process_time()
    await asyncio.gather(*(speak(n) for n in range(count)))
    spent = (time.process_time() - cpu) / seconds
    task.cancel()
    shown(f"{count} speakers, {spent:.2f} cores", late)


def main() -> None:
    """Prints the table."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--run", help="run folder or bundle; default: random weights")
    parser.add_argument("--seconds", type=float, default=30.0)
    parser.add_argument("--speakers", default="1,10,20,40")
    args = parser.parse_args()
    load = os.getloadavg()
    print(f"{os.cpu_count()} cores, load before: {load[0]:.1f} {load[1]:.1f} {load[2]:.1f}")
    if args.run:
        model = Predictor.load(args.run)
    else:
        model = predictor(("mel", "pitch"), kind="streaming")
    paced(model, args.seconds)
    for count in map(int, args.speakers.split(",")):
        asyncio.run(speakers(model, count, args.seconds))
    memory = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    print(f"memory at most {memory:.0f} MB; load after: {os.getloadavg()[0]:.1f}")


if __name__ == "__main__":
    main()
