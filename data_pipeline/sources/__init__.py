"""Capture sources: the protocol that a build reads from, and the on-disk layouts that implement it.

A source lists actors and their takes cheaply and reads the capture of a take on request: moving
vertices or curves, with real-valued times. It only reads and checks; alignment, solving and splits
happen elsewhere.

A layout is a module with two functions:

    recognise(path: Path) -> str | None           reason why the folder has this layout, or None
    open_source(path: Path, options: SourceOptions) -> Source

Other packages can register further layouts (docs/extending.md):

    from a2fjax import registry

    registry.sources.register("my_layout", "my_package.source")

Example:
    >>> from data_pipeline import sources
    >>> sources.layout_names()
    ['nvidia', 'livelink', 'beat', 'vertices', 'meshes', 'table']
"""

from __future__ import annotations

import dataclasses
import unicodedata
from pathlib import Path
from typing import Protocol

import numpy as np

from a2fjax import registry
from a2fjax.animation.columns import ColumnSettings
from a2fjax.errors import InputError, nearest
from data_pipeline.mesh.blendshapes import Blendshapes as Blendshapes
from data_pipeline.mesh.geometry import Vertices
from data_pipeline.sources.file_names import AUDIO_SUFFIXES as AUDIO_SUFFIXES
from data_pipeline.sources.file_names import find_audio as find_audio

LAYOUTS = ("nvidia", "livelink", "beat", "vertices", "meshes", "table")
"""Built-in layouts in the order in which "auto" tries them: from the most specific to the least."""

for _name in LAYOUTS:
    _module = "tables" if _name == "table" else _name
    registry.sources.register(_name, f"data_pipeline.sources.{_module}")


@dataclasses.dataclass(frozen=True, kw_only=True)
class SourceOptions:
    """Information about a capture that the user supplies because its files lack it.

    Attributes:
      fps: frame rate of captures; 0 uses the rate stated in the files.
      subject: name of the actor; "" uses the name of the folder.
      language: BCP-47 code for takes that state none; "" for unknown.
      emotion: weights such as "happy=0.7,sad=0.3" for takes that state none; "" for neutral.
      units: units of vertices: "mm", "cm", "m", whatever the files state; "auto" uses the files,
        shots.json, the rig, then the head's size (`person_face`).
      axes: the capture's axes that point to the person's left, up and out of the face, each with
        its sign, whatever the files state: "+x+y+z" for the rig's axes, "+x+z-y" for a capture with
        z up; "auto" uses the files, then the rig.
      animation: name of the animation, array or channel to read from files that hold several; ""
        for the one named like the take, else the longest.
      mouth_close: "arkit" (mouthClose is relative to an open jaw), "nvidia" (it includes
        jawOpen), or "auto" (detected from the shapes).
      rig: file or folder of a template rig (see `rigs.read_rig`) for actors without
        blendshapes; its topology must match their meshes.
      missing_audio: "reject" leaves out takes without an audio file; "silence" treats them as
        performed in silence.
      columns: what the columns of curve files hold, where their names do not say it.
    """

    fps: float = 0.0
    subject: str = ""
    language: str = ""
    emotion: str = ""
    units: str = "auto"
    axes: str = "auto"
    animation: str = ""
    mouth_close: str = "auto"
    rig: str = ""
    missing_audio: str = "reject"
    columns: ColumnSettings = dataclasses.field(default_factory=ColumnSettings)


@dataclasses.dataclass(frozen=True, kw_only=True)
class Take:
    """A recorded performance, before it is read.

    Attributes:
      subject: name of the actor.
      name: name, unique for the subject.
      audio: audio file, or a video with sound; None for a take performed in silence.
      data: the files with motion; a folder represents all files in it.
      sentence: key of the spoken sentence; equal keys never cross splits.
      language: BCP-47 code or "".
      emotion: [5] on `rig.EMOTIONS`, constant.
      emotion_track: None, or (times [N] in s on the audio clock, weights [N, 5]) instead.
      slate: whether the take holds lip pops for alignment instead of speech.
      synthetic: whether the take is generated rather than recorded from a person.
      held_out: True or False if the capture states it; None leaves it to the draw.
      fps: rate of the capture; 0 if the motion's file has times.
      text: transcript, if known.
      offset: audio time minus capture time in s if the files state it (timecodes), else None.
    """

    subject: str
    name: str
    audio: Path | None
    data: tuple[Path, ...]
    sentence: str
    language: str
    emotion: np.ndarray
    emotion_track: tuple[np.ndarray, np.ndarray] | None = None
    slate: bool = False
    synthetic: bool = False
    held_out: bool | None = None
    fps: float = 0.0
    text: str = ""
    offset: float | None = None

    def __post_init__(self) -> None:
        """Checks that names and texts can be encoded.

        Raises:
          InputError: a name has control characters or is not Unicode (file names on Linux may be
            any bytes); the message names the first file.
        """
        for name in (self.subject, self.name):
            if escape_unprintable(name) != name:
                raise InputError(
                    f"{escape_unprintable(str(self.data[0]))}: its name has characters that "
                    "cannot be written; rename it"
                )
        for key in ("sentence", "language", "text"):
            if not _encodable(getattr(self, key)):
                raise InputError(f"{self.data[0]}: its {key} is not Unicode: half a character")


