"""Signals of one frame of live audio in ONNX: `a2fjax.audio.live_features`, relative to silence.

They are computed as differences from silence, so that silence is exactly zero everywhere: layer
normalisation would amplify what rounding leaves of it.

Windows are symmetric about their centre, so the spectrum comes from two half products: cosines of
the sums of samples on both sides, sines of their differences.
"""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from a2fjax.audio import HOP, mel, pitch
from a2fjax.audio.frontend import Frontend
from a2fjax.export.onnx_graphs import live_level, live_pitch
from a2fjax.export.onnx_graphs import mel as mel_graph
from a2fjax.export.onnx_graphs import pitch as pitch_graph
from a2fjax.export.onnx_graphs.graph_builder import GraphBuilder

_PITCH_HEARD = HOP + pitch.WINDOW // 2 + HOP
"""Samples at hand for pitch: those of the state and a frame."""


def advance(
    g: GraphBuilder, state: Mapping[str, str], frame: str, frontend: Frontend
) -> tuple[dict[str, str], str]:
    """Returns (next state, signals [B, F] relative to silence) after a frame [B, 320] as recorded.

    Args:
      g: the graph.
      state: values by name; see `LiveFeatures.state_shapes`.
      frame: samples.
      frontend: which signals, in their order.
    """
    level, gain = live_level.update(g, state["level"], frame)
    heard = g.concat(state["audio"], frame, axis=1)
    new = {"audio": g.slice(heard, 1, HOP, None), "level": level}
    scaled = g.mul(heard, gain)
    has_pitch = "pitch" in frontend.signals
    size = _PITCH_HEARD if has_pitch else mel.WINDOW
    centre = size - HOP
    # Of each window the samples from its centre on, and their partners before it.
    later, earlier = np.arange(centre, size), np.arange(centre, size - mel.WINDOW, -1)
    if has_pitch:
        half = pitch.WINDOW // 2
        later = np.concatenate([later, np.arange(half, pitch.WINDOW)])
        earlier = np.concatenate([earlier, np.arange(half - 1, -1, -1)])
    a, b = (g.node("Gather", scaled, g.ints(*index), axis=1) for index in (later, earlier))
    sums, differences = [g.add(a, b)], [g.sub(a, b)]
    if has_pitch:
        widths = g.ints(HOP, pitch.WINDOW // 2)
        sums, differences = (
            g.node("Split", x[0], widths, outputs=2, axis=1) for x in (sums, differences)
        )
    parts = {}
    if "mel" in frontend.signals:
        parts["mel"] = _mel(g, sums[0], differences[0], frontend)
    if has_pitch:
        found = _analysed(g, scaled, sums[1], differences[1])
        analysed = g.concat(state["pitch"], found, axis=1)
        new["pitch"] = g.slice(analysed, 1, 1, None)
        log_f0, voicing, energy = live_pitch.path(g, analysed)
        ratio = g.mul(energy, g.constant(1.0 / (frontend.floor_rms**2 + pitch.ENERGY_FLOOR)))
        loudness = _log_above_one(g, ratio, frontend)
        parts["pitch"] = g.squeeze(g.concat(log_f0, voicing, loudness, axis=2), 1)
    signals = [parts[name] for name in frontend.signals]
    return new, signals[0] if len(signals) == 1 else g.concat(*signals, axis=1)


def _log_above_one(g: GraphBuilder, ratio: str, frontend: Frontend) -> str:
    """Returns scaled ln(1 + ratio to the floor)."""
    scale, _ = mel_graph.scaling(frontend, 0.0)
    return g.mul(g.node("Log", g.add(ratio, g.constant(1.0))), g.constant(scale))


def _power(g: GraphBuilder, sums: str, differences: str, *bases: np.ndarray) -> str:
    """Returns the power spectrum from the two halves and their windowed cosines and sines."""
    cosine = g.node("MatMul", sums, g.constant(bases[0]))
    sine = g.node("MatMul", differences, g.constant(bases[1]))
    return g.add(g.mul(cosine, cosine), g.mul(sine, sine))


def _mel(g: GraphBuilder, sums: str, differences: str, frontend: Frontend) -> str:
    """Returns the log-mel [B, 80] of the halves [B, 320] of a window."""
    filters = mel.filterbank()
    used = np.flatnonzero(filters.any(axis=1))
    angle = 2 * np.pi * ((np.arange(HOP)[:, None] * used) % mel.FFT) / mel.FFT
    weight = mel.window().astype(np.float64)[HOP:, None].copy()
    weight[0] /= 2  # The centre is its own partner.
    power = _power(g, sums, differences, np.cos(angle) * weight, np.sin(angle) * weight)
    floor = mel.white_noise_power(frontend.floor_rms)
    ratio = g.node("MatMul", power, g.constant(filters[used] / floor))
    return _log_above_one(g, ratio, frontend)


def _analysed(g: GraphBuilder, heard: str, sums: str, differences: str) -> str:
    """Returns what a path needs of the halves [B, 480] of a window; see `pitch.analyse`.

    Args:
      g: the graph.
      heard: [B, N] samples, of which the first `pitch.WINDOW` are the window.
      sums: of both halves.
      differences: of both halves.
    """
    half = pitch.WINDOW // 2
    used = np.flatnonzero(pitch.band())
    # The centre is between two samples.
    turns = ((2 * np.arange(half)[:, None] + 1) * used) % (2 * pitch.FFT)
    angle = np.pi * turns / pitch.FFT
    weight = pitch.window().astype(np.float64)
    bases = np.cos(angle) * weight[half:, None], np.sin(angle) * weight[half:, None]
    power = g.expand(_power(g, sums, differences, *bases), 1)
    hz, height = pitch_graph.candidates(g, pitch_graph.correlation(g, power))
    squares = np.zeros((_PITCH_HEARD, 1))
    squares[: pitch.WINDOW, 0] = weight**2 / np.sum(weight**2)
    energy = g.node("MatMul", g.mul(heard, heard), g.constant(squares))
    return g.concat(hz, height, g.expand(energy, 1), axis=2)
