"""Performs the updates, evaluations and saves of a run."""

from __future__ import annotations

import contextlib
import dataclasses
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import jax
import numpy as np
from jax.sharding import Mesh

from a2fjax import configuration as config_lib
from a2fjax import files
from a2fjax.batch import Batch
from a2fjax.configuration import Resolved
from a2fjax.errors import InputError, Preempted, WorkFailed
from a2fjax.models import params as params_lib
from a2fjax.models.params import Params
from a2fjax.sharding.hardware import peak
from a2fjax.tasks.base import Task
from a2fjax.training import auxiliary, evaluation, run_dir, starting_point
from a2fjax.training import checkpoints as checkpoints_lib
from a2fjax.training.checkpoint_writer import CheckpointWriter
from a2fjax.training.clock import Clock
from a2fjax.training.compiled_steps import STOP_FLAGS, CompiledSteps, requested
from a2fjax.training.distributed import broadcast
from a2fjax.training.distributed.preemption import StopRequest
from a2fjax.training.distributed.watchdog import COMPILING, Watchdog
from a2fjax.training.inputs import Inputs
from a2fjax.training.profiler import Profiler
from a2fjax.training.state import TrainState
from a2fjax.training.tracking import Tracker, every


@dataclasses.dataclass(frozen=True)
class Run:
    """Configuration and environment of one call of `train`.

    Attributes:
      resolved: the experiment.
      workdir: run folder.
      stop: stop requests from signals.
      say: prints a line of progress.
      watchdog: monitors progress.
    """

    resolved: Resolved
    workdir: Path
    stop: StopRequest
    say: Callable[[str], None]
    watchdog: Watchdog


class _Pending(NamedTuple):
    """An update whose metrics have not been read yet."""

    step: int
    metrics: dict[str, jax.Array]
    stop_flags: jax.Array
    batch: Batch


