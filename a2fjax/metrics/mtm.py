"""Mean temporal misalignment (MTM): delay of matched extrema of the aperture.

As published (arXiv 2503.20308 and its evaluation code), for a clip's apertures p and g:

    smooth     both curves by a Gaussian of sigma = 2 frames
    path       dynamic time warping of their first differences, cost |dp_j - dg_i|, of which the
               cheapest path is followed back from the end, a diagonal step first among equals
    pair       steps (i, j) of the path where i and j are extrema of like kind, maxima or minima,
               and j lies between the extrema of g before and after i

Published values use a lip distance of vertices at 30 fps, where 2 frames are 67 ms; here it is the
aperture at 50 fps. Sigma and the unit are frames, so values at other rates do not compare. Extrema
without a partner do not count, so that a face that hardly moves has a good value. `mtm_ms` is
therefore in milliseconds, leaves out extrema of the truth with a prominence below 0.02, pools
extrema over clips, and stands beside the share of extrema that have a partner.

Runs of valid frames are sequences of their own; those above 30 s are cut, since time and memory
grow with the square of the length.
"""

from __future__ import annotations

import numpy as np
from scipy.ndimage import gaussian_filter1d
from scipy.signal import find_peaks

from a2fjax import rig
from a2fjax.metrics import lips
from a2fjax.metrics.column import SHARE, WHOLE_LINE, Column
from a2fjax.metrics.reference import Reference
from a2fjax.metrics.runs import find_runs
from a2fjax.metrics.sums import Sums, divide

SIGMA = 2.0
PROMINENCE = 0.02
MAX_FRAMES = 1500

_MASK = "runs of valid frames with jawOpen observed"
_OURS = "pairs of the published definition, truth extrema of prominence >= 0.02 only"

columns = (
    Column(
        "mtm_ms",
        "mtm_ms",
        "delay of matched extrema of the aperture",
        "{:.1f}",
        unit="ms",
        formula=f"20 mean |j - i| over the {_OURS}",
        mask=_MASK,
    ),
    Column(
        "mtm_late_ms",
        form="{:+.1f}",
        unit="ms",
        better="0",
        formula=f"20 mean (j - i) over the {_OURS}; above 0 is late",
        mask=_MASK,
        range=WHOLE_LINE,
    ),
    Column(
        "mtm_matched",
        "matched",
        "share of the truth's extrema that have one",
        "{:.2f}",
        better="higher",
        formula="share of the truth's extrema of prominence >= 0.02 that are in a pair",
        mask=_MASK,
        range=SHARE,
    ),
    Column(
        "mtm_frames",
        form="{:.2f}",
        unit="frame",
        formula="mean over clips of the mean of |j - i| over pairs, clips without a pair left out",
        source="arXiv 2503.20308, evaluation/evaluate_MTM.py of its repository, on the aperture",
        mask=_MASK,
        rate="sigma and the unit are frames: 50 fps only",
    ),
)


def warping_path(first: np.ndarray, second: np.ndarray) -> np.ndarray:
    """Returns the pairs [N, 2] of the cheapest path between differences of two curves [n], [m]."""
    x, y = (np.diff(curve, prepend=curve[0]) for curve in (first, second))
    n, m = len(x), len(y)
    # The cells (i, k - i) of an anti-diagonal depend on those of k - 1 and k - 2. `of_y` holds
    # y[k - i] for i = 0 ... n - 1 in a row, and beyond y what makes the cost infinite.
    of_y = np.concatenate([np.full(n - 1, np.inf), y[::-1], np.full(n - 1, np.inf)])
    total = np.full((n + m + 1, n + 1), np.inf)  # Total of (i, k - i) at [k + 2, i + 1].
    total[2, 1] = abs(x[0] - y[0])
    cost = np.empty(n)
    diagonal, left, up = total[1, :-1], total[2, :-1], total[2, 1:]
    for k, whole in enumerate(total[3:], 1):
        row = whole[1:]
        np.subtract(x, of_y[n + m - 2 - k : 2 * n + m - 2 - k], out=cost)
        np.abs(cost, out=cost)
        np.minimum(left, up, out=row)
        np.minimum(row, diagonal, out=row)
        np.add(row, cost, out=row)
        diagonal, left, up = left, whole[:-1], row
    path = []
    i, j = n - 1, m - 1
    while True:
        path.append((i, j))
        if i == 0 and j == 0:
            return np.array(path[::-1])
        k = i + j
        diagonal, up, left = total[k, i], total[k + 1, i], total[k + 1, i + 1]
        if diagonal <= up and diagonal <= left:
            i, j = i - 1, j - 1
        elif up <= left:
            i -= 1
        else:
            j -= 1


