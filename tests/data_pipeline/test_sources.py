import json
import os
import pickle
import struct

import numpy as np
import pytest
import soundfile

from a2fjax import rig
from a2fjax.errors import InputError
from data_pipeline import sources
from data_pipeline.mesh import blendshapes
from data_pipeline.sources import SourceOptions, caches, shot_list

PLAIN = SourceOptions()


def vertices(frames=7, count=11, seed=0):
    return np.random.default_rng(seed).normal(size=(frames, count, 3)).astype(np.float32)


def write_pc2(path, points, rate=30.0):
    head = struct.pack("<12siiffi", b"POINTCACHE2\0", 1, points.shape[1], 0.0, rate, len(points))
    path.write_bytes(head + points.astype("<f4").tobytes())


def write_mc(path, points, ticks=200, double=False, start=1):
    """A Maya one-file cache by its published form, written independently of the reader."""

    def chunk(tag, body):
        return tag + struct.pack(">i", len(body)) + body + b"\0" * (-len(body) % 4)

    body = chunk(b"VRSN", b"0.1\0") + chunk(b"STIM", struct.pack(">i", start * ticks))
    body += chunk(b"ETIM", struct.pack(">i", (start + len(points) - 1) * ticks))
    out = chunk(b"FOR4", b"CACH" + body)
    for i, frame in enumerate(points):
        kind, numbers = (b"DVCA", ">f8") if double else (b"FVCA", ">f4")
        inner = chunk(b"TIME", struct.pack(">i", (start + i) * ticks))
        inner += chunk(b"CHNM", b"headShape\0")
        inner += chunk(b"SIZE", struct.pack(">i", len(frame)))
        inner += chunk(kind, frame.astype(numbers).tobytes())
        out += chunk(b"FOR4", b"MYCH" + inner)
    path.write_bytes(out)


@pytest.mark.parametrize("kind", ["npy", "pc2", "mc", "mc double"])
def test_caches_hold_what_was_written(tmp_path, kind):
    points = vertices()
    path = tmp_path / f"shot.{kind.split()[0]}"
    if kind == "npy":
        np.save(path, points)
    elif kind == "pc2":
        write_pc2(path, points, 24.0)
    else:
        write_mc(path, points, ticks=250, double="double" in kind)
    found, times = caches.read_cache(path)
    assert tuple(found.shape) == points.shape
    np.testing.assert_array_equal(np.asarray(found[0:7]), points)
    np.testing.assert_array_equal(np.asarray(found[3:5]), points[3:5])
    if kind == "npy":
        assert times is None
    else:
        np.testing.assert_allclose(times, np.arange(7) / 24, atol=1e-9)


