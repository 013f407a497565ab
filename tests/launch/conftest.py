"""A job that takes no time, and a Slurm of our own."""

import functools
import importlib.util
import json
import subprocess
import sys
import time
from pathlib import Path

import pytest

from launch import schedulers, submit
from launch.jobs import progress
from launch.jobs.formats import memory_mib, minutes, slug
from launch.jobs.spec import JobSpec, Resources
from launch.submission import snapshot
from launch.submission import submit as submission

STAND_IN = Path(__file__).with_name("stand_in.py")


class Job:
    """A build by the stand-in: `job("build")`, `job("status")` ... as on the command line."""

    def __init__(self, folder: Path, parts: int):
        self.source, self.out, self.parts = folder / "in put", folder / "my öut'$(touch x)", parts
        self.source.mkdir()
        (self.source / "parts").write_text(str(parts))

    def __call__(self, command, *arguments):
        if command == "build":
            arguments = ("--out", str(self.out), "--elements", str(self.parts), *arguments)
            return submit.main([command, str(self.source), *arguments], program=[str(STAND_IN)])
        return submit.main([command, str(self.out), *arguments])

    def set(self, name: str) -> None:
        (self.source / name).touch()

    def unset(self, name: str) -> None:
        (self.source / name).unlink()

    def runs(self, part: int) -> int:
        path = self.out / f"{part}.runs"
        return len(path.read_text().splitlines()) if path.exists() else 0

    @property
    def launch(self) -> Path:
        return self.out / ".build" / "launch"

    @property
    def record(self) -> Path:
        return self.out / ".build"

    def log(self, which) -> Path:
        """The log that the scheduler keeps of an element."""
        return self.launch / f"job-{which}.log"

    @property
    def done(self) -> list[int]:
        return sorted(int(p.stem) for p in self.out.glob("*.done"))

    def until(self, condition, seconds=60.0):
        end = time.monotonic() + seconds
        while not condition():
            assert time.monotonic() < end, f"not within {seconds} s"
            time.sleep(0.1)


@pytest.fixture
def make_job(tmp_path, monkeypatch):
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    # No test reaches a cluster that this machine may be set up for.
    nowhere = tmp_path / "kubeconfig"
    nowhere.write_text("")
    monkeypatch.setenv("KUBECONFIG", str(nowhere))
    # As without git: test_checked_code.py has arrays that run from a snapshot.
    monkeypatch.setattr(snapshot, "_tracked", lambda code: None)
    return lambda parts=4: Job(tmp_path, parts)


@pytest.fixture(scope="session")
def slurm(tmp_path_factory):
    """A Slurm of four nodes of two cores; returns a context that kills a node: with slurm(node)."""
    found = importlib.util.spec_from_file_location(
        "private_slurm", Path(__file__).with_name("private_slurm.py")
    )
    private_slurm = importlib.util.module_from_spec(found)
    found.loader.exec_module(private_slurm)
    missing = private_slurm.missing()
    if missing:
        pytest.skip(f"{', '.join(missing)} not installed: {private_slurm.INSTALL}")
    # Sockets have short names, so not in pytest's long folders.
    with private_slurm.running(tmp_path_factory.getbasetemp() / "slurm") as top:
        yield functools.partial(private_slurm.without_power, top)


@pytest.fixture
def make_array(tmp_path):
    """An array as `submit.py build` makes it, of any command."""

    def make(scheduler, command, count=4, *, folder=None, out="/data/out", chosen=None, **given):
        folder = folder or tmp_path / ".build"
        resources = Resources(
            cpus=given.pop("cpus", 1),
            mem_mib=memory_mib(given.pop("mem")) if given.get("mem") else None,
            minutes=minutes(given.pop("time")) if given.get("time") else None,
        )
        found = schedulers.get(scheduler)
        spec = JobSpec(
            id=out,
            name=slug("build-out", out),
            command=tuple(command),
            finalize=(*command, "--finish"),
            elements=count,
            output=out,
            directory="/",
            python=sys.executable,
            environment={"PYTHONUNBUFFERED": "1", "PYTHONPATH": str(Path(__file__).parents[2])},
            scheduler=scheduler,
            resources=resources,
            options=found.options(given, {}, resources, array=count),
            retries=2,
            retry_failures=True,
            created="2026-01-01T00:00:00+00:00",
        )
        return submission.array_job(folder, spec, chosen or range(1, count + 1))

    return make


