"""Exceptions with a one-line message for the user, and the exit codes that report them."""

import argparse
import difflib
from collections.abc import Iterable
from typing import NoReturn

from a2fjax import printing

EXIT_OK = 0
EXIT_FAILED = 1
EXIT_BAD_INPUT = 2
EXIT_LOST = 70
"""A process of a distributed run hung or lost a peer; a new attempt may succeed."""

EXIT_PREEMPTED = 75


class InputError(ValueError):
    """Input that the user must correct.

    The message names the file, key or value, says what was expected and how to correct it. Commands
    print it as one line and exit with `EXIT_BAD_INPUT`.

    Example:
        >>> raise InputError(f"in.wv: unknown format 'wv'{nearest('wv', ['wav', 'flac'])}")
        Traceback (most recent call last):
          ...
        a2fjax.errors.InputError: in.wv: unknown format 'wv'; did you mean 'wav'?
    """

    def __init__(self, message: object = "") -> None:
        """Stores the message; the control characters of names in it are escaped."""
        super().__init__(printing.printable(str(message)))


class WorkFailed(RuntimeError):
    """Work that failed although its input was valid (non-finite loss, full disk).

    Commands print the message as one line and exit with `EXIT_FAILED`.
    """

    def __init__(self, message: object = "") -> None:
        """Stores the message; the control characters of names in it are escaped."""
        super().__init__(printing.printable(str(message)))


class Preempted(RuntimeError):
    """A run that was asked to stop and saved its state; started again, it continues."""


def exit_code(error: Exception) -> int:
    """Returns the exit code that reports an error."""
    return EXIT_BAD_INPUT if isinstance(error, InputError) else EXIT_FAILED


class ArgumentParser(argparse.ArgumentParser):
    """A parser that raises `InputError` with one line instead of printing its usage."""

    def error(self, message: str) -> NoReturn:
        """Raises `InputError`; argparse would print its usage and exit.

        Raises:
          InputError: always.
        """
        raise InputError(f"{message}; `{self.prog} --help` lists the arguments")


def one_line(message: str) -> str:
    """Returns a message in one line, without the middle of names of thousands of characters.

    Example:
        >>> len(one_line("a name " + "x" * 5000 + ": no such file"))
        1000
    """
    text = " ".join(message.split())
    return text if len(text) <= 1000 else f"{text[:800]}...{text[-197:]}"


def nearest(name: str, choices: Iterable[str]) -> str:
    """Returns the end of an error message that suggests a valid choice.

    Args:
      name: what the user wrote.
      choices: what is valid.

    Returns:
      The choice closest to `name`; without a close one, up to twelve choices; "" without choices.

    Example:
        >>> nearest("happpy", ["neutral", "happy"])
        "; did you mean 'happy'?"
        >>> nearest("x", ["neutral", "happy"])
        '; expected one of: neutral, happy'
    """
    choices = [str(c) for c in choices]
    lower = {c.lower(): c for c in choices}
    matches = difflib.get_close_matches(str(name).lower(), list(lower), n=1, cutoff=0.5)
    if matches:
        return f"; did you mean {lower[matches[0]]!r}?"
    if not choices:
        return ""
    shown = ", ".join(choices[:12]) + (", ..." if len(choices) > 12 else "")
    return f"; expected one of: {shown}"
