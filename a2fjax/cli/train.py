"""Trains a model, or continues a run: the same command again goes on where the run stands."""

from __future__ import annotations

import argparse
import logging
import os
import warnings
from pathlib import Path

from a2fjax import config as config_lib
from a2fjax import signals
from a2fjax.errors import EXIT_OK, InputError


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Adds the arguments of `a2fjax train`."""
    parser.add_argument(
        "--config",
        required=True,
        metavar="FILE.py[:variant]",
        help="experiment, or a run's config.json; any of its values is overridden by "
        "--config.path.to.key=value",
    )
    parser.add_argument(
        "--workdir", required=True, type=Path, metavar="RUN", help="run folder, made if missing"
    )


def run(args: argparse.Namespace, extra: list[str]) -> int:
    """Runs `a2fjax train` and returns the exit code.

    Raises:
      InputError: before anything heavy is imported, where that is possible.
    """
    resolved = config_lib.load(args.config, config_lib.parse_overrides(extra))
    from a2fjax.train.distributed import session

    setup = session.detect(os.environ)
    if setup.processes == 1:
        check_shards(resolved.config)

    # Orbax logs the traceback of each failure that it also raises, and leaves what it did not
    # come to as warnings; one line is enough.
    logging.getLogger("absl").setLevel(logging.CRITICAL)
    warnings.filterwarnings("ignore", "coroutine .* was never awaited", RuntimeWarning)
    watch = session.Watch(60 * resolved.config.log.hang_minutes)
    with session.session(setup, watch):
        from a2fjax.train import trainer

        if setup.processes > 1:
            check_shards(resolved.config)  # Here the others hear of it.
        # Training listens in its own way and then puts this back: a signal that comes again while
        # JAX shuts down must not change the exit code.
        signals.ignore()
        trainer.train(resolved, args.workdir, watch=watch)
    return EXIT_OK


def check_shards(config: config_lib.Config) -> None:
    """Checks that the shards are there and have the splits that training needs.

    Raises:
      InputError: names the folder, what is missing and the nearest valid choice.
    """
    from a2fjax.data import records

    if not config.data.shards:
        raise InputError("config: data.shards is empty: expected folders with a manifest.json")
    manifests = [records.read_manifest(folder) for folder in config.data.shards]
    splits = [config.data.split] + ([config.eval.split] if config.eval.every_steps else [])
    for split in splits:
        records.check_split(split, manifests, config.data.shards)
