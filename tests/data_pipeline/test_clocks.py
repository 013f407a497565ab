import dataclasses
import json

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.signal import fftconvolve

from a2fjax import channel_orders, rig
from data_pipeline.timing import align, clocks


def talk(
    seed, seconds=30.0, fps=60.0, offset=0.0, drift=0.0, name="take", noise=4.0, other=None, **more
):
    """Lips that open for syllables, and loudness that follows them with noise and its own ways.

    Frame n is labelled n / fps; its true audio time is that times 1 + drift, plus the offset.
    `other` seeds the lips' syllables alone: such lips belong to another take.
    """

    def syllables(key):
        rng = np.random.default_rng(key)
        gaps = rng.uniform(0.1, 0.35, int(seconds * 6)) + 0.6 * (rng.random(int(seconds * 6)) < 0.1)
        at = np.cumsum(gaps)
        at = at[at < seconds - 0.3]
        return at, rng.uniform(0.15, 1.0, len(at)), rng

    def bumps(centres, heights, width):
        fine = np.zeros(int((seconds + 1) * 1000))
        np.add.at(fine, np.round(np.clip(centres, 0, seconds) * 1000).astype(int), heights)
        around = np.arange(-400, 401) / 1000
        fine = fftconvolve(fine, np.exp(-((around / width) ** 2)), "same")
        return lambda t: np.interp(t, np.arange(len(fine)) / 1000, fine)

    centres, heights, rng = syllables([seed, 0])
    grid = np.arange(int(seconds * 200) + 1) / 200
    loud = bumps(centres + rng.normal(0, 0.012, len(centres)), heights, 0.06)(grid)
    loud += 0.3 * bumps(rng.uniform(0, seconds, int(seconds)), np.ones(int(seconds)), 0.03)(grid)
    envelope = np.maximum(20 * np.log10(np.maximum(loud, 0) + 0.003), -45) + noise * rng.normal(
        size=len(grid)
    )
    if other is not None:
        centres, heights, _ = syllables([other, 1])
    times = np.arange(int(seconds / (1 + drift) * fps)) / fps
    aperture = bumps(centres, heights, 0.07)(times * (1 + drift) + offset)
    aperture += 0.01 * rng.normal(size=len(times))
    return clocks.Signals(
        name=name,
        slate=False,
        envelope=envelope,
        clicks=np.zeros(0),
        times=times,
        aperture=aperture,
        **more,
    )


def one(*takes, **options):
    return clocks.estimate_clocks(takes, **options)[0]


@settings(max_examples=20, deadline=None, derandomize=True)
@given(
    seed=st.integers(0, 10_000),
    offset=st.floats(-0.2, 0.2),
    fps=st.sampled_from([24.0, 25.0, 30.0, 60.0]),
)
def test_any_offset_is_found(seed, offset, fps):
    clock = one(talk(seed, fps=fps, offset=offset))
    assert clock.confidence > 0.8 and clock.own_confidence == clock.confidence
    assert abs(clock.own - offset) <= 0.010
    if clock.method == "speech":
        assert clock.own == pytest.approx(clock.seconds)
    else:
        assert clock.method == "agreement" and clock.seconds == 0 and abs(offset) < 0.035
    assert clock.drift_confidence < 0.5


def test_an_offset_within_its_error_is_not_applied():
    """The shorter a take, the larger the offset that it must show before its frames are moved."""
    for seconds, moved in ((4.0, 0.0), (24.0, 0.0), (24.0, 0.04), (24.0, -0.2)):
        for seed in range(6):
            clock = one(talk(seed, seconds, offset=moved))
            if moved:
                assert clock.method == "speech" and abs(clock.seconds - moved) <= 0.010
            else:
                assert clock.seconds == 0.0 and clock.method in ("agreement", "none")
                assert not clock.notes and clock.error == 0.0


