"""Augments training windows: level, filter, noise, speed, pauses and mirroring; NumPy only.

Audio and motion stay aligned: a change of timing applies to both. All randomness comes from the
generator that the caller passes, so a window is a function of (seed, index).
"""

from __future__ import annotations

import dataclasses
import functools
import math

import numpy as np
import scipy.fft
import soxr

from a2fjax import rig
from a2fjax.audio import HOP, SAMPLE_RATE, level
from a2fjax.configuration import AugmentConfig
from a2fjax.data import records

NOISES = ("white", "pink", "brown", "hum", "fan", "babble")
"""Kinds of noise in the bank, each of unit RMS."""

_BANK_SAMPLES = 1 << 17

PAUSE_SECONDS = (0.3, 1.2)
PAUSE_LEVEL_DB = (-75.0, -40.0)
"""Level of the room noise in an inserted pause, in dB relative to the speech level."""

_FADE_SECONDS = 0.04
_EASE_FRAMES = 6
"""The mouth closes over 120 ms after the sound ends and opens over 120 ms before it resumes."""

_REST_LEVEL = 10 ** (-25 / 20)
_REST_OPENING = 0.25
"""Largest aperture of a rest pose, as a fraction of the clip's 90th percentile."""

LOWER_FACE = np.setdiff1d(rig.GROUPS["all"], rig.GROUPS["upper_face"])
"""Channels that speech moves; brows and eyes keep moving through a pause."""


@dataclasses.dataclass
class Window:
    """A segment of a clip while it is prepared for a batch.

    Attributes:
      audio: [T * 320] float32, zero after the clip's end.
      motion: [T, 72] float32, the last frame repeated after the clip's end.
      emotion: [T, 5] float32, the last frame repeated after the clip's end.
      frame_mask: [T] bool, False after the clip's end.
      channel_mask: [72] bool.
      length: number of frames that come from the clip.
      samples: number of audio samples that come from the clip.
      mirrored: whether the identity points must be mirrored too.
    """

    audio: np.ndarray
    motion: np.ndarray
    emotion: np.ndarray
    frame_mask: np.ndarray
    channel_mask: np.ndarray
    length: int
    samples: int
    mirrored: bool = False


def cut(clip: records.Clip, start: int, frames: int, speed: float = 1.0) -> Window:
    """Cuts a window from a clip, scales speech to `level.TARGET`, and plays it at `speed`.

    Frame t of the window is frame `start + speed * t` of the clip, and sample n is sample
    `320 * start + speed * n`. Audio goes through a band-limited resampler without delay; motion
    and emotion are interpolated linearly. A frame is valid when all frames it is interpolated
    from are valid.

    Args:
      clip: the clip to cut.
      start: first frame, in [0, clip.frames).
      frames: length of the window in frames.
      speed: playback speed; above 1 is faster and raises the pitch, like a smaller speaker.
    """
    size = frames * HOP
    if speed == 1.0:
        heard = clip.audio[start * HOP : start * HOP + size]
    else:
        need = int(np.ceil(size * speed)) + 64
        heard = clip.audio[start * HOP : start * HOP + need]
        heard = soxr.resample(heard, SAMPLE_RATE * speed, SAMPLE_RATE, quality="HQ")[:size]
    last = clip.frames - 1
    place = start + speed * np.arange(frames)
    length = int(np.count_nonzero(place <= last))
    heard = heard[: length * HOP]
    audio = np.zeros(size, np.float32)
    audio[: len(heard)] = level.normalise(heard, clip.speech_level)
    place = np.minimum(place, last)
    below = place.astype(np.int64)
    share = (place - below).astype(np.float32)[:, None]
    above = np.minimum(below + 1, last)
    if speed == 1.0:
        motion, emotion = clip.motion[below], clip.emotion[below]
        good = clip.frame_mask[below]
    else:
        motion = clip.motion[below] * (1 - share) + clip.motion[above] * share
        emotion = clip.emotion[below] * (1 - share) + clip.emotion[above] * share
        good = clip.frame_mask[below] & (clip.frame_mask[above] | (share[:, 0] == 0))
    return Window(
        audio=audio,
        motion=motion,
        emotion=emotion,
        frame_mask=good & (np.arange(frames) < length),
        channel_mask=np.array(clip.channel_mask),
        length=length,
        samples=len(heard),
    )


