"""Reads NumPy archives of named values: a table, the names of its columns, and a rate or times."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from a2fjax import archives
from a2fjax.animation import columns, curve_rows, mouth_close
from a2fjax.animation.columns import Resolver
from a2fjax.animation.curve_rows import Rows
from a2fjax.errors import InputError

_SMPLX = {"jaw": 66, "left_eye": 69, "right_eye": 72}
"""First column of a joint's axis-angle rotation in `poses` [T, 165] of SMPL-X: joints 22 to 24."""


def load_npz(path: Path) -> dict[str, np.ndarray]:
    """Returns the arrays of a NumPy archive.

    Raises:
      InputError: missing, damaged, not an archive of plain arrays, or beyond the budgets.
    """
    with archives.load_npz(path) as data:
        return dict(data)


def read(path: Path, resolver: Resolver) -> Rows:
    """Reads a table [frames, columns] with the names of its columns, whatever the arrays' names.

    An archive with the arrays `expressions` and `poses` of SMPL-X, as in BEAT2, has the columns
    expression0, ... and, in radians, jaw0 to jaw2, left_eye0 to 2 and right_eye0 to 2.
    """
    arrays = load_npz(path)
    names, values = _table_of(path, arrays, resolver)
    fps = 0.0
    clocks = {n: values[:, i].tolist() for i, n in enumerate(names) if resolver.is_clock(n)}
    clock = curve_rows.clocks([str(path)] * len(values), clocks)
    kept = [i for i, name in enumerate(names) if name not in clocks]
    names, values = [names[i] for i in kept], values[:, kept]
    for key, array in arrays.items():
        if columns.plain(key) in curve_rows.RATES and array.size == 1:
            exact = columns.plain(key) == "fpsexact"
            fps = curve_rows.rate(str(path), key, array.item()) if exact or not fps else fps
        elif columns.clock_kind(key) in columns.SECONDS and array.dtype.kind in "fiu":
            unit = columns.SECONDS[str(columns.clock_kind(key))]
            times = np.asarray(array, np.float64).reshape(-1) * unit
            if times.shape != (len(values),):
                raise InputError(
                    f"{path}: {key} has {array.size} values, expected one for each of "
                    f"{len(values)} frames"
                )
            clock = {"times": times}
    endless = np.argwhere(np.isinf(values))
    if len(endless):
        frame, column = (int(i) for i in endless[0])
        raise InputError(f"{path}: frame {frame}: {names[column]} is not finite")
    observed = arrays.get("observed")
    if observed is not None and observed.shape != (len(names),):
        raise InputError(f"{path}: observed has shape {observed.shape}, expected {len(names)}")
    stated = str(arrays[mouth_close.KEY]) if mouth_close.KEY in arrays else "arkit"
    mouth_close.check(stated, f"{path}: {mouth_close.KEY}")
    return Rows(
        names=names,
        values=values,
        mouth_close=stated,
        fps=fps,
        observed=None if observed is None else observed.astype(bool),
        lines=[f"{path}: frame {n}" for n in range(len(values))],
        **clock,
    )


def _table_of(
    path: Path, arrays: dict[str, np.ndarray], resolver: Resolver
) -> tuple[list[str], np.ndarray]:
    tables = {
        key: array for key, array in arrays.items() if array.ndim == 2 and array.dtype.kind in "fiu"
    }
    lists = [
        [str(name) for name in array.reshape(-1)]
        for array in arrays.values()
        if array.dtype.kind in "US" and array.ndim == 1
    ]
    expressions, poses = tables.get("expressions"), tables.get("poses")
    if expressions is not None and poses is not None and poses.shape[1] == 165:
        if len(poses) != len(expressions):
            raise InputError(f"{path}: {len(poses)} poses, {len(expressions)} expressions")
        names = [f"expression{i}" for i in range(expressions.shape[1])]
        names += [f"{joint}{i}" for joint in _SMPLX for i in range(3)]
        if resolver.map is None:
            raise InputError(
                f"{path}: holds expressions of FLAME; give a map to channels"
                + (f" ({resolver.where}.map=FILE.json)" if resolver.where else "")
            )
        values = np.hstack([expressions, poses[:, 66:75]]).astype(np.float64)
        # A map may use fewer of them.
        wanted = [i for i, name in enumerate(names) if resolver.is_name(name)]
        return [names[i] for i in wanted], values[:, wanted]
    for names in sorted(lists, key=lambda n: -sum(map(resolver.is_name, n))):
        for array in tables.values():
            if array.shape[1] == len(names):
                return names, np.asarray(array, np.float64)
    sources = resolver.map.sources if resolver.map else ()
    for array in tables.values():
        if sources and not lists and array.shape[1] == len(sources):
            return list(sources), np.asarray(array, np.float64)
    have = ", ".join(f"{k} {arrays[k].shape}" for k in sorted(arrays)[:8]) or "nothing"
    raise InputError(f"{path}: holds {have}; expected values [frames, N] and N names")
