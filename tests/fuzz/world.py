"""Small good files of every kind that a command reads, and the commands that read them."""

import contextlib
import dataclasses
import importlib.util
import json
import os
import shutil
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import soundfile

from a2fjax import rig, sealed_json
from a2fjax.animation import formats
from a2fjax.cli import main as a2fjax_main
from a2fjax.errors import InputError, one_line
from data_pipeline import build
from launch import submit

TESTS = Path(__file__).parents[1]


def load(path):
    """Imports a file of the tests, which are no packages."""
    name = "fuzz_" + "_".join(path.relative_to(TESTS).with_suffix("").parts)
    if name not in sys.modules:
        spec = importlib.util.spec_from_file_location(name, path)
        sys.modules[name] = module = importlib.util.module_from_spec(spec)
        spec.loader.exec_module(module)
    return sys.modules[name]


@dataclasses.dataclass(frozen=True)
class Target:
    """One command and the files that it reads.

    Attributes:
      name: for reports.
      folder: copied for each case.
      victims: pattern of the files that are damaged, below the folder.
      run: called with the copy; returns an exit code, or raises InputError for code 2.
      weight: how often it is drawn.
    """

    name: str
    folder: Path
    victims: tuple[str, ...]
    run: Callable[[Path], int]
    weight: float = 1.0

    def files(self, folder):
        """Returns the files that may be damaged."""
        found = {p for pattern in self.victims for p in folder.glob(pattern) if p.is_file()}
        return sorted(found)


def head_of(vertices=150):
    """Returns (neutral [V, 3] cm, deltas [52, V, 3], names) of a lump with bumps as shapes."""
    rng = np.random.default_rng(7)
    direction = rng.normal(size=(vertices, 3))
    direction /= np.linalg.norm(direction, axis=1, keepdims=True)
    neutral = direction * [8.0, 11.0, 9.0]
    centres = neutral[rng.integers(vertices, size=52)]
    near = np.exp(-((neutral[None] - centres[:, None]) ** 2).sum(-1) / 12)
    return neutral, near[..., None] * rng.normal(size=(52, 1, 3)), list(rig.ARKIT)


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


def reseal(path):
    """Gives a changed file of JSON its checksum, so that what checks its values is reached."""
    with contextlib.suppress(ValueError, AttributeError, OSError, RecursionError):
        values = json.loads(path.read_bytes())
        values.pop("crc32", None)
        path.write_text(json.dumps(sealed_json.seal(values)))


def make_run(folder):
    """Trains a small model for a step; returns targets that read the run and its shards."""
    setup = load(TESTS / "end_to_end" / "conftest.py")
    root = folder / "trained"
    root.mkdir()
    setup.write_experiment(root)
    words = setup.train_arguments(root, root / "run", "--config.steps=2")
    with open(os.devnull, "w") as null, contextlib.redirect_stdout(null):
        assert a2fjax_main.main(words) == 0
    rng = np.random.default_rng(0)
    t = np.arange(16_000) / 16_000
    soundfile.write(root / "a.wav", 0.1 * np.sin(900 * t) * rng.random(len(t)), 16_000)
    neutral = head_of()[0].astype(np.float32)
    faces = np.array([[0, 1, 2], [2, 3, 4]], np.int32)
    np.save(root / "mesh.npy", neutral)
    np.savez(root / "mesh.npz", vertices=neutral, faces=faces)
    damage = load(TESTS / "data_pipeline" / "damage" / "conftest.py")
    (root / "mesh.obj").write_bytes(damage.obj_bytes(neutral))
    (root / "mesh.ply").write_bytes(damage.ply_bytes(neutral))
    track = {"times": [0.0, 0.5], "weights": [{"happy": 0.7}, [0, 0, 1, 0, 0]], "blend": 0.2}
    (root / "mood.json").write_text(json.dumps(track))
    (root / "mood.csv").write_text("time,happy,sad\n0,1,0\n0.5,0.2,0.3\n")

    def inspect(what):
        def target(work):
            reseal(work / "run" / "config.json")
            return a2fjax_main.main(["inspect", str(work / what)])

        return target

    def infer(work, words=()):
        known = {"mood": "--emotion", "mesh": "--identity"}
        reseal(work / "run" / "config.json")
        changed = os.environ["FUZZ_VICTIM"]
        words = [f"{known[p]}={changed}" for p in known if Path(changed).stem == p]
        return a2fjax_main.main(
            ["infer", str(work / "run"), f"--audio={work / 'a.wav'}",
             f"--out={work / 'out.csv'}", *words]
        )  # fmt: skip

    config = ["run/config.json", "run/checkpoints/*/meta/*", "run/metrics.jsonl"]
    config += ["run/checkpoints/2/ema/**/*"]
    dataset = ("shards/*.json", "shards/subjects/*", "shards/*.arrayrecord")

    def pinned(work):
        reseal(work / "run" / "config.json")
        return a2fjax_main.main(["config", "--config", str(work / "run" / "config.json")])

    return [
        Target("run infer inputs", root, ("mesh.*", "mood.*"), infer, 2.0),
        Target("run infer", root, tuple(config), infer),
        Target("run inspect", root, tuple(config), inspect("run")),
        Target("run inspect shards", root, dataset, inspect("shards"), 2.0),
        Target("run config", root, ("run/config.json",), pinned, 1.5),
    ]


