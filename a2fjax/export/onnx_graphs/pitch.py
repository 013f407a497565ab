"""Pitch in ONNX: `a2fjax.audio.pitch` and its scaling."""

from __future__ import annotations

from typing import Any

import numpy as np

from a2fjax.audio import HOP, SAMPLE_RATE, pitch
from a2fjax.audio.frontend import (
    F0_CENTRE_HZ,
    F0_SCALE,
    VOICING_CENTRE,
    VOICING_SCALE,
    Frontend,
)
from a2fjax.export.onnx_graphs import mel
from a2fjax.export.onnx_graphs.graph_builder import GraphBuilder


def features(g: GraphBuilder, audio: str, frontend: Frontend) -> str:
    """Returns log-F0, voicing and log energy [B, T, 3] of normalised audio [B, 320 T]."""
    energy, found = _analysed(g, audio)
    log_f0, voicing, energy = path(g, *candidates(g, found), energy)
    voicing = g.div(g.sub(voicing, g.constant(VOICING_CENTRE)), g.constant(VOICING_SCALE))
    floor = frontend.floor_rms**2
    power = g.add(energy, g.constant(pitch.ENERGY_FLOOR + floor))
    scale, offset = mel.scaling(frontend, float(np.log(floor)))
    energy = g.add(g.mul(g.node("Log", power), g.constant(scale)), g.constant(offset))
    return g.concat(log_f0, voicing, energy, axis=2)


def path(g: GraphBuilder, hz: str, height: str, energy: str) -> tuple[str, str, str]:
    """Returns scaled log-F0, voicing and mean square [B, T, 1] of the best path over candidates.

    Args:
      g: the graph.
      hz: candidates [B, PAST + T + FUTURE, K], zeros for silence.
      height: their heights.
      energy: mean squares [B, PAST + T + FUTURE].
    """
    chosen = _choose(g, hz, height)
    inside = (1, pitch.PAST, -pitch.FUTURE)
    hz, height, energy = (g.slice(x, *inside) for x in (hz, height, energy))
    voiced = g.node("Less", chosen, g.constant(pitch.CANDIDATES, np.int64))
    strongest = g.node("ArgMax", height, axis=-1, keepdims=0)
    index = g.expand(g.where(voiced, chosen, strongest), 2)
    f0 = _pick(g, hz, index)
    voicing = g.at_most(g.at_least(_pick(g, height, index), 0.0), 1.0)
    f0 = g.where(g.expand(voiced, 2), f0, g.constant(F0_CENTRE_HZ))
    log_f0 = g.node("Log", g.div(f0, g.constant(F0_CENTRE_HZ)))
    return g.div(log_f0, g.constant(F0_SCALE)), voicing, g.expand(energy, 2)


def _analysed(g: GraphBuilder, audio: str) -> tuple[str, str]:
    """Returns mean squares [B, N] and normalised autocorrelations [B, N, L].

    N = T + PAST + FUTURE: the path also needs windows just outside the clip.
    """
    window = pitch.window().astype(np.float64)
    energy_of_window = float(np.sum(window**2))
    # The window of frame t starts 480 samples before its centre.
    before = pitch.WINDOW // 2 + pitch.PAST * HOP
    after = pitch.FUTURE * HOP + pitch.WINDOW - pitch.WINDOW // 2 - HOP
    padded = g.pad(g.expand(audio, 1), (0, 0, before), (0, 0, after))
    band = pitch.band().astype(np.float64)
    used = np.flatnonzero(band)
    angle = 2 * np.pi * ((used[:, None] * np.arange(pitch.WINDOW)) % pitch.FFT) / pitch.FFT
    filters = np.concatenate([np.cos(angle), np.sin(angle)]) * window
    shape: dict[str, Any] = {"kernel_shape": [pitch.WINDOW], "strides": [HOP]}
    spectrum = g.node("Conv", padded, g.constant(filters[:, None]), **shape)
    real, imaginary = g.node("Split", spectrum, outputs=2, axis=1, num_outputs=2)
    power = g.add(g.mul(real, real), g.mul(imaginary, imaginary))
    squares = g.node("Conv", g.mul(padded, padded), g.constant((window**2)[None, None]), **shape)
    squares = g.node("Squeeze", squares, g.ints(1))
    energy = g.div(squares, g.constant(energy_of_window))
    return energy, correlation(g, g.transpose(power, 0, 2, 1))


