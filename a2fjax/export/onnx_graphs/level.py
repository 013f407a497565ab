"""Level normalisation in ONNX: `a2fjax.audio.level` over a batch of recordings."""

from __future__ import annotations

import numpy as np

from a2fjax.audio import HOP, level
from a2fjax.export.onnx_graphs.graph_builder import GraphBuilder

_ABOVE_ALL = 1e30


def normalise(g: GraphBuilder, audio: str, samples: str, speech_level: str) -> str:
    """Returns audio [B, 320 T] scaled to speech at `level.TARGET`, zero from `samples` on.

    Args:
      g: the graph.
      audio: [B, 320 T] float32, as recorded.
      samples: [B] int32, number of samples of each recording.
      speech_level: [B] float32, RMS of the speech; it is measured where this is 0.
    """
    samples = g.cast(samples, "int64")
    inside = g.node("Less", g.count(audio, 1), g.expand(samples, 1))
    audio = g.where(inside, audio, g.constant(0.0))
    measured = _speech_level(g, audio, samples)
    given = g.node("Greater", speech_level, g.constant(0.0))
    found = g.where(given, speech_level, measured)
    return g.mul(audio, g.expand(g.div(g.constant(level.TARGET), found), 1))


def _speech_level(g: GraphBuilder, audio: str, samples: str) -> str:
    """Returns [B]; as `level.speech_level_of_frames(level.frame_levels(audio))`."""
    rows = g.reshape(audio, 0, -1, HOP)
    first = g.mul(g.count(rows, 1), g.constant(HOP, np.int64))
    left = g.sub(g.expand(samples, 1), first)  # Samples from each frame's first one on: [B, T].
    count = g.cast(
        g.node("Clip", left, g.constant(0, np.int64), g.constant(HOP, np.int64)), "float32"
    )
    # A part shorter than a frame counts only if it is all there is.
    only = g.node(
        "And",
        g.node("Equal", first, g.constant(0, np.int64)),
        g.node("Greater", left, g.constant(0, np.int64)),
    )
    whole = g.node("Or", g.node("Equal", count, g.constant(float(HOP))), only)
    inside = g.cast(
        g.node("Less", g.constant(np.arange(HOP)), g.expand(count, 2)), "float32"
    )  # [B, T, 320]
    number = g.at_least(count, 1.0)
    mean = g.div(g.sum(rows, 2), number)
    loud = _rms(g, g.sub(rows, g.expand(mean, 2)), inside, number)
    steps = g.sub(g.slice(rows, 2, 1, None), g.slice(rows, 2, 0, -1))
    pairs = g.at_least(g.sub(count, g.constant(1.0)), 1.0)
    brisk = _rms(g, steps, g.slice(inside, 2, 1, None), pairs)

    audible = g.node("And", whole, g.node("Greater", loud, g.constant(level.INAUDIBLE)))
    quietest = _percentile(g, brisk, audible, 10)
    contrast = g.mul(quietest, g.constant(level.CONTRAST))
    speech = g.node("And", audible, g.node("Greater", brisk, g.expand(contrast, 1)))
    number_speech = g.sum(g.cast(speech, "float32"), 1)
    share = g.at_most(g.div(number_speech, g.constant(float(level.ENOUGH))), 1.0)
    quiet = g.at_least(_percentile(g, loud, audible, 95), level.TARGET)
    of_speech = g.at_least(_percentile(g, loud, speech, 95), level.FLOOR)
    some = g.node("Greater", number_speech, g.constant(0.0))
    of_speech = g.where(some, of_speech, quiet)
    log = g.add(
        g.mul(share, g.node("Log", of_speech)),
        g.mul(g.sub(g.constant(1.0), share), g.node("Log", quiet)),
    )
    any_sound = g.node("Greater", g.sum(g.cast(audible, "float32"), 1), g.constant(0.0))
    return g.where(any_sound, g.node("Exp", log), g.constant(level.TARGET))


def _rms(g: GraphBuilder, x: str, inside: str, number: str) -> str:
    x = g.mul(x, inside)
    return str(g.node("Sqrt", g.div(g.sum(g.mul(x, x), 2), number)))


def _percentile(g: GraphBuilder, values: str, chosen: str, percent: float) -> str:
    """Returns [B]: NumPy's linear percentile over the chosen ones of values [B, T].

    It is large where none is chosen.
    """
    marked = g.where(chosen, values, g.constant(_ABOVE_ALL))
    frames = g.reshape(g.size(values, 1), 1)
    ascending, _ = g.node("TopK", marked, frames, outputs=2, axis=1, largest=0, sorted=1)
    last = g.at_least(g.sub(g.sum(g.cast(chosen, "float32"), 1, True), g.constant(1.0)), 0.0)
    position = g.mul(last, g.constant(percent / 100))
    low = g.node("Floor", position)
    high = g.node("Min", g.add(low, g.constant(1.0)), last)
    below, above = (
        g.node("GatherElements", ascending, g.cast(index, "int64"), axis=1) for index in (low, high)
    )
    value = g.add(below, g.mul(g.sub(above, below), g.sub(position, low)))
    return str(g.node("Squeeze", value, g.ints(1)))
