"""Computes a model's constants from manifests, neutral meshes and clips of its training data."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np

from a2fjax import mesh_descriptor, rig
from a2fjax.configuration import Config, DataConfig, NvidiaConfig, SyncConfig
from a2fjax.data import mixture, padding, records, subjects
from a2fjax.data.dataset import ClipSource
from a2fjax.data.feature_cache import reader, writer
from a2fjax.data.identity import parallel, surface
from a2fjax.data.identity import points as identity
from a2fjax.encoders.speech_encoder import compiled_apply
from a2fjax.errors import InputError
from a2fjax.models import conditioning, familiarity, pretrained
from a2fjax.models.pretrained import Encoders
from a2fjax.tasks import conditions, moments, people

_STD_FLOOR = 0.01


def motion_statistics(
    manifests: Sequence[records.Manifest],
    split: str,
    amounts: Sequence[float] | np.ndarray | None = None,
) -> tuple[np.ndarray, ...]:
    """Pools the motion statistics of several datasets.

    Args:
      manifests: manifests of the datasets.
      split: the split to use.
      amounts: weight of each dataset, such as its share of the windows (`mixture.shares`); None
        weights by the number of frames in `split`.

    Returns:
      mean [72] and standard deviation [72] in rig units. Only datasets that observe a channel count
      for it; a channel that none observes has mean and deviation 0, so that a model leaves it at
      rest.
    """
    weight = np.zeros(rig.NUM_CHANNELS)
    first = np.zeros(rig.NUM_CHANNELS)
    second = np.zeros(rig.NUM_CHANNELS)
    if amounts is None:
        amounts = mixture.frames_by_set(manifests, split)
    for manifest, amount in zip(manifests, amounts, strict=True):
        share = amount * np.asarray(manifest.channel_mask, np.float64)
        if not share.any():
            continue  # A dataset without clips in the split may lack statistics of it.
        mean = np.asarray(manifest.statistics["motion_mean"], np.float64)
        std = np.asarray(manifest.statistics["motion_std"], np.float64)
        weight += share
        first += share * mean
        second += share * (mean**2 + std**2)
    observed = weight > 0
    weight = np.where(observed, weight, 1.0)
    mean = first / weight
    std = np.sqrt(np.maximum(second / weight - mean**2, 0.0))
    std = np.where(observed, np.maximum(std, _STD_FLOOR * rig.SCALE), 0.0)
    return mean.astype(np.float32), std.astype(np.float32)


def emotion_means(
    manifests: Sequence[records.Manifest],
    split: str,
    amounts: Sequence[float] | np.ndarray | None = None,
) -> np.ndarray:
    """Pools the mean pose of each emotion over datasets; arguments as in `motion_statistics`.

    Returns:
      [5, 72] in rig units. A dataset's weight for an emotion is the number of frames in which that
      emotion is strongest; a channel that no dataset observes with the emotion has the mean over
      all emotions.
    """
    total = np.zeros((rig.NUM_EMOTIONS, rig.NUM_CHANNELS))
    weight = np.zeros_like(total)
    mean = motion_statistics(manifests, split, amounts)[0]
    frames = mixture.frames_by_set(manifests, split)
    each = np.ones(len(frames)) if amounts is None else amounts / np.maximum(frames, 1)
    for manifest, scale in zip(manifests, each, strict=True):
        entries = manifest.entries(split)
        for e, name in enumerate(rig.EMOTIONS):
            pose = manifest.statistics["emotion_mean"].get(name)
            if pose is not None:
                shown = sum(x["frames"] for x in entries if x["emotion"] == name)
                # Blends define an emotion's mean even if it dominates no clip.
                share = scale * max(shown, 1) * np.asarray(manifest.channel_mask, np.float64)
                total[e] += share * np.asarray(pose)
                weight[e] += share
    known = weight > 0
    return np.where(known, total / np.where(known, weight, 1.0), mean)


def dataset_weights(
    data: DataConfig, folders: Sequence[str | Path], manifests: Sequence[records.Manifest]
) -> np.ndarray:
    """Returns the weight of each dataset in statistics of the training split [S].

    Raises:
      InputError: as for `mixture.shares`.
    """
    frames = mixture.frames_by_set(manifests, data.split)
    if not data.weights:
        return frames
    return mixture.shares(data, [str(f) for f in folders], frames, data.split)


def training_meshes(folder: Path, manifest: records.Manifest, split: str) -> list[Path]:
    """Returns the mesh files of subjects with a clip in `split`, in the manifest's order."""
    present = {entry["subject"] for entry in manifest.entries(split)}
    return [folder / s.mesh for s in manifest.subjects if s.id in present and s.mesh is not None]


STATISTICS_CLIPS = 24
"""Number of clips for measuring hidden states, spread evenly over the training split."""


