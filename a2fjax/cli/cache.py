"""Write what frozen speech encoders make of shards beside them, for data.encoder_features=cached.

a2fjax cache SHARDS --config experiments/hybrid.py
a2fjax cache SHARDS --features whisper:tiny.npz [--config.audio.encoder.layers=3]
a2fjax cache SHARDS --features whisper:tiny.npz --part 3/16     # of an array job; then --finish
"""

from __future__ import annotations

import argparse
from typing import TYPE_CHECKING

from a2fjax import signals
from a2fjax.errors import EXIT_OK, InputError

if TYPE_CHECKING:
    from a2fjax.models.pretrained import Encoders


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
      InputError: no encoder is named, or as `a2fjax.data.feature_cache.writer.write`.
      WorkFailed: as there.
      Preempted: SIGTERM came.
    """
    from a2fjax import config as config_lib
    from a2fjax.data import records

    if args.part and args.finish:
        raise InputError("--part and --finish: give one of them")
    overrides = config_lib.parse_overrides(extra)
    if args.features:
        overrides["audio.features"] = args.features
    config = config_lib.load(args.config, overrides).config
    for folder in args.shards:
        records.read_manifest(folder)

    from a2fjax.models import pretrained
    from a2fjax.sharding import compilation_cache

    compilation_cache.enable()
    if not any(":" in name for name in config.audio.features):
        raise InputError(
            f"audio.features={','.join(config.audio.features)}: no speech encoder among them; name "
            "one with --features, such as whisper:PATH"
        )
    with signals.raise_on_signal():
        _write(args, pretrained.load(config.audio))
    return EXIT_OK


def _write(args: argparse.Namespace, found: Encoders) -> None:
    from a2fjax.data.feature_cache import writer

    for folder in args.shards:
        for key, (encoder, params) in found.items():
            print(f"{folder}: {key}, {encoder.num_states} states of {encoder.width}", flush=True)
            place = writer.write(
                folder,
                encoder,
                params,
                part=args.part,
                finish=args.finish,
                say=lambda line: print(f"  {line}", flush=True),
            )
            size = sum(path.stat().st_size for path in place.iterdir())
            print(f"  {place}: {size / 1e6:,.1f} MB", flush=True)


def _part(text: str) -> tuple[int, int]:
    first, slash, second = text.partition("/")
    if not (slash and first.isdecimal() and second.isdecimal()):
        raise argparse.ArgumentTypeError(f"{text!r}: expected I/N, such as 3/16")
    if not 1 <= int(first) <= int(second):
        raise argparse.ArgumentTypeError(f"{text!r}: expected I/N, I from 1 to N")
    return int(first), int(second)