@settings(max_examples=4, deadline=None, derandomize=True)
@given(seed=st.integers(0, 10_000), offset=st.floats(-0.15, 0.15), drift=st.floats(-4e-4, 4e-4))
def test_any_slow_drift_is_found_in_ten_minutes(seed, offset, drift):
    clock = one(talk(seed, 600.0, 30.0, offset, drift))
    assert clock.confidence > 0.9
    if abs(drift) > 8e-5:
        assert clock.drift_confidence > 0.5 and clock.corrected
    found = clock.drift if clock.corrected else 0.0
    assert abs(found - drift) <= 5e-5
    at = np.array([0.0, 300.0, 590.0])
    late = clock.audio_times(at) - (at * (1 + drift) + offset)
    assert np.abs(late).max() <= (0.010 if clock.corrected else 0.030)


def test_a_hundred_parts_in_a_million_over_ten_minutes_are_seen():
    for seed in range(2):
        clock = one(talk(seed, 600.0, 30.0, 0.05, 1e-4), correct_drift=False)
        assert clock.drift_confidence > 0.5 and abs(clock.drift - 1e-4) < 3e-5
        assert clock.drift_spread < 3e-5 and not clock.corrected
        # Not taken out: the constant that fits the whole take.
        assert clock.seconds == pytest.approx(0.05 + 300 * clock.drift, abs=0.01)
        assert " ppm (" in clock.notes[0] and "looks like" not in clock.notes[0]
        assert clock.error == pytest.approx(0.030, abs=0.009)


@pytest.mark.parametrize(
    ("true", "taken"),
    [(29.97, 30.0), (59.94, 60.0), (23.976, 24.0), (30.0, 29.97), (24.0, 25.0), (25.0, 24.0)]
    + [(23.976, 25.0), (30.0, 60.0), (60.0, 30.0), (24.0, 30.0)],
)
def test_mistaken_rates_are_named_and_corrected(true, taken):
    true, taken = align.exact_rate(true), align.exact_rate(taken)
    drift = taken / true - 1
    take = talk(3, 120.0, taken, 0.08, drift)
    clock = one(take)
    assert clock.drift_confidence > 0.8 and clock.corrected
    assert clock.drift == pytest.approx(drift, abs=1e-9)
    assert lips_error(clock, take, 0.08, drift) <= 0.012 and clock.error <= 0.02
    assert f"looks like {true:.6g} fps taken for {taken:.6g}; corrected" in clock.notes[0]


def lips_error(clock, take, offset, drift):
    """Largest error over the take, s."""
    at = take.times[[0, -1]]
    return np.abs(clock.audio_times(at) - (at * (1 + drift) + offset)).max()


def test_sound_of_another_sample_rate_is_named_and_set_aside():
    for real, assumed in ((44_100, 48_000), (48_000, 44_100)):
        clock = one(talk(5, 60.0, 30.0, 0.0, real / assumed - 1))
        assert any(f"{real} Hz taken for {assumed}" in n for n in clock.notes)
        assert not clock.corrected and clock.error > 1


def test_a_take_of_another_rate_among_right_ones_gets_its_own_drift():
    right = [talk(s, 100.0, 30.0, 0.05, name=str(s)) for s in range(2)]
    wrong = talk(7, 200.0, 30.0, 0.05, 0.001, name="wrong")
    found = clocks.estimate_clocks([*right, wrong])
    assert all(c.error <= 0.02 for c in found)
    assert all(lips_error(c, t, 0.05, 0.0) <= 0.02 for c, t in zip(found, right, strict=False))
    assert lips_error(found[2], wrong, 0.05, 0.001) <= 0.02
    assert any("unlike" in n for c in found for n in c.notes)


@pytest.mark.parametrize("lost", [0.2, 0.3, 0.7])
@pytest.mark.parametrize("seconds", [40.0, 150.0])
def test_frames_lost_unsaid_are_found_in_a_part_of_the_take(lost, seconds):
    whole = talk(4, seconds, 30.0)
    assert one(whole).error <= 0.01
    keep = np.abs(whole.times - 0.6 * seconds - lost / 2) > lost / 2
    count = int(keep.sum())
    take = dataclasses.replace(whole, times=whole.times[:count], aperture=whole.aperture[keep])
    clock = one(take)
    assert clock.error > 0.02 and any("part of the take" in n for n in clock.notes)


