"""The viseme rule: which shape a phone has, how shapes melt, and amplitudes fitted to takes."""

import dataclasses

import numpy as np
import pytest

from a2fjax import rig
from a2fjax.data import records
from a2fjax.data.dataset import ClipSource
from a2fjax.evaluation import baselines, beside, visemes
from a2fjax.evaluation.evaluator import evaluate
from a2fjax.metrics import lips, suite
from a2fjax.metrics.phones.alignment import Phone
from a2fjax.metrics.reference import reference, with_thresholds
from a2fjax.metrics.sums import merge

JAW = rig.INDEX["jawOpen"]
WORDS = ("P", "AA1", "F", "UW1", "B", "EY1", "sil", "M", "OW1", "S", "IY1", "T")


def spoken(seed, frames):
    """Returns random phones of a clip, with silence before and after."""
    rng = np.random.default_rng(seed)
    phones, at = [], 0.1
    while at < frames / 50 - 0.2:
        length = float(rng.uniform(0.06, 0.16))
        phones.append(Phone(at, at + length, WORDS[int(rng.integers(len(WORDS)))]))
        at += length
    return tuple(phones)


def test_labels_of_both_alphabets_have_the_same_shapes():
    pairs = "M m, V v, SH ʃ, CH t͡ʃ, UW1 uː, AA0 ɑ, AY1 aɪ, OW2 oʊ, TH θ, IY1_E iː, W w"
    for arpabet, ipa in (pair.split() for pair in pairs.split(", ")):
        assert visemes.visemes(arpabet) == visemes.visemes(ipa) != ("rest",), arpabet
    assert visemes.visemes("sil") == visemes.visemes("<laugh>") == visemes.visemes("?") == ("rest",)
    assert all(visemes.visemes(label) for label in WORDS)


def test_every_shape_is_within_the_rig_and_does_what_its_name_says():
    assert (visemes.TABLE >= 0).all() and (visemes.TABLE <= 1).all()
    opening = dict(zip(visemes.NAMES, rig.aperture(visemes.TABLE), strict=True))
    assert (
        opening["bilabial"] == pytest.approx(0, abs=1e-6)
        and max(opening, key=opening.get) == "open"
    )
    rounded = visemes.TABLE[:, [rig.INDEX["mouthPucker"], rig.INDEX["mouthFunnel"]]].sum(1)
    assert visemes.NAMES[int(rounded.argmax())] == "close_rounded"


def test_activations_are_shares_smoothed_over_time():
    phones = (Phone(0.5, 1.5, "AA1"),)
    active = visemes.activations(phones, 100)
    opened = active[:, visemes.NAMES.index("open")]
    np.testing.assert_allclose(active.sum(1), 1.0)
    # A long phone reaches its shape; half of it at its edges; nothing 0.1 s away.
    assert opened[50] == pytest.approx(1.0) and opened[[19, 81]].max() == 0
    assert opened[25] == pytest.approx(0.5, abs=0.11) and opened[75] == pytest.approx(0.5, abs=0.11)
    np.testing.assert_allclose(opened[25:50], opened[75:50:-1], atol=1e-9)  # Symmetric in time.
    halves = visemes.activations((Phone(0.0, 2.0, "AW1"),), 100)
    assert halves[20].argmax() == visemes.NAMES.index("open")
    assert halves[80].argmax() == visemes.NAMES.index("close_rounded")


def test_lips_close_between_vowels():
    phones = (Phone(0.2, 0.5, "AA1"), Phone(0.5, 0.58, "P"), Phone(0.58, 0.9, "AA1"))
    motion = visemes.fixed(np.full(72, 0.3)).curves(phones, 60)
    opening = rig.aperture(motion)
    assert opening[15:35].max() > 0.4 and (opening[26:29] < 1e-6).all()
    assert motion[0, JAW] == 0 and motion[:, rig.INDEX["browInnerUp"]] == pytest.approx(0.3)


def test_the_lower_lip_reaches_the_teeth_between_vowels():
    phones = (Phone(0.2, 0.5, "AA1"), Phone(0.5, 0.58, "V"), Phone(0.58, 0.9, "AA1"))
    motion = visemes.fixed(np.zeros(72)).curves(phones, 60)
    # Two thirds of the window is the phone's: without dominance that is the share of the shape.
    assert motion[27, rig.INDEX["mouthRollLower"]] > 0.85 * 0.4


def test_lips_stay_together_for_two_frames_and_part_within_60_ms():
    for at in (0.5, 0.507, 0.513):
        together = visemes.meeting((Phone(at, at + 0.02, "B"), Phone(0.7, 0.9, "AA1")), 50)
        assert (together == 1).sum() >= 2 and together[31:].max() == 0 and together[:21].max() == 0
    long = visemes.meeting((Phone(0.2, 0.5, "M"),), 50)
    assert np.flatnonzero(long == 1).tolist() == list(range(12, 24))  # 30 ms within the phone.
    # A cosine of 60 ms, at 70, 50, 30 and 10 ms from there.
    np.testing.assert_allclose(long[8:12], [0.0, 0.0670, 0.5, 0.9330], atol=1e-4)


