"""Speech with exact phone times from eSpeak NG, through its shared library.

eSpeak NG is GPL-3, so it is not a dependency of this package: the optional `demo` extra installs
a PyPI package with the library and its data, and this module calls its C interface (`speak_lib.h`
of eSpeak NG 1.51) through ctypes. The library holds one voice per process, so it is opened once
per process, and calls are not thread-safe; use worker processes.

Phone times are exact. The library keeps the state of its wave generators between calls (even
across a restart), so the same text spoken again in one process may differ by some milliseconds;
the same calls in the same order in a fresh process give the same speech.
"""

from __future__ import annotations

import ctypes
import dataclasses
import functools
from pathlib import Path

import numpy as np

from a2fjax.errors import InputError, nearest

RATE = 22_050
"""Samples a second of the speech."""

LANGUAGES = {"en": "gmw/en", "es": "roa/es", "de": "gmw/de", "fr": "fr", "it": "roa/it"}
"""Language -> the name under which eSpeak NG finds the voice (`en-gb`, `fr-fr` are not found)."""

VARIANTS = {
    "male": ("m1", "m3", "m4", "m5", "m6", "m7", "m8", "max", "david", "paul", "iven3", "john"),
    "female": ("f1", "linda", "belinda", "steph", "anika", "Annie", "Andrea", "aunty"),
}
"""Voice variants by sex. Whispers and robots are left out, and so are those with an echo, which
fills the silence of stops that marks where closures begin."""

_MISSING = 'the demo corpus needs a voice: pip install "a2fjax[demo]" (eSpeak NG, GPL-3)'
_SUBMITTED_AS_UTF8 = 1
_PHONEME_EVENTS, _PHONEME_IPA, _DO_NOT_EXIT = 0x1, 0x2, 0x8000
_RETRIEVAL = 1
_RATE, _VOLUME, _PITCH, _PITCH_RANGE = 1, 2, 3, 4
_EVENT_PHONEME = 7
_STRESS = "ˈˌ"
_VOICELESS_STOPS = "ptkʔc"
_LONGEST_CLOSURE = 0.09


@dataclasses.dataclass(frozen=True)
class Voice:
    """Settings of a voice.

    Attributes:
      language: key of `LANGUAGES`.
      variant: name in `VARIANTS`, or "" for the language's plain voice.
      rate: words per minute, 80 to 450.
      pitch: 0 to 99; 50 is the variant's default.
      pitch_range: 0 (monotone) to 99; 50 is normal.
      volume: 0 to 200; 100 is normal.
    """

    language: str = "en"
    variant: str = ""
    rate: int = 175
    pitch: int = 50
    pitch_range: int = 50
    volume: int = 100


@dataclasses.dataclass(frozen=True)
class Phone:
    """One phone; `ipa` is empty for silence.

    Attributes:
      ipa: IPA symbol as eSpeak NG writes it, without stress marks.
      start, end: seconds. A voiceless stop starts with its (silent) closure.
      release: seconds; for a voiceless stop the instant of the burst, else equal to `start`.
      stress: 0 none, 1 secondary, 2 primary.
    """

    ipa: str
    start: float
    end: float
    release: float
    stress: int = 0


@dataclasses.dataclass(frozen=True)
class Speech:
    """A spoken sentence: audio [samples] float32 at `RATE`, and its phones without gaps."""

    audio: np.ndarray
    phones: tuple[Phone, ...]


class _Identity(ctypes.Union):
    _fields_ = [
        ("number", ctypes.c_int),
        ("name", ctypes.c_char_p),
        ("string", ctypes.c_char * 8),
    ]


class _Event(ctypes.Structure):
    _fields_ = [
        ("type", ctypes.c_int),
        ("unique_identifier", ctypes.c_uint),
        ("text_position", ctypes.c_int),
        ("length", ctypes.c_int),
        ("audio_position", ctypes.c_int),
        ("sample", ctypes.c_int),
        ("user_data", ctypes.c_void_p),
        ("id", _Identity),
    ]


_CALLBACK = ctypes.CFUNCTYPE(
    ctypes.c_int, ctypes.POINTER(ctypes.c_short), ctypes.c_int, ctypes.POINTER(_Event)
)


