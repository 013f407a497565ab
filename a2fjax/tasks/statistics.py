"""Constants that a model takes from its training data, from manifests and neutral meshes."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import jax.numpy as jnp
import numpy as np

from a2fjax import rig
from a2fjax.config import Config
from a2fjax.data import identity, records
from a2fjax.errors import InputError
from a2fjax.models import conditioning

_STD_FLOOR = 0.01


def motion_statistics(manifests: Sequence[records.Manifest], split: str) -> tuple[np.ndarray, ...]:
    """Pools the motion statistics of several sets, each weighted by its frames in `split`.

    Returns:
      mean [72] and standard deviation [72] in rig units. A channel counts in the sets that
      observed it; one that none observed has mean and deviation 0, so a model leaves it at rest.
    """
    weight = np.zeros(rig.NUM_CHANNELS)
    first = np.zeros(rig.NUM_CHANNELS)
    second = np.zeros(rig.NUM_CHANNELS)
    for manifest in manifests:
        frames = sum(entry["frames"] for entry in manifest.entries(split))
        share = frames * np.asarray(manifest.channel_mask, np.float64)
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


def training_meshes(folder: Path, manifest: records.Manifest, split: str) -> list[Path]:
    """Returns the mesh files of the subjects with a clip in `split`, in the manifest's order."""
    present = {entry["subject"] for entry in manifest.entries(split)}
    return [folder / s.mesh for s in manifest.subjects if s.id in present and s.mesh is not None]


def constants(config: Config, folders: Sequence[str | Path] | None = None) -> dict[str, np.ndarray]:
    """Computes the constants of a model from its training split.

    Args:
      config: `data` and `model` are read.
      folders: of shards; None for `config.data.shards`.

    Returns:
      "motion_mean", "motion_std" [72] in rig units; "identity_mean" and "identity_projection" of
      `conditioning.standardisation` over the split's subjects.

    Raises:
      InputError: no folder, a manifest or mesh that cannot be read, no clip in the split, or
        `model.identity` is "mesh" and no subject of the split has one.
    """
    paths = [Path(f) for f in (config.data.shards if folders is None else folders)]
    if not paths:
        raise InputError("data.shards is empty: expected a folder that data_pipeline.build wrote")
    manifests = [records.read_manifest(path) for path in paths]
    records.check_split(config.data.split, manifests, paths)
    mean, std = motion_statistics(manifests, config.data.split)
    described: list[list[np.ndarray]] = []
    if config.model.identity == "mesh":
        for path, manifest in zip(paths, manifests, strict=True):
            for mesh in training_meshes(path, manifest, config.data.split):
                vertices, faces = records.read_mesh(mesh)
                # The second sampling tells shape from noise of the first.
                count = config.data.identity_points
                points = [
                    identity.mesh_points(mesh, count),
                    identity.sample_points(vertices, faces, count, seed=1),
                ]
                described.append(
                    list(np.asarray(conditioning.descriptor(jnp.asarray(np.stack(points)))))
                )
        if not described:
            raise InputError(
                f"model.identity='mesh': no subject of split {config.data.split!r} in "
                f"{', '.join(map(str, paths))} has a mesh; set model.identity='none'"
            )
    rows = np.array(described).reshape(-1, 2, conditioning.DESCRIPTOR_WIDTH)
    identity_mean, projection = conditioning.standardisation(rows[:, 0], rows[:, 1])
    return {
        "motion_mean": mean,
        "motion_std": std,
        "identity_mean": identity_mean,
        "identity_projection": projection,
    }
