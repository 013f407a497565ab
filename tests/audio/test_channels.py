"""Of several channels, those with the speech are used, and it is said which."""

import numpy as np
import pytest
import soundfile

from a2fjax.audio import channels, findings, io, measures

RATE = 16_000


def timecode(samples, rate=RATE, seed=0):
    """Linear timecode: 80 biphase-marked bits a frame, 25 frames a second."""
    bits = np.random.default_rng(seed).integers(0, 2, samples * 2000 // rate + 2)
    flips = np.stack([np.ones_like(bits), bits], axis=1).ravel()
    sign = 1 - 2 * (np.cumsum(flips) % 2)
    return 0.3 * sign[np.arange(samples) * 4000 // rate].astype(float)


def music(samples, rate=RATE, gaps=False):
    """Notes of a scale, two a second, with decaying harmonics."""
    t = np.arange(samples) / rate
    note = 220 * 2 ** (np.array([0, 4, 7, 12, 5, 9])[(2 * t).astype(int) % 6] / 12)
    phase = 2 * np.pi * np.cumsum(note) / rate
    out = sum(np.sin(k * phase) / k for k in range(1, 6)) * np.exp(-(t % 0.5))
    return 0.1 * out * ((t % 0.5 < 0.3) if gaps else 1.0)


def chords(samples, seed):
    """Chords of three notes with harmonics, one to two a second, that fade."""
    rng = np.random.default_rng(seed)
    length = round(RATE * rng.uniform(0.5, 1.0))
    t, out = np.arange(length) / RATE, []
    while len(out) * length < samples:
        fade = np.minimum(1, t / 0.02) * np.exp(-t * rng.uniform(0.5, 3))
        pitch = 130 * 2 ** ((rng.integers(12) + np.array([0, 4, 7])) / 12)
        waves = [np.sin(2 * np.pi * f * k * t) / k for f in pitch for k in range(1, 8)]
        out.append(fade * np.sum(waves, axis=0))
    return 0.04 * np.concatenate(out)[:samples]


def drums(samples, seed):
    """Kick, snare and hat on sixteen steps of a bar, by a player who is not quite regular."""
    rng = np.random.default_rng(seed)
    step, t = 15 / rng.uniform(80, 160), np.arange(RATE // 2) / RATE
    hits = (
        np.sin(2 * np.pi * (50 * t - 2.7 * np.exp(-30 * t))) * np.exp(-12 * t),
        lambda: (0.4 * rng.normal(size=len(t)) + 0.3 * np.sin(1200 * t)) * np.exp(-18 * t),
        lambda: 0.15 * np.diff(rng.normal(size=len(t)), prepend=0) * np.exp(-45 * t),
    )
    played = rng.random((3, 16)) < np.array([[0.3], [0.15], [0.6]])
    played[0, [0, 8]] = played[1, [4, 12]] = True
    out = np.zeros(samples + len(t))
    for k in range(int(samples / RATE / step)):
        for hit, on in zip(hits, played[:, k % 16], strict=True):
            if on:
                start = max(0, round(RATE * (k * step + 0.012 * rng.normal())))
                sound = hit() if callable(hit) else hit
                out[start : start + len(t)] += rng.uniform(0.4, 1) * sound
    return 0.15 * out[:samples]


def other(kind, samples):
    noise = np.random.default_rng(3).normal(size=samples)
    return {
        "timecode": timecode,
        "music": music,
        "notes": lambda n: music(n, gaps=True),
        "chords": lambda n: chords(n, 1),
        "chords and drums": lambda n: chords(n, 2) + drums(n, 2),
        "noise": lambda n: 0.05 * noise,
        "tone": lambda n: 0.1 * np.sin(2 * np.pi * 1000 * np.arange(n) / RATE),
        "dither": lambda n: np.round(noise) / 32768,
        "silence": np.zeros,
    }[kind](samples)


@pytest.mark.parametrize(
    "kind",
    "timecode music notes noise tone dither silence chords".split() + ["chords and drums"],
)
@pytest.mark.parametrize("first", [True, False])
def test_speech_beside_something_else(tmp_path, speech, kind, first):
    voice = speech()
    rows = [voice, other(kind, len(voice))]
    audio = np.stack(rows if first else rows[::-1], axis=1)
    soundfile.write(tmp_path / "a.wav", audio, RATE, subtype="FLOAT")
    np.testing.assert_allclose(io.load(tmp_path / "a.wav"), voice, atol=1e-6)
    choice = io.channels_of(tmp_path / "a.wav")
    assert choice.used == ((0,) if first else (1,))
    assert f"channel {1 if first else 2} of 2 is used: " in choice.text
    assert choice.text in findings.warnings(measures.measure(tmp_path / "a.wav"))


@pytest.mark.parametrize("gain", [1.0, 0.5, 2.0])
@pytest.mark.parametrize("delay", [0, 3, 30])
def test_opposite_polarity(speech, gain, delay):
    voice = speech()
    second = -gain * np.concatenate([np.zeros(delay, np.float32), voice[: len(voice) - delay]])
    choice = channels.choose([(RATE, np.stack([voice, second], 1))])
    assert choice.used == ((1,) if gain > 1 else (0,))
    assert "opposite polarity" in choice.why


def test_ordinary_stereo_is_averaged_without_a_word(speech):
    voice, rng = speech(), np.random.default_rng(0)
    left, right = (voice + 1e-3 * rng.normal(size=len(voice)) for _ in range(2))
    choice = channels.choose([(RATE, np.stack([left, 0.7 * right], 1))])
    assert choice == channels.Choice(2, (0, 1)) and choice.text == ""


def test_one_of_three_inverted_and_film_sound(speech):
    voice = speech()
    assert channels.choose([(RATE, np.stack([voice, -voice, voice], 1))]).used == (0, 2)
    six = np.stack([music(len(voice)), 0.8 * music(len(voice)), voice, *[0 * voice] * 3], 1)
    assert channels.choose([(RATE, six)]).used == (2,)


def test_two_voices_are_averaged_with_a_warning(speech):
    choice = channels.choose([(RATE, np.stack([speech(), speech(seed=9)], 1))])
    assert choice.used == (0, 1) and "different sounds" in choice.text


def test_blocks_and_pieces_choose_alike(tmp_path, speech):
    voice = speech(12.0)
    audio = np.stack([timecode(len(voice)), voice], 1)
    whole = channels.choose([(RATE, audio)])
    parts = channels.choose((RATE, audio[i : i + 999]) for i in range(0, len(audio), 999))
    assert whole == parts and whole.used == (1,)


def test_music_beside_real_speech_is_not_mixed_into_it(shared):
    """Files and seeds are others than those that the bounds were chosen with."""
    files = sorted((shared / "speech").glob("*/*.flac"))[1::2]
    voices = [v[: 10 * RATE] for v in map(io.load, files[::3]) if len(v) > 4 * RATE]
    assert len(voices) >= 6
    found = {"chords": [], "drums": [], "both": []}
    for seed, voice in enumerate(voices, 1000):
        tune, beat = chords(len(voice), seed), drums(len(voice), seed)
        for kind, sound in zip(found, (tune, beat, tune + beat), strict=True):
            choice = channels.choose([(RATE, np.stack([sound, voice], 1))])
            found[kind].append(choice.used == (1,))
            assert choice.used == (1,) or "different sounds" in choice.text
    print({kind: f"{sum(right)} of {len(right)}" for kind, right in found.items()})
    assert np.mean(found["chords"]) > 0.95 and np.mean(found["both"]) > 0.95
    assert np.mean(found["drums"]) > 0.75
    for first, second in zip(voices, voices[1:], strict=False):
        both = np.stack([a[: min(len(first), len(second))] for a in (first, second)], 1)
        assert channels.choose([(RATE, both)]).used == (0, 1)
