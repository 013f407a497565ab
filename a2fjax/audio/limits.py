"""Limits of sound files, checked before samples are decoded."""

from __future__ import annotations

from pathlib import Path

from a2fjax import budgets
from a2fjax.errors import InputError

LOWEST_RATE, HIGHEST_RATE = 4_000, 384_000
"""Sample rates of recordings in Hz; other values in a header are damage."""

MOST_CHANNELS = 64

STREAMED, IN_MEMORY = "audio_hours", "audio_hours_in_memory"
"""Budgets of any recording, and of one that is held in memory (a take of a build)."""


def check(path: Path, rate: float, channels: int, seconds: float) -> None:
    """Checks what a header states.

    Args:
      path: file, for messages.
      rate: samples per second.
      channels: number of channels.
      seconds: duration.

    Raises:
      InputError: a rate that no recording has, too many channels, or a recording beyond the budget.
    """
    check_rate(rate, f"audio {path}")
    if not 1 <= channels <= MOST_CHANNELS:
        raise InputError(f"audio {path}: has {channels} channels, expected 1 to {MOST_CHANNELS}")
    check_seconds(path, seconds)


def check_rate(rate: float, name: str) -> None:
    """Checks a sample rate.

    Raises:
      InputError: outside `LOWEST_RATE` to `HIGHEST_RATE`.
    """
    if not LOWEST_RATE <= rate <= HIGHEST_RATE:
        raise InputError(
            f"{name}: states {rate:g} samples a second, expected {LOWEST_RATE} to {HIGHEST_RATE}"
        )


def check_seconds(path: Path, seconds: float, budget: str = STREAMED) -> None:
    """Checks a duration against a budget, `STREAMED` or `IN_MEMORY`.

    Raises:
      InputError: the recording is longer, or the budget's variable holds no number.
    """
    budgets.check(budget, seconds / 3600, f"audio {path}")
