"""Print the keys an experiment sets, with value, origin, default, meaning and bounds.

    a2fjax config experiments/regression_v2_3.py:demo
    a2fjax config experiments/diffusion_v3_0.py --all --config.steps=100

The experiment is a Python file or a run's config.json; without one the defaults are shown. --all
also prints the keys left at their defaults.
"""

from __future__ import annotations

import argparse
import json
import textwrap
from collections.abc import Iterator, Mapping
from typing import Any

from a2fjax import configuration as config_lib
from a2fjax.configuration import reference

WIDTH = 100
INDENT = "    "


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Adds the arguments of `a2fjax config`."""
    parser.add_argument("experiment", nargs="?", metavar="EXPERIMENT.py[:variant]")
    parser.add_argument("--all", action="store_true", help="also keys left at their defaults")
    parser.add_argument("--json", action="store_true", help="print one JSON object by key")


def run(args: argparse.Namespace, extra: list[str]) -> int:
    """Runs `a2fjax config` and returns the exit code.

    Raises:
      InputError: the experiment cannot be read, or has a wrong key or value.
    """
    if args.experiment and args.experiment.startswith("--config."):
        # argparse mistakes an unknown flag whose value has a space for a positional argument.
        args.experiment, extra = None, [args.experiment, *extra]
    resolved = config_lib.load(args.experiment, config_lib.parse_overrides(extra))
    rows = [
        (key, origin)
        for key, origin in with_origins(resolved)
        if args.all or args.experiment is None or origin != "default"
    ]
    if args.json:
        shown = {
            key.name: {
                "value": key.value,
                "from": origin,
                "default": key.default,
                "type": key.type,
                "bounds": key.bounds,
                "meaning": key.meaning,
            }
            for key, origin in rows
        }
        print(json.dumps(shown, indent=1, default=dict))
        return 0
    for key, origin in rows:
        print("\n".join(lines(key, origin)))
    return 0


def with_origins(resolved: config_lib.Resolved) -> Iterator[tuple[reference.Key, str]]:
    """Yields every key of a configuration with the origin of its value."""
    for key in reference.keys(resolved.config):
        yield key, _origin(key.name, resolved.sources)


def lines(key: reference.Key, origin: str) -> list[str]:
    r"""Returns the description of a key: a line with its value, then its meaning.

    Example:
        >>> from a2fjax.configuration import EvalConfig
        >>> key = list(reference.keys(EvalConfig(batches=8), "eval."))[-1]
        >>> print("\n".join(lines(key, "demo.py")))
        eval.batches = 8  (demo.py; default 4; int, above 0)
            number of batches.
    """
    facts = [origin]
    if origin != "default":
        facts.append(f"default {_show(key.default)}")
    facts.append(", ".join(text for text in (key.type, key.bounds) if text))
    head = f"{key.name} = {_show(key.value)}  ({'; '.join(facts)})"
    indent = "    "
    return [
        head,
        *textwrap.wrap(key.meaning, WIDTH, initial_indent=indent, subsequent_indent=indent),
    ]


def _show(value: Any) -> str:
    return repr(dict(value)) if isinstance(value, Mapping) else repr(value)


def _origin(name: str, sources: Mapping[str, str]) -> str:
    """Returns the origin of a key, or of the first item set in its mapping."""
    if name in sources:
        return sources[name]
    inside = [origin for key, origin in sources.items() if key.startswith(f"{name}.")]
    return next((origin for origin in inside if origin != "default"), "default")
