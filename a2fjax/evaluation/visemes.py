"""The viseme rule: curves from phones alone, by a table of lip shapes that melt into each other.

Each phone has a viseme, a diphthong two, half of its time each; what is no phone is rest. The table
is this project's own, from what phonetics says of the articulators (lips together, lower lip to the
upper teeth, rounding, height of the jaw), in ARKit's channels of the jaw and the mouth. Sounds that
only the tongue tells apart share a shape. A weight of a shape is what a clear but not exaggerated
pronunciation takes on ARKit's scale, chosen by hand and not tuned on any data.

    K_v(t)   share of frame t in viseme v, smoothed by a Hann window of 0.2 s
    B_v(t)   d_v K_v(t) / sum_u d_u K_u(t)
    A(t)     (1 - m(t)) B(t) + m(t) bilabial
    curve    sum_v A_v(t) P_vc,    P_vc = base_c + g_vc T_vc

with the table T and the dominance d of Cohen and Massaro 1993 ("Modeling coarticulation in
synthetic visual speech"). A weighted mean never quite reaches a shape, so lips that must meet have
the gesture m beside it: 1 in the middle of each bilabial, for at least 40 ms, and 0 from 60 ms
before and after that.

Where phones of training clips are known, the base is the channel's 5th percentile in them (an
intercept would be a mean, at which lips never close), and the gains g >= 0 are those of least
squares, channel by channel, with a gain of 1 as a prior worth one second of the full shape; else
the gains are 1 and the base 0. Least squares give a mean shape, which leaves the lips parted: of
the bilabial shape, what opens the lips is therefore reduced until the aperture is that of closed
lips: 0, where the rig's lips meet, or less if a training person's is, as the median of the smallest
true aperture in its bilabials. So the lips of people with another rest meet, too. Channels without
a place in the table stay at the mean pose.
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
from a2fjax.metrics import lips
from a2fjax.metrics.phones import labels
from a2fjax.metrics.phones.alignment import Phone

WINDOW = 11
"""Frames of the Hann window, its two zeros included: 0.2 s."""

PLATEAU = 0.04
"""Shortest time in seconds for which lips stay together: two frames, which a closure needs."""

RAMP = 0.06
"""Seconds in which lips come together and part."""

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
BILABIAL = NAMES.index("bilabial")
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
    out = weighted / weighted.sum(1, keepdims=True)
    together = meeting(phones, frames)
    out *= 1.0 - together[:, None]
    out[:, BILABIAL] += together
    return out


def meeting(phones: Sequence[Phone], frames: int) -> np.ndarray:
    """Returns m [frames] in [0, 1]: 1 where lips are together in a bilabial, with cosine ramps."""
    times = np.arange(frames) / rig.FPS
    out = np.zeros(frames)
    for start, end in _bilabials(phones):
        half = max(0.5 * (end - start) - 0.5 * RAMP, 0.5 * PLATEAU)
        beyond = np.clip((np.abs(times - 0.5 * (start + end)) - half - 1e-9) / RAMP, 0.0, 1.0)
        out = np.maximum(out, 0.5 + 0.5 * np.cos(np.pi * beyond))
    return out


def _bilabials(phones: Sequence[Phone]) -> list[tuple[float, float]]:
    """Returns start and end in seconds of the phones in which lips must meet."""
    return [(p.start, p.end) for p in phones if visemes(p.label) == ("bilabial",)]


@dataclasses.dataclass(frozen=True)
class Rule:
    """The rule with its amplitudes.

    Attributes:
      gains: [V, 72], at least 0.
      base: [72] in rig units.
      clips: training clips that both were fitted to; 0 for the fixed rule.
      closed: aperture of closed lips.
    """

    gains: np.ndarray
    base: np.ndarray
    clips: int
    closed: float = 0.0

    @functools.cached_property
    def poses(self) -> np.ndarray:
        """P [V, 72]: the pose of each viseme, with closed lips in the bilabial one."""
        out = self.base + self.gains * TABLE
        out[BILABIAL] = _with_lips_closed(out[BILABIAL], self.closed)
        return out

    def curves(self, phones: Sequence[Phone], frames: int) -> np.ndarray:
        """Returns the curves [frames, 72] of phones, within the rig's ranges."""
        return rig.clip(activations(phones, frames) @ self.poses)


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
    lowest: dict[str, list[float]] = {}
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
            lowest.setdefault(clip.subject, []).extend(_lowest_apertures(clip, found))
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
    levels = [float(np.median(own)) for own in lowest.values() if own]
    return Rule(gains, base, len(active), min([0.0, *levels]))


def _with_lips_closed(pose: np.ndarray, aperture: float) -> np.ndarray:
    """Returns a pose [72] whose lip aperture is at most `aperture`, with opening shapes reduced."""
    weights = rig.APERTURE.astype(np.float64)
    opening, closing = weights * (weights > 0), -weights * (weights < 0)
    wide, shut = float(pose @ opening), float(pose @ closing)
    if wide - shut <= aperture:
        return pose
    left = max(aperture + shut, 0.0)
    out = np.where(opening > 0, pose * (left / wide), pose)
    # What remains if the level is below what shapes that open can reach at 0.
    return np.where(closing > 0, out + (left - shut - aperture), out)


def _lowest_apertures(clip: records.Clip, phones: Sequence[Phone]) -> list[float]:
    """Returns the smallest true aperture in every bilabial of a clip, of those without gaps."""
    if not lips.has_aperture(clip.channel_mask):
        return []
    curve = lips.aperture(clip.motion, clip.channel_mask)
    out = []
    for start, end in _bilabials(phones):
        part = slice(max(round(start * rig.FPS), 0), round(end * rig.FPS) + 1)
        if len(curve[part]) and clip.frame_mask[part].all():
            out.append(float(curve[part].min()))
    return out
