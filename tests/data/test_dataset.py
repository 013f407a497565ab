import logging
import os
import pickle
import shutil
import threading

import numpy as np
import pytest
from array_record.python.array_record_module import ArrayRecordWriter

from a2fjax.data import records
from a2fjax.data.dataset import ClipSource
from a2fjax.errors import InputError


@pytest.fixture
def copy(shards, tmp_path):
    return shutil.copytree(shards, tmp_path / "copy")


def damage(path, where=0.5):
    """Flips a byte inside a record's data."""
    data = bytearray(path.read_bytes())
    data[int(len(data) * where)] ^= 0xFF
    path.write_bytes(data)


def rewrite(path, change):
    """Writes a shard anew with `change(index, record)` for each record."""
    from array_record.python.array_record_module import ArrayRecordReader

    reader = ArrayRecordReader(str(path), "")
    data = [reader.read([i])[0] for i in range(reader.num_records())]
    reader.close()
    writer = ArrayRecordWriter(str(path), "group_size:1")
    for i, record in enumerate(data):
        writer.write(change(i, record))
    writer.close()


def test_reads_every_clip_of_its_split_and_only_those(shards):
    for split, count in (("train", 14), ("val", 3)):
        source = ClipSource([shards], split)
        clips = [source[i] for i in range(len(source))]
        assert len(clips) == count and {c.split for c in clips} == {split}
        assert [c.id for c in clips] == [e.id for e in source.entries]
        assert [c.frames for c in clips] == source.frames.tolist()
        assert not source.bad


def test_values_are_those_that_were_written(shards, build):
    source = ClipSource([shards], "train")
    index = next(i for i, e in enumerate(source.entries) if e.id == "s1/train004")
    clip, truth = source[index], build.clip(4, seconds=1.0 + 0.3 * 4)
    np.testing.assert_allclose(clip.audio, truth.audio, atol=1 / 32767)
    np.testing.assert_array_equal(clip.motion, truth.motion)
    with pytest.raises(ValueError, match="read-only"):
        clip.audio[0] = 1.0


def test_wrong_sets_are_refused_in_one_line(shards, tmp_path):
    for folders, split, words in (
        ([], "train", "data.shards is empty"),
        ([tmp_path / "no"], "train", "does not exist"),
        ([shards], "trian", "did you mean 'train'"),
        ([shards], "test_subjects", "no clips in split"),
    ):
        with pytest.raises(InputError, match=words) as caught:
            ClipSource(folders, split)
        assert "\n" not in str(caught.value)


def test_damaged_record_is_named_counted_and_passed_over(copy, caplog):
    whole = ClipSource([copy], "train")
    ids = [whole[i].id for i in range(len(whole))]
    shard = copy / "clips-00001-of-00003.arrayrecord"
    damage(shard)
    source = ClipSource([copy], "train")
    with caplog.at_level(logging.WARNING):
        found = [source[i].id for i in range(len(source))]
        again = [source[i].id for i in range(len(source))]
    assert list(source.bad) and found == again
    (index,) = source.bad
    assert source.entries[index].file == str(shard)
    assert [i for i in range(len(ids)) if found[i] != ids[i]] == [index]
    assert found[index] in ids
    assert len(caplog.records) == 1
    message = caplog.records[0].getMessage()
    assert f"{shard}: record {source.entries[index].record}" in message and "hash" in message


