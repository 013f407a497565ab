"""Submits jobs to this machine, Slurm, Kubernetes or another scheduler, and monitors them."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
if not __package__:
    # A script's first path entry is its folder, whose modules must not be imported by bare name.
    sys.path[0] = str(ROOT)

from a2fjax import errors, files, printing, registry  # noqa: E402
from a2fjax.errors import InputError  # noqa: E402
from launch.commands import arrays, monitor, retry, runs, tune  # noqa: E402
from launch.submission import flags  # noqa: E402

_LONGEST_POLL = 86400


@printing.safe_output()
def main(argv: Sequence[str] | None = None, *, program: Sequence[str] | None = None) -> int:
    """Runs the command line; returns the exit code (see `a2fjax.errors`).

    Args:
      argv: arguments; None takes those of this process.
      program: command that jobs run in place of the project's own.

    Example:
        >>> main(["list", "--runs", "no-such-folder"])
        no-such-folder: no runs
        0
    """
    parser = errors.ArgumentParser(prog="launch/submit.py", description=__doc__, allow_abbrev=False)
    try:
        registry.load_plugins()
        flags.add(parser)
        code = _run(parser, list(sys.argv[1:] if argv is None else argv), program)
        sys.stdout.flush()  # A closed pipe shows here, or when the interpreter exits.
        return code
    except InputError as error:
        return _fail(f"error: {error}", errors.EXIT_BAD_INPUT)
    except errors.WorkFailed as error:
        return _fail(f"failed: {error}", errors.EXIT_FAILED)
    except errors.Preempted as error:
        return _fail(f"stopped: {error}", errors.EXIT_PREEMPTED)
    except KeyboardInterrupt:
        return _fail("interrupted", 130)
    except BrokenPipeError:
        files.drop_output()
        return errors.EXIT_OK
    except OSError as error:
        if error.errno not in files.DISK_ERRORS:
            return _fail(f"error: {files.path_error(error)}", errors.EXIT_BAD_INPUT)
        return _fail(f"failed: {error.filename}: {error.strerror}", errors.EXIT_FAILED)


def _run(parser: errors.ArgumentParser, argv: list[str], program: Sequence[str] | None) -> int:
    words: list[str] = []
    if argv[:1] == ["run"] and "--" in argv:
        cut = argv.index("--")
        argv, words = argv[:cut], argv[cut + 1 :]
    args, extra = parser.parse_known_args(argv)
    _check_poll(args)
    if getattr(args, "json", False) and not args.dry_run:
        raise InputError("--json: is for --dry-run")
    command = args.command
    if command in flags.ARRAYS:
        return arrays.submit(args, extra, program)
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
    if command == "retry":
        return retry.retry(args)
    return monitor.COMMANDS[command](args)


def _check_poll(args: argparse.Namespace) -> None:
    poll = getattr(args, "poll", 1.0)
    if not 0 < poll <= _LONGEST_POLL:
        raise InputError(f"--poll {poll:g}: expected seconds above 0, at most {_LONGEST_POLL}")


def _fail(message: str, code: int) -> int:
    print(f"launch/submit.py: {errors.one_line(message)}", file=sys.stderr)
    return code


if __name__ == "__main__":
    sys.exit(main())
