"""Builds device meshes with the axes `data` and `fsdp`, and shards arrays over them.

All meshes are built here: `jax.make_mesh` defaults to explicit axis types, under which Linen's
scanned recurrent cells fail, so the axes are set to automatic here.
"""

from __future__ import annotations

import dataclasses
import math
import re
from collections.abc import Sequence
from typing import Any

import jax
from jax.sharding import AxisType, Mesh, NamedSharding, PartitionSpec

from a2fjax.configuration import ShardingConfig
from a2fjax.errors import InputError
from a2fjax.sharding.constraints import AXES
from a2fjax.sharding.hardware import MEMORY
from a2fjax.sharding.mesh_shape import check_batch, shape

STATE_SHARE = 0.3
"""Share of a device's memory for state and gradient; the preset "auto" shards until they fit."""


def build(config: ShardingConfig, devices: Sequence[jax.Device] | None = None) -> Mesh:
    """Returns the mesh of a configuration over `devices`; all devices by default.

    If the axes need fewer devices than available, the first ones are used.

    Raises:
      InputError: as `shape`.
    """
    devices = jax.devices() if devices is None else devices
    sizes = shape(config, len(devices), hosts=len({d.process_index for d in devices}))
    used = list(devices)[: math.prod(sizes)]
    return jax.make_mesh(sizes, AXES, axis_types=(AxisType.Auto,) * len(AXES), devices=used)


def check(config: ShardingConfig, batch_size: int, accumulate: int) -> None:
    """Checks the mesh and the batch size against the available devices, without a model.

    Args:
      config: configuration of the mesh; a preset is checked as one copy of the state per device.
      batch_size: size of the global batch.
      accumulate: number of microbatches.

    Raises:
      InputError: as `shape` and `check_batch_size`.
    """
    mesh = build(ShardingConfig() if config.preset else config)
    check_batch_size(batch_size, mesh, hosts=jax.process_count(), accumulate=accumulate)


def resolve_preset(
    config: ShardingConfig, devices: Sequence[jax.Device], state_bytes: int
) -> ShardingConfig:
    """Returns the configuration with its preset replaced by axis sizes.

    "auto" selects the first of "replicate", "host" and "all" with which the state and a gradient of
    the parameters take at most `STATE_SHARE` of a device's memory, or "all" if none does.

    Args:
      config: configuration of the mesh.
      devices: all devices.
      state_bytes: size of the whole state and a gradient.
    """
    if not config.preset:
        return config
    hosts = len({d.process_index for d in devices})
    sizes = {"replicate": 1, "host": len(devices) // hosts, "all": len(devices)}
    name = config.preset
    if name == "auto":
        limit = STATE_SHARE * device_bytes(devices[0])
        name = next((n for n, parts in sizes.items() if state_bytes / parts <= limit), "all")
    return dataclasses.replace(config, data=-1, fsdp=sizes[name], preset="")


def device_bytes(device: jax.Device) -> float:
    """Returns the memory of a device in bytes; infinity if unknown, as for a CPU."""
    for part, size in MEMORY.items():
        if re.search(rf"\b{part}\b", device.device_kind):
            return size
    try:
        return float((device.memory_stats() or {}).get("bytes_limit", math.inf))
    except (jax.errors.JaxRuntimeError, NotImplementedError, AttributeError):
        return math.inf  # A device of a topology description.


def check_batch_size(batch_size: int, mesh: Mesh, *, hosts: int = 1, accumulate: int = 1) -> None:
    """Checks that the global batch divides evenly over the devices, hosts and microbatches.

    Raises:
      InputError: it does not; the message names the value and the nearest valid one.
    """
    check_batch(batch_size, mesh.size, hosts=hosts, accumulate=accumulate)


def batch_sharding(mesh: Mesh) -> NamedSharding:
    """Returns the sharding of batches: the first axis over all devices."""
    return NamedSharding(mesh, PartitionSpec(AXES))


def replicated(mesh: Mesh) -> NamedSharding:
    """Returns the sharding of arrays that every device holds in full."""
    return NamedSharding(mesh, PartitionSpec())


def state_shardings(abstract: Any, mesh: Mesh, config: ShardingConfig) -> Any:
    """Returns a sharding for each array of `abstract` (a tree with shapes and dtypes).

    Arrays of at least `config.min_mib` are sharded over `fsdp` along their largest axis that
    divides evenly, unless a pattern of `config.rules` matches their path. All others are
    replicated, and so is everything if `fsdp` is 1. The paths of moments and averages contain the
    paths of their parameters, so a rule applies to all of them.

    Raises:
      InputError: a rule's axis does not exist or does not divide evenly.
    """
    fsdp = mesh.shape["fsdp"]
    least = config.min_mib * 2**20

    def rule(path: Any, leaf: Any) -> NamedSharding:
        size = math.prod(leaf.shape) * leaf.dtype.itemsize
        if fsdp == 1 or size < least:
            return replicated(mesh)
        name = "/".join(str(getattr(k, "key", getattr(k, "name", k))) for k in path)
        rule_value = next((r for p, r in config.rules.items() if re.search(p, name)), None)
        if rule_value == "replicate":
            return replicated(mesh)
        if rule_value is not None:
            axis = int(rule_value)
            if axis >= len(leaf.shape) or leaf.shape[axis] % fsdp:
                raise InputError(
                    f"config: sharding.rules: axis {axis} of {name} {list(leaf.shape)} cannot be "
                    f"cut in {fsdp}"
                )
            return NamedSharding(mesh, PartitionSpec(*[None] * axis, "fsdp"))
        divisible = [axis for axis, n in enumerate(leaf.shape) if n % fsdp == 0 and n > 0]
        if not divisible:
            return replicated(mesh)
        longest = max(divisible, key=lambda axis: leaf.shape[axis])
        return NamedSharding(mesh, PartitionSpec(*[None] * longest, "fsdp"))

    return jax.tree_util.tree_map_with_path(rule, abstract)


def with_shardings(abstract: Any, shardings: Any) -> Any:
    """Returns `abstract` as `ShapeDtypeStruct`s that carry their shardings.

    `shardings` is a tree of the same structure, or one sharding for all.
    """
    if isinstance(shardings, NamedSharding):
        shardings = jax.tree.map(lambda _: shardings, abstract)
    return jax.tree.map(
        lambda a, s: jax.ShapeDtypeStruct(a.shape, a.dtype, sharding=s), abstract, shardings
    )
