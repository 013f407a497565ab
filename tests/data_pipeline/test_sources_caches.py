"""Caches of moving vertices and NVIDIA's folders around them, written apart from the readers."""

import json
import struct

import numpy as np
import pytest
import soundfile

from a2fjax import rig
from a2fjax.errors import InputError
from data_pipeline import sources
from data_pipeline.sources import SourceOptions, caches

PLAIN = SourceOptions()


def points(frames=6, count=11, seed=0):
    return np.random.default_rng(seed).normal(size=(frames, count, 3)).astype(np.float32)


def block(tag, body, wide=False, align=4):
    size = struct.pack(">4xq" if wide else ">i", len(body))
    return tag + size + body + b"\0" * (-len(body) % align)


def maya(frames, *, ticks=200, wide=False, align=4, times=True, start=1):
    """A cache of `frames`: a list of {channel: array [n, 3] or [n]} by the form Autodesk tells."""
    align = 8 if wide else align
    form = b"FOR8" if wide else b"FOR4"

    def inner(tag, body):
        return block(tag, body, wide, align)

    head = inner(b"VRSN", b"0.1\0") + inner(b"STIM", struct.pack(">i", start * ticks))
    head += inner(b"ETIM", struct.pack(">i", (start + len(frames) - 1) * ticks))
    out = block(form, b"CACH" + head, wide, 1)
    for n, channels in enumerate(frames):
        body = inner(b"TIME", struct.pack(">i", (start + n) * ticks)) if times else b""
        for name, values in channels.items():
            body += inner(b"CHNM", name.encode() + b"\0")
            body += inner(b"SIZE", struct.pack(">i", len(values)))
            tag = {(2, "f"): b"FVCA", (2, "d"): b"DVCA", (1, "f"): b"FBCA", (1, "d"): b"DBLA"}
            kind = tag[values.ndim, values.dtype.char]
            body += inner(kind, values.astype(values.dtype.newbyteorder(">")).tobytes())
        out += block(form, b"MYCH" + body, wide, 1)
    return out


def description(kind="OneFile", ticks=200, channels=()):
    rows = "".join(
        f'<channel{n} ChannelName="{c}" ChannelType="FloatVectorArray" '
        f'ChannelInterpretation="{meaning}" SamplingType="Regular" SamplingRate="{ticks}"/>'
        for n, (c, meaning) in enumerate(channels)
    )
    return (
        '<?xml version="1.0"?><Autodesk_Cache_File>'
        f'<cacheType Type="{kind}" Format="mcc"/><time Range="200-1400"/>'
        f'<cacheTimePerFrame TimePerFrame="{ticks}"/><cacheVersion Version="2.0"/>'
        f"<Channels>{rows}</Channels></Autodesk_Cache_File>"
    )


@pytest.mark.parametrize("name", ["headShape", "h", "hea", "héad"])
@pytest.mark.parametrize("double", [False, True])
@pytest.mark.parametrize("form", [dict(), dict(align=1), dict(wide=True)])
def test_one_channel_of_any_form(tmp_path, name, double, form):
    if form.get("align") == 1:
        name = "headSha"  # With its end, a length that needs no padding.
    moving = points()
    kind = np.float64 if double else np.float32
    path = tmp_path / ("shot.mcx" if form.get("wide") else "shot.mc")
    path.write_bytes(maya([{name: f.astype(kind)} for f in moving], ticks=250, **form))
    found, times = caches.read_cache(path)
    assert found.shape == moving.shape
    np.testing.assert_array_equal(found[0:6], moving)
    np.testing.assert_array_equal(found[4:6], moving[4:6])
    np.testing.assert_allclose(times, np.arange(6) / 24)


def test_the_mesh_is_chosen_among_several_channels(tmp_path):
    moving, eyes = points(), points(count=4, seed=1)
    speed = points(seed=2)
    path = tmp_path / "shot.mc"

    def write(*channels):
        frames = [{n: v[f] for n, v in channels} for f in range(6)]
        path.write_bytes(maya(frames))

    weight = np.ones((6, 5), np.float32)
    write(("eyesShape", eyes), ("mass", weight), ("headShape", moving))
    np.testing.assert_array_equal(caches.read_cache(path, 11)[0][0:6], moving)
    np.testing.assert_array_equal(caches.read_cache(path, 4)[0][0:6], eyes)
    with pytest.raises(InputError, match="no channel has the mesh's 9 vertices.*eyesShape .4 ver"):
        caches.read_cache(path, 9)
    with pytest.raises(InputError, match="several channels could be the mesh: eyesShape"):
        caches.read_cache(path)
    write(("head_velocity", speed), ("head_positions", moving))
    np.testing.assert_array_equal(caches.read_cache(path, 11)[0][0:6], moving)
    write(("a", speed), ("b", moving))
    np.testing.assert_array_equal(caches.read_cache(path, 11, "B")[0][0:6], moving)
    with pytest.raises(InputError, match="several channels could be the mesh: a .11 vertices., b"):
        caches.read_cache(path, 11)
    (tmp_path / "shot.xml").write_text(
        description(channels=[("a", "velocity"), ("b", "positions")])
    )
    np.testing.assert_array_equal(caches.read_cache(path, 11)[0][0:6], moving)


