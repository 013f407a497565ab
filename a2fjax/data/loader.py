"""Batches of training windows as a pure function of (seed, step): no state to save or restore.

The batch of step s holds windows `s * B` to `s * B + B - 1` of one endless order (`windows.Plan`),
each augmented by a generator seeded with its index. Host h takes the h-th of `hosts` contiguous
parts of every batch. Nothing else decides what a window is, so the global batches are the same for
any number of hosts, worker processes and threads, and a run resumes by starting at its step.

Everything is a grain `MapDataset` up to and including the batch; only then are batches read ahead.
"""

from __future__ import annotations

import dataclasses
import hashlib
import json
import math
import os
import sys
import threading
import time
import weakref
from collections.abc import Iterator, Mapping
from typing import Any

import grain
import jax
import numpy as np
from absl import flags

from a2fjax import signals
from a2fjax.batch import Batch
from a2fjax.config import AugmentConfig, Config
from a2fjax.data import augment, mixture, records, subjects, window_sampler
from a2fjax.data.dataset import ClipSource
from a2fjax.data.feature_cache.format import FeatureSpec
from a2fjax.data.feature_cache.reader import Reader
from a2fjax.data.identity.points import mesh_points
from a2fjax.errors import InputError

_STEPS = 1 << 40
"""Batches an endless data set is said to have; grain wants a length."""

_NO_AUGMENT = AugmentConfig(enabled=False)

_CACHE = -1
"""Among bad records: states that cannot be read, which no other clip's stand in for."""


FeatureSpecs = Mapping[str, FeatureSpec]
"""Encoders whose hidden states are read from feature caches, by key."""


def spec(config: Config, hosts: int = 1, cached: FeatureSpecs | None = None) -> Batch:
    """Returns a batch of `jax.ShapeDtypeStruct`s, without reading anything.

    Args:
      config: of the experiment.
      hosts: over which the global batch is divided; 1 gives the global batch.
      cached: encoders whose hidden states are read from feature caches, by key.

    Raises:
      InputError: the batch size cannot be divided over the hosts.
    """
    data = config.data
    return Batch.spec(
        _host_batch(config, hosts),
        data.window_frames,
        data.identity_points,
        normals=config.model.identity_normals,
        context_frames=context_frames(config),
        cached={key: (spec.states, spec.width) for key, spec in (cached or {}).items()},
    )


def encoder_names(config: Config) -> list[str]:
    """Returns the features that are speech encoders; their names have a path."""
    return [name for name in config.audio.features if ":" in name]


def context_frames(config: Config) -> int:
    """Returns how many frames live encoders hear at once; 0 where there are none.

    Room for the longest clip, played as slowly as augmentation plays it.
    """
    if config.data.encoder_features != "live" or not encoder_names(config):
        return 0
    # Less than rounding adds: 1000 frames at most 1.1 times as long are 1100.
    slowed = config.data.context_frames * augment.slowest(config.data.augment) - 1e-6
    return max(math.ceil(slowed), config.data.window_frames)


def batches(
    config: Config,
    *,
    split: str | None = None,
    start_step: int = 0,
    host: int = 0,
    hosts: int = 1,
    train: bool = True,
    seed: int | None = None,
    cached: FeatureSpecs | None = None,
) -> Batches:
    """Returns the endless batches of a host from a step on.

    Args:
      config: of the experiment.
      split: of the manifests; None for `config.data.split`.
      start_step: the first batch is that of this step.
      host: index of this host.
      hosts: number of hosts; each gets `batch_size / hosts` windows a step.
      train: False leaves the windows as they are, in the same order.
      seed: None for `config.seed`.
      cached: encoders whose hidden states are read from feature caches, by key.

    Returns:
      Iterator of batches as in `spec`, with what could not be read; close it to stop its workers.

    Raises:
      InputError: no shards, no such split, weights that do not fit the sets, a damaged mesh, or a
        batch size that cannot be divided over the hosts. While reading, a record that cannot be
        read if `on_bad_record` is "raise".
    """
    size = _host_batch(config, hosts)
    if not 0 <= host < hosts:
        raise InputError(f"host {host} of {hosts}: expected 0 to {hosts - 1}")
    source = _source(config, split)
    plan = window_sampler.Plan(
        source.frames,
        config.data.window_frames,
        config.seed if seed is None else seed,
        _masses(source, config, strict=True),
    )
    make = _Window(
        source,
        _identities(source, config),
        config,
        plan,
        train,
        _reader(source, cached),
    )
    place = _HostPlace(config.data.batch_size, size, host)
    data = grain.MapDataset.range(start_step * size, _STEPS * size).map(place).map(make)
    return Batches(data.batch(size, batch_fn=_stack), source, config)


