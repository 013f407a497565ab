"""Aligns English speech with its text by PocketSphinx, the extra `phones`.

PocketSphinx 5 brings its acoustic model and dictionary. It first aligns words, then phones within
them, in frames of 10 ms. Results are kept in the user's cache by sound and text.
"""

from __future__ import annotations

import functools
import hashlib
import importlib.metadata
import json
import re
from collections.abc import Sequence
from typing import Any

import numpy as np

from a2fjax import budgets, files, user_cache
from a2fjax.audio import SAMPLE_RATE
from a2fjax.errors import InputError, WorkFailed
from a2fjax.metrics.phones.alignment import Phone

FRAME = 0.01


def is_installed() -> bool:
    """Returns whether the extra `phones` is installed."""
    try:
        importlib.metadata.version("pocketsphinx")
    except importlib.metadata.PackageNotFoundError:
        return False
    return True


def align(audio: np.ndarray, text: str) -> tuple[Phone, ...]:
    """Returns the phones of a recording; empty if a word is unknown or the text does not fit.

    Args:
      audio: [samples] in [-1, 1], 16 kHz.
      text: what is said, in English.

    Raises:
      InputError: the extra `phones` is not installed.
    """
    if not is_installed():
        raise InputError("alignment needs the extra `phones`: pip install 'a2fjax[phones]'")
    words = re.findall(r"[a-z']+", text.lower().replace("’", "'"))
    if not words or re.search(r"\d", text):
        return ()  # A number can be read in several ways.
    sound = (np.clip(audio, -1, 1) * 32767).astype("<i2").tobytes()
    digest = hashlib.sha256(sound)
    digest.update(f"{importlib.metadata.version('pocketsphinx')} {' '.join(words)}".encode())
    folder = user_cache.folder()
    path = None if folder is None else folder / "phones" / f"{digest.hexdigest()[:32]}.json"
    if path is not None and path.is_file():
        try:
            return tuple(Phone(*row) for row in budgets.load_json(path))
        except (InputError, TypeError):
            pass  # Damaged: aligned and written again.
    phones = _align(sound, words)
    if path is not None:
        try:
            files.make_folder(path.parent)
            files.write_text(path, json.dumps([[p.start, p.end, p.label] for p in phones]))
        except (InputError, WorkFailed):
            pass  # A cache that cannot be written costs time only.
    return phones


@functools.cache
def _decoder() -> Any:
    import pocketsphinx

    return pocketsphinx.Decoder(lm=None, samprate=float(SAMPLE_RATE), loglevel="FATAL")


def _align(sound: bytes, words: Sequence[str]) -> tuple[Phone, ...]:
    decoder = _decoder()
    if any(decoder.lookup_word(word) is None for word in words):
        return ()
    try:
        decoder.set_align_text(" ".join(words))
        _decode(decoder, sound)
        decoder.set_alignment()
        _decode(decoder, sound)
        alignment = decoder.get_alignment()
    except RuntimeError:  # No path through the text.
        return ()
    return tuple(
        Phone(p.start * FRAME, (p.start + p.duration) * FRAME, p.name)
        for p in (alignment.phones() if alignment is not None else ())
    )


def _decode(decoder: Any, sound: bytes) -> None:
    decoder.start_utt()
    decoder.process_raw(sound, full_utt=True)
    decoder.end_utt()