def test_confident_contradictions_are_errors():
    take = talk(1, 20.0, 30.0, 0.15)
    assert one(take, given=0.01).error == pytest.approx(0.14, abs=0.012)
    assert one(take, given=0.14).error <= 0.02
    assert one(dataclasses.replace(take, stated_offset=-0.01)).error <= 0.02  # speech is used
    odd = talk(9, 20.0, 30.0, -0.15, name="odd")
    rest = [talk(s, 20.0, 30.0, 0.05, name=str(s)) for s in range(5)]
    found = clocks.estimate_clocks([*rest, odd])
    assert found[5].error == pytest.approx(0.2, abs=0.02)
    assert all(c.error <= 0.02 for c in found[:5])


@pytest.mark.parametrize("per_take", [False, True])
def test_offsets_beyond_the_largest_are_never_used(per_take):
    for offset in (0.3, -0.49, 0.8):
        for seconds in (6.0, 40.0):
            clock = one(talk(2, seconds, 25.0, offset), per_take=per_take, least_confidence=0.5)
            assert abs(clock.seconds) <= 0.25
            assert clock.error > 0.02 or clock.confidence < 0.5


def test_short_films_are_not_stretched_by_rates_that_their_length_denies():
    """Films of 3 s of one speaker, whose lips follow the sound poorly."""
    for first in range(0, 60, 12):
        takes = [
            dataclasses.replace(
                talk(first + i, 3.0, 25.0, 0.0, name=str(i), noise=12.0, other=None if i % 3 else i)
            )
            for i in range(12)
        ]
        for clock in clocks.estimate_clocks(takes, least_confidence=0.5):
            assert abs(clock.drift) <= 0.012 and abs(clock.seconds) <= 0.05


def test_a_percent_that_no_mistake_explains_is_found():
    clock = one(talk(6, 60.0, 50.0, -0.03, 0.0093))
    assert abs(clock.drift - 0.0093) < 3e-4 and clock.corrected
    assert "looks like" not in clock.notes[0]


def test_short_takes_together_tell_a_wrong_rate():
    takes = [talk(s, 6.0, 25.0, 0.06, 25 / 24 - 1, name=str(s)) for s in range(10)]
    found = clocks.estimate_clocks(takes)
    assert all(c.corrected and abs(c.drift - (25 / 24 - 1)) < 2e-3 for c in found)
    assert "looks like 24 fps taken for 25" in found[0].notes[0]
    assert abs(found[0].seconds - 0.06) < 0.02


def test_confidence_is_calibrated():
    alone, pooled, drifting, believed = [], [], [], []
    for seed in range(100):
        wrong = one(talk(seed, 12.0, 30.0, other=seed + 500))
        alone.append(wrong.confidence)
        drifting.append(wrong.drift_confidence)
        if seed % 2:
            right = one(talk(seed, 12.0, 30.0, 0.05))
            believed.append(right.confidence)
            drifting.append(right.drift_confidence)
    for seed in range(0, 100, 4):
        takes = [talk(seed + i, 8.0, 30.0, other=seed + i + 700, name=str(i)) for i in range(4)]
        pooled.append(one(*takes).confidence)
    assert np.mean(np.array(alone) >= 0.5) <= 0.05
    assert np.mean(np.array(pooled) >= 0.5) <= 0.05
    assert np.mean(np.array(drifting) >= 0.5) <= 0.05
    assert np.mean(np.array(believed) >= 0.5) >= 0.95


def test_long_takes_that_do_not_belong_together_are_not_believed():
    for seed in range(4):
        clock = one(talk(seed, 200.0, 30.0, other=seed + 900))
        assert clock.confidence < 0.5 and clock.drift_confidence < 0.5


def test_standard_errors_are_honest():
    late = []
    for seed in range(16):
        clock = one(*[talk(10 * seed + i, 8.0, 60.0, 0.02, name=str(i)) for i in range(5)])
        late.append((clock.seconds - 0.02) / clock.spread)
    assert 0.4 < np.sqrt(np.mean(np.square(late))) < 2.5
    late = []
    for seed in range(10):
        clock = one(talk(seed, 200.0, 30.0, 0.02, 0.0007))
        late.append((clock.drift - 0.0007) / clock.drift_spread)
    assert 0.2 < np.sqrt(np.mean(np.square(late))) < 2.0


