"""Estimates offset and drift of the clocks from lips and sound, for takes that share them."""

from __future__ import annotations

import dataclasses

import numpy as np

from data_pipeline.timing import lags, rates
from data_pipeline.timing.align import ENVELOPE_RATE

CONFIDENT = 0.6
"""Confidence from which an estimate may contradict another."""

CERTAIN = 0.5
"""Confidence from which drift is a finding."""

_NEAR_NOMINAL = 0.0015  # search range around a mistaken rate
_CLEAR = 6.0  # standard deviations above chance of a line that leaves no doubt


@dataclasses.dataclass(frozen=True)
class Speech:
    """Estimates from the lips and audio of a take.

    Attributes:
      seconds: offset at the capture time `pivot`, s.
      pivot, middle: capture times, s; the second is half way through the take.
      confidence, spread: confidence and standard error (s) of the offset.
      drift: s/s; 0 unless `drift_confidence` is at least `CERTAIN`.
      drift_confidence, drift_spread: confidence and standard error (s/s) of the drift.
      own, own_confidence: offset at the pivot from this take alone, or None.
      mistake: the mistaken rate that explains the drift, or None.
      shared: whether the offset is that of the actor's other takes.
    """

    seconds: float
    pivot: float
    middle: float
    confidence: float
    spread: float
    drift: float
    drift_confidence: float
    drift_spread: float
    own: float | None
    own_confidence: float
    mistake: rates.Mistake | None = None
    shared: bool = False

    def offset(self, *, corrected: bool) -> float:
        """Returns the offset at time 0 if drift is corrected, else half way through the take."""
        return self.seconds + self.drift * ((0.0 if corrected else self.middle) - self.pivot)

    def alone(self, *, corrected: bool) -> float | None:
        """Returns the offset from this take alone, at the same time as `offset`."""
        if self.own is None:
            return None
        return self.offset(corrected=corrected) - self.seconds + self.own


def estimate(pairs: list[lags.LipSoundPair], limit: float) -> dict[int, Speech]:
    """Returns the estimates by index for takes that share an offset and a drift.

    Args:
      pairs: signals of the takes.
      limit: largest offset searched, s.
    """
    if not pairs:
        return {}
    reach = max(2, round(limit * ENVELOPE_RATE))
    ratio, fit = _best_line(pairs, reach)
    above = lags.likelihood_to_deviations(fit.likelihood - fit.level)
    if above > 0:
        # Standard error from chance and from the ends of the takes.
        above = abs(fit.drift) / float(np.hypot(fit.drift / above, lags.spurious_drift(pairs)))
    apart = float(np.clip((above - 1.5) / 3.0, 0.0, 1.0))
    apart = min(apart, lags.deviations_to_confidence(lags.likelihood_to_deviations(fit.likelihood)))
    mistake = None
    drift_spread = float(np.hypot(fit.drift_spread, lags.spurious_drift(pairs)))
    if apart < CERTAIN:
        ratio, fit = 1.0, dataclasses.replace(fit, seconds=fit.steady, drift=0.0)
    else:
        frame = float(np.median([p.frame for p in pairs]))
        mistake = rates.find_mistake(fit.drift, 1.0 / frame, drift_spread)
        if mistake is not None:
            fit = dataclasses.replace(fit, drift=mistake.drift)
    residual = (1.0 + fit.drift) / ratio - 1.0
    curves = np.array([lags.slant_stack(p, ratio, np.array([residual]), reach)[0] for p in pairs])
    chance = np.array([p.chance for p in pairs])
    pooled, noise = curves.sum(axis=0), float(np.sqrt((chance**2).sum()))
    seconds, confidence, width = lags.find_peak(pooled, noise)
    if fit.drift:
        # Correct for selection: the best of many drifts always fits better.
        confidence = min(
            confidence, lags.deviations_to_confidence(lags.likelihood_to_deviations(fit.likelihood))
        )
    spread = width
    if len(pairs) > 1:
        # Jackknife over takes, leaving each out once.
        left = [lags.find_peak(pooled - c, noise)[0] for c in curves]
        spread = float(np.sqrt((len(left) - 1) * np.var(left)))
    out = {}
    for pair, curve in zip(pairs, curves, strict=True):
        own_offset, own_confidence, _ = lags.find_peak(curve, pair.chance)
        base = pair.base / ENVELOPE_RATE
        out[pair.index] = Speech(
            seconds=seconds + base,
            pivot=pair.pivot,
            middle=pair.middle,
            confidence=confidence,
            spread=spread,
            drift=fit.drift,
            drift_confidence=apart,
            drift_spread=drift_spread,
            own=own_offset + base,
            own_confidence=own_confidence,
            mistake=mistake,
        )
    return out


def _best_line(pairs: list[lags.LipSoundPair], reach: int) -> tuple[float, lags.LineFit]:
    """Returns the stretch of the capture's clock around which the best line was found, and it.

    A mistaken rate changes the length of a capture. Where the lengths of capture and sound agree in
    most takes, it takes as much evidence as ends the search.
    """
    ratio, fit = 1.0, lags.fit_line(pairs, 1.0, rates.LARGEST_DRIFT, reach)
    agree = np.mean([lags.lengths_differ(p, 1.0) for p in pairs]) <= 0.5
    if agree and lags.likelihood_to_deviations(fit.likelihood) >= _CLEAR:
        return ratio, fit
    others = rates.stretches(1.0 / float(np.median([p.frame for p in pairs])))
    for other in others:
        tried = lags.fit_line(pairs, other, _NEAR_NOMINAL, reach)
        tries = np.log(len(others)) if any(lags.lengths_differ(p, other) for p in pairs) else 0.0
        tried = dataclasses.replace(tried, likelihood=tried.likelihood - tries, level=fit.level)
        if agree and lags.likelihood_to_deviations(tried.likelihood) < _CLEAR:
            continue
        if tried.likelihood > fit.likelihood:
            ratio, fit = other, tried
    return ratio, fit


def share_drift(
    pairs: list[lags.LipSoundPair], estimates: dict[int, Speech], limit: float
) -> dict[int, Speech]:
    """Returns the estimates with the shared drift, for takes with separate offsets."""
    placed = [p for p in pairs if estimates[p.index].confidence >= CONFIDENT]
    if len(placed) < 2:
        return estimates
    pinned = []
    for pair in placed:
        offset = estimates[pair.index].offset(corrected=False)
        pinned.append(
            dataclasses.replace(pair, base=round(offset * ENVELOPE_RATE), pivot=pair.middle)
        )
    shared = next(iter(estimate(pinned, 0.03).values()))
    common = estimate(pairs, limit)
    out = {}
    for pair in pairs:
        speech = estimates[pair.index]
        if speech.confidence < min(CONFIDENT, common[pair.index].confidence):
            own_offset, sure = speech.offset(corrected=False), speech.confidence
            speech = dataclasses.replace(
                common[pair.index], own=own_offset, own_confidence=sure, shared=True
            )
        if (shared.drift_confidence, -shared.drift_spread) > (
            speech.drift_confidence,
            -speech.drift_spread,
        ):
            middle = speech.offset(corrected=False)
            speech = dataclasses.replace(
                speech,
                seconds=middle,
                own=speech.alone(corrected=False),
                pivot=pair.middle,
                drift=shared.drift,
                drift_confidence=shared.drift_confidence,
                drift_spread=shared.drift_spread,
                mistake=shared.mistake,
            )
        out[pair.index] = speech
    return out
