"""Settings of a build: a flat set of values, each given as --config.<name>=<value>."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Mapping
from typing import Any, TypeVar

from a2fjax import configuration
from a2fjax.animation import columns
from a2fjax.errors import InputError
from a2fjax.sync.offsets import LARGEST_SEARCH
from data_pipeline.quality.thresholds import Thresholds
from data_pipeline.sources import SourceOptions
from data_pipeline.sources.file_names import composed

_Part = TypeVar("_Part", SourceOptions, Thresholds)


@dataclasses.dataclass(frozen=True, kw_only=True)
class BuildSettings(Thresholds, SourceOptions):
    """Settings of a build, including source options and quality thresholds.

    Attributes:
      offset: audio time minus capture time of every take, s; "auto" to estimate it.
      clock: "actor" (one offset for all takes of an actor) or "take" (one per take).
      drift: "correct" removes certain drift of the clocks, "report" only reports it; a take whose
        lips are then off by more than `most_lip_error` is quarantined.
      largest_offset: larger estimates are not used, s.
      least_confidence: minimum confidence of an offset from speech; below it 0 s is assumed.
      sync: run folder of a sync expert that finds takes out of step; "" for none.
      sync_offset: "report" tells what the expert finds, "fix" also moves the takes, "off" does not
        ask it.
      sync_search: offsets searched by the expert, s.
      sync_largest: larger offsets are told and not applied, s.
      sync_confidence: minimum confidence of an offset that is applied.
      sync_unchecked: whether an expert may be used that did not pass its gate.
      l2, l1, smoothness, symmetry: weights of the solver, mm^2; see `solve.SolveSettings`.
      exclusive: whether at most one of two opposite shapes (jawLeft and jawRight) is above zero.
      outlier_mm: residuals of vertices are limited to this; 0 trusts every vertex.
      seed: seed of the splits.
      val, test: expected shares of sentences.
      val_sentences, test_sentences: sentence keys of these splits, instead of a draw.
      held_out: names of the actors kept out of training, instead of a draw.
      held_out_share: expected share of actors drawn.
      segment_seconds: longer takes are cut into clips of at most this length, in pauses.
      files: number of shard files; 0 for one per about 64 MB.
      plugins: packages to import that register capture layouts.
    """

    offset: str = "auto"
    clock: str = "actor"
    drift: str = "correct"
    largest_offset: float = 0.25
    least_confidence: float = 0.5
    sync: str = ""
    sync_offset: str = "report"
    sync_search: float = 0.6
    sync_largest: float = 0.2
    sync_confidence: float = 0.9
    sync_unchecked: bool = False
    l2: float = 0.05
    l1: float = 0.2
    smoothness: float = 1.0
    symmetry: float = 0.0
    exclusive: bool = True
    outlier_mm: float = 2.0
    seed: int = 0
    val: float = 0.06
    test: float = 0.10
    val_sentences: tuple[str, ...] = ()
    test_sentences: tuple[str, ...] = ()
    held_out: tuple[str, ...] = ()
    held_out_share: float = 0.08
    segment_seconds: float = 20.0
    files: int = 0
    plugins: tuple[str, ...] = ()

    def source_options(self) -> SourceOptions:
        """Returns the source options."""
        return self._part(SourceOptions)

    def thresholds(self) -> Thresholds:
        """Returns the quality thresholds."""
        return self._part(Thresholds)

    def _part(self, kind: type[_Part]) -> _Part:
        return kind(**{f.name: getattr(self, f.name) for f in dataclasses.fields(kind)})

    def given_offset(self) -> float | None:
        """Returns the given offset in s, or None if it must be estimated."""
        return None if self.offset == "auto" else float(self.offset)


_POSITIVE = ("segment_seconds", "largest_offset", "sync_largest")
_NOT_NEGATIVE = (
    *"fps l2 l1 smoothness symmetry outlier_mm val test held_out_share least_confidence".split(),
    "files",
    *(f.name for f in dataclasses.fields(Thresholds)),
)
_PATHS = ("rig", "columns.map", "plugins", "sync")
_STRINGS = ("offset", "subject", "language", "emotion", "axes", "animation", "rig", "sync")
CHOICES = {
    "units": ("auto", "mm", "cm", "m"),
    "mouth_close": ("auto", "arkit", "nvidia"),
    "missing_audio": ("reject", "silence"),
    "clock": ("actor", "take"),
    "drift": ("correct", "report"),
    "sync_offset": ("report", "fix", "off"),
}


def read_settings(overrides: Mapping[str, str]) -> BuildSettings:
    """Returns the settings for values in command-line syntax.

    Example:
        >>> read_settings({"val_sentences": "s1,s2", "offset": "0.04"}).val_sentences
        ('s1', 's2')

    Raises:
      InputError: unknown name, or a value of the wrong kind or range.
    """
    values: dict[str, Any] = {}
    for key, text in overrides.items():
        if key not in _PATHS:
            text = composed(text)  # as the names of takes are
        group, dot, name = key.partition(".")
        if not dot:
            keep = key in _STRINGS or key in CHOICES
            values[key] = text if keep else configuration.parse_value(text)
        elif isinstance(values.setdefault(group, {}), dict):
            values[group][name] = _column_value(name, text)
    for key in ("val_sentences", "test_sentences", "held_out"):
        if isinstance(values.get(key), (int, float)):
            values[key] = str(overrides[key])  # a name that happens to be a number
    settings = configuration.build(BuildSettings, values, where="config")
    for key in _POSITIVE:
        if not getattr(settings, key) > 0:
            raise InputError(f"config: {key}={getattr(settings, key)!r}: expected more than 0")
    for key in _NOT_NEGATIVE:
        if not getattr(settings, key) >= 0:
            raise InputError(f"config: {key}={getattr(settings, key)!r}: expected at least 0")
    for key, choices in CHOICES.items():
        if getattr(settings, key) not in choices:
            raise InputError(
                f"config: {key}={getattr(settings, key)!r}: expected one of: {', '.join(choices)}"
            )
    if settings.columns.units not in columns.UNITS:
        raise InputError(
            f"config: columns.units={settings.columns.units!r}: expected one of: "
            f"{', '.join(columns.UNITS)}"
        )
    if not settings.sync_largest < settings.sync_search <= LARGEST_SEARCH:
        raise InputError(
            f"config: sync_search={settings.sync_search:g}: expected more than "
            f"sync_largest={settings.sync_largest:g} and at most {LARGEST_SEARCH:g} s"
        )
    if not 0 <= settings.sync_confidence <= 1:
        raise InputError(
            f"config: sync_confidence={settings.sync_confidence:g}: expected from 0 to 1"
        )
    if settings.segment_seconds < 2:
        raise InputError(f"config: segment_seconds={settings.segment_seconds:g}: expected >= 2")
    if settings.val + settings.test >= 1 or settings.held_out_share >= 1:
        raise InputError("config: val + test and held_out_share must leave something to train on")
    if settings.offset != "auto":
        try:
            seconds = float(settings.offset)
        except ValueError:
            seconds = math.nan
        if not abs(seconds) < 10:
            raise InputError(f"config: offset={settings.offset!r}: expected auto or seconds")
    return settings


def _column_value(name: str, text: str) -> Any:
    """Returns a value of the group `columns`: names may be written without quotes."""
    value = configuration.parse_value(text)
    inner = text.strip().strip("{}[]")
    if name == "rename" and isinstance(value, str):
        pairs = [pair.partition(":") for pair in inner.split(",") if pair.strip()]
        if not all(colon and new.strip() for _, colon, new in pairs):
            raise InputError(
                f"config: columns.rename={text!r}: expected {{old:new,...}}, such as "
                "{JawDrop:jawOpen}"
            )
        return {_unquoted(old): _unquoted(new) for old, _, new in pairs}
    if name == "ignore" and not isinstance(value, (list, tuple)):
        return [_unquoted(part) for part in inner.split(",") if part.strip()]
    if name in ("rename", "ignore"):
        return value
    return text


def _unquoted(text: str) -> str:
    return text.strip().strip("\"'").strip()
