"""What can be built from: one small protocol, and a module for each layout on disk.

A source lists actors and their takes cheaply, then gives the capture of a take when asked: moving
vertices or curves with real-valued times. It reads and checks; it decides nothing about alignment,
solving or splits.
"""

from __future__ import annotations

import dataclasses
import importlib
import unicodedata
from pathlib import Path
from typing import Protocol

import numpy as np

from a2fjax.errors import InputError, nearest
from data_pipeline.mesh.geometry import Vertices

LAYOUTS = {
    "nvidia": "data_pipeline.sources.nvidia",
    "livelink": "data_pipeline.sources.livelink",
    "vertices": "data_pipeline.sources.vertices",
    "meshes": "data_pipeline.sources.meshes",
    "table": "data_pipeline.sources.tables",
}
"""Module by layout, in the order in which "auto" tries them; each has `recognise(path) -> str |
None` (why it is one, in words) and `open_source(path, options) -> Source`."""


AUDIO_SUFFIXES = (".wav", ".flac", ".ogg", ".mp3", ".m4a", ".mp4", ".mov")
"""Where a take's sound is looked for, best first."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class SourceOptions:
    """What the user knows about a capture that its files do not say.

    Attributes:
      fps: frames a second of captures; 0 takes what the files say.
      subject: name of the person; "" takes the folder's.
      language: BCP-47 code for takes that do not say; "" for unknown.
      emotion: weights such as "happy=0.7,sad=0.3" for takes that do not say; "" for neutral.
      units: of vertices: "mm", "cm", "m"; "auto" goes by what the files say, by the template rig,
        else by the head's size.
      axes: which of the capture's axes point to the person's left, up and out of the face, each
        with its sign: "+x+y+z" is the rig's own, "+x+z-y" a capture with z up; "auto" goes by what
        the files say, else by the template rig.
      mouth_close: "arkit" (mouthClose is relative to an open jaw), "nvidia" (it includes
        jawOpen), or "auto" (seen from the shapes).
      rig: file or folder of a template rig (see `rigs.read`) for people without shapes of their
        own; its topology must be theirs.
      missing_audio: "reject" leaves out takes without a sound file; "silence" takes them as
        performed in silence.
    """

    fps: float = 0.0
    subject: str = ""
    language: str = ""
    emotion: str = ""
    units: str = "auto"
    axes: str = "auto"
    mouth_close: str = "auto"
    rig: str = ""
    missing_audio: str = "reject"


@dataclasses.dataclass(frozen=True, kw_only=True)
class Take:
    """One recorded performance, before it is read.

    Attributes:
      subject: who.
      name: unique for the subject.
      audio: the sound file (or a film with a sound track); None where the take was performed in
        silence.
      data: the files with motion; a folder stands for all files in it.
      sentence: key of what is said; equal keys never cross splits.
      language: BCP-47 code or "".
      emotion: [5] on `rig.EMOTIONS`, constant.
      emotion_track: None, or (times [N] in s on the audio clock, weights [N, 5]) instead.
      slate: lip pops for alignment, not speech.
      synthetic: no person was recorded.
      held_out: True or False where the capture says; None leaves it to the draw.
      fps: rate of the capture; 0 where the motion's file has its own times.
      text: what is said, if known.
      offset: audio time minus capture time in s where the files say it (timecodes), else None.
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
        """Checks that its words can be written.

        Raises:
          InputError: a name with control characters, or one that is not Unicode (file names on
            Linux are any bytes); names the first file.
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
      times: [F] seconds on the capture's clock, increasing; frames that are missing leave a hole.
      skin: [F, V, 3] in the files' unit and axes, or None; coordinates of vertices (or frames)
        that dropped out are NaN.
      tongue: the same of the tongue.
      curves: [F, 72] in rig units, or None.
      observed: [72] channels that `curves` holds, or None.
      eyes: [F, 4] degrees, rig order, or None.
      notes: what was decided in reading, in words.
    """

    times: np.ndarray
    skin: Vertices | None = None
    tongue: Vertices | None = None
    curves: np.ndarray | None = None
    observed: np.ndarray | None = None
    eyes: np.ndarray | None = None
    notes: tuple[str, ...] = ()


