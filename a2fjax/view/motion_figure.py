"""Figure of a motion: waveform, main curves and emotion on one time axis."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from a2fjax import rig
from a2fjax.errors import InputError
from a2fjax.view import drawing

if TYPE_CHECKING:
    from a2fjax.view.notebook_figure import NotebookFigure

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


class MainCurves:
    """Collects the curves to draw from motion that arrives in blocks."""

    def __init__(self) -> None:
        """Creates an empty collection."""
        self._blocks: dict[str, list[np.ndarray]] = {}

    def push(self, motion: np.ndarray) -> None:
        """Adds [N, 72] frames."""
        for _, row in _ROWS:
            for label, channels, _ in row:
                if channels:
                    values = motion[:, [rig.INDEX[c] for c in channels]].mean(1)
                else:
                    values = rig.aperture(motion)
                self._blocks.setdefault(label, []).append(np.asarray(values, np.float32))

    def __getitem__(self, label: str) -> np.ndarray:
        """Returns the curve [T] of a label."""
        return np.concatenate(self._blocks[label])


def motion_figure(
    curves: MainCurves,
    *,
    fps: float = rig.FPS,
    waveform: tuple[np.ndarray, np.ndarray] | None = None,
    emotion: np.ndarray | None = None,
    title: str = "",
    seconds: tuple[float, float] | None = None,
) -> NotebookFigure:
    """Draws the main curves of a motion.

    Args:
      curves: main curves of the motion.
      fps: frame rate of the curves.
      waveform: smallest and largest sample of each frame, [T] each; None omits the waveform.
      emotion: [T, 5], drawn unless it is neutral throughout.
      title: title above the figure.
      seconds: (start, end) of the part to draw; None draws everything.

    Raises:
      InputError: no frame lies within `seconds`, or matplotlib is not installed.
    """
    figure = drawing.new_figure(1.0, 1.0, layout="constrained")
    times = np.arange(len(curves["aperture"])) / fps
    inside = np.ones(len(times), bool)
    if seconds is not None:
        inside = (times >= seconds[0]) & (times <= seconds[1])
        if not inside.any():
            raise InputError(
                f"nothing to draw from {seconds[0]:g} to {seconds[1]:g} s, "
                f"the recording has {len(times) / fps:.2f} s"
            )
    times = times[inside]
    length = times[-1] - times[0]
    shows_emotion = emotion is not None and bool((emotion[:, 0] < 1).any())
    heights = [1.0] * (waveform is not None)
    heights += [1.5 if name == "aperture" else 1.0 for name, _ in _ROWS]
    heights += [0.6] * shows_emotion
    import matplotlib

    with matplotlib.rc_context(drawing.FONT):
        figure.set_size_inches(min(24.0, max(10.0, 1.6 * length)), 1.35 * sum(heights) + 0.8)
        axes = list(
            figure.subplots(len(heights), 1, sharex=True, gridspec_kw={"height_ratios": heights})
        )
        rest = axes
        if waveform is not None:
            drawing.waveform(axes[0], times, waveform[0][inside], waveform[1][inside])
            rest = axes[1:]
        for axis, (name, row) in zip(rest, _ROWS, strict=False):
            for label, _, colour in row:
                drawing.curve(axis, times, curves[label][inside], label, colour)
            drawing.style(axis, name, legend=len(row) > 1)
            axis.axhline(0, color=drawing.GRID, linewidth=0.8)
        if shows_emotion:
            assert emotion is not None
            drawing.emotion(axes[-1], times, emotion[inside])
        axes[-1].set_xlabel("seconds", color=drawing.INK)
        if length <= 30:
            from matplotlib.ticker import MultipleLocator

            axes[-1].xaxis.set_major_locator(MultipleLocator(1))
        axes[-1].set_xlim(times[0], max(times[-1], times[0] + 0.1))
        if title:
            figure.suptitle(title, fontsize=11, color=drawing.INK)
    return figure
