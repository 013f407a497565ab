"""Hums and breaths that are found, speech that is not, and the motion during them."""

import dataclasses
import os
from pathlib import Path

import numpy as np
import pytest

from a2fjax import rig
from a2fjax.metrics import sounds, suite
from a2fjax.metrics.phones.alignment import Phone
from a2fjax.metrics.reference import reference
from a2fjax.metrics.runs import find_runs

SPEECH = (
    Path(os.environ.get("A2FJAX_SHARED_DATA", Path(__file__).parents[3] / "shared/data")) / "speech"
)
RATE = 16000


def tone(seconds, hertz=120.0, slope=2.5, glide=0.0):
    t = np.arange(int(seconds * RATE)) / RATE
    phase = 2 * np.pi * (hertz * t + glide * t**2 / 2)
    wave = sum(np.sin(k * phase) / k**slope for k in range(1, int(7000 / hertz)))
    return 0.05 * wave / wave.std()


def noise(seconds, size, seed=0):
    return size * np.random.default_rng(seed).standard_normal(int(seconds * RATE))


def found(*parts):
    audio = np.concatenate(parts)
    audio = audio + noise(len(audio) / RATE, 3e-4, 1)[: len(audio)]
    return sounds.find(audio, -(-len(audio) // 320), 0.1)


@pytest.mark.parametrize("glide", [0.0, -15.0])
def test_a_hum_is_found_where_it_is(glide):
    got = found(noise(1, 0), tone(1.0, glide=glide), noise(1, 0))
    ((start, stop),) = find_runs(got["hum"])
    assert start == pytest.approx(50, abs=3) and stop == pytest.approx(100, abs=3)
    assert not got["breath"].any()


def test_a_vowel_a_short_nasal_and_a_hiss_are_no_hum():
    assert not found(noise(1, 0), tone(1.0, slope=0.8), noise(1, 0))["hum"].any()
    assert not found(noise(1, 0), tone(0.2), noise(1, 0))["hum"].any()
    assert not found(noise(1, 0), noise(1, 0.05), noise(1, 0))["hum"].any()
    sweep = np.concatenate([tone(0.1, hertz) for hertz in (100, 160, 110, 180, 120, 200, 130, 90)])
    assert not found(noise(1, 0), sweep, noise(1, 0))["hum"].all()


def test_a_breath_is_found_beside_a_pause_only():
    breath = noise(0.5, 0.003)
    ((start, stop),) = find_runs(found(noise(1, 0), breath, noise(1, 0))["breath"])
    assert start == pytest.approx(50, abs=2) and stop == pytest.approx(75, abs=2)
    vowel = tone(1, slope=0.8)
    for parts in ((vowel, breath, noise(1, 0)), (noise(1, 0), breath, vowel)):
        ((start, stop),) = find_runs(found(*parts)["breath"])
        assert start == pytest.approx(50, abs=3) and stop == pytest.approx(75, abs=3)
    inside = found(
        noise(1, 0), tone(1, slope=0.8), noise(0.3, 0.01), tone(1, slope=0.8), noise(1, 0)
    )
    assert not inside["breath"].any()
    assert not found(noise(1, 0), noise(3.0, 0.003), noise(1, 0))["breath"].any(), "too long"


def test_nothing_is_found_in_nothing():
    for audio in (np.zeros(0), np.zeros(3200), np.zeros(100)):
        got = sounds.find(audio, -(-len(audio) // 320), 0.1)
        assert not any(mask.any() for mask in got.values())


def test_real_readers_do_not_hum_and_people_out_of_breath_breathe():
    """Seconds found a minute: none in read speech, several where a take is acted breathless."""
    if not (SPEECH / "nvidia_a2f").is_dir():
        pytest.skip("no shared speech")
    from a2fjax.audio import io, level, num_frames

    def seconds(pattern, limit):
        total = {"hum": 0.0, "breath": 0.0, "all": 0.0}
        for path in sorted(SPEECH.glob(pattern))[:limit]:
            audio = io.load(path)
            masks = sounds.find(audio, num_frames(len(audio)), level.speech_level(audio))
            for kind, mask in masks.items():
                total[kind] += mask.sum() / 50
            total["all"] += len(audio) / RATE / 60
        return {kind: total[kind] / total["all"] for kind in ("hum", "breath")}

    assert seconds("ljspeech/*.flac", 4) == {"hum": 0, "breath": 0}
    assert seconds("nvidia_a2f/*outofbreath*.flac", 2)["breath"] > 5


def clip(motion, hum=None, phones=()):
    audio = np.concatenate([tone(1, slope=0.8), tone(1), tone(1, slope=0.8)])
    truth = reference(
        motion,
        audio,
        channel_mask=np.ones(72, bool),
        frame_mask=np.ones(150, bool),
        speech_level=0.1,
    )
    return dataclasses.replace(truth, phones=phones)


def swinging(inside, outside):
    size = np.full(150, outside)
    size[50:100] = inside
    motion = np.zeros((150, 72))
    motion[:, rig.GROUPS["jaw_mouth"]] = (0.5 + size * (-1.0) ** np.arange(150))[:, None]
    return motion


def measured(motion, truth):
    got = suite.values(suite.sums(motion, truth))
    return {k: float(v) for k, v in got.items() if k.startswith(("hum", "breath", "laugh"))}


def test_motion_during_a_hum_is_relative_to_that_in_speech():
    truth = clip(swinging(0.0, 0.1))
    got = measured(swinging(0.05, 0.1), truth)
    assert got["hum_seconds"] == pytest.approx(1.0, abs=0.1)
    assert got["hum_motion"] == pytest.approx(0.5, abs=0.06)
    assert got["hum_motion_truth"] == pytest.approx(0.0, abs=0.06)
    assert np.isnan(got["breath_motion"]) and np.isnan(got["laugh_seconds"])
    assert np.isnan(measured(np.zeros((150, 72)), truth)["hum_motion"]), "a still face has no ratio"


def test_a_laugh_counts_by_its_label():
    truth = clip(swinging(0.1, 0.1), phones=(Phone(2.2, 2.7, "<laugh>"),))
    got = measured(swinging(0.1, 0.1), truth)
    assert got["laugh_seconds"] == pytest.approx(0.5) and got["laugh_motion"] == pytest.approx(1)


def test_masked_frames_and_channels_add_nothing():
    truth = clip(swinging(0.0, 0.1))
    frames, channels = np.ones(150, bool), np.ones(72, bool)
    frames[60:80] = frames[120:130] = False
    channels[rig.INDEX["jawOpen"]] = False
    truth = dataclasses.replace(truth, frame_mask=frames, channel_mask=channels)
    prediction = swinging(0.05, 0.1)
    spoiled = prediction.copy()
    spoiled[60:80] = spoiled[120:130] = 9.0
    spoiled[:, rig.INDEX["jawOpen"]] = np.arange(150) % 7
    np.testing.assert_equal(measured(spoiled, truth), measured(prediction, truth))
    hidden = dataclasses.replace(truth, channel_mask=np.zeros(72, bool))
    assert all(np.isnan(v) for v in measured(prediction, hidden).values())