class _Library:
    """The opened library, with the callback that collects its output."""

    def __init__(self) -> None:
        try:
            import espeakng_loader
        except ImportError:
            raise InputError(_MISSING) from None
        try:
            self._dll = ctypes.CDLL(espeakng_loader.get_library_path())
            data = espeakng_loader.get_data_path()
        except (OSError, RuntimeError) as error:
            raise InputError(
                f'eSpeak NG does not open ({error}): pip install --force-reinstall "a2fjax[demo]"'
            ) from None
        options = _PHONEME_EVENTS | _PHONEME_IPA | _DO_NOT_EXIT
        rate = self._dll.espeak_Initialize(_RETRIEVAL, 0, str(data).encode(), options)
        if rate != RATE:
            # The C library keeps its data path in 160 bytes and fails on longer ones.
            raise InputError(
                f"eSpeak NG does not start with its data at {data} ({len(str(data))} characters); "
                "expected a path below 160, install the package in a shorter folder"
            )
        self._variants = {p.name for p in (Path(data) / "voices" / "!v").iterdir()}
        self._audio: list[np.ndarray] = []
        self._events: list[tuple[int, str]] = []
        # ctypes keeps no reference to a callback; without this one C would call freed memory.
        self._callback = _CALLBACK(self._receive)
        self._dll.espeak_SetSynthCallback(self._callback)

    def _receive(self, samples, count, events) -> int:  # noqa: ANN001 (C callback)
        if samples and count > 0:
            self._audio.append(np.ctypeslib.as_array(samples, (count,)).copy())
        i = 0
        while events[i].type:
            if events[i].type == _EVENT_PHONEME:
                # Names are cut at 8 bytes, possibly within a character and without a final zero.
                raw = ctypes.string_at(ctypes.addressof(events[i].id), 8).split(b"\0")[0]
                self._events.append((events[i].sample, raw.decode("utf-8", "ignore")))
            i += 1
        return 0

    def speak(self, text: str, voice: Voice) -> tuple[np.ndarray, list[tuple[int, str]]]:
        name = LANGUAGES[voice.language] + (f"+{voice.variant}" if voice.variant else "")
        # eSpeak NG silently uses the plain voice for an unknown variant.
        if voice.variant and voice.variant not in self._variants:
            suggestion = nearest(voice.variant, sorted(self._variants))
            raise InputError(f"eSpeak NG has no voice variant {voice.variant!r}{suggestion}")
        if self._dll.espeak_SetVoiceByName(name.encode()) != 0:
            raise InputError(f"eSpeak NG has no voice {name!r}")
        for parameter, value in (
            (_RATE, voice.rate),
            (_VOLUME, voice.volume),
            (_PITCH, voice.pitch),
            (_PITCH_RANGE, voice.pitch_range),
        ):
            self._dll.espeak_SetParameter(parameter, int(value), 0)
        self._audio.clear()
        self._events.clear()
        data = text.encode() + b"\0"
        self._dll.espeak_Synth(data, len(data), 0, 1, 0, _SUBMITTED_AS_UTF8, None, None)
        self._dll.espeak_Synchronize()
        if not self._audio:
            raise InputError(f"eSpeak NG says nothing for the text {text!r}")
        return np.concatenate(self._audio).astype(np.float32) / 32768.0, list(self._events)


@functools.cache
def _library() -> _Library:
    return _Library()


def _silence_before(audio: np.ndarray, sample: int, longest: int) -> int:
    """Returns the first sample of the silence that ends at `sample`."""
    start = max(sample - longest, 0)
    loud = np.flatnonzero(np.abs(audio[start : max(sample - 8, start)]) > 1e-3)
    return start + int(loud[-1]) + 1 if len(loud) else start


def synthesize(text: str, voice: Voice) -> Speech:
    """Returns the speech of a text.

    A phone lasts from its event to the next. eSpeak NG places the event of a voiceless stop at its
    burst, with the silence of the closure before it; here that silence belongs to the stop. A phone
    without a separate time (a dark l) takes the end of the previous one.

    Raises:
      InputError: the `demo` extra is not installed, an unknown language or variant, or no speech.
    """
    if voice.language not in LANGUAGES:
        raise InputError(
            f"no voice for language {voice.language!r}; expected one of: {', '.join(LANGUAGES)}"
        )
    audio, events = _library().speak(text, voice)
    events = [(s, name) for s, name in events if not name.startswith("(")]
    if not events or events[0][0] > 0:
        events.insert(0, (0, ""))
    bounds = [min(s, len(audio)) for s, _ in events] + [len(audio)]
    names = [name for _, name in events]
    releases = list(bounds[:-1])
    for i, name in enumerate(names):
        if i and name.lstrip(_STRESS)[:1] in tuple(_VOICELESS_STOPS):
            begin = _silence_before(audio, bounds[i], int(_LONGEST_CLOSURE * RATE))
            bounds[i] = max(begin, bounds[i - 1])
    for i in range(1, len(names)):
        if names[i] and names[i - 1] and bounds[i] == bounds[i + 1] > bounds[i - 1]:
            shift = int(0.45 * (bounds[i] - bounds[i - 1]))
            bounds[i] -= shift
            releases[i] = bounds[i]
    phones: list[Phone] = []
    for i, name in enumerate(names):
        if bounds[i + 1] <= bounds[i]:
            continue
        ipa = name.lstrip(_STRESS)
        if phones and not ipa and not phones[-1].ipa:
            phones[-1] = dataclasses.replace(phones[-1], end=bounds[i + 1] / RATE)
            continue
        stress = 2 if name.startswith("ˈ") else 1 if name.startswith("ˌ") else 0
        phones.append(
            Phone(ipa, bounds[i] / RATE, bounds[i + 1] / RATE, releases[i] / RATE, stress)
        )
    return Speech(audio, tuple(phones))


def check_espeak() -> None:
    """Checks that eSpeak NG can be opened, without opening it in this process.

    Raises:
      InputError: the `demo` extra is not installed.
    """
    try:
        import espeakng_loader  # noqa: F401 (only checks that it is installed)
    except ImportError:
        raise InputError(_MISSING) from None
