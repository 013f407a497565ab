"""Caches as they are written: whole, in parts, killed, after a rebuild; and training from them."""

import dataclasses
import itertools
import json
import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import jax
import numpy as np
import pytest

from a2fjax.cli import main
from a2fjax.configuration import AudioConfig, AugmentConfig, EncoderConfig, LogConfig, Resolved
from a2fjax.data import loader, padding, records
from a2fjax.data.dataset import ClipSource
from a2fjax.data.feature_cache import reader, writer
from a2fjax.encoders import storage
from a2fjax.encoders.speech_encoder import SpeechEncoder, compiled_apply
from a2fjax.errors import InputError, WorkFailed
from a2fjax.models import audio_features, pretrained
from a2fjax.tasks import statistics

ROOT = Path(__file__).parents[2]
QUIET = AugmentConfig(enabled=False)
# A batch is filled up to this length, however few its clips are.
BATCH_FRAMES = 1000


@pytest.fixture(autouse=True)
def compiled(compile_once, monkeypatch):
    """Every test runs the same few programs, on small batches."""
    monkeypatch.setattr(writer, "BATCH_FRAMES", BATCH_FRAMES)


@pytest.fixture
def copy(shards, tmp_path):
    return shutil.copytree(shards, tmp_path / "set")


def load(name, **options):
    return storage.load(name, EncoderConfig(**options))


def bytes_of(folder):
    return {p.name: p.read_bytes() for p in folder.iterdir()}


def configure(build, folders, features, *, encoder=None, augment=QUIET, **data):
    config = build.config(*folders, augment=augment, batch_size=4, **data)
    audio = AudioConfig(features=tuple(features), encoder=EncoderConfig(width=16, **encoder or {}))
    return dataclasses.replace(config, audio=audio)


def cache(config):
    found = pretrained.load(config.audio)
    for folder in config.data.shards:
        for encoder, params in found.values():
            writer.write(folder, encoder, params)
    return found


def cached_config(config):
    return dataclasses.replace(
        config, data=dataclasses.replace(config.data, encoder_features="cached")
    )


# ---- what a cache is of -------------------------------------------------------------------------


def test_a_fingerprint_is_of_all_that_states_depend_on(tiny, build, tmp_path):
    name = tiny["base"]
    encoder, params = load(name)
    own = encoder.fingerprint(params)
    elsewhere = shutil.copytree(name.partition(":")[2], tmp_path / "elsewhere")
    assert (lambda e, p: e.fingerprint(p))(*load(f"wav2vec2:{elsewhere}")) == own
    kept = tmp_path / "run" / "x.safetensors"
    kept.parent.mkdir()
    storage.save(kept, encoder, params)
    assert (lambda e, p: e.fingerprint(p))(*storage.restore(kept, EncoderConfig())) == own
    # What costs memory or time changes no state.
    assert (lambda e, p: e.fingerprint(p))(*load(name, remat=True)) == own
    others = {own}
    for options in ({"layers": 1}, {"layers": 0}, {"precision": "bfloat16"}):
        others.add((lambda e, p: e.fingerprint(p))(*load(name, **options)))
    for kind in ("large", "whisper"):
        others.add((lambda e, p: e.fingerprint(p))(*load(tiny[kind])))
    other = build.tiny(tmp_path / "other", "base", seed=1)
    others.add((lambda e, p: e.fingerprint(p))(*load(other)))
    assert len(others) == 7
    for path, _ in jax.tree_util.tree_leaves_with_path(params):
        bent = jax.tree.map(np.array, params)
        leaf = bent
        for key in path:
            leaf = leaf[key.key]
        leaf.reshape(-1)[-1] += 1e-3
        assert encoder.fingerprint(bent) != own, jax.tree_util.keystr(path)
    all_states = writer.feature_spec(*load(name, mix=True))
    assert (all_states.states, all_states.name) == (3, f"{own}-3")


# ---- writing ------------------------------------------------------------------------------------


