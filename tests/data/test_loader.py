import dataclasses
import itertools
import logging
import os
import shutil
import signal
import subprocess
import sys
import textwrap
import time
from pathlib import Path

import jax
import numpy as np
import pytest

from a2fjax.configuration import AugmentConfig
from a2fjax.data import loader
from a2fjax.data.identity.points import sample_points
from a2fjax.errors import InputError


def take(config, count, **arguments):
    stream = loader.batches(config, **arguments)
    try:
        return list(itertools.islice(stream, count))
    finally:
        stream.close()


def same(a, b):
    assert len(a) == len(b)
    for x, y in zip(a, b, strict=True):
        jax.tree.map(np.testing.assert_array_equal, x, y)


def test_batches_are_as_specified(shards, build):
    config = build.config(shards)
    (batch,) = take(config, 1)
    assert jax.eval_shape(lambda b: b, batch) == loader.spec(config)
    assert loader.spec(config, hosts=4).motion == jax.ShapeDtypeStruct((2, 64, 72), np.float32)
    for value in jax.tree.leaves(batch):
        assert np.isfinite(value).all()
    assert (batch.length > 0).all() and (batch.length <= 64).all()
    padded = np.arange(64) >= batch.length[:, None]
    assert not batch.frame_mask[padded].any()
    np.testing.assert_allclose(batch.emotion.sum(-1), 1, rtol=1e-5)


def test_rows_are_the_clips_they_name(shards, build):
    config = build.config(shards, augment=AugmentConfig(enabled=False))
    stream = loader.batches(config)
    source = stream.source
    for batch in itertools.islice(stream, 4):
        for row, (index, start) in enumerate(zip(batch.clip, batch.start, strict=True)):
            clip, n = source[index], batch.length[row]
            assert n == min(64, clip.frames - start)
            np.testing.assert_array_equal(batch.motion[row, :n], clip.motion[start : start + n])
            heard = clip.audio[start * 320 : (start + 64) * 320]
            np.testing.assert_allclose(
                batch.audio[row, : len(heard)], heard * 0.1 / clip.speech_level, rtol=1e-6
            )
            np.testing.assert_array_equal(batch.channel_mask[row], clip.channel_mask)
            known = clip.subject != "s2"  # the one without a mesh
            assert batch.identity_mask[row] == known
            points = (
                sample_points(*build.head(16 + 3 * int(clip.subject[1])), 32)
                if known
                else np.zeros((32, 3))
            )
            np.testing.assert_array_equal(batch.identity[row], points)
    stream.close()


def test_same_seed_same_batches_other_seed_others(shards, build):
    config = build.config(shards)
    first = take(config, 4)
    same(first, take(config, 4))
    same(first, take(config, 4, seed=config.seed, split="train"))
    other = take(config, 4, seed=9)
    assert any((a.clip != b.clip).any() for a, b in zip(first, other, strict=True))


def test_resumed_equals_uninterrupted(shards, build):
    config = build.config(shards)
    whole = take(config, 12)  # more than an epoch
    same(whole[5:], take(config, 7, start_step=5))
    # The same clip comes up again, and looks different.
    audio = [row for batch in whole for row in batch.audio]
    assert len({row.tobytes() for row in audio}) == len(audio)


@pytest.mark.parametrize("hosts", [2, 4])
def test_hosts_share_the_same_global_batches(shards, build, hosts):
    config = build.config(shards)
    parts = [take(config, 3, host=h, hosts=hosts, start_step=2) for h in range(hosts)]
    joined = [
        jax.tree.map(lambda *rows: np.concatenate(rows), *step) for step in zip(*parts, strict=True)
    ]
    same(joined, take(config, 3, start_step=2))
    few = [list(loader.eval_batches(config, "val", 2, host=h, hosts=hosts)) for h in range(hosts)]
    joined = [
        jax.tree.map(lambda *rows: np.concatenate(rows), *step) for step in zip(*few, strict=True)
    ]
    same(joined, list(loader.eval_batches(config, "val", 2)))


def test_threads_and_prefetch_change_nothing(shards, build):
    first = take(build.config(shards, threads=1, prefetch=1), 6)
    same(first, take(build.config(shards, threads=4, prefetch=7), 6))


