import json
import pickle

import numpy as np
import pytest
import soundfile

from a2fjax import rig
from a2fjax.errors import InputError
from data_pipeline import sources
from data_pipeline.demo import expressions
from data_pipeline.demo import head as heads
from data_pipeline.mesh import geometry
from data_pipeline.sources import SourceOptions, neutral, sequences, vertices

PLAIN = SourceOptions()


@pytest.fixture(scope="module")
def face():
    """The demo's head and its 52 shapes, in cm."""
    head = heads.make_head(np.zeros(8))
    return head, expressions.skin_shapes(head)


def moving(face, count, seed=0, rest=8):
    """Returns vertices [F, V, 3] float32 in cm that begin and end at rest."""
    head, shapes = face
    weights = np.random.default_rng(seed).uniform(0, 0.6, (count, 52))
    weights[:rest] = weights[count - rest :] = 0.0
    return (head.vertices + np.einsum("fk,kvi->fvi", weights, shapes)).astype(np.float32)


def write_audio(path, seconds=0.3):
    path.parent.mkdir(parents=True, exist_ok=True)
    noise = np.random.default_rng(1).normal(size=int(16_000 * seconds)) * 0.1
    soundfile.write(path, noise, 16_000)


def write_rig(path, face):
    head, shapes = face
    named = dict(zip(rig.ARKIT, shapes.astype(np.float32), strict=True))
    names = np.array(["neutral", *rig.ARKIT])
    np.savez(path, poseNames=names, neutral=head.vertices.astype(np.float32), **named)


def test_arrays_beside_sounds(tmp_path, face):
    points = moving(face, 20)
    folder = tmp_path / "anna"
    folder.mkdir()
    np.save(folder / "one.npy", points)
    np.save(folder / "two.npy", points.reshape(20, -1).astype(">f8"))
    np.savez_compressed(folder / "three.npz", verts=points, fps=29.97, faces=face[0].faces)
    times = np.sort(np.random.default_rng(0).uniform(0, 2, 20))
    np.savez(folder / "four.npz", head=points, times=times)
    for take in ("one", "two", "three", "four"):
        write_audio(folder / f"{take}.wav")
    (folder / "shots.json").write_text(
        json.dumps({"shots": {"one": {"sentence": "s", "emotion": "angry", "held_out": True}}})
    )
    source, why = sources.open_source(tmp_path, "auto", PLAIN)
    assert source.layout == "vertices" and why == "one person with 4 arrays of vertices"
    (actor,) = pickle.loads(pickle.dumps(source)).actors()
    assert [t.name for t in actor.takes] == ["four", "one", "three", "two"]
    four, one, three, _ = actor.takes
    assert (one.sentence, one.held_out, three.sentence) == ("s", True, "three")
    assert one.emotion[rig.EMOTIONS.index("angry")] == 1
    np.testing.assert_allclose(source.capture(four).times, times)
    np.testing.assert_allclose(source.capture(three).times, np.arange(20) * 1001 / 30_000)
    with pytest.raises(InputError, match=r"one.npy: its frame rate.*--config.fps"):
        source.capture(one)
    source, _ = sources.open_source(tmp_path, "vertices", SourceOptions(fps=50))
    for take in actor.takes:
        capture = source.capture(sources.Take(**{**take.__dict__, "fps": 50.0}))
        np.testing.assert_array_equal(capture.skin[0:20], points)
        blocks = np.concatenate([capture.skin[a : a + 7] for a in range(0, 20, 7)])
        np.testing.assert_array_equal(blocks, points)
        assert len(capture.times) == 20 and capture.times[0] == 0
        if take.name != "four":  # its own times have holes
            assert capture.times[-1] == pytest.approx(0.38)


def test_long_takes_are_not_read_into_memory(tmp_path, face):
    import tracemalloc

    points = moving(face, 16)
    path = tmp_path / "long.npy"
    shape = (4000, points.shape[1] * 3)
    np.lib.format.open_memmap(path, "w+", np.float32, shape)[:16] = points.reshape(16, -1)
    source = vertices.open_source(tmp_path, SourceOptions(fps=60))
    tracemalloc.start()
    read = source.open(path, "long")
    np.testing.assert_array_equal(read.vertices[0:16], points)
    used = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert read.vertices.shape == (4000, points.shape[1], 3)
    assert used < 2_000_000 < path.stat().st_size