def test_takes_share_an_offset_unless_each_has_its_own():
    takes = [talk(s, 8.0, 30.0, 0.05, name=str(s)) for s in range(5)]
    takes.append(talk(9, 20.0, 30.0, -0.15, name="odd"))
    together = clocks.estimate_clocks(takes[:5])
    assert len({c.seconds for c in together}) == 1 and abs(together[0].seconds - 0.05) <= 0.01
    shared = clocks.estimate_clocks([*takes[:5], talk(8, 60.0, 30.0, 0.05, name="long"), takes[5]])
    assert abs(shared[6].seconds - 0.05) <= 0.01
    assert abs(shared[6].own + 0.15) <= 0.01 and shared[6].own_confidence > 0.6
    assert "by itself it says -0.1" in shared[6].notes[0] and not shared[0].notes
    each = clocks.estimate_clocks(takes, per_take=True)
    assert abs(each[5].seconds + 0.15) <= 0.01 and abs(each[0].seconds - 0.05) <= 0.02
    mute = dataclasses.replace(talk(3, 2.5, 30.0, 0.05, other=77), name="mute")
    each = clocks.estimate_clocks([*takes[:5], mute], per_take=True)
    assert abs(each[5].seconds - 0.05) <= 0.01 and "other takes" in each[5].notes[0]


def test_takes_with_offsets_of_their_own_share_the_drift():
    drift = 0.001
    takes = [talk(s, 60.0, 30.0, 0.02 * s - 0.1, drift, name=str(s)) for s in range(8)]
    alone = clocks.estimate_clocks(takes[:1], per_take=True)[0]
    found = clocks.estimate_clocks(takes, per_take=True)
    assert all(abs(c.drift - drift) < 3e-4 and c.corrected for c in found)
    assert found[0].drift_spread < alone.drift_spread
    assert all(abs(c.seconds - (0.02 * s - 0.1)) < 0.02 for s, c in enumerate(found))


def test_what_is_given_or_said_comes_first():
    wrong = talk(1, 20.0, 30.0, 0.15)
    given_ = one(wrong, given=0.01)
    assert given_.method == "given" and given_.seconds == 0.01 and given_.confidence == 1
    assert "given offset is +0.010 s, lips and sound say +0.1" in given_.notes[0]
    said = one(dataclasses.replace(wrong, stated_offset=0.14))
    assert said.method == "timecode" and said.seconds == 0.14 and not said.notes
    far = one(dataclasses.replace(talk(1, 20.0, 30.0, 3.15), stated_offset=3.14))
    assert far.method == "timecode" and abs(far.own - 3.15) <= 0.01
    denied = one(dataclasses.replace(wrong, stated_offset=-0.01))
    assert denied.method == "speech" and abs(denied.seconds - 0.15) <= 0.01
    assert "timecode offset is -0.010 s" in denied.notes[0]
    silent = dataclasses.replace(wrong, envelope=np.full(4000, -40.0), stated_offset=0.3)
    assert one(silent).method == "timecode" and one(silent).confidence == 0.5


def slate(offset, fps=60.0):
    pops = np.array([0.8, 1.5, 2.2])
    times = np.arange(int(3 * fps)) / fps
    t = times + offset
    lips = sum(
        np.clip((t - p) / 0.03 + 0.5, 0, 1) - np.clip((t - p - 0.3) / 0.2, 0, 1) for p in pops
    )
    return clocks.Signals("slate", True, np.zeros(601), pops, times, 0.4 * lips)


def test_a_slate_is_finer_than_speech_and_checked_by_it():
    take = talk(2, 20.0, 30.0, 0.1)
    found = clocks.estimate_clocks([take, slate(0.1)])
    assert [c.method for c in found] == ["slate", "slate"]
    assert abs(found[0].seconds - 0.1) <= 0.005 and not found[0].notes
    assert "slate offset is +0.0" in clocks.estimate_clocks([take, slate(0.0)])[0].notes[0]
    each = clocks.estimate_clocks([take, slate(0.1)], per_take=True)
    assert [c.method for c in each] == ["speech", "slate"]


