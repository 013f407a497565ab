"""The verdict of the gate, a file in the run folder: RUN/gate/<step>.json."""

from __future__ import annotations

import dataclasses
import hashlib
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import jax
import numpy as np

from a2fjax import budgets, files, rig
from a2fjax.errors import InputError
from a2fjax.sync import bars

SCHEMA = 1
FOLDER = "gate"


def path_of(run: str | Path, step: int) -> Path:
    """Returns the file of a checkpoint's verdict."""
    return Path(run) / FOLDER / f"{step}.json"


def fingerprint(variables: Any) -> str:
    """Returns 16 hex digits of the values of all variables."""
    digest = hashlib.sha256()
    for path, leaf in jax.tree_util.tree_leaves_with_path(variables):
        array = np.ascontiguousarray(leaf)
        digest.update(f"{jax.tree_util.keystr(path)}{array.dtype}{array.shape}".encode())
        digest.update(array.tobytes())
    return digest.hexdigest()[:16]


def data_fingerprint(folder: str | Path) -> str:
    """Returns 16 hex digits of a folder's manifest."""
    return hashlib.sha256((Path(folder) / "manifest.json").read_bytes()).hexdigest()[:16]


def judged(values: Mapping[str, Any]) -> dict[str, Any]:
    """Returns a result with the verdict: {"passed", "lines"}; see `bars.lines`."""
    found = bars.lines(values["splits"])
    return {
        **values,
        "schema": SCHEMA,
        "kind": "sync_gate",
        "rig": rig.FINGERPRINT,
        "verdict": {
            "passed": all(line.passed for line in found),
            "lines": [dataclasses.asdict(line) for line in found],
        },
    }


def lines_of(values: Mapping[str, Any]) -> Sequence[bars.Line]:
    """Returns the verdict's lines of a result."""
    return [bars.Line(**line) for line in values["verdict"]["lines"]]


def write(path: str | Path, values: Mapping[str, Any]) -> None:
    """Writes a result, completely or not at all.

    Raises:
      InputError: the file cannot be written.
    """
    files.make_folder(Path(path).parent)
    files.write_text(path, json.dumps(values, indent=1, allow_nan=False) + "\n")


def read(path: str | Path) -> dict[str, Any]:
    """Reads a result.

    Raises:
      InputError: no such file, or not one of this schema.
    """
    path = Path(path)
    if not path.is_file():
        raise InputError(f"gate {path}: no such file")
    try:
        values: dict[str, Any] = budgets.load_json(path)
        known = values["schema"] == SCHEMA and values["kind"] == "sync_gate"
        lines_of(values)
        {values["verdict"]["passed"], values["step"], values["weights"], values["rig"]}
    except (ValueError, KeyError, TypeError) as error:
        raise InputError(f"{path}: not a result of the gate ({error})") from None
    if not known:
        raise InputError(f"{path}: of schema {values['schema']}, this version reads {SCHEMA}")
    return values


def is_result(path: str | Path) -> bool:
    """Returns whether a file is a result of the gate, of this version or another."""
    try:
        values = budgets.load_json(Path(path))
    except (OSError, ValueError, InputError):
        return False
    return isinstance(values, dict) and values.get("kind") == "sync_gate"


def check(run: str | Path, step: int, weights: str) -> dict[str, Any]:
    """Returns the result of a checkpoint that passed the gate.

    Args:
      run: run folder.
      step: of the checkpoint.
      weights: `fingerprint` of its variables.

    Raises:
      InputError: the checkpoint was not measured, has changed since, or failed; names the line.
    """
    path = path_of(run, step)
    if not path.is_file():
        raise InputError(
            f"sync expert {run}: step {step} has not passed the gate; run "
            f"`a2fjax evaluate {run} --step {step}` first"
        )
    values = read(path)
    if values["weights"] != weights or values["step"] != step or values["rig"] != rig.FINGERPRINT:
        raise InputError(
            f"sync expert {run}: {path} is of other weights than step {step} has now; run "
            f"`a2fjax evaluate {run}` again"
        )
    failed = bars.first_failure(lines_of(values))
    if failed is not None or not values["verdict"]["passed"]:
        raise InputError(f"sync expert {run}: failed the gate at step {step}: {failed}")
    return values
