"""Drawing code shared by all figures: style, curves, waveforms, emotions and image files.

Figures are made without pyplot, so that no matplotlib backend is selected or switched.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from a2fjax import files, rig
from a2fjax.errors import InputError, nearest

if TYPE_CHECKING:
    from a2fjax.view.notebook_figure import NotebookFigure

INK, FAINT, GRID = "#333333", "#888888", "#e4e4e4"
EMOTION_COLOURS = ("#cccccc", "#ffbf00", "#d62728", "#1f77b4", "#9467bd")
FONT: dict[Any, Any] = {"font.family": ["DejaVu Sans"], "font.size": 9}
MAX_COLUMNS = 2400
"""Maximum number of points per curve; longer curves show mean and range per column."""

FORMATS = (".png", ".pdf", ".svg")


def new_figure(width: float, height: float, **settings: Any) -> NotebookFigure:
    """Returns an empty figure of the given size in inches.

    Raises:
      InputError: matplotlib is not installed.
    """
    try:
        import matplotlib  # noqa: F401
    except ImportError:
        raise InputError(
            "figures need the extra `view`: pip install 'a2fjax[view]' (matplotlib is missing)"
        ) from None
    from a2fjax.view.notebook_figure import NotebookFigure

    return NotebookFigure(figsize=(width, height), **settings)


def save(path: str | Path, figure: NotebookFigure, *, dpi: int = 110) -> None:
    """Writes a figure as PNG, PDF or SVG atomically.

    Raises:
      InputError: unknown ending, or the file cannot be written.
    """
    ending = check_format(path)
    with files.atomic_write(path) as temporary:
        figure.savefig(temporary, dpi=dpi, format=ending[1:])


def check_format(path: str | Path, formats: Sequence[str] = FORMATS) -> str:
    """Returns the ending of an image file name, one of `formats`.

    Raises:
      InputError: the name has another ending.
    """
    ending = Path(path).suffix.lower()
    if ending not in formats:
        raise InputError(
            f"{path}: unknown ending {ending!r} of a picture{nearest(ending, formats)}"
        )
    return ending


def parse_range(text: str | None) -> tuple[float, float] | None:
    """Reads "10:20", "10:" or ":20" in seconds; None is the whole recording.

    Raises:
      InputError: the text has another form, or the end is not after the start.
    """
    if text is None:
        return None
    first, colon, last = text.partition(":")
    try:
        start, end = float(first or 0), float(last or "inf")
    except ValueError:
        start, end = 0.0, 0.0
    if not colon or not start < end:
        raise InputError(f"range {text!r}: expected START:END in seconds, such as 10:20")
    return start, end


def column_step(count: int) -> int:
    """Returns the number of frames that share one column of a figure."""
    return max(1, count // MAX_COLUMNS)


def waveform(axis: Any, times: np.ndarray, low: np.ndarray, high: np.ndarray) -> None:
    """Fills between the smallest and largest samples of each frame."""
    starts = np.arange(0, len(times), column_step(len(times)))
    axis.fill_between(
        times[starts],
        np.minimum.reduceat(low, starts),
        np.maximum.reduceat(high, starts),
        color="#5b7f95",
        linewidth=0.3,
    )
    style(axis, "sound", legend=False)


def curve(
    axis: Any, times: np.ndarray, values: np.ndarray, label: str, colour: str, width: float = 1.1
) -> None:
    """Draws a curve; long curves as mean and range per column."""
    step = column_step(len(times))
    if step > 1:
        count = len(values) // step
        with np.errstate(all="ignore"):
            stretches = values[: count * step].reshape(count, step)
            times = times[: count * step : step]
            axis.fill_between(
                times, stretches.min(1), stretches.max(1), color=colour, alpha=0.25, linewidth=0
            )
            values = stretches.mean(1)
    axis.plot(times, values, color=colour, label=label, linewidth=width)


def emotion(axis: Any, times: np.ndarray, weights: np.ndarray) -> None:
    """Draws the emotion weights [T, 5] stacked; omits emotions that never occur."""
    step = column_step(len(times))
    present = np.flatnonzero(weights.any(0))
    axis.stackplot(
        times[::step],
        weights[::step, present].T,
        labels=[rig.EMOTIONS[i] for i in present],
        colors=[EMOTION_COLOURS[i] for i in present],
        linewidth=0,
    )
    style(axis, "emotion")
    axis.set_ylim(0, 1)
    axis.set_yticks([0, 1])


def style(axis: Any, name: str, *, legend: bool = True) -> None:
    """Adds a name on the left, a faint grid and optionally a legend on the right to an axis."""
    axis.set_ylabel(name, rotation=0, ha="right", va="center", fontsize=9, color=INK)
    axis.set_axisbelow(True)
    axis.grid(True, color=GRID, linewidth=0.5)
    axis.tick_params(labelsize=7.5, colors=INK, length=2)
    axis.locator_params(axis="y", nbins=4)
    for side in ("top", "right"):
        axis.spines[side].set_visible(False)
    for side in ("left", "bottom"):
        axis.spines[side].set_color(FAINT)
    if legend:
        axis.legend(
            loc="center left", bbox_to_anchor=(1.0, 0.5), fontsize=8, frameon=False,
            handlelength=1.4, labelspacing=0.25, borderaxespad=0.4,
        )  # fmt: skip
