"""The sync expert of a build: checked once in a worker, then loaded by every worker that uses it.

Nothing here imports jax before an expert is loaded, and the process that runs the build loads none.
"""

from __future__ import annotations

import contextlib
import dataclasses
import functools
from pathlib import Path
from typing import TYPE_CHECKING

from a2fjax import progress
from a2fjax.errors import InputError, WorkFailed
from data_pipeline.execution import executor
from data_pipeline.execution.console import WriteLine
from data_pipeline.settings import BuildSettings
from data_pipeline.timing.expert_offset import OFF

if TYPE_CHECKING:
    from a2fjax.sync.expert import Expert


@dataclasses.dataclass(frozen=True)
class SyncExpert:
    """Names the expert of a build; what results depend on is `weights`.

    Attributes:
      run: run folder, absolute.
      step: of the checkpoint.
      weights: fingerprint of its variables.
      passed: whether it passed its gate.
      problem: why not, as one line; "" if it passed.
    """

    run: str
    step: int
    weights: str
    passed: bool
    problem: str = ""

    def load(self) -> Expert:
        """Loads the expert, once in a process.

        Raises:
          WorkFailed: the checkpoint has changed since the build began.
        """
        return _load(self)


def find(settings: BuildSettings, run: executor.Run, log: WriteLine) -> SyncExpert | None:
    """Returns the expert that the settings name, or None.

    Raises:
      InputError: not a run of an expert, another rig's, or one that did not pass its gate.
      WorkFailed: its process died.
    """
    if not settings.sync or settings.sync_offset == OFF:
        return None
    job = (str(Path(settings.sync).resolve()), settings.sync, settings.sync_unchecked)
    with (
        progress.shown("loading the sync expert", log),
        contextlib.closing(run(_check, [job])) as results,
    ):
        result = next(iter(results))[1]
    if isinstance(result, BaseException):
        raise result
    found: SyncExpert = result
    if not found.passed:
        log(
            f"warning: {settings.sync}: has not passed the gate (sync_unchecked): its offsets are "
            f"not to be relied on: {found.problem}"
        )
    return found


def _check(job: tuple[str, str, bool]) -> SyncExpert:
    """Returns the expert of a run folder (absolute, as given), if it may be used."""
    run, given, unchecked = job
    from a2fjax.training import sync_experts

    try:
        loaded = sync_experts.load_checked(
            run, unchecked=unchecked, flag="--config.sync_unchecked=true"
        )
    except InputError as error:
        raise InputError(str(error).replace(run, given)) from None
    problem = loaded.problem.replace(run, given)
    return SyncExpert(run, loaded.step, loaded.weights, loaded.passed, problem)


@functools.lru_cache(maxsize=1)
def _load(which: SyncExpert) -> Expert:
    from a2fjax.training import sync_experts

    loaded = sync_experts.load(which.run, which.step)
    if loaded.weights != which.weights:
        raise WorkFailed(f"{which.run}: has changed since the build began; run it again")
    return loaded.expert
