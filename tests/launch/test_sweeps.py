"""Sweeps: the algebra of trials, expressions of the command line, names and files."""

import ast
import re
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from a2fjax import configuration
from a2fjax.errors import InputError
from launch.sweeps import choice, grid, integer, loguniform, parse, random, seeds, sweep, uniform

ROOT = Path(__file__).parents[2]
WORDS = st.from_regex(r"[a-z_]{1,4}(\.[a-z_]{1,4}){0,2}", fullmatch=True)
SCALARS = (
    st.none()
    | st.booleans()
    | st.integers(-(10**9), 10**9)
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(st.characters(codec="utf-8", exclude_characters="\0"), max_size=8)
)
VALUES = SCALARS | st.lists(SCALARS, max_size=3) | st.lists(SCALARS, max_size=3).map(tuple)
TRIALS = st.dictionaries(WORDS, VALUES, max_size=4)


def test_grid_seeds_product_and_sum():
    found = parse.parse('grid("optim.learning_rate", 1e-3, 3e-4) * seeds(2) + grid("steps", 5)')
    assert found == [
        {"optim.learning_rate": 1e-3, "seed": 0},
        {"optim.learning_rate": 1e-3, "seed": 1},
        {"optim.learning_rate": 3e-4, "seed": 0},
        {"optim.learning_rate": 3e-4, "seed": 1},
        {"steps": 5},
    ]


def test_the_words_mean_the_same_in_python_and_on_the_command_line():
    text = """zip(grid("a.b", -1, (2, 3)), [{"c": "x"}, {"c": true, "d": {"e": None}}])
      * random(3, {"e": loguniform(1e-4, 1e-2), "f": choice("u", "v"), "g": integer(1, 9)}, seed=4)
    """
    there = sweep.zip(grid("a.b", -1, (2, 3)), [{"c": "x"}, {"c": True, "d": {"e": None}}])
    drawn = {"e": loguniform(1e-4, 1e-2), "f": choice("u", "v"), "g": integer(1, 9)}
    assert parse.parse(text) == there * random(3, drawn, seed=4)
    assert parse.parse('[{"a": 1}, {}] * seeds(1)') == [{"a": 1}, {}] * seeds(1)
    assert [{"a": 1}] + seeds(1) == [{"a": 1}, {"seed": 0}]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "empty"),
        ("  ", "empty"),
        ("grid(", "character"),
        ('gird("a", 1)', "did you mean 'grid'?"),
        ("grid", 'expected grid("KEY", VALUE, ...)'),
        ("grid()", 'expected grid("KEY", VALUE, ...)'),
        ('grid("a")', "a: no values"),
        ("grid(1, 2)", "1: expected a key"),
        ('grid("a b", 2)', "'a b': expected a key"),
        ('grid("a", b)', 'write "b" for text'),
        ('grid("a", 1e999)', "finite"),
        ('grid("a", 1, *[2])', "* before a value"),
        ('grid("a", **{})', "** is not valid"),
        ('grid("a", 1).pop()', "is not a sweep"),
        ('grid("a", __import__("os").getpid())', "expected a value"),
        ('grid("a", 1 + 1)', "expected a value"),
        ("(lambda: 1)()", "is not a sweep"),
        ('[x for x in ("a",)]', "expected sweeps joined"),
        ('grid("a", 1) - seeds(2)', "expected sweeps joined"),
        ('grid("a", 1) * 3', "at character 16"),
        ('grid("a", 1) * grid("a", 2)', "a: set by two"),
        ('grid("a", 1) * grid("a.b", 2)', "a.b and a: one is a group"),
        ('zip(grid("a", 1, 2), seeds(3))', "2, 3 trials"),
        ("zip()", "expected sweeps"),
        ("zip(1)", "expected sweeps joined"),
        ("seeds(0)", "1 or more"),
        ("seeds(true)", "1 or more"),
        ("seeds(1.5)", "1 or more"),
        ("seeds(3, last=5)", "expected seeds(N, first=0)"),
        ("seeds(10**9)", "expected a value"),
        ("seeds(1000000000)", "at most 10000"),
        ('seeds(5000) * grid("a", 1, 2, 3)', "15000 trials; expected at most"),
        ("random(3)", "expected random(N,"),
        ("random(3, {})", "a search space"),
        ("random(0, {'a': uniform(0, 1)})", "1 or more"),
        ("random(3, {'a': unifrom(0, 1)})", "did you mean 'uniform'?"),
        ("random(3, {'a': 5})", "5 is not a distribution"),
        ("random(3, {'a': uniform(1, 0)})", "the smaller number first"),
        ("random(3, {'a': uniform(0)})", "expected uniform(LOW, HIGH)"),
        ("random(3, {'a': loguniform(0, 1)})", "above 0"),
        ("random(3, {'a': integer(0, 1.5)})", "1.5: expected a whole number"),
        ("random(3, {'a': choice()})", "no values"),
        ("random(3, {'a': choice(1), 'a': choice(2)})", "given twice"),
        ("[{'a': 1, 'a': 2}]", "a: given twice"),
        ("[]", "no trials"),
        ("[1]", "trial 1: 1: expected"),
        ("{'a': 1}", "expected sweeps joined"),
        ("((" * 200 + "))" * 200, "sweep"),
        ("-" * 5000 + "1", "sweep"),
        ("grid('a', " + "9" * 5000 + ")", "sweep"),
        ("a\0b", "sweep"),
        ("nowhere.py", "not found"),
    ],
)
def test_mistakes_are_one_line_with_their_position(text, message):
    with pytest.raises(InputError) as error:
        parse.parse(text)
    assert message in str(error.value) and len(str(error.value)) < 300


