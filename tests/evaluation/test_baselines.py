"""Baselines whose right answers are known: linear speech, another take, another clip."""

import dataclasses

import jax.numpy as jnp
import numpy as np
import pytest

from a2fjax import rig
from a2fjax.audio import mel
from a2fjax.data import records
from a2fjax.data.dataset import ClipSource
from a2fjax.evaluation import (
    baselines,
    eval_clips,
    second_takes,
    speech_features,
    speech_regression,
)
from a2fjax.evaluation.evaluator import evaluate

JAW = rig.INDEX["jawOpen"]


@pytest.fixture(scope="module")
def spoken(tmp_path_factory, write_clip, write_set):
    """Shards whose jaw is linear in the log-mel 0.08 s ago, with two takes of one sentence."""
    rng = np.random.default_rng(7)
    clips = []
    for subject in ("a", "b"):
        for take in range(8):
            split = "train" if take < 5 else "test_sentences"
            clip = write_clip(subject, take, split, "neutral", rng)
            noise = rng.standard_normal(len(clip.audio))
            envelope = np.repeat(0.5 + 0.5 * np.sin(np.arange(clip.frames) / (3 + take % 5)), 320)
            audio = (0.1 * noise * envelope).astype(np.float32)
            clip = dataclasses.replace(clip, audio=audio)
            heard = speech_features.log_mel(speech_features.power(clip))[:, 10:20].mean(1)
            clip.motion[:, JAW] = np.clip(np.roll(heard + 16, 4) / 24, 0, 1)
            clip.motion[:4, JAW] = clip.motion[4, JAW]
            clips.append(clip)
        last = clips[-1]
        nearly = last.motion.copy()
        nearly[:, JAW] += 0.01
        again = dataclasses.replace(
            last,
            id=f"{subject}/again",
            audio=np.concatenate([np.zeros(3200, np.float32), last.audio]),
            motion=np.concatenate([np.repeat(last.motion[:1], 10, 0), nearly]),
            frame_mask=np.ones(last.frames + 10, bool),
            emotion=np.concatenate([last.emotion[:10], last.emotion]),
        )
        clips.append(again)
    folder = tmp_path_factory.mktemp("spoken")
    write_set(folder, clips, [records.Subject(s, None, False) for s in "ab"], {})
    return folder, clips


def test_log_mel_is_the_front_end_s_in_pairs_of_bins(write_clip):
    clip = write_clip("p", 0, "train", "neutral", np.random.default_rng(0))
    clip = dataclasses.replace(clip, speech_level=0.1)
    expected = np.exp(np.asarray(mel.log_mel(jnp.asarray(clip.audio[None]), floor=1e-12)))[0]
    found = speech_features.mel_power(clip.audio, clip.frames)
    pairs = expected.reshape(clip.frames, 40, 2).sum(2)
    np.testing.assert_allclose(found, pairs, rtol=1e-3, atol=1e-6)


def test_ridge_finds_a_linear_truth_and_loudness_does_not_hear_the_past(spoken):
    known = baselines.training_statistics([str(spoken[0])])
    fits = known.regressions
    test = [c for c in spoken[1] if c.split == "test_sentences"]
    for clip in test:
        clip = records.decode(records.encode(clip))
        power = speech_features.power(clip)
        error = np.abs(fits["ridge"].curves(power) - clip.motion)[20:-20, JAW].mean()
        loud = np.abs(fits["log_energy"].curves(power) - clip.motion)[20:-20, JAW].mean()
        assert error < 0.02 and loud > 5 * error
    assert dataclasses.replace(known, measured=True).regressions == {}


def test_ridge_is_least_squares_with_the_stated_penalty():
    rng = np.random.default_rng(0)
    x, y = rng.normal(2, 3, (200, 4)), rng.normal(size=(200, 72))
    sums = speech_regression._Sums()
    sums.add(x[:120], y[:120])
    sums.add(x[120:], y[120:])
    weights, intercept = sums.solved(0.1)
    z = (x - x.mean(0)) / x.std(0)
    expected = np.linalg.solve(z.T @ z + 20 * np.eye(4), z.T @ (y - y.mean(0)))
    np.testing.assert_allclose(weights * x.std(0)[:, None], expected, atol=1e-10)
    error = ((x @ weights + intercept - y) ** 2 / rig.SCALE**2).sum()
    assert sums.error(weights, intercept) == pytest.approx(error)


def test_a_second_take_is_warped_onto_the_first(spoken):
    folder, clips = spoken
    takes = second_takes.SecondTakes(ClipSource([str(folder)], "test_sentences"))
    last = next(c for c in clips if c.id == "a/7")
    found = takes.find(0, last, speech_features.power(last))
    np.testing.assert_allclose(found[5:, JAW], last.motion[5:, JAW] + 0.01, atol=1e-6)
    alone = next(c for c in clips if c.id == "a/6")
    assert takes.find(0, alone, speech_features.power(alone)) is None


def test_paths_are_the_cheapest_by_enumeration():
    rng = np.random.default_rng(0)
    for shape in ((4, 4), (3, 5), (5, 3)):
        cost = rng.random(shape)

        def cheapest(i, j, cost=cost):
            if i == j == 0:
                return cost[0, 0], [(0, 0)]
            steps = [(i - 1, j - 1), (i - 1, j), (i, j - 1)]
            total, path = min(cheapest(a, b) for a, b in steps if a >= 0 and b >= 0)
            return total + cost[i, j], [*path, (i, j)]

        path = cheapest(shape[0] - 1, shape[1] - 1)[1]
        rows = [[j for a, j in path if a == i] for i in range(shape[0])]
        expected = [row[::-1][len(row) // 2] for row in rows]
        assert second_takes.warping_path(cost).tolist() == expected


def test_the_report_counts_the_clips_that_allow_a_baseline(spoken, stand_in):
    truth = stand_in(spoken, lambda g, r: g)
    result = evaluate(truth, splits=["test_sentences"], quick=True)["splits"]["test_sentences"]
    assert result["baseline_clips"]["second_take"] == 4 and result["clips"] == 8
    rows = result["baselines"]
    assert rows["second_take"]["rmse_ratio"] < 0.2 < rows["shuffled_audio"]["rmse_ratio"]
    assert rows["ridge"]["rmse_ratio"] < rows["log_energy"]["rmse_ratio"]


def test_another_clip_is_the_same_person_s_if_there_is_one(spoken):
    source = ClipSource([str(spoken[0])], "test_sentences")
    (chunk,) = eval_clips.SplitClips(source).chunks()
    for i in range(len(chunk)):
        other = baselines.other_clip(i, chunk, seed=0)
        assert other != i and chunk[other].subject == chunk[i].subject
    assert baselines.other_clip(0, chunk[:1], seed=0) is None
