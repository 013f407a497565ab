"""A matplotlib figure that notebooks show without pyplot."""

from __future__ import annotations

import io

from matplotlib.figure import Figure


class NotebookFigure(Figure):
    """A figure without a backend; `savefig` writes it, and notebooks display it.

    Figures made by pyplot select a backend for the whole process; this one does not.
    """

    def _repr_png_(self) -> bytes:
        """Returns the figure as a PNG for Jupyter."""
        stream = io.BytesIO()
        self.savefig(stream, format="png", dpi=100)
        return stream.getvalue()
