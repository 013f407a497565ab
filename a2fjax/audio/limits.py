"""What a sound file may state and hold; checked before its samples are decoded."""

from __future__ import annotations

import math
import os
from pathlib import Path

from a2fjax.errors import InputError

LOWEST_RATE, HIGHEST_RATE = 4_000, 384_000
"""Sample rates of recordings in Hz; other values in a header are damage."""

MOST_CHANNELS = 64

BUDGETS = {"A2F_BUDGET_AUDIO_HOURS": 24.0, "A2F_BUDGET_AUDIO_HOURS_IN_MEMORY": 4.0}
"""Environment variables with the longest recording in hours, and the defaults: of any recording,
and of one that is held in memory (a take of a build)."""

STREAMED, IN_MEMORY = BUDGETS


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
    """Checks a duration against a budget, a key of `BUDGETS`.

    Raises:
      InputError: the recording is longer, or the variable holds no number.
    """
    hours = most_hours(budget)
    if seconds > 3600 * hours:
        raise InputError(
            f"audio {path}: lasts {seconds / 3600:.4g} h, expected at most {hours:g} h; cut it, or "
            f"set {budget}"
        )


def most_hours(budget: str) -> float:
    """Returns the value of a budget in hours.

    Raises:
      InputError: the environment variable is not a number above 0.
    """
    text = os.environ.get(budget, "")
    if not text:
        return BUDGETS[budget]
    try:
        value = float(text)
    except ValueError:
        value = math.nan
    if not value > 0:
        raise InputError(f"{budget}={text!r}: expected hours above 0, such as {BUDGETS[budget]:g}")
    return value
