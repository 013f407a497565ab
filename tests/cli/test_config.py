"""`a2fjax config`: every key says what it means, where its value is from and what it may be."""

import json

import pytest

from a2fjax import configuration, registry
from a2fjax.cli import main
from a2fjax.configuration import build, reference
from a2fjax.errors import InputError

EXPERIMENT = "experiments/diffusion_v3_0.py:demo"


@pytest.mark.parametrize("kind", registry.models.names())
def test_every_key_has_a_meaning(kind):
    resolved = configuration.load(None, {"model.kind": kind})
    keys = list(reference.keys(resolved.config))
    assert len(keys) > 60 and len({key.name for key in keys}) == len(keys)
    assert not [key.name for key in keys if not key.meaning]
    assert {key.name for key in keys} >= {"optim.learning_rate", "data.augment.eq_db", "model.kind"}


def test_what_an_experiment_sets_is_shown_with_its_origin(capsys):
    assert main.main(["config", EXPERIMENT, "--config.optim.b2=0.9"]) == 0
    out = capsys.readouterr().out
    bounds = "int, above 0, at most 1000"
    assert f"model.unet.heads = 4  ({EXPERIMENT}; default 4; {bounds})\n    attention" in out
    assert "optim.b2 = 0.9  (--config.optim.b2; default 0.99; float, at least 0, below" in out
    assert f"loss.group_weights = {{'jaw_mouth': 2.0}}  ({EXPERIMENT}; default {{}};" in out
    assert "optim.b1" not in out and "skin" not in out


def test_all_keys_as_json(capsys):
    assert main.main(["config", EXPERIMENT, "--all", "--json"]) == 0
    shown = json.loads(capsys.readouterr().out)
    assert shown["optim.b1"]["from"] == "default" and shown["optim.b1"]["value"] == 0.9
    assert shown["model.sample.sampler"]["bounds"].startswith('"angle", "dpm"')
    assert shown["audio.encoder.train_from"]["type"] == "int | None"
    assert "default" in shown["steps"] and shown["steps"]["value"] == 3000


def test_an_unknown_kind_is_named_with_the_nearest_and_how_to_register_one(capsys):
    assert main.main(["config", EXPERIMENT, "--config.model.kind=difusion"]) == 2
    message = capsys.readouterr().err
    assert "model.kind: unknown model 'difusion'; did you mean 'diffusion'?" in message
    assert "config.plugins (docs/extending.md)" in message


def test_settings_of_another_kind_are_unknown_keys():
    with pytest.raises(InputError, match="unknown key 'model.skin'"):
        configuration.load(None, {"model.skin": "10"})


def test_bounds_stand_beside_their_field():
    for group in (configuration.OptimConfig, configuration.DataConfig, configuration.UNetConfig):
        assert any(key.bounds for key in reference.keys(group()))
    with pytest.raises(ValueError, match="optim.b1=1.0: expected a value below 1"):
        build(configuration.OptimConfig, {"b1": 1}, where="test", prefix="optim.")