def make_readers(folder):
    """Returns targets that are functions of the public API, which raise InputError."""
    damage = load(TESTS / "data_pipeline" / "damage" / "conftest.py")
    root = folder / "motion"
    root.mkdir()
    weights = damage.curves(1)
    motion = np.zeros((len(weights), 72), np.float32)
    motion[:, damage.COLUMNS] = weights
    for name in ("m.csv", "m.channels.csv", "m.json", "m.npz"):
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


def make_jobs(folder):
    """Writes records of jobs and a profile; returns targets of launch/submit.py."""
    from launch.jobs import progress, record
    from launch.jobs.spec import JobSpec

    root = folder / "jobs"
    values = {"steps": 3, "name": "x"}
    for name in ("one", "sweep/a"):
        run = root / "runs" / name
        spec = JobSpec(
            id=name, command=("true",), directory="/", python="python", scheduler="local",
            created="2026-01-01T00:00:00Z", data={str(root): ""},
            config=sealed_json.seal({"config": values, "sources": {}, "fingerprint": "0" * 16}),
        )  # fmt: skip
        record.write(run, spec)
        sent = record.Submission(
            scheduler="local", job="1", index=None, attempt=1, time=spec.created
        )
        record.write_submission(run, sent)
        progress.event(run, "end", why="exit 1")
        (run / "launch" / "result.json").write_text('{"state": "failed", "exit_code": 1}')
        (run / "launch" / "exit").write_text("1")
        (run / "metrics.jsonl").write_text('{"step": 1, "eval/loss": 0.5}\n')
        (run / "config.json").write_text(json.dumps(sealed_json.seal({"config": values})))
    record.write_sweep(root / "runs" / "sweep", ["a"])
    profile = 'partition = "h100"\ngpus = 8\nsetup = ["module load cuda"]\n'
    (root / "site.toml").write_text(profile + '[environment]\nA = "b"\n')

    def listing(work):
        words = [["list"], ["status", "one"], ["status", "sweep"], ["diff", "one", "sweep/a"]]
        codes = [submit.main([*w, "--runs", str(work / "runs")]) for w in words]
        return max(codes)

    def profiled(work):
        from launch.submission import site_profile

        site_profile.read(str(work / "site.toml"))
        return 0

    victims = ("runs/**/*.json", "runs/**/*.jsonl", "runs/**/exit")
    return [
        Target("jobs list", root, victims, listing, 1.5),
        Target("jobs profile", root, ("site.toml",), profiled, 0.5),
    ]


MAKERS = {"build": make_captures, "read": make_readers, "jobs": make_jobs, "run": make_run}
"""By the first word of their targets' names."""


def make(folder, only=""):
    """Writes the files of all targets whose name begins with a text; returns these targets."""
    folder.mkdir(parents=True, exist_ok=True)
    makers = [m for word, m in MAKERS.items() if word.startswith(only) or only.startswith(word)]
    targets = [target for maker in makers for target in maker(folder)]
    return [target for target in targets if target.name.startswith(only)]


def copy(target, work):
    """Copies a target's folder for one case."""
    shutil.copytree(target.folder, work, symlinks=True)


def call(target, work):
    """Runs a target; returns its exit code, 2 for InputError of a function."""
    try:
        return target.run(work)
    except InputError as error:
        print(f"fuzz: error: {one_line(str(error))}", file=sys.stderr)
        return 2
    except SystemExit as end:
        return end.code if isinstance(end.code, int) else 1
