"""Measures of takes, on signals whose answers are known."""

import dataclasses
import json
import warnings

import numpy as np
import pytest
import soundfile

from a2fjax import rig
from a2fjax.audio import io
from a2fjax.errors import InputError
from data_pipeline.quality import audio, fingerprints, lips, motion, thresholds, thumbnail
from data_pipeline.settings import BuildSettings
from data_pipeline.timing import align


def speech(seconds=6.0, rate=16000, seed=0, pause=0.35):
    """Harmonics and hiss in syllables and pauses: speech-like in band, rhythm and peaks."""
    rng = np.random.default_rng(seed)
    t = np.arange(int(seconds * rate)) / rate
    knots = np.arange(0, seconds + 1)
    pitch = 120 + 25 * np.interp(t, knots, rng.normal(size=len(knots)))
    phase = 2 * np.pi * np.cumsum(pitch) / rate
    tone = sum(np.cos(k * phase + k * k) / k for k in range(1, int(0.45 * rate / 200)))
    hiss = 0.5 * rng.normal(size=len(t))
    out, at = np.zeros(len(t)), 0.2
    while at < seconds - 0.2:
        length, height = rng.uniform(0.1, 0.3), rng.uniform(0.3, 1.0)
        inside = (t >= at) & (t < at + length)
        source = hiss if rng.random() < 0.3 else tone
        out[inside] += height * source[inside] * np.hanning(inside.sum())
        at += length + (rng.uniform(0.2, 0.6) if rng.random() < pause else 0.02)
    return 0.15 * out / out.std()


def save(path, samples, rate=16000, subtype="PCM_16"):
    soundfile.write(path, samples, rate, subtype=subtype)
    return path


