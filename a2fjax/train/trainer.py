"""The training loop: one step after another until the last, from wherever the run stands."""

from __future__ import annotations

import contextlib
import functools
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh

from a2fjax import config as config_lib
from a2fjax import files, losses, tasks
from a2fjax.batch import Batch
from a2fjax.config import Config, Resolved
from a2fjax.data.feature_cache import writer
from a2fjax.data.feature_cache.reader import Stream
from a2fjax.errors import InputError, Preempted, WorkFailed, nearest
from a2fjax.models import params as params_lib
from a2fjax.models import pretrained
from a2fjax.models.params import Params
from a2fjax.sharding import compilation_cache
from a2fjax.sharding import mesh as mesh_lib
from a2fjax.sharding.hardware import peak
from a2fjax.tasks.base import Task
from a2fjax.train import checkpoints as checkpoints_lib
from a2fjax.train import run_dir as folder_lib
from a2fjax.train.checkpoints import Checkpoints
from a2fjax.train.clock import Clock
from a2fjax.train.compiled_steps import VOTES, Programs, place
from a2fjax.train.distributed import session
from a2fjax.train.distributed.preemption import StopRequest
from a2fjax.train.distributed.session import Watch
from a2fjax.train.inputs import Inputs, ShardInputs
from a2fjax.train.profiler import Profiler
from a2fjax.train.state import TrainState
from a2fjax.train.tracking import Tracker, every


def train(
    resolved: Resolved,
    workdir: Path,
    *,
    task: Task | None = None,
    inputs: Inputs | None = None,
    say: Callable[[str], None] | None = None,
    watch: Watch | None = None,
) -> TrainState:
    """Trains until `config.steps` updates are done, continuing what is in `workdir`.

    Args:
      resolved: the experiment.
      workdir: run folder; made if it does not exist. The same call on it again continues the run
        and gives the numbers an undisturbed run would have given.
      task: what to train; built from the configuration by default.
      inputs: where batches come from; the configuration's shards by default.
      say: prints a line of progress; to standard output by default. With several processes only
        the first one speaks.
      watch: is told of everything that ends; see `distributed.Watch`.

    With several processes (`distributed.session`) each calls this; the first one alone writes to
    the folder, except that each writes its own arrays of a checkpoint.

    Returns:
      The state after the last update.

    Raises:
      InputError: the configuration, the shards or the folder do not fit together.
      WorkFailed: a value that is not finite, or a disk that cannot be written.
      Preempted: asked to stop by a signal; the state is saved.
    """
    first = jax.process_index() == 0
    say = (say or functools.partial(print, flush=True)) if first else _silent
    watch = watch or Watch(0)
    watch.beat("reading data and weights", factor=session.COMPILING)
    compilation_cache.enable()
    config = resolved.config
    with StopRequest() as stop:
        config_lib.check_schedule(config.optim, config.steps)
        mesh_lib.check(config)
        encoders: pretrained.Encoders = {}
        start: Params = {}
        if task is None:
            # Before the run's encoders are looked for under names that may be another run's.
            folder_lib.check(workdir, resolved)
            encoders = _encoders(config, workdir)
            constants, start = _beginning(config, workdir, encoders)
            task = tasks.build(config, constants, encoders)
        if inputs is None:
            inputs = ShardInputs(
                config,
                host=jax.process_index(),
                hosts=jax.process_count(),
                encoded=_streams(encoders) if config.data.encoder_features == "cached" else None,
            )
        mesh = place(config, task, inputs.spec())
        _check_best_metric(config, task, inputs)
        with contextlib.ExitStack() as stack:
            if first:
                stack.enter_context(folder_lib.claim(workdir, resolved))
                pretrained.save(workdir, encoders)
            session.together()
            stack.enter_context(jax.set_mesh(mesh))
            checkpoints = stack.enter_context(Checkpoints(workdir, config.checkpoint))
            run = _Run(resolved, workdir, task, inputs, mesh, checkpoints, stop, say, watch, start)
            return run.train()


def _silent(line: str) -> None:
    pass


def _encoders(config: Config, workdir: Path) -> pretrained.Encoders:
    """Returns the encoders of a run: those that it began with, or those that its features name."""
    pretrained.check_feature_source(config)
    if checkpoints_lib.steps_in(workdir / checkpoints_lib.FOLDER):
        return pretrained.restore(workdir, config.audio)
    return pretrained.load_or_restore(workdir, config.audio, config.init_from)