def part(window: Window, start: int, frames: int) -> Window:
    """Returns the window of `frames` frames that begins at frame `start` of another window.

    The last frame is repeated beyond the end of the other window, as in `cut`.
    """
    length = max(min(window.length - start, frames), 0)
    stop = start + frames

    place = np.minimum(np.arange(start, stop), len(window.motion) - 1)
    audio = np.zeros(frames * HOP, np.float32)
    heard = window.audio[start * HOP : stop * HOP]
    audio[: len(heard)] = heard
    return dataclasses.replace(
        window,
        audio=audio,
        motion=window.motion[place],
        emotion=window.emotion[place],
        frame_mask=window.frame_mask[place] & (np.arange(frames) < length),
        length=length,
        samples=max(min(window.samples - start * HOP, frames * HOP), 0),
    )


def draw_speed(config: AugmentConfig, random: np.random.Generator) -> float:
    """Draws a playback speed, log-uniform within 1 +- `config.speed`."""
    draw = random.uniform(-1.0, 1.0)
    return float((1.0 + config.speed) ** draw) if config.enabled and config.speed else 1.0


def slowest(config: AugmentConfig) -> float:
    """Returns the factor by which the lowest speed of `draw_speed` lengthens a clip."""
    return 1.0 + config.speed if config.enabled else 1.0


def augment(
    window: Window,
    config: AugmentConfig,
    random: np.random.Generator,
    *,
    rest: np.ndarray | None = None,
) -> Window:
    """Applies every augmentation except speed, which `cut` applies; modifies `window`.

    The order follows a recording: the performance (pause, mirror), the microphone (filter), the
    room (noise), the input level (gain).

    Args:
      window: a window from `cut`.
      config: enables the augmentations. All random numbers are drawn in any case, so disabling
        one augmentation does not change the others.
      random: the only source of randomness.
      rest: `rest_pose` of the clip; None inserts no pause.
    """
    if not config.enabled:
        return window
    chance = random.random(3)
    pause_random, eq_random, noise_random, gain_random = random.spawn(4)
    if chance[0] < config.silence_prob and rest is not None:
        insert_pause(window, rest, pause_random)
    if chance[1] < config.mirror_prob:
        window.motion = rig.mirror(window.motion)
        window.channel_mask = window.channel_mask[rig.MIRROR_SOURCE]
        window.mirrored = True
    if config.eq_db > 0:
        window.audio = equalise(window.audio, config.eq_db, eq_random)
    if chance[2] < config.noise_prob:
        low, high = config.noise_snr_db
        add_noise(window.audio, float(noise_random.uniform(low, high)), noise_random)
    if config.gain_db > 0:
        gain = 10 ** (gain_random.uniform(-config.gain_db, config.gain_db) / 20)
        window.audio *= np.float32(gain)
    window.audio[window.samples :] = 0.0
    return window


