import re

import jax
import jax.numpy as jnp
import pytest
from jax.sharding import AbstractMesh, AxisType, PartitionSpec

from a2fjax.configuration import ShardingConfig
from a2fjax.errors import InputError
from a2fjax.sharding import device_mesh


@pytest.mark.parametrize(
    ("data", "fsdp", "devices", "expected"),
    [(-1, 1, 8, (8, 1)), (-1, 4, 8, (2, 4)), (2, -1, 8, (2, 4)), (1, 1, 8, (1, 1))],
)
def test_shape_takes_what_is_left(data, fsdp, devices, expected):
    assert device_mesh.shape(ShardingConfig(data=data, fsdp=fsdp), devices) == expected


@pytest.mark.parametrize(
    ("data", "fsdp", "says"),
    [
        (-1, 3, "sharding.fsdp=3 does not divide 8 devices; the nearest that does is 2"),
        (7, -1, "sharding.data=7 does not divide 8 devices; the nearest that does is 8"),
        (4, 4, "needs 16 devices, there are 8"),
        (-1, -1, "only one of them"),
        (0, 1, "sharding.data=0"),
        (1, -2, "sharding.fsdp=-2"),
    ],
)
def test_shape_says_what_does_not_fit(data, fsdp, says):
    with pytest.raises(InputError, match=re.escape(says)):
        device_mesh.shape(ShardingConfig(data=data, fsdp=fsdp), 8)


def abstract_mesh(data, fsdp):
    return AbstractMesh((data, fsdp), device_mesh.AXES, axis_types=(AxisType.Auto,) * 2)


def test_large_arrays_are_cut_along_their_largest_axis_that_divides():
    tree = {
        "large": jax.ShapeDtypeStruct((1024, 2048), jnp.float32),
        "odd": jax.ShapeDtypeStruct((1023, 1030), jnp.float32),
        "prime": jax.ShapeDtypeStruct((1033, 1031), jnp.float32),
        "small": jax.ShapeDtypeStruct((64, 64), jnp.float32),
        "step": jax.ShapeDtypeStruct((), jnp.int32),
    }

    def specs(**config):
        found = device_mesh.state_shardings(tree, abstract_mesh(4, 2), ShardingConfig(**config))
        return jax.tree.map(lambda s: s.spec, found)

    assert specs() == {
        "large": PartitionSpec(None, "fsdp"),
        "odd": PartitionSpec(None, "fsdp"),
        "prime": PartitionSpec(),
        "small": PartitionSpec(),
        "step": PartitionSpec(),
    }
    whole = device_mesh.state_shardings(tree, abstract_mesh(8, 1), ShardingConfig())
    assert {s.spec for s in jax.tree.leaves(whole)} == {PartitionSpec()}
    assert specs(min_mib=0.01)["small"] == PartitionSpec("fsdp")
    ruled = specs(rules={"^larg": "0", "odd|large": "replicate"})
    assert ruled["large"] == PartitionSpec("fsdp") and ruled["odd"] == PartitionSpec()
    with pytest.raises(InputError, match=re.escape("axis 0 of odd [1023, 1030] cannot be cut")):
        specs(rules={"odd": "0"})


class Device:
    device_kind = "NVIDIA H100 80GB HBM3"

    def __init__(self, number):
        self.process_index = number // 8


@pytest.mark.parametrize(
    ("preset", "gigabytes", "fsdp"),
    [("", 500, 1), ("replicate", 500, 1), ("host", 1, 8), ("all", 1, 16)]
    + [("auto", 23, 1), ("auto", 25, 8), ("auto", 193, 16), ("auto", 9999, 16)],
)
def test_a_preset_cuts_until_the_state_fits(preset, gigabytes, fsdp):
    devices = [Device(n) for n in range(16)]
    chosen = device_mesh.resolve_preset(
        ShardingConfig(preset=preset), devices, int(gigabytes * 1e9)
    )
    assert (chosen.data, chosen.fsdp) == (-1, fsdp)


def test_batch_that_cannot_be_cut_names_the_nearest():
    device_mesh.check_batch_size(16, abstract_mesh(4, 2))
    with pytest.raises(InputError, match=r"batch_size=22 .* 8 devices; .* nearest that can is 24"):
        device_mesh.check_batch_size(22, abstract_mesh(4, 2))
    with pytest.raises(InputError, match="nearest that can is 8"):
        device_mesh.check_batch_size(1, abstract_mesh(4, 2))


def test_axes_are_automatic():
    made = device_mesh.build(ShardingConfig())
    assert made.axis_names == device_mesh.AXES
    assert set(made.axis_types) == {AxisType.Auto}
