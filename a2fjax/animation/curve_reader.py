"""Reads files of named curves of any tool: CSV, JSON, NumPy archives and text recordings.

What a file says is found by what it is, not by its form: names of channels in any spelling
(`columns`), values as weights or percent, times in seconds, milliseconds, timecodes or frame
numbers, and a rate. `json_records`, `text_records` and `text_files` read the forms.

Frames without a face (a count of 0, no values, null, NaN), without a time, or out of order in time
are left out, which leaves a gap in the times; the notes say how many. Columns that hold no channel
are left out and named.
"""

from __future__ import annotations

import dataclasses
from pathlib import Path

import numpy as np

from a2fjax import budgets, channel_orders
from a2fjax.animation import (
    columns,
    curve_rows,
    json_records,
    mouth_close,
    npz_records,
    row_times,
    row_values,
    text_files,
    text_records,
    tracks,
)
from a2fjax.animation.columns import Resolver
from a2fjax.animation.curve_rows import Rows
from a2fjax.errors import InputError

ENDINGS = (".npz", ".json", ".jsonl", ".csv", ".tsv", ".txt")
"""Kinds of files, best first."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class Curves:
    """The curves in a file.

    Attributes:
      motion: [F, 72] float32 in rig units.
      observed: [72] bool, the channels in the file.
      times: [F] s, increasing, or None if the file states neither times nor a rate.
      rows: [F] number of each frame, by its timecode, else in the file; frames left out leave
        gaps.
      lost_times: [L] s, or None as for `times`: frames that were left out for their values.
      lost_rows: [L] their numbers.
      fps: stated frames per second, 0 for none.
      columns: names of the columns of channels, as in the file.
      percent: whether the file's weights are percent.
      notes: what was left out, converted or assumed, as text.
    """

    motion: np.ndarray
    observed: np.ndarray
    times: np.ndarray | None
    rows: np.ndarray
    lost_times: np.ndarray | None = None
    lost_rows: np.ndarray = dataclasses.field(default_factory=lambda: np.zeros(0))
    fps: float = 0.0
    columns: tuple[str, ...] = ()
    percent: bool = False
    notes: tuple[str, ...] = ()

    def times_at(self, fps: float) -> np.ndarray:
        """Returns [F] s at a given rate: frame numbers divided by the rate, NTSC rates exact."""
        return self.rows / float(tracks.rate(fps))


def read(path: str | Path, resolver: Resolver | None = None) -> Curves:
    """Reads a file of named curves.

    Args:
      path: a file with one of `ENDINGS`.
      resolver: tells what columns hold; None for no settings.

    Raises:
      InputError: names the file, the line or frame, and the fault: damaged, an unknown or doubled
        column, a value that is not a number, weights out of range, no frame with a face, times
        that do not increase.
    """
    path, resolver = Path(path), resolver or Resolver()
    rows = read_rows(path, resolver)
    try:
        return _resolved(path, rows, resolver)
    except InputError as error:
        raise error if str(path) in str(error) else InputError(f"{path}: {error}") from None


def read_rows(path: Path, resolver: Resolver) -> Rows:
    """Reads the rows of a file without resolving them; see `read`."""
    kind = path.suffix.lower()
    if kind in (".json", ".jsonl"):
        return json_records.read(path, resolver)
    if kind == ".npz":
        return npz_records.read(path, resolver)
    if kind == ".txt":
        return text_records.read(path)
    return _read_csv(path, resolver)


def looks_like_curves(path: Path, resolver: Resolver) -> bool:
    """Returns whether a file seems to hold curves: a channel in its header, or a known form."""
    kind = path.suffix.lower()
    head = "" if kind == ".npz" else text_files.read_head(path)
    if kind in (".csv", ".tsv"):
        return any(map(resolver.is_name, text_files.split_header(head, resolver.is_name)[2]))
    if kind == ".txt":
        return text_records.recognise(head)
    if kind == ".npz":
        return True
    try:
        json_records.read(path, resolver)
    except InputError:
        return False
    return True


def _read_csv(path: Path, resolver: Resolver) -> Rows:
    table = text_files.read_table(path, resolver.is_name)
    header = table.header
    # A column without a name and without values is a separator too many.
    empty = [
        i for i, name in enumerate(header) if not name and not any(r[i].strip() for r in table.rows)
    ]
    clocks = [i for i, name in enumerate(header) if resolver.is_clock(name)]
    clock_names = [header[i] for i in clocks]
    repeated = next((n for k, n in enumerate(clock_names) if n in clock_names[:k]), None)
    if repeated is not None:
        raise InputError(f"{path}: column {repeated!r} appears twice")
    flags = [i for i, name in enumerate(header) if columns.is_flag(name)]
    used = [i for i in range(len(header)) if i not in {*clocks, *flags, *empty}]
    names = [header[i] for i in used]
    # Columns that will be left out may hold text.
    numeric = [i for i in used if resolver.is_name(header[i])]
    values = np.full((len(table.rows), len(used)), np.nan)
    values[:, [used.index(i) for i in numeric]] = table.numbers(numeric)
    seen = None
    for i in flags:
        visible = np.array([curve_rows.flag(row[i]) for row in table.rows])
        seen = visible if seen is None else seen & visible
    where = [f"{path}:{line}" for line in table.lines]
    return Rows(
        names=names,
        values=values,
        seen=seen,
        lines=where,
        percent=any(columns.is_percent(header[i]) for i in numeric),
        **curve_rows.clocks(where, {header[i]: [r[i] for r in table.rows] for i in clocks}),
    )


def _resolved(path: Path, rows: Rows, resolver: Resolver) -> Curves:
    count = len(rows.values)
    if not count:
        raise InputError(f"{path}: has no frames")
    budgets.check("frames_millions", count / 1e6, path)
    used, holds, omitted = resolver.resolve(rows.names)
    if resolver.map is None:
        # Head rotation has no channel: frames need not have it.
        kept = [i for i, n in enumerate(holds) if channel_orders.column(n).channel is not None]
        used, holds = [used[i] for i in kept], [holds[i] for i in kept]
    if not used:
        raise InputError(f"{path}: holds no channel of the rig")
    notes = [*rows.notes]
    if omitted:
        shown = ", ".join(omitted[:8]) + (", ..." if len(omitted) > 8 else "")
        notes.append(f"columns without a channel left out: {shown}")
    values = rows.values[:, used]
    seen = np.ones(count, bool) if rows.seen is None else rows.seen
    ordered, times, more = row_times.in_order(path, rows, count)
    notes += more
    face, valued, more = row_values.complete_rows(path, values, seen, holds)
    notes += more
    keep = ordered & face
    if not keep.any():
        raise InputError(f"{path}: no face was tracked in any of its {count} rows")
    values = np.where(valued, values, 0.0)[keep]
    values, percent = row_values.to_weights(
        path, values, holds, rows, np.flatnonzero(keep), resolver
    )
    notes += [percent] if percent else []
    if resolver.map is not None:
        order = [holds.index(source) for source in resolver.map.sources]
        motion, observed, more = resolver.map.apply(values[:, order])
        notes += more
    else:
        motion = channel_orders.from_names(values, holds)[0]
        recorded = valued if rows.observed is None else valued & rows.observed[used]
        names = [name for name, here in zip(holds, recorded, strict=True) if here]
        observed = channel_orders.from_names(np.zeros((1, len(names))), names)[1]
        if not observed.any():
            raise InputError(f"{path}: holds no channel of the rig")
    if rows.mouth_close != "arkit":
        motion = mouth_close.to_rig(motion, rows.mouth_close)
        notes.append(f"mouthClose of {rows.mouth_close}'s convention converted to the rig's")
    numbers = np.arange(count, dtype=np.float64) if rows.numbers is None else rows.numbers
    if times is not None and rows.timecodes is not None:
        # Rows that the file lacks count as frames; rows that it repeats do not.
        numbers = np.full(count, np.nan)
        numbers[ordered] = row_times.frame_numbers(times[ordered])
    if times is None and rows.fps:
        times = numbers / float(tracks.rate(rows.fps))
    return Curves(
        motion=motion,
        observed=observed,
        times=None if times is None else times[keep],
        rows=numbers[keep],
        lost_times=None if times is None else times[ordered & ~face],
        lost_rows=numbers[ordered & ~face],
        fps=rows.fps,
        columns=tuple(rows.names[i] for i in used),
        percent=bool(percent),
        notes=tuple(notes),
    )
