"""LVE in its four definitions and FDD of vertices, against loops and torchmetrics."""

import dataclasses
import math
import os
import statistics
from pathlib import Path

import numpy as np
import pytest

from a2fjax import head_shapes, rig
from a2fjax.errors import InputError
from a2fjax.metrics import face, suite
from a2fjax.metrics.reference import reference

ICT = Path(os.environ.get("A2FJAX_SHARED_DATA", Path(__file__).parents[3] / "shared/data")) / "ict"


@pytest.fixture(scope="module")
def head():
    rng = np.random.default_rng(0)
    shapes = rng.standard_normal((2, 72, 7, 3))
    shapes[:, 68:] = 0.0
    return face.Face(shapes[0], shapes[1])


def clip(motion, head, **changes):
    frames = len(motion)
    given = {"channel_mask": np.ones(72, bool), "frame_mask": np.ones(frames, bool)} | changes
    truth = reference(motion, np.zeros(frames * 320), speech_level=0.1, **given)
    return dataclasses.replace(truth, face=head)


def measured(*clips):
    parts = [("a", suite.sums(prediction, truth)) for prediction, truth in clips]
    got = suite.values(suite.merge_clips(parts))
    return {k: float(v) for k, v in got.items() if k.startswith(("lve", "fdd_v"))}


def moved(shapes, motion):
    return np.einsum("tc,cvx->tvx", motion[:, :68], shapes[:68])


def test_the_definitions_are_their_loops(head):
    rng = np.random.default_rng(1)
    clips, frames, means, fdd = [], [], [], []
    for count in (20, 45):
        p, g = rng.random((2, count, 72))
        clips.append((p, clip(g, head)))
        own = []
        for a, b in zip(moved(head.lips, p), moved(head.lips, g), strict=True):
            own.append(max(math.dist(x, y) for x, y in zip(a, b, strict=True)))
        frames += own
        means.append(statistics.fmean(own))
        spread = [
            [statistics.pstdev(np.linalg.norm(v, axis=1) ** 2) for v in x.transpose(1, 0, 2)]
            for x in (moved(head.upper, g), moved(head.upper, p))
        ]
        fdd.append(statistics.fmean(spread[0]) - statistics.fmean(spread[1]))
    got = measured(*clips)
    assert got["lve_squared"] == pytest.approx(statistics.fmean(d * d for d in frames), abs=1e-9)
    assert got["lve_max"] == pytest.approx(statistics.fmean(frames), abs=1e-9)
    assert got["lve_clip"] == pytest.approx(statistics.fmean(means), abs=1e-9)
    assert got["lve_rms"] == pytest.approx(math.sqrt(got["lve_squared"]), abs=1e-9)
    assert got["fdd_vertices_signed"] == pytest.approx(statistics.fmean(fdd), abs=1e-9)
    assert got["fdd_vertices_abs"] == pytest.approx(statistics.fmean(map(abs, fdd)), abs=1e-9)
    assert got["lve_max"] != pytest.approx(got["lve_clip"], abs=1e-3)


def test_torchmetrics_has_the_same_lve(head):
    torch = pytest.importorskip("torch", reason="needs the extra `torch`")
    functional = pytest.importorskip(
        "torchmetrics.functional.multimodal", reason="needs the extra `torch`"
    )
    rng = np.random.default_rng(2)
    p, g = rng.random((2, 60, 72))
    points = [torch.from_numpy(moved(head.lips, x)) for x in (p, g)]
    expected = float(functional.lip_vertex_error(*points, mouth_map=list(range(7))))
    assert measured((p, clip(g, head)))["lve_squared"] == pytest.approx(expected, rel=1e-9)


def test_a_known_displacement_has_its_length(head):
    lips = np.zeros((72, 2, 3))
    lips[rig.INDEX["jawOpen"], 1] = [0.0, -30.0, 40.0]
    own = face.Face(lips, lips)
    motion = np.zeros((10, 72))
    motion[:, rig.INDEX["jawOpen"]] = 0.1
    got = measured((motion, clip(0 * motion, own)))
    assert got["lve_max"] == got["lve_clip"] == got["lve_rms"] == pytest.approx(5.0)
    assert got["lve_squared"] == pytest.approx(25.0)
    copy = measured((motion, clip(motion, own)))
    assert all(value == 0 for value in copy.values())