def test_the_closed_pose_opens_less_and_presses_as_before():
    pose = np.zeros(72)
    pose[[JAW, rig.INDEX["mouthLowerDownLeft"], rig.INDEX["mouthPressLeft"]]] = 0.3, 0.2, 0.4
    pose[rig.INDEX["mouthClose"]] = 0.1
    for level in (0.2, 0.05, -0.05, -0.2):
        rule = visemes.Rule(np.zeros_like(visemes.TABLE), pose, 0, level)
        closed = rule.poses[visemes.BILABIAL]
        assert rig.aperture(closed) == pytest.approx(level, abs=1e-6)
        assert closed[rig.INDEX["mouthPressLeft"]] == 0.4 and (closed[pose > 0] >= 0).all()
    lower = visemes.Rule(np.zeros_like(visemes.TABLE), pose, 0, 0.3).poses[visemes.BILABIAL]
    np.testing.assert_array_equal(lower, pose)  # The lips are together already.


def talking(phones, frames, rest, width):
    """Returns the motion of a person whose lips meet in bilabials, at an aperture of `rest`."""
    times = np.arange(frames) / 50
    vowel, shut = np.zeros(frames), np.zeros(frames)
    for phone in phones:
        middle, half = 0.5 * (phone.start + phone.end), 0.5 * (phone.end - phone.start)
        near = np.clip(1.5 - np.abs(times - middle) / (half + 0.02), 0, 1)
        if phone.label in ("P", "B", "M"):
            shut = np.maximum(shut, np.clip(1.9 - np.abs(times - middle) / 0.025, 0, 1))
        elif phone.label != "sil":
            vowel = np.maximum(vowel, near * (0.9 if phone.label == "AA1" else 0.4))
    motion = np.zeros((frames, 72))
    motion[:, JAW] = max(rest, 0) + width * (0.1 + vowel) * (phones[0].start < times)
    motion[:, rig.INDEX["mouthClose"]] = shut * (motion[:, JAW] - rest)
    return motion


@pytest.mark.parametrize(("lowest", "level"), [(0.05, 0.0), (-0.06, -0.06)])
def test_the_rule_closes_the_lips_as_the_metric_judges_them(world, lowest, level):
    folder, _, _, known = world
    source = ClipSource([folder], "train")
    load, people = source.load, {"a": (0.08, 0.5), "b": (lowest, 0.8)}

    def person(index):
        clip = load(index)
        return dataclasses.replace(
            clip, motion=talking(known[clip.id], clip.frames, *people[clip.subject])
        )

    source.load = person
    rule = visemes.fit(source, lambda clip: known[clip.id], np.zeros(72))
    assert rule.closed == pytest.approx(level, abs=1e-6)
    assert rig.aperture(rule.poses[visemes.BILABIAL]) <= rule.closed + 1e-9
    # Another person, whose rest and width are its own.
    sound = np.random.default_rng(3).normal(0, 0.1, 320 * 400).astype(np.float32)
    clips = [spoken(seed, 400) for seed in (20, 21, 22)]
    truths = with_thresholds(
        [
            reference(
                talking(phones, 400, 0.7 * level, 0.7), sound, channel_mask=np.ones(72, bool),
                frame_mask=np.ones(400, bool), speech_level=0.1,
            )
            for phones in clips
        ],
        ["c"] * 3,
    )  # fmt: skip
    judged = [dataclasses.replace(t, phones=p) for t, p in zip(truths, clips, strict=True)]
    made = [rule.curves(phones, 400) for phones in clips]
    found = {}
    for name in ("phones", "lips"):
        metric = suite.metrics()[name]
        parts = [metric.sums(m, truth) for m, truth in zip(made, judged, strict=True)]
        found |= metric.values(merge(parts))
    assert found["phone_closed_rate_truth"] == 1 == found["phone_closed_rate"]
    assert found["phone_closed_false"] < 0.2 and found["phone_closed_chance"] < 0.7
    assert found["closure_recall"] > 0.95 and found["closure_precision"] > 0.9
    # The mean shape of least squares leaves them apart.
    mean_shape = (rule.base + rule.gains * visemes.TABLE)[visemes.BILABIAL]
    assert rig.aperture(mean_shape) > truths[0].threshold + lips.MARGIN


