"""The table of the ablation, on reports whose answers are known."""

import importlib.util
from pathlib import Path

import numpy as np
import pytest


@pytest.fixture(scope="module")
def ablation():
    root = Path(__file__).resolve().parents[2]
    spec = importlib.util.spec_from_file_location(
        "sync_ablation", root / "benchmarks" / "sync_ablation.py"
    )
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_an_ablation_that_stops_early_is_balanced(ablation, monkeypatch, tmp_path, capsys):
    trained = []

    def train(args, name, seed, experts):
        if len(trained) == 4:
            raise KeyboardInterrupt
        trained.append((name, seed))
        return tmp_path

    row = {"clips": 1, "metrics": {"rmse_ratio": 0.5, "corr/jaw_mouth": 0.6,
           "closure_recall": 0.5, "amp_ratio/jaw_mouth": 1.0}}  # fmt: skip
    part = {"subjects": 2, "clips": 2, "by_subject": {"a": row, "b": row}, "variety": None}
    monkeypatch.setattr(ablation, "train", train)
    monkeypatch.setattr(ablation, "measure", lambda args, run: part)
    words = [
        "x",
        str(tmp_path),
        "--workdir",
        str(tmp_path),
        "--contrastive",
        "e",
        "--seeds",
        "5,6,7",
    ]
    monkeypatch.setattr("sys.argv", words)
    with pytest.raises(KeyboardInterrupt):
        ablation.main()
    assert trained == [("none", 5), ("contrastive", 5), ("none", 6), ("contrastive", 6)]
    told = capsys.readouterr().out
    assert told.count("2 people, 2 clips, seeds 5\n") == told.count("clips, seeds 5,6\n") == 1
    assert told.count("contrastive: not worth it") == 2


def test_one_table_says_what_the_arms_change(ablation):
    rng = np.random.default_rng(0)
    people = {f"p{i}": rng.normal(size=2) for i in range(10)}

    def part(rmse, corr, amplitude=1.0):
        figures = {
            name: {"rmse_ratio": rmse + 0.02 * a, "corr/jaw_mouth": corr + 0.02 * b,
                   "closure_recall": 0.5, "closure_precision": None,
                   "amp_ratio/jaw_mouth": amplitude}
            for name, (a, b) in people.items()
        }  # fmt: skip
        return {"by_subject": {n: {"clips": 1, "metrics": row} for n, row in figures.items()}}

    parts = {
        "none": [part(0.5, 0.6), part(0.51, 0.6)],
        "contrastive": [part(0.5, 0.63), part(0.51, 0.64)],
        "inverse": [part(0.6, 0.63), part(0.6, 0.64)],
        "both": [part(0.5, 0.6), part(0.51, 0.6)],
    }
    table, conclusions = ablation.compare(parts)
    assert table[0].split() == ["rmse", "/", "none", "corr", "recall", "amp"]
    assert table[1].split()[0] == "none" and table[2].split()[2] == "1.000"
    assert [line.split(": ")[1] for line in conclusions] == [
        "worth it", "not worth it", "not worth it",
    ]  # fmt: skip
    assert "RMSE +19" in conclusions[1] and "neither corr nor recall" in conclusions[2]
    # Samples that become alike are not worth it.
    drawn = {"none": 0.5, "contrastive": 0.46, "inverse": 0.46, "both": 0.44}
    sampled = {n: [{**p, "variety": drawn[n]} for p in runs] for n, runs in parts.items()}
    table, conclusions = ablation.compare(sampled)
    assert table[0].split()[-1] == "variety" and table[1].split()[-1] == "0.500"
    assert conclusions[0].startswith("contrastive: worth it") and "variety 92 %" in conclusions[0]
    sampled["contrastive"] = [{**p, "variety": 0.44} for p in parts["contrastive"]]
    assert ablation.compare(sampled)[1][0].startswith("contrastive: not worth it")
    assert list(ablation.arms("a", "")) == ["none", "contrastive"]
    assert ablation.arms("a", "b")["both"] == {"sync": ["a", "b"]}
    asked = ablation.arms("a", "", "c")
    assert list(asked) == ["none", "contrastive", "adversarial"]
    assert asked["adversarial"] == {"sync_adversary": ["c"]} and asked["none"] == {}
