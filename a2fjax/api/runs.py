"""Resolves the forms in which callers name a run to its folder, step and look-ahead."""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING, Any

from a2fjax.errors import InputError
from a2fjax.infer.chosen import Chosen

if TYPE_CHECKING:
    from a2fjax.api.model import Model


def choose(
    run: str | os.PathLike[str] | Model | Chosen,
    step: int | None = None,
    lookahead_ms: int | None = None,
) -> Chosen:
    """Returns a run with its checkpoint and look-ahead; those of a `Model` unless others are given.

    Example:
        >>> choose("runs/a", step=200)
        Chosen(run=PosixPath('runs/a'), step=200, lookahead_ms=None)

    Args:
      run: run folder, `Run`, `Model`, or what was chosen before.
      step: of the checkpoint; None for the model's own, or the newest.
      lookahead_ms: None for the model's own, or the configuration's.

    Raises:
      InputError: something else than a run.
    """
    found = run if isinstance(run, Chosen) else getattr(run, "chosen", None)
    if not isinstance(found, Chosen):
        found = Chosen(folder(run))
    return Chosen(
        found.run,
        found.step if step is None else step,
        found.lookahead_ms if lookahead_ms is None else lookahead_ms,
    )


def folder(run: Any) -> Path:
    """Returns the path of a run folder or a `Run`.

    Raises:
      InputError: something else.
    """
    if not isinstance(run, str | os.PathLike):
        raise InputError(f"expected a run folder, not an object of type {type(run).__name__}")
    return Path(run)
