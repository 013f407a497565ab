"""The linear expert is ridge regression, and finds what is linear in its world."""

import numpy as np
import pytest

from a2fjax.errors import InputError
from a2fjax.models.syncnet import channels
from a2fjax.sync import clips, linear


def test_ridge_is_least_squares_with_rows_for_the_penalty():
    rng = np.random.default_rng(0)
    x = np.concatenate([rng.normal(size=(50, 6)), np.ones((50, 1))], 1)
    y = rng.normal(size=(50, 3))
    penalty = 2.5
    rows = np.sqrt(penalty) * np.eye(7)[:6]
    expected = np.linalg.lstsq(
        np.concatenate([x, rows]), np.concatenate([y, np.zeros((6, 3))]), rcond=None
    )[0]
    assert linear.ridge(x.T @ x, x.T @ y, penalty) == pytest.approx(expected, abs=1e-10)


def test_features_are_the_frames_about_each_frame(clip_of):
    (take,) = clips.takes("p", [clip_of(0, "p", "train")])
    found = linear.features(take.batch)[0].reshape(-1, 2 * linear.REACH + 1, linear.BANDS)
    middle = found[:, linear.REACH]
    assert (found[40, linear.REACH + 5] == middle[45]).all()
    assert (found[40, linear.REACH - 5] == middle[35]).all()


def test_standardised_is_that_of_the_networks(clip_of):
    (take,) = clips.takes("p", [clip_of(0, "p", "train")])
    expected = np.asarray(channels.standardise(take.batch.motion, take.statistics))
    assert linear.standardised(take.batch, take.statistics) == pytest.approx(expected, abs=1e-6)


def test_too_few_clips(clip_of):
    found = clips.takes("p", [clip_of(0, "p", "train")])
    with pytest.raises(InputError, match="at least 4 clips"):
        linear.fit((take.batch, take.statistics) for take in found)
