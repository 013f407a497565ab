"""Maps IPA phones to phone classes and articulatory targets.

A class is one configuration of jaw, lips and tongue; visually similar phones share a class, as in
visemes. Targets are in rig weights for a neutral, average speaker; the lip and jaw shapes of a
class follow descriptive phonetics (place of articulation, rounding, openness), e.g. Ladefoged
and Johnson, "A Course in Phonetics", chapters 1 and 4. Every phone also has dominances, the weight
of its target in each group of articulators (Cohen and Massaro 1993, "Modeling coarticulation in
synthetic visual speech").
"""

from __future__ import annotations

import collections
import dataclasses
import functools

import numpy as np

from data_pipeline.demo.voice import Phone

TARGETS = (
    "jaw closure funnel pucker stretch smile dimple rollLower rollUpper shrugLower shrugUpper "
    "press lowerDown upperUp jawForward puff tongueOut tongueTipUp tongueTipDown tongueRollUp "
    "tongueRollDown tongueUp tongueDown tongueIn tongueStretch tongueWide tongueNarrow"
).split()
"""Articulatory targets. `closure` is the share of the lip opening that the lips take back."""

GROUPS = {
    "jaw": ("jaw", "jawForward"),
    "round": ("funnel", "pucker"),
    "spread": ("stretch", "smile", "dimple"),
    "lips": (
        "rollLower", "rollUpper", "shrugLower", "shrugUpper", "press", "lowerDown", "upperUp",
        "puff",
    ),
    "tongue": tuple(t for t in TARGETS if t.startswith("tongue")),
}  # fmt: skip
"""Groups of articulators that share a dominance. `closure` is in none: it is a gesture."""

INDEX = {name: i for i, name in enumerate(TARGETS)}


@dataclasses.dataclass(frozen=True)
class PhoneClass:
    """Targets of one class of phones.

    Attributes:
      name: name used in the truth files.
      kind: "vowel", "consonant" or "silence".
      targets: [len(TARGETS)] float64 in [0, 1].
      dominance: [len(GROUPS)] positive, in the order of `GROUPS`.
    """

    name: str
    kind: str
    targets: np.ndarray
    dominance: np.ndarray


def _class(name: str, kind: str, dominance: str, **targets: float) -> PhoneClass:
    values = np.zeros(len(TARGETS))
    for key, value in targets.items():
        values[INDEX[key]] = value
    return PhoneClass(name, kind, values, np.array([float(d) for d in dominance.split()]))


