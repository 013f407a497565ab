"""The gate lets an expert through that hears speech, and none that guesses or hears loudness."""

import json

import numpy as np
import pytest

from a2fjax import rig
from a2fjax.audio import HOP
from a2fjax.data.dataset import ClipSource
from a2fjax.errors import InputError
from a2fjax.sync import bars, clips, gate, measures, report, verdict
from a2fjax.sync import heard as heard_lib

BANDS = ((200, 500), (500, 1000), (1000, 2000), (2000, 4000))
MOUTH = ["jawOpen", "mouthClose", "mouthPucker", "mouthSmileLeft"]
MIX = np.array([[1, -1, 0, 0.5], [1, 0, 1, 0], [0, 1, -1, 0], [0, 0, 1, 1]])


class Known:
    """Knows how the world makes motion from sound."""

    name, similarity, audio_reach, motion_reach = "known", "correlation", 0, 0

    def embed(self, batch, statistics):
        frames = np.asarray(batch.audio)[0].reshape(-1, HOP)
        power = np.abs(np.fft.rfft(frames, axis=1)) ** 2
        at = np.fft.rfftfreq(HOP, 1 / 16_000)
        levels = [power[:, (at >= low) & (at <= high)].sum(1) for low, high in BANDS]
        heard = np.log(np.stack(levels, 1) + 1e-6)
        heard = (heard - heard.mean(0)) / 1.6
        place = [rig.INDEX[name] for name in MOUTH]
        observed = np.asarray(batch.channel_mask)[0, place]
        seen = (np.asarray(batch.motion)[0] - statistics.mean[0])[:, place] * observed
        seen = seen @ np.linalg.inv(MIX)
        return heard[None].astype(np.float32), seen[None].astype(np.float32)


class Loudness(Known):
    """Hears loudness only."""

    name = "loudness"

    def embed(self, batch, statistics):
        frames = np.asarray(batch.audio)[0].reshape(-1, HOP)
        heard = np.log(np.sqrt((frames**2).mean(1)) + 1e-3)[None, :, None]
        seen = super().embed(batch, statistics)[1].sum(-1, keepdims=True)
        return heard.astype(np.float32), seen


class Chance(Known):
    """Knows nothing: random vectors of each clip."""

    name = "chance"

    def embed(self, batch, statistics):
        rng = np.random.default_rng(int(1e6 * abs(float(batch.audio[0, 4000:4100].sum()))))
        shape = (1, batch.motion.shape[1], 4)
        return tuple(rng.normal(size=(2, *shape)).astype(np.float32))


@pytest.fixture(scope="module")
def measured(shards):
    """Results of the gate by expert, on both splits, beside the one that guesses."""
    found = {}
    known = heard_lib.read([shards], "train")
    for expert in (Known(), Loudness(), Chance()):
        splits = {
            split: gate.measure_split(
                [expert, Chance()], ClipSource([shards], split), heard=known, resamples=50
            )
            for split in gate.SPLITS
        }
        found[expert.name] = verdict.judged(
            {"run": "r", "step": 5, "model": "m@5", "weights": "w", "splits": splits}
        )
    return found


def test_an_expert_that_knows_passes_every_line(measured):
    result = measured["known"]
    assert [str(line) for line in verdict.lines_of(result) if not line.passed] == []
    assert result["verdict"]["passed"]
    part = result["splits"]["test_subjects"]
    assert part["people"] == 3 and part["clips"] == 6 and part["windows"] > 50
    assert part["expert"]["offset_20ms"] == 1.0 and part["expert"]["auc"] > 0.95
    curve = part["curve"]
    assert curve["offset_ms"][int(np.argmax(curve["expert"]))] == 0
    assert part["altered"]["upper_face"]["win_600ms_100ms"] == 0.5


def test_an_expert_that_guesses_is_at_chance_and_fails_first_at_the_first_line(measured):
    result = measured["chance"]
    row = result["splits"]["test_subjects"]["expert"]
    assert abs(row["win_300ms_100ms"] - 0.5) < 0.12 and abs(row["auc"] - 0.5) < 0.12
    failed = bars.first_failure(verdict.lines_of(result))
    assert "+-100 ms, window 0.3 s" in failed.name and failed.split == "test_sentences"
    assert "gate: failed" in report.table({**result}) and "FAIL" in report.table(result)


def test_an_expert_that_hears_loudness_fails_against_noise_with_its_envelope(measured):
    lines = verdict.lines_of(measured["loudness"])
    noise = [line for line in lines if "noise with its envelope" in line.name]
    assert len(noise) == 2 and not any(line.passed for line in noise)
    known = verdict.lines_of(measured["known"])
    assert all(line.passed for line in known if "noise with its envelope" in line.name)


def test_the_linear_expert_must_be_beaten(measured):
    splits = json.loads(json.dumps(measured["known"]["splits"]))
    splits["test_subjects"]["linear"] = splits["test_subjects"]["expert"]
    (failed,) = [line for line in bars.lines(splits) if not line.passed]
    assert "linear expert" in failed.name and failed.split == "test_subjects"


def test_what_the_expert_was_trained_on_must_be_known(measured):
    splits = json.loads(json.dumps(measured["known"]["splits"]))
    assert splits["test_subjects"]["heard"] == {"people": [], "clips": 0}
    splits["test_subjects"]["heard"] = None
    (failed,) = [line for line in bars.lines(splits) if not line.passed]
    assert failed.split == "test_subjects" and "trained on is left out: not measured" in str(failed)
    result = {**measured["known"], "splits": splits}
    assert "nobody knows what the expert was trained on" in report.table(result)


