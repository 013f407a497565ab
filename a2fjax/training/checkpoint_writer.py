"""Saves training states atomically with Orbax, and restores them.

Orbax writes into a temporary folder beside the final one and renames it when everything is on disk,
so the previous state stays valid if the process is killed. Old states are deleted only after the
new one is complete.
"""

from __future__ import annotations

import contextlib
import dataclasses
import importlib.metadata
import shutil
import sys
import threading
import types
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import jax
import numpy as np
import orbax.checkpoint as ocp
from etils import epath
from orbax.checkpoint import checkpoint_managers as managers

from a2fjax import mesh_descriptor, rig, sealed_json
from a2fjax.configuration import CheckpointConfig
from a2fjax.errors import InputError, WorkFailed
from a2fjax.models import params as params_lib
from a2fjax.models.params import Params
from a2fjax.training import checkpoints, checksums, orbax_errors
from a2fjax.training.auxiliary import AuxiliaryState
from a2fjax.training.state import TrainState

_PACKAGES = ("jax", "flax", "optax", "orbax-checkpoint", "numpy")


class CheckpointWriter:
    """Saves and restores the training states of one run."""

    def __init__(
        self,
        run: Path,
        config: CheckpointConfig,
        *,
        on_failure: Callable[[WorkFailed], None] | None = None,
    ) -> None:
        """Opens or creates RUN/checkpoints and removes leftovers of interrupted saves.

        Args:
          run: the run folder.
          config: sets which states are kept.
          on_failure: called from a thread, in a run of several processes, as soon as a background
            save fails: the main thread may be waiting for another process, which waits for this
            save.

        Raises:
          InputError: the folder cannot be written.
        """
        self._folder = Path(run).absolute() / checkpoints.FOLDER
        self._metric = config.best_metric
        self._writing: int | None = None
        self._several = jax.process_count() > 1
        self._on_failure = on_failure
        keep: list[Any] = [managers.LatestN(config.keep_latest)]
        if config.keep_best:
            keep.append(
                managers.BestN(
                    get_metric_fn=lambda metrics: metrics[config.best_metric],
                    reverse=True,  # The policy keeps the end of the ranking; lower is better here.
                    n=config.keep_best,
                    keep_checkpoints_without_metrics=False,
                )
            )
        try:
            self._folder.mkdir(parents=True, exist_ok=True)
            if jax.process_index() == 0:
                for torn in self._folder.glob("*.orbax-checkpoint-tmp*"):
                    shutil.rmtree(torn)
        except OSError as error:
            raise InputError(f"{self._folder}: cannot be written ({error.strerror})") from None
        self._manager = ocp.CheckpointManager(
            epath.Path(self._folder),
            item_names=("params", "ema", "opt", "auxiliary", "meta"),
            options=ocp.CheckpointManagerOptions(
                save_decision_policy=managers.FixedIntervalPolicy(1),  # The loop decides.
                preservation_policy=managers.AnyPreservationPolicy(keep),
                # If a folder could not be created, threads would wait minutes for it.
                async_options=ocp.AsyncOptions(
                    create_directories_asynchronously=False,
                    barrier_sync_fn=self._barrier() if self._several else None,
                ),
            ),
        )

    def _barrier(self) -> Callable[..., None]:
        """Returns Orbax's barrier between processes, which reports a save that has failed.

        Orbax's thread enters a last barrier even if its save failed. The other processes wait for
        that save in another barrier, so neither ends before the timeouts of both.
        """
        wait = ocp.multihost.get_barrier_sync_fn()

        def barrier(*, key: str, timeout_ms: int) -> None:
            error = sys.exc_info()[1]
            background = threading.current_thread() is not threading.main_thread()
            if background and isinstance(error, Exception):
                if self._on_failure is not None:
                    self._on_failure(self._failed(error))
                raise error
            wait(key=key, timeout_ms=timeout_ms)

        return barrier

    def latest(self) -> int | None:
        """Returns the newest step that is completely on disk, None if there is none."""
        return max(checkpoints.steps_in(self._folder), default=None)

    def save(
        self, step: int, state: TrainState, meta: Mapping[str, Any], metrics: Mapping[str, float]
    ) -> None:
        """Starts to write a state; returns once the arrays are copied from the devices.

        Args:
          step: completed updates.
          state: the state to save.
          meta: JSON values to store with it.
          metrics: held-out values at this step, empty if none were measured; a state without
            `best_metric` is never among the best.

        Raises:
          WorkFailed: this save, or the one before it, failed (disk full).
        """
        kept = params_lib.split(state.frozen, checkpoints.STORED_ELSEWHERE)[0]
        state = dataclasses.replace(state, frozen=kept)
        items = {
            "params": state.merged(average=False),
            "ema": state.merged(average=True),
            "opt": state.opt_state,
        }
        if state.auxiliary is not None:
            items["auxiliary"] = _as_dict(state.auxiliary)
        meta = {
            **meta,
            "step": step,
            "rig": rig.FINGERPRINT,
            "shape": mesh_descriptor.VERSION,
            "metrics": dict(metrics),
            "versions": {p: importlib.metadata.version(p) for p in _PACKAGES},
            "checksums": {item: checksums.of_tree(tree) for item, tree in items.items()},
        }
        ranked = {k: float(v) for k, v in metrics.items()} if self._metric in metrics else None
        self.wait()
        self._writing = step
        try:
            self._manager.save(
                step,
                args=ocp.args.Composite(
                    **{item: ocp.args.StandardSave(tree) for item, tree in items.items()},
                    meta=ocp.args.JsonSave(sealed_json.seal(meta)),
                ),
                metrics=ranked,
                force=True,
            )
        except Exception as error:  # noqa: BLE001 - storage raises many kinds; each ends the run
            raise self._failed(error) from error

    def check(self) -> None:
        """Raises `WorkFailed` if a background save has failed; does not wait for it."""
        # Orbax's own check finds nothing, because its thread has taken the error.
        if not self._manager.is_saving_in_progress():
            self.wait()

    def wait(self) -> None:
        """Waits until everything is on disk.

        Raises:
          WorkFailed: the state could not be written.
        """
        try:
            self._manager.wait_until_finished()
        except Exception as error:  # noqa: BLE001 - as in save
            raise self._failed(error) from None

    def restore(
        self, step: int, abstract: TrainState, elsewhere: Params | None = None
    ) -> tuple[TrainState, dict[str, Any]]:
        """Returns the state at a step and its meta.

        Args:
          step: a complete step, such as `latest()`.
          abstract: shapes, dtypes and shardings of the state; the device mesh may differ from the
            one that saved it.
          elsewhere: arrays of the frozen parameters that match `STORED_ELSEWHERE`.

        Raises:
          InputError: the state belongs to another rig or model, or is damaged.
        """
        folder = self._folder / str(step)
        fixed = params_lib.split(abstract.frozen, checkpoints.STORED_ELSEWHERE)[0]
        trained = params_lib.merge(abstract.params, fixed)
        meta, saved = checkpoints.inspect(folder, "params")
        checkpoints.check_params(saved, trained, name=f"checkpoint {folder}")
        items: dict[str, Any] = {
            "params": ocp.args.StandardRestore(trained),
            "opt": ocp.args.StandardRestore(abstract.opt_state),
        }
        if abstract.ema is not None:
            average = params_lib.merge(abstract.ema, fixed)
            items["ema"] = ocp.args.StandardRestore(average)
        if abstract.auxiliary is not None:
            items["auxiliary"] = ocp.args.StandardRestore(_as_dict(abstract.auxiliary))
        try:
            items_read = self._manager.restore(step, args=ocp.args.Composite(**items))
        except Exception as error:  # noqa: BLE001 - damage shows as many kinds of errors
            raise checkpoints.damaged(folder, error) from None
        checkpoints.verify(folder, {item: items_read[item] for item in items}, meta)
        params = params_lib.restrict(items_read["params"], abstract.params)
        frozen = params_lib.restrict(items_read["params"], fixed)
        frozen = params_lib.merge(frozen, elsewhere or {})
        ema = None if abstract.ema is None else params_lib.restrict(items_read["ema"], abstract.ema)
        beside = abstract.auxiliary and AuxiliaryState(**items_read["auxiliary"])
        count = jax.device_put(np.int32(step), abstract.step.sharding)
        return TrainState(count, params, frozen, items_read["opt"], ema, beside), meta

    def settle(self) -> None:
        """Waits for a running save, whether it succeeds or not."""
        with contextlib.suppress(Exception):
            self._manager.wait_until_finished()

    def close(self) -> None:
        """Finishes a running save and ends the background threads.

        Raises:
          WorkFailed: the state could not be written.
        """
        try:
            self._manager.close()
        except Exception as error:  # noqa: BLE001 - as in save
            raise self._failed(error) from None

    def __enter__(self) -> CheckpointWriter:
        """Returns itself."""
        orbax_errors.drop_late()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: types.TracebackType | None,
    ) -> None:
        """Closes the writer; an error of the block takes precedence over an error of closing."""
        if kind is None:
            self.close()
        elif not self._several:  # Closing waits for the others, which this process fails.
            with contextlib.suppress(WorkFailed):
                self.close()

    def _failed(self, error: Exception) -> WorkFailed:
        latest = self.latest()
        last = "none is complete" if latest is None else f"the last complete one is {latest}"
        why = orbax_errors.first_line(error)
        if len(why) > 200:  # The reason is at the end, after the names of many files.
            why = f"... {why[-160:]}"
        return WorkFailed(
            f"checkpoint {self._writing} of {self._folder.parent} could not be written "
            f"({why}); {last}"
        )


def _as_dict(state: AuxiliaryState) -> dict[str, Any]:
    return {"params": state.params, "opt_state": state.opt_state}
