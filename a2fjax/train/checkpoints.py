"""States on disk: written whole or not at all, read with or without the optimiser.

    RUN/config.json                 resolved configuration
       /encoders/<key>.safetensors  weights of speech encoders before training (`models.pretrained`)
       /checkpoints/<step>/params   trained and frozen parameters, merged; without the frozen
                                    weights of encoders, which every state would repeat
                          /ema      the same, averaged: what evaluation, inference and export use
                          /opt      optimiser state
                          /meta     JSON: step, rig, configuration, data, metrics, versions

The only caller of Orbax. It writes into a temporary folder beside the final one and renames it when
everything is on disk, so a kill at any moment leaves the previous state valid; old states are
deleted only after the new one is complete.
"""

from __future__ import annotations

import contextlib
import dataclasses
import importlib.metadata
import logging
import os
import shutil
import sys
import time
import traceback
import types
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import jax
import numpy as np
import orbax.checkpoint as ocp
from etils import epath
from orbax.checkpoint import checkpoint_managers as managers

from a2fjax import mesh_descriptor, rig
from a2fjax.config import CheckpointConfig
from a2fjax.errors import InputError, WorkFailed, nearest
from a2fjax.models import audio_features
from a2fjax.models import params as params_lib
from a2fjax.models.params import Params
from a2fjax.train.state import TrainState

ITEMS = ("params", "ema")
STORED_ELSEWHERE = (rf"^{audio_features.PREFIX}",)
"""Patterns of the frozen parameters that are not in checkpoints."""
FOLDER = "checkpoints"


class Checkpoints:
    """The states of one run, for the process that trains it."""

    def __init__(self, run: Path, config: CheckpointConfig) -> None:
        """Opens RUN/checkpoints, creating it; what an interrupted save left behind is removed.

        Args:
          run: the run folder.
          config: which states are kept.

        Raises:
          InputError: the folder cannot be written.
        """
        self._folder = Path(run).absolute() / FOLDER
        self._metric = config.best_metric
        self._writing: int | None = None
        keep: list[Any] = [managers.LatestN(config.keep_latest)]
        if config.keep_best:
            keep.append(
                managers.BestN(
                    get_metric_fn=lambda metrics: metrics[config.best_metric],
                    reverse=True,  # the policy keeps the end of the ranking; lower is better here
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
            item_names=("params", "ema", "opt", "meta"),
            options=ocp.CheckpointManagerOptions(
                save_decision_policy=managers.FixedIntervalPolicy(1),  # the loop decides
                preservation_policy=managers.AnyPreservationPolicy(keep),
                # Where a folder cannot be made, the threads that wait for it would wait minutes.
                async_options=ocp.AsyncOptions(create_directories_asynchronously=False),
            ),
        )

    def latest(self) -> int | None:
        """Returns the newest step that is completely on disk, None when there is none."""
        return max(steps_in(self._folder), default=None)

    def save(
        self, step: int, state: TrainState, meta: Mapping[str, Any], metrics: Mapping[str, float]
    ) -> None:
        """Starts writing a state; returns as soon as the arrays are out of the device.

        Args:
          step: completed updates.
          state: what to save.
          meta: JSON values to keep beside it.
          metrics: held-out values at this step, empty when none were measured; states without
            `best_metric` never count among the best.

        Raises:
          WorkFailed: this save, or the one before it, failed (disk full).
        """
        kept = params_lib.split(state.frozen, STORED_ELSEWHERE)[0]
        state = dataclasses.replace(state, frozen=kept)
        average = state.merged(average=True)
        meta = {
            **meta,
            "step": step,
            "rig": rig.FINGERPRINT,
            "shape": mesh_descriptor.VERSION,
            "metrics": dict(metrics),
            "versions": {p: importlib.metadata.version(p) for p in _PACKAGES},
        }
        ranked = {k: float(v) for k, v in metrics.items()} if self._metric in metrics else None
        self.wait()
        self._writing = step
        try:
            self._manager.save(
                step,
                args=ocp.args.Composite(
                    params=ocp.args.StandardSave(state.merged(average=False)),
                    ema=ocp.args.StandardSave(average),
                    opt=ocp.args.StandardSave(state.opt_state),
                    meta=ocp.args.JsonSave(meta),
                ),
                metrics=ranked,
                force=True,
            )
        except Exception as error:  # noqa: BLE001 - storage raises many kinds; each ends the run
            raise self._failed(error) from error

    def check(self) -> None:
        """Raises `WorkFailed` when a save in the background failed; does not wait for it."""
        try:
            self._manager.check_for_errors()
        except Exception as error:  # noqa: BLE001 - as in save
            raise self._failed(error) from None

    def wait(self) -> None:
        """Returns once everything is on disk.

        Raises:
          WorkFailed: it could not be written.
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
          step: as `latest` says.
          abstract: shapes, dtypes and shardings of the state; the mesh may differ from the one
            that saved it.
          elsewhere: frozen parameters that are `STORED_ELSEWHERE`, as arrays.

        Raises:
          InputError: the state is of another rig or model, or damaged.
        """
        folder = self._folder / str(step)
        fixed = params_lib.split(abstract.frozen, STORED_ELSEWHERE)[0]
        trained = params_lib.merge(abstract.params, fixed)
        meta, saved = _inspect(folder, "params")
        check_params(saved, trained, name=f"checkpoint {folder}")
        items: dict[str, Any] = {
            "params": ocp.args.StandardRestore(trained),
            "opt": ocp.args.StandardRestore(abstract.opt_state),
        }
        if abstract.ema is not None:
            average = params_lib.merge(abstract.ema, fixed)
            items["ema"] = ocp.args.StandardRestore(average)
        try:
            found = self._manager.restore(step, args=ocp.args.Composite(**items))
        except Exception as error:  # noqa: BLE001 - damage shows as many kinds of errors
            raise _damaged(folder, error) from None
        params = params_lib.restrict(found["params"], abstract.params)
        frozen = params_lib.restrict(found["params"], fixed)
        frozen = params_lib.merge(frozen, elsewhere or {})
        ema = None if abstract.ema is None else params_lib.restrict(found["ema"], abstract.ema)
        count = jax.device_put(np.int32(step), abstract.step.sharding)
        return TrainState(count, params, frozen, found["opt"], ema), meta

    def settle(self) -> None:
        """Waits for what is being written, whether it succeeds or not."""
        with contextlib.suppress(Exception):
            self._manager.wait_until_finished()

    def close(self) -> None:
        """Ends the background threads; what is being written is finished first.

        Raises:
          WorkFailed: it could not be written.
        """
        try:
            self._manager.close()
        except Exception as error:  # noqa: BLE001 - as in save
            raise self._failed(error) from None

    def __enter__(self) -> Checkpoints:
        """Returns itself."""
        self._quiet = _without_late_answers()
        self._quiet.__enter__()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: types.TracebackType | None,
    ) -> None:
        """Closes; when an error is already on its way, no second one hides it."""
        try:
            if kind is None:
                self.close()
            else:
                with contextlib.suppress(WorkFailed):
                    self.close()
        finally:
            self._quiet.__exit__(kind, error, trace)

    def _failed(self, error: Exception) -> WorkFailed:
        latest = self.latest()
        last = "none is complete" if latest is None else f"the last complete one is {latest}"
        why = _first_line(error)
        if len(why) > 200:  # What went wrong stands at the end, after the names of many files.
            why = f"... {why[-160:]}"
        return WorkFailed(
            f"checkpoint {self._writing} of {self._folder.parent} could not be written "
            f"({why}); {last}"
        )


