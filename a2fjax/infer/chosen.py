"""A run with the checkpoint and the look-ahead that were chosen for it; without JAX."""

from __future__ import annotations

import dataclasses
import os
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from a2fjax.infer.predictor import Predictor


@dataclasses.dataclass(frozen=True)
class Chosen:
    """What is loaded of a run; accepted wherever the path of a run is read.

    Example:
        >>> chosen = Chosen(Path("runs/a"), step=200)
        >>> os.fspath(chosen), chosen.step
        ('runs/a', 200)

    Attributes:
      run: folder of a run or a bundle.
      step: of the checkpoint; None for the newest.
      lookahead_ms: look-ahead of a model for live audio; None for the configuration's.
    """

    run: Path
    step: int | None = None
    lookahead_ms: int | None = None

    @classmethod
    def of(cls, run: str | os.PathLike[str]) -> Chosen:
        """Returns a run as it is if it is chosen already, else its newest checkpoint."""
        return run if isinstance(run, cls) else cls(Path(run))

    def __fspath__(self) -> str:
        """Returns the path of the run as text."""
        return str(self.run)

    def __str__(self) -> str:
        """Returns the path of the run as text."""
        return str(self.run)

    def load(self, *, sample: Mapping[str, Any] | None = None) -> Predictor:
        """Returns the predictor; arguments and errors as `Predictor.load`."""
        from a2fjax.infer.predictor import Predictor

        return Predictor.load(self.run, self.step, sample=sample, lookahead_ms=self.lookahead_ms)
