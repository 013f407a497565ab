"""GPUs of this machine, each held by one run at a time: files that are locked below ROOT."""

from __future__ import annotations

import contextlib
import fcntl
import os
import re
import socket
from collections.abc import Sequence
from pathlib import Path
from typing import IO

from a2fjax import files
from a2fjax.errors import InputError

FOLDER = ".slots"


def present() -> list[str]:
    """Returns the names of this machine's GPUs, or of those that CUDA_VISIBLE_DEVICES allows."""
    allowed = os.environ.get("CUDA_VISIBLE_DEVICES")
    if allowed is not None:
        return [name.strip() for name in allowed.split(",") if name.strip()]
    numbers = [re.fullmatch(r"nvidia(\d+)", p.name) for p in Path("/dev").glob("nvidia*")]
    return sorted((found[1] for found in numbers if found), key=int)


def check(count: int) -> None:
    """Checks that the machine has so many GPUs at all.

    Raises:
      InputError: it has not; names how many there are.
    """
    have = present()
    if count > len(have):
        raise InputError(
            f"--gpus {count}: this machine has {len(have)}"
            + (f" ({', '.join(have)})" if have else "; leave it out, or say --cpu-devices")
        )


class Slots:
    """GPUs that a run holds; its processes inherit the locks, so a killed desk frees none early."""

    def __init__(self, names: Sequence[str], held: Sequence[IO[str]]) -> None:
        """Keeps what `take` got."""
        self.names, self._held = list(names), list(held)

    def handles(self) -> list[int]:
        """Returns the open files, for processes to inherit."""
        return [file.fileno() for file in self._held]

    def free(self) -> None:
        """Gives them back; processes that still hold them keep them."""
        for file in self._held:
            file.close()


def take(root: Path, count: int) -> Slots | None:
    """Returns so many free GPUs, or None where there are not as many free at the moment."""
    folder = root / FOLDER
    files.make_folder(folder)
    names: list[str] = []
    with contextlib.ExitStack() as held:
        got: list[IO[str]] = []
        for name in present():
            if len(names) == count:
                break
            where = re.sub(r"[^\w.-]", "_", f"{socket.gethostname()}-{name}")
            file = held.enter_context((folder / where).open("a"))
            try:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                continue
            names.append(name)
            got.append(file)
        if len(names) < count:
            return None
        held.pop_all()
        return Slots(names, got)
