"""Decides where a person's neutral, unit, axes and topology come from: one order for all layouts.

What is first in this list and exists is used; the notes of the face say what it was.

neutral   a file of it; the person's own rig; the still mesh of a USD or glTF file; an estimate from
          frames at rest
unit      --config.units; what the take's file states (USD, glTF); shots.json; what the rig states;
          the size of the head
axes      --config.axes; what the take's file states (USD, glTF); a comparison with the template, or
          the names of the person's own shapes; x to the person's left, y up, z out of the face
topology  the rig; every take is compared with the neutral before it is solved (`mesh.topology`)
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from pathlib import Path

import numpy as np

from a2fjax.errors import InputError
from data_pipeline.mesh import blendshapes, topology
from data_pipeline.mesh.blendshapes import Blendshapes
from data_pipeline.mesh.conventions import MILLIMETRES, guess_units
from data_pipeline.mesh.rigs import Rig
from data_pipeline.sources import SourceOptions
from data_pipeline.sources.shot_list import read_shot_list

SETTING = "--config.units"
"""Origin of a unit that the user gives."""

HEAD_MM = (50.0, 3000.0)
"""Diagonal of the smallest and the largest mesh of a person: a part of a face, a body."""


def given_unit(options: SourceOptions, shots: Path | None) -> tuple[str, str]:
    """Returns the unit that the user or a shots.json gives, and which of them; or "" and ""."""
    if options.units != "auto":
        return options.units, SETTING
    listed = read_shot_list(shots).units if shots else ""
    return listed, str(shots) if listed else ""


@dataclasses.dataclass(frozen=True, kw_only=True)
class PlacedMesh:
    """A mesh and what is known about it.

    Attributes:
      vertices: [V, 3].
      origin: where it is from, as text.
      millimetres: one unit of it in mm; 0 if no file states it.
      states_axes: whether its file states the axes.
    """

    vertices: np.ndarray
    origin: str
    millimetres: float = 0.0
    states_axes: bool = False


@dataclasses.dataclass(frozen=True, kw_only=True)
class PersonFiles:
    """The files of a person, and what is known about them.

    Attributes:
      name: name of the person, for messages.
      rig_file: the rig.
      is_own: whether the rig belongs to the person; else it is a template.
      unit: "mm", "cm", "m", or "" if neither the user nor shots.json gives it.
      unit_origin: which of them gives it.
      neutral: the file of the neutral, or None.
      still: the still mesh of a take's file, or None.
      sample: a frame of a take, or None.
      estimate: returns a neutral estimated from frames at rest, in mm; raises InputError.
      stable: indices of the vertices that only move with the head, or None to detect them.
      head_unit: unit of the skin's rig, for the tongue's, whose size does not say it.
      part: "skin" or "tongue".
    """

    name: str
    rig_file: Path
    is_own: bool
    unit: str = ""
    unit_origin: str = ""
    neutral: PlacedMesh | None = None
    still: PlacedMesh | None = None
    sample: PlacedMesh | None = None
    estimate: Callable[[], PlacedMesh] | None = None
    stable: np.ndarray | None = None
    head_unit: str = ""
    part: str = "skin"


def make_face(rig: Rig, files: PersonFiles, *, axes: str, mouth_close: str) -> Blendshapes:
    """Returns the blendshapes of a person.

    Args:
      rig: the contents of `files.rig_file`.
      files: see `PersonFiles`.
      axes: "auto" or see `conventions.parse_axes`.
      mouth_close: see `sources.SourceOptions`.

    Raises:
      InputError: there is no neutral, or it does not fit the rig.
    """
    rig = dataclasses.replace(rig, units=rig_unit(rig, files))
    neutral = files.neutral
    if neutral is None and not files.is_own:
        neutral = files.still
        if neutral is None and files.estimate is not None:
            neutral = files.estimate()
    unit, vertices = files.unit or "auto", None
    if neutral is not None:
        vertices, scale = neutral.vertices, neutral.millimetres
        unit = next((u for u, mm in MILLIMETRES.items() if mm == scale), "auto")
        if scale and unit == "auto":
            vertices, unit = vertices * scale, "mm"
    face = blendshapes.make_blendshapes(
        rig,
        neutral=vertices,
        units=unit,
        axes=axes,
        mouth_close=mouth_close,
        stable=files.stable,
        part=files.part,
        name=f"{files.name}: {files.rig_file}",
    )
    _check_size(face, files)
    if files.unit:
        face = dataclasses.replace(face, millimetres=MILLIMETRES[files.unit])
    return dataclasses.replace(face, notes=(*_notes(face, rig, files, neutral), *face.notes))


def rig_unit(rig: Rig, files: PersonFiles) -> str:
    """Returns the unit of a rig: the stated one, else that in which it has the size of the takes.

    Args:
      rig: the contents of `files.rig_file`.
      files: see `PersonFiles`.
    """
    neutral, sample, guess = rig.neutral, files.sample, guess_units(rig.neutral)
    if rig.units:
        return rig.units
    if files.part != "skin":
        return files.head_unit or files.unit or guess
    if not files.is_own:
        return guess
    if sample is None or sample.vertices.shape != neutral.shape:
        return files.unit or guess
    known = sample.millimetres or MILLIMETRES.get(files.unit, 0.0)
    ratio = topology.size_ratio(sample.vertices, neutral)
    for unit, scale in MILLIMETRES.items():
        if 0.8 < ratio * known / scale < 1.25 and _is_head(_diagonal(neutral) * scale):
            return unit
    return guess


def _check_size(face: Blendshapes, files: PersonFiles) -> None:
    size = _diagonal(face.neutral)
    if files.part == "skin" and not _is_head(size):
        unit = f" in {files.unit} ({files.unit_origin})" if files.unit else ""
        raise InputError(
            f"{files.name}: {files.rig_file}: the neutral is {size:.4g} mm across{unit}, expected "
            f"{HEAD_MM[0]:g} to {HEAD_MM[1]:g} mm: give another --config.units"
        )


def _is_head(diagonal: float) -> bool:
    return HEAD_MM[0] < diagonal < HEAD_MM[1]


def _diagonal(mesh: np.ndarray) -> float:
    return float(np.linalg.norm(np.ptp(mesh, axis=0)))


def _notes(
    face: Blendshapes, rig: Rig, files: PersonFiles, neutral: PlacedMesh | None
) -> list[str]:
    whose = "the person's own rig" if files.is_own else "the template rig"
    origin = neutral.origin if neutral is not None else f"that of {files.rig_file}, {whose}"
    names = {mm: name for name, mm in MILLIMETRES.items()}
    unit = names[face.millimetres]
    why = "as in the rig" if neutral is None else "judged by the size of the neutral mesh"
    if files.unit_origin:
        why = f"given by {files.unit_origin}"
    stated = files.sample.millimetres if files.sample is not None else 0.0
    if stated and files.unit_origin != SETTING:
        unit, why = names.get(stated, f"{stated:g} mm"), "stated by the take's file"
    notes = [
        f"{files.part}: neutral mesh: {origin}",
        f"{files.part}: unit of the takes: {unit}, {why}; unit of the rig: {rig.units}",
        f"{files.part}: topology: {len(face.neutral)} vertices, in the order of {files.rig_file}",
    ]
    if files.sample is not None and files.sample.states_axes:
        notes.append(f"{files.part}: axes of the takes: stated by the take's file")
    return notes
