"""Preflight of trainings: mistakes are one line each, and jax is not needed."""

import json
import os
from pathlib import Path

import pytest
import yaml

from a2fjax import errors
from launch import submit
from launch.jobs import formats, record
from launch.submission import site_profile, snapshot

ROOT = Path(__file__).parents[2]


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (["--config.sed=1"], "did you mean 'seed'?"),
        (["--scheduler", "slrum"], "did you mean 'slurm'?"),
        (["--config.data.batch_size=6", "--processes", "4"], "the nearest that can is 8"),
        (["--config.sharding.fsdp=3", "--cpu-devices", "4"], "the nearest that does is 2"),
        (["--config.sharding.data=8"], "leave sharding.data=-1"),
        (["--config.accumulate=3"], "in 3 parts"),
        (["--config.data.split=trian"], "did you mean 'train'?"),
        (["--config.data.shards=none"], "none does not exist"),
        (["--config.init_from=none"], "init_from='none'"),
        (["--config.loss.sync=none"], "loss.sync='none': is no run"),
        (["--config.loss.sync_adversary=none"], "loss.sync_adversary='none': is no run"),
        (["--config.optim.warmup_steps=3"], "expected fewer than steps=3"),
        (["--sweep", 'grid("steps", 3, 1)'], "optim.warmup_steps=1: expected fewer than steps=1"),
        (["--nodes", "2"], "--nodes: is for --scheduler kubernetes or slurm"),
        (["--time", "1:00"], "--time: is for --scheduler slurm"),
        (["--scheduler", "slurm", "--time", "soon"], "--time soon: expected"),
        (["--scheduler", "slurm", "--nodes", "0"], "--nodes 0: expected 1 or more"),
        (["--scheduler", "slurm", "--layout", "per-gpus", "--gpus", "2"], "'per-gpu'"),
        (["--scheduler", "slurm", "--layout", "per-gpu"], "needs --gpus"),
        (["--scheduler", "slurm", "--gpus", "8", "--processes", "3"], "below that does is 2"),
        (["--gpus", "9"], "this machine has"),
        (["--name", "../x"], "--name '../x'"),
        (["--pass", "a b"], "--pass 'a b'"),
        (["--profile", "none.toml"], "none.toml"),
        (["--python", "no-python"], "--python no-python"),
        (["--max-requeues", "-1"], "--max-requeues -1"),
        (["--bogus", "1"], "--bogus"),
        (["--poll", "-1"], "--poll -1: expected seconds"),
        (["--poll", "nan"], "--poll nan: expected seconds"),
    ],
)
def test_wrong_words_are_one_line_and_leave_nothing(cli, capsys, monkeypatch, arguments, says):
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    # Who works on this project has files of their own beside it, which is remarked on.
    monkeypatch.setattr(snapshot, "untracked", lambda: [])
    assert cli("submit", cli.experiment, *arguments) == 2
    err = capsys.readouterr().err
    assert says in err and err.count("\n") == 1
    assert not [p for p in cli.runs.glob("*")] or "--python" in arguments


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ('partitoin = "x"', "did you mean 'partition'?"),
        ("partition = 3", "expected a string"),
        ('gpus = "8"', "expected a whole number"),
        ("gpus = true", "expected a whole number"),
        ('setup = "module load x"', "expected a list of strings"),
        ('layout = "per-gpus"', "did you mean 'per-gpu'?"),
        ('[environment]\nWANDB_API_KEY = "x"', 'pass = ["WANDB_API_KEY"]'),
        ('[environment]\n"A B" = "x"', "expected a variable"),
        ("= 3", "not TOML"),
        ("# partition", "has no settings"),
    ],
)
def test_wrong_profiles_are_one_line(cli, capsys, text, says):
    file = cli.folder / "site.toml"
    file.write_text(text)
    words = ["--profile", str(file), "--scheduler", "slurm"]
    assert cli("submit", cli.experiment, *words) == 2
    err = capsys.readouterr().err
    assert says in err and "site.toml" in err and err.count("\n") == 1
    assert site_profile.read(None) == {}


@pytest.mark.parametrize(
    ("words", "says"),
    [
        (["x"], "expected a command behind --"),
        (["x", "--", "ls"], "expected a command behind --"),
        (["x", "--", "a2fjax", "evalute", "r"], "did you mean 'evaluate'?"),
        (["x", "--", "a2fjax", "train"], "submit.py submit"),
        (["x y", "--", "a2fjax", "evaluate", "r"], "NAME 'x y'"),
    ],
)
def test_wrong_commands_are_one_line(cli, capsys, words, says):
    assert submit.main(["run", *words, *[]]) == 2
    err = capsys.readouterr().err
    assert says in err and err.count("\n") == 1


