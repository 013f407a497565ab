"""Lip metrics: aperture error and closure events.

`aperture` is the rig's linear map of jaw, lip and mouthClose weights (`rig.APERTURE`).

Closures. Let tau be the subject's 10th percentile of the true aperture over **speech** frames
(`silence.segment`): over all frames, pauses at rest would place tau at the rest value and make
every rest a closure. Bounds are inclusive, since the truth during a stop is often exactly its
lowest value. With the margin m = 0.03 and the reach w = 2 frames (40 ms):

    run         maximal run of valid frames with aperture <= bound, gaps of one frame filled
    event       a run of at least 2 frames, at least half of them speech; its centre is the middle
                of its lowest frames
    truth events        bound tau, at most 0.3 s (15 frames): longer ones are rests, trivially hit
    predicted events    bound tau + m; runs above 0.3 s are cut into pieces of at most 0.3 s, each
                        an event: a mouth that never opens has many events, not one

A perfect copy has recall and precision 1, residual 0, ratio 1. Recall alone is not informative,
since an always-closed mouth has recall 1; nor is precision alone, since a mouth that closes once
can have precision 1. `closed_ratio` reveals both cases, and `closure_f1` joins recall and
precision in one figure.
"""

from __future__ import annotations

import dataclasses

import numpy as np

from a2fjax import rig
from a2fjax.metrics.column import SHARE, WHOLE_LINE, Column
from a2fjax.metrics.runs import close_gaps, find_runs
from a2fjax.metrics.sums import Sums, divide

PERCENTILE = 10.0
MARGIN = 0.03
REACH = 2
MIN_FRAMES = 2
MAX_FRAMES = 15
PLATEAU = 1e-3

_MASK = "valid frames with jawOpen observed"

COLUMNS = (
    Column(
        "mod",
        "mod",
        "error of the aperture",
        "{:.4f}",
        unit="weight",
        formula="mean_t |a_p - a_g|",
        source="mean opening difference of DiffPoseTalk, arXiv 2310.00434, which uses lip vertices",
        mask=_MASK,
    ),
    Column(
        "closure_recall",
        "recall",
        "share of the truth's lip closures that the prediction makes",
        better="higher",
        formula="share of truth events with a_p <= tau + m somewhere within w of the centre",
        mask=_MASK,
        range=SHARE,
    ),
    Column(
        "closure_precision",
        "prec",
        "share of the predicted lip closures that the truth makes",
        better="higher",
        formula="share of predicted events with a_g <= tau + m somewhere within w of the centre",
        mask=_MASK,
        range=SHARE,
    ),
    Column(
        "closure_f1",
        "f1",
        "harmonic mean of recall and precision of lip closures",
        better="higher",
        formula="2 P R / (P + R), P closure_precision and R closure_recall over the same clips; 0 "
        "without a predicted event or where both are 0, none without a truth event",
        mask=_MASK,
        range=SHARE,
    ),
    Column(
        "closure_residual",
        "resid",
        "aperture that is left at closures",
        "{:+.3f}",
        unit="weight",
        better="0",
        formula="mean over truth events of the lowest a_p less the lowest a_g within w",
        mask=_MASK,
        range=WHOLE_LINE,
    ),
    Column(
        "closed_ratio",
        "closed",
        "closed frames over the truth's",
        "{:.2f}",
        better="1",
        formula="speech frames with a_p <= tau + m over those with a_g <= tau + m",
        mask=f"{_MASK}, in speech",
    ),
)


@dataclasses.dataclass(frozen=True)
class Event:
    """A lip closure in frames [start, stop), most closed at `centre`."""

    start: int
    stop: int
    centre: int


def aperture(motion: np.ndarray, channel_mask: np.ndarray | None = None) -> np.ndarray:
    """Returns the aperture [T] of a motion [T, 72] from its observed channels.

    Unobserved channels are zero in the truth and arbitrary in a prediction, so both omit them.
    """
    weights = rig.APERTURE.astype(np.float64)
    if channel_mask is not None:
        weights = weights * channel_mask
    return np.asarray(motion, np.float64) @ weights


def has_aperture(channel_mask: np.ndarray) -> bool:
    """Returns True if the observed channels define an aperture, which requires jawOpen."""
    return bool(channel_mask[rig.INDEX["jawOpen"]])


