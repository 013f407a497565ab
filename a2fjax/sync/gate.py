"""Measures an expert and the linear one on held-out sentences and held-out people.

The linear expert is fitted in the same call to the training split that the expert was trained on;
both count the same windows. Intervals are of the bootstrap over people.
"""

from __future__ import annotations

import dataclasses
import itertools
import math
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from a2fjax import rig
from a2fjax.batch import Batch
from a2fjax.data.dataset import ClipSource
from a2fjax.errors import InputError
from a2fjax.metrics import bootstrap
from a2fjax.metrics.sums import Sums, merge
from a2fjax.sync import bars, clips, linear, measures
from a2fjax.sync.clips import CHANNEL_SETS, Take
from a2fjax.sync.expert import Expert
from a2fjax.sync.heard import Heard

SPLITS = (bars.SENTENCES, bars.PEOPLE)
RESAMPLES = 1000
POOL = 64
"""Windows of earlier people kept for comparison, most."""

Say = Callable[[str], None]


@dataclasses.dataclass
class _Clip:
    person: str
    emotion: str
    language: str
    sums: dict[str, Sums]


@dataclasses.dataclass
class _Pool:
    """Windows' audio of other clips, by expert."""

    pieces: dict[str, np.ndarray]

    def add(self, expert: Expert, heard: np.ndarray) -> None:
        known = self.pieces.get(expert.name, heard[:0])
        self.pieces[expert.name] = np.concatenate([known, heard])[-POOL:]


