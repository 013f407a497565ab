"""A file whose header is replaced, or a part of a file, for decoders that read no other."""

from __future__ import annotations

import io
import os
from pathlib import Path
from typing import Any


class Rewritten(io.RawIOBase):
    """A read-only binary stream: other bytes in place of the first ones of a file.

    Args:
      path: the file.
      head: the new first bytes.
      start: offset in the file where the stream goes on after `head`.
      end: offset in the file where the stream ends; None for the file's end.
    """

    def __init__(self, path: Path, head: bytes, start: int, end: int | None = None) -> None:
        self._file = path.open("rb")
        self._head, self._start, self._at = head, start, 0
        end = os.fstat(self._file.fileno()).st_size if end is None else end
        self._size = len(head) + end - start

    def readable(self) -> bool:
        """Returns True."""
        return True

    def seekable(self) -> bool:
        """Returns True."""
        return True

    def tell(self) -> int:
        """Returns the position in bytes."""
        return self._at

    def seek(self, offset: int, whence: int = os.SEEK_SET, /) -> int:
        """Moves the position; returns the new one."""
        base = {os.SEEK_SET: 0, os.SEEK_CUR: self._at, os.SEEK_END: self._size}[whence]
        self._at = max(0, base + offset)
        return self._at

    def read(self, size: int = -1, /) -> bytes:
        """Returns the next `size` bytes, or all; fewer at the end."""
        rest = max(0, self._size - self._at)
        size = rest if size < 0 else min(size, rest)
        out = self._head[self._at : self._at + size]
        self._file.seek(self._start + max(0, self._at + len(out) - len(self._head)))
        out += self._file.read(size - len(out))
        self._at += len(out)
        return out

    def readinto(self, buffer: Any, /) -> int:
        """Fills a buffer; returns the number of bytes."""
        view = memoryview(buffer)
        data = self.read(len(view))
        view[: len(data)] = data
        return len(data)

    def close(self) -> None:
        """Closes the file."""
        self._file.close()
        super().close()
