"""The commands on submitted work: status, logs, cancel, wait, list, diff."""

from __future__ import annotations

import argparse
from collections.abc import Callable
from pathlib import Path

from a2fjax import errors
from a2fjax.errors import InputError
from launch import schedulers
from launch.jobs import folders, record
from launch.monitor import (
    cancel,
    compare,
    listing,
    logs,
    report,
    rows,
    table,
    table_files,
)
from launch.monitor.wait import wait
from launch.submission import submit as submission


def find(args: argparse.Namespace) -> Path:
    """Returns the folder of the requested run or sweep, or the record of the requested array.

    Raises:
      InputError: there is none; suggests the nearest run, or gives the expected path of the record.
    """
    if args.record:
        folder = folders.lookup_array(args.record)
        if folder is None:
            raise InputError(f"--record {args.record}: nothing was submitted with it")
        return folder
    folder = folders.lookup(args.out, args.runs) or folders.lookup_array(args.out)
    if folder is not None:
        return folder
    if "/" not in args.out and not Path(args.out).exists():
        return folders.find(args.out, args.runs)
    below = sorted(p.parent.parent for p in Path(args.out).glob(f"*/{record.ARRAY}/launch"))
    hint = f"; something was for {', '.join(str(p) for p in below)}" if below else ""
    raise InputError(f"{args.out}: nothing was submitted for this folder{hint}")


def _status(args: argparse.Namespace) -> int:
    folder = find(args)
    if not (args.sort or args.csv or args.html):
        report.show(folder)
        return errors.EXIT_OK
    if record.is_array(folder):
        raise InputError("--sort, --csv, --html: are for runs and sweeps")
    metric = args.sort or table.METRIC
    runs = rows.collect(folder)
    print(table.text(runs, metric))
    for path in filter(None, (args.csv, args.html)):
        table_files.write(path, runs, metric, folder.name)
        print(f"{path}: {len(runs)} runs")
    return errors.EXIT_OK


def _logs(args: argparse.Namespace) -> int:
    logs.show(find(args), element=args.element, rank=args.rank, follow=args.follow)
    return errors.EXIT_OK


def _cancel(args: argparse.Namespace) -> int:
    cancel.cancel(find(args))
    return errors.EXIT_OK


def _wait(args: argparse.Namespace) -> int:
    folder = find(args)
    if not record.is_array(folder):
        return wait(folder, record.members(folder), args.poll)
    spec = record.read(folder)
    job = submission.array_job(folder, spec, (), again=False)
    scheduler = schedulers.get(spec.scheduler)
    members = record.members(folder)
    return wait(folder, members, args.poll, finalize=lambda: scheduler.finalize(job))


def _list(args: argparse.Namespace) -> int:
    listing.show(Path(args.runs), args.state)
    return errors.EXIT_OK


def _diff(args: argparse.Namespace) -> int:
    first, second = (folders.find_run(name, args.runs) for name in args.pair)
    compare.show(first, second)
    return errors.EXIT_OK


COMMANDS: dict[str, Callable[[argparse.Namespace], int]] = {
    "status": _status,
    "logs": _logs,
    "cancel": _cancel,
    "wait": _wait,
    "list": _list,
    "diff": _diff,
}
