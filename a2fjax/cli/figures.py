"""Shared by commands that measure: progress lines, report files and printed figures."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

from a2fjax import progress
from a2fjax.errors import InputError


def finish(figures: Any, paths: Sequence[str | Path], *, legend: str = "") -> int:
    """Writes figures, then prints them: whoever reads the output may stop early."""
    for path in paths:
        figures.save(path)
    print("\n".join(filter(None, [legend, str(figures)])))
    if paths:
        print("", *(f"report: {path}" for path in paths), sep="\n")
    return 0


@contextlib.contextmanager
def progress_lines() -> Iterator[Callable[[str], None]]:
    """Yields a function that prints a line; a line that lasts is repeated."""
    last = "loading"

    def say(line: str) -> None:
        nonlocal last
        last = line
        tell(line)

    def tell(line: str) -> None:
        progress.to_stderr(f"  {line}")

    with progress.shown(lambda: last, tell):
        yield say


def check_writable(path: Path) -> None:
    """Raises `InputError` if the report cannot be written, before the long evaluation."""
    if path.is_dir():
        raise InputError(f"--out {path}: is a folder, expected a file to write")
    folder = next(p for p in path.absolute().parents if p.exists())
    if not folder.is_dir():
        raise InputError(f"--out {path}: cannot be written ({folder} is a file)")
    if not os.access(folder, os.W_OK | os.X_OK):
        raise InputError(f"--out {path}: cannot be written (no permission in folder {folder})")


def check_json(paths: Sequence[str] | None, what: str) -> None:
    """Raises `InputError` for a file that would be a page: `what` has none."""
    pages = [out for out in paths or () if Path(out).suffix.lower() == ".html"]
    if pages:
        raise InputError(f"--out {pages[0]}: {what} is JSON only")
