"""Noises that augmentation adds to speech, synthesised once in a process."""

from __future__ import annotations

import functools

import numpy as np

from a2fjax.audio import SAMPLE_RATE, level

NOISES = ("white", "pink", "brown", "hum", "fan", "babble")
"""Kinds of noise in the bank, each of unit RMS."""

_BANK_SAMPLES = 1 << 17


@functools.cache
def noise_bank(seed: int = 0) -> np.ndarray:
    """Returns noise signals [kinds, samples] float32 with unit RMS, in the order of `NOISES`.

    White; pink (-3 dB an octave); brown (-6 dB an octave above 40 Hz); hum (50 or 60 Hz and its
    harmonics over a little pink noise); fan (noise below a few hundred Hz, with tones); babble
    (eight voices: pulse trains with wandering pitch through vowel resonances, at syllable rate).
    Each signal is periodic with the bank's length, so a segment may wrap around its end.
    """
    random = np.random.default_rng([seed, 7])
    size = _BANK_SAMPLES
    frequency = np.fft.rfftfreq(size, 1 / SAMPLE_RATE)
    time = np.arange(size) / SAMPLE_RATE

    def shaped(curve: np.ndarray) -> np.ndarray:
        white = random.standard_normal(len(frequency)) + 1j * random.standard_normal(len(frequency))
        white[0] = 0.0
        return np.fft.irfft(white * curve, size)

    def unit(signal: np.ndarray) -> np.ndarray:
        return signal / np.sqrt(np.mean(signal**2))

    def periodic(value: float) -> float:
        return round(value * size / SAMPLE_RATE) * SAMPLE_RATE / size

    above = np.maximum(frequency, 20.0)
    hum = np.zeros(size)
    for k in range(1, 13):
        phase, amplitude = random.uniform(0, 2 * np.pi), random.uniform(0.2, 1.0) / k
        hum += amplitude * np.sin(2 * np.pi * periodic(50.0 * k) * time + phase)
    fan = unit(shaped(1.0 / (1.0 + (frequency / 250.0) ** 2)))
    for tone in random.uniform(90.0, 900.0, 3):
        fan += 0.3 * np.sin(2 * np.pi * periodic(tone) * time)
    bank = {
        "white": shaped(np.ones_like(frequency)),
        "pink": shaped(above**-0.5),
        "brown": shaped(1.0 / (1.0 + frequency / 40.0)),
        "hum": unit(hum) + 0.1 * unit(shaped(above**-0.5)),
        "fan": fan,
        "babble": np.sum([unit(_voice(random, frequency, time)) for _ in range(8)], axis=0),
    }
    return np.stack([unit(bank[name]) for name in NOISES]).astype(np.float32)


def _voice(random: np.random.Generator, frequency: np.ndarray, time: np.ndarray) -> np.ndarray:
    size = len(time)

    def slow(cutoff: float) -> np.ndarray:
        draw = random.standard_normal(len(frequency)) + 1j * random.standard_normal(len(frequency))
        draw *= np.exp(-((frequency / cutoff) ** 2))
        draw[0] = 0.0
        curve = np.fft.irfft(draw, size)
        return curve / curve.std()

    pitch = random.uniform(90.0, 240.0) * np.exp(0.12 * slow(2.0))
    pulses = np.diff(np.floor(np.cumsum(pitch) / SAMPLE_RATE), prepend=0.0)
    spectrum = np.fft.rfft(pulses + 0.02 * random.standard_normal(size))
    out = np.zeros(size)
    for _ in range(3):  # Three vowels of this voice that fade into each other.
        formants = np.array([random.uniform(*r) for r in ((300, 800), (900, 2300), (2400, 3200))])
        curve = sum(
            g / (1.0 + ((frequency - f) / 90.0) ** 2)
            for f, g in zip(formants, (1.0, 0.5, 0.25), strict=True)
        )
        curve = (curve + 0.01) / (1.0 + frequency / 500.0)
        out += np.fft.irfft(spectrum * curve, size) * np.maximum(slow(4.0), 0.0)
    return out


def draw(random: np.random.Generator, size: int) -> np.ndarray:
    """Returns [size] samples of one noise or a mix of two from the bank, at about unit RMS."""
    bank = noise_bank()
    kinds = random.integers(len(bank), size=2)
    offsets = random.integers(bank.shape[1], size=2)
    share = np.float32(random.choice([1.0, random.uniform(0.3, 0.7)]))
    out = _stretch(bank[kinds[0]], int(offsets[0]), size) * np.sqrt(share)
    if share < 1.0:
        out += _stretch(bank[kinds[1]], int(offsets[1]), size) * np.sqrt(1 - share)
    return out


def _stretch(noise: np.ndarray, offset: int, size: int) -> np.ndarray:
    if offset + size <= len(noise):
        return noise[offset : offset + size]
    return np.take(noise, np.arange(offset, offset + size), mode="wrap")


def add_noise(audio: np.ndarray, snr_db: float, random: np.random.Generator) -> None:
    """Adds noise in place to audio [S] whose speech is at `level.TARGET`, at an SNR in dB."""
    audio += draw(random, len(audio)) * np.float32(level.TARGET * 10 ** (-snr_db / 20))