@pytest.mark.parametrize("in_folder", [False, True])
@pytest.mark.parametrize("own_time", [False, True])
def test_a_file_a_frame(tmp_path, in_folder, own_time):
    moving = points(12)
    folder = tmp_path / "shot" if in_folder else tmp_path
    folder.mkdir(exist_ok=True)
    (folder / "shot.xml").write_text(description("OneFilePerFrame", ticks=100))
    for f in range(12):
        if f == 7:
            continue  # a frame that is missing leaves a hole
        data = maya([{"head": moving[f]}], ticks=100, start=f + 3, times=own_time)
        (folder / f"shotFrame{f + 3}.mc").write_bytes(data)
    assert caches.list_caches(tmp_path) == ["shot"]
    cache = caches.find_cache(tmp_path, "shot")
    assert len(caches.cache_files(cache)) == 12
    found, times = caches.read_cache(cache)
    kept = [f for f in range(12) if f != 7]
    np.testing.assert_array_equal(found[0:11], moving[kept])
    np.testing.assert_array_equal(found[3:9], moving[kept][3:9])
    np.testing.assert_allclose(times, np.array(kept) / 60)


def test_frames_between_frames(tmp_path):
    moving = points(4)
    (tmp_path / "shot.xml").write_text(description("OneFilePerFrame", ticks=250))
    for f, name in enumerate(["Frame1", "Frame1Tick125", "Frame2", "Frame2Tick125"]):
        data = maya([{"head": moving[f]}], ticks=125, start=f + 2)
        (tmp_path / f"shot{name}.mc").write_bytes(data)
    found, times = caches.read_cache(tmp_path / "shot.xml")
    np.testing.assert_array_equal(found[0:4], moving)
    np.testing.assert_allclose(times, np.arange(4) / 48)


def test_wrong_maya_caches_are_named(tmp_path):
    path = tmp_path / "shot.mc"
    moving = points()

    def refused(message, **given):
        with pytest.raises(InputError, match=message) as error:
            caches.read_cache(path, **given)
        assert "\n" not in str(error.value) and "shot" in str(error.value)

    path.write_bytes(maya([{"head": f} for f in moving], ticks=0))
    refused("frame times do not increase")
    path.write_bytes(maya([{"head": moving[0]}, {"head": moving[1][:9]}]))
    refused("the number of vertices changes between frames .frame 1.")
    path.write_bytes(maya([{"head": moving[0]}, {"face": moving[1]}]))
    refused("frame 1 has no channel 'head'")
    path.write_bytes(maya([{"mass": np.ones(5)}]))
    refused("frame 0 has no channel of vectors")
    path.write_bytes(maya([]))
    refused("has no frames")
    path.write_bytes(maya([{"head": f} for f in moving]))
    (tmp_path / "shot.xml").write_text("<Autodesk_Cache_File>")
    refused("not a description of a Maya cache")
    (tmp_path / "shot.xml").write_text(description("OneFilePerSecond"))
    refused("OneFilePerSecond, expected OneFile or OneFilePerFrame")
    with pytest.raises(InputError, match="no shotFrame<number>.mc beside it"):
        (tmp_path / "shot.xml").write_text(description("OneFilePerFrame"))
        caches.read_cache(tmp_path / "shot.xml")


def test_wrong_arrays_and_pc2_are_named(tmp_path):
    np.save(tmp_path / "o.npy", np.array([{}, {}], object), allow_pickle=True)
    with pytest.raises(InputError, match="o.npy: .*pickled objects, which are refused"):
        caches.read_cache(tmp_path / "o.npy")
    for shape in [(0, 5, 3), (5, 0, 3), (5, 3), (2, 5, 4)]:
        np.save(tmp_path / "s.npy", np.zeros(shape, np.float32))
        with pytest.raises(InputError, match="s.npy: .*expected floats"):
            caches.read_cache(tmp_path / "s.npy")
    head = struct.pack("<12siiffi", b"POINTCACHE2\0", 1, 5, 0.0, 30.0, 2)
    (tmp_path / "p.pc2").write_bytes(head + bytes(3 * 5 * 12))
    with pytest.raises(InputError, match="p.pc2: 60 bytes more than its 2 frames of 5 vertices"):
        caches.read_cache(tmp_path / "p.pc2")


