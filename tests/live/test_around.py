"""Clocks, packets, idle motion and pacing, each against known answers."""

import numpy as np
import pytest
import soxr

from a2fjax import rig
from a2fjax.errors import InputError
from a2fjax.live import eyes
from a2fjax.live.drift import DriftControl
from a2fjax.live.idle import IdleMotion, parse_layers
from a2fjax.live.jitter import JitterBuffer
from a2fjax.live.one_euro import OneEuro
from a2fjax.live.pacing import Pacer
from a2fjax.live.resample import Resampler
from a2fjax.live.voice import VoiceActivity


def resampled(samples, rate, sizes):
    resampler, out, begin = Resampler(rate), [], 0
    while begin < len(samples):
        size = sizes[len(out) % len(sizes)]
        out.append(resampler.push(samples[begin : begin + size]))
        begin += size
    return np.concatenate([*out, resampler.finish()])


@pytest.mark.parametrize("rate", [8_000, 22_050, 44_100, 48_000, 96_000])
def test_a_resampler_agrees_with_soxr_for_any_blocks(rate, speech):
    samples = speech(0.5, rate=rate)
    ours = resampled(samples, rate, [rate // 50])
    np.testing.assert_array_equal(ours, resampled(samples, rate, [1, 777, 33, 4000]))
    expected = soxr.resample(samples, rate, 16_000, "VHQ")
    assert len(ours) == len(expected) == 8000
    # The bands' edges differ, and nothing else: a tenth of a percent of the power.
    error = np.mean((ours - expected)[200:-200] ** 2) / np.mean(expected**2)
    assert error < 1e-3
    assert Resampler(rate).delay_seconds < 0.0025


def test_a_resampler_refuses_what_it_cannot_do():
    for rate in (0, -1, 1e7, float("nan")):
        with pytest.raises(InputError, match="4000 to 384000"):
            Resampler(rate)
    with pytest.raises(ValueError, match="ppm"):
        Resampler(48_000, variable=True).correct(2000.0)


@pytest.mark.parametrize("ppm", [200, -200])
def test_clocks_that_drift_neither_fill_nor_drain_the_buffer(ppm):
    control = DriftControl()
    come, level, levels, corrections = 0.0, control.target, [], []
    for _ in range(50 * 900):
        come += 320 * (1 + ppm * 1e-6)
        while come >= 160:
            come -= 160
            level += 160 / (1 + control.ppm * 1e-6)
        level -= 320
        control.update(round(level))
        levels.append(level)
        corrections.append(control.ppm)
    # Without the control, 200 ppm make 2880 samples in these 15 minutes.
    assert max(levels) - control.target < 240 and control.target - min(levels) < 240
    assert np.mean(corrections[-15_000:]) == pytest.approx(ppm, abs=10)


def test_a_corrected_resampler_makes_fewer_samples_of_a_fast_clock():
    resampler = Resampler(16_000, variable=True)
    before = len(resampler.push(np.zeros(16_000, np.float32)))
    resampler.correct(200.0)
    after = len(resampler.push(np.zeros(160_000, np.float32)))
    assert before == 16_000 - 16 and after == pytest.approx(160_000 - 32, abs=1)
    # The pitch changes by as little, and no sample is lost at the change.
    tone = np.sin(2 * np.pi * 440 * np.arange(16_000) / 16_000).astype(np.float32)
    resampler = Resampler(16_000, variable=True)
    first = resampler.push(tone[:8000])
    resampler.correct(-200.0)
    heard = np.concatenate([first, resampler.push(tone[8000:])])
    assert np.abs(np.diff(heard, 2))[20:].max() < 1.05 * (2 * np.pi * 440 / 16_000) ** 2


def packets(*numbers, size=4):
    return [(np.full(size, number + 1, np.float32), number) for number in numbers]


@pytest.mark.parametrize(
    ("numbers", "expected", "counts"),
    [
        ((0, 1, 2), [1, 2, 3], {}),
        ((0, 2, 1, 3), [1, 2, 3, 4], {}),
        ((0, 0, 1, 1, 2, 0), [1, 2, 3], {"doubled": 3}),
        ((0, 2, 3, 4, 5), [1, 0, 3, 4, 5, 6], {"lost": 1}),
        ((0, 2, 3, 4, 5, 1), [1, 0, 3, 4, 5, 6], {"lost": 1, "late": 1}),
        ((7, 8), [8, 9], {}),
    ],
)
def test_packets_become_one_row_of_samples(numbers, expected, counts):
    buffer = JitterBuffer()
    for samples, number in packets(*numbers):
        buffer.put(samples, number)
    assert len(buffer) == 4 * len(expected)
    np.testing.assert_array_equal(buffer.take(len(buffer)), np.repeat(expected, 4))
    found = {k: v for k, v in vars(buffer.counts).items() if v}
    assert found == counts


def test_a_buffer_is_bounded_and_fills_gaps():
    buffer = JitterBuffer(most_samples=8)
    for samples, number in packets(0, 1, 2):
        buffer.put(samples, number)
    np.testing.assert_array_equal(buffer.take(10), [2] * 4 + [3] * 4 + [0] * 2)
    assert (buffer.counts.overrun, buffer.counts.gaps) == (4, 2)
    with pytest.raises(InputError, match="restart the sequence"):
        buffer.put(np.zeros(4, np.float32), 10**9)


def test_idle_motion_has_the_measured_rates_and_layers_of_its_own():
    still = np.zeros(72, np.float32)

    def minutes(count, speaks, **options):
        idle = IdleMotion(**options)
        return [idle(still, speaks=speaks) for _ in range(count * 60 * 50)]

    def blinks(frames):
        closed = np.array([f[0][rig.INDEX["eyeBlinkLeft"]] for f in frames]) > 0.9
        return np.count_nonzero(np.diff(closed.astype(int)) == 1)

    talk = minutes(6, True, seed=1, layers=["blinks"])
    assert blinks(talk) == pytest.approx(6 * 26, rel=0.15)
    assert blinks(minutes(6, False, seed=2, layers=["blinks"])) == pytest.approx(6 * 17, rel=0.15)
    breath = np.array([f[1][1] for f in minutes(3, False, layers=["breath"])])
    turns = np.count_nonzero(np.diff(np.sign(np.diff(breath))) > 0)
    assert turns == pytest.approx(3 * 16.6, rel=0.1)
    whole = minutes(1, True, seed=1)
    again = minutes(1, True, seed=1)
    for (a, b), (c, d) in zip(whole, again, strict=True):
        assert (a == c).all() and (b == d).all()
    assert blinks(whole) == blinks(talk[:3000]), "a layer does not change the others"
    mouth = np.array([f[0] for f in whole])[:, rig.GROUPS["jaw_mouth"]]
    assert not mouth.any()
    assert parse_layers("none") == ()
    with pytest.raises(InputError, match="blinks"):
        parse_layers("blink")


def test_eyes_look_where_their_channels_say():
    gaze, frames = eyes.Gaze(np.random.default_rng(0)), []
    for _ in range(3000):
        motion = np.zeros(72, np.float32)
        eyes.add(motion, gaze(True))
        frames.append(motion)
    frames = np.array(frames)
    value = {name: frames[:, i] for name, i in rig.INDEX.items()}
    yaw = eyes.DEGREES_A_WEIGHT * (value["eyeLookOutLeft"] - value["eyeLookInLeft"])
    np.testing.assert_allclose(yaw, value["leftEyeRotY"], atol=1e-4)
    pitch = eyes.DEGREES_A_WEIGHT * (value["eyeLookDownRight"] - value["eyeLookUpRight"])
    np.testing.assert_allclose(pitch, value["rightEyeRotX"], atol=1e-4)
    assert 5 < np.abs(yaw).max() <= 27.5
    assert (np.abs(yaw) + np.abs(pitch) < 1e-6).mean() > 0.4, "mostly at the other person"


def test_voice_is_speech_and_not_a_steady_hum(speech):
    def judged(samples):
        voice = VoiceActivity()
        return [voice(hop) for hop in samples[: len(samples) // 320 * 320].reshape(-1, 320)]

    hum = 0.05 * np.sin(2 * np.pi * 50 * np.arange(20 * 16000) / 16000)
    assert np.mean(judged(speech(4.0))) > 0.8
    assert not any(judged(np.zeros(16000)))
    assert not any(judged(hum)[-250:])


def test_one_euro_keeps_still_curves_and_follows_fast_ones():
    smooth = OneEuro(2.0, beta=2.0)
    rng = np.random.default_rng(0)
    noise = [smooth(0.5 + 0.01 * rng.standard_normal(72)) for _ in range(200)]
    assert np.std(noise[50:]) < 0.006
    jump = [smooth(np.full(72, 1.0))[0] for _ in range(10)]
    assert jump[5] > 0.9
    with pytest.raises(InputError, match="cutoff"):
        OneEuro(0.0)


def test_a_pacer_keeps_to_its_grid_and_moves_it_after_a_long_stop():
    now = [100.0]

    def sleep(seconds):
        now[0] += seconds + 0.002

    pacer, late = Pacer(clock=lambda: now[0], sleep=sleep), []
    for tick in range(100):
        late.append(pacer.wait())
        now[0] += 0.09 if tick == 50 else 0.005  # One tick takes 90 ms.
    assert now[0] == pytest.approx(100.0 + 99 * 0.02 + 0.007)
    assert max(late[:50]) < 0.003 and max(late[56:]) < 0.003
    now[0] += 3.0
    pacer.wait()
    assert pacer.moved == 1
    start = now[0]
    pacer.wait()
    assert now[0] == pytest.approx(start + 0.022)
