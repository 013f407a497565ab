"""A judge whose right answers are known: it hears loudness and looks at the jaw."""

import dataclasses
import json

import numpy as np
import pytest

from a2fjax import configuration, rig, sealed_json
from a2fjax.audio import HOP
from a2fjax.cli import main as cli
from a2fjax.configuration import Config, SyncnetConfig
from a2fjax.data import records
from a2fjax.data.dataset import ClipSource
from a2fjax.errors import InputError
from a2fjax.evaluation import (
    bench,
    eval_clips,
    evaluator,
    judge,
    judge_scale,
    report,
    report_page,
    report_text,
)
from a2fjax.evaluation.beside import Beside
from a2fjax.evaluation.evaluator import evaluate, evaluate_predictions
from a2fjax.evaluation.predictions import Reading
from a2fjax.metrics import sync
from a2fjax.metrics.sums import merge
from a2fjax.sync import verdict
from a2fjax.training import sync_experts, sync_loss

JAW = rig.INDEX["jawOpen"]


class Ear:
    """Hears loudness and looks at the jaw: in this world one follows from the other."""

    name, similarity, audio_reach, motion_reach = "ear", "correlation", 0, 0

    def embed(self, batch, statistics):
        frames = np.asarray(batch.audio)[0].reshape(-1, HOP)
        heard = np.sqrt((frames**2).mean(1))[None, :, None]
        seen = (np.asarray(batch.motion)[..., JAW] * batch.channel_mask[0, JAW])[..., None]
        return heard.astype(np.float32), seen.astype(np.float32)


class Deaf(Ear):
    """Compares the jaw with noise."""

    def embed(self, batch, statistics):
        heard, seen = super().embed(batch, statistics)
        return np.random.default_rng(3).standard_normal(heard.shape).astype(np.float32), seen


GATE = {
    "test_subjects": {
        "people": 3,
        "clips": 6,
        "curve": {
            "offset_ms": [20 * k for k in range(-20, 21)],
            "expert": [float(np.exp(-abs(k) / 3)) for k in range(-20, 21)],
            "linear": [float(np.exp(-abs(k - 1) / 9)) for k in range(-20, 21)],
        },
    }
}


def seat(expert, **more):
    facts = {"run": "runs/judge", "step": 5, "weights": "ab" * 8, "kind": "syncnet", "seed": 1}
    return judge.Judge(expert=expert, **{**facts, "passed": True, **more})


@pytest.fixture
def seated(monkeypatch):
    """Seats a judge: `evaluate(..., sync="runs/judge")` gets this one."""

    def put(expert, **more):
        monkeypatch.setattr(judge, "load", lambda run, unchecked=False: seat(expert, **more))

    return put


def late(frames):
    return lambda g, r: g[np.clip(np.arange(len(g)) - frames, 0, len(g) - 1)]


def seats(folder, expert, split="test_subjects"):
    """Returns the clips of a split before a judge."""
    source = ClipSource([str(folder)], split)
    (chunk,) = eval_clips.SplitClips(source, beside=Beside(judge=seat(expert))).chunks()
    return chunk


def figures(chunk, frames):
    """Returns the judge's figures of the truth so many frames late."""
    parts = [sync.sums(late(frames)(np.asarray(s.clip.motion), None), s.truth) for s in chunk]
    return {name: float(value) for name, value in sync.values(merge(parts)).items()}


def test_lateness_is_found_in_milliseconds_and_beside_the_truth(shards):
    chunk = seats(shards[0], Ear())
    found = {k: figures(chunk, k) for k in (-3, 0, 2, 3)}
    assert found[0]["judge_offset_ms"] == 0 and found[0]["judge_within_40ms"] == 1
    for name in ("distance", "distance_played", "confidence", "offset_ms", "within_40ms"):
        assert found[0][f"judge_{name}"] == found[0][f"judge_{name}_truth"]
        assert found[3][f"judge_{name}_truth"] == found[0][f"judge_{name}_truth"]
    assert found[3]["judge_offset_ms"] == 60 and found[-3]["judge_offset_ms"] == -60
    assert found[2]["judge_within_40ms"] == 1 and found[3]["judge_within_40ms"] == 0
    # The distance at the best offset does not see lateness; as played it does.
    assert found[3]["judge_distance"] == pytest.approx(found[0]["judge_distance"], abs=0.02)
    assert found[0]["judge_distance_played"] == found[0]["judge_distance"] < 0.2
    assert found[3]["judge_distance_played"] > found[2]["judge_distance_played"] + 0.05


