"""Computes the axis sizes of a device mesh and checks the batch size, without JAX.

Submission runs these checks before devices are available (`launch.submission.preflight`); training
repeats them on the devices.
"""

from __future__ import annotations

import math

from a2fjax.configuration import ShardingConfig
from a2fjax.errors import InputError


def shape(config: ShardingConfig, devices: int, *, hosts: int = 1) -> tuple[int, int]:
    """Returns the sizes of the axes (data, fsdp) for a number of devices.

    Raises:
      InputError: the axes do not match the devices, or leave some devices of several hosts unused;
        the message names the key and a value that fits.
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
    """Checks that a global batch divides evenly over the devices, hosts and microbatches.

    Raises:
      InputError: it does not; the message names the value and the nearest valid one.
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
