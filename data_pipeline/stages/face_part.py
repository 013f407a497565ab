"""Prepares the blendshapes of a face for the solver."""

from __future__ import annotations

import dataclasses
import hashlib
import json

import numpy as np

from data_pipeline.mesh import geometry
from data_pipeline.solver.reduce import Reducer
from data_pipeline.sources import Blendshapes

_MAX_STABLE = 400  # vertices
_SCANNER_MM = 0.1  # scanner noise assumed when deciding observability
_PRIOR = 0.25  # standard deviation of a weight


@dataclasses.dataclass(frozen=True)
class FacePart:
    """A part of a face (skin or tongue) prepared for the solver.

    Attributes:
      shapes: its blendshapes.
      stable: [N] indices of the vertices used to estimate head motion.
      reducer: reduces frames to the terms that the solver needs.
      observed: [K] shapes whose weights a capture of this head determines.
      notes: decisions, as text.
      digest: digest of all arrays that results depend on.
    """

    shapes: Blendshapes
    stable: np.ndarray
    reducer: Reducer
    observed: np.ndarray
    notes: tuple[str, ...]
    digest: str


def prepare_part(shapes: Blendshapes, name: str, outlier_mm: float) -> FacePart:
    """Returns a part of a face prepared for the solver.

    Args:
      shapes: its blendshapes.
      name: "skin" or "tongue".
      outlier_mm: see `BuildSettings`.
    """
    stable = shapes.stable
    if stable is None:
        stable = geometry.stable_vertices(shapes.neutral, shapes.deltas)
        # A few hundred spread-out vertices determine the six parameters to below scanner noise.
        stable = stable[:: -(-len(stable) // _MAX_STABLE)]
    reducer = Reducer(shapes.deltas[:, shapes.keep], outlier_mm=outlier_mm)
    # Standard deviation of a weight given one noisy frame: a capture does not determine shapes
    # that hardly move anything or duplicate the motion of others.
    precision = reducer.gram / _SCANNER_MM**2 + np.eye(len(shapes.channels)) / _PRIOR**2
    observed = np.sqrt(np.diag(np.linalg.inv(precision))) < 0.6 * _PRIOR
    hidden = [
        c for c, is_observed in zip(shapes.channels, observed, strict=True) if not is_observed
    ]
    note = f"{name}: head motion from {len(stable)} vertices, solved on {len(shapes.keep)}"
    if hidden:
        note += f", not observable: {', '.join(hidden)}"
    digest = hashlib.sha256(json.dumps([shapes.channels, shapes.millimetres]).encode())
    for array in (shapes.neutral, shapes.deltas, shapes.keep, stable, shapes.axes):
        digest.update(np.ascontiguousarray(array).tobytes())
    return FacePart(
        shapes, stable, reducer, observed, (*shapes.notes, note), digest.hexdigest()[:32]
    )
