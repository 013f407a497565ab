"""Estimates the offset and drift between the clocks of audio and capture, with confidence.

Audio time = capture time * (1 + drift) + offset. Both are estimated from the correlation of lip
motion with changes of loudness (see `lags`), the offset also from a slate.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence

import numpy as np

from data_pipeline.timing import align, lags
from data_pipeline.timing.align import ENVELOPE_RATE

LARGEST_DRIFT = 0.012
"""Searched continuously, s/s; beyond, only what mistaken rates give."""

FRAME_RATES = tuple(
    sorted({*(24.0, 25.0, 30.0, 48.0, 50.0, 60.0, 100.0, 120.0), *align.NTSC_RATES})
)
SAMPLE_RATES = (44_100.0, 48_000.0)

MAX_DISAGREEMENT = 0.04
"""Estimates further apart than this, s, contradict each other: more than a frame at 25 a second."""

CONFIDENT = 0.6
"""Confidence from which an estimate may contradict another."""

_NEAR_NOMINAL = 0.0015  # search range around a mistaken rate


@dataclasses.dataclass(frozen=True)
class Signals:
    """The signals of a take used to estimate its clocks.

    Attributes:
      name: name of the take, unique for the actor.
      slate: whether the take holds lip pops instead of speech.
      envelope: [N] loudness in dB at 200 Hz, see `align.envelope`.
      clicks: [M] s, see `align.click_times`; only a slate's are used.
      times: [F] s on the capture's clock, increasing.
      aperture: [F] lip aperture, any unit; NaN where unknown.
      stated_offset: offset in s stated in the files (timecodes), or None.
    """

    name: str
    slate: bool
    envelope: np.ndarray
    clicks: np.ndarray
    times: np.ndarray
    aperture: np.ndarray
    stated_offset: float | None = None


@dataclasses.dataclass(frozen=True)
class Clock:
    """The relation of a take's two clocks; all fields can be written as JSON.

    Attributes:
      seconds: audio time minus capture time: at capture time 0 if `corrected`, otherwise the
        constant that best fits the whole take.
      method: "given", "timecode", "slate", "speech" or "none" (no evidence; 0 is assumed).
      confidence: in [0, 1]; 1 for a given offset. For a slate, see `align.SlateOffset`. For speech,
        and for a timecode compared with speech, it measures the correlation above chance: unrelated
        signals reach 0.5 in fewer than one in twenty cases. A timecode without speech to compare
        has 0.5.
      spread: standard error, s: for speech over takes (jackknife) or from the width of the peak,
        for a slate over its pops; 0 for given offsets and timecodes.
      drift: s of audio gained per s of capture; 0 while `drift_confidence` is 0.
      drift_confidence: in [0, 1], confidence that the clocks drift; 0.5 as above.
      drift_spread: standard error of the drift, s/s, also if no drift is reported; 0 if unknown.
        Unreported drift is within about twice this.
      own: offset estimated from this take alone, s, or None; comparable with `seconds`.
      own_confidence: confidence of `own`.
      corrected: whether `audio_times` removes the drift.
      notes: notable findings, as text.
    """

    seconds: float
    method: str
    confidence: float
    spread: float = 0.0
    drift: float = 0.0
    drift_confidence: float = 0.0
    drift_spread: float = 0.0
    own: float | None = None
    own_confidence: float = 0.0
    corrected: bool = False
    notes: tuple[str, ...] = ()

    def audio_times(self, capture_times: np.ndarray) -> np.ndarray:
        """Converts times [F] on the capture's clock to times on the audio's clock, s."""
        rate = 1.0 + (self.drift if self.corrected else 0.0)
        return np.asarray(capture_times, np.float64) * rate + self.seconds


@dataclasses.dataclass(frozen=True)
class _Speech:
    """Estimates from the lips and audio of a take."""

    seconds: float  # at the pivot
    pivot: float
    middle: float
    confidence: float
    spread: float
    drift: float
    drift_confidence: float
    drift_spread: float
    own: float | None  # at the pivot
    own_confidence: float
    frame: float
    shared: bool = False

    def offset(self, *, corrected: bool) -> float:
        """Returns the offset at time 0 if drift is corrected, else half way through the take."""
        return self.seconds + self.drift * ((0.0 if corrected else self.middle) - self.pivot)

    def alone(self, *, corrected: bool) -> float | None:
        """Returns the offset from this take alone, at the same time as `offset`."""
        if self.own is None:
            return None
        return self.offset(corrected=corrected) - self.seconds + self.own


def estimate_clocks(
    signals: Sequence[Signals],
    *,
    given: float | None = None,
    limit: float = 0.25,
    least_confidence: float = 0.3,
    per_take: bool = False,
    correct_drift: bool = False,
) -> list[Clock]:
    """Estimates the clocks of an actor's takes, in their order.

    The order of precedence is: a given offset; a timecode, unless speech contradicts it
    confidently; a slate's lip pops; speech; an offset of 0. All takes of an actor share an offset
    and a drift, because one device recorded them. With `per_take` they share only the drift, and a
    take with too little speech falls back on the others' offset. Takes with timecodes share only
    the error of these.

    Args:
      signals: signals of all takes of the actor, slates included.
      given: offset for every take, s.
      limit: largest accepted offset, s (for timecodes: largest error).
      least_confidence: minimum confidence for offsets from a slate or from speech.
      per_take: whether each take has a separate offset.
      correct_drift: whether to remove drift with at least `least_confidence`.

    Example:
        >>> import numpy as np
        >>> times, zeros = np.arange(120) / 60, np.zeros(120)
        >>> still = Signals("a", False, np.zeros(400), np.zeros(0), times, zeros)
        >>> [(clock.method, clock.seconds) for clock in estimate_clocks([still])]
        [('none', 0.0)]
        >>> estimate_clocks([still], given=0.1)[0].audio_times(np.array([1.0]))
        array([1.1])
    """
    pairs = [
        pair
        for n, s in enumerate(signals)
        if not s.slate
        and (pair := lags.make_pair(n, s.envelope, s.times, s.aperture, s.stated_offset))
        is not None
    ]
    estimates: dict[int, _Speech] = {}
    if per_take:
        for pair in pairs:
            estimates |= _speech([pair], limit)
        estimates = _share(pairs, estimates, limit)
    else:
        for timecode in (False, True):
            estimates |= _speech(
                [p for p in pairs if (signals[p.index].stated_offset is not None) == timecode],
                limit,
            )
    slates = [
        align.offset_from_slate(s.clicks, s.times, s.aperture, limit=limit) if s.slate else None
        for s in signals
    ]
    best = max((s for s in slates if s), key=lambda s: s.confidence, default=None)
    out = []
    for n, signal in enumerate(signals):
        slate = slates[n] if per_take else best
        if slate is not None and slate.confidence < least_confidence:
            slate = None
        out.append(_decide(signal, estimates.get(n), slate, given, least_confidence, correct_drift))
    return out


def _decide(
    signal: Signals,
    speech: _Speech | None,
    slate: align.SlateOffset | None,
    given: float | None,
    least_confidence: float,
    correct_drift: bool,
) -> Clock:
    notes: list[str] = []
    corrected = (
        correct_drift
        and speech is not None
        and speech.drift_confidence >= max(least_confidence, 1e-9)
    )
    spoken = speech.offset(corrected=corrected) if speech is not None else 0.0
    sure = speech.confidence if speech is not None else 0.0
    spread = 0.0
    if given is not None:
        seconds, method, confidence = given, "given", 1.0
    elif signal.stated_offset is not None:
        seconds, method, confidence = signal.stated_offset, "timecode", max(0.5, sure)
    elif slate is not None:
        seconds, method, confidence = slate.seconds, "slate", slate.confidence
        spread = slate.spread
    elif speech is not None and sure >= least_confidence:
        seconds, method, confidence, spread = spoken, "speech", sure, speech.spread
        if speech.shared:
            notes.append("says too little by itself: the other takes' offset")
    else:
        seconds, method, confidence = 0.0, "none", sure
    if method in ("given", "timecode", "slate") and sure >= CONFIDENT:
        if abs(spoken - seconds) > MAX_DISAGREEMENT:
            notes.append(
                f"the {method} offset is {seconds:+.3f} s, lips and sound say {spoken:+.3f} s"
            )
            if method == "timecode" and speech is not None:
                seconds, method, confidence, spread = spoken, "speech", sure, speech.spread
    clock = Clock(seconds, method, confidence, spread, corrected=corrected)
    if speech is not None:
        own_offset = speech.alone(corrected=corrected)
        if (
            own_offset is not None
            and speech.own_confidence >= CONFIDENT
            and abs(own_offset - seconds) > MAX_DISAGREEMENT
        ):
            text = f"by itself it says {own_offset:+.3f} s, not {seconds:+.3f} s"
            if not any("lips and sound" in n for n in notes):
                notes.append(text)
        if speech.drift_confidence >= 0.5:
            notes.append(describe_clock(speech.drift, 1.0 / speech.frame, speech.drift_spread))
        clock = dataclasses.replace(
            clock,
            drift=speech.drift,
            drift_confidence=speech.drift_confidence,
            drift_spread=speech.drift_spread,
            own=own_offset,
            own_confidence=speech.own_confidence,
        )
    return dataclasses.replace(clock, notes=tuple(notes))


def describe_clock(drift: float, fps: float, spread: float = 0.0) -> str:
    """Returns a description of the drift, and of the mistaken rate that would explain it.

    Args:
      drift: s of audio gained per s of capture.
      fps: rate used to time the capture's frames.
      spread: standard error of the drift.
    """
    size = f"{100 * drift:+.2f} %" if abs(drift) >= 0.001 else f"{1e6 * drift:+.0f} ppm"
    text = f"the clocks run apart by {size} ({abs(drift) * 6e4:.1f} ms a minute)"
    near = min(max(3.0 * spread, 1e-4), 3e-4)
    for rate in FRAME_RATES:
        if abs(rate / fps - 1) > near and abs(fps / rate - 1.0 - drift) <= near:
            return f"{text}: looks like {rate:.6g} fps taken for {fps:.6g}"
    for real, assumed in (SAMPLE_RATES, SAMPLE_RATES[::-1]):
        if abs(real / assumed - 1.0 - drift) <= near:
            return f"{text}: looks like sound of {real:.0f} Hz taken for {assumed:.0f}"
    return text


def _speech(pairs: list[lags.LipSoundPair], limit: float) -> dict[int, _Speech]:
    """Returns speech estimates for takes that share an offset and a drift."""
    if not pairs:
        return {}
    reach = max(2, round(limit * ENVELOPE_RATE))
    ratio, fit = 1.0, lags.fit_line(pairs, 1.0, LARGEST_DRIFT, reach)
    unclear = lags.likelihood_to_deviations(fit.likelihood) < 6.0 or any(
        lags.lengths_differ(p, 1.0) for p in pairs
    )
    if unclear:
        rates = _mistakes(1.0 / float(np.median([p.frame for p in pairs])))
        for other in rates:
            tried = lags.fit_line(pairs, other, _NEAR_NOMINAL, reach)
            tries = np.log(len(rates)) if any(lags.lengths_differ(p, other) for p in pairs) else 0.0
            tried = dataclasses.replace(tried, likelihood=tried.likelihood - tries, level=fit.level)
            if tried.likelihood > fit.likelihood:
                ratio, fit = other, tried
    above = lags.likelihood_to_deviations(fit.likelihood - fit.level)
    if above > 0:
        # Standard error from chance and from the ends of the takes.
        above = abs(fit.drift) / float(np.hypot(fit.drift / above, lags.spurious_drift(pairs)))
    apart = float(np.clip((above - 1.5) / 3.0, 0.0, 1.0))
    apart = min(apart, lags.deviations_to_confidence(lags.likelihood_to_deviations(fit.likelihood)))
    if apart <= 0:
        ratio, fit = 1.0, dataclasses.replace(fit, seconds=fit.steady, drift=0.0)
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
        out[pair.index] = _Speech(
            seconds=seconds + base,
            pivot=pair.pivot,
            middle=pair.middle,
            confidence=confidence,
            spread=spread,
            drift=fit.drift,
            drift_confidence=apart,
            drift_spread=float(np.hypot(fit.drift_spread, lags.spurious_drift(pairs))),
            own=own_offset + base,
            own_confidence=own_confidence,
            frame=pair.frame,
        )
    return out


def _share(
    pairs: list[lags.LipSoundPair], estimates: dict[int, _Speech], limit: float
) -> dict[int, _Speech]:
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
    shared = next(iter(_speech(pinned, 0.03).values()))
    common = _speech(pairs, limit)
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
            )
        out[pair.index] = speech
    return out


def _mistakes(fps: float) -> list[float]:
    """Returns the stretch of the capture's clock for each commonly mistaken rate."""
    ratios = [fps / rate for rate in FRAME_RATES]
    ratios += [SAMPLE_RATES[0] / SAMPLE_RATES[1], SAMPLE_RATES[1] / SAMPLE_RATES[0]]
    return [r for r in ratios if abs(r - 1.0) > 0.9 * LARGEST_DRIFT and 0.4 < r < 2.6]
