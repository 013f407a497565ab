"""Train a model, or continue a run: the same command resumes from the latest checkpoint."""

from __future__ import annotations

import argparse
from pathlib import Path

from a2fjax import configuration as config_lib
from a2fjax.errors import EXIT_OK


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Adds the arguments of `a2fjax train`."""
    parser.add_argument(
        "--config",
        required=True,
        metavar="FILE.py[:variant]",
        help="experiment, or a run's config.json; --config.path.to.key=value overrides a value",
    )
    parser.add_argument(
        "--workdir", required=True, type=Path, metavar="RUN", help="run folder, made if missing"
    )


def run(args: argparse.Namespace, extra: list[str]) -> int:
    """Runs `a2fjax train` and returns the exit code.

    Raises:
      InputError: invalid arguments or configuration; raised before heavy imports where possible.
    """
    resolved = config_lib.load(args.config, config_lib.parse_overrides(extra))
    from a2fjax.api import training

    training.train(resolved, args.workdir, ends_process=True)
    return EXIT_OK