def test_states_are_those_of_the_whole_clip(tiny, copy):
    encoder, params = load(tiny["whisper"], mix=True)
    said = []
    place = writer.write(copy, encoder, params, say=said.append)
    assert "100 %" in said[-1]
    manifest = records.read_manifest(copy)
    read = reader.Reader([str(copy)], [manifest], {"0_x": writer.feature_spec(encoder, params)})
    assert sorted(p.name for p in place.iterdir()) == sorted(
        ["manifest.json", *(s.file for s in manifest.shards)]
    )
    for split in ("train", "val"):
        source = ClipSource([copy], split)
        for i in range(0, len(source), 5):
            audio, length = padding.padded_audio(source[i])
            run = compiled_apply(encoder)
            alone = np.asarray(run(params, audio[None], np.array([length])))[0, :length]
            found = read.read("0_x", source.entries[i])
            np.testing.assert_allclose(found, alone, atol=2e-3 * np.abs(alone).max())


def test_parts_and_finish_are_the_whole_to_the_byte(tiny, copy, tmp_path):
    encoder, params = load(tiny["whisper"])
    whole = writer.write(copy, encoder, params)
    expected = bytes_of(whole)
    shutil.rmtree(copy / "feature_cache")
    for part in ((2, 2), (1, 2)):
        with pytest.raises(InputError, match=r"is missing.*; run the part"):
            writer.write(copy, encoder, params, finish=True)
        writer.write(copy, encoder, params, part=part)
        assert not (whole / "manifest.json").exists()
    writer.write(copy, encoder, params, part=(9, 9))  # More parts than files: nothing to do.
    assert writer.write(copy, encoder, params, finish=True) == whole
    assert bytes_of(whole) == expected
    stamps = {p: p.stat().st_mtime_ns for p in whole.iterdir()}
    said = []
    writer.write(copy, encoder, params, say=said.append)
    assert said == ["checking the states of 3 files", "3 of 3 files were there already"]
    assert {p: p.stat().st_mtime_ns for p in whole.iterdir()} == stamps


def test_memory_follows_the_states_not_the_shards(tiny, copy, monkeypatch):
    encoder, params = load(tiny["base"], mix=True)
    expected = bytes_of(writer.write(copy, encoder, params))
    shutil.rmtree(copy / "feature_cache")
    most = []
    plain = writer._Work._encode

    def watched(self, clips):
        most.append(sum(clip.frames for clip in clips))
        return plain(self, clips)

    monkeypatch.setattr(writer._Work, "_encode", watched)
    monkeypatch.setattr(writer, "BATCH_BYTES", 500 * 4 * encoder.num_states * encoder.width)
    found = bytes_of(writer.write(copy, encoder, params))
    assert max(most) <= 500
    assert found.keys() == expected.keys()


def test_damaged_stale_and_foreign_files_are_written_again(tiny, copy):
    encoder, params = load(tiny["whisper"])
    place = writer.write(copy, encoder, params)
    expected = bytes_of(place)
    first, second, third = sorted(place.glob("*.arrayrecord"))
    first.write_bytes(b"")
    second.write_bytes(second.read_bytes()[:3000])
    other = writer.write(copy, *load(tiny["whisper"], layers=1))
    shutil.copy(other / third.name, third)
    (place / ".clips-00000-of-00003.arrayrecord.0123.partial").write_bytes(b"torn")
    (place / "clips-00000-of-00009.arrayrecord").write_bytes(b"of another number of shards")
    with pytest.raises(InputError, match=r"is damaged \(.*\) \(3 of 3 files\)"):
        writer.write(copy, encoder, params, finish=True)
    writer.write(copy, encoder, params)
    assert bytes_of(place) == expected


def test_a_flipped_bit_of_the_states_and_a_wrong_manifest_are_written_again(tiny, copy):
    encoder, params = load(tiny["whisper"])
    place = writer.write(copy, encoder, params)
    expected = bytes_of(place)
    path = sorted(place.glob("*.arrayrecord"))[1]
    data = bytearray(path.read_bytes())
    # The rest of a file is mostly padding.
    data[data.index(records.read_manifest(copy).shards[1].clips[0]["id"].encode()) + 60] ^= 4
    path.write_bytes(data)
    said = []
    writer.write(copy, encoder, params, say=said.append)
    assert any(f"{path}: is damaged (record " in line for line in said)
    assert bytes_of(place) == expected
    manifest = place / "manifest.json"
    values = json.loads(manifest.read_text())
    values["files"][path.name] += 1
    for text in (json.dumps(values), "{"):
        manifest.write_text(text)
        writer.write(copy, encoder, params)
        assert bytes_of(place) == expected


