"""Scores of windows equal a loop over windows; shifts go the right way."""

import numpy as np
import pytest

from a2fjax.models.syncnet import similarity


def by_hand(heard, seen, kind):
    if kind == "correlation":
        heard, seen = heard - heard.mean(0), seen - seen.mean(0)
    inner = float((heard * seen).sum())
    sizes = float((heard**2).sum()), float((seen**2).sum())
    if kind == "agreement":
        return 2 * inner / sum(sizes)
    return inner / np.sqrt(sizes[0] * sizes[1])


@pytest.mark.parametrize("kind", similarity.KINDS)
def test_scores_are_those_of_a_loop(kind):
    rng = np.random.default_rng(0)
    heard, seen = rng.normal(size=(2, 1, 24, 3)).astype(np.float32) + 0.5
    offsets = (-4, 0, 3)
    found = np.asarray(similarity.scores(heard, seen, 6, offsets, kind=kind))
    assert found.shape == (1, 3, 19)
    for k, offset in enumerate(offsets):
        for t in range(max(0, -offset), 19 - max(0, offset)):
            a = heard[0, t + offset : t + offset + 6]
            assert found[0, k, t] == pytest.approx(by_hand(a, seen[0, t : t + 6], kind), abs=2e-5)


def test_late_audio_scores_best_at_a_positive_offset():
    rng = np.random.default_rng(1)
    seen = rng.normal(size=(1, 60, 4)).astype(np.float32)
    heard = np.roll(seen, 3, axis=1)
    found = np.asarray(similarity.scores(heard, seen, 10, range(-5, 6)))
    assert (found[0, :, 10:40].argmax(0) - 5 == 3).all()


def test_an_unknown_kind_is_refused():
    with pytest.raises(ValueError, match="cosine"):
        similarity.scores(np.zeros((1, 4, 1)), np.zeros((1, 4, 1)), 2, (0,), kind="dot")
