"""Loads the sync expert of a run; one that has not passed the gate is refused."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

from a2fjax import budgets, tasks
from a2fjax import configuration as config_lib
from a2fjax.errors import InputError
from a2fjax.models import pretrained
from a2fjax.models.syncnet.model import SyncModel
from a2fjax.sync import verdict
from a2fjax.sync.expert import NetworkExpert
from a2fjax.training import checkpoints


@dataclasses.dataclass(frozen=True)
class LoadedExpert:
    """An expert and where it comes from.

    Attributes:
      expert: the network with its averaged variables.
      config: configuration of its run.
      step: of the checkpoint.
      weights: `verdict.fingerprint` of the variables.
      passed: whether the gate was passed; False for an expert loaded unchecked without.
      problem: why not, as one line: the line of the gate that failed; "" if it passed or was not
        asked.
    """

    expert: NetworkExpert
    config: config_lib.Config
    step: int
    weights: str
    passed: bool
    problem: str = ""


def is_expert(config: config_lib.Config) -> bool:
    """Returns whether a run of this configuration is a sync expert."""
    return isinstance(config.model, config_lib.SyncConfig)


def load(run: str | Path, step: int | None = None) -> LoadedExpert:
    """Loads the expert of a run, whatever the gate says; only the gate itself needs that.

    Raises:
      InputError: not a run, a run of another kind, no such step, or a checkpoint of another rig.
    """
    file = Path(run) / "config.json"
    if not file.is_file():
        problem = "is not a run folder (no config.json)" if Path(run).is_dir() else "does not exist"
        raise InputError(f"sync expert {run} {problem}; expected a run of experiments/syncnet.py")
    config = config_lib.from_json(budgets.read_bytes(file), name=str(file)).config
    if not is_expert(config):
        raise InputError(
            f"sync expert {run}: holds a {config.model.kind!r}; expected a run of "
            "experiments/syncnet.py (syncnet, syncnet_inverse)"
        )
    step, params, _ = checkpoints.load_params(run, step, item="ema")
    task = tasks.build(config, params["constants"], pretrained.restore(run, config.audio))
    model: Any = task.model
    assert isinstance(model, SyncModel)
    weights = verdict.fingerprint(params)
    variables = model.audio_features.with_pretrained(params)
    expert = NetworkExpert(model, variables, config.model.kind)
    return LoadedExpert(expert, config, step, weights, passed=False)


def load_checked(
    run: str | Path, step: int | None = None, *, unchecked: bool = False, flag: str = ""
) -> LoadedExpert:
    """Loads an expert that passed the gate, for use as loss, judge or aligner.

    Args:
      run: run folder.
      step: of the checkpoint; None for the newest.
      unchecked: takes one that did not pass as well; reports then say so.
      flag: what a command takes for `unchecked`; the message of a gate not passed then names it.

    Raises:
      InputError: as `load`, or the gate was not passed: the line of the table that failed.

    Example:
        >>> load_checked("nowhere")
        Traceback (most recent call last):
          ...
        a2fjax.errors.InputError: sync expert nowhere does not exist; expected a run of...
    """
    loaded = load(run, step)
    try:
        verdict.check(run, loaded.step, loaded.weights)
    except InputError as error:
        if not unchecked:
            way = f"; or take it unchecked: {flag}" if flag else ""
            raise InputError(f"{error}{way}") from None
        return dataclasses.replace(loaded, problem=str(error))
    return dataclasses.replace(loaded, passed=True)
