"""Computes the points of many meshes at once, in processes of one BLAS thread each.

The matrices of one mesh are too small for several threads: on busy cores BLAS threads wait for
each other, and a mesh costs 16 times the processor time. The thread count is fixed when NumPy is
imported, so only other processes can have another one. They leave their results in `disk_cache`.
"""

from __future__ import annotations

import json
import logging
import os
import subprocess
import sys
import time
from collections.abc import Sequence
from concurrent import futures
from pathlib import Path

import a2fjax
from a2fjax import user_cache
from a2fjax.data.identity import points

_log = logging.getLogger("a2fjax")

_LEAST = 8  # Meshes from which starting processes pays.
_CHUNK = 16  # Meshes a process; progress is shown after each.
_SHOWN_AFTER = 2.0  # s
_THREADS = ("OPENBLAS_NUM_THREADS", "OMP_NUM_THREADS", "MKL_NUM_THREADS")

_WORKER = """
import json, sys
from a2fjax.data.identity import points
given = json.load(sys.stdin)
for path in given["paths"]:
    points.mesh_points(path, given["count"], normals=given["normals"])
"""


def prepare(paths: Sequence[str | Path], count: int, *, normals: bool = False) -> None:
    """Computes the points of those meshes that have none in the cache; logs its progress.

    Does nothing without a cache, or for a few meshes. A mesh that cannot be read is left out:
    `points.mesh_points` then says what is wrong with it.

    Args:
      paths: mesh files.
      count: see `points.mesh_points`.
      normals: see `points.mesh_points`.
    """
    if user_cache.folder() is None or len(paths) < _LEAST:
        return
    missing = [str(path) for path in paths if not points.is_cached(path, count, normals=normals)]
    if len(missing) < _LEAST:
        return
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    size = max(1, min(_CHUNK, -(-len(missing) // (cores or 1))))
    chunks = [missing[i : i + size] for i in range(0, len(missing), size)]
    start = shown = time.monotonic()
    with futures.ThreadPoolExecutor(cores) as pool:
        running = {pool.submit(_run, chunk, count, normals): len(chunk) for chunk in chunks}
        done = 0
        for finished in futures.as_completed(running):
            done += running[finished]
            now = time.monotonic()
            if now - start > _SHOWN_AFTER and (now - shown > _SHOWN_AFTER or done == len(missing)):
                shown = now
                _log.warning("identity points of %d of %d meshes", done, len(missing))


def _run(paths: list[str], count: int, normals: bool) -> None:
    root = str(Path(a2fjax.__file__).parents[1])
    path = os.pathsep.join(p for p in (root, os.environ.get("PYTHONPATH")) if p)
    subprocess.run(
        [sys.executable, "-P", "-c", _WORKER],
        input=json.dumps({"paths": paths, "count": count, "normals": normals}).encode(),
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        env={**os.environ, "PYTHONPATH": path, **dict.fromkeys(_THREADS, "1")},
        check=False,
    )
