"""The benchmarks on real recordings, on curves and takes whose answers are known."""

import csv
import importlib.util
import json
import sys
from pathlib import Path

import numpy as np
import pytest

from a2fjax import rig
from a2fjax.errors import InputError

ROOT = Path(__file__).resolve().parents[2]


def script(name):
    spec = importlib.util.spec_from_file_location(name, ROOT / "benchmarks" / f"{name}.py")
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module  # dataclasses look their module up
    spec.loader.exec_module(module)
    return module


speech, takes = script("real_speech"), script("real_takes")
JAW = rig.INDEX["jawOpen"]


def motion_of(opening):
    motion = np.zeros((len(opening), 72))
    motion[:, JAW] = opening
    return motion


def recording(frames=400, pause=(200, 260), phones=None):
    rng = np.random.default_rng(0)
    audio = 0.1 * rng.standard_normal(frames * 320)
    audio *= np.repeat(1 + 0.8 * np.sin(np.arange(frames) / 4), 320)
    audio[pause[0] * 320 : pause[1] * 320] = 0
    return speech.Recording("x/a.flac", audio.astype(np.float32), "neutral", 4, phones)


def test_letters_of_real_words_only():
    assert speech.count_letters("Perhaps my mother hopped, Bob") == 7
    assert speech.count_letters("Vår husläkare börjar bli gammal") == 3
    for text in ("", "ljspeech-0", "真っ昼間", "123"):
        assert speech.count_letters(text) is None
    assert speech.count_letters("no") == 0


def test_phones_of_an_alignment(tmp_path):
    phones = [{"b": 0.1, "d": 0.05, "t": "P"}, {"b": 0.15, "d": 0.1, "t": "AE"}]
    path = tmp_path / "a.phone.json"
    path.write_text(json.dumps({"w": [{"t": "<sil>", "b": 0}, {"t": "pa", "w": phones}]}))
    assert speech.read_phones(path) == [(0.1, pytest.approx(0.15))]
    path.write_text("[]")
    with pytest.raises(speech.InputError, match="not a phone alignment"):
        speech.read_phones(path)


def test_curves_that_behave_and_curves_that_do_not():
    opening = np.full(400, 0.4)
    closures = [40, 90, 150, 300]
    for at in closures:
        opening[at - 2 : at + 3] = [0.2, 0.02, 0.0, 0.02, 0.2]
    opening[200:260] = 0.1
    phones = [((at - 1) / 50, (at + 1) / 50) for at in closures]
    one = recording(phones=phones)
    got = speech.analyse(one, motion_of(opening), motion_of(np.full(75, 0.02)))
    assert got["pause"] == pytest.approx(0.1 / 0.4) and got["long"] == pytest.approx(0.25)
    assert got["pause_seconds"] == pytest.approx((59 - 2 * 3) / 50)
    assert got["zeros"] == pytest.approx(0.02 / 0.4)
    assert got["dips"] == got["pbm"]
    assert got["pbm"] == pytest.approx(4 / (341 / 50))
    assert got["hits"] == 1 and got["chance"] == 0
    open_mouth = speech.analyse(one, motion_of(opening + 0.3), motion_of(np.zeros(75)))
    assert open_mouth["hits"] == open_mouth["dips"] == 0
    shut = speech.analyse(one, np.zeros((400, 72)), np.zeros((75, 72)))
    assert shut["hits"] == shut["chance"] == 1 and shut["pause"] is None and shut["dips"] == 0
    flat = speech.analyse(one, motion_of(np.full(400, 0.4)), motion_of(np.full(75, 0.4)))
    assert flat["pause"] == pytest.approx(1) and flat["zeros"] == pytest.approx(1)
    assert flat["loud_r"] is None


