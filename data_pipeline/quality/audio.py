"""Measures the sound of a take: `a2fjax.audio.measures`, and a fingerprint to find copies."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from a2fjax.audio import measures
from data_pipeline.quality import fingerprints


def measure_audio(path: str | Path | None) -> dict[str, Any]:
    """Measures an audio file, or a video's audio track.

    Args:
      path: path of the file, which is measured at its original rate; None for a take without audio.

    Returns:
      The values of `measures.measure`, and fingerprint: see `fingerprints`; empty without a file.

    Raises:
      InputError: as `a2fjax.audio.io.load`.
    """
    if path is None:
        return {}
    words: fingerprints.Fingerprinter | None = None

    def listen(rate: float, mono: np.ndarray) -> None:
        nonlocal words
        words = words or fingerprints.Fingerprinter(round(rate))
        words.add(mono)

    measured = measures.measure(path, listen)
    return {**measured, "fingerprint": words.result() if words else ""}
