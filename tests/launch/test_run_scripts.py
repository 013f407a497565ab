"""Slurm scripts of runs without a Slurm, and requeue decisions."""

import dataclasses
import json
import os
import shutil
import subprocess
import sys

import pytest

from launch.jobs import record, requeue
from launch.jobs.spec import Resources
from launch.schedulers import base
from launch.schedulers.slurm import queue


def script_of(cli, capsys, *arguments):
    words = [
        "submit",
        cli.experiment,
        "--name",
        "s",
        "--scheduler",
        "slurm",
        "--array-limit",
        "100",
    ]
    monkey = base.NotInstalled("no Slurm here")

    def refuse(*_, **__):
        raise monkey

    before, queue.call = queue.call, refuse
    try:
        assert cli(*words, "--dry-run", *arguments) == 0
    finally:
        queue.call = before
    return capsys.readouterr().out.partition("#!/bin/bash")[2]


def test_layouts_and_the_profile(cli, capsys):
    site = cli.folder / "site.toml"
    site.write_text(
        'partition = "h100"\ngpus = 8\ngpu_option = "gres"\ngpu_type = "h100"\ncpus_per_node = 96\n'
        'setup = ["module load cuda"]\nsbatch = ["--exclusive"]\nsrun = ["--cpu-bind=cores"]\n'
        'time = "24h"\nmem = "64G"\nnotice_seconds = 300\n[environment]\nNCCL_X = "it\'s"\n'
    )
    batch = "--config.data.batch_size=16"
    lines = script_of(cli, capsys, "--profile", str(site), "--nodes", "2", batch).splitlines()
    wanted = "nodes=2 ntasks-per-node=1 cpus-per-task=96 gres=gpu:h100:8 partition=h100 time=1440"
    for word in f"{wanted} mem=65536M signal=TERM@300 requeue".split():
        assert f"#SBATCH --{word}" in lines, word
    assert lines.index("module load cuda") < lines.index("set -uo pipefail")
    assert "  --kill-on-bad-exit=1" in lines and "  --ntasks=2" in lines
    assert "  --cpu-bind=cores" in lines and "export A2F_LOCAL_DEVICES=8" in lines
    assert "export NCCL_X='it'\"'\"'s'" in lines
    per = ["--gpus", "4", "--layout", "per-gpu", "--nodes", "2", "--time", "5", batch]
    lines = script_of(cli, capsys, *per).splitlines()
    for word in ("ntasks-per-node=4", "gpus-per-node=4", "time=5"):
        assert f"#SBATCH --{word}" in lines, word
    assert "  --ntasks=8" in lines and "export A2F_LOCAL_DEVICES=1" in lines
    assert not [line for line in lines if "--signal" in line]  # too short for a notice


def test_the_script_runs_the_worker_and_keeps_the_first_exit_code(cli, capsys):
    text = script_of(cli, capsys)
    assert cli("submit", cli.experiment, "--name", "s") == 0
    path = cli.folder / "job.sh"
    path.write_text("#!/bin/bash" + text)
    env = {"PATH": os.environ["PATH"], "A2F_STAND_IN": os.environ["A2F_STAND_IN"]}
    for name, code in ((None, 0), ("fail", 1), ("bad", 2), ("lost", 70)):
        if name:
            cli.set(f"{name}-s")
        done = subprocess.run(["bash", path], env=env, capture_output=True, text=True, timeout=60)
        assert done.returncode == code, done.stderr
        assert (cli.runs / "s" / "launch" / "exit").read_text() == f"{code}\n"
        if name:
            cli.unset(f"{name}-s")


# ---- requeue decisions ----------------------------------------------------------------------


