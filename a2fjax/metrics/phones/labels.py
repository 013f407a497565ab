"""Classes of phone labels, in ARPAbet and IPA.

Labels come as ARPAbet ("AA1", "P", Kaldi's "P_B") or IPA ("pʰ", "oʊ"). Stress, length, tone and
diacritics do not move the lips and are dropped; a diphthong counts by its first symbol.
"""

from __future__ import annotations

import functools
import re
import unicodedata

CLASSES = ("closed", "teeth", "rounded", "open")
"""Lips together; lower lip to the upper teeth; lips rounded; mouth open."""

_ARPABET = {
    "closed": "P B M EM",
    "teeth": "F V",
    "rounded": "UW OW W OY UX WH",
    "open": "AA AY AW",
}
_IPA = {"closed": "pbm", "teeth": "fvɱʋ", "rounded": "uwoʍ", "open": "aɑɐɒ"}
_DIGRAPHS = frozenset(
    "aa ae ah ao aw ax ay eh el em en er ey hh ih iy jh ow oy sh th uh uw ux wh zh".split()
)
"""ARPAbet in lower case, as TIMIT writes it, where IPA has other symbols."""

_OF_ARPABET = {label: name for name, group in _ARPABET.items() for label in group.split()}
_OF_IPA = {symbol: name for name, group in _IPA.items() for symbol in group}
_SILENCE = {"", "sil", "sp", "spn", "silence", "pau", "<eps>", "<sil>", "<s>", "</s>", "#", "h#"}
_NONSPEECH = {
    "hum": "hum hmm mhm mm".split(),
    "breath": "breath br inhale exhale".split(),
    "laugh": "laugh laughter lg".split(),
}
_OF_NONSPEECH = {label: kind for kind, group in _NONSPEECH.items() for label in group}
_BRACKETS = re.compile(r"^[\[<{(+]+|[\]>})+]+$")


@functools.lru_cache(maxsize=4096)
def phone_class(label: str) -> str:
    """Returns the class of a phone's label; "" for other phones and for what is no phone.

    Example:
        >>> [phone_class(label) for label in ("AA1", "P_B", "oʊ", "mʲ", "sil", "T")]
        ['open', 'closed', 'rounded', 'closed', '', '']
    """
    if is_silence(label) or nonspeech_kind(label):
        return ""
    arpabet, letters = symbols(label)
    if arpabet:
        return _OF_ARPABET.get(arpabet, "")
    return _OF_IPA.get(letters[0], "") if letters else ""


def symbols(label: str) -> tuple[str, str]:
    """Returns a phone's ARPAbet symbol, "" if it has none, else the letters of its IPA.

    Example:
        >>> symbols("AA1"), symbols("tʃʰ")
        (('AA', ''), ('', 'tʃ'))
    """
    plain = re.sub(r"_[BIES]$", "", label)
    arpabet = re.fullmatch(r"([A-Z]{1,2}|[a-z]{2})[0-2]?", plain)
    if arpabet and (arpabet[1].isupper() or arpabet[1] in _DIGRAPHS):
        return arpabet[1].upper(), ""
    letters = [c for c in unicodedata.normalize("NFD", plain) if unicodedata.category(c) == "Ll"]
    return "", "".join(letters)


@functools.lru_cache(maxsize=4096)
def nonspeech_kind(label: str) -> str:
    """Returns "hum", "breath" or "laugh" for a label such as "<breath>"; "" for all others."""
    plain = _BRACKETS.sub("", label)
    # "mm" and its like are phones where they are written without brackets and in capitals.
    return _OF_NONSPEECH.get(plain.lower(), "") if plain != label or len(plain) > 2 else ""


@functools.lru_cache(maxsize=4096)
def is_silence(label: str) -> bool:
    """Returns whether a label stands for silence or unrecognised sound."""
    return label.strip().lower() in _SILENCE or _BRACKETS.sub("", label).lower() in (
        "noise",
        "speech",
        "sil",
    )
