"""Training: an experiment becomes a run."""

from __future__ import annotations

import dataclasses
import logging
import os
import warnings
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from a2fjax import configuration as config_lib
from a2fjax import signals
from a2fjax.api.tables import import_pandas
from a2fjax.configuration import Config, Resolved

if TYPE_CHECKING:
    import pandas

    from a2fjax.api.model import Model


def config(
    experiment: str | Path | None = None, overrides: Mapping[str, Any] | None = None
) -> Resolved:
    """Returns the configuration of an experiment.

    Example:
        >>> resolved = config(None, {"steps": 100, "model.conv_width": 32, "data.shards": "s"})
        >>> resolved.config.steps, resolved.config.data.shards
        (100, ('s',))
        >>> config(None, {"model.conv_widht": 32})
        Traceback (most recent call last):
          ...
        a2fjax.errors.InputError: config: unknown key 'model.conv_widht'; did you mean...

    Args:
      experiment: "path/to/file.py", "path/to/file.py:variant", or a run's "config.json"; None for
        the defaults.
      overrides: values by dotted key; text is read as on the command line.

    Raises:
      InputError: names the file or key, what was expected and the nearest valid key.
    """
    texts = {key: _text(value) for key, value in (overrides or {}).items()}
    return config_lib.load(experiment, texts)


@dataclasses.dataclass(frozen=True)
class Run:
    """A run folder; accepted wherever a run's path is.

    Example:
        >>> os.fspath(Run(Path("runs/a")))
        'runs/a'

    Attributes:
      path: of the folder.
    """

    path: Path

    def __fspath__(self) -> str:
        """Returns the path as text."""
        return str(self.path)

    def __str__(self) -> str:
        """Returns the path as text."""
        return str(self.path)

    def load(self, step: int | None = None) -> Model:
        """Returns the model of a checkpoint; the newest if `step` is None.

        Raises:
          InputError: the folder holds no run.
        """
        from a2fjax.api.model import Model

        return Model(self.path, step)

    def metrics(self) -> list[dict[str, Any]]:
        """Returns what was logged: a dictionary of values and "step" for each line.

        Raises:
          InputError: nothing was logged, or the log is damaged.
        """
        from a2fjax.training import tracking

        return tracking.read_metrics(self.path)

    def to_pandas(self) -> pandas.DataFrame:
        """Returns what was logged as a table with the step as its index.

        Raises:
          InputError: pandas is not installed, or nothing was logged.
        """
        return import_pandas().DataFrame(self.metrics()).groupby("step").last()


def train(
    config: Resolved | Config,
    workdir: str | Path,
    *,
    task: type | str | None = None,
    say: Callable[[str], None] | None = None,
    ends_process: bool = False,
) -> Run:
    """Trains a model, or continues a run from where it stands.

    The same call on the same folder again continues the run and gives the numbers that an
    uninterrupted run would have given. Started by Slurm or in Kubernetes with several processes,
    they train together.

    Example:
        >>> train(config_lib.load(None), "runs/a")
        Traceback (most recent call last):
          ...
        a2fjax.errors.InputError: config: data.shards is empty: expected folders with...

    Args:
      config: experiment, as `a2f.config` returns it.
      workdir: run folder; made if it does not exist.
      task: class of the task to train instead of the one of `model.kind`, or its import path
        "package.module:Class"; see `a2fjax.tasks.resolve`. It is recorded in the run's
        configuration as `task`, so that loading, evaluating and `init_from` use it as well.
      say: called with each line of progress; None prints it.
      ends_process: ignore SIGTERM and SIGUSR2 from the end of the training on, for a process that
        ends with it: schedulers repeat their signals while JAX shuts down.

    Returns:
      The run.

    Raises:
      InputError: configuration, shards or folder do not fit together.
      WorkFailed: a loss that is not finite, or a disk that cannot be written.
      Preempted: a signal asked to stop; the state is saved.
    """
    resolved = config if isinstance(config, Resolved) else _resolved(config)
    from a2fjax.training import preflight
    from a2fjax.training.distributed import process_setup, session
    from a2fjax.training.distributed.watchdog import Watchdog

    setup = process_setup.detect(os.environ)
    if setup.processes == 1:
        preflight.check_shards(resolved.config)
    watchdog = Watchdog(60 * resolved.config.log.hang_minutes)
    _silence_libraries()
    with session.session(setup, watchdog):
        from a2fjax.training import trainer

        if setup.processes > 1:
            preflight.check_shards(resolved.config)  # Inside: the other processes stop, too.
        if ends_process:
            # Training handles signals itself and then restores what is set here.
            signals.ignore()
        trainer.train(resolved, Path(workdir), task=task, watchdog=watchdog, say=say)
    return Run(Path(workdir))


def _resolved(config: Config) -> Resolved:
    keys = config_lib.flatten(dataclasses.asdict(config))
    return Resolved(config, dict.fromkeys(keys, "Python"))


def _text(value: Any) -> str:
    """Returns an override as it is written on the command line."""
    if isinstance(value, str | Path):
        return str(value)
    if isinstance(value, list | tuple):
        return repr(tuple(str(v) if isinstance(v, Path) else v for v in value))
    return repr(value)


def _silence_libraries() -> None:
    """Orbax logs the traceback of each failure it raises, and warns of what it did not get to."""
    logging.getLogger("absl").setLevel(logging.CRITICAL)
    warnings.filterwarnings("ignore", "coroutine .* was never awaited", RuntimeWarning)
