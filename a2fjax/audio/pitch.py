"""Pitch by autocorrelation in JAX: F0, voicing and log energy, 50 frames per second.

The tracker computes the normalised autocorrelation of a 60 ms Hann window by FFT, band-limited and
divided by that of the window (P. Boersma, "Accurate short-term analysis of the fundamental
frequency and the harmonics-to-noise ratio of a sampled sound", IFA Proceedings 17, 1993). The
strongest peaks, refined by a parabola, are candidates. A path over a few frames chooses among them
and "unvoiced" with Boersma's costs against octave errors and jumps. Boersma's path spans the
recording; this one spans `PAST` frames before and `FUTURE` after, so that a frame depends on
`LOOKBACK` and `LOOKAHEAD` samples around its centre 320 * t. Outside the clip are zeros.
"""

from __future__ import annotations

import functools

import jax
import jax.numpy as jnp
import numpy as np

from a2fjax.audio import HOP, SAMPLE_RATE, num_frames
from a2fjax.audio.level import TARGET

MIN_HZ = 60.0
MAX_HZ = 500.0
WINDOW = 3 * HOP
PAST = 4
FUTURE = 2

LOOKAHEAD = FUTURE * HOP + WINDOW // 2 - 1
"""Last sample that frame t depends on, relative to its centre 320 * t (70 ms)."""

LOOKBACK = PAST * HOP + WINDOW // 2 - 1
"""First sample that frame t depends on, before its centre (110 ms)."""

ENERGY_FLOOR = 1e-10
"""Mean square added before the log: -100 dB of full scale."""

FFT = 1280  # At least window + longest lag, so that no lag wraps around; a product of 2s and 5s.
SHORTEST = int(SAMPLE_RATE / MAX_HZ)
LONGEST = int(np.ceil(SAMPLE_RATE / MIN_HZ))
CANDIDATES = 6
ANALYSIS = 2 * CANDIDATES + 1
"""Values of a frame that `analyse` returns."""

QUIET = (TARGET * 10 ** (-50 / 20)) ** 2  # Mean square at which periodicity counts half.

# Costs in units of normalised autocorrelation, after Boersma (1993).
VOICING_THRESHOLD = 0.5
OCTAVE_COST = 0.01
OCTAVE_JUMP_COST = 0.35
VOICING_CHANGE_COST = 0.07  # 0.14 for frames 10 ms apart, here 20 ms.


@functools.cache
def window() -> np.ndarray:
    """Returns the Hann window [960] float32, without zeros at its ends."""
    n = np.arange(WINDOW) + 0.5
    return (0.5 - 0.5 * np.cos(2 * np.pi * n / WINDOW)).astype(np.float32)


@functools.cache
def window_correlation() -> np.ndarray:
    """Returns the window's autocorrelation at the searched lags, relative to lag 0."""
    spectrum = np.abs(np.fft.rfft(window().astype(np.float64), n=FFT)) ** 2
    correlation = np.fft.irfft(spectrum, n=FFT)
    return (correlation[SHORTEST - 1 : LONGEST + 2] / correlation[0]).astype(np.float32)


@functools.cache
def band() -> np.ndarray:
    """Returns the weight of each power bin: low harmonics of voices, no offset, rumble or hiss."""
    hz = np.fft.rfftfreq(FFT, 1 / SAMPLE_RATE)
    low = np.clip((hz - 30.0) / 30.0, 0.0, 1.0)
    high = np.clip((2500.0 - hz) / 1500.0, 0.0, 1.0)
    return (np.sin(low * np.pi / 2) ** 2 * np.sin(high * np.pi / 2) ** 2).astype(np.float32)


@jax.jit
def track(audio: jax.Array) -> jax.Array:
    """Returns F0, voicing and log energy of every frame.

    Args:
      audio: [B, S] float, 16 kHz, speech near `level.TARGET`. The periodicity of audio 50 dB below
        that is halved.

    Returns:
      [B, T, 3] float32 with T = ceil(S / 320):
        F0 in Hz, 60 to 500, 0 where unvoiced;
        voicing, the autocorrelation at the chosen (unvoiced: the strongest) period, in [0, 1];
        natural log of the window's mean square plus `ENERGY_FLOOR`.

    Raises:
      ValueError: audio is not [B, S] with at least one sample.

    Example:
        >>> tone = 0.1 * np.sin(2 * np.pi * 200 * np.arange(3200) / 16_000)
        >>> f0, voicing, energy = track(tone[None])[0, 5]
        >>> round(float(f0))
        200
    """
    if audio.ndim != 2 or audio.shape[1] == 0:
        raise ValueError(f"audio has shape {audio.shape}, expected [batch, samples]")
    frames = num_frames(audio.shape[1])
    # Windows of frames just outside the clip still cover its ends, so the path includes them, as if
    # the zeros outside were part of the audio.
    framed = _frames(audio.astype(jnp.float32), first=-PAST, last=frames + FUTURE)
    return path(analyse(framed), frames)


def analyse(framed: jax.Array) -> jax.Array:
    """Returns what a path needs to know of frames [B, N, `WINDOW`], not yet windowed.

    Returns:
      [B, N, `ANALYSIS`]: Hz and height of the strongest peaks of the autocorrelation, then the mean
      square. Zeros are a frame of silence.
    """
    windowed = framed * window()
    energy = jnp.sum(windowed**2, axis=-1) / float(np.sum(window().astype(np.float64) ** 2))
    hz, height = _candidates(_correlation(windowed))
    return jnp.concatenate([hz, height, energy[..., None]], axis=-1)