def _beginning(
    config: Config, workdir: Path, encoders: pretrained.Encoders
) -> tuple[dict[str, np.ndarray], Params]:
    """Returns the constants of a run and the weights that do not start at random.

    A run that goes on has its constants in its states; measuring them again would take a while.

    Raises:
      InputError: no shards, or `init_from` is no run.
    """
    if (workdir / "config.json").is_file() and checkpoints_lib.steps(workdir):
        return checkpoints_lib.load_params(workdir)[1]["constants"], {}
    if config.init_from:
        params = checkpoints_lib.load_params(config.init_from)[1]
        return params["constants"], params
    # Measured once: another machine's sums might end in other bits.
    found = tasks.constants(config, encoders=encoders) if jax.process_index() == 0 else {}
    return session.arrays_of_first(found), {}


def _streams(encoders: pretrained.Encoders) -> dict[str, Stream]:
    """Returns what caches must hold for encoders, by key."""
    return {key: writer.stream(*found) for key, found in encoders.items()}


def _check_best_metric(config: Config, task: Task, inputs: Inputs) -> None:
    """Raises `InputError` when there is no such metric, before the run folder is made."""
    if not (config.checkpoint.keep_best and config.eval.every_steps):
        return
    metric, names = config.checkpoint.best_metric, ["eval/loss"]
    if metric in names:
        return
    key, spec = jax.random.key(0), inputs.spec()
    params = jax.eval_shape(lambda batch: task.init(key, batch), spec)
    params = params_lib.merge(params, task.pretrained)
    _, terms = jax.eval_shape(
        lambda p, batch: task.loss(p, batch, key, step=jnp.int32(0), train=False), params, spec
    )
    names += [f"eval/loss/{name}" for name in terms]
    if metric not in names:
        raise InputError(f"config: checkpoint.best_metric={metric!r}{nearest(metric, names)}")


class _Pending(NamedTuple):
    """An update whose numbers have not been looked at yet."""

    step: int
    metrics: dict[str, jax.Array]
    votes: jax.Array
    batch: Batch


