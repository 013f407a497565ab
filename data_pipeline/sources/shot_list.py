"""Reads shots.json: sentences, emotions and other metadata that file names cannot express.

{"fps": 60, "units": "cm", "synthetic": false, "shots": {"take_01": {
    "sentence": "key", "text": "...", "language": "en",
    "emotion": {"happy": 1.0}, "held_out": false}}}
"""

from __future__ import annotations

import dataclasses
import os
from pathlib import Path
from typing import Any

import numpy as np

from a2fjax import rig
from a2fjax.animation import emotion, text_files
from a2fjax.errors import InputError
from data_pipeline.mesh.conventions import MILLIMETRES
from data_pipeline.mesh.file_checks import FRAME_RATE_RANGE
from data_pipeline.sources import SourceOptions, Take
from data_pipeline.sources.file_names import composed

SLATE = "slate"
"""Name of the take of lip pops that clocks are aligned by."""


@dataclasses.dataclass(frozen=True)
class ShotList:
    """The contents of shots.json: {"fps", "units", "synthetic", "shots": {shot: {...}}}, optional.

    A shot may have "sentence" (key), "text", "language", "held_out", and "emotion" ({name: weight})
    or "emotion_track" ({"times": [s on the audio clock], "weights": [[5], ...]}).
    """

    fps: float = 0.0
    units: str = ""
    synthetic: bool = False
    shots: dict[str, dict[str, Any]] = dataclasses.field(default_factory=dict)


def read_shot_list(path: Path) -> ShotList:
    """Reads shots.json; returns an empty list if there is none.

    Raises:
      InputError: not JSON, or a value of the wrong kind.
    """
    if not os.path.lexists(path):
        return ShotList()
    try:
        data = text_files.read_json(path)
        fps = float(data.get("fps", 0.0))
        units = str(data.get("units", ""))
        shots = {composed(str(k)): v for k, v in dict(data.get("shots", {})).items()}
        if len(shots) < len(data.get("shots", {})):
            raise ValueError("a shot appears twice, in two Unicode forms")
        if not all(isinstance(s, dict) for s in shots.values()):
            raise ValueError("a shot is not a group of keys")
    except InputError:
        raise
    except (OSError, ValueError, TypeError, AttributeError) as error:
        raise InputError(f"{path}: not a shot list ({error})") from None
    if fps and not FRAME_RATE_RANGE[0] <= fps <= FRAME_RATE_RANGE[1]:
        raise InputError(f"{path}: fps={fps:g}: expected 1 to 1000 frames a second")
    if units and units not in MILLIMETRES:
        raise InputError(f"{path}: units={units!r}: expected mm, cm or m")
    return ShotList(fps, units, bool(data.get("synthetic", False)), shots)


def require_audio(audio: Path | None, options: SourceOptions, missing: str) -> None:
    """Checks that a take has an audio file, or that silence is allowed.

    Args:
      audio: the file, or None.
      options: the user's options.
      missing: message that names the missing file.

    Raises:
      InputError: there is no audio file and silence is not allowed.
    """
    if audio is None and options.missing_audio != "silence":
        raise InputError(
            f"{missing}; --config.missing_audio=silence takes it as performed in silence"
        )


def make_take(
    listed: ShotList,
    entry: dict[str, Any],
    options: SourceOptions,
    *,
    where: Path,
    subject: str,
    name: str,
    audio: Path | None,
    data: tuple[Path, ...],
    emotion_name: str,
    sentence: str,
    slate: bool,
    fps: float = 0.0,
    offset: float | None = None,
) -> Take:
    """Returns a take, described by its entry in the shot list, the user's options and its name.

    Args:
      listed: the shot list.
      entry: entry of the take in the list.
      options: the user's options.
      where: file, for messages.
      subject: name of the actor.
      name: name of the take.
      audio: audio file, or None.
      data: motion files.
      emotion_name: text whose words give the emotion if nothing else does.
      sentence: key of the sentence if the list has none.
      slate: whether the take holds lip pops instead of speech.
      fps: rate of the capture; 0 if its file has times.
      offset: audio time minus capture time in s if the files state it.

    Raises:
      InputError: the emotion is not valid.
    """
    weights, track = read_emotion(where, emotion_name, entry, options.emotion)
    held_out = entry.get("held_out")
    return Take(
        subject=composed(subject),
        name=composed(name),
        audio=audio,
        data=data,
        sentence=composed(str(entry.get("sentence") or sentence)),
        language=str(entry.get("language") or options.language),
        emotion=weights,
        emotion_track=track,
        slate=slate,
        synthetic=listed.synthetic,
        held_out=None if held_out is None else bool(held_out),
        fps=fps,
        text=str(entry.get("text") or ""),
        offset=offset,
    )


def sentence_from_name(shot: str) -> str:
    """Returns the sentence key that a shot's name implies: the name without the emotion.

    The same sentence is often performed with several emotions ("cp1_neutral", "cp1_joy"); these
    takes must be in the same split.

    Example:
        >>> sentence_from_name("cp1_joy"), sentence_from_name("cp1_neutral")
        ('cp1', 'cp1')
    """
    parts = [p for p in shot.replace("-", "_").split("_") if p]
    emotions = {"neutral", *rig.NVIDIA_EMOTIONS}
    words = [p for p in parts if p.lower() not in emotions]
    return "_".join(words) or shot


def emotion_from_name(shot: str) -> str:
    """Returns the first of NVIDIA's emotions that occurs in the shot's name, else "neutral"."""
    return next((e for e in rig.NVIDIA_EMOTIONS if e in shot.lower()), "neutral")


def read_emotion(
    path: Path, shot: str, entry: dict[str, Any], otherwise: str = ""
) -> tuple[np.ndarray, tuple[np.ndarray, np.ndarray] | None]:
    """Returns the emotion [5] of a shot, and (times [N] s, weights [N, 5]) if it changes.

    Args:
      path: path of the shot list, for messages.
      shot: name of the shot; gives the emotion if nothing else does.
      entry: entry of the shot in the list.
      otherwise: weights such as "happy=0.7" for shots whose list and name give none.

    Raises:
      InputError: unknown emotions or invalid weights.
    """
    try:
        if "emotion_track" in entry:
            times = np.asarray(entry["emotion_track"]["times"], np.float64)
            weights = np.asarray(entry["emotion_track"]["weights"], np.float64)
            if (
                times.ndim != 1
                or weights.shape != (len(times), rig.NUM_EMOTIONS)
                or not len(times)
                or not (np.diff(times) >= 0).all()
                or not np.isfinite(weights).all()
                or not (weights >= 0).all()
                or not (weights.sum(axis=1) > 0).all()
            ):
                raise InputError("emotion_track: expected rising times [N] and weights [N, 5] >= 0")
            weights = weights / weights.sum(axis=1, keepdims=True)
            return weights.mean(axis=0).astype(np.float32), (times, weights)
        if "emotion" in entry:
            given = entry["emotion"]
            given = {given: 1.0} if isinstance(given, str) else dict(given)
            return rig.emotion_vector({str(k): float(v) for k, v in given.items()}), None
    except (InputError, KeyError, TypeError, ValueError) as error:
        raise InputError(f"{path}: {shot}: {error}") from None
    named = emotion_from_name(shot)
    if named == "neutral" and otherwise:
        track = emotion.parse(otherwise)
        if track.constant:
            return track.weights[0].astype(np.float32), None
        return track.weights.mean(axis=0).astype(np.float32), (track.times, track.weights)
    return rig.emotion_vector(rig.NVIDIA_TO_EMOTION[named]), None