EXPERIMENT = """
def get_config(variant=""):
    return {
        "name": "Tiny thing",
        "steps": 3,
        "optim": {"warmup_steps": 1},
        "data": {"shards": [SHARDS], "batch_size": 4},
        "eval": {"every_steps": 1},
    }
"""


class Cli:
    """Trainings by the stand-in: `cli("submit", ...)`, `cli("status", "one")`."""

    program = Path(__file__).with_name("stand_in_training.py")
    program_words = [str(program)]

    def __init__(self, folder: Path, shards: Path):
        self.folder, self.shards, self.runs = folder, shards, folder / "my rüns"
        file = folder / "exp eriment.py"
        file.write_text(EXPERIMENT.replace("SHARDS", repr(str(shards))))
        self.experiment, self.steering = str(file), folder / "steering"
        self.steering.mkdir()
        self.to = ["--runs", str(self.runs)]

    def __call__(self, command, *arguments):
        return submit.main([command, *arguments, *self.to], program=self.program_words)

    def set(self, name):
        (self.steering / name).touch()

    def unset(self, name):
        (self.steering / name).unlink()

    def starts(self, run):
        path = self.steering / f"{run}.starts"
        return [json.loads(x) for x in path.read_text().splitlines()] if path.exists() else []

    def steps(self, run):
        return progress.last(self.runs / run)[0]

    until = Job.until


@pytest.fixture(scope="session")
def tiny_shards(tmp_path_factory):
    """A set of which only the manifest can be read."""
    from a2fjax.data import records

    folder = tmp_path_factory.mktemp("shards") / "my sét"
    folder.mkdir()
    (folder / "a.arrayrecord").touch()
    clips = [
        {"id": s, "subject": "a", "sentence": s, "split": s, "frames": 9, "emotion": "neutral"}
        for s in ("train", "val")
    ]
    subjects = [records.Subject("a", None, False)]
    shard = records.Shard("a.arrayrecord", clips)
    records.write_manifest(folder, records.Manifest(subjects, [shard], [True] * 72, {}, True, {}))
    return folder


@pytest.fixture(scope="session")
def tiny_encoder(tmp_path_factory):
    """A wav2vec 2.0 that is quick to compile."""
    import jax
    import numpy as np

    from a2fjax.encoders import wav2vec2

    layout = wav2vec2.Wav2Vec2Config(
        conv_dim=(8, 8), conv_kernel=(40, 10), conv_stride=(40, 8), hidden_size=8,
        num_hidden_layers=1, num_attention_heads=2, intermediate_size=8,
        num_conv_pos_embeddings=4, num_conv_pos_embedding_groups=2,
    )  # fmt: skip
    folder = tmp_path_factory.mktemp("tiny") / "enc oder"
    params = wav2vec2.Wav2Vec2Encoder(layout).init(jax.random.key(0))
    wav2vec2.save(folder, layout, jax.tree.map(np.asarray, params))
    return f"wav2vec2:{folder}"


@pytest.fixture
def loaded():
    """Which heavy modules a process has loaded after running some code."""

    def names(code):
        look = "print([n for n in 'jax flax scipy grain transformers'.split() if n in sys.modules])"
        done = subprocess.run(
            [sys.executable, "-c", f"import sys; from launch import submit\n{code}\n{look}"],
            cwd=Path(__file__).parents[2], check=True, capture_output=True, text=True,
        )  # fmt: skip
        return done.stdout.splitlines()[-1]

    return names


@pytest.fixture
def cli(tmp_path, monkeypatch, tiny_shards):
    folder = tmp_path / "work"
    folder.mkdir()
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    monkeypatch.setenv("KUBECONFIG", str(tmp_path / "none"))
    made = Cli(folder, tiny_shards)
    monkeypatch.setenv("A2F_STAND_IN", str(made.steering))
    return made