def active(x, rate=16000):
    """Power of speech by another way than the module's: the frames that the generator filled."""
    size = rate // 50
    power = (x[: len(x) // size * size].reshape(-1, size) ** 2).mean(axis=1)
    return power[power > 10**-1.59 * power[power > 0].mean()].mean()


@pytest.mark.parametrize("snr", [5, 10, 20, 35])
def test_the_signal_to_noise_ratio_is_that_of_the_mix(tmp_path, snr):
    clean = speech(10.0, seed=snr)
    rng = np.random.default_rng(1)
    noise = rng.normal(size=len(clean)) * np.sqrt(active(clean) / 10 ** (snr / 10))
    scale = 0.5 / np.abs(clean + noise).max()
    found = audio.measure_audio(save(tmp_path / "a.wav", scale * (clean + noise)))
    assert found["snr_db"] == pytest.approx(snr, abs=3.0)
    assert found["noise_db"] == pytest.approx(20 * np.log10(scale * noise.std()), abs=1.5)
    assert found["snr_sure"]
    assert not found["gated"]


def test_noise_alone_has_no_speech_in_it_and_fails(tmp_path):
    noise = 0.1 * np.random.default_rng(0).normal(size=48000)
    found = audio.measure_audio(save(tmp_path / "a.wav", noise))
    assert found["snr_db"] < 3
    assert any(
        "least_snr_db" in r
        for r in thresholds.quarantine_reasons({"audio": found}, thresholds.Thresholds())
    )
    buried = speech(6.0)
    buried += np.random.default_rng(1).normal(size=len(buried)) * np.sqrt(active(buried))
    assert audio.measure_audio(save(tmp_path / "b.wav", buried / 10))["snr_db"] < 6


def test_a_gate_does_not_make_a_noisy_recording_clean(tmp_path):
    clean = speech(10.0)
    noise = np.random.default_rng(1).normal(size=len(clean)) * np.sqrt(active(clean) / 10)
    mix = 0.5 * (clean + noise) / np.abs(clean + noise).max()
    level = np.convolve(np.abs(clean), np.ones(1600) / 1600, "same")
    gated = np.where(np.convolve(level > 1e-3, np.ones(4001), "same") > 0, mix, 0.0)
    assert (gated == 0).mean() > 0.05
    found = audio.measure_audio(save(tmp_path / "a.wav", gated))
    assert found["gated"]
    assert found["snr_db"] == pytest.approx(10, abs=5)


def test_silence_is_said_and_gives_no_ratio(tmp_path):
    found = audio.measure_audio(save(tmp_path / "a.wav", np.zeros(16000)))
    assert found["snr_db"] is None
    assert found["band_hz"] is None
    assert found["silence"] == found["digital_silence"] == 1.0
    assert thresholds.quarantine_reasons({"audio": found}, thresholds.Thresholds()) == [
        "share of silence 1 is above 0.9 (most_silence)"
    ]


def test_the_share_of_silence(tmp_path):
    t = np.arange(16000 * 8) / 16000
    voice = (0.2 + 0.1 * np.sin(8 * np.pi * t)) * np.sin(2 * np.pi * 180 * t) * (t % 2 < 1.2)
    room = 1e-3 * np.random.default_rng(0).normal(size=len(t))
    found = audio.measure_audio(save(tmp_path / "a.wav", voice + room))
    assert found["silence"] == pytest.approx(0.4, abs=0.02)


@pytest.mark.parametrize("subtype", ["PCM_U8", "PCM_16", "PCM_24", "FLOAT"])
@pytest.mark.parametrize("gain", [1.0, 0.4])
def test_clipping_counts_flat_tops_and_nothing_else(tmp_path, subtype, gain):
    clean = speech(6.0)
    clean /= np.abs(clean).max()
    cut = np.clip(clean, -0.4, 0.4) / 0.4
    true = (np.abs(clean) >= 0.4).mean()
    whole = audio.measure_audio(save(tmp_path / "a.wav", gain * clean, subtype=subtype))
    flat = audio.measure_audio(save(tmp_path / "b.wav", gain * cut, subtype=subtype))
    assert whole["clipping"] < 2e-4
    assert flat["clipping"] == pytest.approx(true, rel=0.35)
    assert true > 0.01


@pytest.mark.parametrize("subtype", ["PCM_U8", "PCM_16", "FLOAT"])
def test_a_full_scale_tone_is_not_clipped(tmp_path, subtype):
    tone = np.sin(2 * np.pi * 151 * np.arange(48000) / 48000)
    found = audio.measure_audio(save(tmp_path / "a.wav", tone, 48000, subtype))
    assert found["clipping"] < 1e-3


@pytest.mark.parametrize(
    "true, stored", [(8000, 16000), (8000, 48000), (11025, 44100), (16000, 48000), (22050, 48000)]
)
@pytest.mark.parametrize("noise", [0.0, 1e-5])
def test_sample_rates_that_lie_are_found(tmp_path, true, stored, noise):
    import soxr

    x = soxr.resample(speech(5.0, rate=true) / 3, true, stored)
    x = x + noise * np.random.default_rng(0).normal(size=len(x))
    found = audio.measure_audio(save(tmp_path / "a.wav", x, stored))
    assert found["upsampled"]
    assert found["true_rate"] == true
    assert found["band_hz"] == pytest.approx(true / 2, rel=0.12)


@pytest.mark.parametrize("rate", [8000, 16000, 44100, 48000])
def test_honest_rates_are_believed(tmp_path, rate):
    x = speech(5.0, rate=rate) / 3 + 1e-4 * np.random.default_rng(0).normal(size=5 * rate)
    found = audio.measure_audio(save(tmp_path / "a.wav", x, rate))
    assert not found["upsampled"]
    assert found["true_rate"] == rate
    assert found["band_hz"] > 0.9 * rate / 2


def test_telephone_and_codec_bands(tmp_path):
    from scipy.signal import firwin, lfilter

    for limit, rate in ((3400, 16000), (16000, 44100)):
        x = lfilter(firwin(801, limit, fs=rate), 1, speech(5.0, rate=rate)) / 3
        found = audio.measure_audio(save(tmp_path / f"{limit}.wav", x, rate))
        assert found["band_hz"] == pytest.approx(limit, rel=0.06)
        assert found["upsampled"]


@pytest.mark.parametrize("mains", [50, 60])
def test_hum_is_told_from_speech(tmp_path, mains):
    clean = speech(8.0)
    t = np.arange(len(clean)) / 16000
    floor = 1e-4 * np.random.default_rng(0).normal(size=len(clean))
    hum = sum(0.003 / k * np.sin(2 * np.pi * mains * k * t) for k in (1, 2, 3))
    with_hum = audio.measure_audio(save(tmp_path / "a.wav", clean / 3 + floor + hum))
    without = audio.measure_audio(save(tmp_path / "b.wav", clean / 3 + floor))
    assert with_hum["hum_hz"] == mains
    assert without["hum_hz"] is None


def test_channels_that_are_dead_equal_or_opposed(tmp_path):
    x = speech(3.0) / 3
    other = speech(3.0, seed=5) / 3
    dead = audio.measure_audio(save(tmp_path / "a.wav", np.stack([x, 0 * x], 1)))
    equal = audio.measure_audio(save(tmp_path / "b.wav", np.stack([x, x], 1)))
    opposed = audio.measure_audio(save(tmp_path / "c.wav", np.stack([x, -0.9 * x], 1)))
    stereo = audio.measure_audio(save(tmp_path / "d.wav", np.stack([x, other], 1)))
    assert dead["dead_channels"] == [2]
    assert equal["channels_equal"] and not equal["dead_channels"]
    assert opposed["channel_correlation"] < -0.99
    assert not stereo["channels_equal"] and abs(stereo["channel_correlation"]) < 0.3
    assert "channels_equal" not in audio.measure_audio(save(tmp_path / "e.wav", x))


def test_sound_is_the_same_in_any_format_block_and_level(tmp_path):
    x = np.round(speech(23.0) * 10000).astype(np.int16)
    wav = audio.measure_audio(save(tmp_path / "a.wav", x))
    flac = audio.measure_audio(save(tmp_path / "a.flac", x))
    assert wav == flac
    quiet = audio.measure_audio(save(tmp_path / "b.wav", (0.3 * x).astype(np.int16)))
    assert quiet["digest"] != wav["digest"]
    a, b = (
        fingerprints.hash_words(wav["fingerprint"]),
        fingerprints.hash_words(quiet["fingerprint"]),
    )
    assert fingerprints.compare(a, b, 0)[0] < 0.02


def test_copies_are_found_at_another_level_start_and_format(tmp_path):
    originals = [speech(6.0, seed=s) / 3 for s in range(12)]
    rng = np.random.default_rng(0)
    later = np.concatenate([1e-4 * rng.normal(size=20011), 0.4 * originals[3][8000:]])
    files = [save(tmp_path / f"{i}.wav", x) for i, x in enumerate(originals)]
    files.append(save(tmp_path / "later.wav", later))
    io.save(tmp_path / "lossy.mp3", originals[7])
    files.append(tmp_path / "lossy.mp3")
    prints = [audio.measure_audio(f)["fingerprint"] for f in files]
    found = fingerprints.find_matches([*prints, None, ""])
    assert [(m.first, m.second) for m in found] == [(3, 12), (7, 13)]
    assert found[0].shift == pytest.approx((20011 - 8000) / 16000, abs=0.03)
    assert abs(found[1].shift) < 0.1
    assert fingerprints.find_matches(prints[:12]) == []


def test_many_copies_of_one_recording_are_all_found(tmp_path):
    x = speech(2.0) / 3
    gains = np.linspace(0.2, 1, 20)
    prints = [audio.measure_audio(save(tmp_path / f"{g}.wav", g * x))["fingerprint"] for g in gains]
    found = fingerprints.find_matches(prints)
    assert {i for m in found for i in (m.first, m.second)} == set(range(20))


def test_a_fingerprint_that_is_none():
    with pytest.raises(InputError, match="not base64"):
        fingerprints.hash_words("what?")
    with pytest.raises(InputError, match="not base64"):
        fingerprints.hash_words("abcd")


@pytest.mark.parametrize("samples", [2, 7, 100, 319, 321, 5000])
@pytest.mark.parametrize("rate", [8000, 48000])
def test_very_short_sound(tmp_path, samples, rate):
    x = 0.1 * np.random.default_rng(0).normal(size=samples)
    found = audio.measure_audio(save(tmp_path / "a.wav", x, rate))
    json.dumps(found, allow_nan=False)
    assert found["seconds"] == pytest.approx(samples / rate, abs=1e-4)


def test_memory_grows_by_kilobytes_a_second(tmp_path):
    import tracemalloc

    x = (0.1 * np.random.default_rng(0).normal(size=16000 * 30)).clip(-1, 1)
    peaks = []
    for times in (1, 5):
        path = save(tmp_path / f"{times}.wav", np.tile(x, times))
        audio.measure_audio(path)  # what is imported and cached is not counted
        tracemalloc.start()
        audio.measure_audio(path)
        peaks.append(tracemalloc.get_traced_memory()[1])
        tracemalloc.stop()
    assert (peaks[1] - peaks[0]) / 120 < 20_000


def test_damaged_sound_is_one_line(tmp_path):
    whole = save(tmp_path / "a.wav", speech(3.0))
    data = whole.read_bytes()
    for name, content in {"cut": data[:2000], "none": b"", "text": b"hello" * 50}.items():
        bad = tmp_path / f"{name}-ü.wav"
        bad.write_bytes(content)
        with pytest.raises(InputError, match=f"{name}-ü.wav") as error:
            audio.measure_audio(bad)
        assert "\n" not in str(error.value)
    nan = speech(3.0)
    nan[30000] = np.nan
    with pytest.raises(InputError, match="1.8750 s is not a finite number"):
        audio.measure_audio(save(tmp_path / "n.wav", nan, subtype="FLOAT"))
    assert audio.measure_audio(None) == {}


# Motion


def performance(frames=600, fps=60.0, seed=0):
    """Smooth curves of 72 channels with blinks of five frames, gaze that jumps, and their times."""
    rng = np.random.default_rng(seed)
    times = np.arange(frames) / fps
    knots = np.arange(0, times[-1] + 0.4, 0.12)
    curves = np.stack(
        [np.interp(times, knots, rng.uniform(0, 0.6, len(knots))) for _ in range(72)], 1
    )
    kernel = np.hanning(9) / np.hanning(9).sum()
    curves = np.apply_along_axis(
        lambda c: np.convolve(np.pad(c, 4, "edge"), kernel, "valid"), 0, curves
    )
    lids = np.zeros(frames)
    for at in range(40, frames - 10, 90):
        lids[at : at + 5] = [0.3, 0.8, 1.0, 0.6, 0.2]
    curves[:, rig.INDEX["eyeBlinkLeft"]] = lids
    curves[:, rig.INDEX["eyeBlinkRight"]] = 0.97 * lids
    gaze = 20.0 * (rng.random((frames, 4)) < 0.02).cumsum(axis=0) % 30
    curves[:, rig.ANGLE_CHANNELS] = gaze
    return times, curves


ALL = np.ones(72, bool)


def test_a_healthy_performance_has_nothing_to_report():
    found = motion.measure_motion(*performance(), ALL, np.full(600, 0.3))
    assert found["jumps"] == found["frozen"] == found["missing"] == 0
    assert found["fps"] == 60 and found["fps_name"] == "60" and found["true_fps"] is None
    assert found["mirrored"] == 0 and not found["dead"]
    assert found["residual_mm"] == {"median": 0.3, "p95": 0.3, "max": 0.3}
    assert thresholds.quarantine_reasons({"motion": found}, thresholds.Thresholds()) == []
    json.dumps(found, allow_nan=False)


@pytest.mark.parametrize(
    "fps, name",
    [
        (30000 / 1001, "30000/1001"),
        (24000 / 1001, "24000/1001"),
        (60000 / 1001, "60000/1001"),
        (25, "25"),
        (30, "30"),
    ],
)
def test_rates_by_their_true_names_with_frames_missing_and_times_in_milliseconds(fps, name):
    _, curves = performance(900)
    times = np.round(np.arange(900) / fps, 3)
    keep = np.ones(900, bool)
    keep[100:130] = keep[500] = False
    found = motion.measure_motion(times[keep], curves[keep], ALL)
    assert found["fps_name"] == name
    assert found["fps"] == pytest.approx(fps, rel=1e-6)
    assert found["missing"] == pytest.approx(31 / 900, abs=1e-4)
    assert found["longest_gap_s"] == pytest.approx(31 / fps, abs=2e-3)
    assert found["jitter_ms"] < 0.6


def test_frames_without_numbers_are_missing():
    times, curves = performance()
    curves[50:110, 17] = np.nan
    found = motion.measure_motion(times, curves, ALL)
    assert found["missing"] == pytest.approx(0.1, abs=1e-4)
    empty = motion.measure_motion(times, np.full((600, 72), np.nan), ALL)
    assert empty["missing"] == 1.0
    json.dumps(empty, allow_nan=False)


def test_frozen_frames_and_regular_repeats():
    times, curves = performance()
    held = curves.copy()
    held[200:260] = held[199]
    found = motion.measure_motion(times, held, ALL)
    assert found["frozen"] == pytest.approx(60 / 599, abs=1e-4)
    assert found["longest_frozen_s"] == pytest.approx(1.0, abs=0.001)
    assert found["true_fps"] is None
    twice = motion.measure_motion(times, np.repeat(curves[:300], 2, axis=0), ALL)
    assert twice["true_fps"] == pytest.approx(30.0)
    pulled = motion.measure_motion(times, curves[(np.arange(600) * 24 // 60)], ALL)
    assert pulled["true_fps"] == pytest.approx(24.0, rel=0.02)
    # Frames at a lower rate are not frozen, but a pose that is held among them is.
    assert twice["frozen"] == pulled["frozen"] == 0.0
    paused = motion.measure_motion(times, np.repeat(held[:300], 2, axis=0), ALL)
    assert paused["true_fps"] == pytest.approx(30.0)
    assert paused["frozen"] == pytest.approx(120 / 599, abs=0.01)
    slow = motion.measure_motion(times, curves[np.arange(600) // 6], ALL)
    assert slow["true_fps"] == pytest.approx(10.0) and slow["frozen"] > 0.8


def test_jumps_are_single_frames_and_not_blinks_or_gaze():
    times, curves = performance()
    for at in (77, 300, 420):
        curves[at, rig.INDEX["jawOpen"]] += 0.4
    curves[500:] += np.where(np.arange(72) < 68, 0.9, 0.0)
    found = motion.measure_motion(times, curves, ALL)
    assert found["jump_times"] == [round(times[i], 4) for i in (77, 300, 420, 500)]
    assert found["jumps"] == pytest.approx(4 / 600, abs=1e-5)


def test_limits_ranges_and_what_lies_beyond():
    times, curves = performance()
    curves[:150, 17] = 1.0
    curves[:60, 20] = 1.4
    curves[:30, 21] = -0.2
    curves[:, 30] = 0.25
    curves[:90, 70] = -45.0
    found = motion.measure_motion(times, curves, ALL)
    saturated = found["saturated"]
    assert saturated["jawOpen"] == pytest.approx(0.25)
    assert saturated["mouthPucker"] == pytest.approx(0.1)
    assert saturated[rig.CHANNELS[70]] == pytest.approx(0.15)
    assert found["above"] == pytest.approx(60 / 600 / 68, abs=1e-5)
    assert found["below"] == pytest.approx(30 / 600 / 68, abs=1e-5)
    assert list(found["outside"])[:2] == [rig.CHANNELS[20], rig.CHANNELS[21]]
    assert found["dead"] == [rig.CHANNELS[30]]
    np.testing.assert_allclose(
        found["range"]["jawOpen"], np.percentile(curves[:, 17], [1, 50, 99]), atol=1e-4
    )


def test_the_noise_is_that_which_was_added():
    times, curves = performance(3000)
    rng = np.random.default_rng(0)
    base = motion.measure_motion(times, curves, ALL)["noise"]
    for level in (0.01, 0.03):
        noisy = curves + level * rng.normal(size=curves.shape) * rig.SCALE
        assert motion.measure_motion(times, noisy, ALL)["noise"] == pytest.approx(level, rel=0.2)
    assert base < 0.005


def test_left_that_equals_right():
    times, curves = performance()
    equal = curves.copy()
    for a, b in rig.MIRROR_PAIRS:
        equal[:, rig.INDEX[b]] = equal[:, rig.INDEX[a]]
    assert motion.measure_motion(times, equal, ALL)["mirrored"] == 1.0
    equal[7, rig.INDEX["mouthSmileLeft"]] += 0.01
    found = motion.measure_motion(times, equal, ALL)
    assert 0.9 < found["mirrored"] < 1.0
    assert found["unequal"] == ["mouthSmileLeft"]


def test_values_beyond_any_number_of_32_bits_are_measured_without_a_warning():
    times, curves = performance()
    curves[7, 0], curves[8, 1], curves[9, 2] = 1e300, -1e12, np.inf
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        found = motion.measure_motion(times, curves, ALL)
    assert found["above"] > 0 and found["below"] > 0 and found["digest"]


def test_copies_of_motion_have_one_digest():
    times, curves = performance()
    first = motion.measure_motion(times, curves, ALL)["digest"]
    assert motion.measure_motion(times + 3, curves.astype(np.float32), ALL)["digest"] == first
    assert motion.measure_motion(times, performance(seed=1)[1], ALL)["digest"] != first


@pytest.mark.parametrize("frames", [0, 1, 2, 3, 4, 6])
def test_very_short_motion(frames):
    times, curves = performance(10)
    for seen in (ALL, ~ALL):
        found = motion.measure_motion(times[:frames], curves[:frames], seen, np.ones(frames))
        json.dumps(found, allow_nan=False)
        assert found["frames"] == frames
        thresholds.quarantine_reasons({"motion": found}, thresholds.Thresholds())


# Lips


def talking(seed, seconds=20.0):
    """A recording's envelope and lips that follow its syllables with noise of their own."""
    x = speech(seconds, seed=seed)
    envelope = align.envelope(x.astype(np.float32))
    times = np.arange(int(seconds * 60)) / 60
    loud = np.interp(times + 0.03, np.arange(len(envelope)) / 200, envelope)
    smooth = np.convolve(np.pad(loud, 4, "edge"), np.ones(9) / 9, "valid")
    opening = (smooth - smooth.min()) / np.ptp(smooth)
    rng = np.random.default_rng(seed + 100)
    wander = np.interp(
        times, np.arange(0, seconds + 1, 0.25), rng.normal(size=int(seconds * 4) + 4)
    )
    return envelope, times, 0.6 * opening + 0.1 * wander


def test_swapped_sound_is_caught():
    takes = [talking(seed) for seed in range(8)]
    own = [lips.measure_lips(e, t, a) for e, t, a in takes]
    swapped = [
        lips.measure_lips(takes[i][0], *takes[j][1:]) for i in range(8) for j in range(8) if i != j
    ]
    assert all(m["belongs"] for m in own)
    assert min(m["correlation"] for m in own) > max(m["correlation"] for m in swapped)
    assert not any(m["belongs"] for m in swapped)
    assert np.mean([m["belongs"] is False for m in swapped]) > 0.7
    # Lips lead the sound by 30 ms here.
    assert np.median([m["lag_s"] for m in own]) == pytest.approx(0.03, abs=0.02)


def test_lips_that_say_nothing_are_not_judged():
    envelope, times, aperture = talking(0)
    for nothing in (
        lips.measure_lips(envelope, times, np.full(len(times), 0.2)),
        lips.measure_lips(np.full(len(envelope), -50.0), times, aperture),
        lips.measure_lips(envelope[:300], times, aperture),
        lips.measure_lips(envelope, times[:5], aperture[:5]),
        lips.measure_lips(envelope, times + 1000, aperture),
        lips.measure_lips(envelope, times, np.full(len(times), np.nan)),
    ):
        assert nothing["correlation"] is None and nothing["belongs"] is None
        limits = thresholds.Thresholds(least_lip_correlation=0.5)
        assert thresholds.quarantine_reasons({"lips": nothing}, limits) == []


# Verdicts


def test_a_reason_names_the_value_the_threshold_and_the_key():
    reasons = thresholds.quarantine_reasons(
        {
            "audio": {"snr_db": 6.2, "snr_sure": True, "band_hz": 2500.0, "band_sure": True},
            "motion": {"saturated": {"jawOpen": 0.7, "cheekPuff": 0.1}, "jumps": 0.5},
            "clock": {"drift": -0.01, "drift_confidence": 0.9, "error": 0.06},
        },
        thresholds.Thresholds(),
    )
    assert reasons == [
        "signal-to-noise ratio 6.2 dB is below 10 (least_snr_db)",
        "highest frequency in the sound 2500 Hz is below 3000 (least_band_hz)",
        "error of the lips' times 0.06 s is above 0.02 (most_lip_error)",
        "share of jumping frames 0.5 is above 0.02 (most_jumps)",
        "share of frames with jawOpen at its limit 0.7 is above 0.5 (most_saturated)",
    ]


def test_what_is_not_sure_or_not_there_fails_nobody():
    unsure = {
        "audio": {"snr_db": 1.0, "snr_sure": False, "band_hz": 900.0, "band_sure": False},
        "clock": {"drift": 0.5, "drift_confidence": 0.1, "error": 0.0},
        "motion": {"residual_mm": None, "frozen": None},
    }
    assert thresholds.quarantine_reasons(unsure, thresholds.Thresholds()) == []
    assert thresholds.quarantine_reasons({}, thresholds.Thresholds()) == []
    assert (
        thresholds.quarantine_reasons({"audio": None, "motion": None}, thresholds.Thresholds())
        == []
    )


BAD = {
    "audio": {"snr_db": -20.0, "clipping": 1.0, "silence": 1.0, "band_hz": 0.1},
    "lips": {"correlation": -1.0},
    "clock": {"error": 1.0},
    "motion": {
        "frozen": 1.0,
        "jumps": 1.0,
        "missing": 1.0,
        "saturated": {"jawOpen": 1.0},
        "residual_mm": {"median": 99.0, "p95": 99.0, "max": 99.0},
    },
}


@pytest.mark.parametrize("name", [f.name for f in dataclasses.fields(thresholds.Thresholds)])
def test_every_threshold_can_be_used_alone_and_switched_off(name):
    off = dict.fromkeys((f.name for f in dataclasses.fields(thresholds.Thresholds)), 0.0)
    assert thresholds.quarantine_reasons(BAD, thresholds.Thresholds(**off)) == []
    (reason,) = thresholds.quarantine_reasons(BAD, thresholds.Thresholds(**off | {name: 0.5}))
    assert reason.endswith(f"({name})")


def test_thresholds_are_the_settings_of_a_build():
    settings = BuildSettings()
    for field in dataclasses.fields(thresholds.Thresholds):
        assert getattr(settings, field.name) == field.default


def test_a_thumbnail_is_small_and_keeps_the_peaks():
    envelope, times, aperture = talking(0)
    residual = np.full(len(times), 0.2)
    residual[700] = 5.0
    small = thumbnail.make_thumbnail(envelope, times, aperture, residual)
    assert len(small["loudness"]) == len(small["aperture"]) == len(small["residual"]) == 240
    assert max(small["residual"]) == 5.0
    assert max(small["aperture"]) == pytest.approx(aperture.max(), abs=1e-3)
    assert len(json.dumps(small, allow_nan=False)) < 6000
    silent = thumbnail.make_thumbnail(None, times[:1], aperture[:1])
    assert silent["loudness"] == [] and len(silent["aperture"]) == 1
    assert thumbnail.make_thumbnail(envelope, times[:0], aperture[:0])["aperture"] == []


# Real recordings


def test_recordings_of_digits_are_eight_kilohertz_in_disguise(shared):
    files = sorted((shared / "speech" / "fsdd").glob("*.flac"))[::8]
    found = [audio.measure_audio(f) for f in files]
    assert all(m["rate"] == 16000 for m in found)
    assert np.mean([m["true_rate"] == 8000 for m in found]) > 0.9
    whole = [
        audio.measure_audio(f) for f in sorted((shared / "speech" / "ljspeech").glob("*.flac"))[:6]
    ]
    assert not any(m["upsampled"] for m in whole)


def test_one_real_recording_was_saved_twice(shared):
    files = sorted((shared / "speech" / "nvidia_a2f").glob("*.flac"))
    prints = [audio.measure_audio(f)["fingerprint"] for f in files]
    pairs = {(files[m.first].stem, files[m.second].stem) for m in fingerprints.find_matches(prints)}
    assert any(all("sadness" in name for name in pair) for pair in pairs)


def test_mandarin_takes_belong_to_their_own_sound(shared):
    from data_pipeline.sources import SourceOptions, open_source

    source, _ = open_source(shared / "facegood_mandarin", "table", SourceOptions())
    takes = []
    for take in source.actors()[0].takes:
        capture = source.capture(take)
        envelope = align.envelope(io.load(take.audio))
        takes.append((envelope, capture.times - 1 / 30, rig.aperture(capture.curves)))
    for i, (envelope, _, _) in enumerate(takes):
        for j, (_, times, aperture) in enumerate(takes):
            assert lips.measure_lips(envelope, times, aperture)["belongs"] is (i == j)
