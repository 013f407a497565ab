"""Emotion as written by the user: one name, a blend, or a track over time."""

from __future__ import annotations

import csv
import dataclasses
import json
from pathlib import Path
from typing import Any

import numpy as np

from a2fjax import rig
from a2fjax.errors import InputError

TRACK_ENDINGS = (".json", ".csv")


@dataclasses.dataclass(frozen=True)
class EmotionTrack:
    """Emotion weights at points in time, linear between them and held outside.

    Attributes:
      times: [K] seconds, strictly increasing.
      weights: [K, 5] non-negative, each row sums to 1.
    """

    times: np.ndarray
    weights: np.ndarray

    @property
    def constant(self) -> bool:
        """True when the emotion never changes."""
        return bool((self.weights == self.weights[0]).all())

    def sample(self, frames: int, first: int = 0) -> np.ndarray:
        """Returns [frames, 5] float32 for frames `first`, `first + 1`, ... at 50 a second."""
        times = np.arange(first, first + frames) / rig.FPS
        columns = [np.interp(times, self.times, w) for w in self.weights.T]
        return np.stack(columns, -1).astype(np.float32)


def parse(text: str | None) -> EmotionTrack:
    """Reads "happy", "happy=0.7,sad=0.3" or the path of a track (.json or .csv).

    What is missing to a sum of one is neutral. A JSON track is
    {"times": [seconds, ...], "weights": [{"happy": 0.7}, ...]}, where a row of weights may also be
    the five numbers in the order of `rig.EMOTIONS`; a CSV track has the header
    `time,<emotion>,...`. None means neutral.

    Raises:
      InputError: unknown emotion, weights that sum to zero or over one, times that do not increase,
        or a file that is not a track; names file and line.
    """
    if text is None:
        return _constant({"neutral": 1.0})
    if Path(text).suffix.lower() in TRACK_ENDINGS:
        return read(text)
    weights: dict[str, float] = {}
    for part in text.split(","):
        name, equals, value = part.strip().partition("=")
        name = name.strip()
        if not name:
            raise InputError(f"emotion {text!r}: expected a name, or name=weight,name=weight")
        if name in weights:
            raise InputError(f"emotion {text!r}: {name} appears twice")
        try:
            weights[name] = float(value) if equals else 1.0
        except ValueError:
            raise InputError(
                f"emotion {part.strip()!r}: expected a number after '=', such as {name}=0.7"
            ) from None
    return _constant(weights)


def _constant(weights: dict[str, float]) -> EmotionTrack:
    return EmotionTrack(np.zeros(1), rig.emotion_vector(weights)[None])


def read(path: str | Path) -> EmotionTrack:
    """Reads a track file; see `parse`.

    Raises:
      InputError: as `parse`.
    """
    path = Path(path)
    if not path.is_file():
        raise InputError(f"emotion track {path}: no such file")
    try:
        text = path.read_text(encoding="utf-8-sig")
    except (UnicodeDecodeError, OSError) as error:
        raise InputError(f"emotion track {path}: cannot be read ({error})") from None
    rows = _json_rows(path, text) if path.suffix.lower() == ".json" else _csv_rows(path, text)
    if not rows:
        raise InputError(f"emotion track {path}: has no rows")
    times: list[float] = []
    weights: list[np.ndarray] = []
    for where, time, row in rows:
        try:
            time = float(time)
            vector = rig.emotion_vector({str(k): float(v) for k, v in row.items()})
        except InputError as error:
            raise InputError(f"emotion track {where}: {error}") from None
        except (TypeError, ValueError):
            raise InputError(f"emotion track {where}: expected numbers, got {row!r}") from None
        if not np.isfinite(time) or (times and time <= times[-1]):
            after = f" after {times[-1]:g}" if times else ""
            raise InputError(f"emotion track {where}: time {time:g}: expected a time{after}")
        times.append(time)
        weights.append(vector)
    return EmotionTrack(np.array(times), np.array(weights))


def _json_rows(path: Path, text: str) -> list[tuple[str, Any, dict[str, Any]]]:
    try:
        data = json.loads(text)
        times, weights = data["times"], data["weights"]
        if len(times) != len(weights):
            raise InputError(
                f"emotion track {path}: {len(times)} times and {len(weights)} rows of weights"
            )
        rows = []
        for i, (time, row) in enumerate(zip(times, weights, strict=True)):
            if not isinstance(row, dict):
                row = dict(zip(rig.EMOTIONS, row, strict=True))
            rows.append((f"{path}: row {i}", time, row))
        return rows
    except (ValueError, KeyError, TypeError) as error:
        if isinstance(error, InputError):
            raise
        raise InputError(
            f'emotion track {path}: expected {{"times": [...], "weights": [{{name: weight}}, ...]}}'
            f" ({type(error).__name__}: {error})"
        ) from None


def _csv_rows(path: Path, text: str) -> list[tuple[str, Any, dict[str, Any]]]:
    lines = list(csv.reader(text.splitlines()))
    header = [cell.strip() for cell in lines[0]] if lines else []
    if not header or header[0].lower() != "time":
        first = header[0][:40] if header else ""
        raise InputError(f"emotion track {path}:1: first column is {first!r}, expected 'time'")
    rows = []
    for number, cells in enumerate(lines[1:], 2):
        if not cells:
            continue
        if len(cells) != len(header):
            raise InputError(
                f"emotion track {path}:{number}: {len(cells)} values, expected {len(header)}"
            )
        rows.append((f"{path}:{number}", cells[0], dict(zip(header[1:], cells[1:], strict=True))))
    return rows
