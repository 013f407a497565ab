import importlib.metadata
import json

import pytest

from a2fjax.cli import main

SMALL = "--config.model.conv_width=16 --config.model.recurrent_width=16".split()
EXPERIMENT = "experiments/regression_v2_3.py:demo"


def inspect(capsys, *args):
    code = main.main(["inspect", *map(str, args)])
    shown = capsys.readouterr()
    return code, shown.out, shown.err


@pytest.mark.parametrize(
    ("args", "message"),
    [
        (["--devices", "gpu:8"], "--devices gpu:8: unknown kind 'gpu'"),
        (["--devices", "h100:9"], "the nearest is h100:8"),
        (["--devices", "cpu:8", "--mfu", "2"], "--mfu 2: expected a share above 0, at most 1"),
        (["--devices", "cpu:8", "--mfu", "half"], "--mfu half: expected a number above 0"),
        (["--devices", "cpu:8", "--link-gbps", "450"], "expected two numbers"),
        (["--devices", "cpu:8", "--link-gbps", "450,-1"], "--link-gbps -1: expected a number"),
        (["--devices", "cpu:8", "--batch-per-device", "0"], "expected a whole number from 1 on"),
        (["--devices", "cpu:8,cpu:16", "--hlo", "x"], "--hlo x: is of one topology"),
        (["--mfu", "0.5"], "--mfu is of devices: give --devices KIND:N too"),
        (["--json"], "--json is of devices"),
        (["--devices", "cpu:8", "--step", "3"], "none of --take, --weights, --step"),
        (["--devices", "cpu:8", "--config.data.batch_sise=3"], "did you mean"),
    ],
)
def test_wrong_arguments_are_one_line(capsys, args, message):
    code, out, error = inspect(capsys, EXPERIMENT, *args)
    assert code == 2 and message in error and not out and error.count("\n") == 1


def test_devices_are_of_an_experiment(capsys, tmp_path):
    code, _, error = inspect(capsys, tmp_path, "--devices", "cpu:8")
    assert code == 2 and "expected one experiment (.py)" in error


def test_without_packages_one_line_says_what_to_install(capsys, monkeypatch):
    real = importlib.metadata.version

    def version(name):
        if name.startswith(("jax-cuda12", "nvidia-")):
            raise importlib.metadata.PackageNotFoundError(name)
        return real(name)

    monkeypatch.setattr(importlib.metadata, "version", version)
    # Before anything is compiled, whatever comes first.
    code, _, error = inspect(capsys, EXPERIMENT, "--devices", "cpu:8,h100:8")
    assert code == 2 and "pip install --no-deps jax-cuda12-plugin==" in error
    assert error.count("\n") == 1


def test_batches_that_do_not_divide_are_one_line(capsys):
    code, _, error = inspect(
        capsys, EXPERIMENT, *SMALL, "--devices", "cpu:6", "--config.data.batch_size=16"
    )
    assert code == 2 and error.splitlines()[-1].endswith("the nearest that can is 18")
    assert "Traceback" not in error


@pytest.mark.slow
def test_report_and_json(capsys, tmp_path):
    links = ["--link-gbps", "100,10", "--mfu", "0.4", "--batch-per-device", "1"]
    code, out, _ = inspect(
        capsys, EXPERIMENT, *SMALL, *links, "--devices", "cpu:16", "--json",
        "--hlo", tmp_path / "step.hlo", "--config.sharding.preset=host",
        "--config.sharding.min_mib=0.01",
    )  # fmt: skip
    assert code == 0
    found = json.loads(out)
    assert found["assumed"]["intra"] == 100 and found["assumed"]["mfu"] == 0.4
    (one,) = found["topologies"]
    assert one["mesh"] == {"data": 2, "fsdp": 8} and one["hosts"] == 2 and one["batch_size"] == 16
    assert one["room"]["fits"] and 0 < one["predicted"]["efficiency"] <= 1
    groups = {(row["kind"], row["group"], row["hosts"]) for row in one["collectives"]}
    assert ("all-gather", 8, 1) in groups
    assert (tmp_path / "step.hlo").read_text().startswith("HloModule")
    code, out, _ = inspect(capsys, EXPERIMENT, *SMALL, "--devices", "cpu:1,cpu:2")
    assert code == 0 and "no device tells another anything" in out and "inside a host" in out
    assert "assumed, not measured:" in out and "10 us a collective" in out
