"""The report on a small set of shards, with stand-in models whose right answers are known."""

import dataclasses
import json
import re

import numpy as np
import pytest

import a2fjax as a2f
from a2fjax import rig
from a2fjax.cli import main as cli
from a2fjax.configuration import Config, DataConfig
from a2fjax.data import records
from a2fjax.errors import InputError, WorkFailed
from a2fjax.evaluation import baselines, comparison, conditions, eval_clips, report, report_text
from a2fjax.evaluation.evaluator import evaluate


def test_a_perfect_model_and_its_baselines(shards, stand_in):
    result = evaluate(stand_in(shards, lambda g, r: g), resamples=100)
    assert list(result["splits"]) == ["test_sentences", "test_subjects"]
    part = result["splits"]["test_sentences"]
    assert (part["clips"], part["subjects"], part["skipped"]) == (6, 3, [])
    model, rows = part["model"], part["baselines"]
    assert model["rmse_ratio"] == 0 and model["closure_recall"] == model["closure_precision"] == 1
    assert set(rows) == set(baselines.NAMES) - {"second_take", "viseme_rule"}
    assert set(part["robustness"]) == set(conditions.NAMES)
    assert rows["constant_mean"]["rmse_ratio"] == 1
    assert rows["constant_mean"]["xcorr_lag_ms"] is None
    for frames in (1, 2, 5):
        assert rows[f"shifted_{frames}"]["xcorr_lag_ms"] == pytest.approx(20 * frames, abs=2)
    ratios = [rows[f"shifted_{k}"]["rmse_ratio"] for k in (1, 2, 5)]
    assert 0 < ratios[0] < ratios[1] < ratios[2]
    assert rows["another_take"]["amp_ratio/jaw_mouth"] == pytest.approx(1, abs=0.5)
    assert rows["rolled"]["closure_recall"] < 0.8 < 1
    assert result["synthetic"] is True and result["step"] == 7
    assert set(part["by_emotion"]) == {"happy", "sad"}
    assert sum(p["clips"] for p in part["by_subject"].values()) == 6


def test_the_constant_mean_is_the_training_set_s(shards, stand_in):
    folder, clips = shards
    mean = np.concatenate([c.motion for c in clips if c.split == "train"]).mean(0)
    jaw = rig.GROUPS["jaw_mouth"]
    result = evaluate(stand_in(shards, lambda g, r: g + 0.01), splits=["test_subjects"], quick=True)
    test = np.concatenate([c.motion for c in clips if c.split == "test_subjects"])
    expected = np.sqrt(((test - mean)[:, jaw] ** 2).mean())
    part = result["splits"]["test_subjects"]
    got = part["baselines"]["constant_mean"]["bs_rmse/jaw_mouth"]
    assert got == pytest.approx(expected, rel=1e-5)
    assert part["model"]["rmse_ratio"] == pytest.approx(0.01 / expected, rel=1e-4)


def test_the_emotion_mean_follows_the_emotion(shards):
    folder, clips = shards
    known = baselines.training_statistics([str(folder)])
    train = [c for c in clips if c.split == "train"]
    angry = np.concatenate([c.motion for c in train if c.emotion[0, 2] == 1]).mean(0)
    np.testing.assert_allclose(known.emotion_mean[2], angry, atol=1e-6)
    np.testing.assert_allclose(known.emotion_mean[1], known.mean, atol=1e-6)


def test_shuffles_change_what_they_say_and_nothing_else(shards, people):
    folder, clips = shards
    source = eval_clips.ClipSource([str(folder)], "test_sentences")
    (chunk,) = eval_clips.SplitClips(source).chunks()
    points = {p: np.full((4, 3), i, np.float32) for i, p in enumerate(people)}
    for i, sample in enumerate(chunk):
        true = conditions.request(sample, points)
        got = {n: conditions.altered_request(n, i, chunk, points, seed=0) for n in conditions.NAMES}
        assert got["mean_identity"].identity is None
        for name in ("shuffled_identity", "shuffled_both"):
            assert not np.array_equal(got[name].identity, true.identity)
        for name in ("shuffled_emotion", "shuffled_both"):
            assert got[name].emotion.shape == true.emotion.shape
            assert got[name].emotion[0].argmax() != true.emotion[0].argmax()
        np.testing.assert_array_equal(got["shuffled_both"].emotion, got["shuffled_emotion"].emotion)
        noise = got["noise_20db"].audio - true.audio
        assert 20 * np.log10(0.1 / noise.std()) == pytest.approx(20, abs=0.2)
        for name in ("mean_identity", "shuffled_emotion", "shuffled_both"):
            assert got[name].audio is true.audio
        again = conditions.altered_request("noise_20db", i, chunk, points, seed=0)
        np.testing.assert_array_equal(again.audio, got["noise_20db"].audio)


