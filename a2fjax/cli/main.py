"""The `a2fjax` command: runs a subcommand's module and turns errors into exit codes."""

from __future__ import annotations

import importlib
import sys
from collections.abc import Sequence

from a2fjax import __version__, errors, files, printing

COMMANDS = {
    "train": "train a model, or continue a run",
    "cache": "cache the features of speech encoders beside the shards",
    "evaluate": "measure a run, or any program's curves, on held-out clips, beside baselines",
    "compare": "lay reports of the same clips beside each other",
    "infer": "predict the motion for a recording",
    "stream": "animate live audio and send the frames to programs that show them",
    "serve": "animate many speakers over WebSocket and for NVIDIA's clients",
    "export": "write a run as a bundle: weights, graphs for other runtimes, manifest, card",
    "config": "print every key of an experiment with its value, default, meaning and bounds",
    "inspect": "describe a run, a dataset or an experiment",
}
"""Commands and their one-line help. Each is a module of this package with `add_arguments(parser)`
and `run(args, extra)`; only the chosen one is imported, which keeps `--help` fast."""


@printing.safe_output()
def main(argv: Sequence[str] | None = None) -> int:
    """Runs the command line and returns the exit code (0, 1, 2 or 75; see `a2fjax.errors`)."""
    argv = list(sys.argv[1:] if argv is None else argv)
    if not argv or argv[0] in ("-h", "--help"):
        print(_usage())
        return errors.EXIT_OK if argv else errors.EXIT_BAD_INPUT
    if argv[0] == "--version":
        print(f"a2fjax {__version__}")
        return errors.EXIT_OK
    name = argv[0]
    if name not in COMMANDS:
        return _fail("a2fjax", f"unknown command {name!r}{errors.nearest(name, COMMANDS)}", 2)
    module = importlib.import_module(f"a2fjax.cli.{name}")
    parser = errors.ArgumentParser(
        prog=f"a2fjax {name}", description=module.__doc__, allow_abbrev=False
    )
    module.add_arguments(parser)
    prog = parser.prog
    try:
        args, extra = parser.parse_known_args(argv[1:])
        code = int(module.run(args, extra) or 0)
        sys.stdout.flush()  # A closed pipe shows here, or when the interpreter exits.
        return code
    except errors.InputError as error:
        return _fail(prog, str(error), errors.EXIT_BAD_INPUT)
    except errors.WorkFailed as error:
        return _fail(prog, str(error), errors.EXIT_FAILED)
    except errors.Preempted as error:
        print(f"{prog}: stopped: {error}", file=sys.stderr)
        return errors.EXIT_PREEMPTED
    except KeyboardInterrupt:
        print(f"{prog}: interrupted", file=sys.stderr)
        return 130
    except BrokenPipeError:
        files.drop_output()
        return errors.EXIT_OK
    except OSError as error:
        if error.errno not in files.DISK_ERRORS:
            return _fail(prog, str(files.path_error(error)), errors.EXIT_BAD_INPUT)
        name = error.filename or "what is printed"
        return _fail(prog, f"{name}: could not be written ({error.strerror})", errors.EXIT_FAILED)


def _usage() -> str:
    width = max(map(len, COMMANDS))
    lines = [f"  {name:<{width}}  {text}" for name, text in COMMANDS.items()]
    return "\n".join(
        [
            "usage: a2fjax COMMAND ...",
            "",
            "Train, evaluate and run speech-driven faces.",
            "",
            *lines,
            "",
            "`a2fjax COMMAND --help` lists the arguments; `a2fjax --version` prints the version.",
        ]
    )


def _fail(prog: str, message: str, code: int) -> int:
    print(f"{prog}: error: {errors.one_line(message)}", file=sys.stderr)
    return code


if __name__ == "__main__":
    sys.exit(main())
