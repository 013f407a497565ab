import dataclasses
import json
import os
import sys
from pathlib import Path

import pytest

from a2fjax import configuration
from a2fjax.errors import InputError

EXPERIMENTS = sorted((Path(__file__).parents[1] / "experiments").glob("*.py"))


def test_overrides_reach_their_place_and_say_where_they_came_from(tmp_path):
    file = tmp_path / "x.py"
    file.write_text(
        "def get_config(variant=''):\n"
        "    return {'name': 'x', 'optim': {'learning_rate': 0.01}, 'steps': 7}\n"
    )
    resolved = configuration.load(file, {"optim.warmup_steps": "3", "data.shards": "a,b"})
    assert resolved.config.optim.learning_rate == 0.01
    assert resolved.config.optim.warmup_steps == 3
    assert resolved.config.data.shards == ("a", "b")
    assert resolved.sources["steps"] == str(file)
    assert resolved.sources["optim.warmup_steps"] == "--config.optim.warmup_steps"
    assert resolved.sources["seed"] == "default"


def test_json_round_trip_keeps_values_and_fingerprint():
    resolved = configuration.load(None, {"loss.group_weights": "{'jaw_mouth': 2.0}", "seed": "4"})
    back = configuration.from_json(resolved.to_json())
    assert back.config == resolved.config and back.sources == resolved.sources
    written = json.loads(resolved.to_json())["fingerprint"]
    assert configuration.fingerprint(back.config) == written
    other = dataclasses.replace(back.config, seed=5)
    assert configuration.fingerprint(other) != written


@pytest.mark.parametrize(
    ("overrides", "says"),
    [
        ({"stpes": "1"}, "'stpes'.*'steps'"),
        ({"optim.learning_rat": "1"}, "optim.learning_rat.*'learning_rate'"),
        ({"data.batch_size": "0"}, "data.batch_size=0.*above 0"),
        ({"data.batch_size": "many"}, "data.batch_size='many'.*type int"),
        ({"model.recurrent": "bidirectinal"}, "'bidirectional'"),
        ({"loss.group_weights": "{'jaw_muth': 2}"}, "'jaw_mouth'"),
        ({"data.augment.noise_snr_db": "(1,2,3)"}, "expected 2 values"),
        ({"optim.learning_rate": "True"}, "type float"),
        ({"seed.x": "1"}, "seed"),
        ({"audio.features": "mle"}, "'mel'"),
        ({"model.dropout": "1"}, "model.dropout=1.0.*below 1"),
        ({"model.condition_dropout": "1.5"}, "condition_dropout=1.5.*at most 1"),
        ({"data.augment.noise_prob": "20"}, "noise_prob=20.0.*at most 1"),
        ({"loss.closure_width": "0"}, "closure_width=0.0.*above 0"),
        ({"optim.ema_decay": "1.0"}, "optim.ema_decay=1.0.*below 1"),
        ({"optim.b2": "1.5"}, "optim.b2=1.5.*below 1"),
        ({"optim.final_fraction": "-1"}, "optim.final_fraction=-1.0.*at least 0"),
    ],
)
def test_wrong_keys_and_values_are_named(overrides, says):
    with pytest.raises(InputError, match=says):
        configuration.load(None, overrides)


def test_override_arguments():
    parsed = configuration.parse_overrides(
        ["--config.a.b=1", "--config.c", "x y", "--config.d=e=f"]
    )
    assert parsed == {"a.b": "1", "c": "x y", "d": "e=f"}
    with pytest.raises(InputError, match="--confg.a"):
        configuration.parse_overrides(["--confg.a=1"])
    with pytest.raises(InputError, match="value is missing"):
        configuration.parse_overrides(["--config.a"])


def test_broken_experiment_files_are_named(tmp_path):
    with pytest.raises(InputError, match="not found"):
        configuration.load(tmp_path / "no.py")
    file = tmp_path / "bad.py"
    file.write_text("1 / 0\n")
    with pytest.raises(InputError, match="bad.py, line 1: ZeroDivisionError"):
        configuration.load(file)
    file.write_text("x = 1\n")
    with pytest.raises(InputError, match="get_config"):
        configuration.load(file)
    file.write_text("def get_config():\n    return 1 / 0\n")
    with pytest.raises(InputError, match="bad.py, line 2: ZeroDivisionError"):
        configuration.load(file)


def test_an_experiment_that_changed_at_once_is_read_anew_and_nothing_is_left_beside_it(
    tmp_path, monkeypatch
):
    monkeypatch.setattr(sys, "dont_write_bytecode", False)
    file = tmp_path / "some.py"
    for steps in (100, 200):
        file.write_text(f"def get_config():\n    return {{'steps': {steps}}}\n")
        os.utime(file, (1e9, 1e9))
        assert configuration.load(file).config.steps == steps
    assert list(tmp_path.iterdir()) == [file]


@pytest.mark.parametrize("file", EXPERIMENTS, ids=lambda p: p.name)
def test_every_experiment_resolves(file):
    assert configuration.load(file).config.name
    assert file.read_text().lstrip().lstrip("r").startswith('"""'), (
        "says what it is, how to run it, the result"
    )


def test_there_are_experiments():
    assert EXPERIMENTS


def test_a_pinned_configuration_is_an_experiment_that_keeps_its_sources(tmp_path):
    resolved = configuration.load(None, {"loss.group_weights": "{'jaw_mouth': 2.0}", "seed": "4"})
    file = tmp_path / "config.json"
    file.write_text(resolved.to_json())
    again = configuration.load(file)
    assert again.config == resolved.config and again.sources == resolved.sources
    longer = configuration.load(file, {"steps": "9"})
    assert longer.config == dataclasses.replace(resolved.config, steps=9)
    assert longer.sources["steps"] == "--config.steps"
    assert longer.sources["seed"] == "--config.seed"


@pytest.mark.parametrize("text", [None, "", "{", "[]", "{}", '{"config": [], "sources": {}}'])
def test_a_pinned_configuration_that_is_none_is_named(tmp_path, text):
    file = tmp_path / "config.json"
    if text is not None:
        file.write_text(text)
    with pytest.raises(InputError, match="config.json"):
        configuration.load(file)
    with pytest.raises(InputError, match="did you mean" if text is not None else "cannot be read"):
        configuration.load(tmp_path / "confg.json")


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("model.conv_width", "10**12"),
        ("model.conv_width", "1000000000000"),
        ("model.conv_layers", "1000000000"),
        ("model.past_frames", "1000000000"),
    ],
)
def test_sizes_of_networks_are_bounded(key, value):
    """A run's config.json comes from anywhere, and a network is traced before it is compared."""
    with pytest.raises(InputError, match=f"{key}="):
        configuration.load(None, {key: value})


def test_text_that_nests_without_end_is_text():
    assert configuration.parse_value("[" * 100_000) == "[" * 100_000
    assert configuration.parse_value("-" * 100_000 + "1") == "-" * 100_000 + "1"


@pytest.mark.parametrize("key", ["sources", "plugins"])
@pytest.mark.parametrize("value", [None, [], [["a", "b"]], {"steps": ["x"]}, {"steps": None}])
def test_a_run_s_configuration_with_damaged_notes_is_refused(key, value):
    values = json.loads(configuration.load(None).to_json())
    assert configuration.from_json(json.dumps(values)).sources == values["sources"]
    with pytest.raises(InputError, match=f"config.json: not a run's .*{key} is not an object"):
        configuration.from_json(json.dumps({**values, key: value}))