def test_a_model_that_uses_identity_is_told_apart_from_one_that_does_not(shards, stand_in):
    def uses(truth, request):
        # The first point's first coordinate is the person's; the truth was made without it.
        return truth + (0.2 if request.identity is None else 0.0)

    result = evaluate(stand_in(shards, uses), splits=["test_sentences"], resamples=10)
    part = result["splits"]["test_sentences"]
    rows = part["robustness"]
    assert rows["mean_identity"]["rmse_ratio"] > 0.5
    assert rows["shuffled_emotion"]["rmse_ratio"] == 0
    change = part["difference"]["mean_identity"]["rmse_ratio"]
    each = [p["metrics"]["rmse_ratio"] for p in part["by_subject"].values()]
    assert each == [0, 0, 0] and change["difference"] > 0.5
    # Three people: 2 of 8 sign patterns are as far, and no interval of 95 % exists.
    assert change["p"] == 0.25 and change["low"] is None and change["detectable"] is None
    unchanged = part["difference"]["shuffled_emotion"]["rmse_ratio"]
    assert unchanged["difference"] == 0 and unchanged["p"] == 1
    text = report_text.table(result)
    assert "what a condition adds to the ratio (paired over 3 people)" in text
    assert "(p = 0.250)" in "\n".join(result["headline"])


def test_reports_of_the_previous_schema_are_shown(shards, stand_in, tmp_path):
    result = evaluate(stand_in(shards, lambda g, r: 0.9 * g), resamples=10)
    old = json.loads(json.dumps(result)) | {"schema": 1}
    del old["predictions"]
    for part in old["splits"].values():
        for tests in part["difference"].values():
            for name in tests:
                tests[name] = [0.125, 0.25]
        part["difference"]["no_emotion"] = {"rmse_ratio": None}
        part["robustness"]["no_emotion"] = part["model"]
        part["model"]["slcc"] = 0.625
    path = tmp_path / "old.json"
    path.write_text(json.dumps(old))
    model = report.read(path)["splits"]["test_subjects"]["model"]
    assert model["loudness_corr"] == 0.625 and "slcc" not in model
    text = report_text.table(report.read(path))
    assert "+0.125" in text and "files of" not in text and "no_emotion" in text
    path.write_text(json.dumps(old | {"schema": 3}))
    with pytest.raises(InputError, match="schema 3, this version reads 1 and 2"):
        report.read(path)
    path.write_text(json.dumps(old | {"splits": {"test": {"model": {}}}}))
    with pytest.raises(InputError, match="has no splits.test.baselines"):
        report.read(path)


def test_only_models_that_were_not_told_emotions_are_asked_without(shards, stand_in):
    model = stand_in(shards, lambda g, r: g + 0.1 * (not r.emotion.any()))
    plain = evaluate(model, splits=["test_sentences"], resamples=10)
    assert "no_emotion" not in plain["splits"]["test_sentences"]["robustness"]
    model.config = Config(
        data=model.config.data, model=dataclasses.replace(model.config.model, emotion_dropout=0.1)
    )
    asked = evaluate(model, splits=["test_sentences"], resamples=10)["splits"]["test_sentences"]
    assert asked["difference"]["no_emotion"]["rmse_ratio"]["difference"] > 0


def test_people_of_the_run_s_own_shards_are_called_by_name(shards, tmp_path, stand_in):
    import shutil

    names = []
    model = stand_in(shards, lambda g, r: (names.append(r.subject), g)[1])
    model.subjects = ("p0", "p1", "p2")
    evaluate(model, splits=["test_sentences"], quick=True)
    assert set(names) == {"p0", "p1", "p2"}
    names.clear()
    evaluate(model, splits=["test_subjects"], quick=True)
    assert set(names) == {None}
    # The same names in another set are other people.
    names.clear()
    shutil.copytree(shards[0], tmp_path / "copy")
    evaluate(model, [tmp_path / "copy"], ["test_sentences"], quick=True)
    assert set(names) == {None}