def hidden_state_statistics(
    data: DataConfig, folders: Sequence[str | Path], encoders: Encoders
) -> dict[str, np.ndarray]:
    """Measures the statistics of encoders' hidden states on all frames of training clips.

    With `data.encoder_features="cached"`, the hidden states are read from the cache and no encoder
    runs; the results agree up to the rounding of the cache.

    Args:
      data: data configuration, with the split and the source of the hidden states.
      folders: folders of shards.
      encoders: encoders with their parameters, by key.

    Returns:
      "<key>_mean" and "<key>_std" [S, D] per encoder, over at most `STATE_CLIPS` clips; deviations
      are at least a thousandth of the largest one.

    Raises:
      InputError: no clip in the split, or a cache that is missing, stale or damaged.
    """
    if not encoders:
        return {}
    clips = ClipSource(folders, data.split)
    cache = None
    if data.encoder_features == "cached":
        specs = {key: writer.feature_spec(*each) for key, each in encoders.items()}
        cache = reader.Reader(clips.folders, clips.manifests, specs, cache_bytes=0)
    chosen = clips.spread(STATISTICS_CLIPS)
    # Pad to one length so that one compiled program serves all clips.
    frames = -(-int(clips.frames[chosen].max()) // padding.BUCKET) * padding.BUCKET
    out: dict[str, np.ndarray] = {}
    for key, (encoder, params) in encoders.items():
        run, on_device = (
            compiled_apply(encoder),
            params if cache else jax.device_put(params),
        )
        count, first, second = 0, np.zeros(()), np.zeros(())
        for index in chosen:
            number, clip, _ = clips.get(int(index))
            if cache is not None:
                states = cache.read(key, clips.entries[number], clip=clip).astype(np.float64)
            else:
                audio, length = padding.padded_audio(clip, frames)
                states = np.asarray(run(on_device, audio[None], np.array([length])), np.float64)
                states = states[0, :length]
            count += len(states)
            first, second = first + states.sum(0), second + (states**2).sum(0)
        mean = first / count
        std = np.sqrt(np.maximum(second / count - mean**2, 0.0))
        std = np.maximum(std, max(1e-3 * std.max(), 1e-6))
        out |= {f"{key}_mean": mean.astype(np.float32), f"{key}_std": std.astype(np.float32)}
    return out


def identity_statistics(
    config: Config,
    folders: Sequence[Path],
    manifests: Sequence[records.Manifest],
    weights: np.ndarray,
) -> dict[str, np.ndarray]:
    """Measures the neutral meshes of the split's subjects; datasets of weight 0 are left out.

    Returns:
      "identity_mean" and "identity_projection" of `conditioning.standardisation`,
      "identity_deviation" and "identity_bounds" of `familiarity.spread`.

    Raises:
      InputError: an unreadable mesh, or `model.identity` is "mesh" and no subject has one.
    """
    count, normals = config.data.identity_points, config.model.identity_normals
    meshes: list[Path] = []
    if config.model.identity == "mesh":
        for path, manifest, weight in zip(folders, manifests, weights, strict=True):
            if weight:
                meshes += training_meshes(path, manifest, config.data.split)
        if not meshes:
            raise InputError(
                f"model.identity='mesh': no subject of split {config.data.split!r} in "
                f"{', '.join(map(str, folders))} has a mesh; set model.identity='none'"
            )
    width = mesh_descriptor.width(normals)
    rows, repeated = np.zeros((len(meshes), width)), np.zeros((len(meshes), mesh_descriptor.WIDTH))
    parallel.prepare(meshes, count, normals=normals)
    for i, mesh in enumerate(meshes):
        points = identity.mesh_points(mesh, count, normals=normals)
        rows[i] = np.asarray(conditioning.descriptor(jnp.asarray(points[None])))[0]
        # The surface itself separates the shape from the sampling noise of the points.
        repeated[i] = surface.describe(*records.read_mesh(mesh))
    exact = np.concatenate([repeated, rows[:, mesh_descriptor.WIDTH :]], axis=1)
    mean, projection = conditioning.standardisation(rows, exact if len(rows) else None)
    deviation, bounds = familiarity.spread(repeated, mesh_descriptor.GROUPS)
    return {
        "identity_mean": mean,
        "identity_projection": projection,
        "identity_deviation": deviation,
        "identity_bounds": bounds,
    }


def constants(
    config: Config,
    folders: Sequence[str | Path] | None = None,
    encoders: Encoders | None = None,
) -> dict[str, np.ndarray]:
    """Computes the constants of a model from its training split.

    Args:
      config: configuration; uses `data`, `audio` and `model`.
      folders: folders of shards; None for `config.data.shards`.
      encoders: encoders with their parameters, by key; None reads those of `config.audio`.

    Returns:
      "motion_mean", "motion_std" [72] in rig units; the results of `identity_statistics` over the
      split's subjects with a mesh, of `conditions.emotion_statistics` and
      `conditions.sound_statistics`, of `hidden_state_statistics` for encoders, and of
      `moments.constants` for NVIDIA's networks, of `people.constants` for sync experts.
      Datasets are weighted by `data.weights`; all subjects count equally, because the shape of a
      head does not depend on the amount of speech. With `model.identity_residual` also "subjects",
      the `conditioning.encode_names` of `subjects.training`.

    Raises:
      InputError: no folder, an unreadable manifest or mesh, no clip in the split, weights that do
        not fit the datasets, or `model.identity` is "mesh" and no subject of the split has one.
    """
    paths = [Path(f) for f in (config.data.shards if folders is None else folders)]
    if not paths:
        raise InputError("data.shards is empty: expected a folder that data_pipeline.build wrote")
    manifests = [records.read_manifest(path) for path in paths]
    records.check_split(config.data.split, manifests, paths)
    counts = dataset_weights(config.data, paths, manifests)
    mean, std = motion_statistics(manifests, config.data.split, counts)
    identities = identity_statistics(config, paths, manifests, counts)
    if encoders is None:
        encoders = pretrained.load(config.audio)
    network: dict[str, np.ndarray] = {}
    if isinstance(config.model, NvidiaConfig):
        network = moments.constants(config, paths, manifests, counts, mean)
    if isinstance(config.model, SyncConfig):
        network = people.constants(config, paths, manifests)
    values = {
        "motion_mean": mean,
        "motion_std": std,
        **identities,
        **conditions.emotion_statistics(manifests, config.data.split, counts),
        **conditions.sound_statistics(paths, config.data.split),
        **hidden_state_statistics(config.data, paths, encoders),
        **network,
    }
    if config.model.identity_residual:
        names = subjects.training(
            [str(p) for p in paths], manifests, config.data.split, config.data.weights
        )
        values["subjects"] = conditioning.encode_names(list(names.values()))
    return values
