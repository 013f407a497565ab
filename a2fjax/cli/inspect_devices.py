"""`a2fjax inspect EXPERIMENT.py --devices ...`: plan an experiment for other devices."""

from __future__ import annotations

import argparse
import json
import sys
from typing import Any

from a2fjax.configuration import Resolved
from a2fjax.errors import InputError

OPTIONS = ("batch_per_device", "link_gbps", "latency_us", "mfu", "kernel_us", "hlo", "json")


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Adds the arguments of planning."""
    group = parser.add_argument_group(
        "an experiment on devices that are not here",
        "memory, traffic and time of its training step, compiled ahead of time",
    )
    add = group.add_argument
    add("--devices", metavar="KIND:N,...", help="such as cpu:64 or h100:8,h100:64,h100:256")
    add("--batch-per-device", metavar="B", help="instead of data.batch_size, which is of all")
    add("--link-gbps", metavar="IN,OUT", help="GB/s of a device in its host and out of it")
    add("--latency-us", metavar="IN,OUT", help="microseconds of a collective of 8 bytes")
    add("--mfu", metavar="SHARE", help="of the peak that matrix products reach, 0 to 1")
    add("--kernel-us", metavar="US", help="microseconds of the shortest kernel")
    add("--hlo", metavar="FILE", help="write the compiled program there; of one topology")
    add("--json", action="store_true", help="print all that was found as JSON")


def check(args: argparse.Namespace, *, is_experiment: bool) -> None:
    """Checks that the planning arguments are consistent.

    Raises:
      InputError: an argument lacks one it needs; the message names both.
    """
    if not args.devices:
        for name in OPTIONS:
            if getattr(args, name):
                flag = name.replace("_", "-")
                raise InputError(f"--{flag} is of devices: give --devices KIND:N too")
    elif not is_experiment or len(args.what) > 1:
        raise InputError(f"--devices {args.devices}: expected one experiment (.py), which it is of")
    elif args.take or args.weights or args.step is not None or args.out:
        raise InputError("--devices: none of --take, --weights, --step and --out goes with it")


def lines(resolved: Resolved, args: argparse.Namespace) -> list[str]:
    """Returns the report on an experiment, or one line of JSON.

    Raises:
      InputError: invalid arguments, missing packages, or devices that do not fit the experiment.
    """
    from a2fjax.plan import report, topologies
    from a2fjax.plan.predict import Speeds

    asked = topologies.parse(args.devices)
    defaults = Speeds()
    mfu, kernel = _number("mfu", args.mfu, defaults.mfu), args.kernel_us
    if mfu > 1:
        raise InputError(f"--mfu {args.mfu}: expected a share above 0, at most 1")
    intra, inter = _pair("link-gbps", args.link_gbps, (defaults.intra, defaults.inter))
    speeds = Speeds(
        intra=intra,
        inter=inter,
        mfu=mfu,
        kernel_us=_number("kernel-us", kernel, defaults.kernel_us),
        latency_us=_pair("latency-us", args.latency_us, defaults.latency_us),
    )
    if args.hlo and len(asked) > 1:
        raise InputError(f"--hlo {args.hlo}: is of one topology; --devices has {len(asked)}")
    batch = None
    if args.batch_per_device is not None:
        if not args.batch_per_device.isdecimal() or int(args.batch_per_device) < 1:
            raise InputError(
                f"--batch-per-device {args.batch_per_device}: expected a whole number from 1 on"
            )
        batch = int(args.batch_per_device)
    for topology in asked:
        # Check all of them before compiling the first, which is slow.
        install = topologies.missing(topology)
        if install:
            raise topologies.not_here(topology, install)
    reports: list[dict[str, Any]] = []
    for topology in asked:
        print(f"{topology.name}: compiling", file=sys.stderr, flush=True)
        facts = topologies.look(resolved, topology, batch_per_device=batch, hlo=args.hlo)
        reports.append(report.whole(facts, speeds))
    if args.json:
        import dataclasses

        return [
            json.dumps({"assumed": dataclasses.asdict(speeds), "topologies": reports}, indent=1)
        ]
    name = f"experiment {args.what[0]}: {resolved.config.name}"
    return [name, *report.lines(reports, speeds)]


def _number(flag: str, text: str | None, default: float) -> float:
    if text is None:
        return default
    try:
        value = float(text)
    except ValueError:
        value = float("nan")
    if not 0 < value < float("inf"):
        raise InputError(f"--{flag} {text}: expected a number above 0, such as {default:g}")
    return value


def _pair(flag: str, text: str | None, default: tuple[float, float]) -> tuple[float, float]:
    if text is None:
        return default
    parts = text.split(",")
    if len(parts) != 2:
        raise InputError(
            f"--{flag} {text}: expected two numbers, in a host and across hosts, such as "
            f"{default[0]:g},{default[1]:g}"
        )
    first, second = (_number(flag, part, own) for part, own in zip(parts, default, strict=True))
    return first, second
