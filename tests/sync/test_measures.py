"""Offsets in 2 s of speech, on vectors whose offset is known."""

import types

import numpy as np
import pytest

from a2fjax.sync import measures

EXPERT = types.SimpleNamespace(name="vectors", similarity="cosine", audio_reach=0, motion_reach=0)


@pytest.mark.parametrize(
    "late, within",
    [(0, (1, 1)), (1, (1, 1)), (-1, (1, 1)), (2, (0, 1)), (-2, (0, 1)), (3, (0, 0)), (-12, (0, 0))],
)
def test_an_offset_counts_within_one_and_two_frames(late, within):
    found = _offsets(lambda heard: np.roll(heard, late, axis=1))
    assert [float(found[key]) for key in measures.OFFSET_KEYS] == list(within)


def test_where_every_offset_scores_alike_none_was_found():
    found = _offsets(np.zeros_like)
    assert [float(found[key]) for key in measures.OFFSET_KEYS] == [0, 0]


def _offsets(seen_of):
    heard = np.random.default_rng(0).normal(size=(1, 160, 4)).astype(np.float32)
    mask = np.zeros(61, bool)
    mask[25:36:5] = True  # All offsets stay in the clip.
    return measures.values(measures.offset_sums(EXPERT, (heard, seen_of(heard)), mask))
