"""What can be said to `launch/submit.py`."""

from __future__ import annotations

import argparse
from collections.abc import Iterable

from launch import schedulers

DEFAULT_PARTS = 64
DEFAULT_ROOT = "runs"
WORK = ("build", "cache")
"""Commands that start work in parts."""

RUNS = ("submit", "tune", "run")
"""Commands that start runs."""

OF_RUNS = ("list", "diff", "resume")
"""Commands that only runs have."""


def add(parser: argparse.ArgumentParser) -> None:
    """Adds all commands with their arguments."""
    commands = parser.add_subparsers(dest="command", required=True, metavar="COMMAND")
    _runs(commands)
    _parts(commands)
    _looks(commands)


def given(args: argparse.Namespace, names: Iterable[str]) -> dict[str, object]:
    """Returns those of some arguments that were on the command line."""
    return {n: getattr(args, n) for n in names if getattr(args, n, None) not in (None, [])}


def _runs(commands: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    submit = commands.add_parser(
        "submit",
        help="train: one run, or a sweep",
        description="Trains an experiment in a folder of its own, ROOT/NAME, from configuration "
        "and code as they are now. Values are set with --config.path.to.key=value.",
        allow_abbrev=False,
    )
    submit.add_argument("experiment", metavar="EXPERIMENT.py[:variant]", help="or a config.json")
    submit.add_argument("--name", help="of the run or sweep (default: the experiment's, and when)")
    submit.add_argument("--sweep", metavar="EXPR", help="a run for each of these values")
    submit.add_argument(
        "--check-compile", action="store_true", help="compile here first, on pretended devices"
    )
    _run_arguments(submit)
    tune = commands.add_parser(
        "tune",
        help="train with values that are chosen by what earlier runs found",
        description="Starts runs of an experiment in ROOT/NAME, chooses their values by what the "
        "others reached, and stops those that are behind. Needs the extra `tune`. Given again, it "
        "goes on where it was stopped.",
        allow_abbrev=False,
    )
    tune.add_argument("experiment", metavar="EXPERIMENT.py[:variant]")
    tune.add_argument("--name", required=True, help="of the study, a sweep that grows")
    tune.add_argument(
        "--space",
        required=True,
        metavar="SPACE",
        help='such as {"optim.learning_rate": loguniform(1e-4, 1e-2)}; also uniform(LOW, HIGH), '
        "integer(LOW, HIGH), choice(VALUE, ...)",
    )
    tune.add_argument("--trials", type=int, required=True, help="how many runs in all")
    tune.add_argument(
        "--metric", default="eval/loss", help="of metrics.jsonl, the least is best (-METRIC: most)"
    )
    tune.add_argument("--pruner", default="halving", help="halving, hyperband or none")
    tune.add_argument("--first-step", type=int, help="of a comparison (default: steps / 9)")
    tune.add_argument("--seed", type=int, default=0, help="of the choices")
    _run_arguments(tune)
    run = commands.add_parser(
        "run",
        help="any other command of a2fjax, as a run",
        description="Runs a command as a job: submit.py run NAME [options] -- a2fjax evaluate RUN",
        allow_abbrev=False,
    )
    run.add_argument("name", help="of the run: its folder is ROOT/NAME")
    _run_arguments(run)
    resume = commands.add_parser(
        "resume",
        help="continue a run from where it stands",
        description="Continues a run with its own code and configuration. What may change "
        "(steps, log, checkpoint, eval, sharding) is given as --config.key=value.",
        allow_abbrev=False,
    )
    resume.add_argument("out", metavar="RUN", help="a run's name or folder")
    resume.add_argument("--new-code", action="store_true", help="with the code as it is now")
    _run_arguments(resume, again=True)


def _run_arguments(parser: argparse.ArgumentParser, *, again: bool = False) -> None:
    parser.add_argument("--runs", default=DEFAULT_ROOT, metavar="ROOT", help="folder of all runs")
    parser.add_argument("--backend", help=f"{', '.join(schedulers.NAMES)} (default local)")
    parser.add_argument("--profile", metavar="SITE.toml", help="what is particular to a cluster")
    parser.add_argument("--dry-run", action="store_true", help="print what would be submitted")
    parser.add_argument("--wait", action="store_true", help="return when all has ended")
    parser.add_argument("--poll", type=float, default=10.0, help="seconds between looks (10)")
    _after_argument(parser)
    parser.add_argument("--retries", type=int, help="after failures without progress (3)")
    parser.add_argument("--max-requeues", type=int, help="how often a job comes back at most (50)")
    parser.add_argument("--max-parallel", type=int, help="runs of a sweep at a time (local: 1)")
    parser.add_argument(
        "--pass",
        action="append",
        dest="pass_",
        metavar="NAME",
        help="variable of the environment that the job needs; its value is written nowhere",
    )
    if not again:
        parser.add_argument("--python", help="interpreter (default: this one)")
    options = parser.add_argument_group("machines")
    options.add_argument("--nodes", type=int, help="machines a run (slurm, kubernetes; default 1)")
    options.add_argument("--gpus", type=int, help="GPUs of each machine")
    options.add_argument("--processes", type=int, help="processes on this machine (local)")
    options.add_argument("--cpu-devices", type=int, help="devices a process, without GPUs")
    options.add_argument("--layout", help="processes: per-node (default) or per-gpu (slurm)")
    options.add_argument("--cpus", type=int, help="cores of each machine (slurm, kubernetes)")
    options.add_argument("--mem", help="memory of each machine, such as 64G (slurm, kubernetes)")
    options.add_argument("--time", help="limit, such as 24:00:00 or 24h (slurm)")
    for name in ("partition", "account", "qos", "constraint"):
        options.add_argument(f"--{name}", help="as sbatch's (slurm)")
    options.add_argument("--array-limit", type=int, help="largest array, instead of asking (slurm)")
    options.add_argument(
        "--sbatch", action="append", metavar="OPTION", help="a further option of sbatch (slurm)"
    )
    options.add_argument("--image", help="image with a2fjax (kubernetes)")
    options.add_argument("--namespace", help="default: default (kubernetes)")
    options.add_argument("--queue", help="Kueue's local queue (kubernetes)")
    options.add_argument(
        "--volume", action="append", metavar="CLAIM:PATH[:ro]", help="may be repeated (kubernetes)"
    )


def _parts(commands: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    build = commands.add_parser(
        "build",
        help="captures to shards, in parts",
        description="Builds shards in N parts, then joins them. Settings of the build are given "
        "as --config.<name>=<value>. Given again, it does only what is missing.",
        allow_abbrev=False,
    )
    build.add_argument("input", help="folder of captures, as the job sees it")
    build.add_argument("--out", required=True, help="folder of the shards, as the job sees it")
    build.add_argument("--layout", default="auto", help="see data_pipeline.build")
    build.add_argument("--workers", type=int, help="processes a part (default: --cpus)")
    _part_arguments(build)
    cache = commands.add_parser(
        "cache",
        help="what speech encoders make of shards, in parts",
        description="Writes caches beside shards in N parts, then closes them, as `a2fjax cache`. "
        "The other commands take SHARDS/encoded then. Given again, it does only what is missing.",
        allow_abbrev=False,
    )
    cache.add_argument("shards", help="folder of the shards, as the job sees it")
    cache.add_argument("--features", metavar="NAME,...", help="such as whisper:PATH,hubert:PATH")
    cache.add_argument(
        "--config", metavar="FILE.py[:variant]", help="experiment whose encoders are cached"
    )
    _part_arguments(cache)


def _part_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--backend", default="local", help=", ".join(schedulers.NAMES))
    parser.add_argument("--parts", type=int, help=f"default {DEFAULT_PARTS}; local: --max-parallel")
    parser.add_argument("--retries", type=int, default=2, help="of a part that fails (default 2)")
    parser.add_argument("--python", help="interpreter (default: this one; Kubernetes: python)")
    parser.add_argument("--dry-run", action="store_true", help="print what would be submitted")
    parser.add_argument("--runs", default=DEFAULT_ROOT, metavar="ROOT", help="runs of --after")
    _after_argument(parser)
    _wait_arguments(parser)
    options = parser.add_argument_group("backends")
    options.add_argument("--max-parallel", type=int, help="parts at a time")
    options.add_argument("--cpus", type=int, help="cores a part (slurm, kubernetes; default 1)")
    options.add_argument("--mem", help="memory a part, such as 8G (slurm, kubernetes)")
    for name in ("partition", "account", "qos", "constraint"):
        options.add_argument(f"--{name}", help="as sbatch's (slurm)")
    options.add_argument("--time", help="limit of a part, such as 4:00:00 (slurm)")
    options.add_argument("--array-limit", type=int, help="largest array, instead of asking (slurm)")
    options.add_argument(
        "--sbatch", action="append", metavar="OPTION", help="a further option of sbatch (slurm)"
    )
    options.add_argument("--image", help="image with a2fjax (kubernetes)")
    options.add_argument("--namespace", help="default: default (kubernetes)")
    options.add_argument(
        "--volume", action="append", metavar="CLAIM:PATH[:ro]", help="may be repeated (kubernetes)"
    )


def _after_argument(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--after",
        action="append",
        metavar="WORK[:ok|any]",
        help="start when that run or sweep, or what fills that folder, has ended; may be repeated",
    )


def _wait_arguments(parser: argparse.ArgumentParser, *, ask: bool = True) -> None:
    if ask:
        parser.add_argument("--wait", action="store_true", help="return when all has ended")
    parser.add_argument("--poll", type=float, default=10.0, help="seconds between looks (10)")
    parser.add_argument("--record", help="folder of record and logs (default: its .build)")


def _looks(commands: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Adds the commands on what was submitted before, runs and parts alike."""
    texts = {
        "status": "how far a run, a sweep or the parts are",
        "logs": "print the log of a run or of a part (default: one that went wrong)",
        "cancel": "stop everything",
        "retry": "run again what did not end well",
        "finish": "of parts: wait, then for the last command (Kubernetes: start it)",
    }
    for name, text in texts.items():
        command = commands.add_parser(name, help=text, description=text, allow_abbrev=False)
        command.add_argument(
            "out",
            metavar="RUN|SWEEP|SHARDS",
            help="name or folder of a run or sweep; folder of shards; of a cache SHARDS/encoded",
        )
        if name == "status":
            command.add_argument(
                "--sort", metavar="METRIC", help="a table, the least first (-METRIC: the largest)"
            )
            command.add_argument("--csv", metavar="FILE.csv", help="write the table")
            command.add_argument("--html", metavar="FILE.html", help="write it as a page")
        if name == "logs":
            command.add_argument("--part", type=int, help="default: the first that went wrong")
            command.add_argument("--rank", type=int, help="process of a run (default 0)")
            command.add_argument("-f", "--follow", action="store_true", help="go on until it ends")
        if name == "retry":
            _run_arguments(command, again=True)
            command.add_argument("--record", help="where --record was")
            continue
        command.add_argument("--runs", default=DEFAULT_ROOT, metavar="ROOT", help="of all runs")
        if name == "finish":
            _wait_arguments(command, ask=False)
        else:
            command.add_argument("--record", help="where --record was")
    listing = commands.add_parser("list", help="all runs and sweeps", allow_abbrev=False)
    listing.add_argument("--runs", default=DEFAULT_ROOT, metavar="ROOT", help="folder of all runs")
    listing.add_argument("--state", help="only those in this state")
    diff = commands.add_parser("diff", help="how two runs differ", allow_abbrev=False)
    diff.add_argument("runs_", nargs=2, metavar="RUN", help="names or folders")
    diff.add_argument("--runs", default=DEFAULT_ROOT, metavar="ROOT", help="folder of all runs")
