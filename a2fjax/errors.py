"""Errors that are the user's to mend: one line, exit code 2, never a traceback."""

import argparse
import difflib
from collections.abc import Iterable
from typing import NoReturn

EXIT_OK = 0
EXIT_FAILED = 1
EXIT_BAD_INPUT = 2
EXIT_LOST = 70
"""A process among several hung or lost a peer: nothing more was learnt, and trying again may do."""

EXIT_PREEMPTED = 75


class InputError(ValueError):
    """Something the user gave is wrong; the message says what, what was expected and the fix.

    The command line prints the message as one line and exits with `EXIT_BAD_INPUT`.
    """


class WorkFailed(RuntimeError):
    """The work itself failed (non-finite loss, no disk): one line and `EXIT_FAILED`."""


class Preempted(RuntimeError):
    """The run was asked to stop and saved its state; started again, it continues."""


class ArgumentParser(argparse.ArgumentParser):
    """A parser whose complaints are `InputError`s: one line, without the usage before it."""

    def error(self, message: str) -> NoReturn:
        """Raises `InputError` where argparse would print its usage and exit.

        Raises:
          InputError: always.
        """
        raise InputError(f"{message}; `{self.prog} --help` lists the arguments")


def nearest(name: str, choices: Iterable[str]) -> str:
    """Returns "; did you mean 'x'?" for the choice closest to `name`, or the list of choices."""
    choices = [str(c) for c in choices]
    lower = {c.lower(): c for c in choices}
    found = difflib.get_close_matches(str(name).lower(), list(lower), n=1, cutoff=0.5)
    if found:
        return f"; did you mean {lower[found[0]]!r}?"
    if not choices:
        return ""
    shown = ", ".join(choices[:12]) + (", ..." if len(choices) > 12 else "")
    return f"; expected one of: {shown}"
