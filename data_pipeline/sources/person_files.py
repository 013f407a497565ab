"""Collects what a person's files say about neutral, unit and axes, for every layout of folders."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Sequence
from pathlib import Path

from data_pipeline.mesh import rigs
from data_pipeline.sources import SourceOptions
from data_pipeline.sources.neutral import (
    Opener,
    estimate_from_takes,
    read_vertex_list,
    sample_mesh,
)
from data_pipeline.sources.person_face import PersonFiles, PlacedMesh, given_unit, rig_unit
from data_pipeline.sources.sequences import MotionFile


@dataclasses.dataclass(frozen=True, kw_only=True)
class PersonPlaces:
    """Where a layout keeps the files of a person.

    Attributes:
      name: name of the person.
      options: the user's settings.
      shots: the shots.json, or None.
      skin_rig: the rig of the skin, or None.
      is_own: whether the rig of a part in a file belongs to the person.
      vertex_list: returns the list of a part's vertices that only move with the head, or None.
      neutral: returns the neutral of the skin that a file holds, or None.
      takes: open the takes.
      first: returns a take with this number of vertices, or any, or None; see `first_motion`.
      hint: added to the origin of an estimated neutral.
    """

    name: str
    options: SourceOptions
    shots: Path | None
    skin_rig: Path | None
    is_own: Callable[[Path, str], bool]
    vertex_list: Callable[[str], Path | None]
    neutral: Callable[[], PlacedMesh | None]
    takes: Sequence[Opener]
    first: Callable[[int], MotionFile | None]
    hint: str = ""


def person_files(places: PersonPlaces, path: Path, rig: rigs.Rig, part: str) -> PersonFiles:
    """Returns what is known of the files of a person.

    Args:
      places: where the files are.
      path: file of the part's rig.
      rig: its contents.
      part: "skin" or "tongue".

    Raises:
      InputError: a file is damaged.
    """
    unit, unit_origin = given_unit(places.options, places.shots)
    listed = places.vertex_list(part)
    files = PersonFiles(
        name=places.name,
        rig_file=path,
        is_own=places.is_own(path, part),
        unit=unit,
        unit_origin=unit_origin,
        stable=None if listed is None else read_vertex_list(listed, len(rig.neutral)),
        part=part,
    )
    if part != "skin":
        if places.skin_rig is None:
            return files
        head = rigs.read_rig(places.skin_rig)
        head_files = person_files(places, places.skin_rig, head, "skin")
        return dataclasses.replace(files, head_unit=rig_unit(head, head_files))
    first, still = places.first(len(rig.neutral)), None
    if first is not None and first.rest is not None:
        still = PlacedMesh(
            vertices=first.rest,
            millimetres=first.millimetres,
            origin=f"the still mesh in {first.name}",
        )

    def estimate() -> PlacedMesh:
        found = estimate_from_takes(places.takes, rig, name=places.name, unit=unit)
        return dataclasses.replace(found, origin=found.origin + places.hint)

    return dataclasses.replace(
        files, neutral=places.neutral(), still=still, sample=sample_mesh(first), estimate=estimate
    )
