"""Caches of encoders' states: the files, what is read from them, and what is refused."""

import dataclasses
import json
import pickle
import shutil
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest
from array_record.python.array_record_module import ArrayRecordReader, ArrayRecordWriter
from hypothesis import given
from hypothesis import strategies as st

from a2fjax.data import records, windows
from a2fjax.data.dataset import ClipSource
from a2fjax.data.feature_cache import format as cache_format
from a2fjax.data.feature_cache import inventory
from a2fjax.data.feature_cache import reader as cache_reader
from a2fjax.errors import InputError

SPEC = cache_format.FeatureSpec("0123456789abcdef", 3, 5)
DESCRIPTION = {"kind": "whisper", "layers": 2, "network": {"width": 5}}


def states_of(clip_id: str, frames: int) -> np.ndarray:
    """States that say whose they are: a ramp over time, from a number of the clip's own."""
    own = sum(clip_id.encode()) % 97
    return own + np.arange(frames, dtype=np.float32)[:, None, None] / 8 + np.zeros((1, 3, 5))


def write(shards: Path, spec=SPEC) -> Path:
    """A cache as `encode.write` makes one, of states that are known."""
    manifest = records.read_manifest(shards)
    folder = spec.folder(shards)
    folder.mkdir(parents=True)
    for shard in manifest.shards:
        writer = ArrayRecordWriter(str(folder / shard.file), cache_format.WRITER_OPTIONS)
        places, first = {}, 0
        for clip in shard.clips:
            for record in cache_format.encode(clip["id"], states_of(clip["id"], clip["frames"])):
                writer.write(record)
            places[clip["id"]] = cache_format.ClipRecords(clip["frames"], clip["sound"], first)
            first += cache_format.chunk_count(clip["frames"])
        writer.write(cache_format.encode_header(cache_format.Header(spec, DESCRIPTION, places)))
        writer.close()
    cache_format.write_manifest(shards, spec, DESCRIPTION, manifest)
    return folder


@pytest.fixture
def cached(shards, tmp_path):
    copy = shutil.copytree(shards, tmp_path / "set")
    write(copy)
    return copy


def reader(*folders, spec=SPEC, **options):
    manifests = [records.read_manifest(f) for f in folders]
    return cache_reader.Reader([str(f) for f in folders], manifests, {"0_x": spec}, **options)


@given(
    st.integers(0, 350),
    st.integers(1, 4),
    st.integers(1, 6),
    st.text(max_size=8),
    st.floats(0, 64992, width=16),
)
def test_records_bring_back_what_was_written(frames, states, width, name, scale):
    random = np.random.default_rng(frames)
    values = (scale * random.uniform(-1, 1, (frames, states, width))).astype(np.float32)
    found = [cache_format.decode(record) for record in cache_format.encode(name, values)]
    assert len(found) == cache_format.chunk_count(frames)
    assert [clip for clip, _, _ in found] == [name] * len(found)
    assert [start for _, start, _ in found] == list(range(0, frames, cache_format.CHUNK))
    if found:
        joined = np.concatenate([part for _, _, part in found])
        assert joined.dtype == np.float16
        np.testing.assert_array_equal(joined, values.astype(np.float16))


@given(st.binary(max_size=60), st.integers(0, 1000), st.integers(1, 255))
def test_any_damage_is_a_bad_record(noise, place, change):
    (good,) = cache_format.encode("a/1", np.ones((7, 2, 3)))
    header = cache_format.encode_header(
        cache_format.Header(SPEC, {}, {"a": cache_format.ClipRecords(7, "x", 0)})
    )
    for data, decode in ((good, cache_format.decode), (header, cache_format.decode_header)):
        bad = bytearray(data)
        bad[place % len(data)] ^= change
        for damaged in (bytes(bad), data[: place % len(data)], noise):
            with pytest.raises(records.BadRecord):
                decode(damaged)


@pytest.mark.parametrize("wrong", [7e4, np.nan, np.inf])
def test_what_16_bits_cannot_hold_is_refused(wrong):
    with pytest.raises(ValueError, match="a/1: a state of .* is beyond 16-bit"):
        list(cache_format.encode("a/1", np.full((2, 1, 1), wrong)))


