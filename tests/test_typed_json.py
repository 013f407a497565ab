import dataclasses
from collections.abc import Mapping
from typing import Any, NotRequired, TypedDict

import pytest

from a2fjax import typed_json
from a2fjax.errors import InputError


class Entry(TypedDict):
    id: str
    frames: NotRequired[int]
    later: "NotRequired[int]"


@dataclasses.dataclass
class Part:
    size: float
    name: str | None = None


@dataclasses.dataclass
class Whole:
    parts: list[Part]
    entries: list[Entry]
    words: tuple[str, ...] = ()
    pair: tuple[int, bool] = (1, True)
    options: Mapping[str, Any] = dataclasses.field(default_factory=dict)
    either: int | str = 0


GOOD = {"parts": [{"size": 1}], "entries": [{"id": "a"}], "words": ["x"], "either": "b"}


def test_values_become_dataclasses():
    found = typed_json.build(Whole, GOOD | {"options": {"a": [1]}}, name="f")
    assert found == Whole([Part(1.0)], [{"id": "a"}], ("x",), options={"a": [1]}, either="b")
    assert isinstance(found.parts[0].size, float)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"parts": {}}, "f: parts is {}, expected a list"),
        ({"parts": [1]}, r"f: parts\[0\] is 1, expected an object"),
        ({"parts": [{}]}, r"f: has no parts\[0\].size"),
        ({"parts": [{"size": True}]}, r"parts\[0\].size is True, expected a finite number"),
        ({"parts": [{"size": float("nan")}]}, "expected a finite number"),
        ({"parts": [{"size": 1, "name": 2}]}, r"name is 2, expected a string"),
        ({"entries": [{"id": None}]}, r"entries\[0\].id is None, expected a string"),
        ({"entries": [{"id": "a", "frames": 1.5}]}, "frames is 1.5, expected a whole number"),
        ({"entries": [{"id": "a", "frame": 1}]}, "unknown key .*frame; did you mean 'frames'"),
        ({"words": "x"}, "expected a list"),
        ({"pair": [1]}, "expected 2 values"),
        ({"options": []}, "expected an object"),
        ({"either": None}, "either is None"),
        ({"other": 1}, "unknown key other"),
    ],
)
def test_each_wrong_value_is_named(change, message):
    with pytest.raises(InputError, match=message):
        typed_json.build(Whole, GOOD | change, name="f")


def test_what_is_no_object_is_named():
    with pytest.raises(InputError, match="f: it is None, expected an object"):
        typed_json.build(Whole, None, name="f")