def test_groups_and_intervals_are_there(measured):
    part = measured["known"]["splits"]["test_sentences"]
    assert set(part["by_emotion"]) == {"neutral", "happy"} and set(part["by_language"]) == {"en"}
    assert len(part["by_person"]) == 6 and set(part["channels"]) == {"no_tongue", "lips", "jaw"}
    low, high = part["interval"]["win_300ms_20ms"]
    assert low <= part["expert"]["win_300ms_20ms"] <= high
    assert part["difference"]["wins"][0] > 0


def test_a_take_without_speech_has_no_figures(clip_of, write, tmp_path):
    made = [clip_of(i, f"u{i}", "test_subjects", speech=i != 1) for i in range(3)]
    folder = write(tmp_path / "some", made)
    source = ClipSource([folder], "test_subjects")
    part = gate.measure_split([Known(), Chance()], source, resamples=5)
    assert part["without_speech"] == ["u1/1"] and part["clips"] == 2
    assert "u1" not in part["by_person"] and part["expert"]["wins"] > 0.9
    silent = write(tmp_path / "none", [clip_of(1, "u1", "test_subjects", speech=False)])
    with pytest.raises(InputError, match="no clip with speech and motion"):
        gate.measure_split([Known()], ClipSource([silent], "test_subjects"))


def test_equal_scores_are_half_a_win():
    scores = np.zeros((1 + 2 * len(measures.SHIFTS), 7))
    won = measures.wins(scores, np.ones(7, bool), measures.SHIFTS)
    assert won.tolist() == [3.5] * len(measures.SHIFTS)


def test_the_area_under_the_curve_of_known_scores():
    class Dot(Known):
        similarity = "agreement"

    seen = np.ones((2, 3, 1), np.float32)
    own, others = np.full((2, 3, 1), 1.0, np.float32), np.full((4, 3, 1), 2.0, np.float32)
    for heard, wrong, area in ((own, others, 1.0), (others[:2], own, 0.0), (own, own, 0.5)):
        sums = measures.auc_sums(Dot(), (heard, seen), wrong)
        assert float(measures.values(sums)["auc"]) == area


def test_altered_copies(clip_of):
    take, other = clips.takes("p", [clip_of(3, "p", "train"), clip_of(4, "p", "train")])
    jaw = rig.INDEX["jawOpen"]
    motion = take.batch.motion[0, : take.frames, jaw]
    assert (clips.reversed_motion(take).motion[0, : take.frames, jaw] == motion[::-1]).all()
    half = clips.halved_motion(take).motion[0, : take.frames, jaw]
    assert np.ptp(half) == pytest.approx(np.ptp(motion) / 2, rel=1e-5)
    noise = clips.noise_with_envelope(take, 0).audio[0].reshape(-1, HOP)
    level, own = (np.sqrt((x**2).mean(1)) for x in (noise, take.batch.audio[0].reshape(-1, HOP)))
    assert np.corrcoef(level, own)[0, 1] > 0.9
    assert (
        clips.noise_with_envelope(take, 0).audio == clips.noise_with_envelope(take, 0).audio
    ).all()
    theirs = clips.other_motion(take, other).motion[0, : take.frames, jaw]
    rolled = np.roll(other.batch.motion[0, : take.frames, jaw], -(take.frames // 2))
    assert theirs == pytest.approx(rolled, abs=1e-6)
    only = clips.only_channels(take, rig.GROUPS["jaw"])
    assert np.flatnonzero(only.channel_mask[0]).tolist() == [jaw]


def failing(line="x"):
    bad = bars.Line("test_subjects", line, 0.5, ">= 0.9", False)
    return {"passed": False, "lines": [vars(bad)]}


def test_a_verdict_counts_for_the_weights_that_were_measured(tmp_path):
    variables = {"params": {"w": np.ones(3, np.float32)}}
    weights = verdict.fingerprint(variables)
    with pytest.raises(InputError, match="has not passed the gate; run `a2fjax evaluate"):
        verdict.check(tmp_path, 5, weights)
    values = {"schema": 1, "kind": "sync_gate", "rig": rig.FINGERPRINT, "step": 5}
    values |= {"weights": weights, "verdict": {"passed": True, "lines": []}}
    path = verdict.path_of(tmp_path, 5)
    verdict.write(path, values)
    assert verdict.check(tmp_path, 5, weights)["step"] == 5
    changed = verdict.fingerprint({"params": {"w": np.array([1, 1, 2], np.float32)}})
    with pytest.raises(InputError, match="other weights than step 5 has now"):
        verdict.check(tmp_path, 5, changed)
    verdict.write(path, {**values, "rig": "another"})
    with pytest.raises(InputError, match="other weights"):
        verdict.check(tmp_path, 5, weights)
    verdict.write(path, {**values, "verdict": failing("aligned beats")})
    with pytest.raises(
        InputError, match=r"failed the gate at step 5: test_subjects: aligned beats"
    ):
        verdict.check(tmp_path, 5, weights)
    path.write_text("{}")
    with pytest.raises(InputError, match="not a result of the gate"):
        verdict.check(tmp_path, 5, weights)
