"""Runs against runs: by the same people, with seeds drawn, adjusted, and refused for other data."""

import dataclasses
import json
from pathlib import Path

import numpy as np
import pytest

import a2fjax as a2f
from a2fjax import rig
from a2fjax.cli import main as cli
from a2fjax.configuration import Config, DataConfig
from a2fjax.errors import InputError
from a2fjax.evaluation import evaluator, paired, report, report_text, significance
from a2fjax.evaluation.evaluator import evaluate
from a2fjax.infer.predictor import Predictor

JAW = rig.INDEX["jawOpen"]


def part_of(values):
    """A split's report with a figure for each person, None for no value."""
    return {
        "by_subject": {
            f"p{i}": {"metrics": {"rmse_ratio": v, "amp_ratio/jaw_mouth": a}}
            for i, (v, a) in enumerate(values)
        }
    }


def report_of(values, name="run"):
    return {"run": name, "step": 1, "predictions": None, "splits": {"test": part_of(values)}}


def test_figures_are_paired_by_people_and_adjusted():
    first = report_of([(0.5 + 0.01 * i, 0.9) for i in range(7)], "a")
    second = report_of([(0.4 + 0.01 * i, 1.1 + 0.01 * i) for i in range(7)], "b")
    found = paired.compare([first], [second])["splits"]["test"]
    ratio = found["metrics"]["rmse_ratio"]
    assert ratio["first"] == pytest.approx(0.53) and ratio["difference"] == pytest.approx(-0.1)
    assert ratio["p"] == 2 / 128 and ratio["people"] == 7 and found["method"] == "sign flips"
    # An amplitude of 1.1 is as far from 1 as 0.9: the distance is compared.
    amplitude = found["metrics"]["amp_ratio/jaw_mouth"]
    assert amplitude["difference"] == pytest.approx(0.03)
    p = [found["metrics"][name]["p"] for name in ("rmse_ratio", "amp_ratio/jaw_mouth")]
    adjusted = [found["metrics"][n]["p_holm"] for n in ("rmse_ratio", "amp_ratio/jaw_mouth")]
    assert adjusted == significance.holm(p)
    text = "\n".join(paired.table(paired.compare([first], [second])))
    assert "paired over 7 people (sign flips, exact: p cannot be below 0.0156)" in text
    assert "amp (from 1)" in text


def test_people_without_a_value_are_left_out():
    first = report_of([(0.5, 1), (None, 1), (0.7, 1)])
    second = report_of([(0.4, 1), (0.4, 1), (0.4, 1)])
    found = paired.compare([first], [second])["splits"]["test"]["metrics"]
    assert found["rmse_ratio"]["people"] == 2
    assert found["rmse_ratio"]["difference"] == pytest.approx(-0.2)
    with pytest.raises(InputError, match="other people, such as p2"):
        paired.compare([first], [report_of([(0.5, 1), (0.4, 1)])])


def test_people_without_the_ideal_are_in_no_mean():
    def side(rows):
        people = {
            f"p{i}": {"metrics": {"slcc": own, "slcc_truth": ideal}}
            for i, (own, ideal) in enumerate(rows)
        }
        return {**report_of([]), "splits": {"test": {"by_subject": people}}}

    first = side([(0.5, 0.6), (0.9, None), (0.1, 0.2)])
    second = side([(0.6, 0.6), (0.9, None), (0.4, 0.2)])
    found = paired.compare([first], [second])["splits"]["test"]["metrics"]["slcc"]
    assert found["people"] == 2 and found["first"] == pytest.approx(0.3)
    assert found["second"] == pytest.approx(0.5)
    # The first person comes nearer by 0.1, the third goes away by 0.1.
    assert found["difference"] == pytest.approx(0.0)


def test_seeds_are_drawn_with_the_people():
    rng = np.random.default_rng(0)
    people = rng.normal(0.5, 0.1, 10)

    def side(shifts):
        return [report_of([(p + s, 1) for p in people]) for s in shifts]

    same = paired.compare(side([0.0]), side([0.05]))["splits"]["test"]["metrics"]["rmse_ratio"]
    assert same["p"] < 0.01 and same["high"] - same["low"] < 1e-6
    spread = paired.compare(side([-0.1, 0, 0.1]), side([-0.05, 0.05, 0.15]))
    ratio = spread["splits"]["test"]["metrics"]["rmse_ratio"]
    assert ratio["difference"] == pytest.approx(0.05) and ratio["low"] < 0 < ratio["high"]
    assert ratio["p"] > 0.2 and ratio["detectable"] > 0.1


