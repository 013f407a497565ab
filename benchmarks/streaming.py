r"""Cost of short look-ahead: clips streamed chunk by chunk against the same clips in one piece.

    python benchmarks/streaming.py RUN [--split test_sentences] [--clips 24] [--chunk 8]
        [--lookahead 4,8,16,32] [--json FILE]

For each look-ahead of a diffusion run it reports the RMSE of jaw and mouth over the constant
mean's, closures, the mean step between frames at joins over that inside chunks, the latency (chunk
and look-ahead), and the median computing time of a chunk. Levels are measured during streaming, as
with a microphone; "whole" uses the entire clip and its level. Both draw sample 0.

A run of model.kind=streaming has a row for each of its look-aheads instead, without chunks; the
last column is the RMSE over that of the longest. `streaming_step.py` measures its speed.
"""

from __future__ import annotations

import argparse
import json
import statistics
import sys
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from a2fjax import files, rig
from a2fjax.configuration import StreamingConfig
from a2fjax.errors import InputError
from a2fjax.evaluation import conditions, eval_data
from a2fjax.infer import live
from a2fjax.infer.predictor import Predictor
from a2fjax.metrics import suite
from a2fjax.metrics.sums import merge
from a2fjax.streaming.chunks import Chunking

BLOCK = 320


def streamed(model: Predictor, request: Any, chunking: Chunking) -> tuple[np.ndarray, list[float]]:
    """Returns the motion of a clip streamed in blocks of 20 ms, and the seconds per chunk."""
    last = len(request.emotion) - 1
    stream = live.open_stream(
        model,
        identity=request.identity,
        emotion=lambda frame: request.emotion[min(frame, last)],
        subject=request.subject,
        chunking=chunking,
    )
    out, spent = [], []
    for i in range(0, len(request.audio), BLOCK):
        began = time.perf_counter()
        if stream.push(request.audio[i : i + BLOCK]):
            spent.append(time.perf_counter() - began)
            out.append(stream.frames())
    return np.concatenate([*out, stream.close()]), spent


def joins(motion: np.ndarray, chunk: int) -> np.ndarray:
    """Returns (sum, count) of mean steps at joins and inside chunks [2, 2] for jaw and mouth."""
    speed = np.abs(np.diff(motion[:, rig.GROUPS["jaw_mouth"]], axis=0)).mean(1)
    at = np.arange(1, len(motion)) % chunk == 0
    return np.array([[speed[at].sum(), at.sum()], [speed[~at].sum(), (~at).sum()]])


def measure(
    run: str,
    split: str,
    clips: int,
    chunkings: Sequence[Chunking],
) -> list[Any]:
    """Returns a row for whole clips and one per chunking."""
    model = Predictor.load(run)
    own = model.config.model
    told = eval_data.load(model, None, [split])
    samples = [s for chunk in told.clips(split, clips).chunks() for s in chunk]
    requests = [conditions.request(s, told.points, told.trained) for s in samples]

    def row(name: str, motions: Sequence[np.ndarray]) -> dict[str, Any]:
        sums = []
        for sample, motion in zip(samples, motions, strict=True):
            constant = np.broadcast_to(told.known.mean, motion.shape)
            found = suite.sums(motion, sample.truth)
            eval_data.add_reference(found, suite.sums(constant, sample.truth))
            sums.append(found)
        values = eval_data.values(merge(sums))
        names = ("rmse_ratio", "closure_recall", "closure_precision", "xcorr_lag_ms")
        return {"name": name, **{k: float(values[k]) for k in names}}

    if isinstance(own, StreamingConfig):
        return by_lookahead(
            {
                ms: row(f"{ms} ms", Predictor.load(run, lookahead_ms=ms).batch(requests))
                for ms in own.lookaheads_ms
            }
        )
    out = [row("whole", model.batch(requests))]
    for chunking in chunkings:
        found = [streamed(model, request, chunking) for request in requests]
        steps = sum(joins(motion, chunking.chunk) for motion, _ in found)
        mean = steps[:, 0] / steps[:, 1]
        seconds = [s for _, spent in found for s in spent]
        latency = (chunking.chunk + chunking.lookahead) / rig.FPS
        out.append(
            row(f"look-ahead {chunking.lookahead}", [motion for motion, _ in found])
            | {"latency_ms": 1000 * latency, "join_ratio": float(mean[0] / mean[1])}
            | {"chunk_ms": 1000 * statistics.median(seconds)}
        )
    return out


def by_lookahead(rows: Mapping[int, dict[str, Any]]) -> list[dict[str, Any]]:
    """Returns rows by look-ahead in ms as a list, with their delay and RMSE over the longest."""
    longest = rows[max(rows)]["rmse_ratio"]
    return [
        row | {"latency_ms": ms + 1000 / rig.FPS, "over_longest": row["rmse_ratio"] / longest}
        for ms, row in rows.items()
    ]


def main(argv: Sequence[str] | None = None) -> int:
    """Prints the table and returns the exit code."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("run")
    parser.add_argument("--split", default="test_sentences")
    parser.add_argument("--clips", type=int, default=24)
    parser.add_argument("--chunk", type=int, default=8)
    parser.add_argument("--context", type=int, default=104)
    parser.add_argument("--lookahead", default="4,8,16,32")
    parser.add_argument("--json", type=Path)
    args = parser.parse_args(argv)
    try:
        ahead = [int(text) for text in args.lookahead.split(",")]
        chunkings = [Chunking(args.chunk, n, args.context, min(4, n, args.chunk)) for n in ahead]
        rows = measure(args.run, args.split, args.clips, chunkings)
    except InputError as error:
        print(f"streaming.py: error: {error}", file=sys.stderr)
        return 2
    heads = ("ratio", "recall", "prec", "lag ms", "latency", "join", "ms")
    print(" " * 16 + "".join(f"{h:>9}" for h in heads))
    for row in rows:
        own = (row["rmse_ratio"], row["closure_recall"], row["closure_precision"])
        line = f"{row['name']:16}" + "".join(f"{v:9.3f}" for v in own)
        line += f"{row['xcorr_lag_ms']:9.1f}"
        if "join_ratio" in row:
            line += f"{row['latency_ms']:6.0f} ms{row['join_ratio']:9.2f}{row['chunk_ms']:9.1f}"
        elif "over_longest" in row:
            line += f"{row['latency_ms']:6.0f} ms{row['over_longest']:9.3f}"
        print(line)
    if args.json:
        files.write_text(args.json, json.dumps(rows, indent=1))
    return 0


if __name__ == "__main__":
    sys.exit(main())