# Dominances: jaw, round, spread, lips, tongue. Bilabials leave the tongue to neighbouring phones
# and alveolars leave the lips; sibilants need a closed jaw.
_CLASSES = {
    c.name: c
    for c in (
        _class("P", "consonant", "1.0 0.35 0.5 3.0 0.15", jaw=0.08, closure=1, rollLower=0.42,
               rollUpper=0.40, press=0.28, puff=0.12),
        _class("M", "consonant", "0.9 0.35 0.5 3.0 0.15", jaw=0.08, closure=1, rollLower=0.28,
               rollUpper=0.26, press=0.30),
        _class("F", "consonant", "1.2 0.4 0.8 3.0 0.2", jaw=0.05, closure=0.91, rollLower=0.62,
               upperUp=0.14, shrugUpper=0.10, dimple=0.12),
        _class("B", "consonant", "0.9 0.4 0.5 1.6 0.15", jaw=0.10, closure=0.72, rollLower=0.18,
               rollUpper=0.15, press=0.08),
        _class("W", "consonant", "0.9 3.0 1.0 1.0 0.4", jaw=0.09, closure=0.50, funnel=0.26,
               pucker=0.70, tongueIn=0.25, tongueUp=0.3),
        _class("TH", "consonant", "1.0 0.5 0.6 0.8 2.0", jaw=0.10, lowerDown=0.16, upperUp=0.10,
               stretch=0.10, tongueOut=0.48, tongueTipUp=0.25, tongueStretch=0.35, tongueWide=0.2),
        _class("T", "consonant", "1.0 0.3 0.4 0.5 2.0", jaw=0.07, lowerDown=0.16, upperUp=0.10,
               stretch=0.14, tongueTipUp=0.78, tongueUp=0.35, tongueStretch=0.15),
        _class("L", "consonant", "0.8 0.3 0.3 0.5 2.0", jaw=0.14, lowerDown=0.16, upperUp=0.08,
               tongueTipUp=0.88, tongueNarrow=0.45, tongueStretch=0.25),
        _class("S", "consonant", "2.6 0.6 0.9 0.9 1.8", jaw=0.03, lowerDown=0.19, upperUp=0.13,
               stretch=0.34, smile=0.06, tongueTipUp=0.40, tongueUp=0.45, tongueWide=0.15),
        _class("SH", "consonant", "2.2 2.4 1.0 1.4 1.6", jaw=0.05, funnel=0.56, pucker=0.20,
               lowerDown=0.16, upperUp=0.18, shrugUpper=0.22, jawForward=0.16, tongueUp=0.60,
               tongueWide=0.35, tongueTipUp=0.15),
        _class("J", "consonant", "1.0 0.5 0.9 0.5 1.8", jaw=0.08, stretch=0.32, smile=0.12,
               lowerDown=0.11, upperUp=0.07, tongueUp=0.82, tongueWide=0.40, tongueTipDown=0.25),
        _class("K", "consonant", "0.7 0.25 0.25 0.3 1.8", jaw=0.13, lowerDown=0.12, upperUp=0.07,
               tongueIn=0.50, tongueUp=0.66, tongueTipDown=0.30),
        _class("X", "consonant", "0.6 0.25 0.25 0.3 1.6", jaw=0.16, lowerDown=0.12, upperUp=0.07,
               tongueIn=0.62, tongueUp=0.40, tongueDown=0.1, tongueTipDown=0.25),
        _class("R", "consonant", "0.8 0.5 0.4 0.5 1.8", jaw=0.11, funnel=0.09, lowerDown=0.12,
               upperUp=0.07, tongueTipUp=0.65, tongueRollUp=0.35, tongueNarrow=0.15),
        _class("RR", "consonant", "0.9 1.4 0.6 0.8 1.8", jaw=0.09, funnel=0.36, pucker=0.20,
               lowerDown=0.10, upperUp=0.07, tongueRollUp=0.62, tongueIn=0.3, tongueNarrow=0.3),
        _class("H", "consonant", "0.2 0.08 0.08 0.1 0.1", jaw=0.17, lowerDown=0.06,
               tongueDown=0.1),
        _class("I", "vowel", "0.9 0.8 1.5 0.8 1.2", jaw=0.10, stretch=0.48, smile=0.24,
               dimple=0.12, lowerDown=0.13, upperUp=0.10, tongueUp=0.62, tongueStretch=0.25,
               tongueWide=0.30, tongueTipDown=0.15),
        _class("IH", "vowel", "0.8 0.6 0.9 0.6 0.9", jaw=0.14, stretch=0.32, smile=0.13,
               dimple=0.05, lowerDown=0.12, upperUp=0.08, tongueUp=0.45, tongueWide=0.2),
        _class("E", "vowel", "1.0 0.8 1.2 0.7 1.0", jaw=0.20, stretch=0.36, smile=0.17,
               dimple=0.06, lowerDown=0.14, upperUp=0.10, tongueUp=0.34, tongueWide=0.25,
               tongueStretch=0.12),
        _class("EH", "vowel", "1.1 0.8 0.9 0.8 1.0", jaw=0.29, stretch=0.28, smile=0.1,
               lowerDown=0.17, upperUp=0.10, tongueUp=0.15, tongueDown=0.15, tongueRollDown=0.12),
        _class("A", "vowel", "1.4 0.9 0.8 0.9 1.0", jaw=0.42, stretch=0.14, lowerDown=0.18,
               upperUp=0.11, tongueDown=0.50, tongueRollDown=0.25, tongueTipDown=0.2),
        _class("AH", "vowel", "1.4 0.9 0.7 0.9 1.0", jaw=0.44, lowerDown=0.13, upperUp=0.07,
               funnel=0.07, tongueDown=0.55, tongueIn=0.30, tongueRollDown=0.2, tongueTipDown=0.25),
        _class("UH", "vowel", "0.9 0.5 0.4 0.5 0.7", jaw=0.28, lowerDown=0.13, upperUp=0.08,
               stretch=0.08, tongueDown=0.28, tongueRollDown=0.1),
        _class("AX", "vowel", "0.45 0.25 0.2 0.25 0.4", jaw=0.19, lowerDown=0.11, upperUp=0.06,
               tongueDown=0.12),
        _class("ER", "vowel", "0.8 1.0 0.5 0.5 0.9", jaw=0.20, funnel=0.20, pucker=0.08,
               lowerDown=0.11, upperUp=0.08, tongueUp=0.2, tongueNarrow=0.15),
        _class("AO", "vowel", "1.1 1.8 0.8 0.7 1.0", jaw=0.31, funnel=0.42, pucker=0.13,
               lowerDown=0.08, upperUp=0.07, tongueDown=0.40, tongueIn=0.35),
        _class("O", "vowel", "1.0 2.2 1.0 0.7 1.0", jaw=0.22, closure=0.12, funnel=0.44,
               pucker=0.36, lowerDown=0.05, tongueIn=0.40, tongueDown=0.2),
        _class("U", "vowel", "0.9 2.8 1.1 0.8 1.0", jaw=0.11, closure=0.30, funnel=0.29,
               pucker=0.71, tongueIn=0.42, tongueUp=0.40),
        _class("OO", "vowel", "0.8 1.8 0.8 0.6 0.9", jaw=0.15, closure=0.18, funnel=0.26,
               pucker=0.43, tongueIn=0.32, tongueUp=0.25),
        _class("Y", "vowel", "0.9 2.6 1.1 0.8 1.2", jaw=0.10, closure=0.24, funnel=0.31,
               pucker=0.62, tongueUp=0.60, tongueWide=0.2, tongueStretch=0.15),
        _class("OE", "vowel", "1.0 2.0 0.9 0.7 1.0", jaw=0.23, closure=0.08, funnel=0.42,
               pucker=0.30, lowerDown=0.07, tongueUp=0.25),
        _class("SIL", "silence", "1.0 0.6 0.6 1.0 0.6"),
    )
}  # fmt: skip