def test_the_tree_faceformer_prepares(tmp_path, face):
    points = moving(face, 20)
    names = ["F1_01", "F1_e01", "FaceTalk_170725_00137_TA_sentence02"]
    (tmp_path / "vertices_npy").mkdir()
    (tmp_path / "templates").mkdir()
    for name in names:
        np.save(tmp_path / "vertices_npy" / f"{name}.npy", points.reshape(20, -1))
        write_audio(tmp_path / "wav" / f"{name}.wav")
    np.save(tmp_path / "vertices_npy" / "F1_02.npy", points.reshape(20, -1))
    np.save(tmp_path / "templates" / "F1.npy", face[0].vertices.reshape(-1))
    (tmp_path / "templates.pkl").write_bytes(pickle.dumps({"F1": face[0].vertices}))
    shots = {"F1_01": {"text": "Hello"}, "sentence02": {"language": "en"}}
    (tmp_path / "shots.json").write_text(json.dumps({"fps": 25, "units": "cm", "shots": shots}))
    write_rig(tmp_path / "rig.npz", face)
    source, why = sources.open_source(tmp_path, "auto", PLAIN)
    assert why == "2 people with 4 arrays of vertices"
    one, other = source.actors()
    assert (one.name, other.name) == ("F1", "FaceTalk_170725_00137_TA")
    assert [(t.name, t.sentence, t.text) for t in one.takes] == [
        ("01", "01", "Hello"),
        ("e01", "01", ""),
    ]
    assert [name for name, _ in one.rejected] == ["02"] and "wav" in one.rejected[0][1]
    assert (other.takes[0].name, other.takes[0].language) == ("sentence02", "en")
    assert tmp_path / "templates" / "F1.npy" in one.files
    capture = source.capture(one.takes[0])
    np.testing.assert_allclose(capture.times, np.arange(20) / 25)
    np.testing.assert_array_equal(capture.skin[3:9], points[3:9])
    shapes = source.blendshapes("F1", "skin")
    np.testing.assert_allclose(shapes.neutral, 10 * face[0].vertices, atol=1e-3)
    assert any("templates/F1.npy" in note.replace("\\", "/") for note in shapes.notes)
    guessed = source.blendshapes(other.name, "skin")
    assert any("pickles are refused: give templates/" in note for note in guessed.notes)


def turned_head(points):
    """Returns points as a capture with z up in metres writes them, the head a little turned."""
    a = 0.2
    turn = np.array([[np.cos(a), 0, np.sin(a)], [0, 1, 0], [-np.sin(a), 0, np.cos(a)]])
    points = points @ turn.T
    return np.stack([points[..., 0], -points[..., 2], points[..., 1]], axis=-1) * 0.01 + 0.3


@pytest.mark.parametrize("given", [True, False])
def test_a_template_serves_people_without_shapes(tmp_path, face, given):
    """Their own topology, but z up, in metres, turned: units, axes and neutral are found."""
    parameters = np.array([0.4, -0.3, 0.5, 0.2, -0.4, 0.3, 0.1, 0.0])
    other = heads.make_head(parameters)
    own = (other, expressions.skin_shapes(other))
    capture = tmp_path / "capture"
    capture.mkdir()
    points = [moving(own, 40, seed) for seed in range(3)]
    for n, block in enumerate(points):
        np.save(capture / f"t{n}.npy", turned_head(block).astype(np.float32))
        write_audio(capture / f"t{n}.wav")
    if given:
        np.save(capture / "neutral.npy", turned_head(other.vertices))
    write_rig(tmp_path / "template.npz", face)
    options = SourceOptions(fps=60, rig=str(tmp_path / "template.npz"))
    source, _ = sources.open_source(capture, "auto", options)
    (actor,) = source.actors()
    assert tmp_path / "template.npz" in actor.files
    shapes = source.blendshapes(actor.name, "skin")
    assert shapes.transferred and shapes.millimetres == 1000
    again, _ = sources.open_source(capture, "auto", options)
    np.testing.assert_array_equal(again.blendshapes(actor.name, "skin").neutral, shapes.neutral)
    blocks = geometry.displacements(
        source.capture(actor.takes[0]).skin, shapes.neutral, shapes.keep,
        geometry.stable_vertices(shapes.neutral, shapes.deltas),
        scale=shapes.millimetres, axes=shapes.axes, name="t0",
    )  # fmt: skip
    moved = np.concatenate([block for _, block in blocks])
    true = 10 * (points[0] - other.vertices)
    # The axes come out right and what moves, moves as it did, wherever the head lay.
    np.testing.assert_allclose(
        np.linalg.norm(moved, axis=2), np.linalg.norm(true, axis=2), atol=0.05
    )
    mesh, _ = source.mesh(actor.name)
    size = np.ptp(mesh, axis=0) / np.ptp(other.vertices * 0.01, axis=0)
    np.testing.assert_allclose(size, 1.0, atol=0.08)