def test_after_a_rebuild_only_what_sounds_otherwise_is_encoded_again(build, tiny, shards, tmp_path):
    clips = []
    for split in ("train", "val"):
        source = ClipSource([shards], split)
        clips += [source[i] for i in range(len(source))]
    folder = build.write(tmp_path / "set", clips)
    encoder, params = load(tiny["whisper"])
    place = writer.write(folder, encoder, params)
    before = {p.name: p.stat().st_mtime_ns for p in place.iterdir()}
    clips[1] = dataclasses.replace(clips[1], audio=clips[1].audio * 0.9)
    clips = [dataclasses.replace(c, motion=c.motion * 0.9) for c in clips]
    again = build.write(tmp_path / "again", clips)
    shutil.copytree(folder / "feature_cache", again / "feature_cache")
    config = cached_config(configure(build, [again], [tiny["whisper"]]))
    specs = {"0_whisper": writer.feature_spec(encoder, params)}
    with pytest.raises(InputError, match="was made of other clips or sounds"):
        loader.batches(config, cached=specs)
    place = writer.write(again, encoder, params)
    changed = {p.name for p in place.iterdir() if p.stat().st_mtime_ns != before[p.name]}
    assert changed == {"manifest.json", "clips-00001-of-00003.arrayrecord"}
    loader.batches(config, cached=specs).close()


def test_a_damaged_clip_is_left_out_as_training_does(build, tiny, copy):
    shard = copy / "clips-00001-of-00003.arrayrecord"
    data = bytearray(shard.read_bytes())
    data[70_000:70_400] = bytes(400)
    shard.write_bytes(data)
    encoder, params = load(tiny["whisper"])
    said = []
    writer.write(copy, encoder, params, say=said.append)
    assert sum("left out" in line for line in said) == 1
    said.clear()
    writer.write(copy, encoder, params, say=said.append)
    assert said == ["checking the states of 3 files", "3 of 3 files were there already"]
    config = cached_config(configure(build, [copy], [tiny["whisper"]]))
    stream = loader.batches(config, cached={"0_whisper": writer.feature_spec(encoder, params)})
    list(itertools.islice(stream, 9))
    assert len(stream.bad) == 1
    stream.close()


def test_states_beyond_16_bits_leave_nothing(tiny, copy):
    encoder, params = load(tiny["whisper"])
    huge = jax.tree.map(np.array, params)
    huge["final_norm"]["scale"] *= 1e6
    with pytest.raises(
        WorkFailed, match="beyond 16-bit floating point; train with data.encoder_features="
    ):
        writer.write(copy, encoder, huge)
    assert list(writer.feature_spec(encoder, huge).folder(copy).iterdir()) == []