def eval_batches(
    config: Config,
    split: str,
    batches: int,
    *,
    host: int = 0,
    hosts: int = 1,
    cached: FeatureSpecs | None = None,
) -> Batches:
    """Returns `batches` batches spread evenly over a split: no chance, no augmentation.

    They come set by set. With `data.weights` the sets that have clips of the split share the
    windows by their weights, so that what is measured is the mixture that is trained on.

    Args:
      config: of the experiment.
      split: of the manifests.
      batches: number of batches.
      host: index of this host.
      hosts: as in `batches`.
      cached: as in `batches`.

    Raises:
      InputError: as `batches`.
    """
    size = _host_batch(config, hosts)
    source = _source(config, split)
    places = _even(source, config, batches)
    make = _Window(
        source,
        _identities(source, config),
        config,
        places,
        False,
        _reader(source, cached),
    )
    place = _HostPlace(config.data.batch_size, size, host)
    data = grain.MapDataset.range(0, batches * size).map(place).map(make)
    # Workers take seconds to start, longer than these few batches need.
    few = dataclasses.replace(config, data=dataclasses.replace(config.data, workers=0))
    return Batches(data.batch(size, batch_fn=_stack), source, few)


def eval_sets(config: Config, split: str, batches: int) -> tuple[tuple[str, ...], np.ndarray]:
    """Returns which set each window of `eval_batches` is of; no record is read.

    Returns:
      (names of the sets, as `mixture.names`; [batches, batch_size] int64 indices of them, of the
      global batches).

    Raises:
      InputError: as `batches`.
    """
    source = _source(config, split)
    clips = np.array([clip for clip, _ in _even(source, config, batches)], np.int64)
    return mixture.names(source.folders), source.sets[clips].reshape(batches, -1)


def fingerprint(config: Config, split: str | None = None, seed: int | None = None) -> str:
    """Returns 16 hex digits that change when the batches of some step would.

    A run that resumes with another fingerprint goes on with other data. Threads, workers and hosts
    are not part of it.

    Raises:
      InputError: as `batches`.
    """
    source = _source(config, split)
    data = dataclasses.asdict(config.data)
    for name in ("shards", "workers", "threads", "prefetch", "split"):
        del data[name]
    if not data["weights"]:
        del data["weights"]  # Runs from before there were weights go on.
    if not encoder_names(config):
        del data["encoder_features"], data["context_frames"]
    clips = [(e.folder, e.id, e.frames) for e in source.entries]
    text = json.dumps([data, source.split, config.seed if seed is None else seed, clips])
    return hashlib.sha256(text.encode()).hexdigest()[:16]


