"""Loads batches of training windows as a pure function of (seed, step), without saved state.

The batch of step s holds windows `s * B` to `s * B + B - 1` of one endless order
(`window_sampler.Plan`), each augmented by a generator seeded with its index. Host h gets the h-th
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
"""Length of the endless dataset; Grain requires a finite one."""


FeatureSpecs = Mapping[str, FeatureSpec]
"""Encoders whose hidden states are read from feature caches, by key."""


def spec(config: Config, hosts: int = 1, cached: FeatureSpecs | None = None) -> Batch:
    """Returns a batch of `jax.ShapeDtypeStruct`s without reading any files.

    Args:
      config: experiment configuration.
      hosts: number of hosts that share the global batch; 1 gives the global batch.
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
    """Returns an endless iterator over a host's batches, starting at a step.

    Args:
      config: experiment configuration.
      split: name of the split; None for `config.data.split`.
      start_step: step of the first batch.
      host: index of this host.
      hosts: number of hosts; each gets `batch_size / hosts` windows per step.
      train: False disables augmentation; the order of the windows stays the same.
      seed: None for `config.seed`.
      cached: encoders whose hidden states are read from feature caches, by key.

    Returns:
      Iterator over batches as in `spec`, which also reports unreadable records. Close it to stop
      its workers.

    Raises:
      InputError: there are no shards or no such split, the weights do not match the datasets, a
        mesh is damaged, or the batch size cannot be divided over the hosts. During iteration: a
        record cannot be read and `on_bad_record` is "raise".
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
    """Returns `batches` batches spread evenly over a split, without randomness or augmentation.

    The batches follow the order of the datasets. With `data.weights`, the datasets that have clips
    of the split share the windows by weight, so evaluation uses the same mixture as training.

    Args:
      config: experiment configuration.
      split: name of the split.
      batches: number of batches.
      host: index of this host.
      hosts: number of hosts, as in `batches`.
      cached: encoders with cached hidden states, as in `batches`.

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
    # Starting workers takes seconds, longer than reading these few batches.
    few = dataclasses.replace(config.data, workers=0)
    return Batches(data.batch(size, batch_fn=stack), source, few)


def eval_sets(config: Config, split: str, batches: int) -> tuple[tuple[str, ...], np.ndarray]:
    """Returns the dataset of each window of `eval_batches` without reading any record.

    Returns:
      (names of the datasets from `mixture.names`; [batches, batch_size] int64 indices into the
      names, for the global batches).

    Raises:
      InputError: as `batches`.
    """
    source = _source(config, split)
    clips = np.array([clip for clip, _ in _even(source, config, batches)], np.int64)
    return mixture.names(source.folders), source.sets[clips].reshape(batches, -1)


def fingerprint(config: Config, split: str | None = None, seed: int | None = None) -> str:
    """Returns 16 hex digits that change if any batch of the run would change.

    A run that resumes with another fingerprint trains on other data. The fingerprint does not cover
    threads, workers and hosts.

    Raises:
      InputError: as `batches`.
    """
    source = _source(config, split)
    data = dataclasses.asdict(config.data)
    for name in ("shards", "workers", "threads", "prefetch", "split"):
        del data[name]
    if not data["weights"]:
        del data["weights"]  # Runs that started before weights existed must still resume.
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
    # The batches carry the bad records and `Batches` raises: an exception from a worker process
    # would arrive as another type.
    source = ClipSource(config.data.shards, split or config.data.split)
    _check_context(source, config)
    return source


def _reader(source: ClipSource, cached: FeatureSpecs | None) -> Reader | None:
    if not cached:
        return None
    return Reader(source.folders, source.manifests, cached)


def _check_context(source: ClipSource, config: Config) -> None:
    """Raises `InputError` if a clip exceeds the context of live encoders."""
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
