"""One build at a time writes a set; parts of one build may work side by side."""

from __future__ import annotations

import contextlib
import errno
from collections.abc import Iterator
from pathlib import Path

from a2fjax.errors import InputError
from data_pipeline.execution.console import WriteLine

_NONE = (errno.ENOLCK, errno.ENOTSUP, errno.EOPNOTSUPP, errno.ENOSYS, errno.EINVAL)


@contextlib.contextmanager
def hold(work: Path, *, shared: bool = False, say: WriteLine = lambda line: None) -> Iterator[bool]:
    """Holds the lock of a build's folder.

    Args:
      work: the folder.
      shared: with others that share it.
      say: takes a warning where the disk has no locks.

    Yields:
      Whether it is held; False on disks that have no locks. Two builds can then work side by side:
      takes have names by content and appear whole, so they lose time, but only one may finish.

    Raises:
      InputError: another build has it.
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
            if error.errno not in _NONE:
                raise
            held = False
            say(
                f"warning: {work.parent}: its disk has no locks ({error.strerror}): see to it that "
                "no other build writes there"
            )
        yield held
