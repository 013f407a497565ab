"""Sentences of the demo corpus, written for it and rich in p b m f v, in five languages.

They are in `sentences/<language>.txt`, one per line. Pauses may be lengthened at commas. A
sentence's key is its language and first three words, so changing one sentence does not affect the
keys and splits of the others. `data_pipeline.stages.splits` decides which keys are held out of
training.
"""

from __future__ import annotations

import dataclasses
import importlib.resources
import re
import unicodedata


@dataclasses.dataclass(frozen=True)
class Sentence:
    """A sentence: `key` ("en-the-baby-babbled"), `language` (BCP-47) and `text`."""

    key: str
    language: str
    text: str


def _key(language: str, line: str) -> str:
    # Keys become file names, so they are plain ASCII.
    plain = unicodedata.normalize("NFKD", line.lower()).encode("ascii", "ignore").decode()
    return "-".join([language, *re.findall(r"\w+", plain)[:3]])


def _sentences(language: str) -> tuple[Sentence, ...]:
    file = importlib.resources.files(__package__) / "sentences" / f"{language}.txt"
    lines = file.read_text(encoding="utf-8").splitlines()
    return tuple(Sentence(_key(language, t), language, t) for t in lines)


SENTENCES: tuple[Sentence, ...] = tuple(
    sentence for language in ("en", "es", "de", "fr", "it") for sentence in _sentences(language)
)
"""Every sentence; 158 English and 79 of each other language."""


def sentences_in(language: str) -> tuple[Sentence, ...]:
    """Returns the sentences of a language, in order; empty if there are none."""
    return tuple(s for s in SENTENCES if s.language == language)
