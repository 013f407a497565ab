"""The viseme rule: curves from phones alone, by a table of lip shapes that melt into each other.

Each phone has a viseme, a diphthong two, half of its time each; what is no phone is rest. The table
is this project's own, from what phonetics says of the articulators (lips together, lower lip to the
upper teeth, rounding, height of the jaw), in ARKit's channels of the jaw and the mouth. Sounds that
only the tongue tells apart share a shape. A weight of a shape is what a clear but not exaggerated
pronunciation takes on ARKit's scale, chosen by hand and not tuned on any data.

    K_v(t)   share of frame t in viseme v, smoothed by a Hann window of 0.2 s
    A_v(t)   d_v K_v(t) / sum_u d_u K_u(t)
    curve    base_c + sum_v A_v(t) g_vc T_vc

with the table T and the dominance d: lips that must meet do not give way to the vowels about them
(the idea of the dominance functions of Cohen and Massaro 1993, "Modeling coarticulation in
synthetic visual speech"). Where phones of training clips are known, the base is the channel's 5th
percentile in them (an intercept would be a mean, at which lips never close), and the gains g >= 0
are those of least squares, channel by channel, with a gain of 1 as a prior worth one second of the
full shape; else the gains are 1 and the base 0. Channels without a place in the table stay at the
mean pose.
"""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Callable, Sequence

import numpy as np
import scipy.optimize

from a2fjax import rig
from a2fjax.data import records
from a2fjax.data.dataset import ClipSource
from a2fjax.metrics.phones import labels
from a2fjax.metrics.phones.alignment import Phone

WINDOW = 11
"""Frames of the Hann window, its two zeros included: 0.2 s."""

REST_PERCENTILE = 5.0
PRIOR_FRAMES = 50.0
MOST_CLIPS = 60
"""Training clips that gains are fitted to, spread evenly."""


def _both(**shape: float) -> dict[str, float]:
    """Returns a shape with the channels of both sides where a name ends in an underscore."""
    out: dict[str, float] = {}
    for name, value in shape.items():
        sides = ("Left", "Right") if name.endswith("_") else ("",)
        out |= {name.rstrip("_") + side: value for side in sides}
    return out


SHAPES: dict[str, dict[str, float]] = {
    "rest": {},
    "bilabial": _both(jawOpen=0.08, mouthClose=0.08, mouthPress_=0.3, mouthRollLower=0.15),
    "labiodental": _both(jawOpen=0.06, mouthRollLower=0.4, mouthUpperUp_=0.12),
    "dental": _both(jawOpen=0.12, mouthLowerDown_=0.12),
    "alveolar": _both(jawOpen=0.1, mouthLowerDown_=0.1),
    "sibilant": _both(jawOpen=0.05, mouthStretch_=0.2, mouthLowerDown_=0.15),
    "postalveolar": _both(jawOpen=0.06, mouthFunnel=0.4, mouthPucker=0.15),
    "velar": _both(jawOpen=0.15),
    "rhotic": _both(jawOpen=0.1, mouthPucker=0.25, mouthFunnel=0.15),
    "close_front": _both(jawOpen=0.1, mouthSmile_=0.25, mouthLowerDown_=0.1),
    "mid_front": _both(jawOpen=0.25, mouthSmile_=0.15, mouthLowerDown_=0.15),
    "central": _both(jawOpen=0.2, mouthLowerDown_=0.1),
    "open": _both(jawOpen=0.45, mouthLowerDown_=0.2),
    "mid_rounded": _both(jawOpen=0.25, mouthFunnel=0.35, mouthPucker=0.15),
    "close_rounded": _both(jawOpen=0.08, mouthPucker=0.55, mouthFunnel=0.15),
}
"""Weights of the shapes by channel."""

DOMINANCE = {"bilabial": 8.0, "labiodental": 6.0, "postalveolar": 3.0, "close_rounded": 3.0}
"""Dominance of visemes; the others have 1."""

_ARPABET = {
    "bilabial": "P B M EM",
    "labiodental": "F V",
    "dental": "TH DH",
    "alveolar": "T D N L EL EN DX NX",
    "sibilant": "S Z",
    "postalveolar": "SH ZH CH JH",
    "velar": "K G NG HH HV Q",
    "rhotic": "R ER AXR",
    "close_front": "IY IH IX Y",
    "mid_front": "EH EY",
    "central": "AH AX",
    "open": "AA AE AY AW",
    "mid_rounded": "AO OW OY",
    "close_rounded": "UW UH UX W WH",
}
_SECOND = {
    "AY": "close_front",
    "EY": "close_front",
    "OY": "close_front",
    "AW": "close_rounded",
    "OW": "close_rounded",
}
_IPA = {
    "bilabial": "pbmɓɸβ",
    "labiodental": "fvɱʋ",
    "dental": "θð",
    "alveolar": "tdnlɾɖʈɗɳɭ",
    "sibilant": "sz",
    "postalveolar": "ʃʒʂʐɕʑ",
    "velar": "kgɡŋxɣhɦqχʔħɴ",
    "rhotic": "ɹrʀʁɻɝɚ",
    "close_front": "iɪɨjɲcʎɟ",
    "mid_front": "eɛ",
    "central": "əɜʌɘɤɯ",
    "open": "aæɑɐɒ",
    "mid_rounded": "oɔøœɵ",
    "close_rounded": "uʊʉyʏwʍɥ",
}
_OF_ARPABET = {label: name for name, group in _ARPABET.items() for label in group.split()}
_OF_IPA = {symbol: name for name, group in _IPA.items() for symbol in group}
_VOWELS = ("close_front", "mid_front", "central", "open", "mid_rounded", "close_rounded")

