"""Assigns clips to splits by sentence and by subject; stable as the dataset grows.

A sentence's split is a function of its key and the seed alone, so adding takes does not move
others, and every subject's reading of a sentence is in the same split.
"""

from __future__ import annotations

import hashlib
import unicodedata
from collections.abc import Collection, Iterable

from a2fjax.errors import InputError

SENTENCE_SPLITS = ("train", "val", "test_sentences")

MIN_SUBJECTS = 4
"""With fewer subjects none is held out unless named: each is too large a share of training."""


def hash_uniform(key: str, seed: int = 0) -> float:
    """Returns a number in [0, 1) that depends on (seed, key) alone, the same on every machine.

    Keys are compared in Unicode normal form NFKC, case-folded and with single spaces, so that
    "Hello  there" and "hello there" get the same split.
    """
    plain = " ".join(unicodedata.normalize("NFKC", key).casefold().split())
    digest = hashlib.sha256(f"{seed}:{plain}".encode()).digest()
    # 53 bits are what a double holds exactly; more would round some keys up to 1.0.
    return (int.from_bytes(digest[:8], "big") >> 11) / 2.0**53


def sentence_split(key: str, seed: int = 0, val: float = 0.06, test: float = 0.10) -> str:
    """Returns the split of a sentence: "train", "val" or "test_sentences".

    Args:
      key: key of the sentence; see `hash_uniform` for which keys count as equal.
      seed: another seed gives another division.
      val: expected share of validation sentences, in [0, 1].
      test: expected share of test sentences; val + test must be below 1.

    Raises:
      InputError: the shares leave nothing for training.
    """
    if not (val >= 0 and test >= 0 and val + test < 1):
        raise InputError(f"val={val:g}, test={test:g}: expected shares of at least 0, sum below 1")
    u = hash_uniform(key, seed)
    if u < test:
        return "test_sentences"
    return "val" if u < test + val else "train"


def held_out_subjects(subjects: Iterable[str], *, seed: int = 0, share: float = 0.08) -> set[str]:
    """Returns the subjects that are held out of training.

    Subjects are drawn by hash like sentences. If the draw is empty although there are at least
    `MIN_SUBJECTS`, the one with the smallest hash is held out, so that a dataset of that size
    always has an unseen test subject. Adding takes or subjects does not move existing subjects,
    except that a small dataset with an empty draw may change its single held-out subject; name the
    subject to avoid this.

    Args:
      subjects: all subjects of the dataset.
      seed: another seed gives another draw.
      share: expected share of subjects held out, in [0, 1); 0 holds out none.

    Raises:
      InputError: a share outside [0, 1).
    """
    if not 0 <= share < 1:
        raise InputError(f"held_out_share={share:g}: expected a share in [0, 1)")
    # "subject:" keeps the draw independent of a sentence with the same key.
    draws = {name: hash_uniform(f"subject:{name}", seed) for name in subjects}
    if share == 0 or len(draws) < MIN_SUBJECTS:
        return set()
    drawn = {name for name, u in draws.items() if u < share}
    return drawn or {min(draws, key=lambda name: (draws[name], name))}


def subject_held_out(
    subject: str, subjects: Iterable[str], *, seed: int = 0, share: float = 0.08
) -> bool:
    """Returns whether `held_out_subjects` of `subjects` and this subject includes this subject."""
    return subject in held_out_subjects({*subjects, subject}, seed=seed, share=share)


def clip_split(subject_held_out: bool, sentence_split: str) -> str:
    """Returns the split of a clip, one of `a2fjax.data.records.SPLITS`.

    A held-out subject with a sentence of the training split is "unused", because testing on it
    would leak the sentence.

    Raises:
      ValueError: `sentence_split` is not in `SENTENCE_SPLITS`.
    """
    if sentence_split not in SENTENCE_SPLITS:
        raise ValueError(f"sentence_split={sentence_split!r}: expected one of {SENTENCE_SPLITS}")
    if not subject_held_out:
        return sentence_split
    return "unused" if sentence_split == "train" else "test_subjects"


def split_with_named(
    key: str, *, test: Collection[str], val: Collection[str], otherwise: str
) -> str:
    """Returns the split of a sentence if some splits have named sentences, else `otherwise`.

    A split with named sentences contains only these, so a sentence that the hash assigns to such a
    split goes to training.
    """
    if key in test:
        return "test_sentences"
    if key in val:
        return "val"
    has_named = {"test_sentences": bool(test), "val": bool(val)}
    return "train" if has_named.get(otherwise, False) else otherwise
