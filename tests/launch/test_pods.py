"""Pods of runs and arrays: what they request, where they may run, and options that are wrong."""

import pytest

from a2fjax.errors import InputError
from launch.jobs.spec import Resources
from launch.schedulers.kubernetes import options as option_lib
from launch.schedulers.kubernetes import pods

DIGEST = "example.org/a2fjax@sha256:" + "0" * 64
FULL = {
    "node_selector": ["cloud/pool=h100"],
    "toleration": ["nvidia.com/gpu", "pool=faces:NoSchedule", "spot=:NoExecute"],
    "pull_secret": ["registry"],
    "service_account": "trainer",
    "rdma": ["rdma/hca=8"],
    "run_as_user": 1000,
    "run_as_group": 100,
    "fs_group": 2000,
}


def options(**given):
    return option_lib.check({"image": DIGEST, "volume": ["scans:/data"], **given})


def pod(given=None, **sizes):
    resources = Resources(gpus=8, **sizes)
    container = {"name": "main", "env": []}
    return pods.spec(container, options(**given or {}), resources, array=False, grace_seconds=9)


@pytest.mark.parametrize(
    ("gpus", "array", "cpus", "gib"),
    [(8, False, 64, 512), (1, False, 8, 64), (0, False, 4, 16), (None, True, 1, 4)],
)
def test_requests_grow_with_the_gpus(gpus, array, cpus, gib):
    assert pods.requests(Resources(gpus=gpus), array=array) == (cpus, gib * 1024)
    given = Resources(gpus=gpus, cpus=3, mem_mib=5)
    assert pods.requests(given, array=array) == (3, 5)


def test_only_a_given_memory_is_a_limit():
    def resources(**what):
        return pod(**what)["containers"][0]["resources"]

    assert "memory" not in resources()["limits"]
    assert resources(mem_mib=1024)["limits"]["memory"] == "1024Mi"
    assert resources(mem_mib=1024)["requests"]["memory"] == "1024Mi"


def test_shared_memory_fits_into_a_given_memory():
    def size(**what):
        volumes = pod(**what)["volumes"]
        return {v["name"]: v for v in volumes}["shm"]["emptyDir"]["sizeLimit"]

    assert size() == "16384Mi" and size(mem_mib=8192) == "4096Mi"


def test_what_a_cluster_may_ask_for_is_in_the_pod():
    found = pod(FULL)
    container = found["containers"][0]
    assert found["tolerations"] == [
        {"key": "nvidia.com/gpu", "operator": "Exists"},
        {"key": "pool", "operator": "Equal", "value": "faces", "effect": "NoSchedule"},
        {"key": "spot", "operator": "Equal", "value": "", "effect": "NoExecute"},
    ]
    assert found["nodeSelector"] == {"cloud/pool": "h100"}
    assert found["imagePullSecrets"] == [{"name": "registry"}]
    assert found["serviceAccountName"] == "trainer" and found["automountServiceAccountToken"]
    assert container["resources"]["limits"] == {"nvidia.com/gpu": "8", "rdma/hca": "8"}
    assert container["securityContext"]["capabilities"] == {"drop": ["ALL"], "add": ["IPC_LOCK"]}
    identity = found["securityContext"]
    assert identity["runAsNonRoot"] and (identity["runAsUser"], identity["runAsGroup"]) == (
        1000,
        100,
    )
    assert identity["fsGroup"] == 2000
    plain = pod()
    assert not plain["automountServiceAccountToken"] and "tolerations" not in plain
    assert plain["containers"][0]["securityContext"] == {"allowPrivilegeEscalation": False}


@pytest.mark.parametrize(
    ("given", "word"),
    [
        ({"image": None}, "by its digest"),
        ({"image": "example.org/a2fjax:1.2"}, "--allow-tag"),
        ({"image": "example.org/a2fjax@sha256:12"}, "sha256:DIGEST"),
        ({"image": "a b"}, "without spaces"),
        ({"namespace": "My_Space"}, "--namespace"),
        ({"queue": "A b"}, "--queue"),
        ({"kueue_priority": "A b"}, "--kueue-priority"),
        ({"max_restarts": -1}, "--max-restarts"),
        ({"max_restarts": "3"}, "--max-restarts"),
        ({"keep_seconds": True}, "--keep-seconds"),
        ({"volume": "scans:/data"}, "expected a list"),
        ({"allow_tag": "yes"}, "--allow-tag 'yes': expected true or false"),
        ({"pull_secret": ["A b"]}, "--pull-secret"),
        ({"service_account": "A b"}, "--service-account"),
        ({"rdma": ["hca=8"]}, "--rdma hca=8: expected RESOURCE=N"),
        ({"rdma": ["rdma/hca"]}, "--rdma"),
        ({"rdma": ["rdma/hca=0"]}, "--rdma"),
        ({"toleration": ["a=b:NoShedule"]}, "did you mean 'NoSchedule'"),
        ({"toleration": [":NoSchedule"]}, "--toleration"),
        ({"toleration": ["a b"]}, "--toleration"),
        ({"run_as_user": -1}, "--run-as-user -1"),
        ({"fs_group": True}, "--fs-group"),
        ({"secret_keys": {"X": "token"}}, "SECRET/KEY"),
        ({"secret_keys": {"A B": "a/b"}}, "expected a variable"),
        ({"secret_keys": ["X"]}, "expected VARIABLE"),
        ({"secrets": ["My Secret"]}, "name of an object"),
        ({"shm": "8"}, "--shm 8"),
        ({"volume": ["scans"]}, "CLAIM:/PATH"),
        ({"node_selector": ["x"]}, "LABEL=VALUE"),
        ({"node_selector": ["a b=c"]}, "LABEL=VALUE"),
    ],
)
def test_wrong_options_are_named(given, word):
    with pytest.raises(InputError, match=word):
        options(**given)
