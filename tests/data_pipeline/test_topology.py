"""Takes that do not fit the mesh they are solved against are refused before they are solved."""

import dataclasses
import json

import numpy as np
import pytest
import soundfile
from pxr import Usd, UsdGeom, Vt
from scipy.spatial.transform import Rotation

from a2fjax import rig
from a2fjax.errors import InputError
from data_pipeline import sources
from data_pipeline.demo import expressions
from data_pipeline.demo import head as heads
from data_pipeline.mesh import conventions, geometry, topology
from data_pipeline.settings import read_settings
from data_pipeline.sources import SourceOptions
from data_pipeline.stages import face_part, solve_take


@dataclasses.dataclass(frozen=True)
class Face:
    neutral: np.ndarray  # mm
    deltas: np.ndarray
    stable: np.ndarray


@pytest.fixture(scope="module")
def face():
    head = heads.make_head(np.array([0.4, -0.3, 0.5, 0.2, -0.4, 0.3, 0.1, 0.0]))
    deltas = 10 * expressions.skin_shapes(head)
    neutral = 10 * head.vertices
    return Face(neutral, deltas, geometry.stable_vertices(neutral, deltas))


@pytest.fixture(scope="module")
def talk(face):
    """Frames [24, V, 3] in mm of a turning, noisy head that is never at rest."""
    rng = np.random.default_rng(0)
    weights = rng.uniform(0.1, 0.6, (24, 52))
    frames = face.neutral + np.einsum("fk,kvi->fvi", weights, face.deltas)
    turns = Rotation.from_euler("xyz", rng.uniform(-20, 20, (24, 3)), degrees=True).as_matrix()
    return np.matmul(frames, turns) + rng.normal(scale=0.2, size=frames.shape) + [5.0, 900.0, 3.0]


def check(face, frames, *, scale=1.0, axes="+x+y+z", **more):
    topology.check_frames(
        frames, face.neutral, face.deltas, keep=np.arange(len(face.neutral)), stable=face.stable,
        scale=scale, axes=conventions.parse_axes(axes), name="take.npy", **more,
    )  # fmt: skip


def exchanged(count, share, seed=0):
    """Returns an order in which a share of the vertices are exchanged, and how many."""
    rng = np.random.default_rng(seed)
    order = np.arange(count)
    chosen = rng.choice(count, round(count * share), replace=False)
    order[chosen] = np.roll(chosen, 1)
    return order, len(chosen)


def test_right_takes_are_not_refused(face, talk):
    rng = np.random.default_rng(1)
    check(face, talk)
    check(face, talk / 10, scale=10.0)
    check(face, talk[:1])
    z_up = conventions.parse_axes("+x+z-y")
    check(face, talk @ z_up)  # a rotation is the head's pose
    missing = talk.copy()
    missing[rng.uniform(size=talk.shape[:2]) < 0.3] = np.nan
    check(face, missing)
    spikes = talk.copy()
    where = rng.uniform(size=talk.shape[:2]) < 0.2
    spikes[where] += rng.normal(scale=40.0, size=(where.sum(), 3))
    check(face, spikes)
    held = talk.copy()
    held[:] = face.neutral + face.deltas[rig.ARKIT.index("jawOpen")]
    check(face, held)
    for other in range(3):  # someone else's head in this topology is for the residual to judge
        head = heads.make_head(np.random.default_rng(other).uniform(-1, 1, 8))
        check(face, np.repeat(10 * head.vertices[None], 4, axis=0))
    check(face, talk * np.nan)  # nothing to compare: reported where frames are read
    check(face, talk[:, :9])


@pytest.mark.parametrize("said", ["mm", "cm", "m"])
@pytest.mark.parametrize("true", ["mm", "cm", "m"])
def test_a_wrong_unit_is_named_with_its_factor(face, talk, said, true):
    frames = talk / conventions.MILLIMETRES[true]
    scale = conventions.MILLIMETRES[said]
    if said == true:
        check(face, frames, scale=scale)
        return
    with pytest.raises(InputError, match=f"take.npy: in {said} its vertices are") as error:
        check(face, frames, scale=scale)
    assert f"look like {true}; give --config.units={true}" in str(error.value)
    factor = float(str(error.value).split(" are ")[1].split()[0])
    assert factor == pytest.approx(scale / conventions.MILLIMETRES[true], rel=0.2)


def test_a_unit_without_a_name(face, talk):
    with pytest.raises(InputError, match="in units of 25.4 mm its vertices are .*look like mm"):
        check(face, talk, scale=25.4)
    with pytest.raises(InputError, match=r"are 1\.\d+ times .*another unit, or another mesh"):
        check(face, talk * 1.3)
    check(face, talk * 1.2, size_limit=2.0)  # a tongue stretches


@pytest.mark.parametrize("axes", ["-x+y+z", "+x-y+z", "+x+y-z", "+y+x+z"])
def test_a_mirror_image_is_refused_and_the_setting_repairs_it(face, talk, axes):
    frames = talk @ conventions.parse_axes(axes)
    with pytest.raises(InputError, match=r"mirror image .* give --config.axes=-x\+y\+z"):
        check(face, frames)
    check(face, frames, axes="-x+y+z")


