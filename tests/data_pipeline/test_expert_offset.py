"""What a sync expert's offset does to a clock: one order, one sign, nothing that is not sure."""

import dataclasses

import numpy as np
import pytest

from a2fjax.sync.offsets import Offset
from data_pipeline.timing import clocks, expert_offset
from data_pipeline.timing.expert_offset import Rules, Said, decide

FIX, REPORT = Rules("fix"), Rules("report")


def offset(seconds, half=0.01, confidence=1.0):
    return Offset(seconds, round(seconds - half, 4), round(seconds + half, 4), confidence, 9)


def said(seconds, **more):
    found = offset(seconds, **more)
    return Said(found, found)


def applied(signal, clock, case, rules):
    return expert_offset.apply(signal, clock, case, decide(clock.method, case, rules), rules)


@pytest.mark.parametrize("method", ["timecode", "speech", "agreement", "none"])
@pytest.mark.parametrize("seconds", [0.2, 0.08, -0.08, 0.012])
def test_a_sure_offset_moves_what_other_evidence_gave(method, seconds):
    made = decide(method, said(seconds), FIX)
    assert made.moved == seconds and made.why == "moved"
    told = decide(method, said(seconds), REPORT)
    assert told.moved == 0.0 and bool(told.told) == (abs(seconds) > 0.02)


@pytest.mark.parametrize(
    ("method", "case", "why"),
    [
        ("given", said(0.08), "the given offset decides"),
        ("slate", said(0.08), "the slate decides"),
        ("none", said(0.201), "beyond 200 ms (sync_largest)"),
        ("none", said(0.08, confidence=0.89), "less sure than 0.9 (sync_confidence)"),
        ("none", said(0.08, half=0.08), "in step"),
        ("none", said(0.08, half=0.09, confidence=0.5), "unsure"),
        ("none", Said(None, None), "too little speech"),
        ("none", Said(offset(0.0), offset(0.08), True), "unlike the other takes"),
        ("none", Said(offset(0.08), None, True), "too little speech"),
    ],
)
def test_what_is_not_moved(method, case, why):
    made = decide(method, case, FIX)
    assert made.moved == 0.0 and made.why == why


def test_a_take_that_says_nothing_moves_with_the_others_and_is_not_0():
    case = Said(None, offset(0.08), shares=True)
    assert decide("none", case, FIX).moved == 0.08
    shown = expert_offset.summary(case, decide("none", case, FIX))
    assert shown["seconds"] is None and shown["low"] is None and shown["confidence"] is None
    assert shown["by"] == "" and shown["moved"] == 0.08
    # With some speech, its recording speaks for it; with enough, it speaks for itself.
    few = dataclasses.replace(case, votes=1)
    shown = expert_offset.summary(few, decide("none", few, FIX))
    assert shown["seconds"] == 0.08 and shown["by"] == "recording"
    enough = Said(offset(0.07), offset(0.08), shares=True, votes=4)
    shown = expert_offset.summary(enough, decide("none", enough, FIX))
    assert shown["seconds"] == 0.07 and shown["by"] == "take" and shown["moved"] == 0.08


def signals(late=0.0, seconds=12.0):
    """Lips that open with the loudness of a sound that is `late` s late."""
    rng = np.random.default_rng(0)
    knots = np.convolve(rng.standard_normal(round(5 * seconds) + 20), [0.3, 0.4, 0.3], "same")
    at = np.arange(round(200 * seconds)) / 200

    def opened(t):
        return np.interp(t + 1.0, np.arange(len(knots)) / 5, knots)

    times = np.arange(round(60 * seconds)) / 60
    envelope = -40 + 20 * opened(at)
    return clocks.Signals("a", False, envelope, np.zeros(0), times, opened(times + late))


def test_the_clock_moves_later_by_what_the_sound_is_late():
    signal = signals()
    clock = clocks.Clock(0.03, "none", 0.2, error=0.5, notes=("before",))
    after = applied(signal, clock, said(0.08), FIX)
    assert after.seconds == pytest.approx(0.11) and after.method == "sync"
    assert after.audio_times(np.array([1.0]))[0] == pytest.approx(1.11)
    assert after.confidence == 1.0 and after.spread == pytest.approx(0.005)
    assert after.notes[0] == "before" and after.notes[1].endswith("moved") and after.error < 0.02
    told = applied(signal, clock, said(-0.08), REPORT)
    assert told == dataclasses.replace(clock, notes=("before", told.notes[1]))
    assert "80 ms early (-90 to -70 ms" in told.notes[1]


def test_the_expert_outweighs_lips_and_loudness_and_not_drift():
    signal = signals(late=0.15)
    (clock,) = clocks.estimate_clocks([signal], limit=0.1, least_confidence=0.5)
    assert clock.error > 0.1  # Lips and loudness contradict 0 s, which is used.
    assert applied(signal, clock, said(0.0), FIX).error < 0.02
    assert applied(signal, clock, said(0.0), REPORT).error == clock.error
    for doubtful in (said(0.0, half=0.05), said(0.0, confidence=0.5), Said(None, None)):
        assert applied(signal, clock, doubtful, FIX).error == clock.error
    given = dataclasses.replace(clock, method="given")
    assert applied(signal, given, said(0.0), FIX).error == clock.error
    drifting = dataclasses.replace(clock, drift=0.01)
    assert applied(signal, drifting, said(0.0), FIX).error > 0.05
