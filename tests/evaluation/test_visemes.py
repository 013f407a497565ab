"""The viseme rule: which shape a phone has, how shapes melt, and amplitudes fitted to takes."""

import dataclasses

import numpy as np
import pytest

from a2fjax import rig
from a2fjax.data import records
from a2fjax.data.dataset import ClipSource
from a2fjax.evaluation import baselines, beside, visemes
from a2fjax.evaluation.evaluator import evaluate
from a2fjax.metrics.phones.alignment import Phone

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
    assert opening[15:35].max() > 0.4 and opening[26:28].min() < 0.08
    assert motion[0, JAW] == 0 and motion[:, rig.INDEX["browInnerUp"]] == pytest.approx(0.3)


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
