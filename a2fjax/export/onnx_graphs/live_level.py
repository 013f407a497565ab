"""The running speech level in ONNX: `a2fjax.audio.running_level`."""

from __future__ import annotations

import math

import numpy as np

from a2fjax.audio import level, running_level
from a2fjax.export.onnx_graphs.graph_builder import GraphBuilder

_BINS, _STEP, _LOWEST = running_level.BINS, running_level.STEP_DB, running_level.LOWEST_DB
_DB = 20.0 / math.log(10.0)


def update(g: GraphBuilder, state: str, frame: str) -> tuple[str, str]:
    """Returns (next state [B, 3, bins], gain [B, 1]) after a frame [B, 320] as recorded."""
    centred = g.sub(frame, g.mean(frame, 1, True))
    rms = g.node("Sqrt", g.mean(g.mul(centred, centred), 1, True))
    steps = g.sub(g.slice(frame, 1, 1, None), g.slice(frame, 1, 0, -1))
    brisk = _db(g, g.node("Sqrt", g.mean(g.mul(steps, steps), 1, True)))
    audible = g.node("Greater", rms, g.constant(level.INAUDIBLE))
    kept = g.mul(state, g.constant(running_level.KEEP))
    kept = g.where(g.expand(audible, 2), kept, state)
    differences, every, spoken = g.node("Split", kept, outputs=3, axis=1, num_outputs=3)
    counted = g.cast(audible, "float32")
    differences = g.add(g.squeeze(differences, 1), g.mul(_one_hot(g, brisk), counted))
    floor = _percentile(g, differences, 0.10)
    contrast = g.constant(_DB * math.log(level.CONTRAST))
    speech = g.node("And", audible, g.node("Greater", brisk, g.add(floor, contrast)))
    here = _one_hot(g, _db(g, rms))
    every = g.add(g.squeeze(every, 1), g.mul(here, counted))
    spoken = g.add(g.squeeze(spoken, 1), g.mul(here, g.cast(speech, "float32")))
    share = g.div(g.sum(spoken, 1, True), g.constant(float(level.ENOUGH)))
    share = g.at_most(share, 1.0)
    target = _DB * math.log(level.TARGET)
    quiet = g.at_least(_percentile(g, every, 0.95), target)
    loud = g.at_least(_percentile(g, spoken, 0.95), _DB * math.log(level.FLOOR))
    found = g.add(g.mul(share, loud), g.mul(g.sub(g.constant(1.0), share), quiet))
    gain = g.node("Exp", g.mul(g.sub(g.constant(target), found), g.constant(1 / _DB)))
    parts = [g.expand(x, 1) for x in (differences, every, spoken)]
    return g.concat(*parts, axis=1), str(gain)


def _db(g: GraphBuilder, rms: str) -> str:
    return g.mul(g.node("Log", g.at_least(rms, 1e-9)), g.constant(_DB))


def _one_hot(g: GraphBuilder, db: str) -> str:
    """Returns [B, bins] with 1 in the bin of a level [B, 1] in dB."""
    index = g.node("Floor", g.div(g.sub(db, g.constant(_LOWEST)), g.constant(_STEP)))
    index = g.at_most(g.at_least(index, 0.0), _BINS - 1.0)
    return g.cast(g.node("Equal", g.constant(np.arange(_BINS)), index), "float32")


def _percentile(g: GraphBuilder, histogram: str, share: float) -> str:
    """Returns a percentile [B, 1] in dB of [B, bins]."""
    below_or_here = np.triu(np.ones((_BINS, _BINS)))
    up_to = g.node("MatMul", histogram, g.constant(below_or_here))
    wanted = g.mul(g.slice(up_to, 1, _BINS - 1, None), g.constant(share))
    missing = g.sub(wanted, g.sub(up_to, histogram))
    filled = g.div(missing, g.at_least(histogram, 1e-9))
    filled = g.at_most(g.at_least(filled, 0.0), 1.0)
    return g.add(g.mul(g.sum(filled, 1, True), g.constant(_STEP)), g.constant(_LOWEST))
