"""Formats the results for one or several topologies as lines for a terminal."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from a2fjax.plan.predict import BY_DEFAULT, MEMORY, PEAK, Speeds, predict, room
from a2fjax.view.text import table


def whole(facts: Mapping[str, Any], speeds: Speeds) -> dict[str, Any]:
    """Returns the facts with memory use ("room") and predicted time ("predicted"), for JSON."""
    return {**facts, "room": room(facts), "predicted": predict(facts, speeds)}


def lines(results: Sequence[Mapping[str, Any]], speeds: Speeds) -> list[str]:
    """Returns the report: a table of all topologies, the collectives of each, and assumptions.

    Args:
      results: results of `whole`.
      speeds: assumed speeds of the predictions.
    """
    first = results[0]
    numbers = first["parameters"]
    out = [
        f"  {numbers['trained']:,} trained parameters, {numbers['constant']:,} constant; "
        f"{first['precision']}, remat {first['remat']}, batch in {first['accumulate']} part(s)",
        "",
    ]
    header = (
        "devices", "mesh", "batch", "each", "GB held", "GB temp", "GB a device", "fits",
        "GFLOP each", "MB sent", "compute", "exchange", "step", "efficiency",
    )  # fmt: skip
    out += table([_row(each) for each in results], header)
    for each in results:
        out += ["", f"  {each['topology']}", *_exchange(each), *_remarks(each)]
    return [*out, "", *_assumptions(results, speeds)]


def _row(result: Mapping[str, Any]) -> tuple[str, ...]:
    memory, guess, devices = result["memory"], result["predicted"], result["devices"]
    held = memory["arguments"] + memory["outputs"] - memory["aliased"]
    sent = sum(row["wire"] for row in result["collectives"])
    return (
        result["topology"],
        f"{result['mesh']['data']} x {result['mesh']['fsdp']}",
        str(result["batch_size"]),
        f"{result['batch_size'] / devices:g}",
        f"{held / 1e9:.2f}",
        f"{memory['temporaries'] / 1e9:.2f}",
        f"{result['room']['bytes'] / 1e9:.2f}",
        "yes" if result["room"]["fits"] else "NO",
        f"{sum(result['flops'].values()) / devices / 1e9:.1f}",
        f"{sent / 1e6:.2f}",
        _ms(guess["compute"]),
        _ms(guess["exchange"]),
        f"{_ms(guess['step_overlapped'])} - {_ms(guess['step'])}",
        f"{guess['efficiency']:.1%} - {guess['efficiency_overlapped']:.1%}",
    )


def _ms(seconds: float) -> str:
    return f"{seconds * 1e3:.2f} ms"


def _exchange(result: Mapping[str, Any]) -> list[str]:
    rows = [
        (
            row["kind"],
            row["dtype"],
            f"{row['count']:,}",
            row["group"],
            f"crosses {row['hosts']} hosts" if row["hosts"] > 1 else "inside a host",
            _size(row["bytes"]),
            _size(row["wire"]),
        )
        for row in result["collectives"]
    ]
    if not rows:
        return ["    no device tells another anything"]
    header = ("collective", "type", "a step", "group", "where", "of arrays", "sent by a device")
    return table(rows, header, indent="    ")


def _size(size: float) -> str:
    return f"{size / 1e6:.2f} MB" if size >= 1e4 else f"{size:.0f} B"


def _remarks(result: Mapping[str, Any]) -> list[str]:
    space, guess = result["room"], result["predicted"]
    limit = f"{MEMORY / 1e9:.0f} GB of an H100"
    total = f"{space['bytes'] / 1e9:.2f} GB"
    if not space["fits"]:
        out = [f"does not fit: {total} a device, {space['over'] / 1e9:.2f} GB above the {limit}"]
    elif not space["by_default"]:
        out = [
            f"fits with {-space['over'] / 1e9:.2f} GB of {limit} to spare, but jax takes "
            f"{BY_DEFAULT:.0%} of it unless XLA_PYTHON_CLIENT_MEM_FRACTION says more"
        ]
    else:
        out = [f"fits: {total} a device, {-space['over'] / 1e9:.2f} GB below the {limit}"]
    out += space["help"]
    if guess["kernels"] > guess["flops"]:
        out.append(
            f"short kernels bound it: {result['kernels']:,} a step take {_ms(guess['kernels'])}, "
            f"products {_ms(guess['flops'])}; a larger batch a device costs next to nothing"
        )
    if result["unknown_loops"]:
        out.append(f"{result['unknown_loops']} loop(s) of unknown length are counted once")
    if result["warnings"]:
        count = len(result["warnings"])
        out.append(
            f"XLA moves arrays as a whole in {count} place(s): they are cut in two ways that do "
            "not fit"
        )
    seconds = result["seconds"]
    out.append(f"traced in {seconds['trace']} s, compiled in {seconds['compile']} s")
    return [f"    {line}" for line in out]


def _assumptions(results: Sequence[Mapping[str, Any]], speeds: Speeds) -> list[str]:
    precision = results[0]["precision"]
    peak = PEAK[precision] / 1e12
    name = "bf16" if precision == "bfloat16" else "TF32"
    out = [
        "assumed, not measured:",
        f"  peak {peak:g} TFLOP/s ({name}, H100 SXM data sheet, no sparsity), of which products "
        f"reach {speeds.mfu:.0%} (--mfu)",
        f"  {speeds.intra:g} GB/s a device sends inside its host (NVLink 4), {speeds.inter:g} GB/s "
        "to others (InfiniBand, 400 Gb/s a GPU) (--link-gbps)",
        f"  {speeds.latency_us[0]:g} us a collective inside a host and {speeds.latency_us[1]:g} us "
        "across hosts, however small (--latency-us)",
        f"  {speeds.kernel_us:g} us a kernel at least (--kernel-us); counted in programs for GPUs",
        "  ring algorithms; eight devices a host; groups on several hosts use all their cards",
        "  step and efficiency: exchange hidden behind computing as far as possible, and not at "
        "all; efficiency is against one device with the same batch of its own",
        f"  compiled by jax {results[0]['jax']}, nothing run; loading data is not part of it",
    ]
    if any(each["topology"].startswith("cpu") for each in results):
        out.append(
            "  cpu: a program for CPUs, which all-reduces where GPUs reduce-scatter and has "
            "float32 where they have bfloat16, with memory, links and speeds as of H100s; kernels "
            "are not counted, so computing seems faster than it is"
        )
    return out