def fit_linear(
    folders: Sequence[str | Path], split: str, *, say: Say = lambda line: None
) -> linear.LinearExpert:
    """Fits the linear expert to a training split, thinned out to `linear.MOST_FRAMES`.

    Raises:
      InputError: no such split, or too little in it.
    """
    source = ClipSource(folders, split)
    share = min(1.0, linear.MOST_FRAMES / max(int(source.frames.sum()), 1))
    people = clips.People(source)
    most = max(len(source) // max(len(people.names()), 1), 1)
    people.most = max(math.ceil(share * most), 2) if share < 1 else len(source)
    say(f"fitting the linear expert to {len(people.names())} people of {split}")
    return linear.fit((take.batch, take.statistics) for _, found in people for take in found)


def measure_split(
    experts: Sequence[Expert],
    source: ClipSource,
    *,
    heard: Heard | None = None,
    seed: int = 0,
    resamples: int = RESAMPLES,
    say: Say = lambda line: None,
) -> dict[str, Any]:
    """Returns the measures of experts on the clips of one split.

    Args:
      experts: the judged one, then the linear one.
      source: the clips.
      heard: what the judged expert was trained on, which is left out; None if nobody knows.
      seed: of noise and bootstrap.
      resamples: draws of the bootstrap.
      say: called with each line of progress.

    Returns:
      "people", "clips", "windows" and "without_speech" (counts, ids), "skipped"; "heard": None, or
      {"people", "clips"} left out because the expert was trained on them (names, count); by expert
      name ("expert", "linear") the row of shares; "interval" and "linear_interval", and
      "difference" (expert less linear) by share, None for fewer than two people; "by_person",
      "by_emotion", "by_language" rows of the expert; "channels" and "altered" rows of the expert
      by set and alteration; "linear_altered"; "curve" {"offset_ms", "expert", "linear"}.

    Raises:
      InputError: no clip with speech, or none that the expert has not heard.
    """
    known = None if heard is None else _left_out(heard, source, say)
    reach = max(expert.audio_reach for expert in experts)
    left_out = [] if known is None else [i for found in known.values() for i in found]
    people = clips.People(source, left_out=frozenset(left_out))
    names = ["expert", "linear"][: len(experts)]
    measured: list[_Clip] = []
    silent: list[str] = []
    pool = _Pool({})
    before: Take | None = None
    total = len(people.names())
    for number, (person, takes) in enumerate(people):
        say(f"{source.split}: person {number + 1} of {total}")
        other = before if before is not None else (takes[-1] if len(takes) > 1 else None)
        for take in takes:
            masks = {
                window: measures.counted(
                    take.batch, take.statistics, window, reach, max(measures.SHIFTS)
                )
                for window in measures.WINDOWS
            }
            if not masks[measures.WINDOWS[0]].any():
                silent.append(take.id)
                continue
            sums = {
                name: _clip_sums(expert, take, other, masks, reach, pool, seed)
                for name, expert in zip(names, experts, strict=True)
            }
            measured.append(_Clip(person, take.emotion, take.language, _flat(sums)))
        before = takes[0]
    if not measured:
        raise InputError(
            f"no clip with speech and motion in split {source.split!r} of "
            f"{', '.join(source.folders)}; expected at least one"
        )
    found = _summary(measured, names, seed, resamples)
    windows = sum(float(c.sums["expert"][f"{measures.WIN_KEYS[0]}/n"]) for c in measured)
    return {
        "people": len({c.person for c in measured}),
        "clips": len(measured),
        "windows": int(windows),
        "without_speech": silent,
        "skipped": people.skipped,
        "heard": None if known is None else {"people": sorted(known), "clips": len(left_out)},
        **found,
    }


def _left_out(heard: Heard, source: ClipSource, say: Say) -> dict[str, list[int]]:
    """Returns `Heard.left_out`, and says so."""
    found = heard.left_out(source)
    count = sum(map(len, found.values()))
    if count:
        people = f"{len(found)} {'person' if len(found) == 1 else 'people'}"
        who = f"{people}, such as {next(iter(found))!r}"
        if count == len(source):
            raise InputError(
                f"{', '.join(source.folders)}: the expert was trained on all clips or people of "
                f"split {source.split!r} ({who}); expected data that it has not heard"
            )
        say(f"{source.split}: left out {count} clips that the expert was trained on ({who})")
    return found


def _flat(sums: Mapping[str, Mapping[str, Sums]]) -> dict[str, Sums]:
    """Returns rows by "expert", "expert/altered/noise", ... of nested ones."""
    return {
        name if not row else f"{name}/{row}": values
        for name, rows in sums.items()
        for row, values in rows.items()
    }


def _clip_sums(
    expert: Expert,
    take: Take,
    other: Take | None,
    masks: dict[int, np.ndarray],
    reach: int,
    pool: _Pool,
    seed: int,
) -> dict[str, Sums]:
    vectors = expert.embed(take.batch, take.statistics)
    own = measures.win_sums(expert, vectors, masks)
    # Sound beyond the clip's ends may be missing: few clips have 0.24 s more on both sides.
    long = measures.counted(take.batch, take.statistics, measures.LONG, 0, measures.SEARCH)
    own |= measures.offset_sums(expert, vectors, long)
    wide = measures.WINDOWS[-1]
    piece = measures.pieces(expert, vectors, masks[wide], wide)
    known = pool.pieces.get(expert.name, piece[0][:0])
    own |= measures.auc_sums(expert, piece, known)
    pool.add(expert, piece[0])
    rows = {"": own}

    def row(batch: Batch) -> Sums:
        return measures.win_sums(expert, expert.embed(batch, take.statistics), masks)

    for name, batch in altered(take, other, seed).items():
        rows[f"altered/{name}"] = row(batch)
    observed = np.flatnonzero(take.batch.channel_mask[0])
    for name, chosen in CHANNEL_SETS.items():
        if len(np.intersect1d(observed, chosen)):
            rows[f"channels/{name}"] = row(clips.only_channels(take, chosen))
    return rows


def altered(take: Take, other: Take | None, seed: int) -> dict[str, Batch]:
    """Returns altered copies of a clip by name; "other_person" only where there is another clip."""
    out = {
        "reversed": clips.reversed_motion(take),
        "halved": clips.halved_motion(take),
        "upper_face": clips.only_channels(take, rig.GROUPS["upper_face"]),
        "noise": clips.noise_with_envelope(take, seed),
    }
    if other is not None and other.id != take.id:
        out["other_person"] = clips.other_motion(take, other)
    return out


def _summary(
    measured: Sequence[_Clip], names: Sequence[str], seed: int, resamples: int
) -> dict[str, Any]:
    by_person = {name: _of_people(measured, name) for name in names}
    out: dict[str, Any] = {}
    for name in names:
        out[name] = _row(merge(by_person[name]))
        interval = bootstrap.intervals(
            by_person[name], measures.values, seed=seed, resamples=resamples
        )
        out["interval" if name == "expert" else f"{name}_interval"] = interval
    if len(names) > 1:
        out["difference"] = bootstrap.differences(
            by_person["linear"], by_person["expert"], measures.values,
            seed=seed, resamples=resamples,
        )  # fmt: skip
    for kind in ("person", "emotion", "language"):
        groups: dict[str, list[Sums]] = {}
        for clip in measured:
            groups.setdefault(getattr(clip, kind), []).append(clip.sums["expert"])
        out[f"by_{kind}"] = {key: _row(merge(group)) for key, group in sorted(groups.items())}
    for kind, owner, label in (
        ("altered", "expert", "altered"),
        ("channels", "expert", "channels"),
        ("altered", "linear", "linear_altered"),
    ):
        rows: dict[str, list[Sums]] = {}
        for clip in measured:
            for key, sums in clip.sums.items():
                if key.startswith(f"{owner}/{kind}/"):
                    rows.setdefault(key.rsplit("/", 1)[1], []).append(sums)
        out[label] = {key: _row(merge(group)) for key, group in rows.items()}
        if label == "altered":
            out["altered_interval"] = {
                key: bootstrap.intervals(
                    _of_people(measured, f"expert/altered/{key}"), measures.values,
                    seed=seed, resamples=resamples,
                )
                for key in rows
            }  # fmt: skip
    curves = {name: merge(by_person[name]) for name in names}
    search = measures.SEARCH
    out["curve"] = {"offset_ms": [20 * k for k in range(-search, search + 1)]}
    for name, sums in curves.items():
        if sums["curve/n"] > 0:
            mean = sums["curve/sum"] / sums["curve/n"]
            out["curve"][name] = [float(v) for v in mean]
    return out


def _of_people(measured: Sequence[_Clip], name: str) -> list[Sums]:
    """Returns a row's sums of each person that has it."""
    people = itertools.groupby(measured, key=lambda c: c.person)
    each = [[c.sums[name] for c in group if name in c.sums] for _, group in people]
    return [merge(sums) for sums in each if sums]


def _row(sums: Sums) -> dict[str, float | None]:
    return {
        key: float(value) if np.isfinite(value) else None
        for key, value in measures.values(sums).items()
    }
