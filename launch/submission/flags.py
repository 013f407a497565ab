"""Commands and arguments of `launch/submit.py`; schedulers contribute their options."""

from __future__ import annotations

import argparse
from typing import Any

from a2fjax.errors import InputError
from launch import schedulers
from launch.schedulers.base import Option

DEFAULT_ELEMENTS = 64
DEFAULT_ROOT = "runs"
ARRAYS = ("build", "cache")
"""Commands that submit arrays."""

_Commands = argparse._SubParsersAction
_PREFIX = "option_"


def add(parser: argparse.ArgumentParser) -> None:
    """Adds all commands with their arguments.

    Raises:
      InputError: an option of a scheduler has the name of another argument.
    """
    commands = parser.add_subparsers(dest="command", required=True, metavar="COMMAND")
    try:
        _submit(commands)
        _tune(commands)
        _run(commands)
        _resume(commands)
        _build(commands)
        _cache(commands)
    except argparse.ArgumentError as error:
        raise InputError(f"options of schedulers: {error}") from None
    _monitor(commands)


def options() -> dict[str, Option]:
    """Returns the options of all schedulers by name; the first scheduler describes an option."""
    result: dict[str, Option] = {}
    for name in schedulers.names():
        for option in schedulers.get(name).flags:
            result.setdefault(option.name, option)
    return result


def attribute(option: str) -> str:
    """Returns the attribute of parsed arguments that holds a scheduler's option."""
    return f"{_PREFIX}{option}"


def value(args: argparse.Namespace, option: str) -> Any:
    """Returns a scheduler's option as given, or None."""
    return getattr(args, attribute(option), None)


def _submit(commands: _Commands[argparse.ArgumentParser]) -> None:
    submit = commands.add_parser(
        "submit",
        help="train: one run, or a sweep",
        description="Trains an experiment in its own folder ROOT/NAME, with configuration and code "
        "as they are now. --config.path.to.key=value sets a value.",
        allow_abbrev=False,
    )
    submit.add_argument("experiment", metavar="EXPERIMENT.py[:variant]", help="or a config.json")
    submit.add_argument("--name", help="name of the run or sweep (default: experiment, time)")
    submit.add_argument("--sweep", metavar="EXPR", help="one run for each of these trials")
    submit.add_argument(
        "--check-compile", action="store_true", help="compile here first, on pretended devices"
    )
    _job_arguments(submit, arrays=False)


def _tune(commands: _Commands[argparse.ArgumentParser]) -> None:
    tune = commands.add_parser(
        "tune",
        help="train with values chosen from the results of earlier runs",
        description="Starts runs of an experiment in ROOT/NAME, chooses their values from the "
        "results of earlier ones, and stops runs that are behind. Needs the extra `tune`. The same "
        "command continues a study that was stopped.",
        allow_abbrev=False,
    )
    tune.add_argument("experiment", metavar="EXPERIMENT.py[:variant]")
    tune.add_argument("--name", required=True, help="name of the study, a sweep that grows")
    tune.add_argument(
        "--space",
        required=True,
        metavar="SPACE",
        help='such as {"optim.learning_rate": loguniform(1e-4, 1e-2)}; also uniform(LOW, HIGH), '
        "integer(LOW, HIGH), choice(VALUE, ...)",
    )
    tune.add_argument("--trials", type=int, required=True, help="total number of runs")
    tune.add_argument(
        "--metric", default="eval/loss", help="key of metrics.jsonl to minimise (-METRIC: maximise)"
    )
    tune.add_argument("--pruner", default="halving", help="halving, hyperband or none")
    tune.add_argument("--first-step", type=int, help="first step compared (default: steps / 9)")
    tune.add_argument("--seed", type=int, default=0, help="seed of the choices")
    _job_arguments(tune, arrays=False)


def _run(commands: _Commands[argparse.ArgumentParser]) -> None:
    run = commands.add_parser(
        "run",
        help="any other command of a2fjax, as a run",
        description="Runs a command as a job: submit.py run NAME [options] -- a2fjax evaluate RUN",
        allow_abbrev=False,
    )
    run.add_argument("name", help="name of the run; its folder is ROOT/NAME")
    _job_arguments(run, arrays=False)


def _resume(commands: _Commands[argparse.ArgumentParser]) -> None:
    resume = commands.add_parser(
        "resume",
        help="continue a run from its last checkpoint",
        description="Continues a run with its own code and configuration. --config.key=value "
        "changes what may change: steps, log, checkpoint, eval, sharding.",
        allow_abbrev=False,
    )
    resume.add_argument("out", metavar="RUN", help="name or folder of the run")
    resume.add_argument("--new-code", action="store_true", help="with the code as it is now")
    _job_arguments(resume, arrays=False, again=True)


def _build(commands: _Commands[argparse.ArgumentParser]) -> None:
    build = commands.add_parser(
        "build",
        help="build a dataset from captures, as an array",
        description="Builds a dataset in N elements, then joins them. --config.<name>=<value> sets "
        "a setting of the build. Given again, it does only what is missing.",
        allow_abbrev=False,
    )
    build.add_argument("input", help="folder of captures, as the job sees it")
    build.add_argument("--out", required=True, help="folder of the dataset, as the job sees it")
    build.add_argument("--layout", default="auto", help="see data_pipeline.build")
    build.add_argument("--workers", type=int, help="processes of an element (default: --cpus)")
    _job_arguments(build, arrays=True)