def start(shards, name, *arguments, slow=False):
    """`a2fjax cache` in a process of its own; `slow` waits a second in every batch."""
    code = (
        # Tests that run in the background inherit that Ctrl-C is ignored.
        "import signal, sys; signal.signal(signal.SIGINT, signal.default_int_handler)\n"
        "from a2fjax.data.feature_cache import writer\n"
        f"writer.BATCH_FRAMES = {BATCH_FRAMES}\n"
        "from a2fjax.cli import main; sys.exit(main.main(sys.argv[1:]))"
    )
    if slow:
        code = (
            "import time; from a2fjax.data.feature_cache import writer\n"
            "encode = writer._Work._encode\n"
            "writer._Work._encode = lambda s, c: (time.sleep(1.0), encode(s, c))[1]\n"
        ) + code
    argv = ["cache", str(shards), "--features", name, *arguments]
    return subprocess.Popen(
        [sys.executable, "-c", code, *argv],
        cwd=ROOT,
        env={**os.environ, "OMP_NUM_THREADS": "1", "JAX_PLATFORMS": "cpu"},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


@pytest.mark.parametrize(
    "sign",
    [
        signal.SIGKILL,
        pytest.param(signal.SIGTERM, marks=pytest.mark.slow),
        pytest.param(signal.SIGINT, marks=pytest.mark.slow),
    ],
)
def test_killed_in_the_middle_it_goes_on(tiny, copy, tell_again, sign):
    encoder, params = load(tiny["whisper"])
    expected = bytes_of(writer.write(copy, encoder, params))
    folder = writer.feature_spec(encoder, params).folder(copy)
    shutil.rmtree(copy / "feature_cache")
    process = start(copy, tiny["whisper"], slow=True)
    end = time.monotonic() + 60
    while not (list(folder.glob("clips-*")) and list(folder.glob(".clips-*.partial"))):
        assert process.poll() is None and time.monotonic() < end
        time.sleep(0.02)
    process.send_signal(sign)
    if sign == signal.SIGTERM:
        tell_again(process)
    out, err = process.communicate(timeout=60)
    assert process.returncode == {signal.SIGKILL: -9, signal.SIGTERM: 75, signal.SIGINT: 130}[sign]
    assert "Traceback" not in err and not (folder / "manifest.json").exists()
    assert len(list(folder.glob(".*.partial"))) == (sign == signal.SIGKILL)
    kept = {p: p.stat().st_mtime_ns for p in folder.glob("clips-*")}
    assert 0 < len(kept) < 3
    writer.write(copy, encoder, params)
    assert bytes_of(folder) == expected
    assert {p: p.stat().st_mtime_ns for p in kept} == kept


# ---- the command --------------------------------------------------------------------------------


def test_the_command_and_what_inspect_says(tiny, copy, capsys):
    one = ["cache", str(copy), "--features", f"mel,{tiny['whisper']},{tiny['base']}"]
    assert main.main([*one, "--part", "1/3"]) == 0
    assert main.main(["inspect", str(copy)]) == 0
    assert capsys.readouterr().out.count("not finished, 1 of 3 files") == 2
    assert main.main([*one, "--finish"]) == 2
    assert "is missing (2 of 3 files)" in capsys.readouterr().err
    assert main.main(one) == 0
    assert main.main([*one, "--finish"]) == 0
    assert main.main([*one, "--config.audio.encoder.mix=True"]) == 0
    capsys.readouterr()
    assert main.main(["inspect", str(copy)]) == 0
    out = capsys.readouterr().out
    assert out.count("complete") == 4 and "3 x 16" in out and "wav2vec2" in out


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (["{set}"], "no speech encoder among them"),
        (["{set}", "--features", "mel"], "name one with --features, such as whisper:PATH"),
        (["{set}", "--features", "whispr:x"], "did you mean 'whisper:x'?"),
        (["{set}", "--features", "whisper:nowhere.npz"], "nowhere.npz"),
        (["{set}", "--features", "hubert:{base}"], "holds a wav2vec2 model"),
        (["{set}", "--features", "{whisper}", "--config.audio.encoder.layers=7"], "has 2 layers"),
        (["{set}", "--features", "{whisper}", "--config.audio.encoder.layer=7"], "'layers'"),
        (["{set}", "--features", "{whisper}", "--part", "3"], "expected I/N, such as 3/16"),
        (["{set}", "--features", "{whisper}", "--part", "0/2"], "I from 1 to N"),
        (["{set}", "--features", "{whisper}", "--part", "3/2"], "I from 1 to N"),
        (["{set}", "--features", "{whisper}", "--part", "1/2", "--finish"], "give one of them"),
        (["{set}", "--features", "{whisper}", "--finish"], "is missing; run the parts"),
        (["{set}", "--features", "{whisper}", "--prt", "1/2"], "--prt"),
        (["nowhere", "--features", "{whisper}"], "shards folder nowhere does not exist"),
        (["{set}", "--config", "nowhere.py"], "nowhere.py"),
        ([], "SHARDS"),
    ],
)
def test_wrong_words_are_one_line(tiny, shards, tmp_path, capsys, arguments, says):
    values = {
        "set": shards,
        "base": tiny["base"].partition(":")[2],
        "whisper": tiny["whisper"],
    }
    assert main.main(["cache", *(a.format(**values) for a in arguments)]) == 2
    err = capsys.readouterr().err
    assert says in err and err.count("\n") == 1
    assert not (shards / "feature_cache").exists()