def pairs(prediction: np.ndarray, truth: np.ndarray) -> np.ndarray:
    """Returns the pairs (i, j) [N, 2] of extrema of smoothed curves [T]; see the module."""
    kind_p, kind_g = _kinds(prediction), _kinds(truth)
    extrema = np.flatnonzero(kind_g)
    if not len(extrema) or not kind_p.any():
        return np.zeros((0, 2), int)
    path = warping_path(truth, prediction)
    i, j = path.T
    path = path[(kind_g[i] != 0) & (kind_g[i] == kind_p[j])]
    i, j = path.T
    place = np.searchsorted(extrema, i)
    bounds = np.concatenate([[0], extrema, [len(truth) - 1]])
    return path[(bounds[place] <= j) & (j <= bounds[place + 2])]


def sums(prediction: np.ndarray, truth: Reference) -> Sums:
    """Reduces a clip; see `Metric.sums`."""
    aperture = lips.aperture(prediction, truth.channel_mask)
    every, late, delay, matched, extrema = [], 0.0, 0.0, 0, 0
    for start, stop in _pieces(truth.aperture_mask):
        p, g = (gaussian_filter1d(curve[start:stop], SIGMA) for curve in (aperture, truth.aperture))
        frame_pairs = pairs(p, g)
        every.append(frame_pairs[:, 1] - frame_pairs[:, 0])
        tops = np.concatenate([find_peaks(sign * g, prominence=PROMINENCE)[0] for sign in (1, -1)])
        extrema += len(tops)
        nearest: dict[int, int] = {}
        for i, j in frame_pairs[np.isin(frame_pairs[:, 0], tops)].tolist():
            if i not in nearest or abs(j - i) < abs(nearest[i]):
                nearest[i] = j - i
        matched += len(nearest)
        late += sum(nearest.values())
        delay += sum(map(abs, nearest.values()))
    delays = np.abs(np.concatenate(every)) if every else np.zeros(0)
    return {
        "mtm/clip_mean": np.asarray(delays.mean() if len(delays) else 0.0),
        "mtm/clips": np.asarray(float(len(delays) > 0)),
        "mtm/delay": np.asarray(delay),
        "mtm/late": np.asarray(late),
        "mtm/matched": np.asarray(float(matched)),
        "mtm/extrema": np.asarray(float(extrema)),
    }


def values(total: Sums) -> dict[str, np.ndarray]:
    """Returns the delays [...] of merged sums; NaN without a pair."""
    frame = 1000.0 / rig.FPS
    return {
        "mtm_ms": frame * divide(total["mtm/delay"], total["mtm/matched"]),
        "mtm_late_ms": frame * divide(total["mtm/late"], total["mtm/matched"]),
        "mtm_matched": divide(total["mtm/matched"], total["mtm/extrema"]),
        "mtm_frames": divide(total["mtm/clip_mean"], total["mtm/clips"]),
    }


def _kinds(curve: np.ndarray) -> np.ndarray:
    """Returns [T] int: 1 at maxima, -1 at minima, 0 elsewhere."""
    out = np.zeros(len(curve), int)
    out[find_peaks(curve)[0]] = 1
    out[find_peaks(-curve)[0]] = -1
    return out


def _pieces(mask: np.ndarray) -> list[tuple[int, int]]:
    """Returns runs of valid frames, evenly cut to at most `MAX_FRAMES`."""
    out = []
    for start, stop in find_runs(mask):
        edges = np.linspace(start, stop, -(-(stop - start) // MAX_FRAMES) + 1).round().astype(int)
        out += list(zip(edges[:-1].tolist(), edges[1:].tolist(), strict=True))
    return out
