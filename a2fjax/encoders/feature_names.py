"""Names of speech encoders in `audio.features`: the kind, a colon, and where the weights are."""

from __future__ import annotations

from collections.abc import Sequence

from a2fjax import registry
from a2fjax.errors import InputError, nearest


def is_encoder(name: str) -> bool:
    """Returns whether a feature is a speech encoder rather than a signal such as "mel"."""
    return ":" in name


def parse(name: str) -> tuple[str, str]:
    """Splits the name of a speech encoder into (kind, path).

    Raises:
      InputError: another form, or a kind that nothing registers.

    Example:
        >>> parse("whisper:weights/tiny.npz")
        ('whisper', 'weights/tiny.npz')
    """
    kind, colon, path = name.partition(":")
    if kind not in registry.encoders:
        kinds = registry.encoders.names()
        raise InputError(f"feature {name!r}: unknown encoder {kind!r}{nearest(kind, kinds)}")
    if not colon or not path:
        raise InputError(f"feature {name!r}: expected {kind}:PATH")
    return kind, path


def feature_keys(features: Sequence[str]) -> dict[str, str]:
    """Returns the names of the speech encoders among features by key: position and kind.

    Keys name an encoder in parameters, batches and run folders.

    Raises:
      InputError: as `parse`.

    Example:
        >>> feature_keys(("mel", "whisper:tiny.npz"))
        {'1_whisper': 'whisper:tiny.npz'}
    """
    return {f"{i}_{parse(n)[0]}": n for i, n in enumerate(features) if is_encoder(n)}