def _cache(commands: _Commands[argparse.ArgumentParser]) -> None:
    cache = commands.add_parser(
        "cache",
        help="cache a dataset's features of speech encoders, as an array",
        description="Writes feature caches beside a dataset in N elements, then completes them, as "
        "`a2fjax cache`. Given again, it does only what is missing.",
        allow_abbrev=False,
    )
    cache.add_argument("shards", help="folder of the dataset, as the job sees it")
    cache.add_argument("--features", metavar="NAME,...", help="such as whisper:PATH,hubert:PATH")
    cache.add_argument(
        "--config", metavar="FILE.py[:variant]", help="experiment whose encoders are cached"
    )
    _job_arguments(cache, arrays=True)


def _job_arguments(
    parser: argparse.ArgumentParser, *, arrays: bool, again: bool = False, both: bool = False
) -> None:
    """Adds the arguments shared by all commands that start jobs.

    Args:
      parser: parser of the command.
      arrays: whether it submits builds and caches rather than runs.
      again: whether it resubmits earlier work.
      both: whether it resubmits runs as well as arrays.
    """
    names = ", ".join(schedulers.names())
    _root_argument(parser)
    parser.add_argument("--scheduler", help=f"{names} (default {schedulers.DEFAULT})")
    parser.add_argument("--profile", metavar="SITE.toml", help="defaults of a cluster")
    parser.add_argument(
        "--dry-run", action="store_true", help="print scripts or manifests; write nothing"
    )
    parser.add_argument(
        "--json", action="store_true", help="with --dry-run: print the specification instead"
    )
    parser.add_argument("--wait", action="store_true", help="return when all has ended")
    _poll_argument(parser)
    parser.add_argument(
        "--after",
        action="append",
        metavar="WORK[:ok|any]",
        help="start when that run or sweep, or what fills that folder, has ended; may be repeated",
    )
    default = 2 if arrays else 3
    failures = "of an element" if arrays else "without progress"
    parser.add_argument("--retries", type=int, help=f"after failures {failures} ({default})")
    parser.add_argument("--max-requeues", type=int, help="returns to the queue at most (50)")
    parser.add_argument(
        "--pass",
        action="append",
        dest="pass_",
        metavar="NAME",
        help="environment variable that the job needs; its value is never written",
    )
    if not again:
        parser.add_argument("--python", help="interpreter (default: this one; containers: python)")
    if arrays:
        parser.add_argument(
            "--elements", type=int, help=f"array size ({DEFAULT_ELEMENTS}; here: --max-parallel)"
        )
    if arrays or both:
        parser.add_argument("--record", help="folder of record and logs (default: OUTPUT/.build)")
    group = parser.add_argument_group("options of schedulers")
    for option in options().values():
        having = schedulers.supporting(option.name, arrays=arrays)
        if both:
            having += schedulers.supporting(option.name, arrays=not arrays)
        if having:
            _add_option(group, option, sorted(set(having)))


def _add_option(group: Any, option: Option, having: list[str]) -> None:
    text = option.help
    if having != schedulers.names():
        text += f" ({', '.join(having)})"
    values: dict[str, Any] = {"help": text, "dest": attribute(option.name)}
    if option.kind is bool:
        group.add_argument(option.flag, action="store_true", default=None, **values)
        return
    values["metavar"] = option.metavar or ("N" if option.kind is int else option.name.upper())
    values["type"] = option.kind
    if option.repeated:
        values["action"] = "append"
    group.add_argument(option.flag, **values)


def _monitor(commands: _Commands[argparse.ArgumentParser]) -> None:
    """Adds the commands on submitted runs and arrays."""
    texts = {
        "status": "state and progress of a run, a sweep or an array",
        "logs": "print the log of a run or element (default: one that went wrong)",
        "cancel": "stop what runs and waits",
        "retry": "run again what did not succeed",
        "wait": "wait until all has ended; the exit code is that of the job",
    }
    for name, text in texts.items():
        command = commands.add_parser(name, help=text, description=text, allow_abbrev=False)
        command.add_argument(
            "out",
            metavar="RUN|SWEEP|OUTPUT",
            help="name or folder of a run or sweep; folder that a build or cache fills",
        )
        if name == "status":
            command.add_argument(
                "--sort", metavar="METRIC", help="a table, lowest first (-METRIC: highest first)"
            )
            command.add_argument("--csv", metavar="FILE.csv", help="write the table")
            command.add_argument("--html", metavar="FILE.html", help="write the table as a page")
        if name == "logs":
            command.add_argument("--element", type=int, help="default: the first that went wrong")
            command.add_argument("--rank", type=int, help="process of a run (default: that failed)")
            command.add_argument("-f", "--follow", action="store_true", help="until it ends")
        if name == "retry":
            _job_arguments(command, arrays=False, again=True, both=True)
            continue
        if name == "wait":
            _poll_argument(command)
        _root_argument(command)
        command.add_argument("--record", help="folder of record and logs, where --record was given")
    listing = commands.add_parser("list", help="all runs and sweeps", allow_abbrev=False)
    _root_argument(listing)
    listing.add_argument("--state", help="only those in this state")
    diff = commands.add_parser("diff", help="differences between two runs", allow_abbrev=False)
    diff.add_argument("pair", nargs=2, metavar="RUN", help="names or folders")
    _root_argument(diff)


def _root_argument(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--runs", default=DEFAULT_ROOT, metavar="ROOT", help="folder of all runs")


def _poll_argument(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--poll", type=float, default=10.0, help="seconds between queries (10)")