CLASSES: dict[str, PhoneClass] = _CLASSES

_SYMBOLS = {
    "P": "p b", "M": "m", "F": "f v ɱ", "B": "β ʋ ɸ", "W": "w ʍ", "TH": "θ ð",
    "T": "t d n ɾ ʈ ɖ", "L": "l ɫ", "S": "s z", "SH": "ʃ ʒ ʂ ʐ ɕ ʑ", "J": "j ç ʝ ɲ ʎ c ɟ",
    "K": "k g ɡ ŋ", "X": "x ɣ χ ʁ ʀ q", "R": "r", "RR": "ɹ ɻ", "H": "h ɦ ʔ",
    "I": "i", "IH": "ɪ ɨ ᵻ", "E": "e", "EH": "ɛ æ", "A": "a", "AH": "ɑ", "UH": "ʌ ɐ",
    "AX": "ə", "ER": "ɜ ɚ ɝ", "AO": "ɔ ɒ", "O": "o", "U": "u ɯ", "OO": "ʊ ɵ", "Y": "y ʏ ɥ",
    "OE": "ø œ",
}  # fmt: skip
_CLASS_OF = {symbol: name for name, group in _SYMBOLS.items() for symbol in group.split()}
# Length, nasal and tie marks, stress and liaison signs do not move lips or jaw.
_MARKS = frozenset("ːˑ̩̯̃͡ʲʰ̪ˈˌ-̥̬ʷ")


@dataclasses.dataclass(frozen=True)
class Segment:
    """A stretch of one phone class.

    Attributes:
      ipa: symbol, "" for silence.
      phone: its class.
      start, end: seconds.
      release: seconds; end of the closed part of a stop, else `end`.
      stress: 0, 1 or 2.
    """

    ipa: str
    phone: PhoneClass
    start: float
    end: float
    release: float
    stress: int


@functools.cache
def phone_classes(ipa: str) -> tuple[tuple[str, str], ...]:
    """Returns (symbol, class name) for each symbol in a phone's name; "" is silence.

    Diphthongs and affricates give two pairs. An unknown symbol gives class "".
    """
    if not ipa:
        return (("", "SIL"),)
    return tuple((s, _CLASS_OF.get(s, "")) for s in ipa if s not in _MARKS)


def segments(phones: tuple[Phone, ...]) -> tuple[tuple[Segment, ...], collections.Counter]:
    """Returns the segments of a phone sequence and the count of each unknown symbol.

    Unknown symbols are treated as a reduced vowel and counted, so that gaps in the table are
    reported.
    """
    unknown: collections.Counter = collections.Counter()
    out: list[Segment] = []
    for phone in phones:
        parts = phone_classes(phone.ipa) or ((phone.ipa, ""),)
        edges = np.linspace(phone.start, phone.end, len(parts) + 1)
        if len(parts) > 1 and CLASSES.get(parts[0][1], CLASSES["AX"]).kind == "consonant":
            # The closure of an affricate lasts until its burst.
            edges[1] = max(phone.release, edges[1]) if phone.release < phone.end else edges[1]
        for i, (symbol, name) in enumerate(parts):
            if not name:
                unknown[symbol] += 1
            phone_class = CLASSES[name or "AX"]
            start, end = float(edges[i]), float(edges[i + 1])
            release = end
            if i == 0 and start < phone.release < end:
                release = phone.release
            stress = phone.stress if phone_class.kind == "vowel" else 0
            out.append(Segment(symbol, phone_class, start, end, release, stress))
    return tuple(out), unknown