def correlation(g: GraphBuilder, power: str) -> str:
    """Returns the normalised autocorrelations [B, N, L] of power [B, N, F] in the used bins."""
    band = pitch.band().astype(np.float64)
    used = np.flatnonzero(band)
    # The inverse transform of a real, even spectrum at the lags that are searched, and at lag 0.
    lags = np.concatenate([[0], np.arange(pitch.SHORTEST - 1, pitch.LONGEST + 2)])
    weight = np.where((used == 0) | (used == pitch.FFT // 2), 1.0, 2.0) * band[used] / pitch.FFT
    inverse = np.cos(2 * np.pi * ((used[:, None] * lags) % pitch.FFT) / pitch.FFT)
    inverse *= weight[:, None]
    inverse[:, 1:] /= pitch.window_correlation()
    lagged = g.node("MatMul", power, g.constant(inverse))
    quiet = pitch.QUIET * float(np.sum(pitch.window().astype(np.float64) ** 2))
    at_zero, later = g.node("Split", lagged, g.ints(1, len(lags) - 1), outputs=2, axis=2)
    return g.div(later, g.add(at_zero, g.constant(quiet)))


def candidates(g: GraphBuilder, correlation: str) -> tuple[str, str]:
    """Returns (Hz, height) [B, N, K] of the strongest peaks; missing peaks have height 0."""
    left = g.slice(correlation, 2, 0, -2)
    middle = g.slice(correlation, 2, 1, -1)
    right = g.slice(correlation, 2, 2, None)
    lags = np.arange(pitch.SHORTEST, pitch.LONGEST + 1, dtype=np.float32)
    octaves = np.log2(lags * (pitch.MIN_HZ / SAMPLE_RATE)).astype(np.float32)
    peak = g.node("And", g.node("Greater", middle, left), g.node("GreaterOrEqual", middle, right))
    peak = g.node("And", peak, g.node("Greater", middle, g.constant(0.0)))
    cost = g.constant(pitch.OCTAVE_COST * octaves)
    strength = g.where(peak, g.sub(middle, cost), g.constant(-1.0))
    strength, index = g.node(
        "TopK", strength, g.ints(pitch.CANDIDATES), outputs=2, axis=2, largest=1, sorted=1
    )
    a, b, c = (_pick(g, x, index) for x in (left, middle, right))
    curvature = g.add(g.sub(a, g.mul(g.constant(2.0), b)), c)
    curved = g.node("Less", curvature, g.constant(-1e-9))
    safe = g.where(curved, curvature, g.constant(-1.0))
    slope = g.sub(a, c)
    offset = g.clip(g.div(g.mul(g.constant(0.5), slope), safe), -0.5, 0.5)
    height = g.sub(b, g.mul(g.mul(g.constant(0.25), slope), offset))
    lag = g.add(g.add(g.cast(index, "float32"), g.constant(float(pitch.SHORTEST))), offset)
    hz = g.clip(g.div(g.constant(float(SAMPLE_RATE)), lag), pitch.MIN_HZ, pitch.MAX_HZ)
    height = g.clip(height, 0.0, 1.0)
    found = g.node("Greater", strength, g.constant(-1.0))
    return hz, g.where(found, height, g.constant(0.0))


def _choose(g: GraphBuilder, hz: str, height: str) -> str:
    """Returns the state [B, T] int64 of each frame on the best path; see `audio.pitch`."""
    states = pitch.CANDIDATES + 1
    # Candidates of silence are zero in a stream's past.
    octave = g.div(g.node("Log", g.at_least(hz, pitch.MIN_HZ)), g.constant(float(np.log(2.0))))
    bonus = g.sub(octave, g.constant(float(np.log2(pitch.MIN_HZ))))
    local = g.add(height, g.mul(g.constant(pitch.OCTAVE_COST), bonus))
    local = g.where(g.node("Greater", height, g.constant(0.0)), local, g.constant(-1.0))
    local = g.pad(local, (0, 0, 0), (0, 0, 1), pitch.VOICING_THRESHOLD)
    later, earlier = g.slice(octave, 1, 1, None), g.slice(octave, 1, 0, -1)
    jump = g.node("Abs", g.sub(g.expand(later, 3), g.expand(earlier, 2)))
    jump = g.mul(g.constant(pitch.OCTAVE_JUMP_COST), jump)
    cost = g.pad(jump, (0, 0, 0, 0), (0, 0, 1, 1), pitch.VOICING_CHANGE_COST)
    stays = np.ones((states, states))
    stays[-1, -1] = 0.0
    cost = g.mul(cost, g.constant(stays))  # [B, N - 1, state now, state before]

    before = local
    for _ in range(pitch.PAST):
        least = g.sub(g.expand(g.slice(before, 1, 0, -1), 2), cost)
        message = g.node("ReduceMax", least, g.ints(3), keepdims=0)
        before = g.add(local, g.pad(message, (0, 1, 0), (0, 0, 0)))
    after = local
    for _ in range(pitch.FUTURE):
        least = g.sub(g.expand(g.slice(after, 1, 1, None), 3), cost)
        message = g.node("ReduceMax", least, g.ints(2), keepdims=0)
        after = g.add(local, g.pad(message, (0, 0, 0), (0, 1, 0)))
    belief = g.slice(g.sub(g.add(before, after), local), 1, pitch.PAST, -pitch.FUTURE)
    return str(g.node("ArgMax", belief, axis=-1, keepdims=0))


def _pick(g: GraphBuilder, x: str, index: str) -> str:
    """Returns the values of x at an index along the last axis."""
    return str(g.node("GatherElements", x, index, axis=2))