def test_requeue_decisions(cli):
    assert cli("submit", cli.experiment, "--name", "one", "--retries", "1") == 0
    run, ranks = cli.runs / "one", cli.runs / "one" / "launch" / "ranks"
    two = dataclasses.replace(record.read(run), resources=Resources(processes=2))

    def judge(code, *codes, **given):
        requeue.clear_ranks(run)
        for rank, value in enumerate(codes):
            text = json.dumps({"rank": rank, "exit_code": value, "unix": 100.0 + rank})
            (ranks / f"{rank}.json").write_text(text)
        options = {"ended": False, "restarts": 0, **given}
        found = requeue.decide(run, two, code, **options)
        return found.code, found.again

    assert judge(0, 0, 0) == (0, False)
    assert judge(75, 75, 75) == (75, True)
    assert judge(75, 1, 75) == (1, False) and judge(75, 2, 75) == (2, False)
    assert judge(75, 75, ended=True) == (75, False)
    assert judge(75, 75, restarts=50) == (75, False) and judge(75, 75, restarts=49) == (75, True)
    assert judge(143) == (143, True)
    (run / "launch" / "failures.json").unlink(missing_ok=True)
    assert judge(137, 70, 137) == (70, True)
    assert judge(137) == (137, False)
    (run / "checkpoints" / "77").mkdir()
    assert judge(137) == (137, True)  # there was progress
    # What is killed because it did not stop in time did not fail.
    assert judge(137, ended=True) == (75, False)
    (run / "launch" / "cancelled").touch()
    assert judge(75, 75) == (75, False) and judge(137) == (75, False) and judge(1) == (1, False)
    assert judge(0) == (0, False)


def test_a_profile_holds_for_arrays(make_job, tmp_path, capsys, monkeypatch):
    site = tmp_path / "site.toml"
    site.write_text(
        'partition = "h100"\naccount = "faces"\ngpus = 8\ncpus_per_node = 96\nmem = "1T"\n'
        'setup = ["module load x"]\ncontainer_image = "/i/a2fjax.sif"\n'
        'container_runtime = "apptainer"\n[environment]\nSITE = "here"\n'
        '[arrays]\npartition = "cpu"\ncpus = 4\n'
    )
    monkeypatch.setattr(queue, "call", _no_slurm)
    job = make_job(3)
    words = ["--scheduler", "slurm", "--profile", str(site), "--array-limit", "9", "--dry-run"]
    assert job("build", *words) == 0
    lines = [line.strip() for line in capsys.readouterr().out.splitlines()]
    for word in ("partition=cpu", "account=faces", "cpus-per-task=4", "array=1-3"):
        assert f"#SBATCH --{word}" in lines, word
    assert not [line for line in lines if line.startswith(("#SBATCH --mem", "#SBATCH --gpus"))]
    assert {"module load x", "export SITE=here", "apptainer", "/i/a2fjax.sif"} <= set(lines)
    # The output does not exist yet, so the folder above it is mounted.
    assert f"{tmp_path}:{tmp_path}" in next(x for x in lines if f"{tmp_path}:" in x)
    assert not job.out.exists()


def _no_slurm(*_, **__):
    raise base.NotInstalled("no Slurm here")


def mounts(text, start):
    """The mounts behind an option of a script, each of which keeps its path."""
    (line,) = [x.strip().strip("'") for x in text.splitlines() if x.strip(" '").startswith(start)]
    pairs = [pair.split(":") for pair in line.removeprefix(start).split(",")]
    assert all(source == target for source, target, *_ in pairs)
    return {pair[0] for pair in pairs}


def test_pyxis_mounts_what_a_run_needs(cli, capsys, monkeypatch, tmp_path):
    caches = tmp_path / "home" / "a2f"
    caches.mkdir(parents=True)
    monkeypatch.setenv("A2F_CACHE", str(caches))
    monkeypatch.setenv("PYTHONPATH", str(tmp_path / "none"))
    cli.runs.mkdir()
    image = ["--container-image", "/images/a2fjax.sqsh", "--container-mounts", "/scratch"]
    text = script_of(cli, capsys, *image, "--gpus", "2")
    found = mounts(text, "--container-mounts=")
    assert {str(cli.runs), str(cli.shards), str(caches), "/scratch", os.getcwd()} <= found
    lines = [line.strip() for line in text.splitlines()]
    assert "--container-image=/images/a2fjax.sqsh" in lines
    assert any(line.startswith("python=(python ") for line in lines)
    assert f"--container-workdir={os.getcwd()}" in lines
    (names,) = [x for x in lines if x.startswith("--container-env=")]
    assert {"PYTHONPATH", "A2F_CACHE", "A2F_PORT", "A2F_LOCAL_DEVICES"} <= set(
        names.partition("=")[2].split(",")
    )
    assert lines[lines.index("container=(") + 1] == ")"


