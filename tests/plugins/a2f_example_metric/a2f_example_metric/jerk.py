"""jerk_ratio: sum |d3 p| / sum |d3 g| of jaw and mouth; above 1 is jitter."""

import numpy as np

from a2fjax.metrics.column import Column
from a2fjax.metrics.groups import WEIGHT_GROUPS
from a2fjax.metrics.sums import divide


class Jerk:
    columns = (
        Column(
            "jerk_ratio", "jerk", "jerk over the truth's", "{:.2f}", better="1",
            formula="sum |d3 p| / sum |d3 g|, jaw and mouth",
        ),
    )  # fmt: skip

    @staticmethod
    def sums(prediction, truth):
        good = np.lib.stride_tricks.sliding_window_view(truth.frame_mask, 4).all(1)
        group = WEIGHT_GROUPS["jaw_mouth"]
        group = group[truth.channel_mask[group]]
        return {
            f"jerk/{key}": np.abs(np.diff(motion[:, group], n=3, axis=0)[good]).sum()
            for key, motion in (("p", prediction), ("g", truth.motion))
        }

    @staticmethod
    def values(total):
        return {"jerk_ratio": divide(total["jerk/p"], total["jerk/g"])}