@pytest.mark.parametrize("kind", ["npy", "pc2", "mc"])
def test_truncated_caches_are_named_at_any_length(tmp_path, kind):
    path = tmp_path / f"shot.{kind}"
    {"npy": np.save, "pc2": write_pc2, "mc": write_mc}[kind](path, vertices())
    whole = path.read_bytes()
    for size in (0, 5, 20, 60, 130, len(whole) // 2, len(whole) - 3):
        path.write_bytes(whole[:size])
        with pytest.raises(InputError, match=f"shot.{kind}") as error:
            caches.read_cache(path)
        assert "\n" not in str(error.value)


def test_wrong_caches_are_named(tmp_path):
    np.save(tmp_path / "flat.npy", np.zeros((5, 33), np.float32))
    with pytest.raises(InputError, match=r"flat.npy: .*\(5, 33\), expected floats"):
        caches.read_cache(tmp_path / "flat.npy")
    write_mc(tmp_path / "shot.mc", vertices())
    (tmp_path / "shot.xml").write_text('<A><cacheType Type="OneFilePerFrame"/></A>')
    with pytest.raises(InputError, match="OneFilePerFrame, expected OneFile"):
        caches.read_cache(tmp_path / "shot.mc")


def test_a_folder_a_shot_or_none(tmp_path):
    (tmp_path / "a").mkdir()
    np.save(tmp_path / "a" / "a.npy", vertices())
    write_pc2(tmp_path / "b.pc2", vertices())
    assert caches.list_caches(tmp_path) == ["a", "b"]
    assert caches.find_cache(tmp_path, "a") == tmp_path / "a" / "a.npy"
    assert caches.find_cache(tmp_path, "b") == tmp_path / "b.pc2"
    assert caches.find_cache(tmp_path, "c") is None


def test_nvidia_source_lists_takes_and_reads_them(tmp_path, head, make_actor):
    make_actor(tmp_path / "set" / "ann", head, held_out=True)
    make_actor(tmp_path / "set" / "bob", head, slate=False, shots=1)
    source, why = sources.open_source(tmp_path / "set", "auto", PLAIN)
    assert source.layout == "nvidia" and why == "2 folders with audio/ and cache/skin/"
    source = pickle.loads(pickle.dumps(source))
    ann, bob = source.actors()
    assert [t.name for t in ann.takes] == ["calm_01", "joy_00", "slate"]
    assert [t.slate for t in ann.takes] == [False, False, True]
    take = ann.takes[1]
    assert (take.sentence, take.language, take.held_out) == ("line 1", "en", True)
    np.testing.assert_allclose(take.emotion, [0.5, 0.5, 0, 0, 0])
    assert bob.takes[0].held_out is None
    capture = source.capture(take)
    assert capture.skin.shape == (len(capture.times), 450, 3)
    np.testing.assert_allclose(capture.eyes[3], [1, 2, 3, 4])
    face = source.blendshapes("ann", "skin")
    assert face.millimetres == 10.0 and face.channels == tuple(rig.ARKIT)
    np.testing.assert_allclose(face.neutral, head.neutral * 10, atol=1e-4)
    assert source.blendshapes("ann", "tongue") is None
    alone, why = sources.open_source(tmp_path / "set" / "bob", "auto", PLAIN)
    assert "one actor" in why and [a.name for a in alone.actors()] == ["bob"]
    assert alone.capture(alone.actors()[0].takes[0]).skin.shape[1] == 450


def test_what_is_missing_is_rejected_by_name(tmp_path, head, make_actor):
    folder = tmp_path / "ann"
    make_actor(folder, head, slate=False, shots=3)
    (folder / "audio" / "joy_00.wav").unlink()
    (folder / "cache" / "skin" / "calm_01" / "calm_01.npy").unlink()
    (folder / "shots.json").write_text(
        json.dumps({"fps": 60, "shots": {"joy_02": {"emotion": {"hapy": 1}}}})
    )
    (actor,) = sources.open_source(folder, "nvidia", PLAIN)[0].actors()
    reasons = dict(actor.rejected)
    assert not actor.takes and set(reasons) == {"joy_00", "calm_01", "joy_02"}
    assert "joy_00.wav: no such file" in reasons["joy_00"]
    assert "no cache of type" in reasons["calm_01"]
    assert "did you mean 'happy'" in reasons["joy_02"]


@pytest.mark.parametrize(
    "name", ["geom/skin/neutral_pose.npy", "geom/skin/faces.npy", "bs_data/bs_skin.npz"]
)
def test_a_pipe_is_not_taken_for_a_file_that_may_be_absent(tmp_path, head, make_actor, name):
    make_actor(tmp_path / "ann", head, slate=False, shots=1)
    path = tmp_path / "ann" / name
    path.unlink(missing_ok=True)
    os.mkfifo(path)
    with pytest.raises(InputError, match="is a named pipe, expected a file"):
        sources.open_source(tmp_path / "ann", "nvidia", PLAIN)[0].mesh("ann")


def test_rate_from_the_list_the_cache_or_the_user(tmp_path, head, make_actor):
    folder = tmp_path / "ann"
    make_actor(folder, head, slate=False, shots=1)
    (folder / "shots.json").unlink()

    def times(options=PLAIN):
        source, _ = sources.open_source(folder, "nvidia", options)
        return source.capture(source.actors()[0].takes[0]).times

    with pytest.raises(InputError, match="give --config.fps"):
        times()
    assert times(SourceOptions(fps=29.97))[30] == pytest.approx(1.001)
    points = np.load(folder / "cache/skin/joy_00/joy_00.npy")
    (folder / "cache/skin/joy_00/joy_00.npy").unlink()
    write_mc(folder / "cache/skin/joy_00/joy_00.mc", points, ticks=100)
    assert times()[60] == pytest.approx(1.0)


def test_emotions_and_sentences_from_shot_names():
    assert shot_list.emotion_from_name("cp1_Joy_02") == "joy"
    assert shot_list.emotion_from_name("cp1_outofbreath") == "outofbreath"
    assert shot_list.emotion_from_name("eg3_neutral_fast") == "neutral"
    # NVIDIA's order decides where several names are in one.
    assert shot_list.emotion_from_name("pain_anger") == "anger"
    assert (
        shot_list.sentence_from_name("cp1_neutral")
        == shot_list.sentence_from_name("cp1_joy")
        == "cp1"
    )
    assert shot_list.sentence_from_name("eg3_neutral_fast") == "eg3_fast"
    assert shot_list.sentence_from_name("joy") == "joy"


def test_mouth_close_that_includes_the_jaw_is_made_relative(head):
    channels = ["jawOpen", "mouthClose"]
    jaw, close = head.deltas[[rig.INDEX["jawOpen"], rig.INDEX["mouthClose"]]]
    deltas = np.stack([jaw, close + jaw])
    assert "subtracted" in blendshapes.relative_mouth_close(channels, deltas, "auto")
    np.testing.assert_allclose(deltas[1], close, atol=1e-12)
    assert "relative" in blendshapes.relative_mouth_close(channels, deltas, "auto")
    np.testing.assert_allclose(deltas[1], close, atol=1e-12)


def test_shapes_of_other_names_and_halves(tmp_path, head, make_actor):
    folder = tmp_path / "ann"
    make_actor(folder, head, slate=False, shots=1)
    path = folder / "bs_data" / "bs_skin.npz"
    brow = head.deltas[0]
    np.savez(
        path,
        poseNames=np.array(["neutral", "browInnerUp_L", "browInnerUp_R", "JawOpen"]),
        neutral=head.neutral,
        browInnerUp_L=brow,
        browInnerUp_R=2 * brow,
        JawOpen=head.deltas[1],
    )
    source, _ = sources.open_source(folder, "auto", PLAIN)
    face = source.blendshapes("ann", "skin")
    assert face.channels == ("jawOpen", "browInnerUp")
    np.testing.assert_allclose(face.deltas[1], 30 * brow)
    np.savez(path, poseNames=np.array(["neutral", "jawOpne"]), neutral=head.neutral, jawOpne=brow)
    with pytest.raises(InputError, match="bs_skin.npz: unknown channel 'jawOpne'.*jawOpen"):
        source.blendshapes("ann", "skin")


def table(folder, stem, **arrays):
    folder.mkdir(parents=True, exist_ok=True)
    np.savez(folder / f"{stem}.npz", **arrays)
    soundfile.write(folder / f"{stem}.wav", 0.1 * np.ones(16_000), 16_000)


def test_tables_of_any_order_map_by_name(tmp_path):
    values = np.random.default_rng(0).uniform(0, 1, (20, 3)).astype(np.float32)
    names = np.array(["MouthClose", "jawopen", "eyeBlink_L"])
    table(tmp_path / "mia", "one", motion=values, names=names, fps=np.float32(25))
    table(
        tmp_path / "mia",
        "two",
        curves=values,
        names=names,
        times=np.arange(20) / 24 + 1,
        emotion="joy",
        language="zh",
        sentence="hello",
    )
    (tmp_path / "mia" / "lonely.npz").write_bytes(b"PK")
    source, why = sources.open_source(tmp_path, "auto", PLAIN)
    assert source.layout == "table" and why.startswith("2 .npz")
    (actor,) = source.actors()
    assert actor.name == "mia" and [t.name for t in actor.takes] == ["one", "two"]
    assert "no sound file lonely.wav" in dict(actor.rejected)["lonely"]
    one, two = (source.capture(t) for t in actor.takes)
    np.testing.assert_array_equal(one.curves[:, rig.INDEX["jawOpen"]], values[:, 1])
    np.testing.assert_array_equal(one.curves[:, rig.INDEX["eyeBlinkLeft"]], values[:, 2])
    assert one.observed.sum() == 3 and one.times[5] == pytest.approx(0.2)
    assert two.times[0] == 1.0
    assert (actor.takes[1].sentence, actor.takes[1].language) == ("hello", "zh")
    np.testing.assert_allclose(actor.takes[1].emotion, [0, 1, 0, 0, 0])
    named, _ = sources.open_source(tmp_path / "mia", "table", SourceOptions(subject="Mia"))
    assert [a.name for a in named.actors()] == ["Mia"]


@pytest.mark.parametrize(
    ("arrays", "message"),
    [
        (dict(motion=np.zeros((5, 2)), names=np.array(["jawOpen"]), fps=30), "expected values"),
        (dict(motion=np.zeros((5, 1)), names=np.array(["jawOpne"]), fps=30), "did you mean"),
        (dict(motion=np.zeros((5, 1)), names=np.array(["jawOpen"])), "give --config.fps"),
        (dict(motion=np.full((5, 1), np.nan), names=np.array(["jawOpen"]), fps=30), "no face"),
        (dict(motion=np.zeros((0, 1)), names=np.array(["jawOpen"]), fps=30), "no frames"),
        (dict(other=np.zeros(3)), "holds other .3,.; expected values"),
        (dict(motion=np.zeros((3, 1)), names=np.array(["jawOpen"]), times=[0, 2, 1]), "increase"),
        (dict(motion=np.array([["a"]]), names=np.array(["jawOpen"]), fps=30), "expected values"),
    ],
)
def test_bad_tables_are_named(tmp_path, arrays, message):
    table(tmp_path, "bad", **arrays)
    source, _ = sources.open_source(tmp_path, "auto", PLAIN)
    with pytest.raises(InputError, match=f"bad.npz: .*{message}") as error:
        source.capture(source.actors()[0].takes[0])
    assert "\n" not in str(error.value)


def test_unknown_layouts_are_one_line(tmp_path):
    (tmp_path / "file").write_text("x")
    (tmp_path / "captures").mkdir()
    for path, layout, message in [
        (tmp_path / "capture", "auto", "does not exist; did you mean .*captures"),
        (tmp_path / "file", "auto", "is not a folder"),
        (tmp_path, "auto", "no known layout"),
        (tmp_path, "nvida", "did you mean 'nvidia'"),
        (tmp_path, "nvidia", "no folder with audio/"),
        (tmp_path, "table", "no file of curves"),
    ]:
        with pytest.raises(InputError, match=message):
            sources.open_source(path, layout, PLAIN)


def test_facegood_takes(shared):
    source, why = sources.open_source(shared / "facegood_mandarin", "auto", PLAIN)
    (actor,) = source.actors()
    assert why == "5 .npz beside sound files of the same name" and len(actor.takes) == 5
    capture = source.capture(actor.takes[0])
    assert capture.curves[:, rig.INDEX["jawOpen"]].max() == pytest.approx(0.7055709)
    assert capture.times[30] == pytest.approx(1.0) and capture.observed.sum() == 52
