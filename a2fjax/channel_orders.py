"""Channel orders of other tools: names, order and units, with maps to and from the rig.

Sources: Apple's ARKit documentation (names), NVIDIA's Audio2Face (68 channels), Epic's Live Link
Face (61 columns), Microsoft's Azure Speech (55), SAiD (32 channels) and ICT-FaceKit (57 shapes).
"""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Sequence

import numpy as np

from a2fjax import rig
from a2fjax.errors import InputError, nearest


@dataclasses.dataclass(frozen=True)
class Column:
    """One column of a `ChannelOrder`.

    Attributes:
      name: as written in files.
      channel: name in `rig.CHANNELS`, or None for a quantity that the rig lacks (head rotation).
      scale: rig value = column value * scale (radians to degrees: 180 / pi).
    """

    name: str
    channel: str | None
    scale: float = 1.0


@dataclasses.dataclass(frozen=True)
class ChannelOrder:
    """The channels in the order, names and units of another tool, with maps both ways.

    Attributes:
      name: such as "livelink61".
      columns: in the order of files.

    Example:
        >>> motion, observed = order("arkit52").to_rig(np.full((1, 52), 0.5))
        >>> motion.shape, int(observed.sum())
        ((1, 72), 52)
    """

    name: str
    columns: tuple[Column, ...]

    @functools.cached_property
    def names(self) -> tuple[str, ...]:
        """Column names in order."""
        return tuple(c.name for c in self.columns)

    def to_rig(
        self, values: np.ndarray, names: Sequence[str] | None = None
    ) -> tuple[np.ndarray, np.ndarray]:
        """Maps values [..., N] in this order to (motion [..., 72], observed [72] bool).

        Several columns of one channel (browInnerUp_L and _R) are averaged. Channels without a
        column are zero and not observed.

        Args:
          values: [..., N].
          names: column names of the values, in any order and case; this order's when None.

        Raises:
          InputError: an unknown or repeated name, two columns of one channel other than its sides,
            or a count that does not match.
        """
        columns = self.columns if names is None else self._columns_named(names)
        values = np.asarray(values)
        if values.shape[-1] != len(columns):
            raise InputError(
                f"{self.name}: {values.shape[-1]} values a frame, expected {len(columns)}"
            )
        motion = np.zeros((*values.shape[:-1], rig.NUM_CHANNELS), np.float32)
        count = np.zeros(rig.NUM_CHANNELS, np.float32)
        for i, column in enumerate(columns):
            if column.channel is not None:
                c = rig.INDEX[column.channel]
                motion[..., c] += values[..., i] * column.scale
                count[c] += 1
        return motion / np.maximum(count, 1), count > 0

    def from_rig(self, motion: np.ndarray) -> np.ndarray:
        """Maps motion [..., 72] to values [..., N] in this order.

        Columns without a channel are zero.
        """
        out = np.zeros((*motion.shape[:-1], len(self.columns)), np.float32)
        for i, column in enumerate(self.columns):
            if column.channel is not None:
                # Adding 0 turns the -0 of a negative scale into 0.
                out[..., i] = motion[..., rig.INDEX[column.channel]] / column.scale + 0.0
        return out

    def _columns_named(self, names: Sequence[str]) -> list[Column]:
        by_name = {c.name.lower(): c for c in self.columns}
        columns, used = [], set()
        for name in names:
            column = by_name.get(name.lower())
            if column is None:
                raise InputError(f"{self.name}: unknown column {name!r}{nearest(name, self.names)}")
            if column.name in used:
                raise InputError(f"{self.name}: column {name!r} appears twice")
            used.add(column.name)
            columns.append(column)
        _check_channels(columns)
        return columns


def _check_channels(columns: Sequence[Column]) -> None:
    """Refuses two columns of one channel, except the two sides of an unsided one (ICT-FaceKit)."""
    seen: dict[str, Column] = {}
    for column in columns:
        if column.channel is None:
            continue
        other = seen.setdefault(column.channel, column)
        if other is not column and {other.name[-2:], column.name[-2:]} != {"_L", "_R"}:
            raise InputError(
                f"columns {other.name!r} and {column.name!r} both hold {column.channel}"
            )


def _columns(names: Sequence[str], rename=lambda n: n) -> tuple[Column, ...]:
    return tuple(Column(rename(n), n) for n in names)


def _pascal(name: str) -> str:
    return name[0].upper() + name[1:]


