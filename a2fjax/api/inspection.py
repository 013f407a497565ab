"""Descriptions of runs, experiments, shards and takes as lines of text."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from a2fjax import budgets
from a2fjax import configuration as config_lib
from a2fjax.bundle import manifest
from a2fjax.configuration import Config, Resolved
from a2fjax.errors import InputError
from a2fjax.view import dataset_summary, mixture_summary
from a2fjax.view.text import table


def describe_folder(path: str | Path, step: int | None = None) -> list[str]:
    """Describes a run folder or a folder of shards, whichever it is.

    Example:
        >>> describe_folder("runs/none")
        Traceback (most recent call last):
          ...
        a2fjax.errors.InputError: runs/none: no such file or folder

    Args:
      path: of the folder.
      step: checkpoint of a run; None for the newest.

    Raises:
      InputError: neither of both, damaged, of another rig, or no such step.
    """
    path = Path(path)
    if (path / "config.json").is_file():
        return describe_run(path, step)
    if (path / "manifest.json").is_file():
        return dataset_summary.summary_lines(path)
    if path.is_dir():
        raise InputError(
            f"{path}: neither a run (config.json) nor shards (manifest.json) nor an experiment "
            "(.py) is there"
        )
    if path.exists():
        raise InputError(f"{path}: expected a run folder, a shards folder or an experiment (.py)")
    raise InputError(f"{path}: no such file or folder")


def describe_run(folder: Path, step: int | None = None) -> list[str]:
    """Describes a run or a bundle: changed values, checkpoints, parameters, model and last metrics.

    Raises:
      InputError: damaged, of another rig, or no such step.
    """
    from a2fjax.models import params as params_lib
    from a2fjax.models import pretrained
    from a2fjax.plan import model_summary
    from a2fjax.training import checkpoints, tracking

    path = folder / "config.json"
    resolved = config_lib.from_json(budgets.read_bytes(path), name=str(path))
    config_lib.warn_plugin_changes(f"run {folder}", resolved.plugins, resolved.config)
    config = resolved.config
    lines = [f"run {folder}: {config.name}, fingerprint {config_lib.fingerprint(config)}"]
    lines += [*_bundle(folder), *(f"  {line}" for line in _changed(resolved))]
    lines += ["", *_mixture(config)][:-1]
    steps = checkpoints.steps(folder)
    constants = None
    lines += ["", f"  checkpoints: {', '.join(map(str, steps)) or 'none yet'}"]
    if steps:
        step, params, meta = checkpoints.load_params(folder, step)
        if config.model.kind != "regression":
            # They hold the widths of a geometry head and the number of actors.
            constants = params["constants"]
        lines.append(f"  step {step} of {config.steps}, rig {meta['rig']}")
        values = {k: v for k, v in meta.get("metrics", {}).items() if _is_number(v)}
        lines += [f"    {name} = {value:.6g}" for name, value in sorted(values.items())]
        lines += ["", *("  " + row for row in params_lib.table(params).splitlines())]
    encoders = pretrained.restore(folder, config.audio)
    lines += ["", *model_summary.lines(config, constants=constants, encoders=encoders)]
    if (folder / "metrics.jsonl").is_file():
        last: dict[str, tuple[int, float]] = {}
        for line in tracking.read_metrics(folder):
            last |= {k: (line["step"], v) for k, v in line.items() if k != "step"}
        rows = [(k, f"{v:.6g}", s) for k, (s, v) in sorted(last.items()) if _is_number(v)]
        lines += ["", *table(rows, ("last metrics", "value", "step"))]
    return lines


def describe_experiment(resolved: Resolved, name: str) -> list[str]:
    """Describes what an experiment would build: parameters, operations a frame, memory.

    Raises:
      InputError: settings that contradict each other, or an encoder that cannot be read.
    """
    from a2fjax.plan import model_summary

    config = resolved.config
    lines = [f"experiment {name}: {config.name}, fingerprint {config_lib.fingerprint(config)}"]
    lines += [*(f"  {line}" for line in _changed(resolved)), ""]
    return [*lines, *_mixture(config), *model_summary.lines(config, layers=True)]


def describe_take(
    shards: Sequence[str | Path],
    name: str,
    *,
    seconds: tuple[float, float] | None = None,
    figure: str | Path | None = None,
) -> list[str]:
    """Describes a take of shards, and draws it.

    Args:
      shards: folders.
      name: "SUBJECT/TAKE"; the beginning of it will do.
      seconds: (start, end) of the part to describe; None for all.
      figure: .png, .pdf, .svg or .html (with the audio) to draw it to; None for none.

    Raises:
      InputError: no shards, no such take, or the file cannot be written.
    """
    from a2fjax.view import drawing, page
    from a2fjax.view import take as take_lib

    if figure is not None:
        drawing.check_format(figure, page.FORMATS)
    take = take_lib.read(*take_lib.find_take(shards, name))
    start = 0.0
    if seconds is not None:
        take, start = take_lib.cut(take, seconds)
    lines = take_lib.summary_lines(take)
    if figure is None:
        return [*lines, "", "  --out take.png or take.html draws it"]
    page.write(figure, take, start=start)
    return [*lines, "", f"{figure}: sound, curves and residual of the take"]


def _bundle(folder: Path) -> list[str]:
    """Describes the graphs of a bundle and how far they are from the product; [] for a run."""
    if not manifest.is_bundle(folder):
        return []
    described = manifest.verify(folder)
    parity = budgets.load_json(folder / "parity.json")
    try:
        rows = [(file, f"{parity[file]['largest']:.1e}") for file in described["graphs"]]
    except (KeyError, TypeError, ValueError):
        raise InputError(
            f"{folder / 'parity.json'}: lacks a graph of {manifest.FILE}; export the bundle again"
        ) from None
    head = f"  bundle of schema {described['schema']}, license {described['license']}"
    return [head, *("  " + row for row in table(rows, ("graph", "largest difference"))), ""]


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)


def _mixture(config: Config) -> list[str]:
    """Describes the mixture of several folders of shards, if all of them exist here."""
    folders = config.data.shards
    if len(folders) < 2 or not all((Path(f) / "manifest.json").is_file() for f in folders):
        return []
    rows = mixture_summary.mixture_lines(folders, config.data.weights, config.data.split)
    return [*("  " + row if row else "" for row in rows), ""]


def _changed(resolved: Resolved) -> list[str]:
    """Returns the values that are not defaults, each with its source."""
    values = config_lib.flatten(dataclasses.asdict(resolved.config))
    lines = [
        f"{key} = {value!r}  ({resolved.sources[key]})"
        for key, value in values.items()
        if resolved.sources.get(key, "default") != "default"
    ]
    return lines or ["every value is the default"]