def test_masked_frames_and_channels_add_nothing(head):
    rng = np.random.default_rng(3)
    p, g = rng.random((2, 40, 72))
    frames, channels = np.ones(40, bool), np.ones(72, bool)
    frames[5:9], channels[10:20] = False, False
    truth = clip(g, head, frame_mask=frames, channel_mask=channels)
    spoiled = p.copy()
    spoiled[5:9], spoiled[:, 10:20] = 9.0, -3.0
    spoiled[:, 68:] = 44.0
    assert measured((spoiled, truth)) == measured((p, truth))
    for nothing in (
        clip(g, None),
        clip(g, head, frame_mask=np.zeros(40, bool)),
        clip(g, head, channel_mask=np.zeros(72, bool)),
    ):
        assert all(np.isnan(value) for value in measured((p, nothing)).values())


def test_distances_in_parts_are_those_of_the_whole(head, monkeypatch):
    rng = np.random.default_rng(4)
    p, g = rng.random((2, 50, 72))
    whole = measured((p, clip(g, head)))
    monkeypatch.setattr(face, "_BLOCK", 7)
    assert measured((p, clip(g, head))) == pytest.approx(whole)


def write(path, **changes):
    rng = np.random.default_rng(5)
    names = ["mouthPucker", "mouthFunnel", "jawOpen", "browInnerUp", "eyeBlinkLeft"]
    deltas = np.zeros((5, 30, 3))
    deltas[:2, :4, 2] = 0.5  # Four lip vertices.
    deltas[0, 4, 2] = 0.1
    deltas[2, :15, 1] = -1.0
    deltas[3:, 20:26, 1] = 0.3
    neutral = rng.uniform(-10, 10, (30, 3))
    np.savez(path, **({"neutral": neutral, "names": names, "deltas": deltas} | changes))
    return path


def test_lips_and_upper_face_are_found_in_millimetres(tmp_path):
    own = face.read(write(tmp_path / "head.npz"))
    assert own.lips.shape == (72, 4, 3) and own.upper.shape == (72, 6, 3)
    assert own.lips[rig.INDEX["mouthPucker"], 0, 2] == pytest.approx(5.0), "the head is in cm"
    assert own.lips[rig.INDEX["jawOpen"], 0, 1] == pytest.approx(-10.0)
    given = write(
        tmp_path / "b.npz", lips=np.array([1, 20]), upper_face=np.arange(30) > 27, unit="mm"
    )
    own = face.read(given)
    assert own.lips.shape == (72, 2, 3) and own.upper.shape == (72, 2, 3)
    assert own.lips[rig.INDEX["mouthPucker"], 0, 2] == pytest.approx(0.5)
    assert own.fingerprint != face.read(tmp_path / "head.npz").fingerprint


@pytest.mark.parametrize(
    "changes, says",
    [
        ({"unit": "inch"}, "unit 'inch'; expected one of: mm, cm, m"),
        ({"neutral": np.zeros((30, 3))}, "the head is 0 across"),
        ({"lips": np.array([40])}, "lips names vertices that are not among the 30"),
        ({"names": ["jawLeft", "jawRight", "jawOpen", "browInnerUp", "eyeBlinkLeft"]}, "'lips'"),
        ({"names": ["mouthPuker", "mouthFunnel", "jawOpen", "browInnerUp", "a"]}, "mouthPucker"),
    ],
)
def test_a_head_that_does_not_fit_is_one_line(tmp_path, changes, says):
    with pytest.raises(InputError) as caught:
        face.read(write(tmp_path / "head.npz", **changes))
    assert says in str(caught.value) and "head.npz" in str(caught.value)


def test_the_lips_of_ict_facekit_are_its_lips():
    path = ICT / "ict_lite.npz"
    if not path.is_file():
        pytest.skip("no shared heads")
    own = face.read(path)
    _, head = head_shapes.read(path, "--face")
    jaw = 10 * head.shapes[rig.INDEX["jawOpen"]]
    lips = (np.abs(own.lips[rig.INDEX["jawOpen"]][:, None] - jaw) < 1e-6).all(2)
    points = head.neutral[lips.any(0) & (jaw != 0).any(1)]
    with np.load(path) as data:
        mouth = head.neutral[data["landmark68"][48:]]
    assert 100 < own.lips.shape[1] <= 500
    width = np.ptp(mouth[:, 0])
    middle = mouth.mean(0)
    # Within a mouth's width of its middle, on both sides and both lips.
    assert (np.abs(points[:, :2] - middle[:2]) < 0.8 * width).all()
    for axis in (0, 1):
        assert points[:, axis].min() < middle[axis] < points[:, axis].max()
    nearest = np.linalg.norm(points[:, None] - mouth, axis=2).min(0)
    assert np.median(nearest) < 0.1 * width
