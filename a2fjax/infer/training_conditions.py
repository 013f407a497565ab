"""Compares what a prediction is given with the conditions of the model's training.

The statistics are constants of the checkpoint; a model without them, such as one built by hand,
accepts everything.
"""

from __future__ import annotations

import logging
from collections.abc import Mapping
from typing import Any

import numpy as np

from a2fjax import mesh_descriptor, rig
from a2fjax.audio import sound_descriptor
from a2fjax.data import records
from a2fjax.data.identity import alignment
from a2fjax.models import familiarity

_log = logging.getLogger("a2fjax")


class TrainingConditions:
    """People, emotions and sound of a training set."""

    def __init__(self, constants: Mapping[str, Any]) -> None:
        """Takes the statistics from the constants of `tasks.statistics.constants`."""
        self._constants = {name: np.asarray(value) for name, value in constants.items()}
        self._said: set[str] = set()

    def like_training(
        self, mesh: tuple[np.ndarray, np.ndarray | None], name: str
    ) -> tuple[np.ndarray, np.ndarray]:
        """Returns a mesh turned and cropped as the training meshes; logs what is unlike them.

        Args:
          mesh: vertices [V, 3] and faces [F, 3] or None.
          name: of the mesh, for the warning.

        Raises:
          InputError: not a mesh.
        """
        faces = np.zeros((0, 3), np.int32) if mesh[1] is None else mesh[1]
        vertices, faces = records.check_mesh(mesh[0], faces, name=name)
        bounds = self._constants.get("identity_bounds")
        if bounds is None or bounds[0] >= familiarity.UNBOUNDED:
            return vertices, faces
        mean = self._constants["identity_mean"][: mesh_descriptor.WIDTH]
        deviation = self._constants["identity_deviation"]

        def distance(described: np.ndarray) -> float:
            return float(familiarity.distance(described, mean, deviation))

        aligned = alignment.align(vertices, faces, distance, float(bounds[0]))
        counts = float(familiarity.weight(np.float64(aligned.distance), bounds))
        words = [f"is {change} to be like the meshes of the training" for change in aligned.changes]
        if counts < 1:
            effect = f"counts {100 * counts:.0f} %" if counts else "is ignored: mean identity"
            words.append(
                f"is unlike the people of the training (distance {aligned.distance:.1f}, expected "
                f"at most {bounds[0]:.1f}) and {effect}"
            )
            if not len(faces):
                words.append(
                    "has no faces, so that each vertex counts alike: give an .obj, .ply or .npz "
                    "file with faces"
                )
        if words:
            self.say(f"{name}: {'; '.join(words)}")
        return aligned.vertices, aligned.faces

    def known_emotion(self, emotion: np.ndarray) -> np.ndarray:
        """Returns emotion [T, 5] in which emotions that the training lacks become its mean."""
        share = self._constants.get("emotion_share")
        if share is None:
            return emotion
        unknown = share <= 0
        lost = emotion[:, unknown].sum(axis=1, keepdims=True)
        if not lost.any():
            return emotion
        names = [rig.EMOTIONS[e] for e in np.flatnonzero(unknown & (emotion > 0).any(axis=0))]
        has = ", ".join(rig.EMOTIONS[e] for e in np.flatnonzero(~unknown))
        self.say(
            f"emotion {', '.join(names)}: not in the training data, the mean of its emotions is "
            f"used; expected one of: {has}"
        )
        return np.asarray(np.where(unknown, 0.0, emotion) + lost * share, np.float32)

    def sound_distance(self, levels: np.ndarray, speech_level: float) -> float:
        """Returns the distance of a recording from the training's clips, relative to the bound.

        Args:
          levels: [frames, bands] from `sound_descriptor.band_levels`.
          speech_level: RMS of the speech.

        Returns:
          More than 1 is unlike the training; 0 without statistics or sound.
        """
        bounds = self._constants.get("sound_bounds")
        described = sound_descriptor.describe(levels, speech_level)
        if bounds is None or described is None:
            return 0.0
        mean, deviation = (self._constants[f"sound_{name}"] for name in ("mean", "deviation"))
        return float(familiarity.distance(described, mean, deviation) / bounds[0])

    def check_sound(self, levels: np.ndarray, speech_level: float, name: str) -> None:
        """Logs a warning for a recording that sounds unlike the training; see `sound_distance`."""
        ratio = self.sound_distance(levels, speech_level)
        if ratio > 1:
            self.say(
                f"{name}: sounds unlike the training data ({ratio:.1f} times the distance of its "
                "farthest clips): another microphone, band, noise or no speech?"
            )

    def say(self, text: str) -> None:
        """Logs a warning once."""
        if text not in self._said:
            self._said.add(text)
            _log.warning("warning: %s", text)