class Batches:
    """An iterator of batches that counts and names the records it could not read.

    Attributes:
      source: the clips; `clip` in a batch is an index into its entries.
    """

    def __init__(self, data: grain.MapDataset, source: ClipSource, config: Config):
        """Starts reading `data` (batches with the bad records they met) ahead."""
        self.source = source
        self._raise = config.data.on_bad_record == "raise"
        self._workers = config.data.workers
        ahead = config.data.prefetch
        if config.data.workers:
            options = grain.MultiprocessingOptions(
                num_workers=config.data.workers,
                per_worker_buffer_size=max(1, -(-ahead // config.data.workers)),
            )
            # Grain reads its own absl flags when it starts workers; programs that do not use absl
            # have never parsed any.
            if not flags.FLAGS.is_parsed():
                flags.FLAGS.mark_as_parsed()
            # One thread a worker: reading ahead of the buffer too would only hold memory.
            reading = grain.ReadOptions(num_threads=1, prefetch_buffer_size=1)
            stream = data.to_iter_dataset(reading).mp_prefetch(options, _start_worker)
        else:
            reading = grain.ReadOptions(
                num_threads=config.data.threads,
                prefetch_buffer_size=max(ahead, config.data.threads),
            )
            stream = data.to_iter_dataset(reading)
        # Worker processes end with this object or the program, whichever ends first; left to the
        # interpreter's shutdown they end in noise.
        self._reading = [iter(stream)]
        self._end = weakref.finalize(self, _stop, self._reading)

    @property
    def bad(self) -> Mapping[str, str]:
        """Reason by name (shard, record, clip) of every record found unreadable so far."""
        return {self.source.entries[i].name: why for i, why in sorted(self.source.bad.items())}

    def __iter__(self) -> Iterator[Batch]:
        """Returns itself."""
        return self

    def __next__(self) -> Batch:
        """Returns the next batch.

        Raises:
          InputError: a record of it cannot be read and the policy is "raise", or a cache's states
            cannot be read.
        """
        if not self._reading:
            raise StopIteration
        batch, bad = next(self._reading[0])
        if _CACHE in bad:
            raise InputError(bad[_CACHE])
        for index, reason in bad.items():
            if self._raise:
                raise InputError(f"{self.source.entries[index].name}: {reason}")
            self.source.note(index, reason)
        # Batches of workers lie in shared memory, which must be free for the next ones.
        return jax.tree.map(np.array, batch) if self._workers else batch

    def close(self) -> None:
        """Stops threads and worker processes; there is no next batch then."""
        self._end()


def _stop(reading: list[Any]) -> None:
    while reading:
        reading.pop().close()


def _host_batch(config: Config, hosts: int) -> int:
    size = config.data.batch_size
    if size % hosts:
        below = size // hosts * hosts
        near = f"{below} or {below + hosts}" if below else f"{hosts}"
        raise InputError(
            f"data.batch_size={size} cannot be divided over {hosts} hosts; nearest: {near}"
        )
    return size // hosts


def _source(config: Config, split: str | None) -> ClipSource:
    # Bad records travel with the batches and `Batches` raises: an exception in a worker process
    # would come back as another kind.
    source = ClipSource(config.data.shards, split or config.data.split)
    _check_context(source, config)
    return source


def _reader(source: ClipSource, cached: FeatureSpecs | None) -> Reader | None:
    if not cached:
        return None
    return Reader(source.folders, source.manifests, cached)


def _check_context(source: ClipSource, config: Config) -> None:
    """Raises `InputError` where a clip is longer than live encoders would hear."""
    longest = max(source.entries, key=lambda entry: entry.frames)
    if context_frames(config) and longest.frames > config.data.context_frames:
        raise InputError(
            f"data.context_frames={config.data.context_frames}: clip {longest.id} of "
            f"{source.folders[longest.folder]} has {longest.frames} frames; expected at least that"
        )


def _even(source: ClipSource, config: Config, batches: int) -> list[tuple[int, int]]:
    return window_sampler.even(
        source.frames,
        config.data.window_frames,
        batches * config.data.batch_size,
        _masses(source, config, strict=False),
    )


def _masses(source: ClipSource, config: Config, *, strict: bool) -> np.ndarray | None:
    if not config.data.weights:
        return None
    total = mixture.frames_by_set(source.manifests, source.split)
    share = mixture.shares(config.data, source.folders, total, source.split, strict=strict)
    return mixture.clip_masses(source.frames, source.sets, share)


@dataclasses.dataclass(frozen=True)
class _Identities:
    """Of every subject the points [S, P, 3 or 6], whether there is a mesh [S] and its number among
    those trained on [S]; subject of a clip [N].
    """

    points: np.ndarray
    known: np.ndarray
    trained: np.ndarray
    subject: np.ndarray


def _identities(source: ClipSource, config: Config) -> _Identities:
    count, normals = config.data.identity_points, config.model.identity_normals
    names = sorted({(e.folder, e.subject) for e in source.entries})
    points = np.zeros((len(names), count, 6 if normals else 3), np.float32)
    known = np.zeros(len(names), np.bool_)
    for i, (folder, name) in enumerate(names):
        mesh = source.manifests[folder].subject(name).mesh
        if mesh is not None and config.model.identity == "mesh":
            path = os.path.join(source.folders[folder], mesh)
            points[i] = mesh_points(path, count, normals=normals)
            known[i] = True
    index = {name: i for i, name in enumerate(names)}
    subject = np.array([index[e.folder, e.subject] for e in source.entries], np.int32)
    order = {p: k for k, p in enumerate(_training_subjects(source, config))}
    trained = np.array([order.get(name, subjects.UNKNOWN) for name in names], np.int32)
    return _Identities(points, known, trained, subject)


def _training_subjects(source: ClipSource, config: Config) -> dict[tuple[int, str], str]:
    return subjects.training(
        source.folders, source.manifests, config.data.split, config.data.weights
    )


@dataclasses.dataclass(frozen=True)
class _HostPlace:
    """Index of a host's window -> index in the global order; hosts hold contiguous parts."""

    batch: int
    part: int
    host: int

    def __call__(self, index: int) -> int:
        step, place = divmod(int(index), self.part)
        return step * self.batch + self.host * self.part + place


@dataclasses.dataclass
class _Window:
    """Index in the global order -> arrays of the window, and the bad records met."""

    source: ClipSource
    identities: _Identities
    config: Config
    plan: window_sampler.Plan | list[tuple[int, int]]
    train: bool
    cached: Reader | None = None
    rests: dict[int, np.ndarray | None] = dataclasses.field(default_factory=dict)

    def __call__(self, index: int) -> tuple[Batch, dict[int, str]]:
        data = self.config.data
        setting = data.augment if self.train else _NO_AUGMENT
        context: dict[str, Any] = {}
        hidden_states: dict[str, np.ndarray] = {}
        wanted = self._clip(index)
        number, clip, bad = self.source.get(wanted)
        if isinstance(self.plan, window_sampler.Plan):
            random = window_sampler.generator(self.plan.seed, window_sampler.AUGMENT, index)
            speed = augment.draw_speed(setting, random)
            need = int(np.ceil((data.window_frames - 1) * speed)) + 1
            start = self.plan.start(index, clip.frames, need)
        else:
            random, speed = np.random.default_rng(0), 1.0
            middle = self.plan[index][1] + data.window_frames / 2
            start = window_sampler.start_at(middle, clip.frames, data.window_frames)
        # Encoders hear the whole clip, changed as a whole, and the window is a part of that.
        heard = context_frames(self.config)
        begin = 0 if heard else start
        window = augment.cut(clip, begin, heard or data.window_frames, speed)
        rest = self._rest(number, clip) if setting.enabled and setting.silence_prob else None
        window = augment.augment(window, setting, random, rest=rest)
        if heard:
            first = min(round(start / speed), max(window.length - data.window_frames, 0))
            context = {
                "context_audio": window.audio,
                "context_length": np.int32(window.length),
                "context_start": np.int32(first),
            }
            window = augment.part(window, first, data.window_frames)
        if self.cached is not None:
            entry = self.source.entries[number]
            for key, spec in self.cached.specs.items():
                try:
                    states = self.cached.window(
                        key, entry, start, data.window_frames, speed, clip=clip
                    )
                except InputError as error:
                    shape = (data.window_frames, spec.states, spec.width)
                    states, bad[_CACHE] = np.zeros(shape, np.float16), str(error)
                hidden_states[key] = states
        subject = self.identities.subject[number]
        points = self.identities.points[subject]
        item = Batch(
            audio=window.audio,
            motion=window.motion,
            channel_mask=window.channel_mask,
            frame_mask=window.frame_mask,
            length=np.int32(window.length),
            identity=augment.mirror_points(points) if window.mirrored else points,
            identity_mask=self.identities.known[subject],
            # The mirror image of a person is another person.
            subject=np.int32(
                subjects.UNKNOWN if window.mirrored else self.identities.trained[subject]
            ),
            emotion=window.emotion,
            clip=np.int32(number),
            start=np.int32(start),
            cached_features=hidden_states,
            **context,
        )
        return item, bad

    def _clip(self, index: int) -> int:
        if isinstance(self.plan, window_sampler.Plan):
            return self.plan.clip(index)
        return self.plan[index][0]

    def _rest(self, number: int, clip: records.Clip) -> np.ndarray | None:
        if number not in self.rests:
            self.rests[number] = augment.rest_pose(clip)
        return self.rests[number]


def _stack(items: list[tuple[Batch, dict[int, str]]]) -> tuple[Batch, dict[int, str]]:
    bad: dict[int, str] = {}
    for _, each in items:
        bad.update(each)
    return Batch.stack([window for window, _ in items]), bad


def _start_worker(index: int, count: int) -> None:
    """Keeps a worker process off the accelerators (grain imports jax in it) and to its parent."""
    del index, count
    # Schedulers send these to all processes of a job: the one that trains decides, saves and ends.
    signals.ignore(signals.STOP_SIGNALS)
    threading.Thread(target=_end_with, args=(os.getppid(),), daemon=True).start()
    os.environ["JAX_PLATFORMS"] = "cpu"
    os.environ["XLA_PYTHON_CLIENT_PREALLOCATE"] = "false"
    if "jax" in sys.modules:
        sys.modules["jax"].config.update("jax_platforms", "cpu")


def _end_with(parent: int) -> None:
    """Ends this process when its parent is gone, which a killed one cannot see to itself."""
    while os.getppid() == parent:
        time.sleep(1.0)
    os._exit(1)