NAMES = tuple(SHAPES)
_DOMINANCE = np.array([DOMINANCE.get(name, 1.0) for name in NAMES])
TABLE = np.zeros((len(NAMES), rig.NUM_CHANNELS))
for _row, _shape in enumerate(SHAPES.values()):
    for _channel, _weight in _shape.items():
        TABLE[_row, rig.INDEX[_channel]] = _weight


@functools.lru_cache(maxsize=4096)
def visemes(label: str) -> tuple[str, ...]:
    """Returns the one or two visemes of a phone's label; "rest" for what is no phone.

    Example:
        >>> visemes("P"), visemes("AW1"), visemes("tʃ"), visemes("oʊ"), visemes("sil")
        (('bilabial',), ('open', 'close_rounded'), ('postalveolar',), ('mid_rounded', 'close_rounded'), ('rest',))
    """  # noqa: E501
    if labels.is_silence(label) or labels.nonspeech_kind(label):
        return ("rest",)
    arpabet, letters = labels.symbols(label)
    if arpabet:
        first = _OF_ARPABET.get(arpabet, "rest")
        return (first, _SECOND[arpabet]) if arpabet in _SECOND else (first,)
    known = [_OF_IPA[letter] for letter in letters if letter in _OF_IPA]
    if not known:
        return ("rest",)
    if known[0] == "alveolar" and len(known) > 1:
        return (known[1],)  # An affricate has the lips of its second part.
    if len(known) > 1 and known[0] in _VOWELS and known[1] in _VOWELS and known[0] != known[1]:
        return known[0], known[1]
    return (known[0],)


def activations(phones: Sequence[Phone], frames: int) -> np.ndarray:
    """Returns A [frames, V] by frame and viseme of `NAMES`; rows sum to 1."""
    share = np.zeros((frames + 2 * WINDOW, len(NAMES)))
    edges = (np.arange(len(share) + 1) - WINDOW - 0.5) / rig.FPS
    for phone in phones:
        parts = visemes(phone.label)
        times = np.linspace(phone.start, phone.end, len(parts) + 1)
        for name, start, end in zip(parts, times[:-1], times[1:], strict=True):
            inside = np.minimum(edges[1:], end) - np.maximum(edges[:-1], start)
            share[:, NAMES.index(name)] += np.maximum(inside, 0.0) * rig.FPS
    spoken = share.sum(1)
    share /= np.maximum(spoken, 1.0)[:, None]  # Phones of two speakers may overlap.
    share[:, 0] += np.maximum(1.0 - spoken, 0.0)
    window = np.hanning(WINDOW) / np.hanning(WINDOW).sum()
    smooth = np.apply_along_axis(np.convolve, 0, share, window, mode="same")
    weighted = smooth[WINDOW : WINDOW + frames] * _DOMINANCE
    return weighted / weighted.sum(1, keepdims=True)


@dataclasses.dataclass(frozen=True)
class Rule:
    """The rule with its amplitudes.

    Attributes:
      gains: [V, 72], at least 0.
      base: [72] in rig units.
      clips: training clips that both were fitted to; 0 for the fixed rule.
    """

    gains: np.ndarray
    base: np.ndarray
    clips: int

    def curves(self, phones: Sequence[Phone], frames: int) -> np.ndarray:
        """Returns the curves [frames, 72] of phones, within the rig's ranges."""
        return rig.clip(self.base + activations(phones, frames) @ (self.gains * TABLE))


def fixed(mean: np.ndarray) -> Rule:
    """Returns the rule with gains of 1; channels that are not in the table stay at `mean` [72]."""
    base = np.where(TABLE.any(0), 0.0, mean)
    return Rule(np.ones_like(TABLE), base, 0)


def fit(
    takes: ClipSource, phones: Callable[[records.Clip], Sequence[Phone]], mean: np.ndarray
) -> Rule:
    """Returns the rule with amplitudes of training clips; gains of 1 where no phones are known.

    Args:
      takes: training clips.
      phones: of a clip; none where they are unknown.
      mean: [72] training mean.
    """
    active: list[np.ndarray] = []
    motion: list[np.ndarray] = []
    observed: list[np.ndarray] = []
    for index in takes.spread(MOST_CLIPS).tolist():
        try:
            clip = takes.load(index)
        except records.BadRecord:
            continue
        found = phones(clip)
        if found and clip.frame_mask.any():
            active.append(activations(found, clip.frames)[clip.frame_mask])
            motion.append(clip.motion[clip.frame_mask].astype(np.float64))
            observed.append(np.asarray(clip.channel_mask))
    rule = fixed(mean)
    gains, base = rule.gains.copy(), rule.base.copy()
    for channel in np.flatnonzero(TABLE.any(0)):
        seen = [k for k, mask in enumerate(observed) if mask[channel]]
        if not seen:
            continue
        y = np.concatenate([motion[k][:, channel] for k in seen])
        x = np.concatenate([active[k] for k in seen])
        base[channel] = np.percentile(y, REST_PERCENTILE)
        used = np.flatnonzero(TABLE[:, channel])
        prior = np.diag(np.sqrt(PRIOR_FRAMES) * TABLE[used, channel])
        gains[used, channel] = scipy.optimize.nnls(
            np.concatenate([x[:, used] * TABLE[used, channel], prior]),
            np.concatenate([y - base[channel], prior.sum(1)]),
        )[0]
    return Rule(gains, base, len(active))
