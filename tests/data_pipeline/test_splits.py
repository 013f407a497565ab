import pytest
from hypothesis import given
from hypothesis import strategies as st

from a2fjax.data.records import SPLITS
from a2fjax.errors import InputError
from data_pipeline.stages import splits

KEYS = [f"sentence number {i}" for i in range(4000)]


def test_shares_are_as_asked_for():
    found = [splits.sentence_split(k) for k in KEYS]
    assert abs(found.count("val") / len(KEYS) - 0.06) < 0.015
    assert abs(found.count("test_sentences") / len(KEYS) - 0.10) < 0.02
    assert set(found) == set(splits.SENTENCE_SPLITS)


def test_known_values_are_stable_across_versions_and_machines():
    # The definition, written out a second time: sha256 of "seed:key", top 53 bits.
    import hashlib

    digest = hashlib.sha256(b"0:hello").hexdigest()
    assert splits.hash_uniform("hello") == (int(digest[:16], 16) >> 11) / 2**53
    assert splits.hash_uniform("Hello ") == splits.hash_uniform("hello")


@given(st.text(), st.integers(0, 5), st.floats(0, 0.4), st.floats(0, 0.4))
def test_growing_a_share_never_moves_a_sentence_out_of_test(key, seed, val, test):
    first = splits.sentence_split(key, seed, val, test)
    assert first in splits.SENTENCE_SPLITS
    if first == "test_sentences":
        assert splits.sentence_split(key, seed, val, min(test + 0.1, 0.5)) == "test_sentences"


def test_seed_gives_another_division():
    a = [splits.sentence_split(k, 0) for k in KEYS]
    b = [splits.sentence_split(k, 1) for k in KEYS]
    assert a != b


def test_shares_that_leave_nothing_are_refused():
    with pytest.raises(InputError, match="sum below 1"):
        splits.sentence_split("a", val=0.5, test=0.5)
    with pytest.raises(InputError, match="sum below 1"):
        splits.sentence_split("a", val=float("nan"))
    with pytest.raises(InputError, match="held_out_share"):
        splits.subject_held_out("a", ["a"], share=1.0)


def test_held_out_subjects():
    few = ["a", "b", "c"]
    assert not any(splits.subject_held_out(s, few, share=0.9) for s in few)
    for seed in range(20):
        people = [f"actor{i}" for i in range(6)]
        held = [s for s in people if splits.subject_held_out(s, people, seed=seed, share=0.05)]
        assert len(held) >= 1 and len(held) < len(people)
    assert not any(splits.subject_held_out(s, people, share=0.0) for s in people)
    many = [f"actor{i}" for i in range(400)]
    held = {s for s in many if splits.subject_held_out(s, many)}
    more = many + ["newcomer", "another"]
    assert held == {s for s in many if splits.subject_held_out(s, more)}
    assert 10 < len(held) < 60


def test_people_are_drawn_all_at_once_as_one_by_one():
    many = [f"actor{i}" for i in range(300)]
    held = splits.held_out_subjects(many, seed=2, share=0.1)
    assert held == {s for s in many if splits.subject_held_out(s, many, seed=2, share=0.1)}
    assert splits.held_out_subjects(["a", "b"], share=0.9) == set()
    assert splits.held_out_subjects([]) == set()


def test_no_leak_between_splits():
    people = [f"p{i}" for i in range(12)]
    held = {s for s in people if splits.subject_held_out(s, people, share=0.25)}
    assert held
    clips = [
        (p, k, splits.clip_split(p in held, splits.sentence_split(k)))
        for p in people
        for k in KEYS[:200]
    ]
    assert {c[2] for c in clips} == set(SPLITS)
    train_people = {p for p, _, s in clips if s == "train"}
    train_words = {k for _, k, s in clips if s == "train"}
    for p, k, s in clips:
        if s in ("val", "test_sentences", "test_subjects"):
            assert k not in train_words
        if s == "test_subjects":
            assert p not in train_people
    with pytest.raises(ValueError, match="sentence_split"):
        splits.clip_split(False, "test_subjects")


def test_named_sentences_replace_the_draw():
    named = {"test": {"a"}, "val": set()}
    assert splits.split_with_named("a", **named, otherwise="train") == "test_sentences"
    assert splits.split_with_named("b", **named, otherwise="test_sentences") == "train"
    assert splits.split_with_named("b", **named, otherwise="val") == "val"
    both = {"test": {"a"}, "val": {"b"}}
    assert splits.split_with_named("b", **both, otherwise="train") == "val"
    assert splits.split_with_named("c", **both, otherwise="val") == "train"