# ---- training -----------------------------------------------------------------------------------


def take(config, count, **arguments):
    stream = loader.batches(config, **arguments)
    try:
        return list(itertools.islice(stream, count))
    finally:
        stream.close()


@pytest.mark.parametrize(
    ("kind", "options"),
    [
        ("base", {"mix": True}),
        ("large", {"layers": 1}),
        ("whisper", {"layers": 1, "mix": True}),
        pytest.param("base", {}, marks=pytest.mark.slow),
        pytest.param("large", {"mix": True}, marks=pytest.mark.slow),
        pytest.param("whisper", {}, marks=pytest.mark.slow),
    ],
)
def test_cached_states_are_the_live_ones(build, tiny, copy, kind, options):
    config = configure(build, [copy], [tiny[kind]], encoder=options, context_frames=300)
    found = cache(config)
    (key,) = found
    specs = {key: writer.feature_spec(*found[key])}
    extractor = audio_features.AudioFeatureExtractor(config.audio, found)
    run = jax.jit(extractor.hidden_states)
    params = {"encoders": {key: found[key][1]}}
    live, cached = take(config, 3), take(cached_config(config), 3, cached=specs)
    assert jax.eval_shape(lambda b: b, cached[0]) == loader.spec(
        cached_config(config), cached=specs
    )
    for a, b in zip(live, cached, strict=True):
        without = {"context_audio": None, "context_length": None, "context_start": None}
        jax.tree.map(
            np.testing.assert_array_equal, a.replace(**without), b.replace(cached_features={})
        )
        one = np.asarray(run(params, a)[key])
        two = np.asarray(extractor.hidden_states({}, b)[key])
        exists = (np.arange(64) < a.length[:, None])[..., None, None]
        error = np.abs(np.where(exists, one - two, 0)).max()
        assert error <= 2e-3 * np.abs(one).max()