def path(analysed: jax.Array, frames: int) -> jax.Array:
    """Returns the result of `track` [B, frames, 3].

    Args:
      analysed: [B, `PAST` + frames + `FUTURE`, `ANALYSIS`] from `analyse`.
      frames: number of frames T.
    """
    hz, periodicity = analysed[..., :CANDIDATES], analysed[..., CANDIDATES:-1]
    energy = analysed[..., -1]
    chosen = _choose(hz, periodicity, frames)
    inside = slice(PAST, PAST + frames)
    hz, periodicity = hz[:, inside], periodicity[:, inside]
    voiced = chosen < CANDIDATES
    index = jnp.where(voiced, chosen, jnp.argmax(periodicity, axis=-1))[..., None]
    pick = functools.partial(jnp.take_along_axis, indices=index, axis=-1)
    f0 = jnp.where(voiced, pick(hz)[..., 0], 0.0)
    voicing = jnp.clip(pick(periodicity)[..., 0], 0.0, 1.0)
    return jnp.stack([f0, voicing, jnp.log(energy[:, inside] + ENERGY_FLOOR)], axis=-1)


def _frames(audio: jax.Array, *, first: int, last: int) -> jax.Array:
    """Returns frames [B, last - first, WINDOW] of audio [B, S]; frame t is centred on HOP * t."""
    before = WINDOW // 2 - first * HOP
    blocks = last - first + WINDOW // HOP - 1
    after = blocks * HOP - before - audio.shape[1]
    padded = jnp.pad(audio, ((0, 0), (before, max(after, 0))))[:, : blocks * HOP]
    padded = padded.reshape(audio.shape[0], blocks, HOP)
    count = last - first
    return jnp.concatenate([padded[:, i : i + count] for i in range(WINDOW // HOP)], axis=-1)


def _correlation(windowed: jax.Array) -> jax.Array:
    """Returns the normalised autocorrelation [B, N, L] at lags from SHORTEST - 1 on."""
    spectrum = jnp.fft.rfft(windowed, n=FFT)
    power = (spectrum.real**2 + spectrum.imag**2) * band()
    correlation = jnp.fft.irfft(power, n=FFT)
    quiet = QUIET * float(np.sum(window().astype(np.float64) ** 2))
    lags = correlation[..., SHORTEST - 1 : LONGEST + 2]
    return lags / ((correlation[..., :1] + quiet) * window_correlation())


def _candidates(correlation: jax.Array) -> tuple[jax.Array, jax.Array]:
    """Returns (Hz, height) [B, N, K] of the strongest peaks; missing peaks have height 0."""
    left, middle, right = correlation[..., :-2], correlation[..., 1:-1], correlation[..., 2:]
    lags = np.arange(SHORTEST, LONGEST + 1, dtype=np.float32)
    octaves = np.log2(lags * (MIN_HZ / SAMPLE_RATE)).astype(np.float32)
    peak = (middle > left) & (middle >= right) & (middle > 0)
    strength = jnp.where(peak, middle - OCTAVE_COST * octaves, -1.0)
    strength, index = jax.lax.top_k(strength, CANDIDATES)
    pick = functools.partial(jnp.take_along_axis, indices=index, axis=-1)
    a, b, c = pick(left), pick(middle), pick(right)
    curvature = a - 2 * b + c
    safe = jnp.where(curvature < -1e-9, curvature, -1.0)
    offset = jnp.clip(0.5 * (a - c) / safe, -0.5, 0.5)
    height = b - 0.25 * (a - c) * offset
    hz = jnp.clip(SAMPLE_RATE / (index + SHORTEST + offset), MIN_HZ, MAX_HZ)
    return hz, jnp.where(strength > -1.0, jnp.clip(height, 0.0, 1.0), 0.0)


def _choose(hz: jax.Array, height: jax.Array, frames: int) -> jax.Array:
    """Returns the state [B, T] of each frame on the best path over its neighbourhood.

    States are the candidates, then "unvoiced" (index K). The best path through frame t over frames
    t - PAST to t + FUTURE is found by passing messages from both ends towards t (max-sum; Viterbi's
    recursion run for a fixed number of frames, for all t at once).
    """
    octave = jnp.log2(jnp.maximum(hz, MIN_HZ))
    local = jnp.where(height > 0, height + OCTAVE_COST * (octave - np.log2(MIN_HZ)), -1.0)
    local = jnp.concatenate([local, jnp.full_like(local[..., :1], VOICING_THRESHOLD)], axis=-1)
    jump = OCTAVE_JUMP_COST * jnp.abs(octave[:, 1:, :, None] - octave[:, :-1, None, :])
    cost = jnp.pad(jump, ((0, 0), (0, 0), (0, 1), (0, 1)), constant_values=VOICING_CHANGE_COST)
    cost = cost.at[..., -1, -1].set(0.0)  # [B, N - 1, state now, state before]

    before = local
    for _ in range(PAST):
        message = jnp.max(before[:, :-1, None, :] - cost, axis=-1)
        before = local + jnp.pad(message, ((0, 0), (1, 0), (0, 0)))
    after = local
    for _ in range(FUTURE):
        message = jnp.max(after[:, 1:, :, None] - cost, axis=-2)
        after = local + jnp.pad(message, ((0, 0), (0, 1), (0, 0)))
    belief = (before + after - local)[:, PAST : PAST + frames]
    return jnp.argmax(belief, axis=-1)
