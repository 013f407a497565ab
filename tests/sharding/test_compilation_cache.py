import os
import subprocess
import sys
import textwrap
import time

import pytest

from a2fjax.sharding import compilation_cache

SUMS = """
    import jax
    import numpy as np
    from a2fjax.sharding import compilation_cache

    compilation_cache.LEAST_SECONDS = 0.0
    found = []
    jax.monitoring.register_event_listener(lambda name, **_: found.append(name))
    jax.numpy.zeros(3)  # A process may have compiled something before.
    path = compilation_cache.enable()
    x = np.random.default_rng(0).normal(size=(300, 257)).astype(np.float32)
    y = jax.jit(lambda x: jax.numpy.tanh(x @ x.T).sum(0))(x)
    hits = found.count("/jax/compilation_cache/cache_hits")
    print(path, hits, np.asarray(y).tobytes().hex()[:400])
"""


def sums(cache, **variables):
    environment = {**os.environ, "A2F_CACHE": str(cache), **variables}
    environment.pop("JAX_COMPILATION_CACHE_DIR", None)
    done = subprocess.run(
        [sys.executable, "-c", textwrap.dedent(SUMS)],
        env=environment, capture_output=True, text=True, timeout=120,
    )  # fmt: skip
    assert done.returncode == 0 and "arning" not in done.stderr, done.stderr
    path, hits, digits = done.stdout.split()
    return path, int(hits), digits


def test_a_second_process_compiles_nothing_and_computes_the_same_bits(tmp_path):
    first, none, bits = sums(tmp_path / "cache")
    again, hits, same = sums(tmp_path / "cache")
    off, without, plain = sums("off")
    assert none == 0 < hits and without == 0
    assert bits == same == plain
    assert first == again and off == "None"
    # A program that was compiled for other threads might cut its sums elsewhere.
    other, hits, _ = sums(tmp_path / "cache", PJRT_NPROC="3")
    assert other != first and hits == 0


def test_a_folder_that_cannot_be_written_leaves_the_cache_off(tmp_path):
    (tmp_path / "file").write_text("")
    assert sums(tmp_path / "file" / "cache")[:2] == ("None", 0)


def test_the_users_own_settings_of_jax_count(tmp_path):
    path, hits, _ = sums(tmp_path / "cache", JAX_ENABLE_COMPILATION_CACHE="false")
    assert path != "None" and hits == 0 and not list((tmp_path / "cache").rglob("*-cache"))


def test_damaged_entries_and_unused_folders_are_removed(tmp_path):
    path, old, new = (tmp_path / name for name in ("mine", "old", "new"))
    for folder in (path, old, new):
        folder.mkdir()
        (folder / "used").touch()
        (folder / "jit_f-1-cache").write_bytes(b"part")
    (path / "jit_g-2-cache").write_bytes(b"whole")
    (path / "jit_g-2-atime").write_bytes(bytes(8))
    (path / "jit_h-3-cache").write_bytes(b"being written")
    hour = time.time() - 3600
    for name in ("jit_f-1-cache", "jit_g-2-cache"):
        os.utime(path / name, (hour, hour))
    month = time.time() - 86_400 * (compilation_cache.UNUSED_DAYS + 1)
    os.utime(old / "used", (month, month))
    compilation_cache._prepare(path)
    assert sorted(p.name for p in path.glob("*-cache")) == ["jit_g-2-cache", "jit_h-3-cache"]
    assert new.is_dir() and not old.exists()


def test_a_folder_of_another_user_is_refused(tmp_path, monkeypatch):
    monkeypatch.setattr(os, "getuid", lambda: tmp_path.stat().st_uid + 1)
    with pytest.raises(PermissionError):
        compilation_cache._prepare(tmp_path / "compiled")
