"""A run imports the code that was pinned: not the checkout, and nothing that was put in between."""

import dataclasses
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from a2fjax import configuration
from a2fjax.data import records
from a2fjax.data.feature_cache import inventory
from a2fjax.errors import InputError
from launch import submit
from launch.jobs import checked_code, record
from launch.schedulers.slurm import script
from launch.submission import snapshot
from launch.submission import submit as submission

ROOT = Path(__file__).parents[2]


@pytest.fixture
def checkout(tmp_path, monkeypatch):
    """A small checkout of the project, which snapshots are taken of."""
    folder = tmp_path / "checkout"
    for name in ("a2fjax", "launch"):
        shutil.copytree(ROOT / name, folder / name, ignore=shutil.ignore_patterns("__pycache__"))
    for words in (["init", "-q"], ["add", "."]):
        subprocess.run(["git", "-C", folder, *words], check=True)
    monkeypatch.setitem(snapshot.take.__kwdefaults__, "code", folder)
    return folder


def log(run):
    return (run / "launch" / "logs" / "rank-0.log").read_text()


def test_a_checkout_that_is_edited_while_a_job_waits_has_no_effect(cli, checkout, monkeypatch):
    monkeypatch.chdir(checkout)  # `python -m` imports from here, unless the job prevents it.
    waited = []

    def ready():
        waited.append(True)
        for name in ("a2fjax/__init__.py", "launch/__init__.py", "launch/jobs/worker.py"):
            (checkout / name).write_text("raise SystemExit('the checkout was imported')\n")
        return len(waited) > 1

    resolve = submission.dependencies.resolve
    monkeypatch.setattr(
        submission.dependencies,
        "resolve",
        lambda *words: dataclasses.replace(resolve(*words), ready=ready),
    )
    assert submit.main(["run", "one", *cli.to, "--", "a2fjax", "config"]) == 0
    assert len(waited) == 2
    assert "the checkout was imported" not in log(cli.runs / "one")
    spec = record.read(cli.runs / "one")
    assert spec.code == str(cli.runs / ".code" / spec.snapshot) and spec.directory == str(checkout)
    # Nothing was written into the snapshot, which the next run checks again.
    assert not list(Path(spec.code).rglob("__pycache__"))


PROBE = """
import pathlib, sys
import a2fjax, data_pipeline
words = sys.argv[1:]
out = pathlib.Path(words[words.index("--out") + 1])
name = words[words.index("--part") + 1][0] if "--part" in words else "finish"
(out / f"{name}.from").write_text(f"{a2fjax.__file__}\\n{data_pipeline.__file__}\\n")
"""


@pytest.fixture
def edited(checkout, tmp_path, monkeypatch):
    """A checkout whose whole code is broken while an array waits, and a file beside it."""
    (checkout / "data_pipeline").mkdir()
    (checkout / "data_pipeline" / "__init__.py").touch()
    (checkout / "data_pipeline" / "build.py").write_text(PROBE)
    subprocess.run(["git", "-C", checkout, "add", "."], check=True)
    monkeypatch.chdir(checkout)
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    monkeypatch.setenv("KUBECONFIG", str(tmp_path / "none"))
    experiment, waited = tmp_path / "experiment.py", []

    def ready():
        waited.append(True)
        for path in (*checkout.rglob("*.py"), experiment):
            path.write_text("raise SystemExit('what was edited was imported')\n")
        return len(waited) > 1

    resolve = submission.dependencies.resolve
    monkeypatch.setattr(
        submission.dependencies,
        "resolve",
        lambda *words: dataclasses.replace(resolve(*words), ready=ready),
    )
    yield experiment
    assert len(waited) > 1


def test_a_build_runs_from_its_snapshot(edited, tmp_path):
    (tmp_path / "in").mkdir()
    out = tmp_path / "shards"
    words = ["build", str(tmp_path / "in"), "--out", str(out), "--elements", "2"]
    assert submit.main(words) == 0
    spec = record.read(out / ".build")
    assert spec.code == str(out / ".build" / ".code" / spec.snapshot)
    for name in ("1", "2", "finish"):
        lines = (out / f"{name}.from").read_text().splitlines()
        assert lines == [f"{spec.code}/{p}/__init__.py" for p in ("a2fjax", "data_pipeline")]
    # A snapshot that was changed does not run.
    (out / "1.from").unlink()
    (Path(spec.code) / "sitecustomize.py").write_text("")
    (out / ".build" / "elements" / "1" / "launch" / "exit").write_text("1\n")
    assert submit.main(["retry", str(out)]) == 2
    assert not (out / "1.from").exists()
    text = (out / ".build" / "elements" / "1" / "launch" / "logs" / "rank-0.log").read_text()
    assert "was changed" in text and "same command again" in text


