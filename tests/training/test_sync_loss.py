"""Which experts a run takes as its loss, and what it records of them."""

import dataclasses
import json
import types

import jax
import pytest

from a2fjax import tasks
from a2fjax.batch import Batch
from a2fjax.configuration import (
    Config,
    DataConfig,
    LossConfig,
    RegressionConfig,
    SyncnetConfig,
    build_config,
)
from a2fjax.errors import InputError
from a2fjax.sync.expert import NetworkExpert
from a2fjax.sync.normalisation import Normalisation
from a2fjax.training import starting_point, sync_loss
from a2fjax.training.sync_experts import LoadedExpert

SMALL = RegressionConfig(conv_layers=1, conv_width=4, recurrent_width=4, identity="none")


def config(**loss):
    loss = {"sync": ("runs/a", "runs/b"), **loss}
    return Config(
        model=SMALL, data=DataConfig(window_frames=96, shards=("s",)), loss=LossConfig(**loss)
    )


@pytest.fixture(scope="module")
def network():
    settings = Config(model=SyncnetConfig(width=4, layers=1, embedding=2))
    task = tasks.build(settings, None, {})
    variables = task.init(jax.random.key(0), Batch.zeros(1, 96, 1))
    return settings, NetworkExpert(task.model, variables, "syncnet")


@pytest.fixture
def asked(monkeypatch, network):
    """Experts of any folder; returns how each was asked for."""
    calls = []

    def load(run, step=None, *, unchecked=False, flag=""):
        calls.append((run, step, unchecked))
        settings, expert = network
        return LoadedExpert(expert, settings, step or 70, f"weights of {run}", passed=not unchecked)

    monkeypatch.setattr(sync_loss.sync_experts, "load_checked", load)
    monkeypatch.setattr(sync_loss, "ClipSource", lambda folders, split: None)
    made = iter((Normalisation(10.0, 1.5, 0.6, 0.1), Normalisation(20.0, 0.5, 0.7, 0.6)) * 9)
    monkeypatch.setattr(sync_loss.normalisation, "measure", lambda *_, **__: next(made))
    return calls


def attach(settings, workdir):
    return sync_loss.attach(tasks.build(settings, None, {}), settings, workdir, {})


def test_experts_are_loaded_measured_and_recorded(asked, tmp_path):
    task, records = attach(config(), tmp_path)
    assert asked == [("runs/a", None, False), ("runs/b", None, False)]
    assert [(e.scale, e.gap, dict(e.features)) for e in task.experts] == [
        (10.0, 1.5, {}),
        (20.0, 0.5, {}),
    ]
    assert set(task.pretrained["sync"]) == {"0", "1"}
    sync_loss.write(tmp_path, records)
    assert sync_loss.recorded(tmp_path) == records
    assert records[1] == sync_loss.Record(
        "runs/b", "syncnet", 70, "weights of runs/b", True, 20.0, 0.5
    )
    attach(config(sync_unchecked=True), tmp_path)
    assert asked[2:] == [("runs/a", None, True), ("runs/b", None, True)]


def test_a_discriminator_starts_from_the_last_expert(asked, tmp_path):
    task, records = attach(config(sync=("runs/a",), sync_adversary="runs/a"), tmp_path)
    assert [run for run, *_ in asked] == ["runs/a", "runs/a"] and len(task.experts) == 1
    assert [record.start for record in records] == [None, (0.7, 0.6)]
    made = task.auxiliary
    assert made is task.adversary and made.optim.learning_rate == 2e-4
    start = {k: float(made.params[k]) for k in ("match_scale", "match_bias")}
    assert start == pytest.approx({"match_scale": 2.0, "match_bias": -0.65})
    assert set(task.pretrained) == {"sync", "adversary"} and "params" not in made.frozen
    sync_loss.write(tmp_path, records)
    assert sync_loss.recorded(tmp_path) == records
    near = [dataclasses.replace(r, start=r.start and (0.64, 0.6)) for r in records]
    with pytest.raises(InputError, match="loss.sync_adversary='runs/a': gives true motion a mean"):
        sync_loss._adversary(config(), task.experts[0].model, near[1], {"params": {}}, {})


