"""Predicts step time and weak-scaling efficiency of a compiled step from assumed speeds.

    compute   the longer of FLOPs / (share of peak x peak) and kernels x time of the shortest kernel
    exchange  sum over collectives of bytes on the wire / speed + latency

Without overlap, a step takes the sum of both; with perfect overlap, the longer of the two. A real
step is in between. Efficiency is compute / step: the time on a single device with the same batch
per device, divided by the time on all devices.

The rings of a group on several hosts use as many network cards of a host as the group has devices
there, and each card carries an equal share (NCCL's multi-ring layout). The speed of such a group is
the lower of a device's link to its neighbours and that many cards.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import Any

from a2fjax.sharding import hardware

MEMORY = hardware.MEMORY["H100"]
"""Memory of an H100 SXM in bytes (data sheet)."""

BY_DEFAULT = 0.75
"""Share of the memory that JAX allocates unless XLA_PYTHON_CLIENT_MEM_FRACTION is set."""

PEAK = dict(zip(("bfloat16", "float32"), hardware.PEAKS["H100"], strict=True))
"""Peak FLOP/s of an H100 SXM without sparsity (data sheet): bf16, and TF32, which JAX uses by
default for float32 matrix products on such GPUs."""

_RINGS = ("all-reduce", "all-gather", "reduce-scatter", "collective-broadcast")


@dataclasses.dataclass(frozen=True, kw_only=True)
class Speeds:
    """Assumed speeds of a prediction.

    Attributes:
      intra: GB/s that a device sends within its host: NVLink 4, 900 GB/s in both directions.
      inter: GB/s that a device sends to other hosts: one 400 Gb/s InfiniBand card per GPU.
      mfu: share of the peak that matrix products reach; an assumption. Small networks such as these
        reach less than large language models.
      kernel_us: duration of the shortest kernel with its launch in microseconds; an assumption.
      latency_us: duration of a collective of 8 bytes in microseconds, within a host and across
        hosts; assumptions.
    """

    intra: float = 450.0
    inter: float = 50.0
    mfu: float = 0.3
    kernel_us: float = 3.0
    latency_us: tuple[float, float] = (10.0, 30.0)


def seconds_of(row: Mapping[str, Any], speeds: Speeds) -> tuple[float, float]:
    """Returns (transfer seconds, latency seconds) of a row of `collectives.summary`."""
    crosses = row["hosts"] > 1
    speed = speeds.intra
    if crosses:
        cards = row["group"] / row["hosts"] if row["kind"] in _RINGS else 1
        speed = min(speeds.intra, speeds.inter * cards)
    return row["wire"] / (speed * 1e9), row["count"] * speeds.latency_us[crosses] * 1e-6


def predict(facts: Mapping[str, Any], speeds: Speeds) -> dict[str, Any]:
    """Predicts the time of a step.

    Args:
      facts: statistics from `compile_stats.find`; kernels count only for GPU programs.
      speeds: assumed speeds.

    Returns:
      Seconds "flops", "kernels", "compute", "wire", "latency", "exchange", "step" (without
      overlap), "step_overlapped"; and "efficiency", "efficiency_overlapped".
    """
    operations = sum(facts["flops"].get(kind, 0) for kind in ("dot", "convolution"))
    flops = operations / facts["devices"] / (speeds.mfu * PEAK[facts["precision"]])
    on_gpu = facts["topology"].startswith("h100")
    kernels = facts["kernels"] * speeds.kernel_us * 1e-6 if on_gpu else 0.0
    compute = max(flops, kernels)
    each = [seconds_of(row, speeds) for row in facts["collectives"]]
    wire, latency = (sum(part) for part in zip(*each, strict=True)) if each else (0.0, 0.0)
    exchange = wire + latency
    step, overlapped = compute + exchange, max(compute, exchange)
    return {
        "flops": flops,
        "kernels": kernels,
        "compute": compute,
        "wire": wire,
        "latency": latency,
        "exchange": exchange,
        "step": step,
        "step_overlapped": overlapped,
        "efficiency": compute / step if step else 1.0,
        "efficiency_overlapped": compute / overlapped if overlapped else 1.0,
    }


def room(facts: Mapping[str, Any]) -> dict[str, Any]:
    """Checks if a step fits into the memory of a device, and suggests how to reduce its size.

    Args:
      facts: statistics from `compile_stats.find`.

    Returns:
      "bytes" (arguments + outputs - aliased + temporaries + code), "limit", "fits", "over" (bytes
      above the limit, negative below it), "by_default" (whether it fits into JAX's default
      allocation) and "help", sentences on how to reduce the size, most effective first.
    """
    memory = facts["memory"]
    held = memory["arguments"] + memory["outputs"] - memory["aliased"]
    total = held + memory["temporaries"] + memory["code"]
    fits = total <= MEMORY
    return {
        "bytes": total,
        "limit": MEMORY,
        "fits": fits,
        "over": total - MEMORY,
        "by_default": total <= BY_DEFAULT * MEMORY,
        "help": [] if total <= BY_DEFAULT * MEMORY else _help(facts, held, memory["temporaries"]),
    }


def _help(facts: Mapping[str, Any], held: float, temporaries: float) -> list[str]:
    state = []
    if facts["mesh"]["fsdp"] < facts["devices"]:
        wider = "host" if facts["mesh"]["fsdp"] < min(8, facts["devices"]) else "all"
        state = [
            f"{_gb(held)} GB are state and batch: --config.sharding.preset={wider} cuts the state "
            "over more devices (fsdp)"
        ]
    activations = []
    own = facts["batch_size"] // facts["devices"] // facts["accumulate"]
    if own > 1:
        activations.append(
            f"{_gb(temporaries)} GB are temporaries, mostly activations: --config.accumulate="
            f"{2 * facts['accumulate']} about halves them"
        )
    if facts["remat"] == "none":
        activations.append(
            "--config.remat=dots keeps only the results of matrix products for the backward pass"
        )
    if not activations:
        activations = [f"{_gb(temporaries)} GB are temporaries of one item: shorten the windows"]
    return [*activations, *state] if temporaries > held else [*state, *activations]


def _gb(size: float) -> str:
    return f"{size / 1e9:.1f}"