def test_nothing_to_go_by_is_said():
    take = talk(1)
    still = dataclasses.replace(take, aperture=np.zeros(len(take.times)))
    blind = dataclasses.replace(take, aperture=np.full(len(take.times), np.nan))
    deaf = dataclasses.replace(take, envelope=np.zeros(0))
    short = dataclasses.replace(take, times=take.times[:5], aperture=take.aperture[:5])
    single = dataclasses.replace(take, times=take.times[:1], aperture=take.aperture[:1])
    away = dataclasses.replace(take, times=take.times + 36_000.0)
    for signal in (still, blind, deaf, short, single, away):
        for per_take in (False, True):
            clock = one(signal, per_take=per_take)
            assert (clock.method, clock.seconds, clock.confidence) == ("none", 0.0, 0.0)
            json.dumps(dataclasses.asdict(clock), allow_nan=False)
    assert clocks.estimate_clocks([]) == []
    for seed in range(5):
        wrong = one(talk(seed, 12.0, other=seed + 44), least_confidence=0.5)
        assert wrong.confidence < 0.5 and (wrong.method, wrong.seconds) == ("none", 0.0)


def test_missing_frames_and_holes_do_not_matter():
    take = talk(7, 40.0, 60.0, -0.11)
    rng = np.random.default_rng(0)
    aperture = take.aperture.copy()
    aperture[rng.random(len(aperture)) < 0.05] = np.nan
    aperture[600:780] = np.nan
    keep = rng.random(len(aperture)) > 0.1
    take = dataclasses.replace(take, times=take.times[keep], aperture=aperture[keep])
    clock = one(take)
    assert clock.confidence > 0.8 and abs(clock.seconds + 0.11) <= 0.01
    json.dumps(dataclasses.asdict(clock), allow_nan=False)


def test_real_recordings_agree_with_each_other(shared):
    import soundfile

    signals = []
    for file in sorted((shared / "facegood_mandarin").glob("*.npz")):
        sound, _ = soundfile.read(file.with_suffix(".wav"))
        with np.load(file) as data:
            curves, _ = channel_orders.from_names(
                data["arkit52"], [str(n) for n in data["arkit52_names"]]
            )
        times = np.arange(len(curves)) / 30.0
        level = align.envelope(sound)
        lips = rig.aperture(curves)
        signals.append(clocks.Signals(file.stem, False, level, np.zeros(0), times, lips))
    found = clocks.estimate_clocks(signals)
    assert all(c.confidence > 0.8 and c.own_confidence > 0.6 for c in found)
    assert -0.034 < found[0].seconds < 0.005
    assert max(abs(c.own - found[0].own) for c in found) < 0.010
    assert found[0].drift_confidence < 0.5 and not any(c.notes for c in found)
    # Parts on the clock of the whole: short ones are left alone, and 24 s are enough for 60 ms.
    for start, length, moved in ((0, 4, 0), (20, 4, 0), (40, 4, 0), (20, 24, 0), (20, 24, 0.06)):
        whole = signals[0]
        inside = (whole.times >= start) & (whole.times < start + length)
        part = dataclasses.replace(
            whole,
            envelope=whole.envelope[start * 200 : (start + length) * 200],
            times=whole.times[inside] - start + found[0].own - moved,
            aperture=whole.aperture[inside],
        )
        clock = one(part, least_confidence=0.5)
        assert clock.method == "speech" if moved else clock.seconds == 0.0
        assert abs(clock.seconds - moved) < 0.015
    # The same frames taken for 29.97 a second, and shifted.
    fast = [dataclasses.replace(s, times=s.times * 1.001 - 0.1) for s in signals]
    moved = clocks.estimate_clocks(fast)[0]
    assert abs(moved.drift + 0.001) < 2e-4 and moved.drift_confidence > 0.8
    assert abs(moved.seconds - found[0].seconds - 0.1) < 0.015
