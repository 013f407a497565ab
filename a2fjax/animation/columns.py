"""Names of columns: which channel, clock or flag a column holds, however a tool spells it.

Case, underscores, spaces and the prefixes of exporters (`blendShape1.`, `blendShapes.`, `head|`)
make no difference: `blendShape1.eye_blink_left`, `EyeBlinkLeft` and `eyeBlink_L` are one channel.
A column that holds no channel must be recognisable as something else (a clock, head motion, an
emotion), renamed or ignored; an unknown name is an error, since it may be a misspelt channel.
"""

from __future__ import annotations

import dataclasses
import functools
import re
import unicodedata
from collections.abc import Mapping, Sequence

from a2fjax import channel_orders, rig
from a2fjax.animation.linear_map import LinearMap
from a2fjax.errors import InputError, nearest


@dataclasses.dataclass(frozen=True, kw_only=True)
class ColumnSettings:
    """How the columns of curve files are named, where their names do not say it.

    Attributes:
      rename: names of channels (or of the map's sources) by names in the files.
      ignore: names of columns to leave out.
      units: "weight" (0 to 1), "percent" (0 to 100), or "auto" (by the values).
      map: JSON file of a linear map from the columns to channels; see `linear_map`.
    """

    rename: Mapping[str, str] = dataclasses.field(default_factory=dict)
    ignore: tuple[str, ...] = ()
    units: str = "auto"
    map: str = ""


UNITS = ("auto", "weight", "percent")

_CLOCKS = {
    "s": "time times second seconds sec secs timestamp timestamps t elapsed elapsedtime "
    "timein frametime",
    "ms": "milliseconds millis msec ms",
    "us": "microseconds us",
    "ns": "nanoseconds ns",
    "timecode": "timecode smpte",
    "frame": "frame frames framenumber frameindex frameid framenum frameno",
}
KINDS = ("s", "ms", "us", "ns", "timecode", "frame")
"""Kinds of clocks, the most trusted first: a frame number is used only without a time."""

SECONDS = {"s": 1.0, "ms": 1e-3, "us": 1e-6, "ns": 1e-9, "timecode": 1.0}
"""Seconds in a unit; a timecode may also be a plain number of seconds."""

_UNITS = {
    "s": "s sec secs second seconds",
    "ms": "ms msec msecs millis millisecond milliseconds",
    "us": "us usec microsecond microseconds µs μs",
    "ns": "ns nsec nanosecond nanoseconds",
}
_KIND_OF = {name: kind for kind, names in _CLOCKS.items() for name in names.split()}
_UNIT_OF = {name: unit for unit, names in _UNITS.items() for name in names.split()}

_OTHERS_TIME = re.compile(rf"((timestamp|timecode|time)s?(in)?({'|'.join(_UNIT_OF)})?)$")

_FLAGS = frozenset(
    "blendshapecount facecount numfaces facesdetected facedetected facefound hasface istracked "
    "facetracked tracked trackingvalid isvalid valid success bsvalid detected".split()
)
_EMOTIONS = frozenset(
    [*rig.EMOTIONS, *rig.NVIDIA_EMOTIONS]
    + "disgusted fearful contempt contemptuous surprise happiness calm scared".split()
)
_NO_CHANNEL = frozenset(
    "neutral index id faceindex faceid confidence score subject actor name take fps".split()
)
_POSE = re.compile(
    r"(head|neck|face|camera|cam|root|gaze|pupil|pose|(left|right)?eye(left|right)?|look)*"
    r"(pos|position|loc|location|rot|rotation|trans|translation|transform|euler|eulerangles?|"
    r"quat|quaternion|yaw|pitch|roll|scale|matrix|dir|direction|dilat\w*|diameter)+"
    r"(x|y|z|w|left|right|l|r|\d)*|pose[tr][xyz]|(gaze|lookat)\w*"
)
_PREFIX = re.compile(r"^(blend ?shapes?\d*|bs\d*|arkit|facs|shapes?|weights?)[ _.:|/-]+", re.I)
_PERCENT = re.compile(r"\s*[(\[]?\s*(%|percent|pct)\s*[)\]]?\s*$", re.I)
_BRACKETS = re.compile(r"\s*[(\[]\s*(?P<unit>[^)\]]*?)\s*[)\]]\s*$")


@functools.lru_cache(maxsize=10_000)
def plain(name: str) -> str:
    """Returns a name without case, underscores, spaces and punctuation, in composed Unicode.

    Example:
        >>> plain("Eye_Blink Left")
        'eyeblinkleft'
    """
    composed = unicodedata.normalize("NFC", name).casefold()
    return "".join(c for c in composed if c.isalnum())


_COLUMNS = {plain(n): n for order in channel_orders.ORDERS.values() for n in reversed(order.names)}


@functools.lru_cache(maxsize=10_000)
def known_name(name: str) -> str | None:
    """Returns the name of `channel_orders.ORDERS` that a column's name spells, or None.

    Example:
        >>> known_name("blendShape1.eye_blink_left"), known_name("jaw")
        ('eyeBlinkLeft', None)
    """
    name = _PERCENT.sub("", name)
    last = re.split(r"[.:|/]", name)[-1]
    for form in (name, last, _PREFIX.sub("", name), _PREFIX.sub("", last)):
        column = _COLUMNS.get(plain(form))
        if column is not None:
            return column
    return None


