"""Picture of the gate: an expert's score over the offset, beside the linear one's."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import numpy as np

from a2fjax.view import drawing

if TYPE_CHECKING:
    from a2fjax.view.notebook_figure import NotebookFigure


def draw(splits: Mapping[str, Mapping[str, Any]]) -> NotebookFigure:
    """Returns the figure: a panel a split, curves in units of their own rise.

    Args:
      splits: the gate's results by split; uses "curve".

    Raises:
      InputError: matplotlib is not installed.
    """
    import matplotlib

    with matplotlib.rc_context(drawing.FONT):
        figure = drawing.new_figure(4.6 * len(splits), 3.2, layout="constrained")
        axes = figure.subplots(1, len(splits), squeeze=False)[0]
        for axis, (split, part) in zip(axes, splits.items(), strict=True):
            curve = part["curve"]
            for name, colour in (("expert", "#1f77b4"), ("linear", drawing.FAINT)):
                if name in curve:
                    values = np.asarray(curve[name])
                    rise = (values - np.median(values)) / max(float(np.std(values)), 1e-9)
                    axis.plot(curve["offset_ms"], rise, color=colour, label=name, linewidth=1.4)
            axis.axvline(0.0, color=drawing.GRID, linewidth=1.0, zorder=0)
            axis.set_title(split, fontsize=9, color=drawing.INK)
            axis.set_xlabel("audio later than recorded, ms")
            axis.set_ylabel("mean score above the median, deviations")
            if axis.lines[1:]:
                axis.legend(frameon=False, fontsize=8)
    return figure
