import numpy as np
import pytest


def make_speech(seconds=6.0, rate=16_000, seed=0):
    """Gliding harmonics and hiss, in syllables and pauses."""
    rng = np.random.default_rng(seed)
    t = np.arange(round(seconds * rate)) / rate
    knots = np.arange(0, seconds + 0.3, 0.3)
    pitch = np.interp(t, knots, 120 + 30 * rng.normal(size=len(knots)))
    phase = 2 * np.pi * np.cumsum(pitch) / rate
    tone = sum(np.cos(k * phase + k * k) / k for k in range(1, int(0.4 * rate / 200)))
    out, at = 1e-4 * rng.normal(size=len(t)), 0.1
    while at < seconds - 0.3:
        length = rng.uniform(0.08, 0.25)
        inside = (t >= at) & (t < at + length)
        source = rng.normal(size=len(t)) if rng.random() < 0.3 else tone
        out[inside] += rng.uniform(0.3, 1) * source[inside] * np.hanning(inside.sum())
        at += length + (rng.uniform(0.1, 0.5) if rng.random() < 0.4 else 0.02)
    return (0.1 * out / out.std()).astype(np.float32)


@pytest.fixture(scope="session")
def speech():
    """Returns a function of (seconds, rate, seed) that gives speech-like sound."""
    return make_speech
