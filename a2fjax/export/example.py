"""The example of a bundle: two seconds of a synthetic voice, free of anybody's rights."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from a2fjax.audio import SAMPLE_RATE, io
from a2fjax.errors import InputError

_FORMANTS = {"a": (730, 1090, 2440), "i": (270, 2290, 3010), "u": (300, 870, 2240)}
_BANDWIDTHS = (80.0, 100.0, 160.0)


def voice(seconds: float = 2.0, seed: int = 0) -> np.ndarray:
    """Returns syllables "ma-mi-mu..." [S] float32 at 16 kHz: pulses through three resonances.

    Formants: Peterson and Barney 1952, men's /a/, /i/ and /u/.

    Example:
        >>> voice(0.5).shape
        (8000,)
    """
    from scipy import signal

    rng = np.random.default_rng(seed)
    time = np.arange(round(seconds * SAMPLE_RATE)) / SAMPLE_RATE
    hz = 115 + 15 * np.sin(2 * np.pi * 0.7 * time)
    pulses = np.diff(np.floor(np.cumsum(hz) / SAMPLE_RATE), prepend=0.0)
    source = signal.lfilter([1.0], [1.0, -0.96], pulses) + 0.002 * rng.standard_normal(len(time))
    syllable = 0.25  # seconds; the lips are closed for the first third
    opened = np.clip((time % syllable) / syllable * 3 - 1, 0, 1) ** 0.5
    out = np.zeros(len(time))
    for i, formants in enumerate(_FORMANTS.values()):
        part = source
        for frequency, bandwidth in zip(formants, _BANDWIDTHS, strict=True):
            radius = np.exp(-np.pi * bandwidth / SAMPLE_RATE)
            angle = 2 * np.pi * frequency / SAMPLE_RATE
            filters = [1.0, -2 * radius * np.cos(angle), radius**2]
            part = signal.lfilter([sum(filters)], filters, part)
        out += part * ((time // syllable).astype(int) % 3 == i)
    out *= 0.1 + 0.9 * opened
    return (0.3 * out / max(np.abs(out).max(), 1e-9)).astype(np.float32)


def recordings(paths: tuple[str | Path, ...]) -> list[np.ndarray]:
    """Returns recordings [S] float32 at 16 kHz; two synthetic ones without paths.

    Raises:
      InputError: one cannot be read.
    """
    if not paths:
        return [voice(10.0), voice(3.3, seed=1)]
    found = [np.concatenate(list(io.blocks(path, 10.0))) for path in paths]
    for path, samples in zip(paths, found, strict=True):
        if not len(samples):
            raise InputError(f"--audio {path}: has no samples")
    return found