@pytest.mark.parametrize("speed", [0.1, pytest.param(0.0, marks=pytest.mark.slow)])
def test_workers_hosts_and_pickling_change_nothing(build, tiny, copy, speed):
    augment = AugmentConfig(speed=speed, mirror_prob=0.5)
    config = configure(build, [copy], [tiny["whisper"]], augment=augment)
    config = dataclasses.replace(
        config, data=dataclasses.replace(config.data, encoder_features="cached")
    )
    encoder, params = load(tiny["whisper"])
    writer.write(copy, encoder, params)
    specs = {"0_whisper": writer.feature_spec(encoder, params)}
    here = take(config, 5, cached=specs)

    def by(workers):
        return dataclasses.replace(config, data=dataclasses.replace(config.data, workers=workers))

    for other in (
        take(by(2), 5, cached=specs),
        take(config, 3, cached=specs, start_step=2),
    ):
        for a, b in zip(here[-len(other) :], other, strict=True):
            jax.tree.map(np.testing.assert_array_equal, a, b)
    parts = [take(config, 5, cached=specs, host=h, hosts=2) for h in (0, 1)]
    for a, b, c in zip(here, *parts, strict=True):
        np.testing.assert_array_equal(
            a.cached_features["0_whisper"],
            np.concatenate([b.cached_features["0_whisper"], c.cached_features["0_whisper"]]),
        )
    # What a worker finds damaged reaches the command as one line, too.
    folder = specs["0_whisper"].folder(copy)
    for path in folder.glob("*.arrayrecord"):
        data = bytearray(path.read_bytes())
        data[len(data) // 8 : len(data) // 4] = bytes(len(data) // 4 - len(data) // 8)
        path.write_bytes(data)
    with pytest.raises(InputError, match="`a2fjax cache .*` writes it again"):
        take(by(1), 9, cached=specs)


def test_several_sets_with_several_encoders_at_once(build, tiny, copy, tmp_path):
    other = build.write(tmp_path / "other", [build.clip(k, seconds=2) for k in range(30, 34)])
    names = [tiny["base"], "mel", tiny["whisper"], tiny["large"]]
    config = configure(build, [copy, other], names, weights=(1.0, 3.0))
    found = pretrained.load(config.audio)
    assert list(found) == ["0_wav2vec2", "2_whisper", "3_wav2vec2"]
    specs = {key: writer.feature_spec(*each) for key, each in found.items()}
    for encoder, params in found.values():
        writer.write(copy, encoder, params)
    with pytest.raises(InputError, match=f"{other}.*the cache of encoder 0_wav2vec2 is missing"):
        take(cached_config(config), 1, cached=specs)
    for encoder, params in found.values():
        writer.write(other, encoder, params)
    stream = loader.batches(cached_config(config), cached=specs)
    sets = set()
    for batch in itertools.islice(stream, 4):
        for row, (clip, begin) in enumerate(zip(batch.clip, batch.start, strict=True)):
            entry = stream.source.entries[clip]
            sets.add(entry.folder)
            place = np.minimum(begin + np.arange(64), entry.frames - 1)
            for key in found:
                read = reader.Reader([copy, other], stream.source.manifests, specs)
                np.testing.assert_array_equal(
                    batch.cached_features[key][row], read.read(key, entry)[place]
                )
    stream.close()
    assert sets == {0, 1}


@pytest.mark.parametrize("mix", [True, pytest.param(False, marks=pytest.mark.slow)])
def test_statistics_need_no_encoder_where_there_is_a_cache(build, tiny, copy, mix, monkeypatch):
    names = [tiny[kind] for kind in ("base", "large", "whisper")]
    config = configure(build, [copy], names, encoder={"mix": mix})
    found = cache(config)
    live = statistics.hidden_state_statistics(config.data, [copy], found)
    monkeypatch.setattr(SpeechEncoder, "apply", None)
    cached = statistics.hidden_state_statistics(cached_config(config).data, [copy], found)
    assert live.keys() == cached.keys()
    for name, value in live.items():
        np.testing.assert_allclose(cached[name], value, rtol=2e-3, atol=2e-3 * np.abs(value).max())


@pytest.mark.slow
@pytest.mark.parametrize("kinds", [("whisper",), ("base", "large", "whisper")])
def test_training_from_the_cache_is_training_from_audio(build, tiny, copy, tmp_path, kinds):
    """Losses and held-out losses to 1e-3."""
    from a2fjax.training import trainer

    names = [*(tiny[kind] for kind in kinds), "mel"]
    config = configure(build, [copy], names, context_frames=300)
    small = dataclasses.replace(
        config.model, conv_width=16, recurrent_width=8, identity="none", conv_layers=1
    )
    config = dataclasses.replace(
        config,
        steps=6,
        model=small,
        log=LogConfig(every_steps=1),
        eval=dataclasses.replace(config.eval, every_steps=3 * (len(kinds) > 1), batches=2),
        optim=dataclasses.replace(config.optim, warmup_steps=2, learning_rate=3e-3),
    )
    cache(config)

    def losses(name, config):
        trainer.train(Resolved(config, {}), tmp_path / name, say=lambda line: None)
        lines = (tmp_path / name / "metrics.jsonl").read_text().splitlines()
        return [{k: v for k, v in json.loads(line).items() if "loss" in k} for line in lines]

    live, cached = losses("live", config), losses("cached", cached_config(config))
    held_out = sum("eval/loss" in line for line in live)
    assert len(live) == len(cached) >= 6 and held_out == 2 * (len(kinds) > 1)
    for a, b in zip(live, cached, strict=True):
        assert a.keys() == b.keys()
        for key in a:
            assert b[key] == pytest.approx(a[key], rel=1e-3), key
    trained = [line["train/loss"] for line in live if "train/loss" in line]
    assert len(trained) == 6 and trained[-1] < 0.9 * trained[0]
