"""Store features of frozen speech encoders next to shards for data.encoder_features=cached.

a2fjax cache SHARDS --config experiments/hybrid.py
a2fjax cache SHARDS --features whisper:tiny.npz [--config.audio.encoder.layers=3]
a2fjax cache SHARDS --features whisper:tiny.npz --part 3/16     # of an array job; then --finish
"""

from __future__ import annotations

import argparse

from a2fjax import signals
from a2fjax.errors import EXIT_OK, InputError


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Adds the arguments of `a2fjax cache`."""
    parser.add_argument("shards", metavar="SHARDS", nargs="+", help="folders with a manifest.json")
    parser.add_argument(
        "--config",
        metavar="FILE.py[:variant]",
        help="experiment whose encoders are cached; --config.path.to.key=value overrides it",
    )
    parser.add_argument("--features", metavar="NAME,...", help="such as whisper:PATH,hubert:PATH")
    parser.add_argument(
        "--part", metavar="I/N", type=_part, help="only every N-th file, from the I-th on"
    )
    parser.add_argument(
        "--finish", action="store_true", help="only check that every file is there and close"
    )


def run(args: argparse.Namespace, extra: list[str]) -> int:
    """Runs `a2fjax cache`.

    Raises:
      InputError, WorkFailed: as for `a2fjax.api.features.cache`.
      Preempted: SIGTERM was received.
    """
    from a2fjax import configuration as config_lib
    from a2fjax.api import features

    if args.part and args.finish:
        raise InputError("--part and --finish: give one of them")
    overrides = config_lib.parse_overrides(extra)
    if args.features:
        overrides["audio.features"] = args.features
    config = config_lib.load(args.config, overrides).config
    with signals.raise_on_signal():
        features.cache(
            args.shards,
            config,
            part=args.part,
            finish=args.finish,
            say=lambda line: print(line, flush=True),
        )
    return EXIT_OK


def _part(text: str) -> tuple[int, int]:
    first, slash, second = text.partition("/")
    if not (slash and first.isdecimal() and second.isdecimal()):
        raise argparse.ArgumentTypeError(f"{text!r}: expected I/N, such as 3/16")
    if not 1 <= int(first) <= int(second):
        raise argparse.ArgumentTypeError(f"{text!r}: expected I/N, I from 1 to N")
    return int(first), int(second)
