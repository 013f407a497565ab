"""Optional inputs of an evaluation: phone alignments, a face and a judge of lip sync.

Alignments are files in a folder (`metrics.phones.alignment`), named as the clip: for the clip
"anna/take_3#1", the first segment after a cut, `anna/take_3#1.TextGrid`, or `anna/take_3.TextGrid`
for the whole take, whose times are then shifted by the segment's start. Where no other person has a
take of this name, the file may also lie in the folder without "anna/". English clips without a file
whose text is known are aligned by PocketSphinx if the extra `phones` is installed.
"""

from __future__ import annotations

import collections
import dataclasses
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path

from a2fjax.data import records
from a2fjax.errors import InputError
from a2fjax.evaluation.judge import Judge
from a2fjax.metrics import face as face_lib
from a2fjax.metrics.phones import aligner, alignment
from a2fjax.metrics.phones.alignment import Phone
from a2fjax.metrics.reference import Reference

AUTO = "auto"
"""In place of a folder: all clips are aligned by PocketSphinx."""


@dataclasses.dataclass(frozen=True)
class Beside:
    """Alignments, a face and a judge.

    Attributes:
      files: alignment file by clip id.
      training_files: the same of training clips.
      align: align clips without a file.
      face: face for metrics of vertices; None for none.
      judge: judge of lip sync; None for none.
    """

    files: Mapping[str, Path] = dataclasses.field(default_factory=dict)
    training_files: Mapping[str, Path] = dataclasses.field(default_factory=dict)
    align: bool = False
    face: face_lib.Face | None = None
    judge: Judge | None = None

    def reference(self, clip: records.Clip, truth: Reference) -> Reference:
        """Returns the reference of a clip with its phones and the face.

        Raises:
          InputError: a damaged alignment.
        """
        return dataclasses.replace(truth, phones=self.phones(clip), face=self.face)

    def phones(self, clip: records.Clip) -> tuple[Phone, ...]:
        """Returns the phones of a clip; empty if they are unknown.

        Raises:
          InputError: a damaged alignment.
        """
        return self._phones(clip, self.files)

    def training_phones(self, clip: records.Clip) -> tuple[Phone, ...]:
        """Returns the phones of a training clip; as `phones`."""
        return self._phones(clip, self.training_files)

    def _phones(self, clip: records.Clip, files: Mapping[str, Path]) -> tuple[Phone, ...]:
        if clip.id in files:
            found, whole = _read(clip.id, files[clip.id])
            return _shifted(found, float(clip.extra.get("start_s", 0.0)) if whole else 0.0)
        text = clip.extra.get("text")
        if self.align and isinstance(text, str) and is_english(clip.language):
            return aligner.align(clip.audio, text)
        return ()


def load(
    phones: str | Path | None,
    face: str | Path | None,
    ids: Iterable[str],
    *,
    training: Iterable[str] = (),
    say: Callable[[str], None] = lambda line: None,
) -> Beside:
    """Returns what stands beside clips, without a judge.

    Args:
      phones: folder of alignments, `AUTO`, or None for no phones.
      face: file of a head, see `metrics.face`; None for no metrics of vertices.
      ids: ids of the clips to evaluate.
      training: ids of training clips, whose alignments are used where the folder has them.
      say: called with one line about the clips without an alignment.

    Raises:
      InputError: no such folder or file, a folder without an alignment of any clip, or a damaged
        alignment of one.
    """
    own = None if face is None else face_lib.read(face)
    if phones is None:
        return Beside(face=own)
    ids = list(ids)
    files, known = {}, {}
    if str(phones) != AUTO:
        files = find(phones, ids)
        known = _matched(_alignments(Path(phones)), list(training), beside=ids)
    out = Beside(files, known, aligner.is_installed(), own)
    for name, path in files.items():
        _read(name, path)  # Report damaged files before the long work.
    rest = len(set(ids)) - len(files)
    if rest:
        how = (
            "those in English whose text is known are aligned by PocketSphinx"
            if out.align
            else "skipped; pip install 'a2fjax[phones]' aligns those in English"
        )
        say(f"phones: {rest} of {len(set(ids))} clips without an alignment: {how}")
    return out


def find(folder: str | Path, ids: Iterable[str]) -> dict[str, Path]:
    """Returns the alignment file of each clip that has one; see the module.

    Raises:
      InputError: no such folder, or no alignment of any clip in it.
    """
    folder, ids = Path(folder), sorted(set(ids))
    if not folder.is_dir():
        raise InputError(
            f"phones {folder}: no such folder; expected one of alignments, or {AUTO!r}"
        )
    known = _alignments(folder)
    out = _matched(known, ids)
    if not out:
        have = f"{next(iter(known))!r} and others" if known else "none"
        raise InputError(
            f"phones {folder}: no alignment is named as a clip (alignments: {have}); expected "
            f"{ids[0] if ids else 'CLIP'}.TextGrid, .ctm or .phone.json"
        )
    return out


def _alignments(folder: Path) -> dict[str, Path]:
    """Returns the alignments of a folder by name without ending."""
    known: dict[str, Path] = {}
    for path in sorted(folder.rglob("*")):
        suffix = next((s for s in alignment.SUFFIXES if path.name.endswith(s)), None)
        if suffix and path.is_file():
            name = path.relative_to(folder).as_posix().removesuffix(suffix)
            known.setdefault(name, path)
    return known


def _matched(
    known: Mapping[str, Path], ids: Sequence[str], beside: Sequence[str] = ()
) -> dict[str, Path]:
    """Returns the file of each clip that has one; a take's name is also the clips' of `beside`."""
    people = collections.defaultdict(set)
    for clip in (*ids, *beside):
        person, _, take = clip.partition("/")
        people[take.partition("#")[0]].add(person)
    out = {}
    for clip in ids:
        take = clip.partition("/")[2] or clip
        alone = len(people[take.partition("#")[0]]) <= 1
        for name in (clip, take * alone, clip.partition("#")[0], take.partition("#")[0] * alone):
            if name in known:
                out[clip] = known[name]
                break
    return out


def _read(name: str, path: Path) -> tuple[tuple[Phone, ...], bool]:
    """Returns the alignment in a clip's file, and whether it is that of the uncut take."""
    whole = "#" in name and "#" not in path.name
    return alignment.read(path, name.partition("#")[0] if whole else name), whole


def is_english(language: str) -> bool:
    """Returns whether a BCP-47 code is one of English.

    Example:
        >>> is_english("en-GB"), is_english("enm")
        (True, False)
    """
    return language.lower().partition("-")[0] == "en"


def _shifted(phones: tuple[Phone, ...], start: float) -> tuple[Phone, ...]:
    if not start:
        return phones
    return tuple(
        Phone(max(p.start - start, 0.0), p.end - start, p.label) for p in phones if p.end > start
    )
