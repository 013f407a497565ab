"""Parses one frame of a JSON file; see `json_records`."""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Any

from a2fjax.animation import columns, curve_rows
from a2fjax.errors import InputError

_NAME_KEYS = ("categoryname", "displayname", "name", "label", "shape", "blendshape", "channel")
_SCORE_KEYS = ("score", "value", "weight", "coefficient", "intensity")
FRAME_KEYS = (
    *("frames", "facialframes", "weights", "weightmat", "motion", "curves", "values", "data"),
    *("blendshapes", "faceblendshapes", "results", "records", "samples"),
)
_GEOMETRY = re.compile(
    r"landmark|matri|transform|rotation|position|translation|vert|mesh|bound|box|rect|pose|quat|"
    r"euler|head|gaze|geometry|units|index",
)
_DEPTH = 6
SCALARS = (int, float, str, bool, type(None))


class Frame:
    """The names, values and clocks of one frame.

    Attributes:
      values: by name.
      row: values in the order of a list of names, or None.
      clocks: by key.
      seen: False if the frame says that there was no face.
      faces: number of faces with values.
    """

    def __init__(self, frame: Any, where: str, is_name: Callable[[str], bool]):
        """Collects what a frame holds.

        Args:
          frame: the frame, as JSON.
          where: place of the frame, for messages.
          is_name: whether a name is that of a channel.

        Raises:
          InputError: not an object or a list, or a name twice.
        """
        self.values: dict[str, Any] = {}
        self.row: list[Any] | None = None
        self.clocks: dict[str, Any] = {}
        self.seen = True
        self.faces = 0
        self._where, self._is_name = where, is_name
        if frame is None or isinstance(frame, (dict, list)):
            self._collect(frame, "", 0)
        else:
            raise InputError(f"{where} is not an object of names and values")

    def _collect(self, node: Any, key: str, depth: int) -> None:
        if depth > _DEPTH:
            return
        if isinstance(node, dict):
            self._collect_object(node, depth)
        elif isinstance(node, list) and node:
            scores = categories(node)
            if scores is not None:
                self._collect_categories(scores)
            elif all(isinstance(v, SCALARS) for v in node):
                # The frame itself or the list under the most likely key.
                if self.row is None or columns.plain(key) in FRAME_KEYS:
                    self.row = node
            else:
                for item in node:
                    if isinstance(item, (dict, list)):
                        self._collect(item, key, depth + 1)

    def _collect_object(self, node: dict[str, Any], depth: int) -> None:
        known = depth == 0 or any(map(self._is_name, node))
        for key, value in node.items():
            plain = columns.plain(key)
            if isinstance(value, (dict, list)):
                if not _GEOMETRY.search(plain) or self._is_name(key):
                    self._collect(value, key, depth + 1)
            elif columns.clock_kind(key) and not self._is_name(key):
                self.clocks.setdefault(key, value)
            elif columns.is_flag(key):
                self.seen = self.seen and curve_rows.flag(value)
            elif known:
                if isinstance(value, str) and not self._is_name(key):
                    continue  # a label
                self._add(key, value)

    def _collect_categories(self, scores: list[tuple[str, Any]]) -> None:
        self.faces += 1
        if self.faces > 1:
            return
        for name, score in scores:
            self._add(name, score)

    def _add(self, name: str, value: Any) -> None:
        if name in self.values:
            raise InputError(f"{self._where}: {name!r} appears twice")
        self.values[name] = value


def _category(item: Any) -> tuple[str, Any] | None:
    """Returns (name, score) of a category, or None."""
    if not isinstance(item, dict):
        return None
    plain = {columns.plain(key): value for key, value in item.items()}
    score = next((plain[k] for k in _SCORE_KEYS if k in plain), item)
    if isinstance(score, (dict, list)):
        return None
    for key in _NAME_KEYS:
        if isinstance(plain.get(key), str) and plain[key]:
            return plain[key], score
    return None


def categories(node: list[Any]) -> list[tuple[str, Any]] | None:
    """Returns (name, score) of each item of a list of categories; None for another list."""
    scores = []
    for item in node:
        category = _category(item)
        if category is None:
            return None
        scores.append(category)
    return scores or None
