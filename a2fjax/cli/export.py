"""Write a run as a bundle: a folder with weights, graphs for other runtimes, manifest and card.

A bundle goes wherever a run folder goes. Every graph is compared with the product before the
folder gets its name; a difference above 1e-4 of a weight leaves nothing behind.
"""

from __future__ import annotations

import argparse

from a2fjax import progress
from a2fjax.errors import InputError


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Adds the arguments of `a2fjax export`."""
    add = parser.add_argument
    add("run", metavar="RUN", help="run folder that `a2fjax train` wrote")
    add("--out", required=True, metavar="BUNDLE", help="folder to make")
    add(
        "--format",
        default="",
        metavar="A,B",
        help="onnx, stablehlo, pytorch; default: every format that this model has",
    )
    add(
        "--graph",
        default="",
        metavar="A,B",
        help="model, step, identity; default: every graph that this model has",
    )
    add(
        "--lookahead-ms",
        default="",
        metavar="A,B",
        help="look-aheads of a run for live audio that get a step of their own, beside the default",
    )
    add("--step", type=int, help="checkpoint; default: the newest")
    add(
        "--weights",
        metavar="FILE",
        help="safetensors of the same names and shapes, trained elsewhere, instead of the run's",
    )
    add(
        "--audio",
        action="append",
        default=[],
        metavar="FILE",
        help="recording to compare the graphs on; may be repeated; default: a synthetic voice",
    )
    add("--license", default="other", metavar="ID", help="of the weights, such as apache-2.0")
    add(
        "--dataset", action="append", default=[], metavar="NAME", help="training data, for the card"
    )
    add("--language", action="append", default=[], metavar="CODE", help="such as en, for the card")


def run(args: argparse.Namespace, extra: list[str]) -> int:
    """Runs `a2fjax export`.

    Raises:
      InputError, WorkFailed: as for `a2fjax.export.writer.export`.
    """
    from a2fjax.export import writer
    from a2fjax.export.description import Rights

    if extra:
        raise InputError(f"unexpected argument {extra[0]!r}; see a2fjax export --help")
    lines: list[str] = []
    with progress.shown("loading, building and comparing"):
        out = writer.export(
            args.run,
            args.out,
            [name for name in args.format.split(",") if name],
            step=args.step,
            weights_file=args.weights,
            graphs=[name for name in args.graph.split(",") if name],
            lookaheads_ms=_milliseconds(args.lookahead_ms),
            audio=args.audio,
            rights=Rights(args.license, tuple(args.dataset), tuple(args.language)),
            say=lines.append,
        )
    print("\n".join([*lines, f"{out}: bundle"]))
    return 0


def _milliseconds(text: str) -> list[int]:
    parts = [part for part in text.split(",") if part]
    for part in parts:
        if not part.isdecimal():
            raise InputError(f"--lookahead-ms: {part!r}, expected milliseconds such as 0,40")
    return [int(part) for part in parts]