def test_files(tmp_path):
    file = tmp_path / "mine.py"
    file.write_text(
        "from launch.sweeps import *\n"
        "def sweep(): return grid('a', 1, 2)\n"
        "def other(): return [{'b': 1}, {'b': 1}]\n"
        "def bad(): return [{'b': object()}]\n"
        "def none(): return None\n"
        "def late():\n    return 1 / 0\n"
        "def twice(): return grid('a', 1) * grid('a', 1)\n"
    )
    assert parse.parse(str(file)) == [{"a": 1}, {"a": 2}]
    lines = []
    assert parse.parse(f"{file}:other", lines.append) == [{"b": 1}]
    assert lines == ["sweep: left out 1 trial that repeats another; 1 are left"]
    for name, message in {
        "othr": "did you mean 'other'?",
        "bad": "b: <object",
        "none": "returned NoneType, expected a list of trials",
        "late": "line 7: ZeroDivisionError",
        "twice": "set by two",
    }.items():
        with pytest.raises(InputError, match=re.escape(message)) as error:
            parse.parse(f"{file}:{name}")
        assert str(file) in str(error.value)
    file.write_text("def sweep(:\n")
    with pytest.raises(InputError, match="line 1: SyntaxError"):
        parse.parse(str(file))
    file.write_text("import sys; sys.exit(3)\n")
    with pytest.raises(InputError, match="SystemExit"):
        parse.parse(str(file))


@pytest.mark.parametrize(
    ("file", "experiment", "count"),
    [
        ("regression_demo.py", "regression_v2_3.py:demo", 19),
        ("regression_demo.py:quick", "regression_v2_3.py:demo", 3),
        ("diffusion.py", "diffusion_v3_0.py", 6),
        ("diffusion.py:search", "diffusion_v3_0.py", 24),
    ],
)
def test_the_sweeps_of_experiments_are_configurations(file, experiment, count):
    trials = parse.parse(str(ROOT / "experiments" / "sweeps" / file))
    assert len(trials) == count == len(set(sweep.names(trials)))
    sweep.check(trials, ROOT / "experiments" / experiment)


def test_trials_that_are_no_configuration_are_reported():
    with pytest.raises(InputError, match=r"trial 2 of 2: .*optim.learning_rat.*learning_rate"):
        sweep.check([{"seed": 1}, {"optim.learning_rat": 1}], None)
    with pytest.raises(InputError, match="seed: set by the sweep and by"):
        sweep.check([{"seed": 1}], None, {"seed": "3"})