@dataclasses.dataclass(frozen=True, kw_only=True)
class Blendshapes:
    """Neutral mesh and named shapes of a part (skin or tongue) of an actor.

    Attributes:
      neutral: [V, 3] mm.
      deltas: [K, V, 3] mm.
      channels: [K] names in `rig.CHANNELS`.
      keep: [M] indices of the vertices to solve on.
      stable: [N] indices for rigid motion, or None to find them.
      millimetres: in one unit of the capture's files.
      notes: what was decided, in words.
      axes: [3, 3] signed permutation: a point p of the capture's files is `millimetres * axes @ p`
        in the rig's axes.
      transferred: the shapes are another head's, carried over to this neutral.
    """

    neutral: np.ndarray
    deltas: np.ndarray
    channels: tuple[str, ...]
    keep: np.ndarray
    stable: np.ndarray | None
    millimetres: float
    notes: tuple[str, ...] = ()
    axes: np.ndarray = dataclasses.field(default_factory=lambda: np.eye(3))
    transferred: bool = False


@dataclasses.dataclass(frozen=True, kw_only=True)
class Actor:
    """A person and the takes of them.

    Attributes:
      name: subject id.
      takes: in order of their names.
      files: all that belongs to the person and no take (rig, neutral mesh, shot list).
      rejected: (take, reason) of what listing already had to leave out.
    """

    name: str
    takes: tuple[Take, ...]
    files: tuple[Path, ...] = ()
    rejected: tuple[tuple[str, str], ...] = ()

    def __post_init__(self) -> None:
        """Makes names and reasons of what is left out readable, whatever bytes files are named."""
        said = tuple(
            (escape_unprintable(take), escape_unprintable(reason)) for take, reason in self.rejected
        )
        object.__setattr__(self, "rejected", said)
        if not self.takes:  # those of takes were checked
            object.__setattr__(self, "name", escape_unprintable(self.name))


class Source(Protocol):
    """A set of captures; picklable, so that worker processes can read their part of it."""

    layout: str
    path: Path

    def actors(self) -> list[Actor]:
        """Returns everyone in the set, sorted by name."""

    def capture(self, take: Take) -> Capture:
        """Returns the motion of a take.

        Raises:
          InputError: a file is missing, damaged or of the wrong shape.
        """

    def face(self, actor: str, part: str) -> Blendshapes | None:
        """Returns the shapes of "skin" or "tongue", or None where the actor has none.

        Raises:
          InputError: the file is damaged or names unknown shapes.
        """

    def mesh(self, actor: str) -> tuple[np.ndarray, np.ndarray] | None:
        """Returns the neutral mesh (vertices [V, 3], faces [F, 3]), or None where there is none.

        The unit is the files', the axes are the rig's.

        Raises:
          InputError: the file is damaged.
        """


def open_source(path: str | Path, layout: str, options: SourceOptions) -> tuple[Source, str]:
    """Opens a folder of captures; returns the source and, in words, why it is of that layout.

    Args:
      path: the folder.
      layout: of `LAYOUTS`, or "auto" to recognise it.
      options: see there.

    Raises:
      InputError: no such folder, unknown layout, or one that nothing recognises.
    """
    path = Path(path)
    if not path.is_dir():
        what = "is not a folder" if path.exists() else "does not exist"
        near = [str(p) for p in path.parent.iterdir()] if path.parent.is_dir() else []
        raise InputError(f"{path} {what}{nearest(str(path), near[:200])}")
    if escape_unprintable(str(path)) != str(path):
        raise InputError(
            f"{escape_unprintable(str(path))}: has characters that cannot be written; rename it"
        )
    if layout != "auto":
        if layout not in LAYOUTS:
            raise InputError(f"--layout {layout!r}{nearest(layout, [*LAYOUTS, 'auto'])}")
        source = importlib.import_module(LAYOUTS[layout]).open_source(path, options)
        return source, "as asked for"
    for module in LAYOUTS.values():
        loaded = importlib.import_module(module)
        reason = loaded.recognise(path)
        if reason:
            return loaded.open_source(path, options), reason
    raise InputError(
        f"{path}: no known layout: expected folders of actors with audio/ and cache/skin/ "
        "(nvidia), Live Link Face recordings (livelink), vertex arrays (vertices), folders of OBJ "
        "or PLY, USD or glTF (meshes), or named curves beside sound files (table)"
    )


def escape_unprintable(text: str) -> str:
    """Returns text in one line that can be written: what cannot is escaped."""
    return "".join(
        c if unicodedata.category(c) not in ("Cc", "Cs", "Zl", "Zp") else ascii(c)[1:-1]
        for c in text
    )


def _encodable(text: str) -> bool:
    return not any("\ud800" <= c <= "\udfff" for c in text)


def find_audio(folder: Path, stem: str) -> Path | None:
    """Returns the sound file of that stem in a folder, WAV first and films last, or None."""
    for suffix in AUDIO_SUFFIXES:
        for name in (f"{stem}{suffix}", f"{stem}{suffix.upper()}"):
            if (folder / name).is_file():
                return folder / name
    return None
