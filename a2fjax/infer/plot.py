"""A picture of a performance: main curves under the waveform."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from a2fjax import files, rig
from a2fjax.errors import InputError, nearest

_INK, _GRID = "#333333", "#dddddd"
_ROWS: tuple[tuple[str, tuple[tuple[str, tuple[str, ...], str], ...]], ...] = (
    ("aperture", (("aperture", (), "#000000"),)),
    ("jaw", (("jawOpen", ("jawOpen",), "#1f77b4"), ("mouthClose", ("mouthClose",), "#d62728"))),
    (
        "lips",
        (
            ("pucker", ("mouthPucker",), "#9467bd"),
            ("funnel", ("mouthFunnel",), "#2ca02c"),
            ("roll", ("mouthRollLower", "mouthRollUpper"), "#ff7f0e"),
        ),
    ),
    (
        "expression",
        (
            ("smile", ("mouthSmileLeft", "mouthSmileRight"), "#2ca02c"),
            ("frown", ("mouthFrownLeft", "mouthFrownRight"), "#d62728"),
            ("brow up", ("browInnerUp", "browOuterUpLeft", "browOuterUpRight"), "#ff7f0e"),
            ("brow down", ("browDownLeft", "browDownRight"), "#8c564b"),
        ),
    ),
    ("blink", (("blink", ("eyeBlinkLeft", "eyeBlinkRight"), "#1f77b4"),)),
)
_EMOTION_COLOURS = ("#bbbbbb", "#ffbf00", "#d62728", "#1f77b4", "#9467bd")
_MAX_COLUMNS = 2000

FORMATS = (".png", ".pdf", ".svg")


class Curves:
    """Keeps the curves that are drawn, of motion that arrives in blocks."""

    def __init__(self) -> None:
        """Starts empty."""
        self._parts: dict[str, list[np.ndarray]] = {}

    def push(self, motion: np.ndarray) -> None:
        """Takes [N, 72] frames at 50 a second."""
        for _, row in _ROWS:
            for label, channels, _ in row:
                if channels:
                    value = motion[:, [rig.INDEX[c] for c in channels]].mean(1)
                else:
                    value = rig.aperture(motion)
                self._parts.setdefault(label, []).append(np.asarray(value, np.float32))

    def __getitem__(self, label: str) -> np.ndarray:
        """Returns the curve [T] of a label."""
        return np.concatenate(self._parts[label])


def draw(
    path: str | Path,
    curves: Curves,
    low: np.ndarray,
    high: np.ndarray,
    *,
    emotion: np.ndarray | None = None,
    title: str = "",
    seconds: tuple[float, float] | None = None,
) -> None:
    """Writes a PNG (or PDF, SVG) of waveform, curves and emotion on one time axis.

    Args:
      path: of the picture.
      curves: that were kept.
      low: [T] smallest sample of each motion frame, as `offline.Survey` has it.
      high: [T] largest sample.
      emotion: [T, 5], drawn when it is not neutral throughout.
      title: over the picture.
      seconds: part to draw; all by default.

    Raises:
      InputError: the file cannot be written, an unknown ending, nothing is inside `seconds`, or
        matplotlib is not there.
    """
    try:
        import matplotlib
    except ImportError:
        raise InputError(
            f"{path}: pictures need matplotlib; install it with pip install 'a2fjax[view]'"
        ) from None
    matplotlib.use("Agg")
    from matplotlib import pyplot

    times = np.arange(len(low)) / rig.FPS
    inside = np.ones(len(times), bool)
    if seconds is not None:
        inside = (times >= seconds[0]) & (times <= seconds[1])
        if not inside.any():
            raise InputError(
                f"{path}: nothing to draw from {seconds[0]:g} to {seconds[1]:g} s, "
                f"the recording has {len(times) / rig.FPS:.2f} s"
            )
    length = times[inside][-1] - times[inside][0]
    shows_emotion = emotion is not None and bool((emotion[:, 0] < 1).any())
    heights = [1.0, *[1.5 if name == "aperture" else 1.0 for name, _ in _ROWS]]
    heights += [0.6] if shows_emotion else []
    figure, axes = pyplot.subplots(
        len(heights),
        1,
        figsize=(min(24.0, max(10.0, 1.6 * length)), 1.35 * sum(heights) + 0.8),
        sharex=True,
        gridspec_kw={"height_ratios": heights},
        layout="constrained",
    )
    try:
        _waveform(axes[0], times[inside], low[inside], high[inside])
        for axis, (name, row) in zip(axes[1:], _ROWS, strict=False):
            for label, _, colour in row:
                _curve(axis, times[inside], curves[label][inside], label, colour)
            _style(axis, name, legend=len(row) > 1)
        if shows_emotion:
            assert emotion is not None
            _emotion(axes[-1], times[inside], emotion[inside])
        axes[-1].set_xlabel("seconds")
        if length <= 30:
            axes[-1].xaxis.set_major_locator(pyplot.MultipleLocator(1))
        axes[-1].set_xlim(times[inside][0], max(times[inside][-1], times[inside][0] + 0.1))
        if title:
            figure.suptitle(title, fontsize=11, color=_INK)
        with files.atomic_write(path) as temporary:
            figure.savefig(temporary, dpi=110, format=check_format(path))
    finally:
        pyplot.close(figure)


def parse_range(text: str | None) -> tuple[float, float] | None:
    """Reads "10:20", "10:" or ":20" in seconds; None is the whole recording.

    Raises:
      InputError: of another form, or the end is not after the start.
    """
    if text is None:
        return None
    first, colon, last = text.partition(":")
    try:
        found = (float(first or 0), float(last or "inf"))
    except ValueError:
        found = (0.0, 0.0)
    if not colon or not found[0] < found[1]:
        raise InputError(f"range {text!r}: expected START:END in seconds, such as 10:20")
    return found


def check_format(path: str | Path) -> str:
    """Returns the format that a picture's file name asks for.

    Raises:
      InputError: none of `FORMATS`.
    """
    ending = Path(path).suffix.lower()
    if ending not in FORMATS:
        raise InputError(
            f"{path}: unknown ending {ending!r} of a picture{nearest(ending, FORMATS)}"
        )
    return ending[1:]


def _stride(count: int) -> int:
    return max(1, count // _MAX_COLUMNS)


def _waveform(axis, times: np.ndarray, low: np.ndarray, high: np.ndarray) -> None:
    step = _stride(len(times))
    starts = np.arange(0, len(times), step)
    axis.fill_between(
        times[starts],
        np.minimum.reduceat(low, starts),
        np.maximum.reduceat(high, starts),
        color="#5b7f95",
        linewidth=0.3,
    )
    _style(axis, "sound", legend=False)


def _curve(axis, times: np.ndarray, values: np.ndarray, label: str, colour: str) -> None:
    step = _stride(len(times))
    if step > 1:
        # An overview: the mean of each stretch, and how far the curve goes there.
        starts = np.arange(0, len(times), step)
        low, high = np.minimum.reduceat(values, starts), np.maximum.reduceat(values, starts)
        mean = np.add.reduceat(values, starts) / np.diff([*starts, len(values)])
        axis.fill_between(times[starts], low, high, color=colour, alpha=0.2, linewidth=0)
        times, values = times[starts], mean
    axis.plot(times, values, color=colour, label=label, linewidth=1.1)


def _emotion(axis, times: np.ndarray, emotion: np.ndarray) -> None:
    step = _stride(len(times))
    present = np.flatnonzero(emotion.any(0))
    axis.stackplot(
        times[::step],
        emotion[::step, present].T,
        labels=[rig.EMOTIONS[i] for i in present],
        colors=[_EMOTION_COLOURS[i] for i in present],
    )
    _style(axis, "emotion", legend=True)
    axis.set_ylim(0, 1)


def _style(axis, name: str, *, legend: bool) -> None:
    axis.set_ylabel(name, rotation=0, ha="right", va="center", fontsize=9, color=_INK)
    axis.set_axisbelow(True)
    axis.grid(True, color=_GRID, linewidth=0.5)
    axis.axhline(0, color=_GRID, linewidth=0.8)
    axis.tick_params(labelsize=8, colors=_INK)
    for side in ("top", "right"):
        axis.spines[side].set_visible(False)
    if legend:
        axis.legend(loc="center left", bbox_to_anchor=(1.0, 0.5), fontsize=8, frameon=False)