def test_a_cache_runs_from_its_snapshot_with_the_experiment_as_it_was(
    edited, tmp_path, tiny_shards, tiny_encoder
):
    shards = shutil.copytree(tiny_shards, tmp_path / "shards")
    edited.write_text(
        "def get_config():\n"
        f"    return {{'name': 'mine', 'audio': {{'features': ('mel', {tiny_encoder!r})}}}}\n"
    )
    words = ["cache", str(shards), "--config", str(edited), "--elements", "1"]
    assert submit.main(words) == 0
    (found,) = inventory.caches(shards, records.read_manifest(shards))
    assert found.state == "complete"
    folder = shards / "feature_cache" / ".build"
    spec = record.read(folder)
    assert spec.code == str(folder / ".code" / spec.snapshot) and spec.steps is None
    pinned = configuration.load(folder / "launch" / "config.json")
    assert pinned.config.audio.features == ("mel", tiny_encoder)
    assert pinned.sources["audio.features"] == str(edited)


def test_a_snapshot_that_was_changed_does_not_run(cli, checkout, capsys):
    assert submit.main(["run", "one", *cli.to, "--", "a2fjax", "config"]) == 0
    run = cli.runs / "one"
    code, whole = Path(record.read(run).code), cli.folder / "whole"
    code.rename(whole)
    planted = f"open({str(cli.folder / 'planted')!r}, 'w')\n"
    for what in ("changed", "added", "linked", "removed"):
        if what != "removed":
            shutil.copytree(whole, code)
        if what == "changed":
            (code / "launch" / "jobs" / "worker.py").unlink()
            (code / "launch" / "jobs" / "worker.py").write_text(planted)
        elif what == "added":
            (code / "sitecustomize.py").write_text(planted)  # Python imports it at its start.
        elif what == "linked":
            shutil.rmtree(code)
            code.symlink_to(whole)
        (run / "launch" / "exit").write_text("1\n")
        capsys.readouterr()
        assert cli("retry", "one") == 2, what
        err = capsys.readouterr().err
        assert f"{code}: the snapshot of the code " in err, what
        assert "--new-code` takes a new one" in err
        assert not (cli.folder / "planted").exists()
        if what == "linked":
            with pytest.raises(InputError, match="remove the folder and submit again"):
                snapshot.take(cli.runs)
            code.unlink()
        elif what != "removed":
            shutil.rmtree(code)


def test_a_planted_snapshot_is_not_adopted(cli, checkout):
    expected, digest = snapshot.take(cli.runs, keep=False)
    (Path(expected) / "a2fjax").mkdir(parents=True)
    (Path(expected) / "a2fjax" / "__init__.py").write_text("print('planted')\n")
    with pytest.raises(InputError, match=f"{digest}: .* was changed: .*first a2fjax/__init__.py"):
        snapshot.take(cli.runs)
    shutil.rmtree(expected)
    code, digest = snapshot.take(cli.runs)
    assert checked_code.wrong(code, digest) == ""


def test_compiled_files_of_others_are_not_run(cli, checkout):
    """Python prefers a compiled file to the source that the digest covers."""
    code, digest = snapshot.take(cli.runs)
    cache = Path(code) / "launch" / "__pycache__"
    cache.mkdir()
    (cache / f"__init__.{sys.implementation.cache_tag}.pyc").write_bytes(b"planted")
    assert checked_code.wrong(code, digest) == "" and not cache.exists()
    (Path(code) / "launch" / "__init__.pyc").write_bytes(b"planted")
    assert "was changed" in checked_code.wrong(code, digest)


def test_names_and_contents_are_told_apart():
    one = checked_code.digest({"a": ("link", "b\nc"), "d": ("file", "0")})
    assert one != checked_code.digest({"a": ("link", "b"), "c\nd": ("file", "0")})
    assert one != checked_code.digest({"a": ("link", "b\nc"), "d": ("link", "0")})
    assert one == checked_code.digest({"d": ("file", "0"), "a": ("link", "b\nc")})


def test_a_slurm_script_checks_the_snapshot_before_it_runs_anything_of_it(cli, tmp_path):
    assert cli("submit", cli.experiment, "--name", "one") == 0
    run = cli.runs / "one"
    spec = dataclasses.replace(
        record.read(run), scheduler="slurm", snapshot="0" * 16,
        options={"setup": [], "srun": [], "sbatch": [], "notice_seconds": 120, "gpu_type": None,
                 "gpu_option": "gpus-per-node", "partition": None, "account": None, "qos": None,
                 "constraint": None},
    )  # fmt: skip
    record.write(run, spec)
    job = submission.run_job(run, cli.runs, [(run, spec)], None)
    done = subprocess.run(
        ["bash"], input=script.of_elements(job), text=True, capture_output=True, cwd=tmp_path
    )
    assert done.returncode == 2, done.stderr
    assert done.stderr.count("was changed") == 2  # the worker, and the decision about a requeue
    assert (run / "launch" / "exit").read_text() == "2\n" and len(cli.starts("one")) == 1
