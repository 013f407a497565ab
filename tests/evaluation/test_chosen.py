"""What `load` was given holds wherever its model goes: step and look-ahead."""

import numpy as np
import pytest

import a2fjax as a2f
from a2fjax import rig
from a2fjax.api import export
from a2fjax.configuration import load
from a2fjax.evaluation import comparison, measuring, report
from a2fjax.export import writer
from a2fjax.infer import lookahead
from a2fjax.infer.predictor import Predictor

ERRORS = {0: 0.08, 40: 0.04, 100: 0.02}
JAW = rig.INDEX["jawOpen"]
GIVEN = {"split": "test_subjects", "quick": True}


@pytest.fixture
def runs(shards, stand_in, tmp_path, monkeypatch):
    """Folders a, a2 and b of runs for live audio whose error is that of the look-ahead."""
    resolved = load(None, {"data.shards": str(shards[0]), "model.kind": "streaming"})
    for name in ("a", "a2", "b"):
        for step in (10, 20):
            (tmp_path / name / "checkpoints" / str(step)).mkdir(parents=True)
        (tmp_path / name / "config.json").write_text(resolved.to_json())

    def predictor(cls, run, step=None, *, sample=None, lookahead_ms=None):
        config = lookahead.with_lookahead(resolved.config, lookahead_ms)

        def change(truth, request):
            out = truth.copy()
            error = ERRORS[config.model.lookahead_ms] * (2 if step == 10 else 1)
            out[:, JAW] += error * np.sin(np.arange(len(out)) / 4)
            return out

        model = stand_in(shards, change)
        model.config, model.step = config, step or 20
        return model

    monkeypatch.setattr(Predictor, "load", classmethod(predictor))
    monkeypatch.setattr(measuring, "QUICK_CLIPS", 3)
    return tmp_path


def error_of(values):
    return values["splits"]["test_subjects"]["model"]["rmse_ratio"]


def test_a_model_is_evaluated_at_its_step_and_look_ahead(runs):
    model = a2f.load(runs / "a", lookahead_ms=40)
    early = a2f.load(runs / "a", 10, lookahead_ms=40)
    plain, at_step, ahead = (
        a2f.evaluate(loaded, **given, **GIVEN).values
        for loaded, given in ((model, {}), (model, {"step": 10}), (early, {"lookahead_ms": 0}))
    )
    assert [(v["step"], v["lookahead_ms"]) for v in (plain, at_step, ahead)] == [
        (20, 40), (10, 40), (10, 0)
    ]  # fmt: skip
    assert error_of(at_step) == pytest.approx(2 * error_of(plain), rel=1e-3)
    assert error_of(ahead) == pytest.approx(4 * error_of(plain), rel=1e-3)


def test_models_on_both_sides_keep_what_they_were_loaded_with(runs):
    found = a2f.evaluate(
        a2f.load(runs / "a", lookahead_ms=40),
        more=[runs / "a2"],
        against=[a2f.load(runs / "b", 10, lookahead_ms=0), runs / "b"],
        **GIVEN,
    ).values["against"]
    assert found["first"] == ["model, step 20, 40 ms ahead", f"{runs}/a2, step 20, 40 ms ahead"]
    assert found["second"] == [
        f"{runs}/b, step 10, 0 ms ahead", f"{runs}/b, step 20, 100 ms ahead"
    ]  # fmt: skip
    metrics = found["splits"]["test_subjects"]["metrics"]["rmse_ratio"]
    assert metrics["second"] == pytest.approx((0.16 + 0.02) / 2 / 0.04 * metrics["first"], rel=1e-3)


def test_compared_models_keep_what_they_were_loaded_with(runs, monkeypatch):
    seen = []
    monkeypatch.setattr(comparison, "compare", lambda rows, *_, **__: seen.extend(rows) or {})
    a2f.compare(
        a2f.load(runs / "a", 10, lookahead_ms=40), a2f.load(runs / "a", 10, lookahead_ms=0),
        runs / "b", step=20,
    )  # fmt: skip
    assert [(r.name, r.model.step, r.model.config.model.lookahead_ms) for r in seen] == [
        ("a, 40 ms ahead", 20, 40), ("a, 0 ms ahead", 10, 0), ("b", 20, 100)
    ]  # fmt: skip


def test_an_exported_model_has_a_step_of_its_own_look_ahead(runs, monkeypatch):
    seen = []
    monkeypatch.setattr(writer, "export", lambda *given, **named: seen.append((given, named)))
    a2f.load(runs / "a", 10, lookahead_ms=40).save_pretrained(runs / "out", weights="w")
    export.export(a2f.load(runs / "a", lookahead_ms=40), "out", lookaheads_ms=[0, 40], step=10)
    export.export(runs / "a", "out")
    (_, one), (_, two), (given, three) = seen
    assert (one["step"], one["lookaheads_ms"], one["weights_file"]) == (10, [40], "w")
    assert (two["step"], two["lookaheads_ms"]) == (10, [0, 40])
    assert given[0] == runs / "a" and (three["step"], three["lookaheads_ms"]) == (None, [])


def test_what_cannot_be_chosen_is_one_line(runs, shards, stand_in):
    model = a2f.load(runs / "a", lookahead_ms=40)
    with pytest.raises(a2f.InputError, match="expected a run folder, not an object of type Model"):
        a2f.watch(model)
    with pytest.raises(a2f.InputError, match="not an object of type StandIn"):
        a2f.evaluate(model, against=[stand_in(shards, None)], **GIVEN)
    with pytest.raises(a2f.InputError, match="step=3: goes with a run folder or a Model"):
        a2f.evaluate(stand_in(shards, None), step=3)
    with pytest.raises(a2f.InputError, match="lookahead_ms=60: .*nearest is 40"):
        a2f.evaluate(runs / "a", lookahead_ms=60)


def test_what_a_report_is_about():
    values = {"predictions": None, "run": "runs/a", "step": 20}
    assert report.subject(values) == "runs/a, step 20"
    assert report.subject({**values, "lookahead_ms": 0}) == "runs/a, step 20, 0 ms ahead"