def closure_threshold(apertures: np.ndarray, speech: np.ndarray) -> float:
    """Returns tau: the 10th percentile of a subject's true aperture over speech frames.

    Args:
      apertures: [N] apertures of all valid frames of the subject.
      speech: [N] bool.

    Returns:
      The percentile; NaN if no frame is speech.
    """
    spoken = np.asarray(apertures)[np.asarray(speech, bool)]
    return float(np.percentile(spoken, PERCENTILE)) if len(spoken) else float("nan")


def closure_events(
    opening: np.ndarray,
    bound: float,
    *,
    speech: np.ndarray,
    frame_mask: np.ndarray,
    cut_long: bool,
) -> list[Event]:
    """Returns the closure events of an aperture curve; see the module.

    Args:
      opening: [T] aperture.
      bound: aperture at or below which the lips are closed.
      speech: [T] bool.
      frame_mask: [T] bool, valid frames; invalid frames are never closed.
      cut_long: cut runs above 0.3 s into pieces (predictions) instead of omitting them (truth).
    """
    events = []
    closed = close_gaps((opening <= bound) & frame_mask, 1) & frame_mask
    for start, stop in find_runs(closed):
        length = stop - start
        if length < MIN_FRAMES or (length > MAX_FRAMES and not cut_long):
            continue
        pieces = -(-length // MAX_FRAMES)
        edges = np.linspace(start, stop, pieces + 1).round().astype(int)
        for first, last in zip(edges[:-1], edges[1:], strict=True):
            if 2 * speech[first:last].sum() >= last - first:
                part = opening[first:last]
                lowest = np.flatnonzero(part <= part.min() + PLATEAU)
                events.append(Event(int(first), int(last), int(first + lowest[len(lowest) // 2])))
    return events


def sums(
    prediction: np.ndarray,
    truth: np.ndarray,
    *,
    threshold: float,
    speech: np.ndarray,
    frame_mask: np.ndarray,
) -> Sums:
    """Reduces the apertures of a clip.

    Args:
      prediction: [T] predicted aperture.
      truth: [T] true aperture.
      threshold: tau of the subject; NaN disables closures.
      speech: [T] bool.
      frame_mask: [T] bool, valid frames.
    """
    out = dict.fromkeys(
        "hit truth_events right predicted_events residual closed_p closed_g".split(), 0.0
    )
    out["abs"] = np.abs(prediction - truth)[frame_mask].sum()
    out["frames"] = float(frame_mask.sum())
    if np.isfinite(threshold):
        bound = threshold + MARGIN
        # An invalid frame is neither a hit nor a miss.
        p, g = (np.where(frame_mask, x, np.inf) for x in (prediction, truth))
        for event in closure_events(
            g, threshold, speech=speech, frame_mask=frame_mask, cut_long=False
        ):
            lowest = _lowest(p, event.centre)
            if np.isfinite(lowest):
                out["truth_events"] += 1
                out["hit"] += lowest <= bound
                out["residual"] += lowest - _lowest(g, event.centre)
        for event in closure_events(p, bound, speech=speech, frame_mask=frame_mask, cut_long=True):
            out["predicted_events"] += 1
            out["right"] += _lowest(g, event.centre) <= bound
        spoken = speech & frame_mask
        out["closed_p"] = float((p[spoken] <= bound).sum())
        out["closed_g"] = float((g[spoken] <= bound).sum())
    return {f"lips/{key}": np.asarray(value) for key, value in out.items()}


def values(total: Sums) -> dict[str, np.ndarray]:
    """Returns the metrics [...] of merged sums; NaN without events."""
    pairs = {
        "mod": ("abs", "frames"),
        "closure_recall": ("hit", "truth_events"),
        "closure_precision": ("right", "predicted_events"),
        "closure_residual": ("residual", "truth_events"),
        "closed_ratio": ("closed_p", "closed_g"),
    }
    out = {
        name: divide(total[f"lips/{top}"], total[f"lips/{bottom}"])
        for name, (top, bottom) in pairs.items()
    }
    recall, precision = out["closure_recall"], np.nan_to_num(out["closure_precision"])
    out["closure_f1"] = np.where(
        np.isnan(recall), np.nan, np.nan_to_num(divide(2 * precision * recall, precision + recall))
    )
    return out


def _lowest(curve: np.ndarray, centre: int) -> float:
    return float(curve[max(centre - REACH, 0) : centre + REACH + 1].min())