def test_a_damaged_file_is_named(cli, capsys):
    assert cli("submit", cli.experiment, "--name", "one") == 0
    assert cli("wait", "one") == 0
    for name in ("spec.json", "job.json"):
        path = cli.runs / "one" / "launch" / name
        content = path.read_text()
        for text in ("", "{", "[]", '{"version": 1}', '{"version": 9}', "\0"):
            path.write_text(text)
            capsys.readouterr()
            assert cli("status", "one") == 2
            err = capsys.readouterr().err
            assert name in err and err.count("\n") == 1, (name, text)
        path.write_text(content)


def test_unknown_runs_are_named(cli, capsys):
    assert cli("list") == 0
    assert capsys.readouterr().out == f"{cli.runs}: no runs\n"
    assert cli("submit", cli.experiment, "--name", "one") == 0
    capsys.readouterr()
    assert cli("list", "--state", "failed") == 0
    assert capsys.readouterr().out == f"{cli.runs}: no runs are failed\n"
    for words in (["resume", "onee"], ["diff", "one", "onee"], ["status", "onee"]):
        assert cli(*words) == 2
        assert "did you mean 'one'?" in capsys.readouterr().err
    assert cli("list", "--state", "runing") == 2
    assert "did you mean 'running'?" in capsys.readouterr().err
    assert cli("wait", "one") == 0
    (cli.folder / "some").mkdir()
    for words in (["retry", "--nodes", "2"], ["logs", "--rank", "1"], ["logs", "-f"]):
        assert cli(words[0], str(cli.folder / "some"), *words[1:]) == 2
        assert "nothing was submitted for this folder" in capsys.readouterr().err
    assert cli("logs", "one", "--rank", "7") == 2
    assert "--rank 7: one has 0" in capsys.readouterr().err


def test_a_dry_run_writes_nothing(cli, capsys):
    dry = ["--dry-run", "--name", "dry", "--scheduler", "slurm", "--nodes", "2", "--gpus", "4"]
    assert cli("submit", cli.experiment, *dry, "--config.data.batch_size=8") == 0
    out, err = capsys.readouterr()
    assert out.startswith("#!/bin/bash\n") and "#SBATCH --gpus-per-node=4" in out
    assert "sbatch --test-only" in err or "to start at" in err
    assert f"{cli.runs}/dry/launch" in err
    assert cli("submit", cli.experiment, *dry, "--config.data.batch_size=8", "--json") == 0
    assert json.loads(capsys.readouterr().out)["id"] == "dry"
    trials = ["--sweep", 'grid("seed", 1, 2)', "--config.data.batch_size=8"]
    assert cli("submit", cli.experiment, *dry, *trials, "--json") == 0
    assert [spec["trial"] for spec in json.loads(capsys.readouterr().out)] == [
        {"seed": 1},
        {"seed": 2},
    ]
    assert not cli.runs.exists()


def test_times():
    assert [formats.minutes(t) for t in ("90m", "24h", "2d", "1-0", "0:30", "5")] == [
        90, 1440, 2880, 1440, 1, 5,
    ]  # fmt: skip
    for text in ("0", "soon", "1.5h", "-1"):
        with pytest.raises(errors.InputError, match="--time"):
            formats.minutes(text)


def test_submitting_needs_no_jax(cli, tmp_path, loaded):
    code = (
        f"argv = ['submit', {cli.experiment!r}, '--runs', {str(tmp_path / 'r')!r}, '--dry-run',\n"
        f"        '--config.data.shards={cli.shards}']\n"
        "assert submit.main(argv) == 0"
    )
    assert loaded(code) == "[]"


def test_compile_errors_are_reported_before_anything_is_written(cli, capsys):
    python = cli.folder / "python"
    python.write_text("#!/bin/sh\necho a2fjax inspect: error: needs 90 GB >&2\nexit 2\n")
    python.chmod(0o755)
    words = ["--check-compile", "--python", str(python)]
    assert cli("submit", cli.experiment, *words) == 2
    assert "--check-compile: a2fjax inspect: error: needs 90 GB" in capsys.readouterr().err
    assert not cli.runs.exists()


