"""Every value is described, and docs/metrics.md is what the code says."""

import dataclasses
from pathlib import Path

import numpy as np
import pytest

from a2fjax import registry
from a2fjax.metrics import document, suite
from a2fjax.metrics.column import Column
from a2fjax.metrics.reference import reference
from a2fjax.metrics.sums import divide, merge

ROOT = Path(__file__).parents[2]


def random_clip(seed, frames=300):
    rng = np.random.default_rng(seed)
    motion = rng.random((frames, 72))
    motion[:, 68:] *= 20
    truth = reference(
        motion,
        0.1 * rng.standard_normal(frames * 320),
        channel_mask=np.ones(72, bool),
        frame_mask=np.ones(frames, bool),
        speech_level=0.1,
    )
    return dataclasses.replace(truth, threshold=0.2), rng


def test_the_document_is_current():
    current = (ROOT / "docs" / "metrics.md").read_text()
    assert current == document.text(), "python -m a2fjax.metrics.document > docs/metrics.md"


def test_every_value_is_described_once_and_lies_in_its_range():
    parts, drawn = [], []
    for seed in range(3):
        truth, rng = random_clip(seed)
        samples = np.clip(truth.motion + 0.2 * rng.standard_normal((3, *truth.motion.shape)), 0, 1)
        parts.append(("ab"[seed % 2], suite.sums(samples[0], truth)))
        drawn.append(suite.sample_sums(samples, truth))
    for values, metrics in (
        (suite.values(suite.merge_clips(parts)), suite.metrics()),
        (suite.sample_values(merge(drawn)), suite.sample_metrics()),
    ):
        described = [c for metric in metrics.values() for c in metric.columns]
        for name, value in values.items():
            (column,) = [c for c in described if c.describes(name)]
            assert column.formula and column.mask and column.version >= 1, name
            low, high = column.range
            assert np.isnan(value) or low <= value <= high, (name, value)
        for column in described:
            assert any(column.describes(name) for name in values), column.value
            if column.better not in ("", "lower", "higher"):
                assert column.better in values or float(column.better) >= 0


class Jerk:
    """A stranger's metric."""

    columns = (Column("jerk", "jerk", "third difference", unit="1/s^3", formula="mean |d3 p|"),)

    @staticmethod
    def sums(prediction, truth):
        return {"jerk/sum": np.abs(np.diff(prediction, n=3, axis=0)).sum(), "jerk/n": 1.0}

    @staticmethod
    def values(total):
        return {"jerk": divide(total["jerk/sum"], total["jerk/n"])}


@pytest.mark.parametrize("known", [registry.metrics, registry.sample_metrics], ids=lambda r: r.kind)
def test_a_stranger_s_metric_is_documented_too(known):
    known.register("jerk", Jerk)
    try:
        assert "### jerk" in document.text() and "- **`jerk`** (v1; 1/s^3" in document.text()
        assert suite.versions()["jerk"] == 1
    finally:
        del known._entries["jerk"]


def test_an_unknown_package_is_one_line(capsys):
    assert document.main(["no_such_package"]) == 2
    assert capsys.readouterr().err.count("\n") == 1
