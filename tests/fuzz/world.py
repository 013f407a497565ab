"""Small good files of every kind that a command reads, and the commands that read them."""

import os
from pathlib import Path

import numpy as np
from job_targets import make_jobs, make_submissions
from run_targets import make_bundles, make_caches, make_evaluation, make_run, make_training
from target import TESTS, Target, head_of, load

from a2fjax.animation import formats
from data_pipeline import build


def make_captures(folder):
    """Writes a set of captures of each layout; returns a target for each."""
    damage = load(TESTS / "data_pipeline" / "damage" / "conftest.py")
    targets = []
    for layout, kinds in damage.LAYOUTS.items():
        made = damage.Set(folder / layout / "in", layout, head_of())
        for kind in kinds:
            if kind != "mov":
                made.write(kind, f"take-{kind}")
        made.write(kinds[0], "good")

        def run(work, layout=layout):
            words = ["--workers=0", "--config.offset=0", f"--layout={layout}"]
            return build.main([str(work / "in"), f"--out={work / 'out'}", *words])

        victims = tuple(f"**/*{e}" for e in (".npy .npz .pc2 .mc .xml .obj .ply .usda .glb"
                                            " .csv .json").split())  # fmt: skip
        targets.append(Target(f"build {layout}", folder / layout, victims, run, 1.5))
    return targets


def make_readers(folder):
    """Returns targets that are functions of the public API, which raise InputError."""
    damage = load(TESTS / "data_pipeline" / "damage" / "conftest.py")
    root = folder / "motion"
    root.mkdir()
    weights = damage.curves(1)
    motion = np.zeros((len(weights), 72), np.float32)
    motion[:, damage.COLUMNS] = weights
    for name in ("m.csv", "m.channels.csv", "m.json", "m.npz", "m.glb", "m.anim"):
        formats.write(root / name, motion)

    def read(work):
        formats.read(os.environ["FUZZ_VICTIM"]).resampled()
        return 0

    shapes = folder / "shapes"
    shapes.mkdir()
    neutral, deltas, names = head_of()
    np.savez(shapes / "rig.npz", neutral=neutral, names=np.array(names), deltas=deltas)

    def read_shapes(work):
        from a2fjax.models.nvidia.geometry import shapes

        shapes.read(work / "rig.npz")
        return 0

    return [
        Target("read motion", root, ("m.*",), read, 1.5),
        Target("read shapes", shapes, ("rig.npz",), read_shapes),
        make_encoders(folder / "encoders"),
    ]


def make_encoders(folder):
    """Writes encoders of every form; returns a target that loads the damaged one."""
    from a2fjax.configuration import EncoderConfig
    from a2fjax.encoders import storage

    data = load(TESTS / "data" / "conftest.py")
    names = {k: data.tiny_encoder(folder, k) for k in ("base", "whisper")}
    storage.save(folder / "saved.safetensors", *storage.load(names["base"]))

    def read(work):
        victim = Path(os.environ["FUZZ_VICTIM"])
        if victim.name == "saved.safetensors":
            storage.restore(victim, EncoderConfig())
        else:
            kind = "whisper" if victim.suffix == ".npz" else "wav2vec2"
            storage.load(f"{kind}:{victim if kind == 'whisper' else victim.parent}")
        return 0

    return Target("read encoders", folder, ("*.npz", "base/*", "*.safetensors"), read)


MAKERS = {
    "build": make_captures,
    "read": make_readers,
    "jobs": make_jobs,
    "submit": make_submissions,
    "run": make_run,
    "bundle": make_bundles,
    "train": make_training,
    "evaluate": make_evaluation,
    "cache": make_caches,
}
"""By the first word of their targets' names."""


def make(folder, only=""):
    """Writes the files of all targets whose name begins with a text; returns these targets."""
    folder.mkdir(parents=True, exist_ok=True)
    makers = [m for word, m in MAKERS.items() if word.startswith(only) or only.startswith(word)]
    targets = [target for maker in makers for target in maker(folder)]
    return [target for target in targets if target.name.startswith(only)]
