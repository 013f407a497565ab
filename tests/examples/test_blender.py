"""The Blender script in Blender: PyPI's `bpy`, here or in the Python of A2F_BLENDER_PYTHON."""

import importlib.util
import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from a2fjax import rig
from a2fjax.api.motion import Motion

EXAMPLES = Path(__file__).parents[2] / "examples"

CHECK = """
import json, sys
sys.path.insert(0, sys.argv[1])
import blender_import, bpy

def curves(keys):
    bag = keys.animation_data.action.layers[0].strips[0].channelbags[0]
    found = {}
    for curve in bag.fcurves:
        block = keys.path_resolve(curve.data_path.rpartition(".")[0])
        found[block.name] = [[p.co[0], p.co[1]] for p in curve.keyframe_points]
    return found

folder, sound = sys.argv[2], sys.argv[3]
bpy.ops.wm.read_factory_settings(use_empty=True)
scene = bpy.context.scene
scene.render.fps, scene.render.fps_base = 30, 1.0
blender_import.main([folder + "/x.glb", "--sound", sound])
mesh = blender_import.mesh_with_shape_keys()
out = {"start": scene.frame_start, "glb": curves(mesh.data.shape_keys)}
blender_import.main([folder + "/x.channels.csv", "--object", mesh.name])
out["channels"] = curves(mesh.data.shape_keys)
for block in mesh.data.shape_keys.key_blocks:
    block.value = 0.0  # what the last animation left, where the next has no curve
blender_import.main([folder + "/x.csv", "--fps", "60"])
out["livelink"] = curves(mesh.data.shape_keys)
scene.frame_set(scene.frame_start + 12)
depsgraph = bpy.context.evaluated_depsgraph_get()
shape = mesh.evaluated_get(depsgraph).to_mesh()
out["vertices"] = [list(mesh.matrix_world @ v.co) for v in shape.vertices]
out["sounds"] = [[s.name, s.frame_final_start] for s in scene.sequence_editor.strips]
print("FOUND" + json.dumps(out))
"""


@pytest.fixture(scope="module")
def blender():
    python = os.environ.get("A2F_BLENDER_PYTHON")
    if python is None and importlib.util.find_spec("bpy") is None:
        pytest.skip("needs bpy (pip install bpy==5.0.1, Python 3.11), or A2F_BLENDER_PYTHON")
    return python or sys.executable


@pytest.mark.slow
def test_blenders_curves_are_the_files(tmp_path, blender):
    from a2fjax import head_shapes
    from a2fjax.audio import io

    drawn = np.random.default_rng(0).random((61, 72)).astype(np.float32)
    drawn[:, rig.ANGLE_CHANNELS] = 0
    motion = Motion(drawn, 60)
    io.save(tmp_path / "in.wav", np.zeros(16_000, np.float32))
    for name in ("x.glb", "x.channels.csv", "x.csv"):
        motion.save(tmp_path / name)
    done = subprocess.run(
        [blender, "-c", CHECK, str(EXAMPLES), str(tmp_path), str(tmp_path / "in.wav")],
        capture_output=True, text=True, env={**os.environ, "PYTHONPATH": ""},
    )  # fmt: skip
    line = next((x for x in done.stdout.splitlines() if x.startswith("FOUND")), None)
    assert line is not None, done.stdout[-2000:] + done.stderr[-2000:]
    found = json.loads(line.removeprefix("FOUND"))
    expected = {"glb": rig.CHANNELS[:68], "channels": rig.CHANNELS[:68], "livelink": rig.ARKIT}
    for key, names in expected.items():
        assert set(found[key]) == set(names), key
        for name in names:
            frames, values = np.array(found[key][name]).T
            np.testing.assert_allclose(values, drawn[:, rig.INDEX[name]], atol=1e-6)
            # Blender's importer of GLB chooses its own first frame.
            first = frames[0] if key == "glb" else found["start"]
            np.testing.assert_allclose(frames, first + np.arange(61) / 2, atol=1e-5)
    # Live Link's curves now drive the mesh: frame 12 at 30 a second is row 24 at 60.
    head = head_shapes.load_head(None)
    weights = drawn[24].copy()
    weights[len(rig.ARKIT) :] = 0
    face = (head.part.neutral + np.tensordot(weights, head.part.shapes, 1)) * head.metres
    shown = np.array(found["vertices"])[:, [0, 2, 1]] * [1, 1, -1]  # Blender: z up, y away
    np.testing.assert_allclose(shown, face, atol=1e-5)
    assert found["sounds"] == [["voice", found["start"]]]