@pytest.mark.parametrize("kind", ["npy", "pc2", "mc", "mcx", "xml"])
def test_damaged_caches_are_one_line_or_vertices(tmp_path, kind):
    moving = points(4)
    path = victim = tmp_path / f"shöt.{kind}"
    if kind == "npy":
        np.save(path, moving)
    elif kind == "pc2":
        head = struct.pack("<12siiffi", b"POINTCACHE2\0", 1, 11, 0.0, 30.0, 4)
        path.write_bytes(head + moving.tobytes())
    elif kind == "xml":
        path.write_text(description("OneFilePerFrame"))
        for f in range(4):
            data = maya([{"head": moving[f]}], start=f + 1)
            (tmp_path / f"shötFrame{f + 1}.mc").write_bytes(data)
        victim = tmp_path / "shötFrame3.mc"
    else:
        path.write_bytes(maya([{"head": f} for f in moving], wide=kind == "mcx"))
    whole = victim.read_bytes()
    rng = np.random.default_rng(5)
    refused = 0
    for n in range(200):
        damaged = bytearray(whole)
        if n % 2:
            damaged = damaged[: int(rng.integers(0, len(whole)))]
        else:
            at = int(rng.integers(0, len(whole) // 3))
            damaged[at : at + 4] = rng.bytes(4)
        victim.write_bytes(damaged)
        try:
            found, _ = caches.read_cache(path)
            assert found[0 : found.shape[0]].shape == found.shape
        except InputError as error:
            refused += 1
            assert "\n" not in str(error) and "shöt" in str(error)
    assert refused > 80


# --- the folders


def actor(folder, head, make_actor, shots=2):
    make_actor(folder, head, slate=False, shots=shots)
    return folder


def opened(folder, options=PLAIN):
    source, _ = sources.open_source(folder, "auto", options)
    (found,) = source.actors()
    return source, found


def test_cloned_voices_are_takes_of_the_same_motion(tmp_path, head, make_actor):
    folder = actor(tmp_path / "ann", head, make_actor)
    for voice, shot in (("bass", "joy_00"), ("alt", "joy_00"), ("bass", "calm_01")):
        place = folder / "audio" / "aug" / voice
        place.mkdir(parents=True, exist_ok=True)
        soundfile.write(place / f"{shot}.wav", 0.1 * np.ones(16_000), 16_000)
    source, found = opened(folder)
    assert [t.name for t in found.takes] == [
        *("calm_01", "calm_01@bass", "joy_00", "joy_00@alt", "joy_00@bass")
    ]
    own, voiced = found.takes[2], found.takes[3]
    assert voiced.audio == folder / "audio" / "aug" / "alt" / "joy_00.wav"
    assert voiced.sentence == own.sentence == "line 0" and voiced.subject == own.subject
    np.testing.assert_array_equal(voiced.emotion, own.emotion)
    first, second = source.capture(own), source.capture(voiced)
    np.testing.assert_array_equal(first.skin[0:3], second.skin[0:3])
    np.testing.assert_array_equal(first.eyes, second.eyes)
    (folder / "audio" / "joy_00.wav").unlink()
    assert [t.name for t in opened(folder)[1].takes][2:] == ["joy_00@alt", "joy_00@bass"]


def test_a_maya_cache_with_eyes_in_it_is_solved_on_the_head(tmp_path, head, make_actor):
    folder = actor(tmp_path / "ann", head, make_actor, shots=1)
    cache = folder / "cache" / "skin" / "joy_00"
    moving = np.load(cache / "joy_00.npy")
    (cache / "joy_00.npy").unlink()
    frames = [{"eyes": np.zeros((7, 3), np.float32), "head": f} for f in moving]
    (cache / "joy_00.mc").write_bytes(maya(frames, ticks=100))
    (cache / "joy_00.xml").write_text(description(ticks=100))
    source, found = opened(folder)
    take = found.takes[0]
    assert [p.name for p in take.data[:2]] == ["joy_00.mc", "joy_00.xml"]
    # What a capture says depends on is named, so that a change is seen.
    assert take.data[-1].name == "eye_rotations_all.npz"
    np.testing.assert_array_equal(source.capture(take).skin[0:5], moving[0:5])


def test_silent_takes_are_taken_when_asked_for(tmp_path, head, make_actor):
    folder = actor(tmp_path / "ann", head, make_actor, shots=1)
    (folder / "audio" / "joy_00.wav").unlink()
    assert "--config.missing_audio=silence" in opened(folder)[1].rejected[0][1]
    take = opened(folder, SourceOptions(missing_audio="silence"))[1].takes[0]
    assert take.audio is None


@pytest.mark.parametrize("given", [True, False])
def test_without_shapes_a_template_of_the_same_topology_serves(tmp_path, head, make_actor, given):
    folder = actor(tmp_path / "ann", head, make_actor)
    template = tmp_path / "template.npz"
    (folder / "bs_data" / "bs_skin.npz").rename(template)
    if not given:
        (folder / "geom" / "skin" / "neutral_pose.npy").unlink()
        for path in (folder / "cache" / "skin").rglob("*.npy"):
            moving = np.load(path)
            moving[:6] = moving[-6:] = head.neutral  # as takes begin and end
            np.save(path, moving)
    options = SourceOptions(rig=str(template))
    source, found = opened(folder, options)
    assert found.files[-1] == template
    face = source.blendshapes("ann", "skin")
    assert face.channels == tuple(rig.ARKIT) and face.millimetres == 10.0
    np.testing.assert_allclose(face.neutral, head.neutral * 10, atol=0.01)
    vertices, _ = source.mesh("ann")
    assert vertices.shape == head.neutral.shape
    np.testing.assert_allclose(vertices * 10, face.neutral, atol=1e-3)
    assert opened(folder)[0].blendshapes("ann", "skin") is None


def test_pose_deltas_and_jaw_keypoints_are_checked(tmp_path, head, make_actor):
    folder = actor(tmp_path / "ann", head, make_actor, shots=1)
    source, found = opened(folder)
    take = found.takes[0]
    frames = len(source.capture(take).times)
    np.save(folder / "geom/skin/lip_open_pose_delta.npy", np.zeros((450, 3)))
    np.save(folder / "geom/skin/eye_close_pose_delta.npy", np.zeros((449, 3)))
    np.save(folder / "xform/jaw_keypoints_neutral.npy", np.zeros((5, 3)))
    jaw = folder / "xform/jaw_keypoints_cache_all.npz"
    np.savez(jaw, joy_00=np.zeros((frames, 5, 3)))
    (note,) = source.capture(take).notes
    assert note == "5 jaw keypoints agree in number of frames; the jaw is solved from the skin"
    wrong = [n for n in source.blendshapes("ann", "skin").notes if "a pose is" in n]
    assert len(wrong) == 1 and "eye_close_pose_delta.npy: 449 vertices, expected 450" in wrong[0]
    for shape in [(frames - 1, 5, 3), (frames, 4, 3), (frames, 15)]:
        np.savez(jaw, joy_00=np.zeros(shape))
        assert "not used" in source.capture(take).notes[0]
    jaw.write_bytes(jaw.read_bytes()[:100])
    assert "damaged" in source.capture(take).notes[0]


@pytest.mark.parametrize("wrong", ["frames", "angles", "inf", "text", "cut"])
def test_wrong_eye_rotations_name_the_take(tmp_path, head, make_actor, wrong):
    folder = actor(tmp_path / "ann", head, make_actor, shots=1)
    path = folder / "xform" / "eye_rotations_all.npz"
    with np.load(path) as data:
        angles = data["joy_00"]
    made = {
        "frames": angles[1:],
        "angles": angles[:, :, :1],
        "inf": angles + np.inf,
        "text": angles.astype(str),
        "cut": angles,
    }
    np.savez(path, joy_00=made[wrong])
    if wrong == "cut":
        path.write_bytes(path.read_bytes()[:80])
    source, found = opened(folder)
    with pytest.raises(InputError, match="eye_rotations_all.npz: ") as error:
        source.capture(found.takes[0])
    assert "\n" not in str(error.value)


def test_lost_eyes_are_noted(tmp_path, head, make_actor):
    folder = actor(tmp_path / "ann", head, make_actor, shots=1)
    path = folder / "xform" / "eye_rotations_all.npz"
    with np.load(path) as data:
        angles = data["joy_00"].astype(np.float64)
    angles[2:5, 1, 0] = np.nan
    np.savez(path, joy_00=angles)
    source, found = opened(folder)
    capture = source.capture(found.takes[0])
    assert np.isnan(capture.eyes).any(axis=1).sum() == 3
    assert f"3 of {len(angles)} frames without eye rotations" in capture.notes
    np.savez(path, joy_00=angles * np.nan)
    assert source.capture(found.takes[0]).eyes is None


def test_eyes_that_are_not_captured_are_not_observed(tmp_path, head, make_actor):
    folder = actor(tmp_path / "ann", head, make_actor, shots=1)
    (folder / "xform" / "eye_rotations_all.npz").unlink()
    source, found = opened(folder)
    capture = source.capture(found.takes[0])
    assert capture.eyes is None and capture.curves is None and capture.tongue is None


def test_a_damaged_list_of_shots_names_its_person(tmp_path, head, make_actor):
    folder = actor(tmp_path / "ann", head, make_actor, shots=1)
    for text in ("{", "[]", '{"fps": "fast"}', '{"shots": {"joy_00": 3}}'):
        (folder / "shots.json").write_text(text)
        _, found = opened(folder)
        assert "shots.json" in found.rejected[0][1] and not found.takes
    (folder / "shots.json").write_text(json.dumps({"fps": 60}))
    assert opened(folder)[1].takes