def test_the_scores_are_correlations_of_the_windows_that_count(shards):
    sample = seats(shards[0], Ear())[0]
    jaw = sample.clip.motion[:, JAW]
    loud = np.sqrt((sample.clip.audio[: len(jaw) * HOP].reshape(-1, HOP) ** 2).mean(1))
    scores = sample.truth.judged.scores(sample.clip.motion)
    starts = np.flatnonzero(sample.truth.judged.windows)
    assert scores.shape == (41, len(starts)) and len(starts) > 5
    assert starts.min() >= 20 and starts.max() + judge.WINDOW + 20 <= len(jaw)
    for column, start in enumerate(starts):
        seen = jaw[start : start + judge.WINDOW]
        for row, lateness in enumerate(range(-20, 21)):
            heard = loud[start - lateness : start - lateness + judge.WINDOW]
            expected = np.corrcoef(seen, heard)[0, 1]
            assert scores[row, column] == pytest.approx(expected, abs=1e-3)
    total = sync.of_scores(scores, "p")
    mean = scores.mean(1)
    assert total["sync/distance_p"] == pytest.approx(1 - mean.max(), abs=1e-6)
    assert total["sync/confidence_p"] == pytest.approx(mean.max() - np.median(mean), abs=1e-6)
    assert total["sync/played_p"] == pytest.approx(1 - mean[20], abs=1e-6)


def test_windows_count_whose_audio_is_in_the_clip_at_every_lateness(shards, write_set, tmp_path):
    clip = next(c for c in shards[1] if c.id == "u0/0")
    rng = np.random.default_rng(0)
    motion = clip.motion.copy()
    motion[:, JAW] = 0.3 + 0.2 * np.sin(np.arange(len(motion)))
    audio = (0.1 * rng.standard_normal(len(motion) * HOP)).astype(np.float32)
    speaking = dataclasses.replace(clip, motion=motion, audio=audio)  # From its first frame on.
    write_set(tmp_path, [speaking], [records.Subject("u0", None, True)], {})
    (sample,) = seats(tmp_path, Ear())
    last = len(motion) - judge.WINDOW - 20
    assert np.flatnonzero(sample.truth.judged.windows).tolist() == list(range(20, last + 1, 5))


def test_equal_scores_have_no_offset_and_are_not_in_step():
    total = {**sync.nothing(), **sync.of_scores(np.zeros((41, 3)), "p")}
    found = sync.values(total)
    assert np.isnan(found["judge_offset_ms"]) and found["judge_within_40ms"] == 0
    assert found["judge_distance"] == 1 and found["judge_confidence"] == 0
    edge = np.zeros((41, 1))
    edge[[22, 23], 0] = 1.0, 0.5
    found = sync.values({**sync.nothing(), **sync.of_scores(edge, "p")})
    assert found["judge_offset_ms"] == 40 and found["judge_within_40ms"] == 1
    assert all(np.isnan(v) for v in sync.values(sync.nothing()).values())
    # One clip far off moves a mean, and not the median.
    parts = []
    for lateness in (-20, 1, 2):
        one = np.zeros((41, 1))
        one[20 + lateness] = 1.0
        parts.append({**sync.nothing(), **sync.of_scores(one, "p")})
    assert sync.values(merge(parts))["judge_offset_ms"] == 20
    assert sync.values(merge(parts[1:]))["judge_offset_ms"] == 30
    stacked = {k: np.stack([parts[0][k], parts[2][k]]) for k in parts[0]}  # As a bootstrap does.
    assert sync.values(stacked)["judge_offset_ms"].tolist() == [-400, 40]


