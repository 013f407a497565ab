"""Reserves GPUs of this machine for one run at a time with locked files below ROOT."""

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

FOLDER = ".gpus"


def present() -> list[str]:
    """Returns the names of this machine's GPUs, or of those that CUDA_VISIBLE_DEVICES allows."""
    allowed = os.environ.get("CUDA_VISIBLE_DEVICES")
    if allowed is not None:
        return [name.strip() for name in allowed.split(",") if name.strip()]
    matches = [re.fullmatch(r"nvidia(\d+)", p.name) for p in Path("/dev").glob("nvidia*")]
    return sorted((match[1] for match in matches if match), key=int)


def check(count: int) -> None:
    """Checks that the machine has at least `count` GPUs, busy or not.

    Raises:
      InputError: it has fewer; gives the number.
    """
    names = present()
    if count > len(names):
        raise InputError(
            f"--gpus {count}: this machine has {len(names)}"
            + (f" ({', '.join(names)})" if names else "; leave it out, or use --cpu-devices")
        )


class Gpus:
    """GPUs reserved for a run. Its processes inherit the locks and hold them until they end."""

    def __init__(self, names: Sequence[str], held: Sequence[IO[bytes]]) -> None:
        """Stores the names and lock files acquired by `acquire`."""
        self.names, self._held = list(names), list(held)

    def handles(self) -> list[int]:
        """Returns the open files, for processes to inherit."""
        return [file.fileno() for file in self._held]

    def free(self) -> None:
        """Releases the GPUs; processes that still run keep theirs."""
        for file in self._held:
            file.close()


def acquire(root: Path, count: int) -> Gpus | None:
    """Reserves and returns `count` free GPUs, or None if fewer are free."""
    folder = root / FOLDER
    files.make_folder(folder)
    names: list[str] = []
    with contextlib.ExitStack() as held:
        locks: list[IO[bytes]] = []
        for name in present():
            if len(names) == count:
                break
            file_name = re.sub(r"[^\w.-]", "_", f"{socket.gethostname()}-{name}")
            file = held.enter_context(files.open_append(folder / file_name))
            try:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                continue
            names.append(name)
            locks.append(file)
        if len(names) < count:
            return None
        held.pop_all()
        return Gpus(names, locks)