def test_truncated_shard_leaves_the_others(copy):
    shard = copy / "clips-00002-of-00003.arrayrecord"
    shard.write_bytes(shard.read_bytes()[: shard.stat().st_size // 2])
    source = ClipSource([copy], "train")
    entries = source.entries
    for i in range(len(source)):
        number, clip, _ = source.get(i)
        assert clip.id == entries[number].id
        assert (number == i) == (entries[i].file != str(shard))
    assert {entries[i].file for i in source.bad} == {str(shard)}


@pytest.mark.parametrize("content", [b"", b"not a shard at all" * 99])
def test_files_that_are_no_shards(copy, content):
    shard = copy / "clips-00000-of-00003.arrayrecord"
    shard.write_bytes(content)
    source = ClipSource([copy], "train")
    assert all(source[i].split == "train" for i in range(len(source)))
    assert {source.entries[i].file for i in source.bad} == {str(shard)}


def test_missing_shard(copy):
    source = ClipSource([copy], "train")
    (copy / "clips-00000-of-00003.arrayrecord").unlink()
    assert source[0].split == "train"
    assert "No such file" in source.bad[0]
    with pytest.raises(InputError, match="clips-00000"):
        ClipSource([copy], "train")


def test_bad_checksum_wrong_split_and_short_shard(copy):
    shard = copy / "clips-00000-of-00003.arrayrecord"

    def change(index, record):
        if index == 1:
            return record[:-1] + bytes([record[-1] ^ 1])
        if index == 2:
            clip = records.decode(record)
            return records.encode(records.Clip(**{**clip.__dict__, "split": "val"}))
        return record

    rewrite(shard, change)
    source = ClipSource([copy], "train")
    for i in range(len(source)):
        source.get(i)
    reasons = {source.entries[i].record: why for i, why in source.bad.items()}
    assert set(reasons) == {1, 2}
    assert "checksum" in reasons[1] and "split 'val'" in reasons[2]


def test_policy_raise_names_the_record(copy):
    damage(copy / "clips-00001-of-00003.arrayrecord")
    source = ClipSource([copy], "train", on_bad="raise")
    with pytest.raises(InputError, match=r"clips-00001.*record \d+ \(s\d/train\d+\): .*hash"):
        for i in range(len(source)):
            source.get(i)


def test_nothing_readable_is_an_error_whatever_the_policy(copy):
    for shard in copy.glob("*.arrayrecord"):
        shard.write_bytes(b"")
    with pytest.raises(InputError, match="no readable clip"):
        ClipSource([copy], "train").get(3)


def test_substitutes_do_not_depend_on_what_was_read_before(copy):
    damage(copy / "clips-00001-of-00003.arrayrecord")
    forward = ClipSource([copy], "train")
    backward = ClipSource([copy], "train")
    a = [forward.get(i)[0] for i in range(len(forward))]
    b = [backward.get(i)[0] for i in reversed(range(len(backward)))][::-1]
    assert a == b


def test_threads_count_a_record_once(copy, caplog):
    damage(copy / "clips-00001-of-00003.arrayrecord")
    source = ClipSource([copy], "train", cache_bytes=0)
    found, start = [], threading.Barrier(4)

    def read():
        start.wait()
        found.append([source[i].id for i in range(len(source))])

    threads = [threading.Thread(target=read) for _ in range(4)]
    with caplog.at_level(logging.WARNING):
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    assert len(found) == 4 and all(f == found[0] for f in found)
    assert len(source.bad) == 1 and len(caplog.records) == 1


def test_cache_is_bounded_and_used(shards):
    source = ClipSource([shards], "train", cache_bytes=500_000)
    for i in range(len(source)):
        source.load(i)
        held = source._cache.values()
        size = sum(c.audio.nbytes + c.motion.nbytes + c.emotion.nbytes for c in held)
        assert size <= 500_000 and len(held) >= 1
    assert source.load(len(source) - 1) is source.load(len(source) - 1)
    assert source.load(0) is not ClipSource([shards], "train").load(0)


def test_pickled_and_forked_sources_read_on_their_own(shards):
    source = ClipSource([shards], "train")
    ids = [source[i].id for i in range(3)]
    copied = pickle.loads(pickle.dumps(source))
    assert not copied._cache and [copied[i].id for i in range(3)] == ids
    out, into = os.pipe()
    child = os.fork()
    if child == 0:
        try:
            text = "".join(source[i].id for i in range(3, 6))
            os.write(into, text.encode())
        finally:
            os._exit(0)
    os.waitpid(child, 0)
    os.close(into)
    with os.fdopen(out) as pipe:
        assert pipe.read() == "".join(source[i].id for i in range(3, 6))


def test_folders_are_joined_in_order(shards, build, tmp_path):
    second = build.write(tmp_path / "second", [build.clip(k) for k in (30, 31)], shards=1)
    both = ClipSource([shards, second], "train")
    assert len(both) == 16 and [e.folder for e in both.entries] == [0] * 14 + [1] * 2
    assert both[14].id == "s0/train030"
    # A split that only one of them has is no error.
    assert len(ClipSource([shards, second], "val")) == 3