@pytest.fixture(scope="module")
def result(shards, stand_in):
    """A report of a model that is one frame late."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(judge, "load", lambda run, unchecked=False: seat(Ear(), gate=GATE))
        model = stand_in(shards, late(1))
        found = evaluate(model, splits=["test_subjects"], resamples=20, sync="j")
    return json.loads(json.dumps(found))


def test_a_report_shows_the_scale_and_the_gate(result, tmp_path):
    part = result["splits"]["test_subjects"]
    rows = part["judge"]["rows"]
    assert part["judge"]["orders"] and part["judge"]["clips"] == 8
    assert list(rows) == [
        "truth", "early_100ms", "early_40ms", "late_40ms", "late_100ms", "other_clip",
    ]  # fmt: skip
    for name, value in (
        ("early_100ms", -100),
        ("early_40ms", -40),
        ("truth", 0),
        ("late_40ms", 40),
    ):
        assert rows[name]["judge_offset_ms"] == pytest.approx(value, abs=1)
    played = {name: row["judge_distance_played"] for name, row in rows.items()}
    assert played["truth"] < played["late_40ms"] < played["other_clip"]
    # Baselines and altered conditions have figures too, and so has each person.
    assert part["baselines"]["shifted_2"]["judge_offset_ms"] == pytest.approx(40, abs=1)
    still = part["baselines"]["constant_mean"]
    assert still["judge_distance"] == 1 and still["judge_confidence"] == 0
    assert still["judge_offset_ms"] is None and still["judge_within_40ms"] == 0
    assert part["robustness"]["noise_20db"]["judge_confidence"] > 0.3
    assert part["by_subject"]["u0"]["metrics"]["judge_offset_ms"] == 20
    assert result["judge"]["weights"] == "ab" * 8 and result["judge"]["passed"] is True
    path = tmp_path / "report.json"
    report.write(path, result)
    read = report.read(path)
    text = report_text.table(read)
    assert "judge: runs/judge, step 5, syncnet, seed 1" in text and "another clip's truth" in text
    assert "another clip's 0." in "\n".join(result["headline"])
    page = report_page.page(read)
    assert "Judge of lip sync" in page and page.count("<title>test_subjects, 6 clips") == 1
    assert "the judge is highest at +0 ms" in page and "linear expert is highest at +20 ms" in page


def test_an_unchecked_judge_is_written_into_the_report(result, seated):
    unchecked = {**result, "judge": {**result["judge"], "passed": False}}
    for shown in (report_text.table(unchecked), report_page.page(unchecked)):
        assert "did not pass its gate and was taken with --sync-unchecked" in shown
    seated(Ear(), passed=False)
    told = []
    found = evaluator._judge("runs/judge", True, (), told.append)
    assert not found.describe()["passed"] and "did not pass its gate" in told[0]
    with pytest.raises(InputError, match="--sync-unchecked: goes with --sync RUN"):
        evaluator._judge(None, True, (), told.append)


def test_figures_of_two_judges_are_not_compared(result):
    same = bench.compare([result, result], ["a", "b"])
    assert "judge_offset_ms" in same["splits"]["test_subjects"]["tests"]["b"]["metrics"]
    assert same["notes"] == []
    without = {**result, "judge": None}
    assert bench.compare([result, without], ["a", "b"])["notes"] == []
    another = {**result, "judge": {**result["judge"], "weights": "ef" * 8}}
    other = bench.compare([result, another], ["a", "c"])
    assert other["notes"] == ["figures of the judge left out: 2 different judges"]
    tests = other["splits"]["test_subjects"]["tests"]["c"]["metrics"]
    assert "judge_offset_ms" not in tests and "rmse_ratio" in tests


def test_a_judge_that_cannot_order_the_truth_says_nothing(shards, stand_in, seated):
    seated(Deaf())
    model = stand_in(shards, late(0))
    result = evaluate(model, splits=["test_subjects"], quick=True, sync="j")
    part = result["splits"]["test_subjects"]
    assert not part["judge"]["orders"] and part["judge"]["rows"]["truth"]
    rows = [part["model"], part["baselines"]["shifted_1"]]
    rows += [p["metrics"] for p in part["by_subject"].values()]
    for row in rows:
        assert all(v is None for k, v in row.items() if k.startswith("judge_"))
        assert row["rmse_ratio"] is not None
    (line,) = [line for line in result["headline"] if "mean nothing here and are left out" in line]
    assert line in report_text.table(result) and "Judge of lip sync" in report_page.page(result)


def test_the_order_is_of_means_and_of_clips():
    def scale(truth, near, wrong):
        found = judge_scale.Scale()
        for t, n, w in zip(truth, near, wrong, strict=True):
            row = {"truth": t, "early_40ms": n, "late_40ms": n, "other_clip": w}
            found._clips.append(
                {k: {**sync.nothing(), "sync/played_p": np.array(v)} for k, v in row.items()}
            )
        return found._order()

    few = 0.1 + np.arange(6) / 100
    assert scale(few, few + 0.1, few + 0.2)[0]
    assert "by chance (p = 0.062)" in scale(few[:4], few[:4] + 0.1, few[:4] + 0.2)[1]
    assert not scale(few, few + 0.2, few + 0.1)[0] and not scale(few, few - 0.1, few + 0.1)[0]
    # Most clips in order do not make up for means that are not.
    many = 0.1 + np.arange(8) / 100
    outlier = many + 0.1 + 5.0 * (np.arange(8) == 0)
    assert "in this order" in scale(many, outlier, many + 0.2)[1]
    mixed = few + np.array([0.5, -0.1, 0.5, -0.1, 0.5, -0.1])
    assert "by chance" in scale(few, mixed, mixed + 0.1)[1]


def test_clips_without_speech_do_not_count_as_nought(shards, write_set, tmp_path):
    _, clips = shards
    quiet = [
        dataclasses.replace(c, audio=(1e-3 * c.audio).astype(np.float32)) if c.id == "u0/0" else c
        for c in clips
        if c.split == "test_subjects"
    ]
    people = [records.Subject(name, None, True) for name in ("u0", "u1")]
    write_set(tmp_path, quiet, people, {})
    chunk = seats(tmp_path, Ear())
    silent = [s for s in chunk if not s.truth.judged.windows.any()]
    assert [s.clip.id for s in silent] == ["u0/0"] and len(chunk) == 8
    of_all, of_others = (figures(c, 3) for c in (chunk, [s for s in chunk if s is not silent[0]]))
    assert of_all == pytest.approx(of_others) and of_all["judge_offset_ms"] == 60
    assert all(np.isnan(v) for v in figures(silent, 3).values())
    scale = judge_scale.Scale()
    for i, sample in enumerate(chunk):
        scale.add(sample, chunk[i - 1])
    found = scale.result()
    assert found["without_speech"] == 1 and found["clips"] == 7


def test_curves_of_any_program_are_judged_on_their_channels(shards, seated, tmp_path):
    folder, clips = shards
    for clip in clips:
        if clip.split == "test_subjects":
            path = tmp_path / "theirs" / f"{clip.id}.csv"
            path.parent.mkdir(parents=True, exist_ok=True)
            moved = late(2)(clip.motion, None)[:, [JAW, rig.INDEX["mouthSmileLeft"]]]
            lines = ["frame,jawOpen,mouthSmileLeft"]
            lines += [f"{t},{jaw:.5f},{smile:.5f}" for t, (jaw, smile) in enumerate(moved)]
            path.write_text("\n".join(lines) + "\n")
    seated(Ear())
    given = {"reading": Reading(fps=50), "quick": True, "sync": "j"}
    found = evaluate_predictions(tmp_path / "theirs", [folder], ["test_subjects"], **given)
    model = found["splits"]["test_subjects"]["model"]
    assert model["judge_offset_ms"] == pytest.approx(40, abs=1)


def record(run, *, seed=0, **more):
    """Writes the record of a run's loss, and the configuration of its expert."""
    expert = run.parent / "expert"
    facts = {"run": str(expert), "step": 9, "weights": "cd" * 8, "kind": "syncnet", "passed": True}
    for folder in (run, expert):
        folder.mkdir(exist_ok=True)
    resolved = configuration.Resolved(Config(model=SyncnetConfig(), seed=seed), {})
    (expert / "config.json").write_text(resolved.to_json())
    record = sealed_json.seal({"experts": [{**facts, "scale": 1.0, "gap": 1.0, **more}]})
    (run / sync_loss.FILE).write_text(json.dumps(record))


