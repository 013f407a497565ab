"""Statistics of each person: observed frames only, in the order of the training subjects."""

import numpy as np
import pytest

from a2fjax import rig
from a2fjax.data import records
from a2fjax.models.syncnet import channels
from a2fjax.tasks import people


def clip(motion, mask=True, frames=None):
    count = len(motion)
    full = np.zeros((count, 72), np.float32)
    full[:, rig.INDEX["jawOpen"]] = motion
    return records.Clip(
        id="p/a", subject="p", sentence="a", language="en", split="train",
        audio=np.zeros(count * 320, np.float32), motion=full,
        channel_mask=np.full(72, mask),
        frame_mask=np.ones(count, bool) if frames is None else frames,
        emotion=np.zeros((count, 5), np.float32), speech_level=0.1, synthetic=True,
    )  # fmt: skip


def test_frames_and_channels_that_were_not_observed_do_not_count():
    jaw = rig.INDEX["jawOpen"]
    good = clip([0.2, 0.6, 9.0], frames=np.array([True, True, False]))
    mean, deviation = people.pooled([good, clip([0.9, 0.9], mask=False)])
    assert mean[jaw] == pytest.approx(0.4) and deviation[jaw] == pytest.approx(0.2, rel=1e-4)
    assert deviation[rig.INDEX["mouthClose"]] == pytest.approx(channels.LEAST_DEVIATION[0])
    mean, deviation = people.pooled([clip([0.9, 0.8], mask=False)])
    assert not mean.any() and (deviation == pytest.approx(channels.LEAST_DEVIATION))
