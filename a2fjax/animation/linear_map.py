"""Linear maps from the channels of another rig to the rig's, as JSON.

    {"sources": ["expression0", ...], "targets": ["jawOpen", ...],
     "weights": [[0.1, ...], ...]}            one row for each target, one number for each source

A target is the weighted sum of the sources, clipped to its range. `weights` may also be
{target: {source: weight}}; what is not named is 0. FLAME-to-ARKit matrices, for example, are the
pseudo-inverse of the 51 x 103 ARKit-to-FLAME matrix that the authors of BEAT2 publish
(`mat_final.npy`), with the sources expression0 to expression99 and jaw0 to jaw2.
"""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

import numpy as np

from a2fjax import rig
from a2fjax.animation import text_files
from a2fjax.errors import InputError, nearest

KEYS = ("sources", "targets", "weights")


@dataclasses.dataclass(frozen=True)
class LinearMap:
    """A linear map to channels of the rig.

    Attributes:
      sources: [S] names of the input channels.
      targets: [T] names in `rig.CHANNELS`.
      weights: [T, S], target = sum of weight * source.
      name: the file, for messages.
    """

    sources: tuple[str, ...]
    targets: tuple[str, ...]
    weights: np.ndarray
    name: str

    @classmethod
    def read(cls, path: str | Path) -> LinearMap:
        """Reads a map.

        Raises:
          InputError: missing file, missing or doubled names, a target that is no channel, or
            weights of another shape or not finite.
        """
        data = text_files.read_json(Path(path))
        if not isinstance(data, dict):
            raise InputError(f"{path}: expected an object with sources, targets and weights")
        for key in data:
            if key not in KEYS:
                raise InputError(f"{path}: unknown key {key!r}{nearest(key, KEYS)}")
        sources, targets = (_names(path, data, key) for key in KEYS[:2])
        channels = []
        for target in targets:
            try:
                channels.append(rig.CHANNELS[rig.channel_index(target)])
            except InputError as error:
                raise InputError(f"{path}: targets: {error}") from None
        if len(set(channels)) < len(channels):
            raise InputError(f"{path}: a target appears twice")
        weights = _weights(path, data.get("weights"), sources, targets)
        if not weights.any():
            raise InputError(f"{path}: all weights are 0")
        return cls(sources, tuple(channels), weights, str(path))

    def apply(self, values: np.ndarray) -> tuple[np.ndarray, np.ndarray, list[str]]:
        """Maps sources [F, S] in the map's order.

        Returns:
          Motion [F, 72] float32 clipped to the rig's ranges, the mask [72] of targets with a weight
          above or below 0, and notes about what the map does to these values.
        """
        index = [rig.INDEX[t] for t in self.targets]
        motion = np.zeros((len(values), rig.NUM_CHANNELS), np.float32)
        motion[:, index] = values @ self.weights.T
        observed = np.zeros(rig.NUM_CHANNELS, bool)
        observed[index] = self.weights.any(axis=1)
        clipped = rig.clip(motion)
        driven = clipped[:, observed] != motion[:, observed]
        notes = [
            f"{len(self.sources)} columns mapped to {int(observed.sum())} channels by {self.name}"
        ]
        if driven.any():
            worst = int(np.argmax(driven.mean(axis=0)))
            name = np.array(rig.CHANNELS)[observed][worst]
            notes.append(
                f"{driven.mean():.1%} of the mapped values were outside their range and are "
                f"clipped, {name} most often ({driven[:, worst].mean():.0%})"
            )
        return clipped, observed, notes


def _names(path: str | Path, data: dict[str, Any], key: str) -> tuple[str, ...]:
    names = data.get(key)
    if not isinstance(names, list) or not names or not all(isinstance(n, str) for n in names):
        raise InputError(f"{path}: {key}: expected a list of names")
    repeated = next((n for i, n in enumerate(names) if n in names[:i]), None)
    if repeated is not None:
        raise InputError(f"{path}: {key}: {repeated!r} appears twice")
    return tuple(names)


def _weights(
    path: str | Path, given: Any, sources: tuple[str, ...], targets: tuple[str, ...]
) -> np.ndarray:
    shape = (len(targets), len(sources))
    if isinstance(given, dict):
        rows = np.zeros(shape)
        for target, row in given.items():
            if target not in targets:
                raise InputError(f"{path}: weights: {target!r}{nearest(target, targets)}")
            if not isinstance(row, dict):
                raise InputError(f"{path}: weights of {target!r}: expected sources with weights")
            for source, weight in row.items():
                if source not in sources:
                    raise InputError(
                        f"{path}: weights of {target!r}: {source!r}{nearest(source, sources)}"
                    )
                rows[targets.index(target), sources.index(source)] = _number(path, target, weight)
        return rows
    try:
        weights = np.asarray(given, np.float64)
    except (TypeError, ValueError):
        weights = np.zeros(0)
    if weights.shape != shape:
        turned = " (they are transposed)" if weights.shape == shape[::-1] else ""
        raise InputError(
            f"{path}: weights have shape {weights.shape}, expected {shape}: a row for each target, "
            f"a number for each source{turned}"
        )
    if not np.isfinite(weights).all():
        row = int(np.argwhere(~np.isfinite(weights))[0][0])
        raise InputError(f"{path}: weights of {targets[row]!r} are not finite")
    return weights


def _number(path: str | Path, target: str, value: Any) -> float:
    if isinstance(value, bool) or not isinstance(value, (int, float)) or not np.isfinite(value):
        raise InputError(f"{path}: weights of {target!r}: {value!r}: expected a finite number")
    return float(value)
