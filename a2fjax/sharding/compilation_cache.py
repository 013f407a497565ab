"""Caches compiled programs on disk for resumed runs, repeated inference and the trials of a sweep.

The programs are in `compiled/` of `a2fjax.user_cache`, with one folder per kind of machine. JAX's
cache key covers the program, compiler version, flags and accelerator. It covers neither the CPU's
instruction sets nor the number of threads, which determine how the CPU compiler splits sums.
Machines that differ in these use separate folders, so a loaded program gives bit-identical results
to one that is compiled anew.
"""

from __future__ import annotations

import hashlib
import os
import platform
import shutil
import time
from pathlib import Path
from typing import Any

import jax
from jax.experimental.compilation_cache import compilation_cache

from a2fjax import user_cache

FOLDER = "compiled"
MAX_BYTES = 2 << 30
"""Size limit of a machine's folder; JAX removes the least recently used programs beyond it."""

LEAST_SECONDS = 0.05
"""Programs that compile faster are not stored."""

UNUSED_DAYS = 30
"""A machine's folder is removed after this many days without use."""

_DAMAGED_SECONDS = 60.0
_THREADS = ("PJRT_NPROC", "NPROC")


def enable() -> Path | None:
    """Enables the cache for this process, which must already have joined its run.

    The cache stays off in a run of several processes, because some could load a program while the
    others wait to compile it with them. It also stays off if the user has set
    `jax_compilation_cache_dir`, if the folder cannot be written, or if it belongs to another user,
    because JAX executes the programs in it.

    Returns:
      The folder, None if the cache is off.
    """
    root = user_cache.folder()
    if root is None or jax.process_count() > 1:
        return None
    path = root.absolute() / FOLDER / machine()
    config: Any = jax.config  # Its options are not declared.
    if (current := config.jax_compilation_cache_dir) is not None:
        return path if current == str(path) else None
    try:
        _prepare(path)
    except OSError:
        return None
    jax.config.update("jax_compilation_cache_max_size", MAX_BYTES)
    jax.config.update("jax_persistent_cache_min_compile_time_secs", LEAST_SECONDS)
    jax.config.update("jax_compilation_cache_dir", str(path))
    # If this process has compiled anything before, JAX has already disabled its cache.
    compilation_cache.reset_cache()
    return path


def machine() -> str:
    """Returns 16 hex digits for the machine properties that JAX's own cache key lacks."""
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    threads = [f"{name}={os.environ.get(name, '')}" for name in _THREADS]
    parts = (platform.machine(), _instructions(), str(cores), *threads)
    return hashlib.sha256("\0".join(parts).encode()).hexdigest()[:16]


def _instructions() -> str:
    """Returns the instruction sets of the CPU, or its name if they are not available."""
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        return platform.processor()
    names = ("flags", "Features", "model name")
    first = {key: line for line in reversed(lines) if (key := line.split("\t")[0].strip()) in names}
    return "\n".join(first.get(name, "") for name in names)


def _prepare(path: Path) -> None:
    """Creates the folder, and removes damaged entries in it and unused folders beside it.

    Raises:
      OSError: the folder cannot be used.
    """
    path.mkdir(parents=True, exist_ok=True, mode=0o700)
    if path.stat().st_uid != os.getuid():
        raise PermissionError(path)
    now = time.time()
    # JAX writes the access time after the program, so a program without one is incomplete.
    for entry in path.glob("*-cache"):
        used = entry.with_name(entry.name.removesuffix("-cache") + "-atime")
        if not used.exists() and now - entry.stat().st_mtime > _DAMAGED_SECONDS:
            entry.unlink(missing_ok=True)
    (path / "used").touch()
    for other in path.parent.iterdir():
        used = other / "used"
        if used.exists() and now - used.stat().st_mtime > 86_400 * UNUSED_DAYS:
            shutil.rmtree(other, ignore_errors=True)
