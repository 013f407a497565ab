"""Batches of training windows as a pure function of (seed, step): no state to save or restore.

The batch of step s holds windows `s * B` to `s * B + B - 1` of one endless order
(`window_sampler.Plan`), each augmented by a generator seeded with its index. Host h takes the h-th
of `hosts` contiguous parts of every batch. Nothing else determines a window, so the global batches
are the same for any number of hosts, worker processes and threads, and a run resumes at its step.

A grain `MapDataset` computes single batches; `batch_iterator` reads them ahead.
"""

from __future__ import annotations

import dataclasses
import hashlib
import json
from collections.abc import Mapping

import grain
import numpy as np

from a2fjax.batch import Batch
from a2fjax.configuration import Config
from a2fjax.data import mixture, window_sampler
from a2fjax.data.batch_iterator import Batches
from a2fjax.data.dataset import ClipSource
from a2fjax.data.feature_cache.format import FeatureSpec
from a2fjax.data.feature_cache.reader import Reader
from a2fjax.data.window_builder import (
    HostIndex,
    WindowBuilder,
    context_frames,
    encoder_names,
    load_identities,
    stack,
)
from a2fjax.errors import InputError

_STEPS = 1 << 40
"""Length of the endless dataset; grain needs one."""


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

    Example:
      >>> config = Config()
      >>> spec(config).motion.shape == (config.data.batch_size, config.data.window_frames, 72)
      True
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
    build = WindowBuilder(
        source,
        load_identities(source, config),
        config,
        plan,
        train,
        _reader(source, cached),
    )
    to_global = HostIndex(config.data.batch_size, size, host)
    data = grain.MapDataset.range(start_step * size, _STEPS * size).map(to_global).map(build)
    return Batches(data.batch(size, batch_fn=stack), source, config.data)


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
    build = WindowBuilder(
        source,
        load_identities(source, config),
        config,
        places,
        False,
        _reader(source, cached),
    )
    to_global = HostIndex(config.data.batch_size, size, host)
    data = grain.MapDataset.range(0, batches * size).map(to_global).map(build)
    # Workers take seconds to start, longer than these few batches need.
    few = dataclasses.replace(config.data, workers=0)
    return Batches(data.batch(size, batch_fn=stack), source, few)


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
