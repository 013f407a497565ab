"""The demo's subjects, voices, takes and emotions, all drawn from one seed."""

from __future__ import annotations

import collections
import dataclasses
import hashlib

import numpy as np

from a2fjax import rig
from a2fjax.errors import InputError
from data_pipeline.demo import articulation, phones, sentence_list, style, upper_face, voice
from data_pipeline.demo.phones import Segment
from data_pipeline.demo.voice import RATE, Voice
from data_pipeline.stages import splits

FRAME_SAMPLES = RATE // rig.FPS
"""Samples of a motion frame at the voice's rate; takes are whole frames long."""

_LANGUAGES = ("en", "es", "de", "en", "fr", "it")
_MAX_OFFSET = 0.12


@dataclasses.dataclass(frozen=True)
class DemoSubject:
    """A subject of the corpus.

    Attributes:
      name: folder name, such as "demo007".
      held_out: held out of training; speaks only sentences that training does not contain.
      language: spoken language.
      shape: [8] face parameters in [-1, 1], see `style.SHAPE`.
      voice: voice for neutral emotion.
      offset: seconds; audio time = capture time + offset.
      seconds: minimum length of the subject's recordings.
      turn: in [0, 1), starting position in the order of sentences shared by all subjects of the
        language; see `sentences_for`.
      seed: seed of all the subject's random draws.
    """

    name: str
    held_out: bool
    language: str
    shape: np.ndarray
    voice: Voice
    offset: float
    seconds: float
    turn: float
    seed: int


@dataclasses.dataclass(frozen=True)
class Take:
    """One utterance with its true motion.

    Attributes:
      shot: name, unique for the subject.
      sentence: key and text.
      audio: [samples] float32 at `voice.RATE`, a whole number of frames, with room noise.
      segments: phones, in seconds of the audio.
      unknown: count of each unknown phone.
      emotion_times, emotion_weights: [K] seconds on the audio clock, [K, 5]; constant where K is
        1, else interpolated linearly.
      curves: the true motion on the audio clock.
    """

    shot: str
    sentence: sentence_list.Sentence
    audio: np.ndarray
    segments: tuple[Segment, ...]
    unknown: dict[str, int]
    emotion_times: np.ndarray
    emotion_weights: np.ndarray
    curves: articulation.Curves


def make_rng(*parts: object) -> np.random.Generator:
    """Returns a generator seeded by the parts alone, the same on every machine."""
    digest = hashlib.sha256(":".join(map(str, parts)).encode()).digest()
    return np.random.default_rng(int.from_bytes(digest[:8], "little"))