_PACKAGES = ("jax", "flax", "optax", "orbax-checkpoint", "numpy")


def steps_in(folder: Path) -> list[int]:
    """Returns the complete steps in a checkpoints folder, ascending."""
    if not folder.is_dir():
        return []
    return sorted(int(p.name) for p in folder.iterdir() if p.name.isdecimal() and p.is_dir())


def steps(run: str | Path) -> list[int]:
    """Returns the steps of a run that can be loaded, ascending.

    Raises:
      InputError: not a run folder.
    """
    run = Path(run)
    if not run.is_dir():
        raise InputError(f"run {run}: no such folder")
    if not (run / "config.json").is_file():
        raise InputError(f"run {run}: not a run folder (it has no config.json)")
    return steps_in(run / FOLDER)


def load_params(
    run: str | Path, step: int | None = None, item: str = "ema"
) -> tuple[int, Params, dict[str, Any]]:
    """Loads parameters without the optimiser, onto the host.

    Args:
      run: run folder.
      step: completed updates; the newest by default.
      item: "ema" (averaged, the same as "params" where no average is kept) or "params".

    Returns:
      step, parameters (nested dict of NumPy arrays, constants included), meta.

    Raises:
      InputError: not a run, no such step (names the nearest), another rig, or damaged.
    """
    if item not in ITEMS:
        raise InputError(f"checkpoint item {item!r}{nearest(item, ITEMS)}")
    have = steps(run)
    if not have:
        raise InputError(f"run {run}: has no checkpoint yet")
    if step is None:
        step = have[-1]
    elif step not in have:
        near = min(have, key=lambda s: abs(s - step))
        raise InputError(
            f"run {run}: has no checkpoint of step {step}; the nearest is {near} "
            f"(all: {', '.join(map(str, have))})"
        )
    folder = Path(run).absolute() / FOLDER / str(step)
    with _without_late_answers():
        meta, shapes = _inspect(folder, item)
        try:
            with _reader() as reader:
                kinds = jax.tree.map(lambda _: ocp.RestoreArgs(restore_type=np.ndarray), shapes)
                args = ocp.args.PyTreeRestore(item=shapes, restore_args=kinds)
                found = reader.restore(epath.Path(folder), args=ocp.args.Composite(**{item: args}))
        except Exception as error:  # noqa: BLE001 - damage shows as many kinds of errors
            raise _damaged(folder, error) from None
    return step, found[item], meta


