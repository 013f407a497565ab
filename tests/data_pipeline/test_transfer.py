import time

import numpy as np
import pytest
from scipy.spatial.transform import Rotation

from a2fjax.errors import InputError
from data_pipeline.demo import expressions
from data_pipeline.demo import head as heads
from data_pipeline.mesh import rigs
from data_pipeline.mesh import transfer as module
from data_pipeline.mesh.rest import estimate_neutral
from data_pipeline.mesh.transfer import size_ratio, transfer


def people(count, seed=0):
    """(vertices, true shapes) in mm of heads that differ in proportions."""
    rng = np.random.default_rng(seed)
    found = [heads.make_head(rng.uniform(-1, 1, 8)) for _ in range(count)]
    return [(h.vertices * 10, expressions.skin_shapes(h) * 10) for h in found]


FACES = heads.make_head(np.zeros(8)).faces


def error(found, truth):
    """Root mean square, relative to the truth's."""
    return float(np.sqrt(np.square(found - truth).sum() / np.square(truth).sum()))


def test_a_head_on_itself_keeps_its_shapes():
    ((neutral, deltas),) = people(1)
    np.testing.assert_allclose(transfer(neutral, deltas, FACES, neutral), deltas, atol=1e-9)
    followed = transfer(neutral, deltas, FACES, neutral, follow=1.0)
    np.testing.assert_allclose(followed, deltas, atol=1e-9)


@pytest.mark.parametrize("faces", [FACES, FACES[:0]], ids=["faces", "points"])
def test_a_larger_head_moves_as_much_more(faces):
    ((neutral, deltas),) = people(1)
    found = transfer(neutral, deltas, faces, neutral * 1.3 + [5, -80, 3])
    np.testing.assert_allclose(found, 1.3 * deltas, atol=1e-8)


def test_gradients_follow_the_head_where_it_is_stretched(monkeypatch):
    """A shape that widens a patch by a fifth still does when the patch is half as wide again."""
    u, v = np.meshgrid(np.linspace(-1, 1, 21), np.linspace(-1, 1, 21), indexing="ij")
    neutral = np.stack([u.ravel(), v.ravel(), 0 * u.ravel()], axis=1) * 50
    at = np.arange(441).reshape(21, 21)
    corners = [x.ravel() for x in (at[:-1, :-1], at[1:, :-1], at[1:, 1:], at[:-1, 1:])]
    faces = np.concatenate([np.stack([corners[i] for i in t], 1) for t in ((0, 1, 2), (0, 2, 3))])
    widen = np.diag([0.2, 0.0, 0.0])
    subject = neutral * [1.5, 1.0, 1.0]
    deltas, truth = (neutral @ widen)[None], (subject @ widen)[None]
    scaled = error(deltas * size_ratio(neutral, subject), truth)
    assert error(transfer(neutral, deltas, faces, subject), truth) < 0.95 * scaled
    monkeypatch.setattr(module, "_REACH", 100.0)  # nothing but gradients
    assert error(transfer(neutral, deltas, faces, subject, follow=1.0), truth) < 0.001 < scaled


def test_what_a_shape_does_not_move_stays():
    (one, deltas), (two, _) = people(2)
    found = transfer(one, deltas, FACES, two)
    still = ~deltas.any(axis=2)
    assert still.any() and not found[still].any()


def test_shapes_are_nearer_to_the_persons_own_than_copies_and_scaled_ones():
    """True shapes of other heads: 12 pairs whose sizes differ as those of adults and children."""
    sizes = [0.85, 1.15, 1.0, 0.92]
    known = [(v * s, d * s) for (v, d), s in zip(people(4), sizes, strict=True)]
    copied, scaled, found = [], [], []
    for i, (neutral, deltas) in enumerate(known):
        for j, (subject, truth) in enumerate(known):
            if i != j:
                copied.append(error(deltas, truth))
                scaled.append(error(deltas * size_ratio(neutral, subject), truth))
                found.append(error(transfer(neutral, deltas, FACES, subject), truth))
    assert np.mean(found) < 0.65 * np.mean(copied)
    assert np.mean(found) < 0.99 * np.mean(scaled)
    assert (np.array(found) < copied).all()


def test_heads_of_one_size_get_shapes_no_worse_than_copies():
    """The demo's shapes keep their millimetres on every head, so that a copy is hard to beat."""
    known = people(4)
    copied, found = [], []
    for i, (neutral, deltas) in enumerate(known):
        for j, (subject, truth) in enumerate(known):
            if i != j:
                copied.append(error(deltas, truth))
                found.append(error(transfer(neutral, deltas, FACES, subject), truth))
    assert np.mean(found) < 1.03 * np.mean(copied)


def test_flat_triangles_and_loose_vertices_are_survived():
    (one, deltas), (two, _) = people(2)
    faces = np.concatenate([FACES[FACES[:, 0] != 7], [[3, 3, 4], [5, 6, 5]]])
    faces = faces[~(faces == 9).any(axis=1)]  # vertex 9 is in no triangle
    found = transfer(one, deltas, faces, two)
    assert np.isfinite(found).all()
    np.testing.assert_allclose(found[:, 9], deltas[:, 9] * size_ratio(one, two), atol=1e-9)


