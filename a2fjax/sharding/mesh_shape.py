"""How many devices go on which axis of the mesh, and whether a batch fits: numbers, without jax.

Submission checks it before there are devices (`launch.submission.preflight`), training again when
there are.
"""

from __future__ import annotations

import math

from a2fjax.configuration import ShardingConfig
from a2fjax.errors import InputError


def shape(config: ShardingConfig, devices: int, *, hosts: int = 1) -> tuple[int, int]:
    """Returns the sizes of the axes (data, fsdp) on that many devices.

    Raises:
      InputError: the axes do not fit the devices, or leave out some of several hosts'; names the
        key and what would fit.
    """
    for name in ("data", "fsdp"):
        size = getattr(config, name)
        if size == 0 or size < -1:
            raise InputError(f"config: sharding.{name}={size}: expected -1 or a value above 0")
    data, fsdp = config.data, config.fsdp
    if data == -1 and fsdp == -1:
        raise InputError(
            "config: sharding.data=-1 and sharding.fsdp=-1: only one of them can be -1"
        )
    if data == -1 or fsdp == -1:
        name, known = ("fsdp", fsdp) if data == -1 else ("data", data)
        if devices % known:
            fits = [d for d in range(1, devices + 1) if devices % d == 0]
            raise InputError(
                f"config: sharding.{name}={known} does not divide {devices} devices; the nearest "
                f"that does is {min(fits, key=lambda d: abs(d - known))}"
            )
        data, fsdp = (devices // known, fsdp) if data == -1 else (data, devices // known)
    if data * fsdp > devices:
        raise InputError(
            f"config: sharding.data={data} x sharding.fsdp={fsdp} needs {data * fsdp} devices, "
            f"there are {devices}; leave sharding.data=-1 to take what there is"
        )
    if hosts > 1 and data * fsdp != devices:
        raise InputError(
            f"config: sharding.data={data} x sharding.fsdp={fsdp} takes {data * fsdp} of {devices} "
            f"devices on {hosts} hosts: expected all; leave sharding.data=-1"
        )
    return data, fsdp


def check_batch(size: int, devices: int, *, hosts: int = 1, accumulate: int = 1) -> None:
    """Checks that a global batch can be cut evenly.

    Raises:
      InputError: names the value and the nearest that works.
    """
    parts = math.lcm(devices, hosts) * accumulate
    if size % parts:
        where = f"{devices} devices" + (f" on {hosts} hosts" if hosts > 1 else "")
        where += f" in {accumulate} parts (accumulate)" if accumulate > 1 else ""
        near = max(parts, round(size / parts) * parts)
        raise InputError(
            f"config: data.batch_size={size} cannot be divided over {where}; the nearest that can "
            f"is {near}"
        )