def test_apptainer_runs_the_worker_and_decides_about_the_queue(cli, tmp_path, monkeypatch):
    programs = tmp_path / "bin"
    programs.mkdir()
    # What Apptainer would run inside the image runs here; the image is a name only.
    texts = {
        "sbatch": "echo 7",
        "apptainer": 'echo "$@" >>"$0.asked"; while [ "$1" != /i/image.sif ]; do shift; done\n'
        'shift; exec "$@"',
    }
    for name, text in texts.items():
        (programs / name).write_text(f"#!/bin/bash\n{text}\n")
        (programs / name).chmod(0o755)
    monkeypatch.setenv("PATH", f"{programs}{os.pathsep}{os.environ['PATH']}")
    runtime = ["--container-image", "/i/image.sif", "--container-runtime", "apptainer"]
    words = ["--name", "s", "--scheduler", "slurm", "--python", sys.executable, "--gpus", "1"]
    cli.set("fail-s")
    assert cli("submit", cli.experiment, *words, *runtime) == 0
    job = cli.runs / "s" / "launch" / "job.sh"
    done = subprocess.run(["bash", job], capture_output=True, text=True, timeout=60)
    asked = (programs / "apptainer.asked").read_text().splitlines()
    assert len(asked) == 2 and "launch.jobs.worker" in asked[0] and "requeue" in asked[1]
    assert asked[0].startswith("exec --nv --bind ") and f"--pwd {os.getcwd()}" in asked[0]
    assert f"{cli.runs}:{cli.runs}" in asked[0] and f"{cli.shards}:{cli.shards}" in asked[0]
    assert done.returncode == 1 and "exit code 1: end" in done.stdout, done.stderr


def test_a_retry_keeps_the_container(cli, tmp_path, monkeypatch, capsys):
    programs = tmp_path / "bin"
    programs.mkdir()
    (programs / "sbatch").write_text("#!/bin/bash\necho 7\n")
    (programs / "squeue").write_text("#!/bin/bash\n")
    for program in programs.iterdir():
        program.chmod(0o755)
    monkeypatch.setenv("PATH", f"{programs}{os.pathsep}{os.environ['PATH']}")
    words = ["--name", "s", "--scheduler", "slurm", "--container-image", "docker://a/b:1"]
    assert cli("submit", cli.experiment, *words, "--container-mounts", "/a:/b:ro") == 0
    first = (cli.runs / "s" / "launch" / "job.sh").read_text()
    assert cli("resume", "s") == 0
    assert (cli.runs / "s" / "launch" / "job.sh").read_text() == first
    assert first.count("--container-image=") == 1 and "/a:/b:ro" in first


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (["--container-mounts", "/a"], "is for jobs with --container-image"),
        (["--container-runtime", "apptainer"], "is for jobs with --container-image"),
        (["--container-image", "a b"], "without spaces or quotes"),
        (["--container-image", "a2fjax.sqsh"], "expected an absolute path"),
        (["--container-image", "x", "--container-runtime", "apptaner"], "'apptainer'?"),
        (["--container-image", "x", "--container-mounts", "a:b"], "PATH:PATH:ro"),
        (["--container-image", "x", "--container-mounts", "/a:/b:rx"], "PATH:PATH:ro"),
        (["--container-image", "x", "--config.data.shards=SHARDS,b"], "which no mount can name"),
        (["--container-image", "x", "--scheduler", "kubernetes"], "is for --scheduler slurm"),
    ],
)
def test_wrong_containers_are_one_line(cli, capsys, arguments, says, tmp_path):
    odd = tmp_path / "a,b"
    shutil.copytree(cli.shards, odd)
    words = [a.replace("SHARDS,b", f'["{odd}"]') for a in arguments]
    assert cli("submit", cli.experiment, "--scheduler", "slurm", *words, "--dry-run") == 2
    err = capsys.readouterr().err
    assert says in err and err.strip().count("\n") <= 1