IMAGE = "example.org/a2fjax@sha256:" + "0" * 64
POD = ("--scheduler", "kubernetes", "--image", IMAGE)


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        ([], "my rüns: lies on no volume (none was given); add --volume CLAIM:PATH"),
        (["--volume", "c:RUNS:ro"], "mounted read-only"),
        (["--volume", "c:RUNS"], "my sét: lies on no volume"),
        (
            ["--volume", "c:RUNS", "--volume", "s:SHARDS", "--config.data.shards=x"],
            "data.shards: x: expected the absolute",
        ),
        (
            ["--volume", "c:RUNS", "--volume", "s:SHARDS", "--config.init_from=x"],
            "init_from: x: expected the absolute",
        ),
        (
            ["--volume", "c:RUNS", "--volume", "s:SHARDS", "--config.loss.sync=x"],
            "loss.sync: x: expected the absolute",
        ),
        (
            ["--volume", "c:RUNS", "--volume", "s:SHARDS", "--config.loss.sync=/e"],
            "/e: lies on no",
        ),
        (["--volume", "c:RUNS", "--volume", "s:SHARDS", "--config.init_from=/x"], "/x: lies on no"),
        (
            ["--volume", "c:RUNS", "--volume", "s:SHARDS", "--config.audio.features=whisper:w"],
            "whisper:w: w: expected the absolute",
        ),
        (
            ["--volume", "c:RUNS", "--volume", "s:SHARDS", "--config.audio.features=whisper:/w"],
            "/w: lies on no volume",
        ),
        (
            ["--volume", "c:RUNS", "--volume", "s:SHARDS", "--pass", "WANDB_API_KEY"],
            "secret_keys.WANDB_API_KEY",
        ),
        (["--image", "a2fjax:1", "--volume", "c:RUNS"], "--allow-tag accepts it"),
        (
            ["--volume", "c:RUNS", "--volume", "s:SHARDS", "--container-image", "x"],
            "is for --scheduler slurm",
        ),
    ],
)
def test_pods_that_could_not_start_are_refused_at_the_desk(cli, capsys, arguments, says):
    words = [a.replace("RUNS", str(cli.runs)).replace("SHARDS", str(cli.shards)) for a in arguments]
    assert cli("submit", cli.experiment, *POD, *words) == 2
    err = capsys.readouterr().err
    assert says in err and err.count("\n") == 1
    assert not cli.runs.exists()


def test_commands_on_kubernetes_name_paths_on_volumes(cli, capsys):
    words = ["run", "r", *POD, "--volume", f"c:{cli.runs}", *cli.to, "--dry-run", "--"]
    assert submit.main([*words, "a2fjax", "evaluate", "/elsewhere/run"]) == 2
    assert "/elsewhere/run: lies on no volume" in capsys.readouterr().err
    assert submit.main([*words, "a2fjax", "evaluate", f"{cli.runs}/lips"]) == 0


def test_a_run_on_kubernetes_is_a_jobset_that_kubectl_applies(cli, monkeypatch, capsys):
    words = ["--name", "k", *POD, "--nodes", "2", "--volume", f"c:{cli.folder}"]
    words += ["--volume", f"s:{cli.shards}:ro"]
    assert cli("submit", cli.experiment, *words, "--dry-run") == 0
    secret, made = yaml.safe_load_all(capsys.readouterr().out)
    assert secret["kind"] == "Secret" and secret["metadata"]["name"] == made["metadata"]["name"]
    assert made["kind"] == "JobSet" and made["metadata"]["name"].startswith("a2f-k-")
    sweep = ["--sweep", 'grid("seed", 1, 2)', "--dry-run"]
    assert cli("submit", cli.experiment, *words, *sweep) == 0
    kinds = [one["kind"] for one in yaml.safe_load_all(capsys.readouterr().out)]
    assert kinds == ["Secret", "JobSet"] * 2
    with monkeypatch.context() as without:
        without.setenv("PATH", "")
        assert cli("submit", cli.experiment, *words[:1], "j", *words[2:]) == 2
    # What was written is complete: the manifest can be applied elsewhere.
    file = cli.runs / "j" / "launch" / "jobset.yaml"
    assert f"kubectl is not installed on this machine; apply {file}" in capsys.readouterr().err
    assert [one["kind"] for one in yaml.safe_load_all(file.read_text())] == ["Secret", "JobSet"]
    program = cli.folder / "bin" / "kubectl"
    program.parent.mkdir()
    program.write_text(f'#!/bin/sh\necho "$@" >>"{cli.folder}/calls"\n')
    program.chmod(0o755)
    monkeypatch.setenv("PATH", str(program.parent), prepend=os.pathsep)
    assert cli("submit", cli.experiment, *words) == 0
    assert record.submission(cli.runs / "k").job.startswith("a2f-k-")
    assert cli("status", "k") == 0
    assert "k: lost" in capsys.readouterr().out  # kubectl knows no such JobSet
    calls = (cli.folder / "calls").read_text().splitlines()
    assert calls[0].startswith("apply -f ") and calls[1].startswith("get jobset a2f-k-")