@functools.lru_cache(maxsize=10_000)
def clock_kind(name: str) -> str | None:
    """Returns which of `KINDS` a column holds, or None.

    Example:
        >>> [clock_kind(n) for n in ("Time (s)", "timestamp_ms", "timestampMs", "Frame", "jawOpen")]
        ['s', 'ms', 'ms', 'frame', None]
    """
    bracketed = _BRACKETS.search(name)
    unit = _UNIT_OF.get(bracketed["unit"].casefold()) if bracketed else None
    base = plain(_BRACKETS.sub("", name))
    if base in _KIND_OF:
        return unit or _KIND_OF[base]
    for end in sorted(_UNIT_OF, key=len, reverse=True):
        stem = base.removesuffix(plain(end))
        if stem != base and _KIND_OF.get(stem) == "s":
            return _UNIT_OF[end]
    # A tool may say whose time it is: frame_timestamp_ms, captureTime, unix_time_in_ms.
    match = _OTHERS_TIME.search(base)
    return clock_kind(match[0]) if match and match[0] != base else None


def is_flag(name: str) -> bool:
    """Returns whether a column says if a face was seen: a count of shapes or faces, or a flag."""
    return plain(name) in _FLAGS


def is_percent(name: str) -> bool:
    """Returns whether a column's name says that its values are percent."""
    return bool(_PERCENT.search(name))


def holds_no_channel(name: str) -> bool:
    """Returns whether a column holds something else: head motion, an emotion, an index."""
    text = plain(re.split(r"[.:|/]", name)[-1])
    return not text or text in _EMOTIONS | _NO_CHANNEL or _POSE.fullmatch(text) is not None


@dataclasses.dataclass(frozen=True)
class Resolver:
    """Tells what columns hold.

    Attributes:
      settings: the user's settings.
      where: name of the settings group in messages, such as "--config.columns"; "" for none.
      percent_flag: what says that values are percent, for messages; "" for the settings group.
    """

    settings: ColumnSettings = ColumnSettings()
    where: str = ""
    percent_flag: str = ""

    @property
    def percent_hint(self) -> str:
        """What to do about values that are percent, for messages."""
        flag = self.percent_flag or (f"{self.where}.units=percent" if self.where else "")
        return f"give {flag}" if flag else "divide by 100"

    @functools.cached_property
    def map(self) -> LinearMap | None:
        """The linear map of the settings, or None."""
        return LinearMap.read(self.settings.map) if self.settings.map else None

    def check_map(self) -> None:
        """Checks the map of the settings.

        Raises:
          InputError: the file is missing or wrong.
        """
        self.map  # noqa: B018

    @functools.cached_property
    def _rename(self) -> dict[str, str]:
        return {plain(old): new for old, new in self.settings.rename.items()}

    @functools.cached_property
    def _ignore(self) -> frozenset[str]:
        return frozenset(plain(name) for name in self.settings.ignore)

    @functools.cached_property
    def _sources(self) -> dict[str, str]:
        return {plain(n): n for n in self.map.sources} if self.map else {}

    def renamed(self, name: str) -> str:
        """Returns the name that the settings give a column, or its own."""
        return self._rename.get(plain(name), name)

    def is_ignored(self, name: str) -> bool:
        """Returns whether the settings leave a column out."""
        return plain(name) in self._ignore

    def target(self, name: str) -> str | None:
        """Returns the channel (with a map: the source) that a column holds, or None."""
        if self.is_ignored(name):
            return None
        name = self.renamed(name)
        return self._sources.get(plain(name)) if self.map else known_name(name)

    def is_clock(self, name: str) -> bool:
        """Returns whether a column holds the time or the number of a frame."""
        return not (clock_kind(name) is None or self.is_ignored(name) or self.is_name(name))

    def is_name(self, name: str) -> bool:
        """Returns whether a column holds a channel or a source of the map."""
        return self.target(name) is not None

    def resolve(self, names: Sequence[str]) -> tuple[list[int], list[str], list[str]]:
        """Returns (indices of the columns to use, what each holds, names of those left out).

        Raises:
          InputError: an unknown or doubled column, two columns of one channel, or a source of the
            map without a column.
        """
        self._check_doubled(names)
        used, holds, omitted = [], [], []
        for index, name in enumerate(names):
            target = self.target(name)
            if target is not None:
                used.append(index)
                holds.append(target)
            elif self.is_ignored(name) or holds_no_channel(self.renamed(name)):
                omitted.append(name or f"column {index + 1} without a name")
            else:
                raise InputError(self._unknown(name))
        if self.map is None:
            channel_orders.check_names(holds)
        else:
            repeated = next((i for i, held in enumerate(holds) if held in holds[:i]), None)
            if repeated is not None:
                raise InputError(f"column {names[used[repeated]]!r} appears twice")
            missing = [n for n in self.map.sources if n not in holds]
            if missing:
                raise InputError(
                    f"has no column {missing[0]!r}, a source of {self.settings.map}"
                    f"{nearest(missing[0], names)}"
                )
        return used, holds, omitted

    def _check_doubled(self, names: Sequence[str]) -> None:
        seen: dict[str, str] = {}
        for name in names:
            key = unicodedata.normalize("NFC", name).casefold().strip()
            if key and key in seen and not self.is_ignored(name):
                raise InputError(f"column {name!r} appears twice")
            seen[key] = name

    def _unknown(self, name: str) -> str:
        known = self.map.sources if self.map else rig.CHANNELS
        text = f"unknown channel {name[:60]!r}{nearest(name, known)}"
        if self.where:
            text += f" ({self.where}.rename or .ignore says what to do with it)"
        return text
