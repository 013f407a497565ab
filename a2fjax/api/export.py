"""Export: a run becomes a bundle for other runtimes."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, TypedDict

from a2fjax.api import runs

if TYPE_CHECKING:
    from a2fjax.api.model import Model
    from a2fjax.api.training import Run


class ExportOptions(TypedDict, total=False):
    """Keywords of `export` beside the step, which it documents."""

    formats: Sequence[str]
    graphs: Sequence[str]
    lookaheads_ms: Sequence[int]
    weights: str | Path | None
    audio: Sequence[str | Path]
    license: str
    datasets: Sequence[str]
    languages: Sequence[str]
    say: Callable[[str], None]


def export(
    run: str | Path | Run | Model,
    folder: str | Path,
    *,
    step: int | None = None,
    formats: Sequence[str] = (),
    graphs: Sequence[str] = (),
    lookaheads_ms: Sequence[int] = (),
    weights: str | Path | None = None,
    audio: Sequence[str | Path] = (),
    license: str = "other",
    datasets: Sequence[str] = (),
    languages: Sequence[str] = (),
    say: Callable[[str], None] = lambda line: None,
) -> Path:
    """Writes a run's checkpoint as a bundle and returns its folder; docs/export.md describes it.

    Example:
        >>> export("runs/none", "bundle")
        Traceback (most recent call last):
          ...
        a2fjax.errors.InputError: run runs/none does not exist; expected a folder that...

    Args:
      run: folder of a run or a bundle, `Run` or `Model`.
      folder: folder to make.
      step: of the checkpoint; None for the newest.
      formats: "onnx", "stablehlo", "pytorch"; () for every one that the model has and whose
        packages are installed.
      graphs: "model", "step", "identity"; () for every one that the model has.
      lookaheads_ms: look-aheads of a run for live audio that get a step of their own, beside the
        configuration's. That of a `Model` loaded with one is among them.
      weights: safetensors file whose weights, trained elsewhere, replace the run's.
      audio: recordings on which graphs are compared with the product; () for synthetic ones.
      license: identifier of the weights' licence, such as "apache-2.0".
      datasets: names of the training data, for the card.
      languages: codes such as "en", for the card.
      say: called with lines about the work.

    Raises:
      InputError, WorkFailed: as `a2fjax.export.writer.export`.
    """
    chosen = runs.choose(run, step)
    from a2fjax.export import writer
    from a2fjax.export.description import Rights

    lookaheads = list(lookaheads_ms)
    if chosen.lookahead_ms is not None and chosen.lookahead_ms not in lookaheads:
        lookaheads.append(chosen.lookahead_ms)
    return writer.export(
        chosen.run,
        folder,
        formats,
        step=chosen.step,
        weights_file=weights,
        graphs=graphs,
        lookaheads_ms=lookaheads,
        audio=audio,
        rights=Rights(license, tuple(datasets), tuple(languages)),
        say=say,
    )
