import importlib.metadata

import pytest

from a2fjax.errors import InputError
from a2fjax.plan import topologies
from a2fjax.plan.topologies import Topology


def test_names():
    assert topologies.parse("cpu:64") == [Topology("cpu", 64)]
    assert topologies.parse("h100:8, H100:256") == [Topology("h100", 8), Topology("h100", 256)]
    assert Topology("h100", 64).hosts == 8 and Topology("cpu", 12).hosts == 2


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("h10:8", "did you mean 'h100'"),
        ("tpu:8", "unknown kind 'tpu'; .*cpu"),
        ("h100", "expected KIND:COUNT, such as h100:64"),
        ("h100:x", "expected KIND:COUNT"),
        ("cpu:0", "expected 1 to 1024 devices; nearest is 1"),
        ("cpu:4096", "nearest is 1024"),
        ("h100:12", "nearest is h100:1?[68]"),
        ("cpu:8,", "unknown kind ''"),
    ],
)
def test_what_cannot_be_is_named(text, message):
    with pytest.raises(InputError, match=message):
        topologies.parse(text)


def test_missing_packages_are_one_command(monkeypatch):
    def version(name):
        if name == "jax":
            return "0.10.2"
        raise importlib.metadata.PackageNotFoundError(name)

    monkeypatch.setattr(importlib.metadata, "version", version)
    assert topologies.missing(Topology("cpu", 8)) == ""
    assert topologies.missing(Topology("h100", 8)) == (
        "pip install --no-deps jax-cuda12-plugin==0.10.2 jax-cuda12-pjrt==0.10.2 "
        "nvidia-cuda-nvcc-cu12"
    )
    with pytest.raises(InputError, match="pip install --no-deps"):
        topologies.look(None, Topology("h100", 8))
    versions = {"jax": "0.10.2", "jax-cuda12-plugin": "0.9.0"}
    monkeypatch.setattr(importlib.metadata, "version", lambda name: versions.get(name, "0.10.2"))
    with pytest.raises(InputError, match="jax-cuda12-plugin is 0.9.0 and jax is 0.10.2"):
        topologies.missing(Topology("h100", 8))


def test_processes_see_their_own_devices(monkeypatch):
    monkeypatch.setenv("JAX_PLATFORMS", "cpu")
    monkeypatch.setenv("XLA_FLAGS", "--xla_force_host_platform_device_count=4 --xla_dump_to=d")
    monkeypatch.setenv("TF_CPP_MIN_LOG_LEVEL", "3")
    cpu, gpu = (topologies.environment(Topology(kind, 8)) for kind in ("cpu", "h100"))
    assert cpu["XLA_FLAGS"] == "--xla_dump_to=d" and cpu["JAX_PLATFORMS"] == "cpu"
    assert "JAX_PLATFORMS" not in gpu and gpu["JAX_SKIP_CUDA_CONSTRAINTS_CHECK"] == "1"
    assert gpu["TF_CPP_MIN_LOG_LEVEL"] == "1"