def test_worker_processes_change_nothing(shards, build, tmp_path, caplog):
    copy = shutil.copytree(shards, tmp_path / "copy")
    shard = copy / "clips-00001-of-00003.arrayrecord"
    shard.write_bytes(shard.read_bytes()[:5000])
    with caplog.at_level(logging.WARNING):
        here = take(build.config(copy), 7)
        named = [r.getMessage() for r in caplog.records]
        caplog.clear()
        stream = loader.batches(build.config(copy, workers=2))
        there = list(itertools.islice(stream, 7))
    same(here, there)
    # What the workers could not read is named and counted in this process, once each.
    assert named and sorted(r.getMessage() for r in caplog.records) == sorted(named)
    assert len(stream.bad) == len(named)
    stream.close()
    with pytest.raises(StopIteration):
        next(stream)


def test_bad_records_do_not_shift_the_rest(shards, build, tmp_path, caplog):
    whole = take(build.config(shards), 6)
    copy = shutil.copytree(shards, tmp_path / "copy")
    shard = copy / "clips-00001-of-00003.arrayrecord"
    shard.write_bytes(shard.read_bytes()[:5000])
    stream = loader.batches(build.config(copy))
    with caplog.at_level(logging.WARNING):
        found = list(itertools.islice(stream, 6))
    entries = stream.source.entries
    lost = {i for i, e in enumerate(entries) if e.file == str(shard)}
    replaced = 0
    for a, b in zip(whole, found, strict=True):
        for row in range(8):
            if a.clip[row] in lost:
                replaced += 1
                assert b.clip[row] not in lost
            else:
                jax.tree.map(np.testing.assert_array_equal, a.select(row), b.select(row))
    assert replaced and set(stream.source.bad) <= lost and len(stream.bad) == len(caplog.records)
    assert all(name.startswith(f"{shard}: record ") for name in stream.bad)
    stream.close()
    same(found, take(build.config(copy, threads=4), 6))


def test_policy_raise(shards, build, tmp_path):
    copy = shutil.copytree(shards, tmp_path / "copy")
    shard = copy / "clips-00001-of-00003.arrayrecord"
    shard.write_bytes(b"")
    with pytest.raises(InputError, match="clips-00001-of-00003.arrayrecord: record"):
        take(build.config(copy, on_bad_record="raise"), 6)
    for each in copy.glob("*.arrayrecord"):
        each.write_bytes(b"")
    with pytest.raises(InputError, match="no readable clip"):
        take(build.config(copy), 1)


def test_several_folders_are_mixed_by_length(shards, build, tmp_path):
    second = build.write(tmp_path / "b", [build.clip(k, seconds=4) for k in range(30, 40)])
    config = build.config(shards, second)
    stream = loader.batches(config)
    folder = np.array([e.folder for e in stream.source.entries])
    frames = stream.source.frames
    seen = np.concatenate([folder[b.clip] for b in itertools.islice(stream, 24)])
    stream.close()
    assert abs(seen.mean() - frames[folder == 1].sum() / frames.sum()) < 0.08
    # Equal subject names of two folders are two subjects.
    assert len({(e.folder, e.subject) for e in stream.source.entries}) == 6


def test_no_window_leaks_across_splits(shards, build):
    config = build.config(shards)
    seen = {}
    for split in ("train", "val"):
        stream = loader.batches(config, split=split)
        entries = stream.source.entries
        clips = np.concatenate([b.clip for b in itertools.islice(stream, 8)])
        seen[split] = {entries[i].id for i in clips}
        stream.close()
    assert seen["train"] and seen["val"] and not seen["train"] & seen["val"]
    assert all("/val" in each for each in seen["val"])
    assert all("/train" in each for each in seen["train"])
    evaluated = loader.eval_batches(config, "val", 2)
    ids = {evaluated.source.entries[i].id for b in evaluated for i in b.clip}
    assert ids == {e.id for e in evaluated.source.entries}


def test_eval_batches_are_few_fixed_and_plain(shards, build):
    config = build.config(shards)
    first = list(loader.eval_batches(config, "val", 2))
    assert len(first) == 2
    same(first, list(loader.eval_batches(config, "val", 2)))
    same(first, list(loader.eval_batches(dataclasses.replace(config, seed=99), "val", 2)))
    source = loader.eval_batches(config, "val", 1).source
    for batch in first:
        for row in range(8):
            clip, start, n = source[batch.clip[row]], batch.start[row], batch.length[row]
            np.testing.assert_array_equal(batch.motion[row, :n], clip.motion[start : start + n])


def test_windows_without_augmentation_keep_their_order(shards, build):
    config = build.config(shards)
    a, b = take(config, 4), take(config, 4, train=False)
    for x, y in zip(a, b, strict=True):
        np.testing.assert_array_equal(x.clip, y.clip)
        assert (x.audio != y.audio).any()


