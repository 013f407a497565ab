"""Takes snapshots of the code on submission, so that later edits do not affect queued runs.

A snapshot holds the files that git tracks, as they are on disk, and the packages of
`config.plugins`. Contents are stored once in ROOT/.code/files/, and a snapshot is a folder of hard
links to them, so that many runs and versions of the code take little more space than one. Other
users may write to a shared ROOT, so a snapshot is checked against its digest whenever it is reused,
and on the node before it runs (`launch.jobs.checked_code`).
"""

from __future__ import annotations

import importlib.util
import json
import os
import secrets
import shutil
import subprocess
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from a2fjax import files
from a2fjax.errors import InputError, WorkFailed
from launch.jobs import checked_code

FOLDER = ".code"
CODE = Path(__file__).resolve().parents[2]
"""Folder that this code was imported from."""

_ASK = (
    "import importlib.metadata as m, json, platform\n"
    "versions = {d.metadata['Name']: d.version for d in m.distributions() if d.metadata['Name']}\n"
    "print(json.dumps({'python': platform.python_version(), **versions}))"
)


def git_state(code: Path = CODE) -> dict[str, Any] | None:
    """Returns the commit, and whether files differ from it; None without git."""
    commit = _git(code, "rev-parse", "HEAD")
    changed = _git(code, "status", "--porcelain", "--untracked-files=no")
    if commit is None or changed is None:
        return None
    return {"commit": commit.decode().strip(), "dirty": bool(changed.strip())}


def take(
    root: Path, *, code: Path = CODE, plugins: Sequence[str] = (), keep: bool = True
) -> tuple[str, str | None]:
    """Returns the folder that a run imports from, and the digest of its files.

    Without git, nothing is copied and the result is the folder of this module without a digest.

    Args:
      root: folder of all runs.
      code: the checkout.
      plugins: importable packages of `config.plugins`, which the snapshot includes.
      keep: whether to write the snapshot; otherwise only its digest is computed.

    Raises:
      InputError, WorkFailed: ROOT cannot be written to, a file cannot be read, a plugin is not
        importable, or the folder of the snapshot holds other files.
    """
    names = _tracked(code)
    if names is None:
        return str(code), None
    sources = {name: code / name for name in names if _is_file(code / name)}
    for plugin in plugins:
        sources |= _plugin_files(plugin, sources, code)
    try:
        entries = {name: checked_code.entry(path) for name, path in sources.items()}
    except OSError as error:
        raise WorkFailed(f"{error.filename}: could not be read ({error.strerror})") from None
    digest = checked_code.digest(entries)
    folder = root.absolute() / FOLDER / digest
    if keep and not folder.is_dir():
        try:
            _write(sources, entries, folder)
        except OSError as error:
            raise WorkFailed(f"{folder}: could not be written ({error.strerror})") from None
    if folder.exists():
        _check(folder, digest, entries)
    return str(folder), digest


def _check(folder: Path, digest: str, entries: Mapping[str, tuple[str, str]]) -> None:
    """Raises `InputError` if a snapshot holds other files; the message names one."""
    message = checked_code.wrong(str(folder), digest)
    if message:
        there = checked_code.entries(str(folder))
        differ = [n for n in sorted({*there, *entries}) if there.get(n) != entries.get(n)]
        first = f", first {differ[0]}" if differ else ""
        raise InputError(f"{message}{first}; remove the folder and submit again")


def untracked(code: Path = CODE) -> list[str]:
    """Returns modules that git neither tracks nor ignores, and that a snapshot therefore lacks."""
    listed = _git(code, "ls-files", "-z", "--others", "--exclude-standard", "--", "*.py")
    return [os.fsdecode(name) for name in (listed or b"").split(b"\0") if name]


def packages(python: str) -> dict[str, str]:
    """Returns an interpreter's installed distributions with versions, and "python".

    Raises:
      InputError: the interpreter does not run.
    """
    try:
        # Isolated mode lists installed packages only, not those in this folder.
        done = subprocess.run(
            [python, "-I", "-c", _ASK], capture_output=True, text=True, timeout=60, check=True
        )
        values = json.loads(done.stdout)
    except (OSError, ValueError, subprocess.SubprocessError) as error:
        raise InputError(f"--python {python}: does not run ({_why(error)})") from None
    return {name: values[name] for name in sorted(values, key=str.lower)}


def _why(error: Exception) -> str:
    if isinstance(error, OSError):
        return error.strerror or str(error)
    return type(error).__name__


def _git(code: Path, *words: str) -> bytes | None:
    try:
        done = subprocess.run(
            ["git", "-C", str(code), *words], capture_output=True, timeout=60, check=False
        )
    except (OSError, subprocess.TimeoutExpired):
        return None
    return done.stdout if done.returncode == 0 else None


def _tracked(code: Path) -> list[str] | None:
    listed = _git(code, "ls-files", "-z")
    if not listed:
        return None
    return [os.fsdecode(name) for name in listed.split(b"\0") if name]


def _is_file(path: Path) -> bool:
    return path.is_symlink() or path.is_file()


def _plugin_files(plugin: str, sources: Mapping[str, Path], code: Path) -> dict[str, Path]:
    """Returns the files of a plugin's top-level package by their path in the snapshot."""
    top = plugin.partition(".")[0]
    try:
        spec = importlib.util.find_spec(top)
    except (ImportError, ValueError):
        spec = None
    if spec is None or (spec.origin is None and not spec.submodule_search_locations):
        raise InputError(f"plugins: {plugin!r} cannot be imported, so its code cannot be pinned")
    if not spec.submodule_search_locations:
        path = Path(str(spec.origin))
        return {} if path.parent == code else {path.name: path}
    contents: dict[str, Path] = {}
    for location in map(Path, spec.submodule_search_locations):
        if location.parent == code and any(n.startswith(f"{top}/") for n in sources):
            continue  # already included: git tracks it in the checkout
        for path in sorted(location.rglob("*")):
            if _is_file(path) and "__pycache__" not in path.parts:
                contents[f"{top}/{path.relative_to(location)}"] = path
    return contents


def _write(
    sources: Mapping[str, Path], entries: Mapping[str, tuple[str, str]], folder: Path
) -> None:
    store = folder.parent / "files"
    files.make_folder(store)
    # Two submissions may write the same snapshot, so the folder is created atomically.
    partial = folder.with_name(f".{folder.name}.{secrets.token_hex(4)}.partial")
    try:
        for name, (kind, value) in entries.items():
            path = partial / name
            path.parent.mkdir(parents=True, exist_ok=True)
            if kind == "link":
                path.symlink_to(value)
                continue
            program = os.access(sources[name], os.X_OK)
            stored = store / (value + ("-x" if program else ""))
            if not stored.exists() or checked_code.entry(stored) != (kind, value):
                with files.atomic_write(stored) as temporary:
                    shutil.copyfile(sources[name], temporary)
                    # Read-only, because many snapshots link to the same file.
                    temporary.chmod(0o555 if program else 0o444)
            try:
                path.hardlink_to(stored)
            except OSError:
                shutil.copy2(stored, path)  # no hard links on this file system, or too many
        try:
            partial.rename(folder)
        except OSError:
            if not folder.is_dir():
                raise
    finally:
        shutil.rmtree(partial, ignore_errors=True)
