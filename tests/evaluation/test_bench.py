"""Reports of several labs: laid together if they did the same work, else refused by name."""

import copy
import dataclasses
import json
import shutil

import numpy as np
import pytest

import a2fjax as a2f
from a2fjax import rig
from a2fjax.cli import main as cli
from a2fjax.data import records
from a2fjax.errors import InputError
from a2fjax.evaluation import bench, report, significance
from a2fjax.evaluation.evaluator import evaluate

JAW = rig.INDEX["jawOpen"]
SPLIT = "test_subjects"


@pytest.fixture(scope="module")
def reports(shards, stand_in):
    def measure(gain):
        model = stand_in(shards, lambda g, r: gain * g)
        return json.loads(json.dumps(evaluate(model, quick=True)))

    return [measure(gain) for gain in (0.9, 0.8, 0.7)]


def test_reports_lie_beside_each_other(reports, tmp_path, capsys):
    paths = []
    for name, values in zip("abc", reports, strict=True):
        paths.append(tmp_path / f"{name}.json")
        report.write(paths[-1], values)
    out = tmp_path / "out" / "all.json"
    assert cli.main(["compare", *map(str, paths), "--out", str(out)]) == 0
    shown = capsys.readouterr().out
    values = json.loads(out.read_text())
    part = values["splits"][SPLIT]
    ratios = [part["rows"][f"{n}.json"]["rmse_ratio"] for n in "abc"]
    assert ratios == [r["splits"][SPLIT]["model"]["rmse_ratio"] for r in reports]
    assert list(part["tests"]) == ["b.json", "c.json"] and part["people"] == 2
    assert f"{SPLIT}: 8 clips, 2 people" in shown and "a.json, then c.json" in shown
    # All headline figures of both pairs are one family.
    tests = [part["tests"][n]["metrics"] for n in ("b.json", "c.json")]
    p = [t[m]["p"] for t in tests for m in report.HEADLINE if m in t]
    adjusted = [t[m]["p_holm"] for t in tests for m in report.HEADLINE if m in t]
    assert adjusted == significance.holm(p)
    frame = a2f.compare_reports(*paths).to_pandas()
    assert frame.loc[(SPLIT, "b.json"), "rmse_ratio"] == ratios[1]


def spoil_take(values):
    takes = values["bench"]["takes"][SPLIT]
    takes["u0/1"] = "0" * 16


def spoil_missing(values):
    del values["bench"]["takes"][SPLIT]["u0/1"], values["bench"]["masks"][SPLIT]["u0/1"]


def spoil_mask(values):
    values["bench"]["masks"][SPLIT]["u0/1"] = "0" * 16
    del values["splits"][SPLIT]["by_channel"]["tongueUp"]


def spoil_people(values):
    people = values["splits"][SPLIT]["by_subject"]
    people["v1"] = people.pop("u1")


@pytest.mark.parametrize(
    "spoil, says",
    [
        (spoil_take, "clip 'u0/1' differs in sound or motion"),
        (spoil_missing, r"clip 'u0/1' is in a only \(1 clips in a only, 0 in b only\)"),
        (spoil_mask, r"measure other channels of clip 'u0/1' \(1 channel: tongueUp\)"),
        (
            lambda v: v["bench"]["metrics"].update(mod=2),
            "mod is version 1 in a, 2 in b",
        ),
        (
            lambda v: v["bench"]["thresholds"][SPLIT].update(u1=0.5),
            "closure threshold of u1 is .* other clips of this person",
        ),
        (lambda v: v.update(rig="0" * 16), "other rigs"),
        (spoil_people, "other people"),
        (lambda v: v["splits"].clear(), "no split in common"),
    ],
)
def test_other_work_is_refused_and_named(reports, spoil, says):
    other = copy.deepcopy(reports[1])
    spoil(other)
    with pytest.raises(InputError, match=says):
        bench.compare([reports[0], other], ["a", "b"])


def test_other_names_of_the_same_takes_are_the_same_work(reports):
    other = copy.deepcopy(reports[1])
    for key in ("takes", "masks"):
        found = other["bench"][key][SPLIT]
        other["bench"][key][SPLIT] = {f"their/{name}": value for name, value in found.items()}
    assert SPLIT in bench.compare([reports[0], other], ["a", "b"])["splits"]


def test_ratios_to_other_means_are_left_out(reports):
    other = copy.deepcopy(reports[1])
    other["bench"]["reference"] = "0" * 16
    result = bench.compare([reports[0], other], ["a", "b"])
    part = result["splits"][SPLIT]
    assert "rmse_ratio" not in part["rows"]["a"] and "mod" in part["rows"]["a"]
    assert "rmse_ratio" not in part["tests"]["b"]["metrics"]
    assert "rmse_ratio left out" in bench.table(result)


def test_reports_of_the_previous_schema_are_compared_by_their_shards(reports):
    old = copy.deepcopy(reports[1])
    del old["bench"]
    assert SPLIT in bench.compare([reports[0], old], ["a", "b"])["splits"]
    old["data"][0]["fingerprint"] = "0" * 16
    with pytest.raises(InputError, match="other shards, and one names no takes"):
        bench.compare([reports[0], old], ["a", "b"])


def test_hashes_change_with_what_is_measured_only(shards):
    clip = shards[1][0]
    same = records.decode(records.encode(clip))
    once = bench.take_hash(same)
    assert bench.take_hash(records.decode(records.encode(same))) == once
    renamed = dataclasses.replace(same, id="x", subject="y", split="val")
    assert bench.take_hash(renamed) == once
    motion = same.motion.copy()
    motion[3, JAW] += 1e-3
    frame_mask = same.frame_mask.copy()
    frame_mask[0] = False
    for change in (
        {"motion": motion},
        {"audio": same.audio[::-1]},
        {"speech_level": 0.2},
        {"frame_mask": frame_mask},
    ):
        assert bench.take_hash(dataclasses.replace(same, **change)) != once
    mask = np.ones(72, bool)
    mask[5] = False
    assert bench.mask_hash(mask) != bench.mask_hash(np.ones(72, bool))
    assert bench.mean_hash(np.full(72, -0.0)) == bench.mean_hash(np.zeros(72))


def test_copies_of_shards_elsewhere_are_the_same_work(shards, stand_in, tmp_path):
    shutil.copytree(shards[0], tmp_path / "copy")
    model = stand_in(shards, lambda g, r: 0.9 * g)
    here = evaluate(model, quick=True, splits=[SPLIT])
    there = evaluate(model, [tmp_path / "copy"], [SPLIT], quick=True)
    assert here["bench"] == there["bench"]
    part = bench.compare([here, there], ["a", "b"])["splits"][SPLIT]
    assert part["tests"]["b"]["metrics"]["mod"]["difference"] == 0


def test_mistakes_of_the_command_are_one_line(reports, tmp_path, capsys):
    path = tmp_path / "a.json"
    report.write(path, reports[0])
    broken = tmp_path / "b.json"
    broken.write_text(json.dumps(reports[0] | {"bench": {"takes": 3, "metrics": {}}}))
    for argv, says in (
        ([str(path)], "at least two"),
        ([str(path), str(tmp_path / "none.json")], "no such file"),
        ([str(path), str(broken)], "damaged"),
        ([str(path), str(path), "--wrong"], "unexpected argument"),
    ):
        assert cli.main(["compare", *argv]) == 2
        error = capsys.readouterr().err
        assert says in error and error.count("\n") == 1
