"""Sharding constraints that keep each example of a batch on one device.

XLA derives most of a network's shardings from the sharding of its batch. These functions constrain
the rest. They have no effect unless a device mesh is set (`jax.set_mesh`).
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import jax
from jax import Array
from jax.sharding import AxisType, PartitionSpec

AXES = ("data", "fsdp")
"""Axes of the device mesh; batches are sharded over both."""


def num_shards() -> int:
    """Returns the number of devices that share a batch: the current mesh's size, or 1."""
    mesh = jax.sharding.get_abstract_mesh()
    types = dict(zip(mesh.axis_names, mesh.axis_types, strict=True))
    if any(types.get(name) != AxisType.Auto for name in AXES):
        return 1  # No mesh is set, or this code already runs per device.
    return math.prod(mesh.shape[name] for name in AXES)


def replicate(tree: Any) -> Any:
    """Returns the tree with all arrays replicated, as parameters are for computing."""
    if num_shards() == 1:
        return tree
    return jax.tree.map(lambda x: jax.lax.with_sharding_constraint(x, PartitionSpec()), tree)


def per_example(function: Callable[..., Array]) -> Callable[..., Array]:
    """Returns `function` mapped over the devices, so that each device computes its own examples.

    Use it for operations for which XLA would gather the whole batch, such as Fourier transforms.

    Args:
      function: ([B, ...], arrays shared by all examples) -> [B, ...]; the result for an example
        must not depend on the others.
    """

    def mapped(x: Array, *shared: Array) -> Array:
        parts = num_shards()
        if parts == 1 or x.shape[0] % parts:
            return function(x, *shared)
        spec = PartitionSpec(AXES)
        specs = (spec, *[PartitionSpec()] * len(shared))
        inside = jax.shard_map(function, in_specs=specs, out_specs=spec, check_vma=False)
        out: Array = inside(x, *shared)
        return out

    return mapped
