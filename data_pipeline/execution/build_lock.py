"""Locks a build folder: one build writes a dataset; array elements share the lock."""

from __future__ import annotations

import contextlib
import errno
from collections.abc import Iterator
from pathlib import Path

from a2fjax.errors import InputError
from data_pipeline.execution.console import WriteLine

_NO_LOCKS = (errno.ENOLCK, errno.ENOTSUP, errno.EOPNOTSUPP, errno.ENOSYS, errno.EINVAL)


@contextlib.contextmanager
def hold(work: Path, *, shared: bool = False, log: WriteLine = lambda line: None) -> Iterator[bool]:
    """Context in which the lock of a build folder is held.

    Args:
      work: the folder.
      shared: other holders may share it too.
      log: takes a warning where the disk has no locks.

    Yields:
      Whether the lock is held; False on disks without locks. Two builds can then run at once: takes
      are named by content and written atomically, so they lose time, but only one may finish.

    Raises:
      InputError: another build holds it.
    """
    import fcntl

    kind = fcntl.LOCK_SH if shared else fcntl.LOCK_EX
    # Open for reading and writing: over NFS each kind of lock needs its own.
    with (work / "lock").open("a+") as file:
        held = True
        try:
            fcntl.flock(file, kind | fcntl.LOCK_NB)
        except BlockingIOError:
            raise InputError(f"{work.parent}: another build is writing there") from None
        except OSError as error:
            if error.errno not in _NO_LOCKS:
                raise
            held = False
            log(
                f"warning: {work.parent}: its disk has no locks ({error.strerror}): see to it that "
                "no other build writes there"
            )
        yield held