def mirror_points(points: np.ndarray) -> np.ndarray:
    """Returns identity points [P, 3 or 6] mirrored left to right, along the x axis."""
    return points * np.array([-1.0, 1.0, 1.0] * (points.shape[-1] // 3), np.float32)


@functools.cache
def _eq_basis(size: int) -> tuple[np.ndarray, int]:
    """Returns weights [controls, bins] that interpolate gains in dB, and the FFT length."""
    length = scipy.fft.next_fast_len(size + 1024, real=True)
    octave = np.log2(np.maximum(np.fft.rfftfreq(length, 1 / SAMPLE_RATE), 60.0) / 60.0)
    centres = np.linspace(0.0, np.log2(8000.0 / 60.0), 7)
    width = centres[1] - centres[0]
    weights = np.exp(-0.5 * ((octave - centres[:, None]) / (0.7 * width)) ** 2)
    return (weights / weights.sum(axis=0)).astype(np.float32), length


def equalise(audio: np.ndarray, deviation_db: float, random: np.random.Generator) -> np.ndarray:
    """Returns audio [S] filtered by a random smooth equaliser without delay.

    Seven gains, a little over an octave apart, are drawn from a normal distribution with mean 0 dB
    and standard deviation `deviation_db`. The curve is smoothed between them, which lowers its
    deviation slightly. The filter has zero phase and so delays no frequency.
    """
    weights, length = _eq_basis(len(audio))
    gains = random.standard_normal(len(weights), dtype=np.float32)
    curve = (deviation_db * math.log(10) / 20 * gains) @ weights
    spectrum = scipy.fft.rfft(audio, length)
    spectrum *= np.exp(curve)
    return scipy.fft.irfft(spectrum, length)[: len(audio)]


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


def _noise(random: np.random.Generator, size: int) -> np.ndarray:
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
    audio += _noise(random, len(audio)) * np.float32(level.TARGET * 10 ** (-snr_db / 20))


def rest_pose(clip: records.Clip) -> np.ndarray | None:
    """Returns the pose [72] of the clip's mouth in silence, or None if the clip shows none.

    The pose is the median of the most closed frames among the valid quiet frames. A frame is quiet
    if the audio is 25 dB below speech over 100 ms around it. The result is None when jawOpen is not
    observed, no frame is quiet, or the aperture in silence exceeds a quarter of its 90th
    percentile.
    """
    if not clip.channel_mask[rig.INDEX["jawOpen"]]:
        return None
    frames = clip.frames
    audio = np.zeros(frames * HOP, np.float32)
    audio[: len(clip.audio)] = clip.audio
    power = (audio.reshape(frames, HOP) ** 2).mean(axis=1)
    loudest = np.lib.stride_tricks.sliding_window_view(np.pad(power, 2, mode="edge"), 5).max(axis=1)
    quiet = (loudest < (_REST_LEVEL * clip.speech_level) ** 2) & clip.frame_mask
    if not quiet.any():
        return None
    opening = rig.aperture(clip.motion)
    (index,) = np.nonzero(quiet)
    index = index[np.argsort(opening[index], kind="stable")[:5]]
    pose = np.median(clip.motion[index], axis=0).astype(np.float32)
    wide = np.percentile(opening[clip.frame_mask], 90)
    return pose if rig.aperture(pose) <= _REST_OPENING * max(wide, 0.0) + 1e-3 else None


def insert_pause(window: Window, rest: np.ndarray, random: np.random.Generator) -> None:
    """Replaces a segment of the window with a pause, in place.

    The sound fades to room noise and back within `PAUSE_SECONDS`. The lower face eases to `rest`
    after the sound has faded and returns before the sound does. Brows and eyes keep moving.

    Args:
      window: the window; it is left as it is if it is too short for the shortest pause and one
        frame on each side.
      rest: [72] pose.
      random: the only source of randomness.
    """
    longest = min(round(PAUSE_SECONDS[1] * rig.FPS), window.length - 2)
    shortest = round(PAUSE_SECONDS[0] * rig.FPS)
    if longest < shortest:
        return
    frames = int(random.integers(shortest, longest + 1))
    first = int(random.integers(1, window.length - frames))
    room_db = float(random.uniform(*PAUSE_LEVEL_DB))

    fade = int(_FADE_SECONDS * SAMPLE_RATE)
    a, b = first * HOP, min((first + frames) * HOP, window.samples)
    silent = np.ones(b - a, np.float32)
    ramp = (0.5 - 0.5 * np.cos(np.pi * (np.arange(fade) + 0.5) / fade)).astype(np.float32)
    silent[:fade] = ramp
    silent[-fade:] = ramp[::-1]
    room = _noise(random, b - a) * np.float32(level.TARGET * 10 ** (room_db / 20))
    window.audio[a:b] = window.audio[a:b] * (1 - silent) + room * silent

    ease = min(_EASE_FRAMES, frames // 2)
    rise = np.arange(1, ease + 1, dtype=np.float32) / (ease + 1)
    rise = rise * rise * (3 - 2 * rise)
    still = np.ones(frames, np.float32)
    still[:ease] = rise
    still[-ease:] = rise[::-1]
    part = window.motion[first : first + frames]
    eased = part + still[:, None] * (rest - part)
    window.motion = np.array(window.motion)
    window.motion[first : first + frames, LOWER_FACE] = eased[:, LOWER_FACE]