@pytest.mark.parametrize("shift", [1, -1, 7, 200])
def test_a_shifted_order_is_named(face, talk, shift):
    with pytest.raises(InputError, match=f"all 422 vertices .*shifted by {shift}"):
        check(face, np.roll(talk, shift, axis=1))


@pytest.mark.parametrize("share", [0.03, 0.1, 0.3, 0.6, 1.0])
def test_exchanged_vertices_are_counted(face, talk, share):
    order, count = exchanged(len(face.neutral), share)
    with pytest.raises(InputError, match=r"\d+ of 422 vertices are in another order") as error:
        check(face, talk[:, order])
    found = int(str(error.value).split(": ")[1].split()[0])
    assert 0.6 * count <= found <= 1.05 * count


# -- every layout ---------------------------------------------------------------------------------


def write_nvidia(folder, frames):
    (folder / "audio").mkdir(parents=True)
    (folder / "bs_data").mkdir()
    (folder / "cache/skin").mkdir(parents=True)
    np.save(folder / "cache/skin/t.npy", frames)
    soundfile.write(folder / "audio/t.wav", np.zeros(1600), 16_000)
    return folder / "bs_data/bs_skin.npz"


def write_vertices(folder, frames):
    folder.mkdir(parents=True)
    np.save(folder / "t.npy", frames)
    soundfile.write(folder / "t.wav", np.zeros(1600), 16_000)
    return folder / "rig.npz"


def write_meshes(folder, frames):
    (folder / "t").mkdir(parents=True)
    for number, points in enumerate(frames):
        lines = "".join(f"v {x} {y} {z}\n" for x, y, z in points)
        (folder / f"t/{number}.obj").write_text(lines + "f 1 2 3\n")
    soundfile.write(folder / "t.wav", np.zeros(1600), 16_000)
    return folder / "rig.npz"


def write_usd(folder, frames, unit=None):
    folder.mkdir(parents=True)
    stage = Usd.Stage.CreateNew(str(folder / "t.usda"))
    UsdGeom.SetStageUpAxis(stage, "Y")
    if unit:
        UsdGeom.SetStageMetersPerUnit(stage, unit)
    points = UsdGeom.Mesh.Define(stage, "/head").CreatePointsAttr()
    for code, each in enumerate(frames):
        points.Set(Vt.Vec3fArray.FromNumpy(each.astype(np.float32)), code)
    stage.GetRootLayer().Save()
    soundfile.write(folder / "t.wav", np.zeros(1600), 16_000)
    return folder / "rig.npz"


def opened(tmp_path, face, frames, write=write_vertices, rig_unit="cm", **options):
    """Returns (source, actor) of one take beside the person's rig in this unit."""
    path = write(tmp_path / "ann", frames)
    size = conventions.MILLIMETRES[rig_unit]
    named = dict(zip(rig.ARKIT, face.deltas / size, strict=True))
    np.savez(path, poseNames=np.array(rig.ARKIT), neutral=face.neutral / size, **named)
    source, _ = sources.open_source(tmp_path / "ann", "auto", SourceOptions(fps=60, **options))
    (actor,) = source.actors()
    return source, actor


def refusal(source, actor):
    part = face_part.prepare_part(source.blendshapes(actor.name, "skin"), "skin", 2.0)
    with pytest.raises(InputError) as error:
        solve_take.solve_take(
            source, actor.takes[0], read_settings({"fps": "60"}), {"skin": part, "tongue": None}
        )
    return str(error.value)


@pytest.mark.parametrize("write", [write_nvidia, write_vertices, write_meshes, write_usd])
def test_every_layout_refuses_before_it_solves(tmp_path, face, talk, write, monkeypatch):
    monkeypatch.setattr(solve_take, "_loudness_and_clicks", None)  # not reached
    frames = (talk[:6] / 10).astype(np.float32)
    order, _ = exchanged(len(face.neutral), 0.1)
    for name, changed, words in (
        ("order", frames[:, order], "vertices are in another order"),
        ("mirror", frames * np.float32([-1, 1, 1]), "mirror image"),
        ("unit", frames / 100, "look like m; give --config.units=m"),
    ):
        source, actor = opened(tmp_path / name, face, changed, write)
        said = refusal(source, actor)
        assert words in said and "/t" in said.replace("\\", "/")


def fits(source, actor):
    """Checks the take as the build does; returns the blendshapes."""
    shapes = source.blendshapes(actor.name, "skin")
    capture = source.capture(actor.takes[0])
    topology.check_frames(
        capture.skin, shapes.neutral, shapes.deltas, keep=shapes.keep,
        stable=geometry.stable_vertices(shapes.neutral, shapes.deltas),
        scale=capture.millimetres or shapes.millimetres,
        axes=shapes.axes if capture.axes is None else capture.axes, name="t",
    )  # fmt: skip
    return shapes