def test_a_header_says_whose_the_file_is(cached):
    manifest = records.read_manifest(cached)
    shard = manifest.shards[1]
    path = SPEC.folder(cached) / shard.file
    header = cache_format.read_header(path)
    assert header.spec == SPEC and header.encoder == DESCRIPTION
    assert list(header.clips) == [clip["id"] for clip in shard.clips]
    assert cache_format.is_current(header, SPEC, shard)
    for change in ({"fingerprint": "f" * 16}, {"states": 2}):
        assert not cache_format.is_current(header, dataclasses.replace(SPEC, **change), shard)
    first = shard.clips[0]
    for change in ({"id": "other"}, {"frames": first["frames"] + 1}, {"sound": "00000000"}):
        other = records.Shard(shard.file, [{**first, **change}, *shard.clips[1:]])
        assert not cache_format.is_current(header, SPEC, other), change
    # Of sets that do not say their sounds, they are measured.
    plain = [{k: v for k, v in clip.items() if k != "sound"} for clip in shard.clips]
    sounds = [clip["sound"] for clip in shard.clips]
    old = records.Shard(shard.file, plain)
    assert cache_format.is_current(header, SPEC, old, sounds)
    assert not cache_format.is_current(header, SPEC, old, ["x", *sounds[1:]])


def test_a_sound_changes_with_audio_and_level_only(build):
    clip = build.clip(3)
    assert records.sound(clip) == records.sound(records.decode(records.encode(clip)))
    louder = dataclasses.replace(clip, speech_level=0.15)
    moved = dataclasses.replace(clip, motion=clip.motion + 1, split="val", id="x")
    other = clip.audio.copy()
    other[100] += 1e-4
    assert records.sound(moved) == records.sound(clip)
    changed = dataclasses.replace(clip, audio=other)
    assert len({records.sound(c) for c in (clip, louder, changed)}) == 3


@given(st.integers(0, 16), st.integers(0, 400), st.integers(1, 200), st.floats(0.8, 1.25))
def test_windows_are_where_their_motion_is(cached_once, index, start, frames, speed):
    source, read = cached_once
    entry = source.entries[index % len(source)]
    start %= entry.frames
    clip = source[index % len(source)]
    ramp = np.repeat(np.arange(entry.frames, dtype=np.float32)[:, None], 72, 1)
    clip = dataclasses.replace(clip, motion=ramp)
    for at in (1.0, speed):
        window = read.window("0_x", entry, start, frames, at)
        assert window.shape == (frames, 3, 5) and window.dtype == np.float16
        place = windows.cut(clip, start, frames, at).motion[:, 0]
        own = sum(entry.id.encode()) % 97
        np.testing.assert_allclose(window[:, 1, 2], own + place / 8, rtol=1e-3)


@pytest.fixture(scope="module")
def cached_once(shards, tmp_path_factory):
    copy = shutil.copytree(shards, tmp_path_factory.mktemp("cached") / "set")
    write(copy)
    return ClipSource([copy], "train"), reader(copy, cache_bytes=5000)


def test_readers_may_be_pickled_and_shared_by_threads(cached):
    source, first = ClipSource([cached], "train"), reader(cached, cache_bytes=3000)
    first.read("0_x", source.entries[0])
    second = pickle.loads(pickle.dumps(first))

    def one(i):
        entry = source.entries[i % len(source)]
        found = second.window("0_x", entry, i % entry.frames, 50)
        expected = states_of(entry.id, entry.frames)
        place = np.minimum(i % entry.frames + np.arange(50), entry.frames - 1)
        np.testing.assert_array_equal(found, expected[place].astype(np.float16))

    with ThreadPoolExecutor(8) as pool:
        list(pool.map(one, range(400)))
    assert sum(a.nbytes for a in second._chunks.values()) == second._bytes <= 3000


def test_a_window_reads_little_more_than_its_frames(cached):
    source, read = ClipSource([cached], "train"), reader(cached)
    entry = max(source.entries, key=lambda e: e.frames)
    assert entry.frames > 2 * cache_format.CHUNK
    read.window("0_x", entry, 10, 50)
    assert read._bytes == cache_format.CHUNK * 3 * 5 * 2


def damage(name):
    def manifest(folder, **changes):
        path = folder / "manifest.json"
        path.write_text(json.dumps({**json.loads(path.read_text()), **changes}))

    return {
        "none": lambda f: shutil.rmtree(f),
        "unfinished": lambda f: (f / "manifest.json").unlink(),
        "not json": lambda f: (f / "manifest.json").write_text("{"),
        "empty": lambda f: (f / "manifest.json").write_text(""),
        "a list": lambda f: (f / "manifest.json").write_text("[]"),
        "keys": lambda f: (f / "manifest.json").write_text('{"schema": 2}'),
        "schema": lambda f: manifest(f, schema=1),
        "clips": lambda f: manifest(f, clips="0" * 16),
        "gone": lambda f: sorted(f.glob("*.arrayrecord"))[1].unlink(),
        "cut": lambda f: sorted(f.glob("*.arrayrecord"))[1].write_bytes(b"x" * 100),
    }[name]