def draw_people(subjects: int, unseen: int, minutes: float, seed: int) -> list[DemoSubject]:
    """Returns the subjects of the corpus: first the training subjects, then the unseen ones.

    Face parameters are a Latin hypercube sample, so that few subjects cover their range evenly.

    Args:
      subjects: number of training subjects.
      unseen: number of additional, held-out subjects.
      minutes: total length of the recordings of all subjects.
      seed: seed of all random draws.

    Raises:
      InputError: a count below one (unseen: below zero) or no time.
    """
    if subjects < 1:
        raise InputError(f"--subjects {subjects}: expected at least 1")
    if unseen < 0:
        raise InputError(f"--unseen {unseen}: expected at least 0")
    if not 0 < minutes < np.inf:
        raise InputError(f"--minutes {minutes:g}: expected more than 0, and a number")
    count = subjects + unseen
    rng = make_rng("people", seed)
    cells = np.stack([rng.permutation(count) for _ in style.SHAPE], axis=1)
    shapes = 2.0 * (cells + rng.uniform(size=cells.shape)) / count - 1.0
    unseen_languages = tuple(voice.LANGUAGES)
    # Groups of subjects that share sentences: unseen subjects have separate sentences.
    groups = [(_LANGUAGES[i % len(_LANGUAGES)], False) for i in range(subjects)]
    groups += [(unseen_languages[i % len(unseen_languages)], True) for i in range(unseen)]
    sizes = collections.Counter(groups)
    before: collections.Counter = collections.Counter()
    drawn = []
    for i, group in enumerate(groups):
        subject_rng = make_rng("person", seed, i)
        language, held_out = group
        sex = ("female", "male")[(i + i // len(_LANGUAGES)) % 2]
        low, high = (45, 75) if sex == "female" else (20, 60)
        drawn.append(
            DemoSubject(
                name=f"demo{i:03d}",
                held_out=held_out,
                language=language,
                shape=shapes[i],
                voice=Voice(
                    language=language,
                    variant=str(subject_rng.choice(voice.VARIANTS[sex])),
                    rate=int(subject_rng.integers(140, 186)),
                    pitch=int(subject_rng.integers(low, high)),
                    pitch_range=int(subject_rng.integers(35, 70)),
                ),
                offset=float(subject_rng.uniform(-_MAX_OFFSET, _MAX_OFFSET)),
                seconds=60.0 * minutes / count,
                turn=before[group] / sizes[group],
                seed=seed,
            )
        )
        before[group] += 1
    return drawn


def sentences_for(person: DemoSubject) -> list[sentence_list.Sentence]:
    """Returns the sentences that a subject may speak, in order.

    All subjects of a language share one random order of its sentences and start at positions
    spread evenly over it, so that every sentence is spoken about equally often. Unseen subjects
    share an order of only those sentences that `data_pipeline.stages.splits` holds out.
    """
    sentences = sentence_list.sentences_in(person.language)
    if person.held_out:
        sentences = tuple(s for s in sentences if splits.sentence_split(s.key) != "train")
    order = make_rng("sentences", person.seed, person.language, person.held_out)
    first = int(person.turn * len(sentences))
    return [sentences[i] for i in np.roll(order.permutation(len(sentences)), -first)]


def _emotions(index: int, rng: np.random.Generator, duration: float) -> tuple:
    """Returns the emotion (times [K], weights [K, 5], name) of a subject's index-th take."""
    eye = np.eye(rig.NUM_EMOTIONS)
    kind = index % 8
    if kind < 5:
        # Pure emotions, equally often; intensity is mostly full.
        weight = 1.0 if kind == 0 or rng.uniform() < 0.6 else float(rng.uniform(0.5, 0.95))
        mixed = weight * eye[kind] + (1.0 - weight) * eye[0]
        return np.zeros(1), mixed[None], rig.EMOTIONS[kind]
    if kind < 7:
        a, b = rng.choice(rig.NUM_EMOTIONS, 2, replace=False)
        share = float(rng.uniform(0.3, 0.7))
        return np.zeros(1), (share * eye[a] + (1 - share) * eye[b])[None], "blend"
    a, b = rng.choice(rig.NUM_EMOTIONS, 2, replace=False)
    middle = float(rng.uniform(0.4, 0.6)) * duration
    half = 0.5 * min(0.8, 0.5 * duration)
    return np.array([0.0, middle - half, middle + half, duration]), eye[[a, a, b, b]], "track"


def emotion_at(times: np.ndarray, knots: np.ndarray, weights: np.ndarray) -> np.ndarray:
    """Returns the emotion [N, 5] at times, linear between knots and constant beyond them."""
    return np.stack([np.interp(times, knots, w) for w in weights.T], axis=1)


def _pauses(
    audio: np.ndarray, spoken: tuple[voice.Phone, ...], rng: np.random.Generator
) -> tuple[np.ndarray, list[voice.Phone]]:
    """Lengthens the inner pauses by splicing in silence, and adds silence at both ends."""
    lead, tail = rng.uniform(0.3, 0.8, 2)
    pieces: list[np.ndarray] = []
    out: list[voice.Phone] = []
    shift = 0.0
    cut = 0
    inner = range(1, len(spoken) - 1)
    for i, p in enumerate(spoken):
        extra = 0.0
        # Draw for every phone, so that an additional pause does not change the others.
        wish, chance = float(rng.uniform(0.3, 1.0)), float(rng.uniform())
        length = p.end - p.start
        if not p.ipa and i == 0:
            extra = lead - length
        elif not p.ipa and i == len(spoken) - 1:
            extra = tail - length
        elif not p.ipa and i in inner and length > 0.1 and chance < 0.8:
            extra = max(wish - length, 0.0)
        middle = int(0.5 * (p.start + p.end) * RATE)
        samples = int(round(extra * RATE))
        if samples > 0:
            pieces += [audio[cut:middle], np.zeros(samples, np.float32)]
            cut = middle
        else:
            samples = 0
        end = p.end + samples / RATE
        out.append(
            dataclasses.replace(
                p, start=p.start + shift, end=end + shift, release=p.release + shift
            )
        )
        shift += samples / RATE
    pieces.append(audio[cut:])
    return np.concatenate(pieces), out


def _with_ends(
    audio: np.ndarray, spoken: tuple[voice.Phone, ...]
) -> tuple[np.ndarray, tuple[voice.Phone, ...]]:
    """Ensures that a take begins and ends with a silence, possibly a short one."""
    gap = int(0.02 * RATE)
    shift = gap / RATE
    moved = [
        dataclasses.replace(p, start=p.start + shift, end=p.end + shift, release=p.release + shift)
        for p in spoken
    ]
    audio = np.pad(audio, gap)
    if moved[0].ipa:
        moved.insert(0, voice.Phone("", 0.0, shift, 0.0))
    else:
        moved[0] = dataclasses.replace(moved[0], start=0.0, release=0.0)
    end = len(audio) / RATE
    if moved[-1].ipa:
        moved.append(voice.Phone("", end - shift, end, end - shift))
    else:
        moved[-1] = dataclasses.replace(moved[-1], end=end)
    return audio, tuple(moved)


def room_noise(samples: int, rng: np.random.Generator) -> np.ndarray:
    """Returns noise [samples] of unit RMS whose spectrum falls with frequency like room noise."""
    size = max(samples, 16)
    spectrum = rng.normal(size=size // 2 + 1) + 1j * rng.normal(size=size // 2 + 1)
    frequency = np.fft.rfftfreq(size, 1.0 / RATE)
    spectrum *= 1.0 / (1.0 + (np.maximum(frequency, 40.0) / 200.0) ** rng.uniform(0.6, 1.2))
    spectrum[0] = 0.0
    noise = np.fft.irfft(spectrum, size)[:samples]
    return (noise / np.sqrt(np.mean(noise**2))).astype(np.float32)


def record_take(person: DemoSubject, index: int, sentence: sentence_list.Sentence) -> Take:
    """Returns a subject's take: the speech, its motion, and the truth about both."""
    rng = make_rng("take", person.seed, person.name, index)
    knots, weights, mood = _emotions(index + _first_emotion(person), rng, 1.0)
    mean = weights.mean(axis=0)
    neutral_voice = person.voice
    spoken = dataclasses.replace(
        neutral_voice,
        language=sentence.language,
        rate=int(neutral_voice.rate * (mean @ style.RATE) * rng.uniform(0.95, 1.05)),
        pitch=int(np.clip(neutral_voice.pitch + mean @ style.PITCH, 0, 99)),
        pitch_range=int(np.clip(neutral_voice.pitch_range + mean @ style.PITCH_RANGE, 0, 99)),
    )
    speech = voice.synthesize(sentence.text, spoken)
    audio, spoken_phones = _pauses(*_with_ends(speech.audio, speech.phones), rng)
    frames = -(-len(audio) // FRAME_SAMPLES)
    audio = np.pad(audio, (0, frames * FRAME_SAMPLES - len(audio)))
    duration = len(audio) / RATE
    spoken_phones[-1] = dataclasses.replace(spoken_phones[-1], end=duration)
    knots = knots * duration
    segments, unknown = phones.segments(tuple(spoken_phones))
    times = np.arange(int(np.ceil(duration * articulation.RATE)) + 1) / articulation.RATE
    emotion = emotion_at(times, knots, weights)
    motion = articulation.articulate(segments, times, emotion, style.draw_style(person.shape))
    upper_face.add_upper_face(motion, times, segments, rng)
    loud = np.sqrt(np.mean(audio[np.abs(audio) > 1e-3] ** 2))
    if rng.uniform() < 0.85:
        snr = rng.uniform(35.0, 55.0)
        audio = audio + loud * 10.0 ** (-snr / 20.0) * room_noise(len(audio), rng)
    audio = audio * min(1.0, 0.95 / float(np.abs(audio).max()))
    return Take(
        shot=f"{index:02d}_{mood}_{sentence.key}",
        sentence=sentence,
        audio=audio.astype(np.float32),
        segments=segments,
        unknown=dict(unknown),
        emotion_times=knots,
        emotion_weights=weights,
        curves=articulation.Curves(motion),
    )


def _first_emotion(person: DemoSubject) -> int:
    """Returns a subject's start in the cycle of emotions, so that short runs cover all."""
    return 5 * int(person.name.removeprefix("demo"))


def record_slate(person: DemoSubject) -> Take:
    """Returns a slate take of three lip pops: lips snap open at a click, to align the clocks.

    The opening takes 0.03 s and is half done (and fastest) at the click.
    """
    rng = make_rng("slate", person.seed, person.name)
    pops = 0.8 + np.arange(3) * 0.7 + rng.uniform(-0.05, 0.05, 3)
    # Clicks must fall on a sample to have full amplitude.
    pops = np.round(pops * RATE) / RATE
    duration = 3.2
    samples = int(round(duration * rig.FPS)) * FRAME_SAMPLES
    audio = 10.0 ** (-50.0 / 20.0) * 0.1 * room_noise(samples, rng)
    decay = np.exp(-np.arange(int(0.03 * RATE)) / (0.004 * RATE))
    tone = decay * np.cos(2.0 * np.pi * 1200.0 * np.arange(len(decay)) / RATE)
    for pop in pops:
        first = int(round(pop * RATE))
        audio[first : first + len(tone)] += 0.8 * tone
    times = np.arange(int(duration * articulation.RATE) + 1) / articulation.RATE
    opened = sum(articulation.window(times, p - 0.015, p + 0.015, p + 0.20, p + 0.40) for p in pops)
    neutral = np.tile(np.eye(rig.NUM_EMOTIONS)[0], (len(times), 1))
    silence = Segment("", phones.CLASSES["SIL"], 0.0, duration, duration, 0)
    motion = articulation.articulate((silence,), times, neutral, style.draw_style(person.shape))
    motion[:, rig.INDEX["jawOpen"]] += 0.4 * opened
    return Take(
        shot="slate",
        sentence=sentence_list.Sentence("slate", "", ""),
        audio=audio.astype(np.float32),
        segments=(silence,),
        unknown={},
        emotion_times=np.zeros(1),
        emotion_weights=neutral[:1],
        curves=articulation.Curves(motion),
    )