def test_intervals_are_over_people(shards, stand_in):
    def worse_for_some(truth, request):
        return truth + (0 if request.identity is None else 0.1 * np.abs(request.identity[0, 0]))

    result = evaluate(stand_in(shards, worse_for_some), splits=["test_sentences"], resamples=300)
    part = result["splits"]["test_sentences"]
    low, high = part["interval"]["rmse_ratio"]
    each = [p["metrics"]["rmse_ratio"] for p in part["by_subject"].values()]
    assert min(each) - 1e-9 <= low < part["model"]["rmse_ratio"] < high <= max(each) + 1e-9


def test_the_report_is_json_a_table_and_a_headline(shards, tmp_path, capsys, stand_in):
    measured = a2f.evaluate(stand_in(shards, lambda g, r: 0.8 * g + 0.02), resamples=50)
    result = measured.values
    rows = measured.to_pandas()
    ratio = result["splits"]["test_subjects"]["model"]["rmse_ratio"]
    assert rows.loc[("test_subjects", "model"), "rmse_ratio"] == ratio
    assert ("test_sentences", "model, noise_20db") in rows.index
    path = tmp_path / "new" / "report.json"
    report.write(path, result)
    assert report.read(path) == json.loads(path.read_text()) == json.loads(json.dumps(result))
    assert [p.name for p in path.parent.iterdir()] == ["report.json"]
    text = report_text.table(result)
    assert "synthetic" in text and "95% low" in text and "model, noise_20db" in text
    block = text.split("\n\n")[1].splitlines()
    assert len({len(line) for line in block[1:]}) == 1, "columns are aligned"
    assert re.search(r"amplitude 0\.80", "\n".join(result["headline"]))
    assert not any(g in "\n".join(result["headline"]) for g in ("brow", "eye"))
    assert cli.main(["evaluate", "nowhere", "--show", str(path)]) == 0
    assert capsys.readouterr().out.strip() == text


@pytest.mark.parametrize(
    ("keys", "value", "says"),
    [
        (("splits",), [], "splits is \\[\\], expected an object"),
        (("splits", "test_subjects", "model", "mod"), "x", "model.mod is 'x', expected a finite"),
        (("splits", "test_subjects", "model", "mod"), float("nan"), "mod is nan, expected a fin"),
        (("splits", "test_subjects", "interval", "mod"), [1], "interval.mod.*expected 2 values"),
        (("splits", "test_subjects", "by_subject", "u0"), 3, "by_subject.u0 is 3"),
        (("splits", "test_subjects", "seconds"), None, "seconds is None"),
        (("headline",), "text", "headline is 'text', expected a list"),
        (("schema",), 9, "schema 9, this version reads 1 and 2"),
    ],
)
def test_a_report_with_a_damaged_value_is_refused(shards, stand_in, tmp_path, keys, value, says):
    model = stand_in(shards, lambda g, r: g)
    made = evaluate(model, splits=["test_subjects"], quick=True, resamples=2)
    report.write(tmp_path / "report.json", made)
    assert report_text.table(report.read(tmp_path / "report.json")) == report_text.table(made)
    inner = made
    for key in keys[:-1]:
        inner = inner[key]
    inner[keys[-1]] = value
    (tmp_path / "report.json").write_text(json.dumps(made))
    with pytest.raises(InputError, match=says):
        report.read(tmp_path / "report.json")


def test_a_metric_that_a_report_lacks_is_shown_as_unknown(shards, stand_in):
    made = evaluate(stand_in(shards, lambda g, r: g), splits=["test_subjects"], resamples=2)
    part = made["splits"]["test_subjects"]
    for row in (part["model"], *part["robustness"].values()):
        del row["rmse_ratio"], row["bs_mae/jaw_mouth"]
    del part["by_subject"]["u0"]["metrics"]["rmse_ratio"]
    lines = [line.split() for line in report_text.table(made).splitlines()]
    assert next(line for line in lines if line[:1] == ["model"])[1] == "-"
    assert next(line for line in lines if line[:1] == ["jaw_mouth"])[1] == "-"


def test_the_same_seed_gives_the_same_report(shards, stand_in):
    one, two = (
        evaluate(stand_in(shards, lambda g, r: g * 0.9), splits=["test_subjects"], resamples=20)
        for _ in range(2)
    )
    assert one == two


def test_quick_is_fewer_rows(shards, stand_in):
    result = evaluate(stand_in(shards, lambda g, r: g), quick=True)
    assert all(not p["robustness"] for p in result["splits"].values())
    assert "noise" not in report_text.table(result) and "quick" in report_text.table(result)