def test_a_resumed_run_takes_the_recorded_weights_and_constants(asked, tmp_path, monkeypatch):
    monkeypatch.setattr(starting_point, "has_checkpoint", lambda folder: True)
    with pytest.raises(InputError, match="does not name the experts of loss.sync=runs/a,runs/b"):
        attach(config(), tmp_path)
    before = [
        sync_loss.Record(run, "syncnet", 40, f"weights of {run}", True, 3.0, 0.25)
        for run in ("runs/a", "runs/b")
    ]
    sync_loss.write(tmp_path, before)
    task, records = attach(config(), tmp_path)
    assert records == before and asked == [("runs/a", 40, True), ("runs/b", 40, True)]
    assert [(e.scale, e.gap) for e in task.experts] == [(3.0, 0.25)] * 2
    sync_loss.write(tmp_path, [dataclasses.replace(r, weights="other") for r in before])
    with pytest.raises(InputError, match="runs/a: step 40 has weights weights of runs/a, the run"):
        attach(config(), tmp_path)


def test_a_changed_record_is_refused(tmp_path):
    assert sync_loss.recorded(tmp_path) == []
    sync_loss.write(tmp_path, [])
    assert not (tmp_path / sync_loss.FILE).exists()
    record = sync_loss.Record("runs/a", "syncnet", 40, "ab", False, 3.0, 0.25)
    sync_loss.write(tmp_path, [record])
    path = tmp_path / sync_loss.FILE
    path.write_text(path.read_text().replace("false", "true"))
    with pytest.raises(InputError, match="sync_experts.json: was changed after it was written"):
        sync_loss.recorded(tmp_path)


def test_other_tasks_and_short_windows_are_refused(asked, tmp_path):
    with pytest.raises(InputError, match="only regression and diffusion have losses by sync"):
        sync_loss.attach(types.SimpleNamespace(), config(), tmp_path, {})
    short = dataclasses.replace(config(), data=DataConfig(window_frames=57))
    with pytest.raises(InputError, match="data.window_frames=57: .* expected at least 58"):
        attach(short, tmp_path)


def test_an_expert_that_hears_more_than_the_run_is_refused(monkeypatch):
    def spec(encoders):
        return {key: f"spec of {name}" for key, name in encoders.items()}

    monkeypatch.setattr(starting_point, "feature_specs", lambda pairs: spec(
        {key: pair if isinstance(pair, str) else pair[0] for key, pair in pairs.items()}
    ))  # fmt: skip
    features = types.SimpleNamespace(
        config=types.SimpleNamespace(features=("mel", "whisper:tiny.npz")),
        encoders={"1_whisper": "tiny"},
        pretrained={"encoders": {"1_whisper": {}}},
    )
    loaded = types.SimpleNamespace(
        expert=types.SimpleNamespace(model=types.SimpleNamespace(audio_features=features))
    )
    settings = config()
    with pytest.raises(InputError, match="sync expert x: hears whisper:tiny.npz, which this run"):
        sync_loss._feature_keys(settings, "x", loaded, {"0_whisper": "base"})
    own = {"0_whisper": "tiny"}
    assert sync_loss._feature_keys(settings, "x", loaded, own) == {}  # Live: it hears the audio.
    data = dataclasses.replace(settings.data, encoder_features="cached")
    cached = dataclasses.replace(settings, data=data)
    assert sync_loss._feature_keys(cached, "x", loaded, own) == {"1_whisper": "0_whisper"}


@pytest.mark.parametrize(
    ("loss", "message"),
    [
        ({"sync": "a,b", "sync_weights": (1.0, 2.0, 3.0)}, "one for each of the 2 experts"),
        ({"sync": "a,a"}, "loss.sync: a stands twice"),
        ({"sync_weights": -1.0}, "loss.sync_weights=-1.0: expected a value above 0"),
        ({"sync_least_alpha": 1.5}, "loss.sync_least_alpha=1.5"),
        ({"sync_wieghts": 1.0}, "sync_weights"),
        (
            {"sync_adversary_weight": 0.0},
            "loss.sync_adversary_weight=0.0: expected a value above 0",
        ),
        ({"sync_adversary_rate": -1.0}, "loss.sync_adversary_rate=-1.0: expected a value above 0"),
        ({"sync_adversary_penalty": -1.0}, "loss.sync_adversary_penalty=-1.0"),
        ({"sync_adversry": "a"}, "sync_adversary"),
    ],
)
def test_settings_that_contradict_are_one_line(loss, message):
    with pytest.raises(InputError, match=message):
        build_config({"loss": loss}, where="config")


def test_one_weight_is_that_of_all_experts():
    settings = build_config({"loss": {"sync": "a,b", "sync_weights": 0.5}}, where="config").loss
    assert settings.sync == ("a", "b") and settings.sync_weight(0) == settings.sync_weight(1) == 0.5
    each = dataclasses.replace(settings, sync_weights=(0.5, 0.25))
    assert (each.sync_weight(0), each.sync_weight(1)) == (0.5, 0.25)
    assert json.dumps(dataclasses.asdict(each)["sync_weights"]) == "[0.5, 0.25]"
