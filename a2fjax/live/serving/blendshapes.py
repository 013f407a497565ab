"""Multipliers, offsets and clamping that a client asks for: w * multiplier + offset."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from a2fjax.errors import InputError


class Blendshapes:
    """Applies a client's parameters to weights.

    Attributes:
      unknown: names that are no blend shape of ours.
    """

    def __init__(self, names: Sequence[str], given: Any):
        """Reads the parameters.

        Args:
          names: of the weights, in order.
          given: NVIDIA's BlendShapeParameters; names in any case.

        Raises:
          InputError: a value that is not a finite number.
        """
        index = {name.lower(): i for i, name in enumerate(names)}
        self._gain, self._offset = np.ones(len(names)), np.zeros(len(names))
        self._clamps = bool(given.enable_clamping_bs_weight)
        self._plain = True
        self.unknown: list[str] = []
        for field, target in (
            ("bs_weight_multipliers", self._gain),
            ("bs_weight_offsets", self._offset),
        ):
            for name, value in sorted(getattr(given, field).items()):
                if not np.isfinite(value) or abs(value) > 100:
                    raise InputError(f"{field}.{name}={value:g}: expected -100 to 100")
                if name.lower() in index:
                    target[index[name.lower()]] = value
                    self._plain = False
                else:
                    self.unknown.append(f"{field}.{name}")

    def __call__(self, weights: np.ndarray) -> np.ndarray:
        """Returns weights [N] with the parameters applied."""
        if self._plain:
            return weights
        out = weights * self._gain + self._offset
        return np.clip(out, 0.0, 1.0) if self._clamps else out
