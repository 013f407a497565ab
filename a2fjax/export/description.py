"""The manifest's content: what the numbers in a bundle mean, with every constant."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import Any

import numpy as np

import a2fjax
from a2fjax import configuration, mesh_descriptor, rig
from a2fjax.audio import HOP, SAMPLE_RATE, frontend, level, mel, pitch
from a2fjax.bundle import manifest
from a2fjax.export.source import Source

MOUTH_CLOSE = (
    "ARKit: relative to the open jaw; lips that touch below an open jaw have mouthClose = jawOpen, "
    "and the gap of the lips is about jawOpen - mouthClose"
)


@dataclasses.dataclass(frozen=True)
class Rights:
    """Under which terms the weights may be passed on.

    Attributes:
      license: identifier as the hub spells it, such as "apache-2.0"; "other" if nothing is stated.
      datasets: names of the training data, with their licences where known.
      languages: codes such as "en".
    """

    license: str = "other"
    datasets: tuple[str, ...] = ()
    languages: tuple[str, ...] = ()


UNSTATED = Rights()


def describe(source: Source, rights: Rights, metrics: Mapping[str, Any]) -> dict[str, Any]:
    """Returns the manifest without its graphs and files.

    Args:
      source: the model.
      rights: terms of the weights.
      metrics: held-out values of the checkpoint by name.
    """
    config = source.config
    return {
        "schema": manifest.SCHEMA,
        "library": {"name": "a2fjax", "version": a2fjax.__version__},
        "kind": config.model.kind,
        "name": config.name,
        "step": source.step,
        "fingerprint": source.fingerprint,
        "configuration": configuration.fingerprint(config),
        "rig": rig.FINGERPRINT,
        "mesh_descriptor": mesh_descriptor.VERSION,
        "channels": [
            {"name": name, "unit": unit, "low": float(low), "high": float(high)}
            for name, unit, low, high in zip(rig.CHANNELS, rig.UNITS, rig.MIN, rig.MAX, strict=True)
        ],
        "mouth_close": MOUTH_CLOSE,
        "emotions": list(rig.EMOTIONS),
        "rates": {
            "sample_rate": SAMPLE_RATE,
            "hop": HOP,
            "frames_per_second": rig.FPS,
            "frame": "frame t is the pose at sample 320 t; S samples have ceil(S / 320) frames",
        },
        "look_ahead": {
            "frames": source.model.lookahead_frames,
            "seconds": source.model.lookahead_seconds,
        },
        "level": {
            "target_rms": level.TARGET,
            "floor_rms": level.FLOOR,
            "inaudible_rms": level.INAUDIBLE,
            "contrast": level.CONTRAST,
            "enough_frames": level.ENOUGH,
            "noise_percentile": 10,
            "speech_percentile": 95,
        },
        "features": _features(source),
        "conditions": _conditions(source),
        "license": rights.license,
        "datasets": list(rights.datasets),
        "metrics": {k: v for k, v in metrics.items() if isinstance(v, int | float)},
    }


def _features(source: Source) -> dict[str, Any]:
    config = source.config.audio
    front = source.model.audio_features.frontend
    known: dict[str, dict[str, Any]] = {
        "mel": {
            "width": mel.BINS,
            "window": "periodic Hann",
            "window_samples": mel.WINDOW,
            "fft": mel.FFT,
            "scale": "Slaney, triangles of equal area, 0 to 8000 Hz",
            "floor_db": config.mel_floor_db,
            "floor_power": [float(v) for v in mel.white_noise_power(front.floor_rms)],
            "scaled": "((ln(power + floor) - ln(floor)) / range * 2 - 1) * span",
            "range": front.log_range,
            "span": frontend.SPAN,
            "look_ahead_samples": mel.LOOKAHEAD,
            "look_back_samples": mel.LOOKBACK,
        },
        "pitch": {
            "width": 3,
            "values": ["log_f0", "voicing", "log_energy"],
            "window_samples": pitch.WINDOW,
            "fft": pitch.FFT,
            "hz": [pitch.MIN_HZ, pitch.MAX_HZ],
            "candidates": pitch.CANDIDATES,
            "path_frames": [pitch.PAST, pitch.FUTURE],
            "quiet_power": pitch.QUIET,
            "voicing_threshold": pitch.VOICING_THRESHOLD,
            "octave_cost": pitch.OCTAVE_COST,
            "octave_jump_cost": pitch.OCTAVE_JUMP_COST,
            "voicing_change_cost": pitch.VOICING_CHANGE_COST,
            "f0_centre_hz": frontend.F0_CENTRE_HZ,
            "f0_scale": frontend.F0_SCALE,
            "voicing_centre": frontend.VOICING_CENTRE,
            "voicing_scale": frontend.VOICING_SCALE,
            "look_ahead_samples": pitch.LOOKAHEAD,
            "look_back_samples": pitch.LOOKBACK,
        },
    }
    return {name: known.get(name, {"encoder": name.partition(":")[0]}) for name in config.features}


def _conditions(source: Source) -> dict[str, Any]:
    model = source.config.model
    share = source.constants.get("emotion_share")
    emotion: dict[str, Any] = {
        "default": [1.0, *[0.0] * (rig.NUM_EMOTIONS - 1)],
        "may_be_zero": model.emotion_dropout > 0,
    }
    if share is not None:
        emotion["training_share"] = [float(value) for value in np.asarray(share)]
    out: dict[str, Any] = {"emotion": emotion}
    if source.has_identity:
        out["identity"] = {
            "from": "mesh" if model.identity == "mesh" else "training subjects",
            "default": "zeros: the mean identity",
            "points": source.config.data.identity_points,
            "normals": model.identity_normals,
            "subjects": list(source.predictor.subjects),
        }
    return out
