"""Columns of a file to write: which channels, in which order, units and convention, as what names.

A map of names is a JSON object from channels (or columns of the order) to names:

    {"jawOpen": "Jaw_Open", "browInnerUp": ["brow_L", "brow_R"], "tongueStretch": null}

A list writes the channel once under each name, null leaves it out, and what the map does not name
keeps its own name. Maps that come with the package go by their name: `names_maps/`.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from a2fjax import channel_orders, rig
from a2fjax.animation import mouth_close as conventions
from a2fjax.animation import text_files
from a2fjax.channel_orders import ChannelOrder, Column
from a2fjax.errors import InputError, nearest

SHIPPED = Path(__file__).parent / "names_maps"
MOST_NAMES = 1000
_LONGEST = 200
_FORBIDDEN = set('",;\t\r\n')


@dataclasses.dataclass(frozen=True)
class FileColumns:
    """The columns of a file.

    Example:
        >>> columns = choose("arkit52", mouth_close="nvidia")
        >>> columns.values(np.zeros((3, 72))).shape, columns.names[17]
        ((3, 52), 'jawOpen')

    Attributes:
      order: columns with their names in the file.
      mouth_close: convention of mouthClose, "arkit" or "nvidia".
    """

    order: ChannelOrder
    mouth_close: str = "arkit"

    @property
    def names(self) -> tuple[str, ...]:
        """Names [N] in order."""
        return self.order.names

    @property
    def units(self) -> tuple[str, ...]:
        """Unit of each column: weight, degree, radian, or none for what the rig lacks."""
        return tuple(_unit(column) for column in self.order.columns)

    def values(self, motion: np.ndarray) -> np.ndarray:
        """Returns the values [..., N] float32 of motion [..., 72] in rig units."""
        return self.order.from_rig(conventions.from_rig(np.asarray(motion), self.mouth_close))


def _unit(column: Column) -> str:
    if column.channel is None:
        return "none"
    if column.channel not in rig.EYE_ANGLES:
        return "weight"
    return "degree" if column.scale == 1.0 else "radian"


def choose(
    order: str = "rig72", names_map: str | Path | None = None, mouth_close: str = "arkit"
) -> FileColumns:
    """Returns the columns that a user asks for.

    Args:
      order: one of `channel_orders.ORDERS`.
      names_map: file of a map of names, or the name of a map of the package.
      mouth_close: "arkit" or "nvidia".

    Raises:
      InputError: no such order, map or convention, a map that does not fit the order, or two
        columns of one name.
    """
    conventions.check(mouth_close, "--mouth-close")
    chosen = channel_orders.order(order)
    if names_map is not None:
        chosen = _renamed(chosen, names_map)
    return FileColumns(chosen, mouth_close)


def of_channels(names: Sequence[str]) -> FileColumns:
    """Returns columns of some channels of the rig under their own names."""
    columns = tuple(Column(name, name) for name in names)
    return FileColumns(ChannelOrder("channels", columns))


def _renamed(order: ChannelOrder, names_map: str | Path) -> ChannelOrder:
    path = _find(names_map)
    wanted = _read(path)
    keys = {c.channel or c.name for c in order.columns} | set(order.names)
    for key in wanted:
        if key not in keys:
            raise InputError(
                f"{path}: {key!r} is no channel of the order {order.name}{nearest(key, keys)}"
            )
    columns = []
    for column in order.columns:
        key = column.name if column.name in wanted else column.channel or column.name
        for name in wanted.get(key, (column.name,)):
            columns.append(dataclasses.replace(column, name=name))
    names = [c.name.lower() for c in columns]
    doubled = next((c.name for i, c in enumerate(columns) if names[i] in names[:i]), None)
    if doubled is not None:
        raise InputError(f"{path}: two columns would be named {doubled!r}")
    if not columns:
        raise InputError(f"{path}: leaves out every channel of the order {order.name}")
    return ChannelOrder(f"{order.name} as {path.name}", tuple(columns))


def _find(names_map: str | Path) -> Path:
    path = Path(names_map)
    if path.exists():
        return path
    shipped = {p.stem: p for p in sorted(SHIPPED.glob("*.json"))}
    if str(names_map) in shipped:
        return shipped[str(names_map)]
    raise InputError(
        f"--names-map {names_map}: no such file, and no map of the package"
        f"{nearest(str(names_map), shipped)}"
    )


def _read(path: Path) -> dict[str, tuple[str, ...]]:
    data = text_files.read_json(path)
    if not isinstance(data, dict) or not data:
        raise InputError(f'{path}: expected an object of names, such as {{"jawOpen": "Jaw_Open"}}')
    found = {str(key): _names(path, str(key), value) for key, value in data.items()}
    if sum(map(len, found.values())) > MOST_NAMES:
        raise InputError(f"{path}: more than {MOST_NAMES} names")
    return found


def _names(path: Path, key: str, value: Any) -> tuple[str, ...]:
    names = [] if value is None else value if isinstance(value, list) else [value]
    for name in names:
        bad = not isinstance(name, str) or not name.strip() or len(name) > _LONGEST
        if bad or _FORBIDDEN & set(name):
            raise InputError(
                f"{path}: {key}: {str(name)[:60]!r}: expected a name without commas, semicolons, "
                "quotes and line breaks, a list of names, or null"
            )
    return tuple(names)