@pytest.mark.slow
def test_a_large_head_takes_seconds(shared):
    found = rigs.read_rig(shared / "ict" / "ict_facekit.npz")
    data = np.load(shared / "ict" / "ict_facekit.npz")
    weights = np.random.default_rng(0).normal(size=100)
    subject = found.neutral + np.tensordot(weights, data["identity_deltas"].astype(float), 1)
    begin = time.process_time()
    transfer(found.neutral * 10, found.deltas[:52] * 10, found.faces, subject * 10)
    assert time.process_time() - begin < 20.0


def performance(seed, share, frames=200, noise=0.1, runs=1):
    """(neutral, frames) in mm of a talking head that is at rest in a share of the frames."""
    rng = np.random.default_rng(seed)
    person = heads.make_head(rng.uniform(-1, 1, 8))
    times = np.arange(frames) / 60
    speed, phase = rng.uniform(0.5, 3, 52), rng.uniform(0, 6, 52)
    weights = np.clip(np.sin(2 * np.pi * speed * times[:, None] + phase), 0, 1)
    weights *= rng.uniform(0.1, 0.6, 52) * (rng.random(52) < 0.4)
    each = int(share * frames) // runs
    for run in range(runs):
        begin = run * frames // runs + rng.integers(0, frames // runs - each + 1)
        weights[begin : begin + each] = 0.0
    moved = np.tensordot(weights, expressions.skin_shapes(person), 1)
    turn = np.cumsum(rng.normal(size=(frames, 3)) * 0.005, axis=0) + rng.normal(size=3) * 0.1
    turned = Rotation.from_rotvec(turn).as_matrix()
    points = np.einsum("fij,fvj->fvi", turned, person.vertices + moved) + rng.normal(size=3) * 20
    return person.vertices * 10, points * 10 + rng.normal(size=points.shape) * noise


def distances(found, truth):
    a, b = found - found.mean(axis=0), truth - truth.mean(axis=0)
    turn, _ = Rotation.align_vectors(b, a)
    return np.linalg.norm(turn.apply(a) - b, axis=1)


TEMPLATE = heads.make_head(np.zeros(8)).vertices


@pytest.mark.parametrize(("share", "runs"), [(0.1, 1), (0.15, 4), (0.5, 2), (1.0, 1)])
def test_the_neutral_is_found_among_frames(share, runs):
    for seed in range(2):
        truth, frames = performance(seed, share, runs=runs)
        found = estimate_neutral(frames, TEMPLATE)
        assert distances(found, truth).max() < 0.3


def test_the_neutral_keeps_unit_and_axes_and_survives_gaps():
    truth, frames = performance(4, 0.15, noise=0.3)
    rng = np.random.default_rng(0)
    frames[rng.random(frames.shape[:2]) < 0.1] = np.nan
    frames[10:14] = np.inf
    frames[:, 17] = np.nan
    frames[3, 5], frames[20, 6] = 1e30, np.inf
    stray = rng.random(frames.shape[:2]) < 0.01
    frames[stray] += rng.normal(size=(stray.sum(), 3)) * 50
    z_up = np.array([[1.0, 0, 0], [0, 0, 1], [0, -1, 0]])
    with np.errstate(invalid="ignore"):
        capture = (frames @ z_up / 1000).astype(np.float32)
    found = estimate_neutral(capture, TEMPLATE)
    assert np.isnan(found).any(axis=1).nonzero()[0].tolist() == [17]
    keep = np.arange(len(truth)) != 17
    assert distances(found[keep] * 1000 @ z_up.T, truth[keep]).max() < 0.45  # 3 sigma of 30 frames
    assert np.sqrt(np.square(distances(found[keep] * 1000 @ z_up.T, truth[keep])).mean()) < 0.3


def test_a_head_between_two_axes_has_a_neutral():
    truth, frames = performance(6, 0.2)
    turned = frames @ Rotation.from_euler("y", 45, degrees=True).as_matrix()
    assert distances(estimate_neutral(turned, TEMPLATE), truth).max() < 0.3


def test_an_open_mouth_that_is_held_is_not_the_neutral():
    truth, frames = performance(5, 0.12)
    person = heads.make_head(np.random.default_rng(5).uniform(-1, 1, 8))
    shapes = expressions.skin_shapes(person) * 10
    gape = truth + 0.8 * shapes[24]
    held = gape + np.random.default_rng(0).normal(size=(40, *truth.shape)) * 0.1
    found = estimate_neutral(np.concatenate([frames, held]), TEMPLATE)
    assert distances(found, truth).max() < 0.3


def test_without_a_pose_that_is_held_there_is_no_neutral():
    for seed in range(2):
        _, frames = performance(seed, 0.0)
        with pytest.raises(InputError, match="ann: no pose is held in 16 of 200 frames"):
            estimate_neutral(frames, TEMPLATE, name="ann")
    with pytest.raises(InputError, match=r"frames of shape \(200, 400, 3\), expected"):
        estimate_neutral(frames[:, :400], TEMPLATE)
    with pytest.raises(InputError, match="no frame has half of its vertices"):
        estimate_neutral(frames * np.nan, TEMPLATE)
    with pytest.raises(InputError, match="N >= 1"):
        estimate_neutral(frames[:0], TEMPLATE)
