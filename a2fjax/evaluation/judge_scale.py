"""Calibrates a judge on the truth: the scale of its figures, and whether they mean anything.

    truth                  as recorded
    late_40ms, late_100ms  the true motion 2 and 5 frames late; early_... the same early
    other_clip             the true motion of another clip (of the same person if possible) beside
                           this clip's sound: chance

All rows are of the same clips. A judge must find the truth nearer than the truth 40 ms off (mean of
late and early), and that nearer than another clip's: by the mean of `judge_distance_played`, and in
more clips than chance allows (sign test over clips, p < 0.05 for both). 100 ms off is shown only:
syllables follow each other so fast that the truth 100 ms off can be further than chance.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from a2fjax.evaluation.eval_clips import EvalClip
from a2fjax.evaluation.judge import JudgedClip
from a2fjax.metrics import sync
from a2fjax.metrics.sums import Sums, merge

SHIFTS = {"early_100ms": -5, "early_40ms": -2, "late_40ms": 2, "late_100ms": 5}
"""Frames of lateness."""

OTHER = "other_clip"
LEVEL = 0.05


class Scale:
    """The judge's figures of the truth and of what is made of it, over the clips of a split."""

    def __init__(self) -> None:
        """Starts without clips."""
        self._clips: list[dict[str, Sums]] = []
        self._judged = False
        self._silent = 0

    def add(self, sample: EvalClip, other: EvalClip | None) -> None:
        """Adds a clip, if there is a judge, and another clip whose motion is wrong for it."""
        judged = sample.truth.judged
        if not isinstance(judged, JudgedClip):
            return
        self._judged = True
        if not judged.windows.any():
            self._silent += 1
            return
        if other is None:
            return
        truth = np.asarray(sample.clip.motion)
        place = np.arange(len(truth))
        beside = other.truth.judged
        assert isinstance(beside, JudgedClip)
        scores = {"truth": judged.truth_scores}
        for name, frames in SHIFTS.items():
            scores[name] = judged.scores(truth[np.clip(place - frames, 0, len(truth) - 1)])
        scores[OTHER] = judged.scores_of_other(beside)
        self._clips.append({name: sync.of_scores(found, "p") for name, found in scores.items()})

    def result(self) -> dict[str, Any] | None:
        """Returns the figures, None without a judge.

        Returns:
          {"rows": {name: {figure: value}}, "clips" judged in all rows, "without_speech" clips,
          "orders": whether the figures mean something, "line" that says so}.
        """
        if not self._judged:
            return None
        empty = sync.nothing()
        rows = {}
        for name in self._clips[0] if self._clips else ():
            found = sync.values(merge({**empty, **clip[name]} for clip in self._clips))
            rows[name] = {
                key: float(value) if np.isfinite(value) else None
                for key, value in found.items()
                if not key.endswith("_truth")
            }
        orders, line = self._order()
        return {
            "rows": rows,
            "clips": len(self._clips),
            "without_speech": self._silent,
            "orders": orders,
            "line": line,
        }

    def _order(self) -> tuple[bool, str]:
        if not self._clips:
            return False, "the judge has no clip with speech, or no other clip: no figures of it"

        def played(name: str) -> np.ndarray:
            return np.array([float(clip[name]["sync/played_p"]) for clip in self._clips])

        right, wrong = played("truth"), played(OTHER)
        near = 0.5 * (played("early_40ms") + played("late_40ms"))
        shown = " < ".join(f"{x.mean():.3f}" for x in (right, near, wrong))
        what = f"truth, truth 40 ms off and another clip's truth over {len(right)} clips"
        if right.mean() < near.mean() < wrong.mean():
            chances = [chance(near - right), chance(wrong - near)]
            if max(chances) < LEVEL:
                return True, f"the judge's distances of {what}: {shown}"
            why = f"could order them so by chance (p = {max(chances):.3f})"
        else:
            why, shown = "does not put them in this order", shown.replace("<", ",")
        return False, (
            f"the judge's figures mean nothing here and are left out: it {why}: distances of "
            f"{what}: {shown}"
        )


def chance(differences: np.ndarray) -> float:
    """Returns the one-sided p of the sign test that differences [N] tend to be above 0.

    Example:
        >>> chance(np.array([1.0, 2.0, 0.5, 0.1, 3.0]))
        0.03125
    """
    from scipy import stats

    above, below = int((differences > 0).sum()), int((differences < 0).sum())
    if not above + below:
        return 1.0
    return float(stats.binomtest(above, above + below, alternative="greater").pvalue)