def test_no_neutral_among_other_heads(tmp_path, face):
    np.save(tmp_path / "t.npy", moving(face, 20)[:, :-5])
    write_audio(tmp_path / "t.wav")
    write_rig(tmp_path / "template.npz", face)
    options = SourceOptions(fps=60, rig=str(tmp_path / "template.npz"))
    source = vertices.open_source(tmp_path, options)
    with pytest.raises(InputError, match=r"417 vertices, the rig has 422"):
        source.blendshapes(tmp_path.name, "skin")


def test_a_tongue_beside_the_skin(tmp_path, face):
    points = moving(face, 10, rest=2)
    np.save(tmp_path / "t.npy", points)
    np.save(tmp_path / "t.tongue.npy", points[:, :30])
    write_audio(tmp_path / "t.wav")
    source, why = sources.open_source(tmp_path, "auto", SourceOptions(fps=60))
    assert "1 arrays" in why
    (actor,) = source.actors()
    capture = source.capture(actor.takes[0])
    np.testing.assert_array_equal(capture.tongue[0:10], points[:, :30])
    np.save(tmp_path / "t.tongue.npy", points[:9, :30])
    with pytest.raises(InputError, match="t.tongue.npy: 9 frames, the skin has 10"):
        source.capture(actor.takes[0])


def test_one_of_several_arrays_is_chosen_and_named(tmp_path, face):
    points = moving(face, 10, rest=2)
    np.savez(tmp_path / "t.npz", calm=points[:4], happy=points)
    write_audio(tmp_path / "t.wav")
    for asked, frames in (("", 10), ("calm", 4)):
        options = SourceOptions(fps=60, animation=asked)
        source, _ = sources.open_source(tmp_path, "vertices", options)
        capture = source.capture(source.actors()[0].takes[0])
        assert len(capture.times) == frames and "of 'calm', 'happy'" in capture.notes[0]


def test_each_array_with_a_sound_file_is_a_take(tmp_path, face):
    points = moving(face, 9, rest=2)
    np.savez(tmp_path / "hello.npz", idle=points[:5], talk=points)
    write_audio(tmp_path / "hello_idle.wav")
    write_audio(tmp_path / "talk.wav")
    for asked, expected in (("", {"hello_idle": 5, "talk": 9}), ("idle", {"hello_idle": 5})):
        options = SourceOptions(fps=60, animation=asked)
        source, _ = sources.open_source(tmp_path, "vertices", options)
        (actor,) = source.actors()
        assert {t.name: len(source.capture(t).times) for t in actor.takes} == expected


def test_tables_and_little_arrays_are_not_taken_for_vertices(tmp_path):
    np.savez(tmp_path / "a.npz", arkit52=np.zeros((9, 52)), arkit52_names=np.array(rig.ARKIT))
    write_audio(tmp_path / "a.wav")
    assert vertices.recognise(tmp_path) is None
    np.save(tmp_path / "a.npy", np.zeros((9, 72)))
    assert vertices.recognise(tmp_path) is None


def test_pickles_are_refused(tmp_path, face):
    np.save(tmp_path / "t.npy", np.array([{"a": 1}], dtype=object))
    (tmp_path / "u.npy").write_bytes(pickle.dumps(moving(face, 3, rest=1)))
    np.savez(tmp_path / "v.npz", verts=np.array([None, 1], dtype=object))
    for take in "tuv":
        write_audio(tmp_path / f"{take}.wav")
    source = vertices.open_source(tmp_path, SourceOptions(fps=60))
    for take in source.actors()[0].takes:
        with pytest.raises(InputError, match="pickled objects, which are refused.*np.save"):
            source.capture(take)
    raw = tmp_path / "raw"
    raw.mkdir()
    np.save(raw / "data_verts.npy", np.zeros((4, 5023, 3), np.float32))
    with pytest.raises(InputError, match=r"vertices_npy/<person>_<sentence>.npy"):
        sources.open_source(raw, "auto", PLAIN)
    other = tmp_path / "other"
    other.mkdir()
    (other / "x.pkl").write_bytes(pickle.dumps([1]))
    with pytest.raises(InputError, match=r"pickles \(x.pkl\) are refused"):
        sources.open_source(other, "vertices", PLAIN)