def test_a_run_is_not_judged_by_the_expert_of_its_loss(tmp_path, shards, stand_in, seated):
    run = tmp_path / "run"
    told = []
    judge.refuse_if_trained_with(run, seat(Ear()), say=told.append)  # No record: nothing to refuse.
    record(run, kind="syncnet_inverse")
    judge.refuse_if_trained_with(run, seat(Ear()), say=told.append)
    assert told == []
    record(run, seed=1)
    judge.refuse_if_trained_with(run, seat(Ear()), say=told.append)
    assert "is like the expert that trained" in told[0] and "(kind syncnet, seed 1)" in told[0]
    record(run, weights="ab" * 8, seed=4)
    with pytest.raises(InputError, match="--sync runs/judge: is the expert that trained .*run"):
        judge.refuse_if_trained_with(run, seat(Ear()))
    seated(Ear())
    for given in ({"folder": run}, {"against": [run]}, {"more": [run]}):
        with pytest.raises(InputError, match="is the expert that trained"):
            evaluate(stand_in(shards, late(0)), sync="j", **given)
    text = (run / sync_loss.FILE).read_text()
    (run / sync_loss.FILE).write_text(text.replace("ab" * 8, "cd" * 8))
    with pytest.raises(InputError, match="sync_experts.json: was changed after it was written"):
        judge.refuse_if_trained_with(run, seat(Ear()))


