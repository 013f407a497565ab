"""Records of jobs, sweeps and a study, and the commands of launch/submit.py that read them."""

import json
import os
from unittest import mock

from target import TESTS, Target, load

from a2fjax import sealed_json
from a2fjax.errors import WorkFailed
from launch import submit
from launch.commands import tune as tune_command
from launch.jobs import progress, record
from launch.jobs.spec import JobSpec
from launch.submission import site_profile
from launch.sweeps import parse
from launch.tuning import driver

VALUES = {"steps": 3, "name": "x", "optim": {"warmup_steps": 0}, "eval": {"every_steps": 0}}
SPACE = '{"optim.learning_rate": loguniform(1e-4, 1e-2), "seed": choice(1, 2)}'
SWEEP = """
from launch.sweeps import grid, loguniform, random, seeds


def sweep():
    return grid("optim.learning_rate", 1e-3, 3e-4) * seeds(2)


def search():
    return random(3, {"optim.learning_rate": loguniform(1e-4, 1e-2)}, seed=5)
"""
EXPRESSION = 'grid("optim.learning_rate", 1e-3, 3e-4) * seeds(2) + [{"seed": 9}]'


def write_job(run, name, root, **more):
    """Writes the record of a failed job."""
    values = {"id": name, "command": ("true",), **more}
    spec = JobSpec(
        directory="/", python="python", scheduler="local", created="2026-01-01T00:00:00Z",
        data={str(root): ""}, **values,
    )  # fmt: skip
    record.write(run, spec)
    sent = record.Submission(scheduler="local", job="1", index=None, attempt=1, time=spec.created)
    record.write_submission(run, sent)
    return spec


def write_end(run):
    """Writes how a run or element ended."""
    progress.event(run, "end", why="exit 1")
    (run / "launch" / "result.json").write_text('{"state": "failed", "exit_code": 1}')
    (run / "launch" / "exit").write_text("1")
    (run / "launch" / "logs").mkdir()
    (run / "launch" / "logs" / "rank-0.log").write_text("step 1\na2fjax train: failed: no memory\n")


def make_jobs(folder):
    """Returns targets of the commands on jobs that were submitted."""
    root = folder / "jobs"
    root.mkdir()
    setup = load(TESTS / "end_to_end" / "conftest.py")
    values = {**VALUES, "data": {"shards": [str(setup.write_experiment(root) / "shards")]}}
    for name in ("one", "sweep/a"):
        run = root / "runs" / name
        config = {"config": values, "sources": {}, "plugins": {}, "fingerprint": "0" * 16}
        config = sealed_json.seal(config)
        write_job(run, name, root, config=config)
        write_end(run)
        (run / "metrics.jsonl").write_text('{"step": 1, "eval/loss": 0.5}\n')
        (run / "config.json").write_text(json.dumps(config))
    record.write_sweep(root / "runs" / "sweep", ["a"])
    array = root / "out" / record.ARRAY
    write_job(array, str(root / "out"), root, finalize=("true",), elements=2, output="/out")
    for element in (record.element(array, 1), record.element(array, 2)):
        (element / "launch").mkdir(parents=True)
        write_end(element)
    (root / "site.toml").write_text(
        'partition = "h100"\ngpus = 8\nsetup = ["module load cuda"]\n[environment]\nA = "b"\n'
    )

    def every(*commands):
        def run(work):
            runs = ["--runs", str(work / "runs")]
            return max(submit.main([*words(work), *runs]) for words in commands)

        return run

    listing = every(
        lambda work: ["list"],
        lambda work: ["status", "one"],
        lambda work: ["status", "sweep"],
        lambda work: ["status", "sweep", "--sort=eval/loss", f"--csv={work / 'runs' / 't.csv'}"],
        lambda work: ["diff", "one", "sweep/a"],
        lambda work: ["logs", "one"],
    )
    again = every(
        lambda work: ["retry", "sweep", "--dry-run"],
        lambda work: ["resume", "one", "--dry-run", "--config.steps=9"],
    )
    arrays = every(
        lambda work: ["status", str(work / "out")],
        lambda work: ["logs", str(work / "out"), "--element=1"],
        lambda work: ["retry", str(work / "out"), "--dry-run"],
    )

    def profiled(work):
        site_profile.read(str(work / "site.toml"))
        return 0

    endings = ("*.json", "*.jsonl", "exit", "*.log")
    runs, records = ([f"{top}/**/{e}" for e in endings] for top in ("runs", "out"))
    site = ("site.toml",)
    return [
        Target("jobs list", root, tuple(runs), listing, 1.5),
        Target("jobs retry", root, tuple(runs), again),
        Target("jobs arrays", root, tuple(records), arrays),
        Target("jobs profile", root, site, profiled, 0.5, site),
    ]


def make_submissions(folder):
    """Returns targets of submit with sweeps, and of tune, which start nothing."""
    setup = load(TESTS / "end_to_end" / "conftest.py")
    root = folder / "submit"
    root.mkdir()
    setup.write_experiment(root)
    (root / "sweep.py").write_text(SWEEP)
    (root / "sweep.txt").write_text(EXPRESSION)
    (root / "space.txt").write_text(SPACE)
    study = root / "runs" / "study"
    record.write_sweep(study, ["t0", "t1"])
    for name in ("t0", "t1"):
        write_job(study / name, f"study/{name}", root)
        write_end(study / name)
    settings = driver.Settings(runs=2, first_step=1, last_step=3, poll_seconds=0.0)
    driver.tune(record.launch(study) / "study", parse.parse_space(SPACE), Done(study), settings)

    def command(work, name, *words):
        given = (f"--runs={work / 'runs'}", f"--config.data.shards={work / 'shards'}")
        return submit.main([name, str(work / "experiment.py"), *given, *words])

    def text(work, name):
        path = work / name
        if not path.is_file():
            return ""
        # Words of a command have at most 128 KiB and hold no NUL.
        with path.open("rb") as file:
            return file.read(1 << 17).decode(errors="replace").replace("\0", "?")

    def submitted(work):
        changed = os.environ["FUZZ_VICTIM"]
        sweep = text(work, "sweep.txt") if changed.endswith(".txt") else work / "sweep.py:search"
        return command(work, "submit", "--dry-run", f"--sweep={sweep}")

    def tuned(work):
        words = ("--name=study", "--trials=2", "--poll=0.01", f"--space={text(work, 'space.txt')}")
        with mock.patch.object(tune_command._Runs, "start", refuse):
            return command(work, "tune", *words)

    trials = ("experiment.py", "sweep.py", "sweep.txt", "shards/manifest.json")
    states = ("space.txt", "runs/study/launch/**/*", "runs/study/t0/**/*")
    return [
        Target("submit sweep", root, trials, submitted, 1.5, trials),
        Target("submit tune", root, states, tuned, 1.5, ("space.txt",)),
    ]


class Done:
    """Runs that were done when they started; `driver.tune` keeps their results in its journal."""

    def __init__(self, study):
        self._study, self._started = study, {}

    def start(self, number, overrides):
        self._started[number] = str(self._study / f"t{number}")
        return self._started[number]

    def find(self, number):
        return self._started.get(number)

    def poll(self, run):
        return "done", [(3, 0.5)]

    def cancel(self, run):
        pass


def refuse(self, number, overrides):
    """Stands in for the start of a run."""
    raise WorkFailed(f"trial {number}: a case starts no runs")