@given(TRIALS)
def test_overrides_are_read_back_as_they_were(trial):
    trial = sweep.distinct([trial])[0]
    for key, text in sweep.overrides(trial).items():
        found = configuration.parse_value(text)
        assert found == trial[key] and type(found) is type(trial[key])


@given(st.lists(TRIALS, min_size=1, max_size=8))
def test_keys_and_names(trials):
    for trial in trials:
        assert sweep.key(trial) == sweep.key(dict(reversed(trial.items())))
    lines = []
    kept = sweep.distinct(trials, lines.append)
    assert len({sweep.key(t) for t in kept}) == len(kept)
    assert bool(lines) == (len(kept) < len(trials))
    names = sweep.names(kept)
    assert len({n.lower() for n in names}) == len(kept)
    assert all(re.fullmatch(r"[A-Za-z0-9_][A-Za-z0-9._-]{0,60}", n) for n in names), names


@given(st.lists(st.integers(), min_size=1, max_size=4, unique=True), st.integers(1, 4))
def test_products_and_sums_count(values, count):
    a, b = grid("a", *values), seeds(count)
    assert len(a * b) == len(a) * len(b) and len(a + b) == len(a) + len(b)
    assert (a * b) * grid("c", 1) == a * (b * grid("c", 1))
    assert sweep.zip(a, grid("z", *values)) == [{"a": v, "z": v} for v in values]


@settings(max_examples=200)
@given(st.text(max_size=60))
def test_any_text_is_a_sweep_or_one_error(text):
    try:
        found = parse.parse(text)
    except InputError:
        return
    assert found and all(isinstance(t, dict) for t in found)


@given(st.floats(1e-6, 1e3), st.floats(1.01, 1e4), st.integers(0, 99))
def test_draws_keep_their_bounds(low, factor, seed):
    spaces = {
        "u": uniform(low, low * factor),
        "l": loguniform(low, low * factor),
        "i": integer(3, 7),
        "g": integer(1, 1000, log=True),
    }
    drawn = random(20, spaces, seed=seed)
    for trial in drawn:
        assert low <= trial["u"] <= low * factor and low <= trial["l"] <= low * factor
        assert trial["i"] in range(3, 8) and trial["g"] in range(1, 1001)
    assert random(7, spaces, seed=seed) == drawn[:7]
    other = random(20, {"new": uniform(0, 1), **spaces}, seed=seed)
    assert [{k: v for k, v in t.items() if k != "new"} for t in other] == drawn


def test_what_is_drawn_has_the_distribution_that_was_asked_for():
    spaces = {"l": loguniform(1e-4, 1), "i": integer(0, 3), "g": integer(1, 99, log=True)}
    drawn = random(4000, spaces)
    share = np.mean([t["l"] < 1e-2 for t in drawn])
    assert abs(share - 0.5) < 0.03
    counts = np.bincount([t["i"] for t in drawn])
    assert len(counts) == 4 and abs(counts / 4000 - 0.25).max() < 0.03
    assert abs(np.mean([t["g"] <= 9 for t in drawn]) - np.log(19) / np.log(199)) < 0.03


def test_names_use_as_many_words_of_a_key_as_needed():
    trials = grid("model.dropout", 0.1) * grid("audio.encoder.dropout", 0.2) + seeds(1)
    assert sweep.names(trials) == ["encoder.dropout-0.2_model.dropout-0.1", "seed-0"]
    assert sweep.names([{}, {"optim.learning_rate": 1e-5}]) == ["base", "learning_rate-1e-05"]
    long = sweep.names(grid("name", "x" * 300, "x" * 300 + "y"))
    assert len(set(long)) == 2 and all(len(n) <= 61 for n in long)
    assert len(set(sweep.names([{"a": "X/Y"}, {"a": "x-y"}]))) == 2


def test_numbers_of_numpy_are_plain_ones():
    found = grid("a", *np.logspace(-2, -1, 2), np.int64(3))
    assert [type(t["a"]) for t in found] == [float, float, int]
    ast.literal_eval(sweep.overrides(found[0])["a"])
