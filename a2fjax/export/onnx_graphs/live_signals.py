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
from a2fjax.audio.frontend import VOICING_SCALE, Frontend
from a2fjax.export.onnx_graphs import live_level
from a2fjax.export.onnx_graphs import mel as mel_graph
from a2fjax.export.onnx_graphs import pitch as pitch_graph
from a2fjax.export.onnx_graphs.graph_builder import GraphBuilder


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
    parts = {}
    if "mel" in frontend.signals:
        window = g.mul(g.slice(heard, 1, -mel.WINDOW, None), gain)
        parts["mel"] = _mel(g, window, frontend)
    if "pitch" in frontend.signals:
        window = g.mul(g.slice(heard, 1, 0, pitch.WINDOW), gain)
        analysed = g.concat(state["pitch"], g.expand(_analysed(g, window), 1), axis=1)
        new["pitch"] = g.slice(analysed, 1, 1, None)
        last = pitch.CANDIDATES
        hz, height = g.slice(analysed, 2, 0, last), g.slice(analysed, 2, last, 2 * last)
        energy = g.squeeze(g.slice(analysed, 2, 2 * last, None), 2)
        log_f0, voicing, energy = pitch_graph.path(g, hz, height, energy)
        voicing = g.div(voicing, g.constant(VOICING_SCALE))
        ratio = g.div(energy, g.constant(frontend.floor_rms**2 + pitch.ENERGY_FLOOR))
        loudness = _log_above_one(g, ratio, frontend)
        parts["pitch"] = g.squeeze(g.concat(log_f0, voicing, loudness, axis=2), 1)
    found = [parts[name] for name in frontend.signals]
    return new, found[0] if len(found) == 1 else g.concat(*found, axis=1)


def _log_above_one(g: GraphBuilder, ratio: str, frontend: Frontend) -> str:
    """Returns scaled ln(1 + ratio to the floor)."""
    scale, _ = mel_graph.scaling(frontend, 0.0)
    return g.mul(g.node("Log", g.add(ratio, g.constant(1.0))), g.constant(scale))


def _power(g: GraphBuilder, sums: str, differences: str, *bases: np.ndarray) -> str:
    """Returns the power spectrum from the two halves and their windowed cosines and sines."""
    cosine = g.node("MatMul", sums, g.constant(bases[0]))
    sine = g.node("MatMul", differences, g.constant(bases[1]))
    return g.add(g.mul(cosine, cosine), g.mul(sine, sine))


def _mel(g: GraphBuilder, window: str, frontend: Frontend) -> str:
    """Returns the log-mel [B, 80] of samples [B, 640], whose window peaks at sample 320."""
    later = g.slice(window, 1, HOP, None)
    # Sample 0 has no partner and the weight 0; neither has the centre, which is left alone.
    earlier = g.slice(window, 1, HOP - 1, 0, -1)
    centre, later = g.slice(later, 1, 0, 1), g.slice(later, 1, 1, None)
    sums = g.concat(centre, g.add(later, earlier), axis=1)
    filters = mel.filterbank()
    used = np.flatnonzero(filters.any(axis=1))
    angle = 2 * np.pi * ((np.arange(HOP)[:, None] * used) % mel.FFT) / mel.FFT
    weight = mel.window().astype(np.float64)[HOP:, None]
    bases = np.cos(angle) * weight, (np.sin(angle) * weight)[1:]
    power = _power(g, sums, g.sub(later, earlier), *bases)
    floor = mel.white_noise_power(frontend.floor_rms)
    ratio = g.node("MatMul", power, g.constant(filters[used] / floor))
    return _log_above_one(g, ratio, frontend)


def _analysed(g: GraphBuilder, window: str) -> str:
    """Returns what a path needs of samples [B, 960]; see `pitch.analyse`."""
    half = pitch.WINDOW // 2
    later = g.slice(window, 1, half, None)
    earlier = g.slice(window, 1, half - 1, -pitch.WINDOW - 1, -1)
    band = pitch.band().astype(np.float64)
    used = np.flatnonzero(band)
    # The centre is between two samples.
    turns = ((2 * np.arange(half)[:, None] + 1) * used) % (2 * pitch.FFT)
    angle = np.pi * turns / pitch.FFT
    weight = pitch.window().astype(np.float64)
    bases = np.cos(angle) * weight[half:, None], np.sin(angle) * weight[half:, None]
    power = _power(g, g.add(later, earlier), g.sub(later, earlier), *bases)
    hz, height = pitch_graph.candidates(g, pitch_graph.correlation(g, g.expand(power, 1)))
    squares = g.node("MatMul", g.mul(window, window), g.constant(weight[:, None] ** 2))
    energy = g.div(squares, g.constant(float(np.sum(weight**2))))
    return g.concat(g.squeeze(hz, 1), g.squeeze(height, 1), energy, axis=1)
