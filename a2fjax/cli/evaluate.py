"""Measure a run on held-out clips: errors, lip closures, timing and dynamics beside baselines."""

from __future__ import annotations

import argparse
import os
import sys
from pathlib import Path

from a2fjax.errors import InputError


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Adds the command's flags."""
    parser.add_argument("run", metavar="RUN", help="run folder that `a2fjax train` wrote")
    parser.add_argument("--step", type=int, help="checkpoint (default: the newest)")
    parser.add_argument(
        "--data",
        metavar="SHARDS",
        action="append",
        help="shards to measure on (default: those of the run); may be repeated",
    )
    parser.add_argument(
        "--split",
        metavar="A,B",
        help="splits (default: test_sentences,test_subjects as far as there are clips)",
    )
    parser.add_argument("--out", metavar="JSON", help="report (default: RUN/eval/<step>.json)")
    parser.add_argument("--seed", type=int, default=0, help="of shuffles, noise and bootstrap")
    parser.add_argument(
        "--quick", action="store_true", help="a dozen clips a split, without altered conditions"
    )
    parser.add_argument(
        "--takes", type=int, metavar="K", help="of diffusion runs: K takes of every line, a table"
    )
    parser.add_argument(
        "--sample-steps", metavar="1,2,8", help="with --takes: calls of the network, a row each"
    )
    parser.add_argument(
        "--against",
        metavar="RUN",
        action="append",
        default=[],
        help="with --takes: another run in the same table; may be repeated",
    )
    parser.add_argument("--limit", type=int, metavar="N", help="with --takes: clips a split")
    parser.add_argument(
        "--show", metavar="JSON", help="print a report that was written before; measure nothing"
    )


def run(args: argparse.Namespace, extra: list[str]) -> int:
    """Runs the command.

    Raises:
      InputError: a run, step, folder, split or report that is not there, or unknown arguments.
    """
    if extra:
        raise InputError(f"unexpected argument {extra[0]!r}; see `a2fjax evaluate --help`")
    from a2fjax.evaluation import report

    if args.show:
        print(report.table(report.read(args.show)))
        return 0
    if args.out:
        _check_place(Path(args.out))
    splits = [name for name in args.split.split(",") if name] if args.split else None
    if args.takes is not None:
        return _takes(args, splits)
    for flag in ("sample_steps", "against", "limit"):
        if getattr(args, flag):
            raise InputError(f"--{flag.replace('_', '-')}: is of --takes; give --takes K as well")
    from a2fjax.evaluation.evaluator import evaluate

    result = evaluate(
        args.run,
        args.data,
        splits,
        step=args.step,
        seed=args.seed,
        quick=args.quick,
        progress=lambda line: print(f"  {line}", file=sys.stderr, flush=True),
    )
    out = Path(args.out) if args.out else Path(args.run) / "eval" / f"{result['step']}.json"
    report.write(out, result)
    print(report.table(result))
    print(f"\nreport: {out}")
    return 0


def _takes(args: argparse.Namespace, splits: list[str] | None) -> int:
    """Measures several takes of every line, of one run or of several."""
    from a2fjax.evaluation import comparison, report

    if args.takes < 1:
        raise InputError(f"--takes {args.takes}: expected at least 1")
    try:
        steps = [int(text) for text in (args.sample_steps or "").split(",") if text]
    except ValueError:
        steps = [0]
    if any(count < 1 for count in steps):
        raise InputError(f"--sample-steps {args.sample_steps}: expected numbers such as 1,2,8")
    rows = comparison.build_rows([args.run, *args.against], steps, args.takes, checkpoint=args.step)
    result = comparison.compare(
        rows,
        args.data,
        splits,
        limit=12 if args.quick else args.limit,
        progress=lambda line: print(f"  {line}", file=sys.stderr, flush=True),
    )
    place = Path(args.run) / "eval" / f"takes_{rows[0].model.step}.json"
    out = Path(args.out) if args.out else place
    report.write(out, result)
    print(comparison.LEGEND)
    print(comparison.table(result))
    print(f"\nreport: {out}")
    return 0


def _check_place(path: Path) -> None:
    """Raises `InputError` where no report can be written, before minutes of measuring."""
    if path.is_dir():
        raise InputError(f"--out {path}: is a folder, expected a file to write")
    folder = next(p for p in path.absolute().parents if p.exists())
    if not folder.is_dir():
        raise InputError(f"--out {path}: cannot be written ({folder} is a file)")
    if not os.access(folder, os.W_OK | os.X_OK):
        raise InputError(f"--out {path}: cannot be written (no permission in folder {folder})")
