"""People without shapes of their own, built with a template rig: known weights come back."""

import numpy as np
import pytest
import soundfile
from array_record.python import array_record_module
from pxr import Usd, UsdGeom, Vt

from a2fjax import rig
from a2fjax.data import records
from data_pipeline.demo import expressions
from data_pipeline.demo import head as heads

FPS, RATE, SECONDS = 60, 16_000, 2.0
MOVING = ("jawOpen browInnerUp mouthSmileLeft mouthSmileRight eyeBlinkLeft noseSneerLeft").split()
COLUMNS = [rig.ARKIT.index(name) for name in MOVING]


def truth(at):
    """Weights [T, 52] of `MOVING` at times [T] in s: at rest for 0.4 s, then each at its pace."""
    weights = np.zeros((len(at), 52))
    late = np.maximum(at - 0.4, 0.0)[:, None]
    speed = np.linspace(0.7, 2.0, len(MOVING))
    weights[:, COLUMNS] = 0.35 * (1.0 - np.cos(2 * np.pi * speed * late))
    return weights


@pytest.fixture(scope="module")
def template(tmp_path_factory):
    """A template's head and a person's, each with shapes (cm), and the template's rig file."""
    head = heads.make_head(np.zeros(8))
    shapes = expressions.skin_shapes(head)
    path = tmp_path_factory.mktemp("template") / "template.npz"
    named = dict(zip(rig.ARKIT, shapes.astype(np.float32), strict=True))
    np.savez(path, poseNames=np.array(["neutral", *rig.ARKIT]), neutral=head.vertices, **named)
    return head, shapes, path


def write_speech(path):
    rng = np.random.default_rng(0)
    at = np.arange(round(SECONDS * RATE)) / RATE
    loud = truth(at)[:, rig.ARKIT.index("jawOpen")]
    noise = rng.normal(size=(2, len(at)))
    soundfile.write(path, 0.3 * loud**2 * noise[0] + 3e-4 * noise[1], RATE)


def z_up(points):
    """Returns points of cm with y up as a scanner gives them: in metres, z up."""
    return np.stack([points[..., 0], -points[..., 2], points[..., 1]], axis=-1) / 100.0


def errors(out, manifest):
    """Returns the RMSE of the moving channels and of all 52, of the only clip."""
    (shard,) = manifest.shards
    (record,) = array_record_module.ArrayRecordReader(str(out / shard.file)).read_all()
    clip = records.decode(record)
    assert clip.frame_mask.mean() > 0.95
    wrong = clip.motion[:, :52] - truth(np.arange(clip.frames) / rig.FPS)
    wrong = wrong[clip.frame_mask]
    return tuple(float(np.sqrt(np.square(x).mean())) for x in (wrong[:, COLUMNS], wrong))


def person(seed):
    """Another head of the same topology with its own shapes, in cm."""
    head = heads.make_head(0.8 * np.random.default_rng(seed).normal(size=8))
    return head, expressions.skin_shapes(head)


def test_a_usd_take_whose_neutral_is_estimated(tmp_path, template, run):
    """The template's own head in a scene with z up, in metres; nothing says what rest is."""
    head, shapes, path = template
    at = np.arange(round(SECONDS * FPS)) / FPS
    points = head.vertices + np.einsum("fk,kvi->fvi", truth(at), shapes)
    points += 0.002 * np.random.default_rng(1).normal(size=points.shape)
    points = z_up(points)
    folder = tmp_path / "set" / "anna"
    folder.mkdir(parents=True)
    stage = Usd.Stage.CreateNew(str(folder / "hello.usdc"))
    UsdGeom.SetStageUpAxis(stage, "Z")
    UsdGeom.SetStageMetersPerUnit(stage, 1.0)
    stage.SetTimeCodesPerSecond(FPS)
    mesh = UsdGeom.Mesh.Define(stage, "/face")
    mesh.CreateFaceVertexCountsAttr([3] * len(head.faces))
    mesh.CreateFaceVertexIndicesAttr(head.faces.reshape(-1).tolist())
    for n, frame in enumerate(points):
        mesh.GetPointsAttr().Set(Vt.Vec3fArray.FromNumpy(frame.astype(np.float32)), float(n))
    stage.GetRootLayer().Save()
    write_speech(folder / "hello.wav")
    out = tmp_path / "out"
    code, manifest, printed = run(tmp_path / "set", out, f"--config.rig={path}")
    assert code == 0, printed
    moving, every = errors(out, manifest)
    print(f"USD, neutral estimated: RMSE {moving:.4f} of what moves, {every:.4f} of all")
    assert moving <= 0.02 and every <= 0.02
    assert any("neutral mesh: estimated from" in note for note in manifest.source["notes"]["anna"])


@pytest.mark.parametrize("same", [True, False])
def test_a_template_on_a_neutral_in_other_units_and_axes(tmp_path, template, run, same):
    """Vertices and neutral in metres, z up; the head is the template's, or another's."""
    head, shapes, path = template
    if not same:
        head, shapes = person(3)
    at = np.arange(round(SECONDS * FPS)) / FPS
    points = head.vertices + np.einsum("fk,kvi->fvi", truth(at), shapes)
    points += 0.002 * np.random.default_rng(1).normal(size=points.shape)

    folder = tmp_path / "set" / "ben"
    folder.mkdir(parents=True)
    np.savez(folder / "hello.npz", vertices=z_up(points).astype(np.float32), fps=FPS)
    np.save(folder / "neutral.npy", z_up(head.vertices).astype(np.float32))
    write_speech(folder / "hello.wav")
    out = tmp_path / "out"
    code, manifest, printed = run(tmp_path / "set", out, f"--config.rig={path}")
    assert code == 0, printed
    moving, every = errors(out, manifest)
    print(f"template, {'same' if same else 'other'} head: RMSE {moving:.4f}, {every:.4f} of all")
    # Another head's own shapes differ from those that are carried over to it: 0.029 and 0.042.
    assert moving <= (0.02 if same else 0.04) and every <= (0.02 if same else 0.05)
    notes = " ".join(manifest.source["notes"]["ben"])
    assert "axes: +x+z-y, unit: m" in notes
    vertices, _ = records.read_mesh(out / "subjects/ben.npz")
    size = np.ptp(head.vertices, axis=0) / 100.0  # the set's mesh: their unit, the rig's axes
    # It lies as the template does, so another head is turned by a little.
    np.testing.assert_allclose(np.ptp(vertices, axis=0), size, rtol=1e-4 if same else 5e-3)