def test_limits_take_clips_evenly_and_chunks_keep_people_whole(shards, monkeypatch):
    folder, _ = shards
    source = eval_clips.ClipSource([str(folder)], "test_subjects")
    monkeypatch.setattr(eval_clips, "CHUNK_CLIPS", 4)
    chunks = list(eval_clips.SplitClips(source).chunks())
    assert [[s.subject for s in c] for c in chunks] == [["u0"] * 4, ["u1"] * 4]
    few = [s.clip.id for c in eval_clips.SplitClips(source, limit=3).chunks() for s in c]
    assert few == ["u0/0", "u1/0", "u1/3"]


def test_a_damaged_record_is_named_and_left_out(shards, tmp_path, stand_in):
    import shutil

    from array_record.python.array_record_module import ArrayRecordWriter

    folder, clips = shards
    shutil.copytree(folder, tmp_path / "s")
    writer = ArrayRecordWriter(
        str(tmp_path / "s" / "clips-00000-of-00001.arrayrecord"), "group_size:1"
    )
    for clip in clips:
        data = bytearray(records.encode(clip))
        if clip.id == "u0/1":
            data[100] ^= 255
        writer.write(bytes(data))
    writer.close()
    model = stand_in(shards, lambda g, r: g)
    result = evaluate(model, [tmp_path / "s"], ["test_subjects"], resamples=10)
    part = result["splits"]["test_subjects"]
    assert part["clips"] == 7 and len(part["skipped"]) == 1 and "u0/1" in part["skipped"][0]
    assert "1 unreadable" in report_text.table(result)


def test_mistakes_are_one_line(shards, tmp_path, capsys, stand_in):
    model = stand_in(shards, lambda g, r: g)
    with pytest.raises(InputError, match="did you mean 'test_subjects'"):
        evaluate(model, splits=["test_subject"])
    with pytest.raises(InputError, match="no clips in split 'val'"):
        evaluate(model, splits=["val"])
    with pytest.raises(InputError, match="nowhere"):
        evaluate(model, [tmp_path / "nowhere"])
    with pytest.raises(WorkFailed, match="p0/1.*finite"):
        evaluate(stand_in(shards, lambda g, r: g * np.nan))
    lost = stand_in(shards, lambda g, r: g)
    lost.config = Config(data=DataConfig(shards=("moved",)))
    with pytest.raises(InputError, match="moved does not exist.*--data"):
        evaluate(lost)
    (tmp_path / "bad.json").write_text("{}")
    with pytest.raises(InputError, match="not an evaluation report"):
        report.read(tmp_path / "bad.json")
    for argv in (
        ["evaluate", str(tmp_path / "no_run")],
        ["evaluate", "x", "--sho=1"],
        ["evaluate", "x", "--show", str(tmp_path / "none.json")],
        ["evaluate", "x", "--out", str(tmp_path)],
    ):
        assert cli.main(argv) == 2
        assert capsys.readouterr().err.count("\n") == 1
    assert sorted(p.name for p in tmp_path.iterdir()) == ["bad.json"]