def test_damaged_arrays_are_told_and_the_others_survive(tmp_path, face):
    rng = np.random.default_rng(5)
    points = moving(face, 12, rest=2)
    bad = "größe 日本"
    write_audio(tmp_path / "good.wav")
    write_audio(tmp_path / f"{bad}.wav")
    np.save(tmp_path / "good.npy", points)
    contents = []
    for ending, write in ((".npy", np.save), (".npz", np.savez), (".npz", np.savez_compressed)):
        path = tmp_path / f"whole{ending}"
        write(path, points)
        data = path.read_bytes()
        path.unlink()
        contents += [(ending, data[: int(n)]) for n in (0, 1, 9, 60, 200, len(data) * 0.7)]
        contents += [(ending, data[:-1])]
        for _ in range(6):
            noisy = bytearray(data)
            for place in rng.integers(0, min(400, len(data)), 8):
                noisy[place] = int(rng.integers(0, 256))
            contents.append((ending, bytes(noisy)))
    strange = [
        np.zeros(5), np.zeros((0, 9, 3)), np.zeros((4, 10)), np.zeros((4, 9, 4)),
        np.zeros((4, 9, 3), int), np.zeros((2, 2, 9, 3)), np.float64(1), np.zeros((3, 2, 3)),
        np.array(["a"]),
    ]  # fmt: skip
    for array in strange:
        path = tmp_path / "whole.npy"
        np.save(path, array)
        contents.append((".npy", path.read_bytes()))
        path.unlink()
    errors = 0
    for ending, content in contents:
        target = tmp_path / f"{bad}{ending}"
        target.write_bytes(content)
        source = vertices.open_source(tmp_path, SourceOptions(fps=60))
        (actor,) = source.actors()
        assert {t.name for t in actor.takes} == {"good", bad}
        for take in actor.takes:
            try:
                capture = source.capture(take)
                assert capture.skin[0:12].shape[1:] == (points.shape[1], 3)
            except InputError as error:
                errors += 1
                assert take.name == bad and bad in str(error) and "\n" not in str(error)
        vertices.recognise(tmp_path)
        target.unlink()
    assert errors >= len(strange) + 15


def test_one_frame(tmp_path, face):
    np.save(tmp_path / "t.npy", moving(face, 1, rest=0))
    write_audio(tmp_path / "t.wav")
    source, _ = sources.open_source(tmp_path, "auto", SourceOptions(fps=60))
    capture = source.capture(source.actors()[0].takes[0])
    assert capture.times.tolist() == [0.0] and capture.skin[0:1].shape == (1, 422, 3)


@pytest.mark.parametrize(
    "change, reason",
    [
        ({"times": np.zeros(4)}, "times do not increase"),
        ({"times": np.arange(3.0)}, "times do not increase"),
        ({"fps": np.nan}, "fps=nan"),
        ({"fps": -3}, "fps=-3"),
        ({"faces": np.array([[0, 1, 999]])}, "faces of shape"),
        ({"verts": np.zeros((4, 9))}, None),
    ],
)
def test_archives_that_contradict_themselves(tmp_path, change, reason):
    arrays = {"verts": np.random.default_rng(0).normal(size=(4, 9, 3)), "fps": 30.0, **change}
    np.savez(tmp_path / "t.npz", **arrays)
    write_audio(tmp_path / "t.wav")
    source = vertices.open_source(tmp_path, PLAIN)
    take = source.actors()[0].takes[0]
    if reason is None:  # flat, three vertices: too few
        reason = "3 vertices, expected at least 4"
    with pytest.raises(InputError, match=reason):
        source.capture(take)


def test_one_name_for_two_people(tmp_path, face):
    root = tmp_path / "anna"
    (root / "anna").mkdir(parents=True)
    for folder in (root, root / "anna"):
        np.save(folder / "t.npy", moving(face, 4, rest=1))
        write_audio(folder / "t.wav")
    with pytest.raises(InputError, match="takes of anna lie in two places"):
        sources.open_source(root, "auto", PLAIN)
    source, _ = sources.open_source(root, "auto", SourceOptions(subject="berta"))
    assert [actor.name for actor in source.actors()] == ["anna", "berta"]


def test_a_take_without_frames_decides_nothing_for_its_person():
    def take(frames):
        motion = sequences.MotionFile(numbers=np.arange(frames), vertices=np.ones((frames, 4, 3)))
        return lambda: motion

    assert neutral.first_motion([take(0), take(2)]).vertices.shape == (1, 4, 3)
    assert neutral.first_motion([take(0)]) is None
