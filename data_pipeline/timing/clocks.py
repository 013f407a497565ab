"""Estimates the offset and drift between the clocks of audio and capture, with confidence.

Audio time = capture time * (1 + drift) + offset. Both are estimated from the correlation of lip
motion with changes of loudness (see `lags`), the offset also from a slate.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence

import numpy as np

from data_pipeline.timing import align, lags, pieces, rates, speech
from data_pipeline.timing.speech import CERTAIN, CONFIDENT

MAX_DISAGREEMENT = 0.04
"""Offsets further apart than this, s, contradict each other: more than a frame at 25 a second."""

TOLERABLE = 0.01
"""Error of the lips over a take, s, from which its own drift is considered."""

_DEVIATIONS = 2.5
"""Standard errors that an offset from speech must exceed.

Of 121 parts of 4 s of the FACEGOOD recordings, moved to a true offset of 0, two do, and of 114
parts of 8 s to 40 s none. In parts of 24 s the bound is 25 ms, or 34 ms in one of twenty.
"""

_OF_VOICES = 0.005
"""Standard deviation, s, of the lead of lips over sound between recordings, which is no offset."""


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
      method: "given", "timecode", "slate", "speech", "agreement" (speech agrees with 0 within the
        error of its estimate; 0 is used), "none" (no evidence; 0 is assumed), or "sync" (one of
        these, moved by what a sync expert found: `expert_offset.decide`).
      confidence: in [0, 1]; 1 for a given offset. For a slate, see `align.SlateOffset`; for sync,
        see `a2fjax.sync.offsets.Offset`. For speech,
        and for a timecode compared with speech, it measures the correlation above chance: unrelated
        signals reach 0.5 in fewer than one in twenty cases. A timecode without speech to compare
        has 0.5.
      spread: standard error, s: for speech and agreement over takes (jackknife) or from the width
        of the peak, for a slate over its pops; 0 for given offsets and timecodes.
      drift: s of audio gained per s of capture; 0 while `drift_confidence` is below 0.5.
      drift_confidence: in [0, 1], confidence that the clocks drift; 0.5 as above.
      drift_spread: standard error of the drift, s/s, also if no drift is reported; 0 if unknown.
        Unreported drift is within about twice this.
      own: offset estimated from this take alone, s, or None; comparable with `seconds`.
      own_confidence: confidence of `own`.
      corrected: whether `audio_times` removes the drift.
      error: largest error of the lips over the take, s, that this clock leaves for certain: from
        the lags of the take's pieces, an estimate that contradicts the offset by more than
        `MAX_DISAGREEMENT`, and drift that is not removed.
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
    error: float = 0.0
    notes: tuple[str, ...] = ()

    def audio_times(self, capture_times: np.ndarray) -> np.ndarray:
        """Converts times [F] on the capture's clock to times on the audio's clock, s."""
        rate = 1.0 + (self.drift if self.corrected else 0.0)
        return np.asarray(capture_times, np.float64) * rate + self.seconds


def estimate_clocks(
    signals: Sequence[Signals],
    *,
    given: float | None = None,
    limit: float = 0.25,
    least_confidence: float = 0.3,
    per_take: bool = False,
    correct_drift: bool = True,
) -> list[Clock]:
    """Estimates the clocks of an actor's takes, in their order.

    The order of precedence is: a given offset; a timecode, unless speech contradicts it
    confidently; a slate's lip pops; speech, if its offset exceeds its error; an offset of 0. All
    takes of an actor share an offset and a drift, because one device recorded them. With `per_take`
    they share only the drift, and a take with too little speech falls back on the others' offset.
    Takes with timecodes share only the error of these.

    Args:
      signals: signals of all takes of the actor, slates included.
      given: offset for every take, s.
      limit: largest accepted offset, s (for timecodes: largest error); none beyond is used.
      least_confidence: minimum confidence for offsets from a slate or from speech.
      per_take: whether each take has a separate offset.
      correct_drift: whether to remove drift with a confidence of at least 0.5. A take whose own
        drift differs from the others' gets its own.

    Example:
        >>> import numpy as np
        >>> times, zeros = np.arange(120) / 60, np.zeros(120)
        >>> still = Signals("a", False, np.zeros(400), np.zeros(0), times, zeros)
        >>> [(clock.method, clock.seconds) for clock in estimate_clocks([still])]
        [('none', 0.0)]
        >>> estimate_clocks([still], given=0.1)[0].audio_times(np.array([1.0]))
        array([1.1])
    """
    pairs = {
        n: pair
        for n, s in enumerate(signals)
        if not s.slate
        and (pair := lags.make_pair(n, s.envelope, s.times, s.aperture, s.stated_offset))
        is not None
    }
    estimates: dict[int, speech.Speech] = {}
    if per_take:
        for pair in pairs.values():
            estimates |= speech.estimate([pair], limit)
        estimates = speech.share_drift(list(pairs.values()), estimates, limit)
    else:
        for timecode in (False, True):
            estimates |= speech.estimate(
                [
                    pair
                    for n, pair in pairs.items()
                    if (signals[n].stated_offset is not None) == timecode
                ],
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
        rules = _Rules(given, limit, least_confidence, correct_drift)
        clock = _decide(signal, estimates.get(n), slate, rules)
        if n in pairs:
            clock = _verify(pairs[n], clock)
            if correct_drift and not per_take and clock.error > TOLERABLE:
                clock = _own_line(pairs[n], signal, clock, slate, rules)
        out.append(clock)
    return out


@dataclasses.dataclass(frozen=True)
class _Rules:
    given: float | None
    limit: float
    least_confidence: float
    correct_drift: bool


def _decide(
    signal: Signals, said: speech.Speech | None, slate: align.SlateOffset | None, rules: _Rules
) -> Clock:
    """Returns the clock of a take, with the errors that follow from its estimates alone."""
    notes: list[str] = []
    centre = signal.stated_offset or 0.0
    mistake = said.mistake if said is not None else None
    drifts = said is not None and said.drift_confidence >= CERTAIN
    # Sound at a wrong rate has words that are too slow or fast: no clock mends it.
    corrected = rules.correct_drift and drifts and not (mistake is not None and mistake.of_sound)
    spoken = said.offset(corrected=corrected) if said is not None else 0.0
    sure = said.confidence if said is not None else 0.0
    error = 0.0
    if said is not None and rules.given is None and abs(spoken - centre) > rules.limit:
        if sure >= CONFIDENT:
            notes.append(
                f"lips and sound say {spoken:+.3f} s, which is beyond largest_offset and not used"
            )
            error = abs(spoken - centre)
        corrected, sure = False, 0.0
    spread = 0.0
    if rules.given is not None:
        seconds, method, confidence = rules.given, "given", 1.0
    elif signal.stated_offset is not None:
        seconds, method, confidence = signal.stated_offset, "timecode", max(0.5, sure)
    elif slate is not None:
        seconds, method, confidence = slate.seconds, "slate", slate.confidence
        spread = slate.spread
    elif said is not None and sure >= rules.least_confidence:
        seconds, method, confidence, spread = spoken, "speech", sure, said.spread
        interval = _DEVIATIONS * float(np.hypot(said.spread, _OF_VOICES))
        if not corrected and abs(spoken) <= interval:
            seconds, method = 0.0, "agreement"
        elif said.shared:
            notes.append("says too little by itself: the other takes' offset")
    else:
        seconds, method, confidence = 0.0, "none", sure
    if method in ("given", "timecode", "slate") and sure >= CONFIDENT:
        if abs(spoken - seconds) > MAX_DISAGREEMENT:
            notes.append(
                f"the {method} offset is {seconds:+.3f} s, lips and sound say {spoken:+.3f} s"
            )
            if method == "timecode" and said is not None:
                seconds, method, confidence, spread = spoken, "speech", sure, said.spread
            else:
                error = max(error, abs(spoken - seconds))
    clock = Clock(seconds, method, confidence, spread, corrected=corrected)
    if said is not None:
        own_offset = said.alone(corrected=corrected)
        if (
            own_offset is not None
            and said.own_confidence >= CONFIDENT
            and abs(own_offset - seconds) > MAX_DISAGREEMENT
            and not notes
        ):
            notes.append(f"by itself it says {own_offset:+.3f} s, not {seconds:+.3f} s")
        if drifts:
            text = rates.describe_drift(said.drift, mistake)
            notes.append(f"{text}; corrected" if corrected else text)
            if not corrected:
                error = max(error, abs(said.drift) * float(np.ptp(signal.times)) / 2.0)
        clock = dataclasses.replace(
            clock,
            drift=said.drift,
            drift_confidence=said.drift_confidence,
            drift_spread=said.drift_spread,
            own=own_offset,
            own_confidence=said.own_confidence,
        )
    return dataclasses.replace(clock, error=error, notes=tuple(notes))


def verify_judged(signal: Signals, clock: Clock) -> Clock:
    """Returns a clock whose offset a sync expert has set or confirmed, with the error it leaves.

    The expert hears words; what lips and loudness say of a constant offset counts no longer against
    it. What they say of drift, and of parts of the take, still counts.

    Args:
      signal: signals of the take.
      clock: its clock.
    """
    drifting = 0.0 if clock.corrected else abs(clock.drift) * float(np.ptp(signal.times)) / 2.0
    clock = dataclasses.replace(clock, error=drifting)
    pair = lags.make_pair(0, signal.envelope, signal.times, signal.aperture, signal.stated_offset)
    return clock if pair is None else _verify(pair, clock, judged=True)


def _verify(pair: lags.LipSoundPair, clock: Clock, *, judged: bool = False) -> Clock:
    """Returns the clock with the error that remains along the take."""
    drift = clock.drift if clock.corrected else 0.0
    left = pieces.measure(pair, clock.seconds, drift)
    # Lips lead the sound by a few ms more or less in each language and voice. That counts neither
    # against an offset that was found in the same way, nor against another kind of offset.
    uneven = left.error(0.0 if clock.method == "speech" and not judged else left.constant)
    error, notes = max(clock.error, uneven), clock.notes
    if uneven > max(clock.error, TOLERABLE) and not judged:
        notes = (
            *notes,
            f"the lips are off by {uneven:.3f} s in a part of the take: lost frames, or a clock "
            "that jumps?",
        )
    if abs(left.constant) > MAX_DISAGREEMENT and not judged:
        error = max(error, abs(left.constant))
    return dataclasses.replace(clock, error=error, notes=notes)


def _own_line(
    pair: lags.LipSoundPair,
    signal: Signals,
    shared: Clock,
    slate: align.SlateOffset | None,
    rules: _Rules,
) -> Clock:
    """Returns the clock of a take by itself if that leaves a smaller error, else the shared one."""
    said = speech.estimate([pair], rules.limit)[pair.index]
    alone = _verify(pair, _decide(signal, said, slate, rules))
    same_drift = alone.corrected == shared.corrected and alone.drift == shared.drift
    spoken = {alone.method, shared.method} <= {"speech", "agreement"}
    alike = spoken or alone.method == shared.method
    if same_drift or not alike or alone.error >= shared.error:
        return shared
    text = "its clock drifts by itself, unlike those of the actor's other takes"
    return dataclasses.replace(alone, notes=(*alone.notes, text))