def check_params(params: Any, expected: Any, *, name: str) -> None:
    """Checks that two trees of arrays have the same names, shapes and types.

    Args:
      params: what there is (arrays, or anything with shape and dtype).
      expected: what the model needs.
      name: where `params` came from, for the message.

    Raises:
      InputError: names the first weights that differ, are missing or are too many.
    """
    have, want = _by_name(params), _by_name(expected)
    wrong = [f"{n} is missing (the model has {_spell(want[n])})" for n in want if n not in have]
    wrong += [f"{n} is too much ({_spell(have[n])})" for n in have if n not in want]
    wrong += [
        f"{n} is {_spell(have[n])} (the model has {_spell(want[n])})"
        for n in want
        if n in have and _spell(have[n]) != _spell(want[n])
    ]
    if wrong:
        more = f"; and {len(wrong) - 3} more" if len(wrong) > 3 else ""
        raise InputError(f"{name}: of another model: {'; '.join(wrong[:3])}{more}")


def _by_name(tree: Any) -> dict[str, Any]:
    leaves = jax.tree_util.tree_leaves_with_path(tree)
    return {"/".join(str(getattr(k, "key", k)) for k in path): leaf for path, leaf in leaves}


def _spell(leaf: Any) -> str:
    return f"{np.dtype(leaf.dtype).name}{list(leaf.shape)}"


def _reader() -> ocp.Checkpointer:
    trees = {item: ocp.PyTreeCheckpointHandler() for item in (*ITEMS, "opt")}
    handler = ocp.CompositeCheckpointHandler(**trees, meta=ocp.JsonCheckpointHandler())
    return ocp.Checkpointer(handler)


def _inspect(folder: Path, item: str) -> tuple[dict[str, Any], Any]:
    """Returns meta, and an item's tree as `ShapeDtypeStruct`s without reading its arrays.

    Raises:
      InputError: damaged, or made for another rig or another description of meshes.
    """
    path = epath.Path(folder)
    try:
        with _reader() as reader:
            wanted = ocp.args.Composite(meta=ocp.args.JsonRestore())
            meta = dict(reader.restore(path, args=wanted)["meta"])
            tree = reader.metadata(path).item_metadata[item].tree
        shapes = jax.tree.map(lambda m: jax.ShapeDtypeStruct(tuple(m.shape), m.dtype), tree)
        found = meta["rig"]
    except Exception as error:  # noqa: BLE001 - damage shows as many kinds of errors
        raise _damaged(folder, error) from None
    if found != rig.FINGERPRINT:
        raise InputError(
            f"checkpoint {folder}: made for rig {found}, this version has {rig.FINGERPRINT}; "
            "its channels mean something else"
        )
    # Checkpoints from before there were versions have the first one.
    described = meta.get("shape", 1)
    if "identity" in shapes and described != mesh_descriptor.VERSION:
        raise InputError(
            f"checkpoint {folder}: its identities come from version {described} of what is "
            f"measured of a mesh, this version has {mesh_descriptor.VERSION}: train it again"
        )
    return meta, shapes


def _damaged(folder: Path, error: Exception) -> InputError:
    others = [s for s in steps_in(folder.parent) if str(s) != folder.name]
    rest = f"; complete steps beside it: {others}" if others else ""
    why = _first_line(error)
    why = f"{why[:120]}..." if len(why) > 120 else why
    return InputError(f"checkpoint {folder}: cannot be read ({why}){rest}")


def _first_line(error: Exception) -> str:
    return f"{type(error).__name__}: {(str(error).strip().splitlines() or [''])[0]}"


def _said_already(record: logging.LogRecord) -> bool:
    """Returns False for an array's error that another one's failure of the same save stands for."""
    if "exception was never retrieved" not in record.getMessage() or not record.exc_info:
        return True
    error, trace = record.exc_info[1:]
    files = {frame.f_code.co_filename for frame, _ in traceback.walk_tb(trace)}
    # Orbax's tasks go through its files; of TensorStore's own futures only the text tells.
    return "OCDBT" not in str(error) and not any(f"{os.sep}orbax{os.sep}" in f for f in files)


@contextlib.contextmanager
def _without_late_answers() -> Iterator[None]:
    """Keeps the console clear of arrays that answer after another one's failure ended the read.

    They find their event loop closed, which Python reports as an unraisable exception each; and
    of several that fail only the first is raised, the others' errors are logged as never retrieved
    whenever their tasks are collected, which may be after the block.
    """
    logging.getLogger("asyncio").addFilter(_said_already)
    before = sys.unraisablehook

    def hook(unraisable: Any) -> None:
        if str(unraisable.exc_value) != "Event loop is closed":
            before(unraisable)

    sys.unraisablehook = hook
    try:
        yield
    except (InputError, WorkFailed):
        time.sleep(0.3)  # Until the last of them has answered.
        raise
    finally:
        sys.unraisablehook = before
