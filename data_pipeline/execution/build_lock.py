"""Locks a build folder: one build writes a dataset; array elements share the lock."""

from __future__ import annotations

import contextlib
import errno
from collections.abc import Iterator
from pathlib import Path

from a2fjax import files
from a2fjax.errors import InputError
from data_pipeline.execution.console import WriteLine

_NO_LOCKS = (errno.ENOLCK, errno.ENOTSUP, errno.EOPNOTSUPP, errno.ENOSYS, errno.EINVAL)


@contextlib.contextmanager
def hold(work: Path, *, shared: bool = False, log: WriteLine = lambda line: None) -> Iterator[bool]:
    """Holds the lock of a build folder within a context.

    Args:
      work: the build folder.
      shared: whether other holders may share the lock.
      log: called with a warning if the disk does not support locks.

    Yields:
      Whether the lock is held; False on disks without locks. Two builds can then run at the same
      time. Takes are named by content and written atomically, so this only wastes time, but only
      one of them may finish.

    Raises:
      InputError: another build holds the lock.
    """
    import fcntl

    kind = fcntl.LOCK_SH if shared else fcntl.LOCK_EX
    # Over NFS, shared locks need read access and exclusive locks write access.
    with files.open_append(work / "lock") as file:
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
                f"warning: {work.parent}: its disk has no locks ({error.strerror}): make sure that "
                "no other build writes there"
            )
        yield held
