import errno
import fcntl
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


def test_a_planted_link_is_not_written_through(tmp_path, monkeypatch):
    victim = tmp_path / "victim"
    victim.write_text("precious")
    path = tmp_path / "a.txt"
    monkeypatch.setattr(files.secrets, "token_hex", lambda count: "0" * 2 * count)
    planted = tmp_path / f".a.txt.{'0' * 32}.partial"
    planted.symlink_to(victim)
    with pytest.raises(InputError, match=r"a.txt: cannot be written \(File exists\)"):
        files.write_text(path, "x")
    assert victim.read_text() == "precious" and not path.exists()
    planted.unlink()
    path.symlink_to(victim)
    files.write_text(path, "new")  # The link is replaced, not followed.
    assert victim.read_text() == "precious" and not path.is_symlink()
    log = tmp_path / "log"
    log.symlink_to(victim)
    with pytest.raises(OSError, match="symbolic link"):
        files.open_private(log)


def test_private_files_and_long_names(tmp_path):
    before = os.umask(0)
    try:
        files.write_text(tmp_path / "spec.json", "{}", mode=files.PRIVATE)
        (tmp_path / "old.log").touch(0o666)
        for name in ("new.log", "old.log"):
            with files.open_private(tmp_path / name) as file:
                file.write(b"x")
        modes = {p.name: p.stat().st_mode & 0o777 for p in tmp_path.iterdir()}
        assert set(modes.values()) == {0o600}, modes
    finally:
        os.umask(before)
    files.write_text(tmp_path / ("ü" * 127), "x")


@pytest.mark.parametrize(
    "name",
    ["/etc/passwd", "../x", "a/../../x", "a/./x", "", ".", "..", "a//b", "a/", "a\0b", 5, None, [],
     "x" * 256, "/".join(["ab"] * 2000)],
)  # fmt: skip
def test_names_from_files_stay_inside_their_folder(name):
    with pytest.raises(InputError, match=r"^m.json: file: .* expected a path inside shards$"):
        files.inside("shards", name, where="m.json: file")


def test_names_inside(tmp_path):
    assert files.inside(tmp_path, "a/ü b", where="x") == tmp_path / "a" / "ü b"
    assert files.inside(tmp_path, "...a", where="x", plain=True) == tmp_path / "...a"
    with pytest.raises(InputError, match="expected a file name inside"):
        files.inside(tmp_path, "a/b", where="x", plain=True)


@pytest.mark.parametrize("opened", [files.open_append, files.open_private])
def test_only_files_are_appended_to(tmp_path, opened):
    with opened(tmp_path / "log") as file:
        file.write(b"a")
    with opened(tmp_path / "log") as file:
        file.write(b"b")
    assert (tmp_path / "log").read_bytes() == b"ab"
    os.mkfifo(tmp_path / "pipe")  # Opening it would wait for a reader.
    with pytest.raises(OSError, match="not a file"):
        opened(tmp_path / "pipe")
    with pytest.raises(OSError, match="not a file"):
        opened("/dev/null")
    with pytest.raises(OSError, match="directory"):
        opened(tmp_path)
    assert not files.is_locked(tmp_path / "pipe") and not files.is_locked(tmp_path / "none")


def test_a_lock_is_seen(tmp_path):
    path = tmp_path / "lock"
    with files.open_append(path) as file:
        assert not files.is_locked(path)
        fcntl.flock(file, fcntl.LOCK_EX)
        assert files.is_locked(path)
    assert not files.is_locked(path)
