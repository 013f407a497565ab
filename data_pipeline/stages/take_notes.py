"""Collects the notes of all takes of each subject."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

_MOST = 50  # notes of a subject


def notes_of(summaries: Sequence[Mapping[str, Any]]) -> dict[str, list[str]]:
    """Returns the notes by subject, each once; a note that not all takes have names its takes.

    Args:
      summaries: "subject", "take" and "notes" of each take.

    Example:
        >>> takes = [{"subject": "a", "take": f"a/{n}", "notes": ["72 shapes"]} for n in "123"]
        >>> takes[1]["notes"] = ["72 shapes", "2 frames without eyes"]
        >>> notes_of(takes)
        {'a': ['72 shapes', '2 frames without eyes (take 2)']}
    """
    takes: dict[str, list[str]] = {}
    by_subject: dict[str, dict[str, list[str]]] = {}
    for summary in summaries:
        subject = summary["subject"]
        name = summary["take"].removeprefix(f"{subject}/")
        takes.setdefault(subject, []).append(name)
        for note in dict.fromkeys(summary["notes"]):
            by_subject.setdefault(subject, {}).setdefault(note, []).append(name)
    return {subject: _listed(notes, takes[subject]) for subject, notes in by_subject.items()}


def _listed(notes: Mapping[str, Sequence[str]], takes: Sequence[str]) -> list[str]:
    lines = []
    for note, of in list(notes.items())[:_MOST]:
        more = f" and {len(of) - 1} more" if len(of) > 1 else ""
        lines.append(note if len(of) == len(takes) else f"{note} (take {of[0]}{more})")
    rest = len(notes) - _MOST
    return [*lines, f"and {rest} other notes of single takes"] if rest > 0 else lines
