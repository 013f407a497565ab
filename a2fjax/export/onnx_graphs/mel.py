"""Log-mel in ONNX: `a2fjax.audio.mel` and its scaling, as a convolution with a windowed basis.

Every runtime has Conv; few have STFT. The two agree within 3e-5 of log power.
"""

from __future__ import annotations

import numpy as np

from a2fjax.audio import HOP, mel
from a2fjax.audio.frontend import SPAN, Frontend
from a2fjax.export.onnx_graphs.graph_builder import GraphBuilder


def basis() -> np.ndarray:
    """Returns the filters [2 * 513, 1, 640] float32: cosines, then sines, times the window."""
    time = np.arange(mel.WINDOW)
    bins = np.arange(mel.FFT // 2 + 1)[:, None]
    angle = 2 * np.pi * ((bins * time) % mel.FFT) / mel.FFT
    both = np.concatenate([np.cos(angle), np.sin(angle)]) * mel.window().astype(np.float64)
    return both[:, None].astype(np.float32)


def features(g: GraphBuilder, audio: str, frontend: Frontend) -> str:
    """Returns the scaled log-mel [B, T, 80] of normalised audio [B, 320 T]."""
    spectrum = g.node(
        "Conv",
        g.expand(audio, 1),
        g.constant(basis()),
        kernel_shape=[mel.WINDOW],
        strides=[HOP],
        pads=[HOP, 0],
    )
    real, imaginary = g.node("Split", spectrum, outputs=2, axis=1, num_outputs=2)
    power = g.add(g.mul(real, real), g.mul(imaginary, imaginary))
    bands = g.node("MatMul", g.transpose(power, 0, 2, 1), g.constant(mel.filterbank()))
    floor = mel.white_noise_power(frontend.floor_rms)
    log = g.node("Log", g.add(bands, g.constant(floor)))
    scale, offset = scaling(frontend, np.log(floor))
    return g.add(g.mul(log, g.constant(scale)), g.constant(offset))


def scaling(frontend: Frontend, log_floor: np.ndarray | float) -> tuple[float, np.ndarray]:
    """Returns scale and offset of log power, so that the floor becomes -SPAN, speech +SPAN."""
    scale = 2.0 * SPAN / frontend.log_range
    return scale, -SPAN - scale * np.asarray(log_floor)