@pytest.mark.parametrize(
    ("name", "says"),
    [
        ("none", "the cache of encoder 0_x is missing"),
        ("unfinished", "the cache of encoder 0_x is not finished"),
        ("not json", "manifest.json: not JSON"),
        ("empty", "manifest.json: not JSON"),
        ("a list", "manifest.json: not the manifest of a cache"),
        ("keys", "manifest.json: has no clips"),
        ("schema", "schema 1, this version reads 2"),
        ("clips", "was made of other clips or sounds than"),
        ("gone", "clips-00001-of-00003.arrayrecord: is missing"),
        ("cut", "clips-00001-of-00003.arrayrecord: has 100 bytes"),
    ],
)
def test_what_is_wrong_with_a_cache_is_told_with_the_way_out(cached, name, says):
    damage(name)(SPEC.folder(cached))
    with pytest.raises(InputError) as error:
        reader(cached)
    message = str(error.value)
    assert says in message and message.count("\n") == 0
    assert (
        f"`a2fjax cache {cached} --features ...`" in message
        and "data.encoder_features='live'" in message
    )
    (listed,) = inventory.caches(cached, records.read_manifest(cached)) or [None]
    assert listed is None or listed.state != "complete"


def test_another_encoder_is_named_with_those_there_are(cached):
    other = dataclasses.replace(SPEC, fingerprint="f" * 16)
    with pytest.raises(InputError, match=rf"is missing \(there: {SPEC.name}\)"):
        reader(cached, spec=other)


def rebuilt(build, shards, folder, change):
    """The same clips built again, some of them changed, under the same names."""
    clips = []
    for split in ("train", "val"):
        source = ClipSource([shards], split)
        clips += [source[i] for i in range(len(source))]
    return build.write(folder, [change(clip) for clip in clips])


def test_a_rebuild_that_changes_sounds_is_never_read(build, shards, tmp_path):
    first = rebuilt(build, shards, tmp_path / "first", lambda c: c)
    old = write(first)
    louder = rebuilt(
        build, shards, tmp_path / "b", lambda c: dataclasses.replace(c, audio=c.audio * 0.99)
    )
    shutil.copytree(old, SPEC.folder(louder))
    with pytest.raises(InputError, match="was made of other clips or sounds"):
        reader(louder)
    # What is learnt may change, what is heard is the same: nothing is encoded again.
    solved = rebuilt(
        build, shards, tmp_path / "c", lambda c: dataclasses.replace(c, motion=c.motion * 0.5)
    )
    shutil.copytree(old, SPEC.folder(solved))
    reader(solved)


@pytest.mark.parametrize("known", [True, False])
def test_states_of_another_sound_are_found_while_reading(build, cached, tmp_path, known):
    """As where a build and a cache are written at once, or a set does not say its sounds."""
    source = ClipSource([cached], "train")
    manifest = records.read_manifest(cached)
    if not known:
        for shard in manifest.shards:
            for clip in shard.clips:
                del clip["sound"]
        records.write_manifest(cached, manifest)
        source = ClipSource([cached], "train")
    cache_format.write_manifest(cached, SPEC, DESCRIPTION, manifest)
    read = reader(cached)
    entry, clip = source.entries[0], source[0]
    read.window("0_x", entry, 0, 9, clip=clip)
    other = dataclasses.replace(clip, speech_level=0.5)
    entry = source.entries[1]
    if known:
        entry = dataclasses.replace(entry, sound="00000000")
    with pytest.raises(InputError, match="states of another sound than the clip has now; `a2fjax"):
        read.window("0_x", entry, 0, 9, clip=other)
    with pytest.raises(InputError, match="holds other clips than the shard has now"):
        read.window("0_x", dataclasses.replace(source.entries[2], id="x/1"), 0, 9)


def test_damage_inside_a_file_is_one_line_with_the_way_out(cached):
    source, folder = ClipSource([cached], "train"), SPEC.folder(cached)
    entry = source.entries[0]
    path = folder / Path(entry.file).name
    data = bytearray(path.read_bytes())
    place = data.index(entry.id.encode()) + 60
    data[place : place + 200] = bytes(200)
    path.write_bytes(data)
    read = reader(cached)
    with pytest.raises(InputError, match="`a2fjax cache .*` writes it again"):
        read.read("0_x", entry)
    # Cut short, with the size that the manifest says.
    path.write_bytes(bytes(data[: len(data) // 2]) + bytes(len(data) - len(data) // 2))
    with pytest.raises(InputError, match="writes it again"):
        reader(cached).read("0_x", entry)
    with pytest.raises(records.BadRecord):
        cache_format.read_header(path)


def test_files_are_whole_arrays_of_records(cached):
    for path in SPEC.folder(cached).glob("*.arrayrecord"):
        header = cache_format.read_header(path)
        count = sum(cache_format.chunk_count(p.frames) for p in header.clips.values())
        assert ArrayRecordReader(str(path)).num_records() == count + 1