class _Run:
    """What the parts of the loop share; lives for one call of `train`."""

    def __init__(
        self,
        resolved: Resolved,
        workdir: Path,
        task: Task,
        inputs: Inputs,
        mesh: Mesh,
        checkpoints: Checkpoints,
        stop: StopRequest,
        say: Callable[[str], None],
        watch: Watch,
        start: Params,
    ) -> None:
        config = resolved.config
        self.resolved, self.config, self.workdir = resolved, config, workdir
        self.task, self.inputs = task, inputs
        self.mesh, self.checkpoints, self.stop, self.say = mesh, checkpoints, stop, say
        self.watch = watch
        self.first = jax.process_index() == 0
        self.saved_at = time.monotonic()
        self.saved_step: int | None = None
        # Of the shards this run reads, whatever becomes of the files meanwhile.
        self.data = inputs.fingerprint()

        spec = inputs.spec()
        self.programs = Programs(config, task, spec, mesh)
        self.abstract, self.pretrained = self.programs.abstract, task.pretrained
        if start:
            whole = params_lib.merge(self.abstract.params, self.abstract.frozen)
            start = params_lib.overlay(self.pretrained, task.warm_start(start))
            checkpoints_lib.check_params(start, whole, name=f"init_from={config.init_from}")
        self.start = start or self.pretrained
        most = peak(mesh.devices.flat[0].device_kind, config.precision)
        self.clock = Clock(peak=most * mesh.size if most else None)
        self.silence = self._to_devices(self._ballots([False] * len(VOTES)))

    # ---- start ------------------------------------------------------------------------------

    def train(self) -> TrainState:
        """Restores or initialises, compiles, runs the steps, and closes what was opened."""
        config, last = self.config, self.config.steps
        start = self._latest()
        state = self._restore(start) if start is not None else self.programs.initialise(self.start)
        start = start or 0
        self.clock.started()
        tracker: Tracker | None = None
        if self.first:
            folder_lib.record(self.workdir, self.resolved)
            table = params_lib.table(params_lib.merge(self.abstract.params, self.abstract.frozen))
            if start < last:
                files.write_text(self.workdir / "parameters.txt", table + "\n")
            tracker = Tracker(
                config,
                self.workdir,
                step=start,
                identity=folder_lib.identity(config),
                say=self.say,
            )
        self.tracker = tracker
        failed = True
        try:
            # A stop between an update and its evaluation left the evaluation to us.
            due = every(start, config.eval.every_steps, last) and start > 0
            due = due and tracker is not None and not tracker.file.has("eval/loss")
            if session.of_first(bool(due)):
                self._evaluate(state, start)
            if start >= last:
                self.say(f"{self.workdir}: already finished: {start} of {last} steps are done")
            else:
                state = self._steps(self._compile(), state, start)
                self.say(f"{self.workdir}: finished: {last} steps are done")
            failed = False
        finally:
            if tracker is not None:
                tracker.close(failed=failed)
        return state

    def _latest(self) -> int | None:
        """Returns the newest complete state, as the first process sees the disk."""
        latest: int | None = session.of_first(self.checkpoints.latest())
        return latest

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
        """Returns the encoders' frozen weights on the devices; checkpoints leave them out."""
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
        self.watch.beat("compiling", factor=session.COMPILING)
        with self.clock.time("compile"):
            compiled = self.programs.lower().compile()
            self.clock.flops = self.programs.flops()
        session.together()
        self.say(f"compiled in {time.perf_counter() - began:.1f} s")
        return compiled

    # ---- steps ------------------------------------------------------------------------------

    def _steps(self, update: Callable[..., Any], state: TrainState, start: int) -> TrainState:
        config, last = self.config, self.config.steps
        self.clock.reset()
        pending: _Pending | None = None
        if "stop" in self._agreed():
            self._stop(state, start)
        self.watch.beat("starting to read data", factor=session.COMPILING)
        profiler = Profiler(config.log, self.workdir, self.say, on=self.first)
        with profiler, contextlib.closing(self.inputs.batches(start)) as batches:
            for step in range(start + 1, last + 1):
                self.watch.beat(f"doing step {step}")
                profiler.at(step)
                with self.clock.time("data"):
                    local = next(batches)
                state, metrics, votes = update(state, self._to_devices(local), self._votes())
                # The numbers of the update before this one: the device is never waited for.
                asked = self._look_at(pending)
                pending = _Pending(step, metrics, votes, local)
                evaluate = every(step, config.eval.every_steps, last)
                save = every(step, config.checkpoint.every_steps, last)
                if evaluate or save or asked:
                    asked |= self._look_at(pending)
                    pending = None
                if "stop" in asked and step < last:
                    self._stop(state, step)
                held_out = self._evaluate(state, step) if evaluate else {}
                if evaluate and not held_out:
                    self._stop(state, step)
                if save or "save" in asked:
                    self._save(state, step, held_out)
        self.checkpoints.wait()
        return state

    def _votes(self) -> jax.Array:
        """Returns what this process asks of all, for the next program to count."""
        asked = [self.stop.requested(), jax.process_index() == 0 and self._overdue()]
        if not any(asked):
            return self.silence
        return self._to_devices(self._ballots(asked))

    def _agreed(self) -> set[str]:
        """Returns what is asked for by any process, for where no program runs anyway."""
        return _asked(self.programs.count(self._votes()))

    def _ballots(self, asked: Sequence[bool]) -> np.ndarray:
        return np.tile(np.asarray(asked, np.int32), (self.mesh.local_mesh.size, 1))

    def _to_devices(self, local: Any) -> Any:
        """Returns a batch of all processes, or stop flags, of this process's rows."""
        sharding = self.programs.batch_sharding
        return jax.tree.map(
            lambda value: jax.make_array_from_process_local_data(sharding, value), local
        )

    def _look_at(self, pending: _Pending | None) -> set[str]:
        """Stops on values that are not finite; logs when it is time to.

        Returns:
          What was asked for at that update, by any process; the same on all.
        """
        if pending is None:
            return set()
        step, metrics, votes, batch = pending
        # Here, not where an update is begun: this waits until the device has finished it.
        self.watch.beat(f"doing step {step + 1}")
        if not bool(metrics["finite"]):
            raise self._not_finite(pending)
        self.clock.steps += 1
        self.clock.frames += _frames(batch)
        asked = _asked(votes)
        if not every(step, self.config.log.every_steps, self.config.steps):
            return asked
        self.checkpoints.check()
        values = {f"train/{k}": float(v) for k, v in metrics.items() if k != "finite"}
        values |= {**self.clock.read(), "perf/bad_records": self.inputs.bad_records()}
        if self.tracker is not None:
            self.tracker.train(step, values)
        self.clock.reset()
        return asked

    def _not_finite(self, pending: _Pending) -> WorkFailed:
        step, metrics, _, batch = pending
        names = [k for k, v in metrics.items() if not np.isfinite(float(v))]
        names = [k for k in names if "_norm/" not in k]  # Those of groups are too many.
        examples = self.inputs.describe(batch)
        wrong = [i for i in range(len(examples)) if not _finite_example(batch, i)]
        which = [examples[i] for i in wrong] or examples
        why = "whose data are not finite" if wrong else "of that batch"
        self.checkpoints.settle()
        saved = self.checkpoints.latest()
        last = "no checkpoint" if saved is None else f"checkpoint {saved}"
        return WorkFailed(
            f"step {step}: {', '.join(names)} not finite; clips {why}: {', '.join(which)}; "
            f"{last} is the last good state"
        )

    # ---- what happens now and then ----------------------------------------------------------

    def _evaluate(self, state: TrainState, step: int) -> dict[str, float]:
        """Returns held-out loss and terms of the averaged parameters; {} when asked to stop."""
        with self.clock.time("eval"):
            terms: dict[str, losses.WeightedSum] = {}
            sets: dict[str, dict[str, losses.WeightedSum]] = {}
            votes = None
            with contextlib.closing(self.inputs.eval_batches()) as batches:
                for index, local in enumerate(batches):
                    self.watch.beat(f"evaluating batch {index + 1} of step {step}")
                    if votes is not None and "stop" in _asked(votes):
                        return {}
                    parts = self.inputs.eval_sets(index)
                    for name in parts or [""]:
                        # Sums over examples: those of the sets add up to that of the batch.
                        batch = _only(local, parts[name]) if parts else local
                        found, votes = self.programs.eval_step(
                            state, self._to_devices(batch), _index(index), self._votes()
                        )
                        terms = losses.merge(terms, found) if terms else found
                        own = sets.get(name)
                        sets[name] = losses.merge(own, found) if own else found
            if votes is not None and "stop" in _asked(votes):
                return {}
            values = self._values("eval", terms)
            for name in filter(None, sets):
                values |= self._values(f"eval/set/{name}", sets[name])
        if not np.isfinite(list(values.values())).all():
            raise WorkFailed(f"step {step}: the held-out loss is not finite: {values}")
        if self.tracker is not None:
            self.tracker.eval(step, values)
        return values

    def _values(self, prefix: str, terms: dict[str, losses.WeightedSum]) -> dict[str, float]:
        values = {f"{prefix}/loss": float(self.task.total(terms))}
        return values | {f"{prefix}/loss/{name}": float(t.value) for name, t in terms.items()}

    def _save(self, state: TrainState, step: int, held_out: dict[str, float]) -> None:
        self.watch.beat(f"saving step {step}")
        with self.clock.time("save"):
            # On disk before the state is: a run that continues from it must find its lines.
            if self.tracker is not None:
                self.tracker.sync()
            meta = {
                "config": config_lib.fingerprint(self.config),
                "data": self.data,
                "seed": self.config.seed,
            }
            self.checkpoints.save(step, state, meta, held_out)
        self.saved_at, self.saved_step = time.monotonic(), step

    def _overdue(self) -> bool:
        minutes = self.config.checkpoint.every_minutes
        return minutes > 0 and time.monotonic() - self.saved_at > 60 * minutes

    def _stop(self, state: TrainState, step: int) -> None:
        """Saves what there is and leaves."""
        if step > 0 and step != self.saved_step:
            self._save(state, step, {})
        self.checkpoints.wait()
        why = self.stop.name or "another process was told to stop"
        raise Preempted(
            f"{why}: {self.workdir} is saved after step {step} of {self.config.steps}; "
            "the same command continues it"
        )


def _asked(votes: jax.Array) -> set[str]:
    return {name for name, vote in zip(VOTES, np.asarray(votes), strict=True) if vote}


def _layout(mesh: Mesh) -> str:
    hosts = jax.process_count()
    parts = f" in {hosts} processes" if hosts > 1 else ""
    return parts + (f", copies shared by {mesh.shape['fsdp']}" if mesh.shape["fsdp"] > 1 else "")


def _index(index: int) -> np.ndarray:
    return np.asarray(index, np.int32)


def _only(batch: Batch, rows: np.ndarray) -> Batch:
    """Returns the batch with only the frames of some of its examples counted."""
    return batch.replace(frame_mask=batch.frame_mask & rows[:, None])


def _frames(batch: Batch) -> int:
    return int(np.sum(batch.length)) * jax.process_count()


def _finite_example(batch: Batch, index: int) -> bool:
    floats = [v for v in jax.tree.leaves(batch) if np.issubdtype(v.dtype, np.floating)]
    return all(np.isfinite(v[index]).all() for v in floats)