@pytest.fixture(scope="module")
def world(tmp_path_factory, write_clip, write_set):
    """Returns shards whose jaw is the rule's by known gains, a folder of alignments, and clips."""
    rng = np.random.default_rng(1)
    root = tmp_path_factory.mktemp("visemes")
    truth = visemes.Rule(np.ones_like(visemes.TABLE), np.full(72, 0.05), 0)
    truth.gains[visemes.NAMES.index("open"), JAW] = 1.6
    truth.gains[visemes.NAMES.index("close_front"), JAW] = 0.5
    clips, known = [], {}
    for number in range(8):
        clip = write_clip("ab"[number % 2], number, "train", "neutral", rng)
        phones = spoken(number, clip.frames)
        clip.motion[:, JAW] = truth.curves(phones, clip.frames)[:, JAW]
        split = "train" if number < 6 else "test_sentences"
        clips.append(dataclasses.replace(clip, split=split))
        known[clip.id] = phones
        path = root / "phones" / f"{clip.id}.ctm"
        path.parent.mkdir(parents=True, exist_ok=True)
        lines = [f"r 1 {p.start:.4f} {p.end - p.start:.4f} {p.label}" for p in phones]
        path.write_text("\n".join(lines) + "\n")
    (root / "shards").mkdir()
    write_set(root / "shards", clips, [records.Subject(s, None, False) for s in "ab"], {})
    return root / "shards", root / "phones", clips, known


def test_gains_are_least_squares_with_a_prior_of_one(world):
    folder, _, clips, known = world
    mean = np.zeros(72)
    rule = visemes.fit(ClipSource([folder], "train"), lambda clip: known[clip.id], mean)
    assert rule.clips == 6 and (rule.gains >= 0).all()
    train = [c for c in clips if c.split == "train"]
    used = np.flatnonzero(visemes.TABLE[:, JAW])
    x = np.concatenate([visemes.activations(known[c.id], c.frames) for c in train])[:, used]
    x = x * visemes.TABLE[used, JAW]
    y = np.concatenate([c.motion[:, JAW] for c in train])
    # Independently: gradients of the squares plus the prior vanish, or push a gain below 0.
    base, gains = np.percentile(y, 5), rule.gains[used, JAW]
    assert rule.base[JAW] == pytest.approx(base)
    prior = visemes.PRIOR_FRAMES * visemes.TABLE[used, JAW] ** 2
    gradient = x.T @ (x @ gains + base - y) + prior * (gains - 1)
    assert (np.abs(gradient[gains > 0]) < 1e-6).all() and (gradient[gains == 0] >= 0).all()
    of = dict(zip(visemes.NAMES, rule.gains[:, JAW], strict=True))
    assert of["open"] > 1.1 and of["close_front"] < 0.97 and of["velar"] == pytest.approx(1)


def test_unknown_phones_and_channels_change_nothing(world):
    folder, _, _, known = world
    mean = np.linspace(0, 0.5, 72)
    source = ClipSource([folder], "train")
    nothing = visemes.fit(source, lambda clip: (), mean)
    assert nothing.clips == 0
    np.testing.assert_array_equal(nothing.gains, visemes.fixed(mean).gains)
    np.testing.assert_array_equal(nothing.base, visemes.fixed(mean).base)
    load = source.load
    hidden = np.ones(72, bool)
    hidden[JAW] = False
    source.load = lambda i: dataclasses.replace(load(i), channel_mask=hidden)
    rule = visemes.fit(source, lambda clip: known[clip.id], mean)
    assert (rule.gains[:, JAW] == 1).all() and rule.base[JAW] == 0 and rule.clips == 6


def test_the_rule_stands_beside_the_other_baselines(world, stand_in):
    folder, phones, clips, _ = world
    model = stand_in((folder, clips), lambda g, r: g)
    given = {"splits": ["test_sentences"], "quick": True}
    plain = evaluate(model, **given)["splits"]["test_sentences"]
    assert "viseme_rule" not in plain["baselines"]
    part = evaluate(model, phones=phones, **given)["splits"]["test_sentences"]
    assert part["baseline_clips"]["viseme_rule"] == 2
    jaw = "amp_ratio/jaw_mouth"
    assert part["baselines"]["viseme_rule"][jaw] > 0.5
    assert "viseme_rule" in baselines.NAMES


def test_training_clips_find_their_alignments_by_their_whole_name(tmp_path):
    for name in ("a/1", "2", "b/3#1"):
        path = tmp_path / f"{name}.ctm"
        path.parent.mkdir(exist_ok=True)
        path.write_text("r 1 0 1 P\n")
    found = beside.load(tmp_path, None, ["a/1"], training=["a/1", "b/2", "c/4", "b/3#1"])
    assert set(found.files) == {"a/1"} and set(found.training_files) == {"a/1", "b/2", "b/3#1"}
    # "2" may be that of either person once both have a take of this name.
    found = beside.load(tmp_path, None, ["a/1", "a/2"], training=["b/2"])
    assert set(found.files) == {"a/1", "a/2"} and found.training_files == {}