@pytest.mark.parametrize("rig_unit", ["mm", "cm", "m"])
@pytest.mark.parametrize("unit", [0.001, 0.01, 1.0, 0.0254])
def test_an_own_rig_is_the_neutral_whatever_unit_a_file_states(
    tmp_path, face, talk, rig_unit, unit
):
    """Also where the take is never at rest, so that no neutral could be estimated from it."""

    def write(folder, frames):
        return write_usd(folder, frames / (1000 * unit), unit)

    source, actor = opened(tmp_path, face, talk[:4], write, rig_unit)
    shapes = fits(source, actor)
    np.testing.assert_allclose(shapes.neutral, face.neutral, atol=1e-3)
    assert not shapes.transferred
    notes = " / ".join(shapes.notes)
    assert "skin: neutral mesh: that of" in notes and "the person's own rig" in notes
    assert "stated by the take's file" in notes and f"unit of the rig: {rig_unit}" in notes
    assert "topology: 422 vertices" in notes and "axes" in notes


def test_a_setting_counts_before_what_a_file_states(tmp_path, face, talk):
    """Centimetres in a file that says metres, as Blender's defaults write them."""

    def write(folder, frames):
        return write_usd(folder, frames, 1.0)

    wrong, actor = opened(tmp_path / "a", face, talk[:4] / 10, write)
    assert "in m its vertices" in refusal(wrong, actor)
    assert "give --config.units=cm" in refusal(wrong, actor)
    right, actor = opened(tmp_path / "b", face, talk[:4] / 10, write, units="cm")
    shapes = fits(right, actor)
    assert any("cm, given by --config.units" in note for note in shapes.notes)
    mirrored = talk[:4] / 1000 * [-1, 1, 1]
    wrong, actor = opened(tmp_path / "c", face, mirrored, write)
    assert "give --config.axes=-x+y+z" in refusal(wrong, actor)
    fits(*opened(tmp_path / "d", face, mirrored, write, axes="-x+y+z"))


def test_takes_in_another_unit_than_the_rig(tmp_path, face, talk):
    """The refusal says which setting to give, and with it the take is right."""
    source, actor = opened(tmp_path / "a", face, talk[:4] / 1000)
    assert "give --config.units=m" in refusal(source, actor)
    shapes = fits(*opened(tmp_path / "b", face, talk[:4] / 1000, units="m"))
    np.testing.assert_allclose(shapes.neutral, face.neutral, atol=1e-6)
    source, actor = opened(tmp_path / "c", face, talk[:4] / 10)
    (tmp_path / "c/ann/shots.json").write_text(json.dumps({"units": "mm"}))
    assert "in mm its vertices are 0.1" in refusal(source, actor)


def test_a_file_of_the_neutral_counts_before_the_rig(tmp_path, face, talk):
    """In all layouts; the shapes are carried over to it."""
    pose = face.neutral + 0.2 * face.deltas[rig.ARKIT.index("jawOpen")]
    for write, name in (
        (write_vertices, "neutral.npy"),
        (write_nvidia, "geom/skin/neutral_pose.npy"),
    ):
        folder = tmp_path / write.__name__
        _, actor = opened(folder, face, talk[:4] / 10, write)
        path = folder / "ann" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        np.save(path, pose / 10)
        shapes = sources.open_source(folder / "ann", "auto", SourceOptions(fps=60))[0].blendshapes(
            actor.name, "skin"
        )
        assert shapes.transferred and any(path.name in note for note in shapes.notes)
        assert np.median(np.linalg.norm(shapes.neutral - pose, axis=1)) < 2.0


def test_an_estimate_leaves_out_takes_that_do_not_fit(tmp_path, face):
    """A shuffled, a mirrored and a differently scaled take among right ones."""
    rng = np.random.default_rng(3)
    other = heads.make_head(np.random.default_rng(5).uniform(-0.5, 0.5, 8))
    neutral, deltas = other.vertices, expressions.skin_shapes(other)
    order, _ = exchanged(len(neutral), 0.3)
    neutrals = []
    for spoilt in (False, True):
        folder = tmp_path / f"in{spoilt}"
        folder.mkdir()
        for n in range(6 if spoilt else 4):
            weights = rng.uniform(0, 0.6, (40, 52))
            weights[:8] = weights[-8:] = 0.0
            frames = neutral + np.einsum("fk,kvi->fvi", weights, deltas)
            frames = frames[:, order] if n == 4 else frames * [-1, 1, 1] if n == 5 else frames
            np.save(folder / f"t{n}.npy", frames.astype(np.float32))
            soundfile.write(folder / f"t{n}.wav", np.zeros(1600), 16_000)
        named = dict(zip(rig.ARKIT, face.deltas / 10, strict=True))
        template = tmp_path / "template.npz"
        np.savez(template, poseNames=np.array(rig.ARKIT), neutral=face.neutral / 10, **named)
        options = SourceOptions(fps=60, rig=str(template))
        source, _ = sources.open_source(folder, "auto", options)
        shapes = source.blendshapes(folder.name, "skin")
        assert any("estimated from the takes' frames at rest" in note for note in shapes.notes)
        neutrals.append(shapes.neutral)
    np.testing.assert_allclose(neutrals[0], neutrals[1], atol=0.5)
