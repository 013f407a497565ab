import errno
import os

import pytest

from a2fjax import files
from a2fjax.errors import InputError, WorkFailed


def test_write_replaces_the_file_atomically(tmp_path):
    path = tmp_path / "a.txt"
    for text in ("first\n", "zweites ü\n"):
        with files.atomic_write(path) as temporary:
            temporary.write_text(text, encoding="utf-8")
            assert temporary.parent == path.parent  # Renaming is whole within a file system only.
            assert not path.exists() or path.read_text() == "first\n"
        assert path.read_text(encoding="utf-8") == text
    files.write_text(path, "third\n")
    assert path.read_text() == "third\n" and list(tmp_path.iterdir()) == [path]


@pytest.mark.parametrize(
    ("raised", "seen"),
    [
        (KeyError("x"), KeyError),
        (KeyboardInterrupt(), KeyboardInterrupt),
        (OSError(errno.ENOSPC, os.strerror(errno.ENOSPC)), WorkFailed),
    ],
)
def test_an_error_leaves_the_older_file_and_nothing_else(tmp_path, raised, seen):
    path = tmp_path / "a.txt"
    path.write_text("old")
    with pytest.raises(seen), files.atomic_write(path) as temporary:
        temporary.write_text("half")
        raise raised
    assert path.read_text() == "old" and list(tmp_path.iterdir()) == [path]


def test_paths_that_cannot_be_written_are_refused(tmp_path):
    (tmp_path / "file").write_text("")
    for path, says in (
        (tmp_path / "none" / "a", "does not exist"),
        (tmp_path / "file" / "a", "is not a folder"),
        (tmp_path, "is a folder"),
    ):
        with pytest.raises(InputError, match=says):
            files.write_text(path, "x")
    files.make_folder(tmp_path / "new" / "deep")
    files.make_folder(tmp_path / "new" / "deep")
    assert (tmp_path / "new" / "deep").is_dir()
    with pytest.raises(InputError, match="file/below: cannot be made a folder"):
        files.make_folder(tmp_path / "file" / "below")
