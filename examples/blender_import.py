"""Loads curves or a scene that a2fjax wrote into Blender.

    blender head.blend --python blender_import.py -- face.channels.csv --object Head --sound in.wav
    blender head.blend --python blender_import.py -- face.csv --fps 60
    blender --python blender_import.py -- face.glb --sound in.wav

A `.channels.csv` has a column of times and one a channel; a Live Link Face `.csv` has timecodes and
needs the rate it was written with. Each column becomes the F-curve of the shape key with its name,
in any case, of one mesh. Times become frames at the scene's rate, and may lie between frames. A
`.glb` brings its own head, shape keys and animation. Run with Blender 5.0; needs nothing else.
"""

import argparse
import csv
import pathlib
import sys

import bpy


def read_csv(path, fps=None):
    """Returns (times in seconds, {column: values}) of a file of curves.

    Args:
      path: a `.channels.csv`, or a Live Link Face `.csv`.
      fps: frames a second of a Live Link Face file, which does not state them.
    """
    with open(path, newline="", encoding="utf-8") as file:
        header, *rows = list(csv.reader(file))
    if header[0] == "time":
        times = [float(row[0]) for row in rows]
        first = 1
    elif header[0] == "Timecode":
        if not fps:
            raise SystemExit(f"{path}: a Live Link Face file needs --fps, such as 60")
        times = [number / fps for number in range(len(rows))]
        first = 2
    else:
        raise SystemExit(f"{path}: first column is {header[0]!r}, expected time or Timecode")
    columns = zip(*rows, strict=True)
    values = dict(zip(header, columns, strict=True))
    return times, {name: [float(v) for v in values[name]] for name in header[first:]}


def mesh_with_shape_keys(name=None):
    """Returns the mesh object of that name, or the only one with shape keys."""
    found = [
        each
        for each in bpy.data.objects
        if each.type == "MESH" and each.data.shape_keys and name in (None, each.name)
    ]
    if len(found) != 1:
        names = ", ".join(each.name for each in found) or "none"
        raise SystemExit(f"expected one mesh with shape keys, found {names}: give --object")
    return found[0]


def curves_of(keys):
    """Returns the collection of F-curves of a mesh's shape keys; makes an empty action."""
    keys.animation_data_clear()
    animation = keys.animation_data_create()
    action = animation.action = bpy.data.actions.new("face")
    slot = animation.action_slot = action.slots.new(keys.id_type, keys.name)
    strip = action.layers.new("face").strips.new(type="KEYFRAME")
    return strip.channelbag(slot, ensure=True).fcurves


def import_csv(path, mesh, fps=None):
    """Writes the curves of a file to the shape keys of a mesh; returns the columns without one.

    Args:
      path: see `read_csv`.
      mesh: object with shape keys.
      fps: see `read_csv`.
    """
    times, values = read_csv(path, fps)
    scene, keys = bpy.context.scene, mesh.data.shape_keys
    rate = scene.render.fps / scene.render.fps_base
    frames = [scene.frame_start + time * rate for time in times]
    blocks = {block.name.lower(): block for block in keys.key_blocks}
    fcurves, absent = curves_of(keys), []
    for name, column in values.items():
        block = blocks.get(name.lower())
        if block is None:
            absent.append(name)
            continue
        curve = fcurves.new(block.path_from_id("value"))
        curve.keyframe_points.add(len(frames))
        flat = [number for pair in zip(frames, column, strict=True) for number in pair]
        curve.keyframe_points.foreach_set("co", flat)
        linear = bpy.types.Keyframe.bl_rna.properties["interpolation"].enum_items["LINEAR"].value
        curve.keyframe_points.foreach_set("interpolation", [linear] * len(frames))
        curve.update()
    scene.frame_end = max(scene.frame_end, round(frames[-1]))
    return absent


def add_sound(path):
    """Puts a sound at the first frame."""
    scene = bpy.context.scene
    editor = scene.sequence_editor or scene.sequence_editor_create()
    editor.strips.new_sound("voice", str(pathlib.Path(path).resolve()), 1, scene.frame_start)


def main(words):
    """Imports what the command line names."""
    parser = argparse.ArgumentParser(prog="blender_import.py")
    parser.add_argument("file", help=".channels.csv, Live Link Face .csv, or .glb")
    parser.add_argument("--object", help="mesh with the shape keys, if there are several")
    parser.add_argument("--fps", type=float, help="of a Live Link Face file")
    parser.add_argument("--sound", help="sound to put beside the curves")
    parser.add_argument("--save", help=".blend to write")
    args = parser.parse_args(words)
    if args.file.lower().endswith(".glb"):
        bpy.ops.import_scene.gltf(filepath=args.file)
    else:
        absent = import_csv(args.file, mesh_with_shape_keys(args.object), args.fps)
        print(f"{args.file}: columns without a shape key: {', '.join(absent) or 'none'}")
    if args.sound:
        add_sound(args.sound)
    if args.save:
        bpy.ops.wm.save_as_mainfile(filepath=str(pathlib.Path(args.save).resolve()))


if __name__ == "__main__":
    # Blender passes its own arguments as well; what is behind -- is the script's.
    main(sys.argv[sys.argv.index("--") + 1 :] if "--" in sys.argv else sys.argv[1:])
