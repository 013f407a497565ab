"""Decides what the offset that a sync expert found does to the clock of a take.

One order holds: an offset that is given, and the lip pops of a slate, are never moved. Next comes
the expert, on the clock that timecodes, lips and loudness or no evidence gave, if it is allowed to
(`fix`), sure, and out of step. What is not moved is told.
"""

from __future__ import annotations

import dataclasses

from a2fjax.sync.offsets import AGREEMENT, Offset
from data_pipeline.timing import clocks

REPORT, FIX, OFF = "report", "fix", "off"

FIXED = ("given", "slate")
"""Methods of clocks that the expert does not move."""


@dataclasses.dataclass(frozen=True)
class Rules:
    """When a take is moved.

    Attributes:
      mode: "report" or "fix".
      largest: largest offset applied, s.
      least_confidence: least confidence of an offset that is applied.
    """

    mode: str = REPORT
    largest: float = 0.2
    least_confidence: float = 0.9


@dataclasses.dataclass(frozen=True)
class Said:
    """What the expert says of a take.

    Attributes:
      own: offset from the take alone, or None: too little speech, or no peak in the range.
      shared: offset of the recordings that share the take's clock, itself included, or None; for a
        take with a clock of its own it equals `own`.
      shares: whether others share the clock.
      votes: votes of the take alone; 0 without speech.
    """

    own: Offset | None
    shared: Offset | None
    shares: bool = False
    votes: int = 0

    @property
    def best(self) -> Offset | None:
        """Its own offset, else that of its recording; None for a take without speech."""
        return self.own if self.own is not None or not self.votes else self.shared


@dataclasses.dataclass(frozen=True)
class Decision:
    """What becomes of a take.

    Attributes:
      moved: s that its motion moves later.
      confirmed: whether its clock is right, for certain.
      why: the reason, as text.
      told: a line for the report's warnings, "" for takes in step.
    """

    moved: float
    confirmed: bool
    why: str
    told: str


def decide(method: str, said: Said, rules: Rules) -> Decision:
    """Returns what becomes of a take.

    Args:
      method: how its clock was found; see `clocks.Clock`.
      said: what the expert says.
      rules: when takes are moved.

    Example:
        >>> late = Offset(0.08, 0.07, 0.09, confidence=1.0, votes=9)
        >>> decide("none", Said(late, late), Rules("fix")).moved
        0.08
        >>> decide("slate", Said(late, late), Rules("fix")).told
        'sync expert: the sound is 80 ms late (+70 to +90 ms, confidence 1.00): the slate decides'
        >>> decide("none", Said(None, None), Rules("fix"))
        Decision(moved=0.0, confirmed=False, why='too little speech', told='')
    """
    found, own = said.shared, said.own
    if found is None:
        told = ""
        if own is not None and not own.in_step:
            told = f"{_text(own)}: unlike its other takes"
        return Decision(0.0, False, "too little speech", told)
    if own is not None and own.contradicts(found):
        return Decision(
            0.0,
            False,
            "unlike the other takes",
            f"{_text(own)}: unlike the actor's other takes, {1000 * found.seconds:+.0f} ms; "
            "clock=take judges each by itself",
        )
    sure = found.confidence >= rules.least_confidence
    if found.in_step:
        narrow = max(-found.low, found.high) <= clocks.MAX_DISAGREEMENT
        return Decision(0.0, sure and narrow, "in step" if sure else "unsure", "")
    if not sure:
        why = f"less sure than {rules.least_confidence:g} (sync_confidence)"
    elif abs(found.seconds) > rules.largest:
        why = f"beyond {1000 * rules.largest:g} ms (sync_largest)"
    elif method in FIXED:
        why = "the given offset decides" if method == "given" else "the slate decides"
    elif rules.mode != FIX:
        why = "not moved (sync_offset=report)"
    else:
        return Decision(found.seconds, True, "moved", f"{_text(found)}: moved")
    # Less than a frame is nothing to act upon.
    told = f"{_text(found)}: {why}" if abs(found.seconds) > AGREEMENT else ""
    return Decision(0.0, False, why, told)


def apply(
    signal: clocks.Signals, clock: clocks.Clock, said: Said, made: Decision, rules: Rules
) -> clocks.Clock:
    """Returns the clock of a take after the decision `made`, with its note."""
    if made.moved and said.shared is not None:
        clock = dataclasses.replace(
            clock,
            seconds=clock.seconds + made.moved,
            method="sync",
            confidence=said.shared.confidence,
            spread=(said.shared.high - said.shared.low) / 4.0,
        )
    if made.told:
        clock = dataclasses.replace(clock, notes=(*clock.notes, made.told))
    if rules.mode == FIX and made.confirmed and clock.method not in FIXED:
        clock = clocks.verify_judged(signal, clock)
    return clock


def summary(said: Said, made: Decision) -> dict[str, object]:
    """Returns what the report says of a take and of what became of it, as JSON values.

    Returns:
      "seconds", "low", "high", "confidence", "votes" of the take, or of its recording where it says
      too little by itself (None without speech); "by": "take", "recording" or ""; "moved" (s) and
      "why".
    """
    best = said.best
    values = {f.name: getattr(best, f.name, None) for f in dataclasses.fields(Offset)}
    by = "" if best is None else "take" if said.own is not None else "recording"
    return {**values, "by": by, "moved": made.moved, "why": made.why}


def _text(found: Offset) -> str:
    side = "late" if found.seconds > 0 else "early"
    where = f"{1000 * abs(found.seconds):.0f} ms {side}"
    return (
        f"sync expert: the sound is {'in step' if found.in_step else where} "
        f"({1000 * found.low:+.0f} to {1000 * found.high:+.0f} ms, "
        f"confidence {found.confidence:.2f})"
    )
