"""Where arrays lie when a batch is cut over devices: every item stays whole on its device.

Most of a network follows from how its batch lies. What does not is said here, and only where a mesh
is set (`jax.set_mesh`); elsewhere nothing is done.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import jax
from jax import Array
from jax.sharding import AxisType, PartitionSpec

AXES = ("data", "fsdp")
"""Of the mesh; batches are cut over both."""


def num_shards() -> int:
    """Returns the devices that a batch is cut over: those of the mesh that is set, or 1."""
    mesh = jax.sharding.get_abstract_mesh()
    types = dict(zip(mesh.axis_names, mesh.axis_types, strict=True))
    if any(types.get(name) != AxisType.Auto for name in AXES):
        return 1  # None is set, or each device computes its part by itself already.
    return math.prod(mesh.shape[name] for name in AXES)


def shard_examples(x: Array, axis: int = 0) -> Array:
    """Returns x, cut over the devices along the axis of the batch and no other.

    Args:
      x: of any shape.
      axis: of the batch's items.
    """
    parts = num_shards()
    if parts == 1 or x.shape[axis] % parts:
        return x
    return jax.lax.with_sharding_constraint(x, PartitionSpec(*[None] * axis, AXES))


def replicate(tree: Any) -> Any:
    """Returns arrays that every device has all of: parameters that are to be used."""
    if num_shards() == 1:
        return tree
    return jax.tree.map(lambda x: jax.lax.with_sharding_constraint(x, PartitionSpec()), tree)


def per_example(function: Callable[..., Array]) -> Callable[..., Array]:
    """Returns `function`, each device computing it of its own items.

    For what XLA would otherwise gather the whole batch for, such as Fourier transforms.

    Args:
      function: [B, ...], and arrays that all items share, -> [B, ...]; what becomes of an item
        depends on no other.
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
