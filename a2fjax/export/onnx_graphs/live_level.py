"""The running speech level in ONNX: `a2fjax.audio.running_level`, in few nodes."""

from __future__ import annotations

import math

import numpy as np

from a2fjax.audio import HOP, level, running_level
from a2fjax.export.onnx_graphs.graph_builder import GraphBuilder

_BINS, _STEP, _LOWEST = running_level.BINS, running_level.STEP_DB, running_level.LOWEST_DB
_DB = 20.0 / math.log(10.0)


def update(g: GraphBuilder, state: str, frame: str) -> tuple[str, str]:
    """Returns (next state [B, 3, bins], gain [B, 1]) after a frame [B, 320] as recorded."""
    sizes = _sizes(g, frame)
    audible = g.node("Greater", g.slice(sizes, 1, 1, None), g.constant(level.INAUDIBLE))
    db = g.mul(g.node("Log", g.at_least(sizes, 1e-9)), g.constant(_DB))
    counted = g.expand(g.cast(audible, "float32"), 2)
    brisk, here = g.node("Split", _one_hot(g, db), outputs=2, axis=1, num_outputs=2)
    kept = g.mul(state, g.constant(running_level.KEEP))
    kept = g.where(g.expand(audible, 2), kept, state)
    differences, others = g.node("Split", kept, g.ints(1, 2), outputs=2, axis=1)
    differences = g.add(differences, g.mul(brisk, counted))
    floor = g.squeeze(_percentile(g, differences, 0.10), 2)
    above = g.sub(g.slice(db, 1, 0, 1), floor)
    loud = g.node("Greater", above, g.constant(_DB * math.log(level.CONTRAST)))
    speech = g.expand(g.cast(g.node("And", audible, loud), "float32"), 2)
    others = g.add(others, g.mul(here, g.concat(counted, speech, axis=1)))
    spoken = g.slice(others, 1, 1, None)
    share = g.node("MatMul", spoken, g.constant(np.full((_BINS, 1), 1.0 / level.ENOUGH)))
    target = _DB * math.log(level.TARGET)
    lowest = g.constant([[target], [_DB * math.log(level.FLOOR)]])
    found = g.node("Max", _percentile(g, others, 0.95), lowest)
    quiet, loud = g.node("Split", found, outputs=2, axis=1, num_outputs=2)
    found = g.add(quiet, g.mul(g.at_most(share, 1.0), g.sub(loud, quiet)))
    gain = g.node("Exp", g.mul(g.sub(g.constant(target), found), g.constant(1 / _DB)))
    return g.concat(differences, others, axis=1), g.squeeze(gain, 2)


def _sizes(g: GraphBuilder, frame: str) -> str:
    """Returns the RMS [B, 2] of the steps between samples, and of the samples about their mean."""
    centred = g.sub(frame, g.mean(frame, 1, True))
    steps = g.sub(g.slice(frame, 1, 1, None), g.slice(frame, 1, 0, -1))
    both = [g.node("ReduceL2", x, g.ints(1), keepdims=1) for x in (steps, centred)]
    return g.mul(g.concat(*both, axis=1), g.constant([(HOP - 1) ** -0.5, HOP**-0.5]))


def _one_hot(g: GraphBuilder, db: str) -> str:
    """Returns [B, N, bins] with 1 in the bin of each level [B, N] in dB."""
    index = g.node("Floor", g.div(g.sub(db, g.constant(_LOWEST)), g.constant(_STEP)))
    index = g.expand(g.clip(index, 0.0, _BINS - 1.0), 2)
    return g.cast(g.node("Equal", g.constant(np.arange(_BINS)), index), "float32")


def _percentile(g: GraphBuilder, histograms: str, share: float) -> str:
    """Returns a percentile [B, N, 1] in dB of each of [B, N, bins]."""
    # What is missing to the share of all, after the bins below.
    missing = np.full((_BINS, _BINS), share) - np.triu(np.ones((_BINS, _BINS)), 1)
    missing = g.node("MatMul", histograms, g.constant(missing))
    filled = g.clip(g.div(missing, g.at_least(histograms, 1e-9)), 0.0, 1.0)
    in_db = g.node("MatMul", filled, g.constant(np.full((_BINS, 1), _STEP)))
    return g.add(in_db, g.constant(_LOWEST))