@pytest.fixture
def runs(shards, stand_in, tmp_path, monkeypatch):
    """Two run folders whose predictors are stand-ins: b strays twice as far as a."""

    def load(run, step=None):
        noise = {"a": 0.02, "b": 0.04, "a2": 0.02, "elsewhere": 0.02}[run.name]

        def change(truth, request):
            rng = np.random.default_rng([len(truth), int(1000 * noise)])
            out = truth.copy()
            out[:, JAW] += noise * rng.standard_normal(len(truth))
            return out

        model = stand_in(shards, change)
        if run.name == "elsewhere":
            model.config = Config(data=DataConfig(shards=("other",)))
        return model

    monkeypatch.setattr(
        Predictor,
        "load",
        classmethod(lambda cls, run, step=None, **_: load(Path(run), step)),
    )

    def config_of(run):
        return dataclasses.make_dataclass("Found", ["config"])(load(Path(run)).config)

    monkeypatch.setattr(evaluator, "read_config", config_of)
    for name in ("a", "a2", "b", "elsewhere"):
        (tmp_path / name / "checkpoints" / "7").mkdir(parents=True)
        (tmp_path / name / "config.json").write_text("{}")
    return tmp_path


def test_a_run_against_another_is_in_its_report(runs, capsys):
    out = runs / "report.json"
    argv = ["evaluate", str(runs / "a"), "--against", str(runs / "b"), "--quick"]
    assert cli.main([*argv, "--out", str(out)]) == 0
    shown = capsys.readouterr().out
    values = report.read(out)
    assert values["against"]["first"] == [f"{runs}/a, step 7"]
    found = values["against"]["splits"]["test_sentences"]["metrics"]["rmse_ratio"]
    assert found["second"] == pytest.approx(2 * found["first"], rel=0.2)
    assert found["people"] == 3 and found["p"] == 0.25
    assert "second: " in shown and report_text.table(values) in shown
    assert values["splits"]["test_sentences"]["baselines"].keys() > {"constant_mean", "rolled"}


def test_several_seeds_on_a_side(runs):
    result = evaluate(
        str(runs / "a"),
        quick=True,
        more=[runs / "a2"],
        against=[runs / "b"],
        splits=["test_subjects"],
    )
    assert len(result["against"]["first"]) == 2 and len(result["against"]["second"]) == 1


def test_patterns_and_lists_name_sets_of_runs(runs):
    argv = ["evaluate", f"{runs}/a*", "--against", f"{runs}/b,{runs}/a2", "--quick"]
    assert cli.main([*argv, "--split", "test_subjects", "--out", str(runs / "r.json")]) == 0
    against = report.read(runs / "r.json")["against"]
    assert [len(against[side]) for side in ("first", "second")] == [2, 2]


def test_a_run_of_other_data_is_refused_unless_the_clips_are_named(runs, shards, capsys):
    argv = ["evaluate", str(runs / "a"), "--against", str(runs / "elsewhere"), "--quick"]
    out = runs / "r.json"
    assert cli.main([*argv, "--out", str(out)]) == 2
    error = capsys.readouterr().err.splitlines()[-1]
    assert "elsewhere was trained on other" in error and "--data" in error and not out.exists()
    argv += ["--data", str(shards[0]), "--split", "test_subjects", "--out", str(out)]
    assert cli.main(argv) == 0


def test_a_run_without_checkpoints_is_told_first(runs, capsys):
    (runs / "b" / "checkpoints" / "7").rmdir()
    argv = ["evaluate", str(runs / "a"), "--against", str(runs / "b"), "--quick"]
    assert cli.main(argv) == 2
    shown = capsys.readouterr().err
    assert "b: has no checkpoint yet" in shown and "clips" not in shown


def test_files_against_a_run_count_the_same_channels(runs, shards, tmp_path):
    folder = tmp_path / "files"
    for clip in shards[1]:
        if clip.split == "test_subjects":
            (folder / clip.subject).mkdir(parents=True, exist_ok=True)
            data = {"names": ["jawOpen"], "fps": 50, "frames": clip.motion[:, [JAW]].tolist()}
            (folder / f"{clip.id}.json").write_text(json.dumps(data))
    values = a2f.evaluate(
        predictions=folder,
        shards=shards[0],
        split="test_subjects",
        against=[runs / "b"],
        quick=True,
    ).values
    metrics = values["against"]["splits"]["test_subjects"]["metrics"]
    assert metrics["rmse_ratio"]["first"] == pytest.approx(0, abs=1e-6)
    assert metrics["rmse_ratio"]["second"] > 0.01