def test_batch_that_cannot_be_divided(shards, build):
    config = build.config(shards, batch_size=10)
    for call in (
        lambda: loader.batches(config, hosts=4),
        lambda: loader.eval_batches(config, "val", 1, hosts=4),
        lambda: loader.spec(config, 4),
    ):
        with pytest.raises(InputError, match="batch_size=10 .* 4 hosts; nearest: 8 or 12"):
            call()
    with pytest.raises(InputError, match="nearest: 16"):
        loader.spec(config, 16)


def test_damaged_mesh_is_refused_at_once(shards, build, tmp_path):
    copy = shutil.copytree(shards, tmp_path / "copy")
    (copy / "subjects" / "s1.npz").write_bytes(b"not a mesh")
    with pytest.raises(InputError, match="s1.npz"):
        loader.batches(build.config(copy))


def test_fingerprint_follows_what_decides_the_batches(shards, build):
    config = build.config(shards)
    first = loader.fingerprint(config)
    assert first == loader.fingerprint(build.config(shards, threads=7, workers=3, prefetch=1))
    assert first != loader.fingerprint(build.config(shards, window_frames=32))
    assert first != loader.fingerprint(build.config(shards, augment=AugmentConfig(gain_db=1.0)))
    assert first != loader.fingerprint(config, seed=4)
    assert first != loader.fingerprint(config, split="val")


@pytest.mark.slow
def test_a_program_that_ends_without_closing_ends_quietly(shards):
    code = f"""
        from a2fjax.configuration import Config, DataConfig
        from a2fjax.data import loader
        if __name__ == "__main__":
            data = DataConfig(shards=({str(shards)!r},), batch_size=4, window_frames=32, workers=1)
            print(next(loader.batches(Config(data=data))).motion.shape)
    """
    done = subprocess.run(
        [sys.executable, "-c", textwrap.dedent(code)], capture_output=True, text=True, timeout=120
    )
    assert done.stdout == "(4, 32, 72)\n" and done.returncode == 0
    assert "Exception" not in done.stderr and "leaked" not in done.stderr


def test_data_room_needs_no_jax_to_read(shards):
    code = f"""
        import sys
        from a2fjax.data import dataset, records, window_sampler, windows
        from a2fjax.data.identity import points
        clip = dataset.ClipSource([{str(shards)!r}], "train")[0]
        windows.cut(clip, 0, 32)
        print(sorted(m for m in ("jax", "flax", "grain") if m in sys.modules))
    """
    done = subprocess.run(
        [sys.executable, "-c", textwrap.dedent(code)], capture_output=True, text=True, timeout=120
    )
    assert done.stdout == "[]\n", done.stderr


def parents():
    """Parent by process; those that have ended and were not waited for are left out."""
    found = {}
    for path in Path("/proc").glob("[0-9]*/stat"):
        try:
            fields = path.read_text().rsplit(")", 1)[1].split()
        except OSError:
            continue
        if fields[0] != "Z":
            found[int(path.parent.name)] = int(fields[1])
    return found


@pytest.mark.slow
@pytest.mark.skipif(not Path("/proc/self/stat").exists(), reason="processes are listed in /proc")
def test_workers_outlive_a_notice_and_not_their_parent(shards):
    """Slurm sends SIGTERM to all processes of a step; a killed parent cannot stop its workers."""
    code = f"""
        import time
        from a2fjax.configuration import Config, DataConfig
        from a2fjax.data import loader
        if __name__ == "__main__":
            data = DataConfig(shards=({str(shards)!r},), batch_size=4, window_frames=32, workers=1)
            batches = loader.batches(Config(data=data))
            next(batches)
            print("ready", flush=True)
            input()
            for _ in range(20):
                next(batches)
            print("done", flush=True)
            time.sleep(600)
    """
    parent = subprocess.Popen(
        [sys.executable, "-c", textwrap.dedent(code)],
        stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True,
    )  # fmt: skip
    try:
        assert parent.stdout.readline() == "ready\n"
        workers = {pid for pid, above in parents().items() if above == parent.pid}
        assert workers
        for pid in workers:
            os.kill(pid, signal.SIGTERM)
        print(file=parent.stdin, flush=True)
        assert parent.stdout.readline() == "done\n"
    finally:
        parent.kill()
        parent.wait()
    end = time.monotonic() + 30
    while workers & set(parents()):
        assert time.monotonic() < end
        time.sleep(0.1)
