"""Evaluate a run on held-out clips: errors, lip closures, timing and dynamics, with baselines.

Of a sync expert it runs the gate (docs/sync.md).
"""

from __future__ import annotations

import argparse
import contextlib
import os
from collections.abc import Callable, Iterator
from pathlib import Path

from a2fjax import progress
from a2fjax.errors import InputError


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Adds the arguments of `a2fjax evaluate`."""
    add = parser.add_argument
    add("run", metavar="RUN", help="run folder that `a2fjax train` wrote")
    add("--step", type=int, help="checkpoint; default: the newest")
    add(
        "--data",
        metavar="SHARDS",
        action="append",
        help="shards to measure on; default: those of the training; may be repeated",
    )
    add(
        "--split",
        metavar="A,B",
        help="splits; default: test_sentences,test_subjects as far as there are clips",
    )
    add("--out", metavar="JSON", help="report; default: RUN/eval/STEP.json")
    add("--seed", type=int, default=0, help="seed of shuffles, noise and bootstrap; default: 0")
    add("--quick", action="store_true", help="a dozen clips a split, without altered conditions")
    add("--show", metavar="JSON", help="print a report that was written before; measure nothing")
    group = parser.add_argument_group("samples of diffusion runs, beside other runs")
    add = group.add_argument
    add("--samples", type=int, metavar="K", help="compare K samples of every clip, in one table")
    add("--sample-steps", metavar="1,2,8", help="with --samples: calls of the network, a row each")
    add(
        "--against",
        metavar="RUN",
        action="append",
        default=[],
        help="with --samples: another run in the same table; may be repeated",
    )
    add("--limit", type=int, metavar="N", help="with --samples: clips a split")


def run(args: argparse.Namespace, extra: list[str]) -> int:
    """Runs `a2fjax evaluate`.

    Raises:
      InputError: a run, step, folder, split or report that does not exist, or unknown arguments.
    """
    if extra:
        raise InputError(f"unexpected argument {extra[0]!r}; see `a2fjax evaluate --help`")
    from a2fjax.api import evaluation, sync

    if args.show:
        print(sync.show(args.show) or evaluation.Report.read(args.show))
        return 0
    if args.out:
        _check_writable(Path(args.out))
    split = [name for name in args.split.split(",") if name] if args.split else None
    if sync.is_expert(args.run):
        return _gate(args, split)
    if args.samples is not None:
        return _compare(args, split)
    for flag in ("sample_steps", "against", "limit"):
        if getattr(args, flag):
            name = flag.replace("_", "-")
            raise InputError(f"--{name}: goes with --samples; give --samples K as well")
    with _progress() as say:
        report = evaluation.evaluate(
            args.run,
            args.data,
            split,
            step=args.step,
            seed=args.seed,
            quick=args.quick,
            say=say,
        )
    path = args.out or Path(args.run) / "eval" / f"{report.values['step']}.json"
    report.save(path)
    print(report)
    print(f"\nreport: {path}")
    return 0


def _gate(args: argparse.Namespace, split: list[str] | None) -> int:
    """Runs the gate of a sync expert; it stands in the run folder unless --out says otherwise."""
    from a2fjax.api import sync
    from a2fjax.sync import verdict

    for flag in ("samples", "sample_steps", "against", "limit", "quick"):
        if getattr(args, flag):
            name = flag.replace("_", "-")
            raise InputError(f"--{name}: run {args.run} is a sync expert, whose gate has no {flag}")
    with _progress() as say:
        report = sync.gate(args.run, args.data, split, step=args.step, seed=args.seed, say=say)
    path = args.out or verdict.path_of(args.run, report.values["step"])
    report.save(path)
    print(report)
    print(f"\nreport: {path}")
    return 0


def _compare(args: argparse.Namespace, split: list[str] | None) -> int:
    from a2fjax.api import evaluation
    from a2fjax.evaluation.comparison import LEGEND

    try:
        steps = [int(text) for text in (args.sample_steps or "").split(",") if text]
    except ValueError:
        raise InputError(
            f"--sample-steps {args.sample_steps}: expected numbers such as 1,2,8"
        ) from None
    with _progress() as say:
        comparison = evaluation.compare(
            args.run,
            *args.against,
            shards=args.data,
            split=split,
            samples=args.samples,
            sample_steps=steps,
            step=args.step,
            limit=12 if args.quick else args.limit,
            say=say,
        )
    path = args.out or Path(args.run) / "eval" / f"samples_{comparison.step}.json"
    comparison.save(path)
    print(LEGEND)
    print(comparison)
    print(f"\nreport: {path}")
    return 0


@contextlib.contextmanager
def _progress() -> Iterator[Callable[[str], None]]:
    """Yields a function that prints a line; what lasts is shown again."""
    last = "loading the run"

    def say(line: str) -> None:
        nonlocal last
        last = line
        tell(line)

    def tell(line: str) -> None:
        progress.to_stderr(f"  {line}")

    with progress.shown(lambda: last, tell):
        yield say


def _check_writable(path: Path) -> None:
    """Raises `InputError` if the report cannot be written, before the long evaluation."""
    if path.is_dir():
        raise InputError(f"--out {path}: is a folder, expected a file to write")
    folder = next(p for p in path.absolute().parents if p.exists())
    if not folder.is_dir():
        raise InputError(f"--out {path}: cannot be written ({folder} is a file)")
    if not os.access(folder, os.W_OK | os.X_OK):
        raise InputError(f"--out {path}: cannot be written (no permission in folder {folder})")