@pytest.mark.slow
def test_a_trained_run_is_evaluated_by_the_command(shards, tmp_path, capsys):
    from a2fjax import configuration
    from a2fjax.training import trainer

    folder, _ = shards
    values = {
        "steps": 3,
        "data.shards": str(folder),
        "data.batch_size": 2,
        "data.window_frames": 32,
        "data.identity_points": 16,
        "model.conv_layers": 1,
        "model.conv_width": 8,
        "model.recurrent_width": 8,
        "optim.warmup_steps": 1,
        "eval.every_steps": 0,
        "checkpoint.keep_best": 0,
    }
    run = tmp_path / "run"
    overrides = {k: str(v) for k, v in values.items()}
    trainer.train(configuration.load(None, overrides), run, say=lambda line: None)
    assert cli.main(["evaluate", str(run), "--quick", "--split", "test_subjects"]) == 0
    shown = capsys.readouterr()
    result = report.read(run / "eval" / "3.json")
    part = result["splits"]["test_subjects"]
    assert part["clips"] == 8 and 0.3 < part["model"]["rmse_ratio"] < 3
    assert result["data"][0]["folder"] == str(folder) and result["run"] == str(run)
    assert report_text.table(result) in shown.out and "8 clips, the model" in shown.err
    rows = a2f.compare(run, a2f.load(run), limit=2, split="test_subjects").to_pandas()
    assert len(rows) == 2 and rows.iloc[0].equals(rows.iloc[1])
    assert cli.main(["evaluate", str(run), "--step", "2"]) == 2
    assert cli.main(["evaluate", str(run), "--split", "test_subject"]) == 2
    assert sorted(p.name for p in (run / "eval").iterdir()) == ["3.json"]
    argv = ["evaluate", str(run), "--watch", "--quick", "--split", "test_subjects"]
    assert cli.main(argv) == 0
    assert "best: step 3, rmse_ratio" in capsys.readouterr().out
    # The best checkpoint is a run of its own: the same figures.
    kept = run / "eval" / "best"
    assert cli.main(["evaluate", str(kept), "--quick", "--split", "test_subjects"]) == 0
    again = report.read(kept / "eval" / "3.json")
    assert again["splits"]["test_subjects"]["model"] == part["model"]
    against = ["evaluate", str(run), "--quick", "--against", str(kept), "--split", "test_subjects"]
    assert cli.main([*against, "--out", str(tmp_path / "against.json")]) == 0
    test = report.read(tmp_path / "against.json")["against"]["splits"]["test_subjects"]["metrics"]
    assert test["rmse_ratio"]["difference"] == 0 and test["rmse_ratio"]["p"] == 1


def test_a_sentence_without_closures_borrows_the_threshold_of_the_persons_other_clips(
    tmp_path, write_clip, write_set
):
    """Measured alone, a clip whose lips never meet would count its narrowest vowels as closures."""
    rng = np.random.default_rng(5)
    closing = write_clip("p0", 0, "train", "neutral", rng)
    opening = write_clip("p0", 1, "test_sentences", "neutral", rng)
    opening.motion[:, rig.INDEX["jawOpen"]] += 0.3
    clips = [closing, opening]
    write_set(tmp_path, clips, [records.Subject("p0", None, False)], {})
    source = eval_clips.ClipSource([str(tmp_path)], "test_sentences")
    ((alone,),) = eval_clips.SplitClips(source).chunks()
    others = [eval_clips.ClipSource([str(tmp_path)], "train")]
    ((helped,),) = eval_clips.SplitClips(source, companions=others).chunks()
    assert helped.clip.id == alone.clip.id == opening.id
    assert alone.truth.threshold > 0.29
    assert helped.truth.threshold < 0.1


def drawn(jaw, upper):
    """A model whose samples stray from the truth by so much, in the jaw and in an eyelid."""

    def change(truth, request):
        rng = np.random.default_rng([request.sample_index, len(truth)])
        out = truth.copy()
        out[:, rig.INDEX["jawOpen"]] += jaw * rng.standard_normal()
        out[:, rig.INDEX["eyeBlinkLeft"]] += upper * rng.standard_normal(len(truth))
        return np.clip(out, 0, 1)

    return change


@pytest.fixture
def compared(stand_in):
    """Returns a function of (shards, *rows) that compares rows of stand-ins."""

    def run(shards, *rows):
        return comparison.compare(
            [comparison.Row(name, stand_in(shards, f), count) for name, f, count in rows]
        )

    return run


def test_samples_that_are_the_truth_are_perfect_and_all_alike(shards, compared):
    result = compared(shards, ("truth", lambda g, r: g, 4))
    row = result["splits"]["test_subjects"]["rows"]["truth"]
    assert row["mean"] == row["single"] == row["best"] == 0
    assert row["fd"] == pytest.approx(0, abs=1e-6) and row["multi"] == 0
    assert row["mouth"] == row["upper"] == row["blink"] == 0
    assert row["amp"] == pytest.approx(1) and row["recall"] == 1
    # Few clips: halves of the truth are far apart, and the report says so.
    assert result["splits"]["test_subjects"]["floor"]["fd"] > 0


def test_clips_that_lack_channels_have_no_distribution(
    shards, tmp_path, write_set, compared, people
):
    """Windows of a distribution need every weight; the other figures are measured all the same."""
    mask = np.ones(72, bool)
    mask[rig.INDEX["tongueUp"]] = False
    clips = [dataclasses.replace(clip, channel_mask=mask) for clip in shards[1]]
    subjects = [records.Subject(s, None, h) for s, h in people.items()]
    write_set(tmp_path, clips, subjects, {})
    result = compared((tmp_path, clips), ("truth", lambda g, r: g, 2))
    row = result["splits"]["test_subjects"]["rows"]["truth"]
    assert row["fd"] is None and row["fd_mouth"] is None and row["single"] == 0
    assert "truth" in comparison.table(result)