class TrainingLoop:
    """Runs the updates, evaluations and saves of one call of `train`."""

    def __init__(
        self,
        run: Run,
        task: Task,
        inputs: Inputs,
        mesh: Mesh,
        checkpoints: CheckpointWriter,
        initial: Params,
    ) -> None:
        """Traces the steps; compiles nothing yet.

        Args:
          run: configuration and environment.
          task: the task to train.
          inputs: source of batches.
          mesh: device mesh from `build_mesh`.
          checkpoints: checkpoint writer of the run.
          initial: weights of another run to start from; {} for none.

        Raises:
          InputError: `initial` does not match the model.
        """
        self.config, self.workdir, self.resolved = run.resolved.config, run.workdir, run.resolved
        self.stop, self.say, self.watchdog = run.stop, run.say, run.watchdog
        self.task, self.inputs, self.mesh, self.checkpoints = task, inputs, mesh, checkpoints
        self.first = jax.process_index() == 0
        self.saved_at = time.monotonic()
        self.saved_step: int | None = None
        # Computed now, because the shards may change during the run.
        self.data = inputs.fingerprint()

        self.compiled_steps = CompiledSteps(self.config, task, inputs.spec(), mesh)
        self.abstract, self.pretrained = self.compiled_steps.abstract, task.pretrained
        trained = auxiliary.trained(self.abstract.params, self.abstract.auxiliary)
        self.all_params = params_lib.merge(trained, self.abstract.frozen)
        name = f"init_from={self.config.init_from}"
        self.initial = starting_point.merge_initial(
            task, self.pretrained, initial, self.all_params, name=name
        )
        speed = peak(mesh.devices.flat[0].device_kind, self.config.precision)
        self.clock = Clock(peak=speed * mesh.size if speed else None)
        self.tracker: Tracker | None = None
        self.warned: set[tuple[str, str]] = set()
        self.no_flags = self._to_devices(self._flag_rows([False] * len(STOP_FLAGS)))

    # ---- start ------------------------------------------------------------------------------

    def run(self) -> TrainState:
        """Restores or initialises the state, compiles, and runs the remaining updates."""
        last = self.config.steps
        latest: int | None = broadcast.broadcast_from_first(self.checkpoints.latest())
        if latest is None:
            state = self.compiled_steps.initialise(self.initial)
        else:
            state = self._restore(latest)
        start = latest or 0
        self.clock.started()
        if self.first:
            self.tracker = self._open_tracker(start)
        failed = True
        try:
            if self._evaluation_is_missing(start):
                self._evaluate(state, start)
            if start >= last:
                self.say(f"{self.workdir}: already finished: {start} of {last} steps are done")
            else:
                state = self._steps(self._compile(), state, start)
                self.say(f"{self.workdir}: finished: {last} steps are done")
            failed = False
        except (InputError, WorkFailed) as error:
            self.watchdog.failed(error)
            raise
        finally:
            if self.tracker is not None:
                self.tracker.close(failed=failed)
        return state

    def _open_tracker(self, start: int) -> Tracker:
        run_dir.record(self.workdir, self.resolved)
        if start < self.config.steps:
            table = params_lib.table(self.all_params, self.task.frozen)
            files.write_text(self.workdir / "parameters.txt", table + "\n")
        identity = run_dir.identity(self.config)
        return Tracker(self.config, self.workdir, step=start, identity=identity, say=self.say)

    def _evaluation_is_missing(self, start: int) -> bool:
        """Returns True if the run was stopped between an update and its evaluation."""
        due = start > 0 and every(start, self.config.eval.every_steps, self.config.steps)
        due = due and self.tracker is not None and not self.tracker.file.has("eval/loss")
        return bool(broadcast.broadcast_from_first(bool(due)))

    def _restore(self, step: int) -> TrainState:
        state, meta = self.checkpoints.restore(step, self.abstract, self._read_frozen())
        if meta["data"] != self.data:
            raise InputError(
                f"--workdir {self.workdir}: was trained on other shards (their manifests changed); "
                "take another folder"
            )
        self.say(f"{self.workdir}: continuing after step {step}")
        self.saved_step = step
        return state

    def _read_frozen(self) -> Params:
        """Returns the frozen encoder weights, which checkpoints leave out, on the devices."""
        like = params_lib.split(self.abstract.frozen, checkpoints_lib.STORED_ELSEWHERE)[1]
        values = params_lib.restrict(self.pretrained, like)
        return jax.tree.map(lambda value, spec: jax.device_put(value, spec.sharding), values, like)

    def _compile(self) -> Callable[..., Any]:
        config = self.config
        trained = params_lib.count(self.abstract.params)
        frozen = params_lib.count(self.abstract.frozen)
        frames = config.data.batch_size * config.data.window_frames
        self.say(
            f"{config.name}: {trained:,} parameters ({frozen:,} fixed), {frames:,} frames a step, "
            f"{self.mesh.size} {jax.devices()[0].platform} device(s)"
            f"{_layout(self.mesh)}; compiling"
        )
        began = time.perf_counter()
        self.watchdog.beat("compiling", factor=COMPILING)
        with self.clock.time("compile"):
            compiled = self.compiled_steps.lower().compile()
            self.clock.flops = self.compiled_steps.flops()
        broadcast.barrier()
        self.say(f"compiled in {time.perf_counter() - began:.1f} s")
        return compiled

    # ---- steps ------------------------------------------------------------------------------

    def _steps(self, update: Callable[..., Any], state: TrainState, start: int) -> TrainState:
        config, last = self.config, self.config.steps
        self.clock.reset()
        pending: _Pending | None = None
        if "stop" in requested(self.compiled_steps.combine_flags(self._stop_flags())):
            self._stop(state, start)
        self.watchdog.beat("starting to read data", factor=COMPILING)
        profiler = Profiler(config.log, self.workdir, self.say, on=self.first)
        with profiler, contextlib.closing(self.inputs.batches(start)) as batches:
            for step in range(start + 1, last + 1):
                self.watchdog.beat(f"doing step {step}")
                profiler.at(step)
                with self.clock.time("data"):
                    local = next(batches)
                batch, flags = self._to_devices(local), self._stop_flags()
                state, metrics, flags = update(state, batch, flags)
                # Reading the metrics of the previous update does not block on this update.
                requests = self._read(pending)
                pending = _Pending(step, metrics, flags, local)
                evaluate = every(step, config.eval.every_steps, last)
                save = every(step, config.checkpoint.every_steps, last)
                if evaluate or save or requests:
                    requests |= self._read(pending)
                    pending = None
                if "stop" in requests and step < last:
                    self._stop(state, step)
                held_out = self._evaluate(state, step) if evaluate else {}
                if evaluate and not held_out:
                    self._stop(state, step)
                if save or "save" in requests:
                    self._save(state, step, held_out)
        self.checkpoints.wait()
        return state

    def _stop_flags(self) -> jax.Array:
        """Returns this process's requests, which the next compiled step combines across devices."""
        requests = [self.stop.requested(), self.first and self._overdue()]
        return self._to_devices(self._flag_rows(requests)) if any(requests) else self.no_flags

    def _flag_rows(self, requests: Sequence[bool]) -> np.ndarray:
        return np.tile(np.asarray(requests, np.int32), (self.mesh.local_mesh.size, 1))

    def _to_devices(self, local: Any) -> Any:
        """Builds global arrays from this process's rows of a batch or of the stop flags."""
        sharding = self.compiled_steps.batch_sharding
        return jax.tree.map(
            lambda value: jax.make_array_from_process_local_data(sharding, value), local
        )

    def _read(self, pending: _Pending | None) -> set[str]:
        """Checks that the metrics of an update are finite, and logs them at the log interval.

        Returns:
          Requests of any process at that update; the same set on all processes.
        """
        if pending is None:
            return set()
        step, metrics, stop_flags, batch = pending
        # Beat here and not at dispatch, because reading the metrics waits for the device.
        self.watchdog.beat(f"doing step {step + 1}")
        if not bool(metrics["finite"]):
            raise self._not_finite(pending)
        self.clock.steps += 1
        self.clock.frames += int(np.sum(batch.length)) * jax.process_count()
        if every(step, self.config.log.every_steps, self.config.steps):
            self.checkpoints.check()
            values = {f"train/{k}": float(v) for k, v in metrics.items() if k != "finite"}
            values |= {**self.clock.read(), "perf/bad_records": self.inputs.bad_records()}
            if self.tracker is not None:
                self.tracker.train(step, values)
            self._warn(step, "train", values)
            self.clock.reset()
        return requested(stop_flags)

    def _not_finite(self, pending: _Pending) -> WorkFailed:
        step, metrics, _, batch = pending
        names = [k for k, v in metrics.items() if not np.isfinite(float(v))]
        names = [k for k in names if "_norm/" not in k]  # There is one for each group.
        examples = self.inputs.describe(batch)
        wrong = [i for i in range(len(examples)) if not _finite_example(batch, i)]
        shown = [examples[i] for i in wrong] or examples
        why = "whose data are not finite" if wrong else "of that batch"
        self.checkpoints.settle()
        saved = self.checkpoints.latest()
        last = "no checkpoint" if saved is None else f"checkpoint {saved}"
        return WorkFailed(
            f"step {step}: {', '.join(names)} not finite; clips {why}: {', '.join(shown)}; "
            f"{last} is the last good state"
        )

    # ---- evaluation, saving, stopping ---------------------------------------------------------

    def _evaluate(self, state: TrainState, step: int) -> dict[str, float]:
        """Evaluates, logs and returns held-out values; {} if a process requested a stop."""

        def eval_step(state: TrainState, batch: Batch, index: int) -> Any:
            number = np.asarray(index, np.int32)
            batch, flags = self._to_devices(batch), self._stop_flags()
            return self.compiled_steps.eval_step(state, batch, number, flags)

        def on_batch(number: int) -> None:
            self.watchdog.beat(f"evaluating batch {number} of step {step}")

        with self.clock.time("eval"):
            values = evaluation.evaluate(
                self.task, self.inputs, eval_step, state, step, on_batch=on_batch
            )
        if values:
            if self.tracker is not None:
                self.tracker.eval(step, values)
            self._warn(step, "eval", values)
        return values

    def _warn(self, step: int, part: str, values: Mapping[str, float]) -> None:
        """Prints the task's warnings about the terms, each kind once."""
        start = f"{part}/loss/"
        terms = {k.removeprefix(start): v for k, v in values.items() if k.startswith(start)}
        where = "held out: " if part == "eval" else ""
        for name, line in self.task.warnings(step, terms).items():
            if (name, part) not in self.warned:
                self.warned.add((name, part))
                self.say(f"warning: {where}{line}")

    def _save(self, state: TrainState, step: int, held_out: dict[str, float]) -> None:
        self.watchdog.beat(f"saving step {step}")
        with self.clock.time("save"):
            # Sync the log first: a run that resumes from this state needs its lines.
            if self.tracker is not None:
                self.tracker.sync()
            fingerprint = config_lib.fingerprint(self.config)
            meta = {"config": fingerprint, "data": self.data, "seed": self.config.seed}
            self.checkpoints.save(step, state, meta, held_out)
        self.saved_at, self.saved_step = time.monotonic(), step

    def _overdue(self) -> bool:
        minutes = self.config.checkpoint.every_minutes
        return minutes > 0 and time.monotonic() - self.saved_at > 60 * minutes

    def _stop(self, state: TrainState, step: int) -> None:
        """Saves the state and raises `Preempted`."""
        if step > 0 and step != self.saved_step:
            self._save(state, step, {})
        self.checkpoints.wait()
        why = self.stop.name or "another process was told to stop"
        raise Preempted(
            f"{why}: {self.workdir} is saved after step {step} of {self.config.steps}; "
            "the same command continues it"
        )


def _layout(mesh: Mesh) -> str:
    hosts = jax.process_count()
    parts = f" in {hosts} processes" if hosts > 1 else ""
    return parts + (f", copies shared by {mesh.shape['fsdp']}" if mesh.shape["fsdp"] > 1 else "")


def _finite_example(batch: Batch, index: int) -> bool:
    floats = [v for v in jax.tree.leaves(batch) if np.issubdtype(v.dtype, np.floating)]
    return all(np.isfinite(v[index]).all() for v in floats)
