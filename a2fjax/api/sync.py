"""The gate of a sync expert: measured on held-out people and sentences, stored with its run."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from a2fjax.errors import InputError

Say = Callable[[str], None]


@dataclasses.dataclass(frozen=True)
class GateReport:
    """Result of the gate.

    Attributes:
      values: nested dictionaries, as in the JSON: "run", "step", "model", "weights", "data",
        "trained_on", "splits" (`a2fjax.sync.gate.measure_split`) and "verdict" ("passed", "lines").
    """

    values: dict[str, Any]

    @property
    def passed(self) -> bool:
        """Whether the expert may be a loss, a judge or an aligner."""
        return bool(self.values["verdict"]["passed"])

    def table(self) -> str:
        """Returns the result as aligned text."""
        from a2fjax.sync import report

        return report.table(self.values)

    def save(self, path: str | Path) -> Path:
        """Writes the JSON and, where matplotlib is installed, the picture beside it (.svg).

        Raises:
          InputError: a file cannot be written.
        """
        import importlib.util

        from a2fjax.sync import verdict

        verdict.write(path, self.values)
        if importlib.util.find_spec("matplotlib") is not None:
            from a2fjax.view import drawing, sync_figure

            drawing.save(Path(path).with_suffix(".svg"), sync_figure.draw(self.values["splits"]))
        return Path(path)

    def __str__(self) -> str:
        """Returns the table."""
        return self.table()


def is_expert(run: str | Path) -> bool:
    """Returns whether a folder is the run of a sync expert; False for what is no run at all."""
    from a2fjax import budgets
    from a2fjax import configuration as config_lib

    path = Path(run) / "config.json"
    if not path.is_file():
        return False
    try:
        config = config_lib.from_json(budgets.read_bytes(path), name=str(path)).config
    except InputError:
        return False  # Whoever loads the run says what is wrong.
    return isinstance(config.model, config_lib.SyncConfig)


def show(path: str | Path) -> GateReport | None:
    """Returns the gate's result in a file; None if the file holds something else.

    Raises:
      InputError: a result of the gate of another version.
    """
    from a2fjax.sync import verdict

    return GateReport(verdict.read(path)) if verdict.is_result(path) else None


def gate(
    run: str | Path,
    shards: Sequence[str | Path] | None = None,
    split: Sequence[str] | None = None,
    *,
    step: int | None = None,
    seed: int = 0,
    say: Say = lambda line: None,
) -> GateReport:
    """Measures a sync expert on held-out sentences and people, beside the linear expert.

    Args:
      run: run folder.
      shards: folders of the clips; None for those of the training.
      split: names; None for both. A gate that measured less has failed.
      step: of the checkpoint; None for the newest.
      seed: of noise and bootstrap.
      say: called with each line of progress.

    Raises:
      InputError: not a run of an expert, no such step, folder or split, or nobody to hold out or
        who was not trained on.

    Example:
        >>> gate("nowhere")
        Traceback (most recent call last):
          ...
        a2fjax.errors.InputError: sync expert nowhere does not exist; expected a run of...
    """
    from a2fjax import configuration as config_lib
    from a2fjax.data import records
    from a2fjax.data.dataset import ClipSource
    from a2fjax.sync import gate as gate_lib
    from a2fjax.sync import heard as heard_lib
    from a2fjax.sync import verdict
    from a2fjax.sync.expert import Expert
    from a2fjax.training import sync_experts

    loaded = sync_experts.load(run, step)
    trained_on = [str(f) for f in loaded.config.data.shards]
    folders = [str(f) for f in (trained_on if shards is None else shards)]
    if not folders:
        raise InputError(f"sync expert {run}: names no shards; give some with --data")
    manifests = [records.read_manifest(folder) for folder in folders]
    chosen = list(dict.fromkeys(gate_lib.SPLITS if split is None else split))
    for name in chosen:
        if split is None and not any(m.entries(name) for m in manifests):
            what = "people" if name == gate_lib.bars.PEOPLE else "sentences"
            raise InputError(
                f"{', '.join(folders)}: no clips in split {name!r}: the gate needs {what} held "
                "out of training; build shards with some, or name a split with --split"
            )
        records.check_split(name, manifests, folders)
    data = loaded.config.data
    # What weighs nothing was not trained on.
    trained_on = [f for i, f in enumerate(trained_on) if not data.weights or data.weights[i]]
    present = trained_on and all((Path(f) / "manifest.json").is_file() for f in trained_on)
    if not present:
        trained_on = []
        say("the training shards are gone: the linear expert is fitted to --data")
    heard = heard_lib.read(trained_on, data.split) if trained_on else None
    linear = gate_lib.fit_linear(trained_on or folders, data.split, say=say)
    experts: list[Expert] = [loaded.expert, linear]
    values = {
        "run": str(run),
        "step": loaded.step,
        "model": f"{config_lib.fingerprint(loaded.config)}@{loaded.step}",
        "weights": loaded.weights,
        "architecture": loaded.config.model.kind,
        "seed": loaded.config.seed,
        "data": [{"folder": f, "fingerprint": verdict.data_fingerprint(f)} for f in folders],
        "trained_on": [
            {"folder": f, "fingerprint": verdict.data_fingerprint(f)} for f in trained_on
        ],
        "linear_penalty": linear.penalty,
        "splits": {
            name: gate_lib.measure_split(
                experts, ClipSource(folders, name), heard=heard, seed=seed, say=say
            )
            for name in chosen
        },
    }
    return GateReport(verdict.judged(values))
