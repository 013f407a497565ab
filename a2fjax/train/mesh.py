"""Devices as a mesh of two axes, `data` and `fsdp`, and how arrays lie on it.

The only maker of meshes: `jax.make_mesh` defaults to explicit axis types, under which Linen's
scanned recurrent cells fail, so the axes are set to automatic here.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import jax
from jax.sharding import AxisType, Mesh, NamedSharding, PartitionSpec

from a2fjax.config import MeshConfig
from a2fjax.errors import InputError

AXES = ("data", "fsdp")
FSDP_MIN_BYTES = 4 * 2**20
"""Arrays below this size are kept whole on each device: gathering them costs more than it saves."""


def shape(config: MeshConfig, devices: int) -> tuple[int, int]:
    """Returns the sizes of the axes (data, fsdp) on that many devices.

    Raises:
      InputError: the axes do not fit the devices; names the key and what would fit.
    """
    for name in AXES:
        size = getattr(config, name)
        if size == 0 or size < -1:
            raise InputError(f"config: mesh.{name}={size}: expected -1 or a value above 0")
    data, fsdp = config.data, config.fsdp
    if data == -1 and fsdp == -1:
        raise InputError("config: mesh.data=-1 and mesh.fsdp=-1: only one of them can be -1")
    if data == -1 or fsdp == -1:
        name, known = ("fsdp", fsdp) if data == -1 else ("data", data)
        if devices % known:
            fits = [d for d in range(1, devices + 1) if devices % d == 0]
            raise InputError(
                f"config: mesh.{name}={known} does not divide {devices} devices; the nearest that "
                f"does is {min(fits, key=lambda d: abs(d - known))}"
            )
        data, fsdp = (devices // known, fsdp) if data == -1 else (data, devices // known)
    if data * fsdp > devices:
        raise InputError(
            f"config: mesh.data={data} x mesh.fsdp={fsdp} needs {data * fsdp} devices, there are "
            f"{devices}; leave mesh.data=-1 to take what there is"
        )
    return data, fsdp


def make(config: MeshConfig, devices: Sequence[jax.Device] | None = None) -> Mesh:
    """Returns the mesh of a configuration over `devices` (all of them by default).

    When the axes take fewer devices than there are, the first ones are used.

    Raises:
      InputError: as `shape`.
    """
    devices = jax.devices() if devices is None else devices
    sizes = shape(config, len(devices))
    used = list(devices)[: math.prod(sizes)]
    return jax.make_mesh(sizes, AXES, axis_types=(AxisType.Auto,) * len(AXES), devices=used)


def check_batch_size(batch_size: int, mesh: Mesh, *, hosts: int = 1) -> None:
    """Checks that the global batch can be cut evenly.

    Raises:
      InputError: names the value and the nearest that works.
    """
    parts = math.lcm(mesh.size, hosts)
    if batch_size % parts:
        where = f"{mesh.size} devices" + (f" on {hosts} hosts" if hosts > 1 else "")
        near = max(parts, round(batch_size / parts) * parts)
        raise InputError(
            f"config: data.batch_size={batch_size} cannot be divided over {where}; the nearest "
            f"that can is {near}"
        )


def batch_sharding(mesh: Mesh) -> NamedSharding:
    """Returns the sharding of batches: the first axis over all devices."""
    return NamedSharding(mesh, PartitionSpec(AXES))


def replicated(mesh: Mesh) -> NamedSharding:
    """Returns the sharding of what every device holds whole."""
    return NamedSharding(mesh, PartitionSpec())


def state_shardings(abstract: Any, mesh: Mesh, *, min_bytes: int = FSDP_MIN_BYTES) -> Any:
    """Returns a sharding for each array of `abstract` (a tree with shapes and dtypes).

    Arrays of at least `min_bytes` are cut over `fsdp` along their largest axis that divides
    evenly; all others are replicated, as is everything when `fsdp` is 1.
    """
    fsdp = mesh.shape["fsdp"]

    def rule(leaf: Any) -> NamedSharding:
        fits = [axis for axis, size in enumerate(leaf.shape) if size % fsdp == 0 and size > 0]
        size = math.prod(leaf.shape) * leaf.dtype.itemsize
        if fsdp == 1 or not fits or size < min_bytes:
            return replicated(mesh)
        longest = max(fits, key=lambda axis: leaf.shape[axis])
        return NamedSharding(mesh, PartitionSpec(*[None] * longest, "fsdp"))

    return jax.tree.map(rule, abstract)


def with_shardings(abstract: Any, shardings: Any) -> Any:
    """Returns `abstract` as `ShapeDtypeStruct`s that carry their shardings.

    `shardings` is a tree of the same structure, or one sharding for all.
    """
    if isinstance(shardings, NamedSharding):
        shardings = jax.tree.map(lambda _: shardings, abstract)
    return jax.tree.map(
        lambda a, s: jax.ShapeDtypeStruct(a.shape, a.dtype, sharding=s), abstract, shardings
    )
