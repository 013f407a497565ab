"""Starts Python with a snapshot of the code, if the snapshot's files are those of its digest.

    python -I -S RUN/launch/checked_code.py CODE DIGEST COMMAND ...

Submitting copies this file into the run's folder and starts it with an isolated interpreter: code
of the snapshot, or a file that Python reads at its start, cannot check itself. Therefore it imports
nothing but the standard library. Compiled files, which Python prefers to the source, are removed.
"""

from __future__ import annotations

import hashlib
import os
import shutil
import sys
from collections.abc import Mapping

BAD_INPUT = 2
"""`a2fjax.errors.EXIT_BAD_INPUT`, which cannot be imported here."""


def entry(path: str | os.PathLike[str]) -> tuple[str, str]:
    """Returns ("link", target) for a symbolic link, else ("file", SHA-256 of the content).

    Raises:
      OSError: the file cannot be read.
    """
    if os.path.islink(path):
        return "link", os.readlink(path)
    with open(path, "rb") as file:
        return "file", hashlib.file_digest(file, "sha256").hexdigest()


def digest(entries: Mapping[str, tuple[str, str]]) -> str:
    """Returns 16 hex digits that identify files by name and content; modes do not count."""
    lines = [
        b"".join(os.fsencode(word) + b"\0" for word in (name, *values))
        for name, values in entries.items()
    ]
    return hashlib.sha256(b"".join(sorted(lines))).hexdigest()[:16]


def entries(folder: str) -> dict[str, tuple[str, str]]:
    """Returns the entry of every file below a folder by its relative path.

    Raises:
      OSError: a file cannot be read.
    """
    entries_by_path = {}
    for parent, folders, names in os.walk(folder):
        links = [name for name in folders if os.path.islink(os.path.join(parent, name))]
        for name in [*names, *links]:
            path = os.path.join(parent, name)
            entries_by_path[os.path.relpath(path, folder).replace(os.sep, "/")] = entry(path)
    return entries_by_path


def wrong(folder: str, expected: str) -> str:
    """Returns why a snapshot must not run, "" if its files are those of its digest."""
    if os.path.islink(folder) or not os.path.isdir(folder):
        return f"{folder}: the snapshot of the code is missing"
    for parent, folders, _ in os.walk(folder):
        if "__pycache__" in folders and not os.path.islink(os.path.join(parent, "__pycache__")):
            shutil.rmtree(os.path.join(parent, "__pycache__"), ignore_errors=True)
    try:
        digest_now = digest(entries(folder))
    except OSError as error:
        return f"{error.filename}: cannot be read ({error.strerror})"
    if digest_now == expected:
        return ""
    return f"{folder}: the snapshot of the code was changed: its files have digest {digest_now}"


def main(argv: list[str]) -> int:
    """Replaces this process with COMMAND; returns an exit code if the snapshot is wrong."""
    code, expected, *command = argv
    message = wrong(code, expected)
    if not message:
        os.execvp(command[0], command)
    message += "; `submit.py resume RUN --new-code` takes a new one, or for a build or cache the "
    message += "same command again"
    print(message, file=sys.stderr)
    rank = os.environ.get("A2F_PROCESS_ID") or os.environ.get("SLURM_PROCID") or "0"
    logs = os.path.join(os.path.dirname(os.path.abspath(__file__)), "logs")
    os.makedirs(logs, exist_ok=True)
    with open(os.path.join(logs, f"rank-{rank}.log"), "a", encoding="utf-8") as log:
        print(message, file=log)
    return BAD_INPUT


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