@dataclasses.dataclass(frozen=True, kw_only=True)
class Capture:
    """The motion of a take: moving vertices, curves, or both.

    Attributes:
      times: [F] seconds on the capture's clock, increasing; missing frames leave a gap.
      skin: [F, V, 3] in the files' unit and axes, or None; coordinates of vertices (or frames)
        that dropped out are NaN.
      tongue: the same for the tongue.
      millimetres: one unit of skin and tongue in mm if their files state it; 0 for the unit of the
        blendshapes.
      axes: [3, 3] signed permutation to right-handed axes if the files state them; None for the
        axes of the blendshapes.
      curves: [F, 72] in rig units, NaN in frames without a face, or None.
      observed: [72] mask of the channels in `curves`, or None.
      eyes: [F, 4] degrees, rig order, NaN where unknown, or None.
      notes: decisions made while reading, as text.
    """

    times: np.ndarray
    skin: Vertices | None = None
    tongue: Vertices | None = None
    millimetres: float = 0.0
    axes: np.ndarray | None = None
    curves: np.ndarray | None = None
    observed: np.ndarray | None = None
    eyes: np.ndarray | None = None
    notes: tuple[str, ...] = ()


@dataclasses.dataclass(frozen=True, kw_only=True)
class Actor:
    """An actor and their takes.

    Attributes:
      name: subject id.
      takes: takes, in order of their names.
      files: the actor's files that belong to no take (rig, neutral mesh, shot list).
      rejected: (take, reason) for each take that could not be listed.
    """

    name: str
    takes: tuple[Take, ...]
    files: tuple[Path, ...] = ()
    rejected: tuple[tuple[str, str], ...] = ()

    def __post_init__(self) -> None:
        """Escapes unprintable characters in the names and reasons of rejected takes."""
        escaped = tuple(
            (escape_unprintable(take), escape_unprintable(reason)) for take, reason in self.rejected
        )
        object.__setattr__(self, "rejected", escaped)
        if not self.takes:  # names of takes were checked
            object.__setattr__(self, "name", escape_unprintable(self.name))


class Source(Protocol):
    """A set of captures; picklable, so that worker processes can read their share.

    Attributes:
      layout: registered name of the layout.
      path: folder of the captures.
    """

    layout: str
    path: Path

    def actors(self) -> list[Actor]:
        """Returns the actors, sorted by name."""

    def capture(self, take: Take) -> Capture:
        """Returns the motion of a take.

        Raises:
          InputError: a file is missing, damaged or of the wrong shape.
        """

    def blendshapes(self, actor: str, part: str) -> Blendshapes | None:
        """Returns the blendshapes of "skin" or "tongue", or None if the actor has none.

        Raises:
          InputError: the file is damaged or names unknown shapes.
        """

    def mesh(self, actor: str) -> tuple[np.ndarray, np.ndarray] | None:
        """Returns the neutral mesh (vertices [V, 3], faces [F, 3]), or None if there is none.

        It is in the unit of the files and the axes of the rig.

        Raises:
          InputError: the file is damaged.
        """


def layout_names() -> list[str]:
    """Returns the registered layouts in the order in which "auto" tries them.

    Plugin layouts come first, because built-in layouts are permissive: one accepts any table of
    curves beside an audio file.
    """
    return [*(name for name in registry.sources.names() if name not in LAYOUTS), *LAYOUTS]


def check_layout(layout: str) -> None:
    """Checks a value of `--layout`.

    Raises:
      InputError: the layout is neither "auto" nor registered; suggests the nearest and says how to
        register one.
    """
    if layout != "auto":
        registry.sources.get(layout, where="--layout: ")


def open_source(path: str | Path, layout: str, options: SourceOptions) -> tuple[Source, str]:
    """Opens a folder of captures; returns the source and the reason for its layout, as text.

    Args:
      path: the folder.
      layout: a registered layout, or "auto" to recognise it.
      options: information about the capture supplied by the user.

    Raises:
      InputError: there is no such folder, the layout is unknown, or no layout recognises it.
    """
    path = Path(path)
    if not path.is_dir():
        problem = "is not a folder" if path.exists() else "does not exist"
        siblings = [str(p) for p in path.parent.iterdir()] if path.parent.is_dir() else []
        raise InputError(f"{path} {problem}{nearest(str(path), siblings[:200])}")
    if escape_unprintable(str(path)) != str(path):
        raise InputError(
            f"{escape_unprintable(str(path))}: has characters that cannot be written; rename it"
        )
    if layout != "auto":
        check_layout(layout)
        return _open(layout, path, options), "as asked for"
    for name in layout_names():
        reason = registry.sources.get(name).load().recognise(path)
        if reason:
            return _open(name, path, options), reason
    raise InputError(
        f"{path}: no known layout: expected folders of actors with audio/ and cache/skin/ "
        "(nvidia), Live Link Face recordings (livelink), BEAT (beat), vertex arrays (vertices), "
        "folders of OBJ or PLY, USD or glTF (meshes), or named curves beside sound files (table)"
    )


def _open(layout: str, path: Path, options: SourceOptions) -> Source:
    source: Source = registry.sources.get(layout).load().open_source(path, options)
    if source.layout != layout:
        # Content keys depend on the code that implements the layout.
        raise InputError(
            f"layout {layout!r}: its source says layout={source.layout!r}, expected {layout!r}"
        )
    return source


def escape_unprintable(text: str) -> str:
    """Returns text on one line with unencodable and unprintable characters escaped."""
    return "".join(
        c if unicodedata.category(c) not in ("Cc", "Cs", "Zl", "Zp") else ascii(c)[1:-1]
        for c in text
    )


def _encodable(text: str) -> bool:
    return not any("\ud800" <= c <= "\udfff" for c in text)