def _swapped(names: Sequence[str]) -> list[str]:
    # Live Link Face writes Right before Left for these two pairs only.
    swap = {
        "jawLeft": "jawRight",
        "jawRight": "jawLeft",
        "mouthLeft": "mouthRight",
        "mouthRight": "mouthLeft",
    }
    return [swap.get(n, n) for n in names]


_DEGREES = 180.0 / np.pi

# Live Link's yaw is positive to the subject's right, the rig's to the left.
_LIVELINK_ROTATIONS = (
    Column("HeadYaw", None),
    Column("HeadPitch", None),
    Column("HeadRoll", None),
    Column("LeftEyeYaw", "leftEyeRotY", -_DEGREES),
    Column("LeftEyePitch", "leftEyeRotX", _DEGREES),
    Column("LeftEyeRoll", None),
    Column("RightEyeYaw", "rightEyeRotY", -_DEGREES),
    Column("RightEyePitch", "rightEyeRotX", _DEGREES),
    Column("RightEyeRoll", None),
)


def _ict_name(name: str) -> str:
    for side in ("Left", "Right"):
        # jawLeft, mouthRight and so on are directions, not sides, and keep their names.
        if name.endswith(side) and name not in ("jawLeft", "jawRight", "mouthLeft", "mouthRight"):
            return f"{name[: -len(side)]}_{side[0]}"
    return name


def _ict_columns() -> tuple[Column, ...]:
    columns = []
    for name in rig.ARKIT:
        if name == "tongueOut":
            continue
        if name in ("browInnerUp", "cheekPuff"):
            columns += [Column(f"{name}_L", name), Column(f"{name}_R", name)]
        else:
            columns.append(Column(_ict_name(name), name))
    extra = ("PupilDilate_L", "PupilDilate_R", "cheekRaiser_L", "cheekRaiser_R")
    columns += [Column(n, None) for n in extra]
    return tuple(sorted(columns, key=lambda c: c.name))


ORDERS: dict[str, ChannelOrder] = {
    each.name: each
    for each in (
        ChannelOrder("rig72", _columns(rig.CHANNELS)),
        ChannelOrder("rig68", _columns([*rig.ARKIT, *rig.TONGUE])),
        ChannelOrder("arkit52", _columns(rig.ARKIT)),
        ChannelOrder("nvidia68", _columns([*rig.ARKIT, *rig.TONGUE], _pascal)),
        ChannelOrder("livelink61", _columns(_swapped(rig.ARKIT), _pascal) + _LIVELINK_ROTATIONS),
        ChannelOrder(
            "azure55",
            (
                *_columns(rig.ARKIT),
                *(Column(n, None) for n in ("headRoll", "leftEyeRoll", "rightEyeRoll")),
            ),
        ),
        ChannelOrder("alphabetical52", _columns(sorted(rig.ARKIT))),
        ChannelOrder("alphabetical51", _columns(sorted(n for n in rig.ARKIT if n != "tongueOut"))),
        ChannelOrder(
            "said32",
            _columns([n for n in rig.ARKIT if n.startswith(("jaw", "mouth", "cheek", "nose"))]),
        ),
        ChannelOrder("ict57", _ict_columns()),
    )
}


def order(name: str) -> ChannelOrder:
    """Returns a channel order by name, such as "arkit52".

    Raises:
      InputError: no such order; suggests the nearest.
    """
    if name not in ORDERS:
        raise InputError(f"unknown channel order {name!r}{nearest(name, ORDERS)}")
    return ORDERS[name]


def from_names(values: np.ndarray, names: Sequence[str]) -> tuple[np.ndarray, np.ndarray]:
    """Maps named values [..., N] to (motion [..., 72], observed [72] bool).

    Accepts the names of all channel orders, in any case.

    Raises:
      InputError: an unknown or repeated name, or a count that does not match.
    """
    return _ALL_NAMES.to_rig(values, names)


def column(name: str) -> Column:
    """Returns the column with a name of any channel order; case does not matter.

    Raises:
      InputError: no order has the name; suggests the nearest.
    """
    return _ALL_NAMES._columns_named([name])[0]


def check_names(names: Sequence[str]) -> None:
    """Checks names of columns, in any order and case.

    Raises:
      InputError: an unknown or repeated name, or two columns of one channel other than its sides.
    """
    _ALL_NAMES._columns_named(names)


def _all_names() -> ChannelOrder:
    columns: dict[str, Column] = {}
    for each in ORDERS.values():
        for column in each.columns:
            columns.setdefault(column.name.lower(), column)
    return ChannelOrder("channel names", tuple(columns.values()))


_ALL_NAMES = _all_names()
