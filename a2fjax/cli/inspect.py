"""Describe a run, shards or an experiment; no accelerator is needed."""

from __future__ import annotations

import argparse
from pathlib import Path

from a2fjax import progress
from a2fjax.cli import inspect_devices
from a2fjax.errors import InputError


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Adds the arguments of `a2fjax inspect`."""
    parser.add_argument(
        "what",
        metavar="RUN|SHARDS|EXPERIMENT.py",
        nargs="+",
        help="recognised by its content; several folders of shards are shown as a mixture",
    )
    parser.add_argument("--step", type=int, help="checkpoint of a run; default: the newest")
    parser.add_argument(
        "--weights", metavar="W,W...", help="of several folders of shards, like data.weights"
    )
    parser.add_argument(
        "--take",
        metavar="SUBJECT/TAKE",
        help="one take of shards; the beginning of its name will do",
    )
    parser.add_argument(
        "--out", metavar="FILE", help="draw the take: .png, .pdf, .svg or .html (with its sound)"
    )
    parser.add_argument(
        "--range", metavar="START:END", help="seconds of the take to draw; default: all of it"
    )
    inspect_devices.add_arguments(parser)


def run(args: argparse.Namespace, extra: list[str]) -> int:
    """Runs `a2fjax inspect`.

    Raises:
      InputError: the path is none of the three, or is damaged.
    """
    with progress.shown("reading"):
        lines = _lines(args, extra)
    print("\n".join(lines).rstrip())
    return 0


def _lines(args: argparse.Namespace, extra: list[str]) -> list[str]:
    from a2fjax import configuration
    from a2fjax.api import inspection
    from a2fjax.view import drawing, mixture_summary

    path = Path(args.what[0])
    is_experiment = path.suffix == ".py" or ".py:" in args.what[0]
    if extra and not is_experiment:
        raise InputError(f"unexpected argument {extra[0]!r}; see a2fjax inspect --help")
    inspect_devices.check(args, is_experiment=is_experiment)
    for flag in ("out", "range"):
        if getattr(args, flag) is not None and not args.take:
            raise InputError(f"--{flag} goes with --take SUBJECT/TAKE")
    if args.take:
        seconds = drawing.parse_range(args.range)
        lines = inspection.describe_take(args.what, args.take, seconds=seconds, figure=args.out)
    elif len(args.what) > 1 or args.weights:
        lines = mixture_summary.mixture_lines(args.what, _weights(args.weights))
    elif is_experiment:
        resolved = configuration.load(args.what[0], configuration.parse_overrides(extra))
        if args.devices:
            lines = inspect_devices.lines(resolved, args)
        else:
            lines = inspection.describe_experiment(resolved, args.what[0])
    else:
        lines = inspection.describe_folder(path, args.step)
    return lines


def _weights(text: str | None) -> list[float]:
    from a2fjax import configuration

    weights = configuration.parse_value(text) if text else ()
    weights = weights if isinstance(weights, tuple | list) else (weights,)
    if not all(isinstance(w, int | float) and not isinstance(w, bool) for w in weights):
        raise InputError(f"--weights {text}: expected numbers, such as 1,2.5")
    return [float(w) for w in weights]
