"""Emotions as users give them: a name, a blend, a track over time, or unspecified.

The emotion is never estimated from the audio.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from a2fjax import rig
from a2fjax.animation import columns, text_files
from a2fjax.errors import InputError, nearest

TRACK_ENDINGS = (".json", ".csv")


BLEND_SECONDS = 0.3
"""Shortest duration of a change between emotions in seconds: 0.067 per frame."""

UNSPECIFIED = "none"
"""Name of the zero vector, an unspecified emotion."""

INTERPOLATIONS = ("linear", "step")


@dataclasses.dataclass(frozen=True)
class EmotionTrack:
    """Emotion weights over time, constant before the first and after the last point.

    Between points the weights are interpolated linearly, or each emotion is held until the next
    point. A track with steps, or with points so close that a weight would change faster than by one
    in `blend` seconds, is cross-faded: every value is the average of the track over the surrounding
    `blend` seconds.

    Attributes:
      times: [K] seconds, strictly increasing.
      weights: [K, 5] non-negative, each row sums to at most 1; zeros for an unspecified emotion.
      step: hold each emotion until the next point instead of interpolating.
      blend: shortest duration of a full change in seconds, above 0.
    """

    times: np.ndarray
    weights: np.ndarray
    step: bool = False
    blend: float = BLEND_SECONDS

    @property
    def constant(self) -> bool:
        """True if the emotion never changes."""
        return bool((self.weights == self.weights[0]).all())

    def sample(self, frames: int, first: int = 0) -> np.ndarray:
        """Returns weights [frames, 5] float32 from frame `first` on, at 50 frames per second."""
        times = np.arange(first, first + frames) / rig.FPS
        if not self._abrupt:
            columns = [np.interp(times, self.times, w) for w in self.weights.T]
            return np.stack(columns, -1).astype(np.float32)
        half = self.blend / 2.0
        mean = (self._integral(times + half) - self._integral(times - half)) / self.blend
        return np.maximum(mean, 0.0).astype(np.float32)

    @property
    def _abrupt(self) -> bool:
        if len(self.times) < 2:
            return False
        change = np.abs(np.diff(self.weights, axis=0)).max(axis=1)
        return self.step or bool((change > np.diff(self.times) / self.blend * (1 + 1e-9)).any())

    def _integral(self, until: np.ndarray) -> np.ndarray:
        """Returns the integral [N, 5] of the weights from the first point to times [N]."""
        times, weights = self.times, self.weights
        if self.step:
            # Every point after the first appears twice, with the weights before and after its step.
            times = np.repeat(times, 2)[1:]
            weights = np.repeat(weights, 2, axis=0)[:-1]
        width = np.diff(times)
        area = 0.5 * width[:, None] * (weights[1:] + weights[:-1])
        whole = np.concatenate([np.zeros((1, rig.NUM_EMOTIONS)), np.cumsum(area, axis=0)])
        index = np.clip(np.searchsorted(times, until, side="right") - 1, 0, len(times) - 2)
        into = np.clip(until - times[index], 0.0, width[index])
        share = np.divide(into, width[index], out=np.zeros_like(into), where=width[index] > 0)
        rise = (weights[index + 1] - weights[index]) * share[:, None]
        inside = whole[index] + into[:, None] * (weights[index] + 0.5 * rise)
        before = np.minimum(until - times[0], 0.0)[:, None] * weights[0]
        after = np.maximum(until - times[-1], 0.0)[:, None] * weights[-1]
        return inside + before + after


Emotion = str | Path | Mapping[str, float] | Sequence[float] | np.ndarray | EmotionTrack | None


def parse(text: str | None) -> EmotionTrack:
    """Reads "happy", "happy=0.7,sad=0.3" or the path of a track (.json or .csv).

    NVIDIA's ten names (`rig.NVIDIA_EMOTIONS`) stand for blends of the five emotions. Weights that
    sum to less than one are filled up with neutral. A JSON track is {"times": [seconds, ...],
    "weights": [{"happy": 0.7}, ...]}, where a row of weights may also be five numbers in the order
    of `rig.EMOTIONS`; the keys "interpolation" ("linear" or "step") and "blend" (seconds) are
    optional. A CSV track has the header `time,<emotion>,...`. None means neutral; "none" leaves the
    emotion unspecified: the zero vector.

    Raises:
      InputError: unknown emotion, weights that sum to zero or over one, times that do not increase,
        or a file that is not a track; the message names the file and line.
    """
    if text is None:
        return _constant({"neutral": 1.0})
    if text.strip().lower() == UNSPECIFIED:
        return EmotionTrack(np.zeros(1), np.zeros((1, rig.NUM_EMOTIONS), np.float32))
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


def as_track(emotion: Emotion) -> EmotionTrack:
    """Returns an emotion as a track; accepts every form that the API accepts.

    Example:
        >>> as_track({"happy": 0.75}).weights.tolist()
        [[0.25, 0.75, 0.0, 0.0, 0.0]]

    Args:
      emotion: None for neutral; text or the path of a track, see `parse`; weights by name, filled
        up with neutral; weights [5] in the order of `rig.EMOTIONS`; weights [T, 5] per frame at 50
        frames per second; or a track.

    Raises:
      InputError: as for `parse`, or an array that does not hold such weights.
    """
    if isinstance(emotion, EmotionTrack):
        return emotion
    if emotion is None or isinstance(emotion, str):
        return parse(emotion)
    if isinstance(emotion, Path):
        return read(emotion)
    if isinstance(emotion, Mapping):
        return _constant({str(name): float(weight) for name, weight in emotion.items()})
    try:
        weights = np.atleast_2d(np.asarray(emotion, np.float32))
    except (TypeError, ValueError):
        weights = np.zeros((0, 0), np.float32)
    if weights.ndim != 2 or weights.shape[1] != rig.NUM_EMOTIONS or not len(weights):
        raise InputError(
            f"emotion has shape {np.shape(emotion)}, expected [{rig.NUM_EMOTIONS}] or "
            f"[frames, {rig.NUM_EMOTIONS}] in the order {', '.join(rig.EMOTIONS)}"
        )
    # The condition is negated so that NaN is rejected as well.
    if not (weights.min() >= 0 and weights.sum(-1).max() <= 1 + 1e-3):
        raise InputError(
            f"emotion weights from {weights.min():g}, sums up to {weights.sum(-1).max():g}; "
            "expected weights of at least 0 that sum to at most 1"
        )
    # Blending over one frame leaves the weights of each frame unchanged.
    return EmotionTrack(np.arange(len(weights)) / rig.FPS, weights, blend=1 / rig.FPS)


def check_unspecified(track: EmotionTrack, dropout: float) -> None:
    """Checks that a model supports an unspecified emotion if the track contains one.

    Args:
      track: emotion to predict with.
      dropout: `model.emotion_dropout` that the model was trained with.

    Raises:
      InputError: the emotion is unspecified but the model always had one in training.
    """
    if not track.weights.any() and dropout <= 0:
        raise InputError(
            f"emotion {UNSPECIFIED!r}: this run was trained with model.emotion_dropout=0 and was "
            f"always given the emotion; expected one of {', '.join(rig.EMOTIONS)} "
            "(nearest: neutral)"
        )


def _constant(weights: dict[str, float]) -> EmotionTrack:
    return EmotionTrack(np.zeros(1), rig.emotion_vector(weights)[None])


def read(path: str | Path) -> EmotionTrack:
    """Reads a track file; see `parse`.

    Raises:
      InputError: as for `parse`.
    """
    path = Path(path)
    step, blend = False, BLEND_SECONDS
    if path.suffix.lower() == ".json":
        data = text_files.read_json(path, "emotion track")
        rows = _json_rows(path, data)
        step, blend = _interpolation(path, data)
    else:
        rows = _csv_rows(path)
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
    return EmotionTrack(np.array(times), np.array(weights), step, blend)


def _interpolation(path: Path, data: dict[str, Any]) -> tuple[bool, float]:
    """Returns the interpolation settings of a JSON track: (step, blend)."""
    known = ("times", "weights", "interpolation", "blend")
    for key in data:
        if key not in known:
            raise InputError(f"emotion track {path}: unknown key {key!r}{nearest(key, known)}")
    kind, blend = data.get("interpolation", "linear"), data.get("blend", BLEND_SECONDS)
    if kind not in INTERPOLATIONS:
        raise InputError(
            f"emotion track {path}: interpolation {kind!r}{nearest(str(kind), INTERPOLATIONS)}"
        )
    number = isinstance(blend, int | float) and not isinstance(blend, bool)
    if not (number and np.isfinite(blend) and blend > 0):
        raise InputError(
            f"emotion track {path}: blend {blend!r}: expected seconds above 0, such as "
            f"{BLEND_SECONDS:g}"
        )
    return kind == "step", float(blend)


def _json_rows(path: Path, data: Any) -> list[tuple[str, Any, dict[str, Any]]]:
    try:
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


def _csv_rows(path: Path) -> list[tuple[str, Any, dict[str, Any]]]:
    table = text_files.read_table(path, lambda name: name.lower() in rig.EMOTIONS)
    kind = columns.clock_kind(table.header[0])
    if kind not in columns.SECONDS or kind == "timecode":
        first = table.header[0][:40]
        raise InputError(f"emotion track {path}:1: first column is {first!r}, expected 'time'")
    names = [name.lower() for name in table.header[1:]]
    repeated = next((name for i, name in enumerate(names) if name in names[:i]), None)
    if repeated is not None:
        raise InputError(f"emotion track {path}:1: column {repeated!r} appears twice")
    values = table.numbers(range(len(table.header)))
    rows = []
    for line, cells, row in zip(table.lines, table.rows, values.tolist(), strict=True):
        if not any(cell.strip() for cell in cells):
            continue
        where = f"{path}:{line}"
        empty = next((n for n, v in zip(table.header, row, strict=True) if v != v), None)
        if empty is not None:
            raise InputError(f"emotion track {where}: {empty} has no value")
        time = row[0] * columns.SECONDS[kind]
        rows.append((where, time, dict(zip(table.header[1:], row[1:], strict=True))))
    return rows