class Loudness:
    """Opens the mouth by the level of the sound; says which requests it got."""

    fingerprint, step = "loudness@1", 1

    def batch(self, requests):
        self.requests = requests
        return [
            motion_of(speech.silence.frame_level(r.audio, -(-len(r.audio) // 320)) * 3)
            for r in requests
        ]


def test_a_folder_is_measured_whole(tmp_path, capsys):
    from a2fjax.audio import io

    rows = []
    for i, text in enumerate(("my baby", "", "ljspeech-0")):
        (tmp_path / f"s{i % 2}").mkdir(exist_ok=True)
        name = f"s{i % 2}/{i}.wav"
        io.save(tmp_path / name, recording(300 + i, (100, 140)).audio[:-50])
        rows.append({"path": name, "emotion": "joy", "transcript": text})
    with (tmp_path / "manifest.tsv").open("w", newline="") as file:
        writer = csv.DictWriter(file, speech.COLUMNS, delimiter="\t")
        writer.writeheader()
        writer.writerows(rows)
    found = speech.read_folder(tmp_path)
    assert [r.bilabials for r in found] == [3, None, None]
    model = Loudness()
    result = speech.measure(model, found, "neutral")
    assert set(result["sources"]) == {"s0", "s1"} and len(result["recordings"]) == 3
    assert result["all"]["pause"] < 0.01 and result["all"]["zeros"] < 0.01
    assert result["all"]["loud_r"] > 0.7 and result["silence"] == 0
    assert result["all"]["pbm"] == result["sources"]["s0"]["pbm"] > 0
    assert result["sources"]["s1"]["pbm"] is None
    speech.measure(model, found, "manifest")
    assert "pause: 0.0" in speech.table(result) and ": met" in speech.table(result)
    json.dumps(result, allow_nan=False)
    assert speech.main([str(tmp_path / "no_run"), str(tmp_path)]) == 2
    assert capsys.readouterr().err.count("\n") == 1


def parts(rng, count, weights, *, lag=0, noise=0.0):
    out = []
    for _ in range(count):
        features = rng.standard_normal((200, 3))
        loudness = rng.standard_normal(200)
        target = takes.stack_context(features, 1) @ weights + 0.5
        target[:, 1] = 2.0 * takes.shift(loudness, lag) + 1.0
        target += noise * rng.standard_normal(target.shape)
        out.append(takes.Part(features, loudness, target, rng.random(200) > 0.1))
    return out


def test_context_is_the_frames_around():
    features = np.arange(5.0)[:, None]
    stacked = takes.stack_context(features, 1)
    assert stacked.tolist() == [[0, 0, 1], [0, 1, 2], [1, 2, 3], [2, 3, 4], [3, 4, 4]]


def test_ridge_is_the_textbook_s():
    rng = np.random.default_rng(0)
    every = [parts(rng, 2, rng.standard_normal((9, 2)), noise=0.3) for _ in range(3)]
    ridge = takes.Ridge(every, 1)
    weights, intercept = ridge.fit([0, 2], 7.0)
    chosen = [p for k in (0, 2) for p in every[k]]
    x = np.concatenate([takes.stack_context(p.features, 1)[p.good] for p in chosen])
    y = np.concatenate([p.target[p.good] for p in chosen])
    # An unpenalised intercept as one more column, by least squares on augmented rows.
    rows = np.vstack([np.c_[x, np.ones(len(x))], np.c_[np.sqrt(7.0) * np.eye(9), np.zeros(9)]])
    expected = np.linalg.lstsq(rows, np.vstack([y, np.zeros((9, 2))]), rcond=None)[0]
    np.testing.assert_allclose(weights, expected[:9], atol=1e-9)
    np.testing.assert_allclose(intercept, expected[9], atol=1e-9)
    held = every[1]
    x = np.concatenate([takes.stack_context(p.features, 1)[p.good] for p in held])
    y = np.concatenate([p.target[p.good] for p in held])
    error = ((y - x @ weights - intercept) ** 2).sum(0) / ((y - y.mean(0)) ** 2).sum(0)
    assert ridge._error(1, weights, intercept) == pytest.approx(error.sum())


def test_the_penalty_follows_the_noise():
    rng = np.random.default_rng(1)
    weights = rng.standard_normal((9, 2))
    clean = takes.Ridge([parts(rng, 1, weights) for _ in range(3)], 1)
    noisy = takes.Ridge([parts(rng, 1, weights * 0.02, noise=5.0) for _ in range(3)], 1)
    grid = (1e-3, 1e6)
    assert clean.choose([0, 1, 2], grid) == grid[0] and noisy.choose([0, 1, 2], grid) == grid[1]


@pytest.mark.parametrize("lag", [-2, 0, 3])
def test_the_line_through_log_energy_finds_its_lag(lag):
    rng = np.random.default_rng(2)
    every = [parts(rng, 2, np.zeros((9, 2)), lag=lag, noise=0.1)]
    found, slope, intercept = takes.fit_energy(every, 1)
    assert found == lag
    assert (slope, intercept) == (pytest.approx(2.0, abs=0.05), pytest.approx(1.0, abs=0.05))


def test_scores_of_a_copy_an_offset_and_the_mean():
    truth = np.sin(np.arange(100.0))
    assert takes.score(truth, truth) == {"r2": 1.0, "r": pytest.approx(1.0)}
    shifted = takes.score(truth + 1.0, truth)
    assert shifted["r"] == pytest.approx(1.0) and shifted["r2"] < 0
    assert takes.score(np.full(100, truth.mean()), truth)["r2"] == 0


def test_too_few_takes_are_refused(tmp_path, capsys):
    assert takes.main([str(tmp_path), "--workdir", str(tmp_path / "w")]) == 2
    assert "expected at least 3" in capsys.readouterr().err
    assert not (tmp_path / "w").exists()


def test_other_shards_are_mixed_in_by_weight(tmp_path, capsys):
    assert takes._mixture("") == {} and takes._mixture("a=b/shards=0.5") == {"a=b/shards": "0.5"}
    for name in ("a", "b", "c"):
        (tmp_path / f"{name}.npz").touch()
        (tmp_path / f"{name}.wav").touch()
    arguments = [str(tmp_path), "--workdir", str(tmp_path / "w"), "--takes", "d"]
    assert takes.main(arguments) == 2
    assert "no take 'd'" in capsys.readouterr().err
    with pytest.raises(InputError, match="expected SHARDS=WEIGHT"):
        takes._mixture("demo/shards")


def test_the_table_has_each_take_and_the_mean_of_all():
    def fold(name, value):
        figures = {"r2": value, "r": value}
        row = {method: figures for method in takes.METHODS}
        return {"test": name, "lag_ms": 0.0, "offset_ms": 0.0, "channels": {"jawOpen": row}}

    lines = takes.table({"folds": [fold("a", 0.2), fold("b", 0.6)], "channels": ["jawOpen"]})
    assert all(method in lines for method in takes.METHODS)
    assert lines.splitlines()[-1].split()[:3] == ["jawOpen", "mean", "0.400"]
