"""Lay reports of the same clips beside each other, and test each against the first."""

from __future__ import annotations

import argparse
from pathlib import Path

from a2fjax import files
from a2fjax.errors import InputError


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Adds the arguments of `a2fjax compare`."""
    add = parser.add_argument
    add("reports", metavar="JSON", nargs="+", help="reports that `a2fjax evaluate` wrote")
    add("--seed", type=int, default=0, help="seed of the bootstrap; default: 0")
    add("--out", metavar="JSON", help="write the comparison to a file as well")


def run(args: argparse.Namespace, extra: list[str]) -> int:
    """Runs `a2fjax compare`.

    Raises:
      InputError: no such report, reports of different work, or unknown arguments.
    """
    if extra:
        raise InputError(f"unexpected argument {extra[0]!r}; see `a2fjax compare --help`")
    from a2fjax.api import evaluation

    if args.out:
        files.make_folder(Path(args.out).parent)
        files.check_writable(Path(args.out))
    compared = evaluation.compare_reports(*args.reports, seed=args.seed)
    print(compared)
    if args.out:
        compared.save(args.out)
        print(f"\ncomparison: {args.out}")
    return 0