def test_means_and_best_samples_beat_single_ones_and_spreads_are_told_apart(shards, compared):
    rows = compared(
        shards,
        ("jaw", drawn(0.05, 0.0), 8),
        ("lids", drawn(0.0, 0.1), 8),
        ("one", drawn(0.05, 0.0), 1),
    )["splits"]["test_subjects"]["rows"]
    assert rows["jaw"]["best"] < rows["jaw"]["mean"] < rows["jaw"]["single"]
    assert rows["jaw"]["mouth"] > 0.1 and rows["jaw"]["upper"] == 0
    assert rows["lids"]["mouth"] == 0 and rows["lids"]["upper"] > 0.1
    assert rows["lids"]["mean"] == 0 and rows["lids"]["multi"] > 0
    # A motion that stands still is further from the true ones than one that strays.
    assert rows["one"].get("mouth") is None and rows["one"]["multi"] is None
    still = compared(shards, ("still", lambda g, r: 0 * g + g.mean(0), 1))
    found = still["splits"]["test_subjects"]["rows"]["still"]
    assert found["fd_mouth"] > 2 * rows["lids"]["fd_mouth"] and found["amp"] == 0


def test_the_table_of_samples_has_a_line_a_row(shards, compared):
    result = compared(shards, ("a", lambda g, r: g, 2), ("b", drawn(0.1, 0.1), 2))
    lines = comparison.table(result).splitlines()
    assert sum(line.startswith("a ") for line in lines) == 2
    assert sum(line.startswith("b ") for line in lines) == 2
    assert all(column.label in lines[1] for column in comparison.columns())


@pytest.mark.parametrize(
    "arguments, says",
    [
        (["--against", "nowhere*"], "no folder fits"),
        (["--limit", "3"], "--limit: goes with --samples"),
        (["--samples", "0"], "samples=0"),
        (["--samples", "2", "--phones", "x"], "--phones: goes without --samples"),
        (["--samples", "2", "--sample-steps", "1,b"], "--sample-steps 1,b"),
    ],
)
def test_flags_of_samples_are_checked_before_anything_is_read(arguments, says, capsys):
    assert cli.main(["evaluate", "nowhere", *arguments]) == 2
    assert says in capsys.readouterr().err


def test_phones_and_a_face_give_their_metrics(shards, stand_in, tmp_path):
    folder, clips = shards
    for clip in clips:
        shut = clip.motion[:, rig.INDEX["jawOpen"]] < 0.01
        at = (np.flatnonzero(shut[1:-1])[::4] + 1) / 50
        lines = [f"{clip.id} 1 {t:.3f} 0.02 {label}" for t in at for label in ("P",)]
        path = tmp_path / "phones" / f"{clip.id}.ctm"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text("\n".join(lines))
    shapes = np.zeros((3, 40, 3))
    shapes[0, :9, 1], shapes[1, :9, 2], shapes[2, 30:, 1] = -20, 5, 4
    head = {"neutral": np.random.default_rng(0).uniform(-90, 90, (40, 3)), "deltas": shapes}
    np.savez(tmp_path / "head.npz", names=["jawOpen", "mouthPucker", "eyeBlinkLeft"], **head)
    given = {"phones": tmp_path / "phones", "face": tmp_path / "head.npz"}
    model = stand_in(shards, lambda g, r: g + 0.1 * (np.arange(72) == rig.INDEX["jawOpen"]))
    result = evaluate(model, splits=["test_sentences"], quick=True, **given)
    part = result["splits"]["test_sentences"]
    assert part["model"]["phone_closed_rate"] == 0 < 1 == part["model"]["phone_closed_rate_truth"]
    assert part["model"]["lve_max"] == pytest.approx(2.0, rel=1e-5)
    assert part["baselines"]["shifted_5"]["phone_closed_rate"] < 0.6
    assert result["face"] and "  pbm" in report_text.table(result)
    plain = evaluate(model, splits=["test_sentences"], quick=True)
    assert plain["face"] is None and "  pbm" not in report_text.table(plain)
    with pytest.raises(InputError, match="no alignment is named as a clip"):
        evaluate(model, phones=folder, splits=["test_sentences"], quick=True)
