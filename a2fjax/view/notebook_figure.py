"""A matplotlib figure that notebooks show without pyplot."""

from __future__ import annotations

import io

from matplotlib.figure import Figure


class NotebookFigure(Figure):
    """A figure of no backend: `savefig` writes it, and a notebook cell that ends with it shows it.

    Figures that pyplot makes select a backend for the whole process; this one does not.
    """

    def _repr_png_(self) -> bytes:
        """Returns the figure as a PNG, which Jupyter asks for."""
        stream = io.BytesIO()
        self.savefig(stream, format="png", dpi=100)
        return stream.getvalue()