def test_a_judge_has_passed_its_gate(tmp_path, monkeypatch):
    config = Config(model=SyncnetConfig(), seed=3)
    loaded = sync_experts.LoadedExpert(Ear(), config, 5, "ab" * 8, passed=False)
    monkeypatch.setattr(sync_experts, "load", lambda run, step=None: loaded)
    with pytest.raises(InputError, match="step 5 has not passed the gate; run `a2fjax evaluate"):
        judge.load(tmp_path)
    found = judge.load(tmp_path, unchecked=True)
    assert (found.passed, found.gate, found.kind, found.seed) == (False, {}, "syncnet", 3)
    values = {"schema": 1, "kind": "sync_gate", "rig": rig.FINGERPRINT, "step": 5, "splits": GATE}
    values |= {"weights": "ab" * 8, "verdict": {"passed": True, "lines": []}}
    verdict.write(verdict.path_of(tmp_path, 5), values)
    found = judge.load(tmp_path)
    assert found.passed and found.gate == GATE
    verdict.write(verdict.path_of(tmp_path, 5), {**values, "weights": "other"})
    assert judge.load(tmp_path, unchecked=True).gate == {}


@pytest.mark.parametrize(
    "flags, line",
    [
        (["--sync", "nowhere"], "sync expert nowhere does not exist"),
        (["--sync-unchecked"], "--sync-unchecked: goes with --sync RUN"),
        (["--sync", "j", "--watch"], "--sync: does not go with --watch"),
        (["--sync", "j", "--samples", "2"], "--sync: goes without --samples"),
    ],
)
def test_mistakes_are_one_line(flags, line, tmp_path, capsys):
    assert cli.main(["evaluate", str(tmp_path), *flags]) == 2
    error = capsys.readouterr().err.strip().splitlines()
    assert line in error[-1]
