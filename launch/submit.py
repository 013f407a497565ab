"""Runs work on this machine, on Slurm or on Kubernetes: `python launch/submit.py --help`."""

from __future__ import annotations

import argparse
import contextlib
import sys
from collections.abc import Sequence
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
if not __package__:
    # As a script, the first entry is this folder, which would hide nothing but offer its modules.
    sys.path[0] = str(ROOT)

from a2fjax import errors  # noqa: E402
from a2fjax.errors import InputError  # noqa: E402
from launch.commands import arrays, runs, tune  # noqa: E402
from launch.jobs import run_spec  # noqa: E402
from launch.monitor import status  # noqa: E402
from launch.submission import flags  # noqa: E402
from launch.submission import target as place_lib  # noqa: E402

_LONGEST_POLL = 86400


def main(argv: Sequence[str] | None = None, *, program: Sequence[str] | None = None) -> int:
    """Runs the command line; returns the exit code (see `a2fjax.errors`).

    Args:
      argv: arguments, those of this process by default.
      program: what does the work instead of the project's own commands.
    """
    parser = errors.ArgumentParser(prog="launch/submit.py", description=__doc__, allow_abbrev=False)
    flags.add(parser)
    try:
        return _run(parser, list(sys.argv[1:] if argv is None else argv), program)
    except InputError as error:
        return _fail(f"error: {error}", errors.EXIT_BAD_INPUT)
    except errors.WorkFailed as error:
        return _fail(f"failed: {error}", errors.EXIT_FAILED)
    except errors.Preempted as error:
        return _fail(f"stopped: {error}", errors.EXIT_PREEMPTED)
    except KeyboardInterrupt:
        return _fail("interrupted", 130)
    except BrokenPipeError:
        # The reader of our output went away: nothing is wrong.
        with contextlib.suppress(OSError):
            sys.stdout = open("/dev/null", "w")  # noqa: SIM115
        return errors.EXIT_OK


def _run(parser: errors.ArgumentParser, argv: list[str], program: Sequence[str] | None) -> int:
    words: list[str] = []
    if argv[:1] == ["run"] and "--" in argv:
        cut = argv.index("--")
        argv, words = argv[:cut], argv[cut + 1 :]
    args, extra = parser.parse_known_args(argv)
    command = args.command
    poll = getattr(args, "poll", 1.0)
    if not 0 < poll <= _LONGEST_POLL:
        raise InputError(f"--poll {poll:g}: expected seconds above 0, at most {_LONGEST_POLL}")
    if command in flags.WORK:
        return arrays.start(args, extra, program)
    if command == "submit":
        return runs.submit(args, extra, program)
    if command == "tune":
        return tune.tune(args, argv, extra)
    if command == "resume":
        return runs.resume(args, extra)
    if extra:
        raise InputError(f"unexpected argument {extra[0]!r}")
    if command == "run":
        return runs.run(args, words)
    if command == "list":
        return status.listing(Path(args.runs), args.state)
    if command == "diff":
        return status.diff(*(run_spec.find(name, args.runs) for name in args.runs_))
    place = run_spec.lookup(args.out, args.runs)
    if place is None:
        if "/" not in args.out and not Path(args.out).exists():
            run_spec.find(args.out, args.runs)  # raises, with the nearest name
        _check_of_parts(args)
        return arrays.command(args)
    if command == "finish":
        raise InputError(f"{args.out}: a run or sweep ends by itself; `submit.py status` tells how")
    if command == "retry":
        return runs.retry(args, place)
    return status.command(args, place)


def _check_of_parts(args: argparse.Namespace) -> None:
    """Refuses what is only for runs."""
    names = [*place_lib.OPTIONS, "gpus", "cpu_devices", "max_parallel", "profile", "after"]
    names += ["sort", "csv", "html"]
    names += ["backend", "retries", "max_requeues", "pass_", "rank", "dry_run", "follow"]
    for name in names:
        if getattr(args, name, None) not in (None, False):
            flag = f"--{name.strip('_').replace('_', '-')}"
            raise InputError(f"{flag}: is for runs and sweeps, and {args.out} is neither")


def _fail(message: str, code: int) -> int:
    print(f"launch/submit.py: {' '.join(message.split())}", file=sys.stderr)
    return code


if __name__ == "__main__":
    sys.exit(main())
