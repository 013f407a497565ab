"""The pods of runs and arrays: one container, its resources, volumes and privileges."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import PurePosixPath
from typing import Any

from a2fjax.errors import InputError
from launch.jobs import formats
from launch.jobs.spec import Resources
from launch.schedulers.kubernetes import manifests
from launch.schedulers.kubernetes import options as option_lib

QUEUE_LABEL = "kueue.x-k8s.io/queue-name"
PRIORITY_LABEL = "kueue.x-k8s.io/priority-class"
KEEP_SECONDS = 7 * 24 * 3600
"""Default time until ended jobs are deleted."""

# A share of a node for each of its GPUs. Common nodes of 8 GPUs offer 96 to 224 cores and 1 to
# 2 TiB, some of which belongs to the system.
_CPUS_PER_GPU, _MIB_PER_GPU = 8, 64 * 1024
_CPUS, _MIB = 4, 16 * 1024
_MIB_PER_ELEMENT = 4 * 1024
_LARGEST_SHM_MIB = 16 * 1024


def labels(instance: str) -> dict[str, str]:
    """Returns the labels of all objects of a run or array."""
    return {"app.kubernetes.io/name": "a2fjax", "app.kubernetes.io/instance": instance}


def queue_labels(options: Mapping[str, Any]) -> dict[str, str]:
    """Returns the labels with which Kueue queues an object; {} without a queue or priority."""
    named = ((QUEUE_LABEL, "queue"), (PRIORITY_LABEL, "kueue_priority"))
    return {label: options[name] for label, name in named if options.get(name)}


def suspended(options: Mapping[str, Any]) -> dict[str, bool]:
    """Returns `suspend` of an object; Kueue releases queued objects through this field."""
    return {"suspend": True} if options.get("suspend") or options.get("queue") else {}


def requests(resources: Resources, *, array: bool) -> tuple[int, int]:
    """Returns the cores and MiB that a pod requests, by default a share for each GPU."""
    gpus = resources.gpus or 0
    cpus = resources.cpus or gpus * _CPUS_PER_GPU or (1 if array else _CPUS)
    usual = cpus * _MIB_PER_ELEMENT if array else _MIB
    return cpus, resources.mem_mib or gpus * _MIB_PER_GPU or usual


def spec(
    container: Mapping[str, Any],
    options: Mapping[str, Any],
    resources: Resources,
    *,
    array: bool,
    grace_seconds: int,
) -> dict[str, Any]:
    """Returns the specification of a pod.

    Args:
      container: name, command, workingDir, env and ports of the container.
      options: as `options.check` returned them.
      resources: resources of the pod.
      array: whether it is an element or the last command of an array.
      grace_seconds: time from SIGTERM to SIGKILL.
    """
    cpus, mib = requests(resources, array=array)
    # A limit on memory ends the pod, so only a given amount is one.
    given = {"memory": f"{resources.mem_mib}Mi"} if resources.mem_mib else {}
    devices = option_lib.devices(options.get("rdma", []))
    limits = {
        **given,
        **({"nvidia.com/gpu": str(resources.gpus)} if resources.gpus else {}),
        **devices,
    }
    mounts, volumes = manifests.mounted(manifests.volumes(options.get("volume", [])))
    # Processes of a loader exchange batches through shared memory; the default is 64 MiB.
    mounts.append({"name": "shm", "mountPath": "/dev/shm"})
    volumes.append(
        {"name": "shm", "emptyDir": {"medium": "Memory", "sizeLimit": _shm(options, mib)}}
    )
    full: dict[str, Any] = {
        **container,
        "image": options["image"],
        "resources": {
            "requests": {"cpu": str(cpus), "memory": f"{mib}Mi"},
            **({"limits": limits} if limits else {}),
        },
        "securityContext": _privileges(options, rdma=bool(devices)),
        "volumeMounts": mounts,
    }
    full["env"] = [*container["env"], *_secret_keys(options)]
    if options.get("secrets"):
        full["envFrom"] = [{"secretRef": {"name": name}} for name in options["secrets"]]
    optional = {
        "priorityClassName": options.get("priority"),
        "nodeSelector": option_lib.selector(options.get("node_selector", [])),
        "tolerations": option_lib.tolerations(options.get("toleration", [])),
        "imagePullSecrets": [{"name": name} for name in options.get("pull_secret", [])],
        "serviceAccountName": options.get("service_account"),
    }
    return {
        "restartPolicy": "Never",
        # Training needs no access to the API. Who names an account wants its token.
        "automountServiceAccountToken": bool(options.get("service_account")),
        "enableServiceLinks": False,
        "terminationGracePeriodSeconds": grace_seconds,
        **{k: v for k, v in optional.items() if v},
        "securityContext": _identity(options),
        "containers": [full],
        "volumes": volumes,
    }


def check_mounted(options: Mapping[str, Any], path: str, *, written: bool) -> None:
    """Checks that a path lies on a volume and not in a container's own file system.

    Raises:
      InputError: it does not, or the volume is read-only and the path is `written`.
    """
    if not PurePosixPath(path).is_absolute():
        raise InputError(f"{path}: expected an absolute path inside the containers")
    volumes = manifests.volumes(options.get("volume", []))
    inside = [v for v in volumes if PurePosixPath(path).is_relative_to(v[1])]
    if not inside:
        mounts = ", ".join(v[1] for v in volumes) or "none was given"
        raise InputError(f"{path}: lies on no volume ({mounts}); add --volume CLAIM:PATH")
    if written and max(inside, key=lambda v: len(v[1]))[2]:
        raise InputError(f"{path}: lies on a volume that is mounted read-only")


def check_environment(
    values: Mapping[str, str], options: Mapping[str, Any], reserved: Sequence[str] = ()
) -> None:
    """Checks the environment of a container.

    Raises:
      InputError: a name is not valid, is `reserved`, or has a value and a secret.
    """
    for variable in (*values, *options.get("secret_keys", {})):
        if not option_lib.VARIABLE.fullmatch(variable):
            raise InputError(f"environment {variable!r}: expected letters, digits and '_'")
        if variable in reserved:
            raise InputError(f"environment {variable}: is set by the launcher")
    for both in sorted(values.keys() & options.get("secret_keys", {}).keys()):
        raise InputError(f"environment {both}: is a value and a secret; give it once")


def _shm(options: Mapping[str, Any], mib: int) -> str:
    if "shm" in options:
        return f"{formats.memory_mib(options['shm'], '--shm')}Mi"
    return f"{min(_LARGEST_SHM_MIB, mib // 2)}Mi"


def _secret_keys(options: Mapping[str, Any]) -> Sequence[dict[str, Any]]:
    result = []
    for variable, text in sorted(options.get("secret_keys", {}).items()):
        name, _, key = text.partition("/")
        source = {"secretKeyRef": {"name": name, "key": key}}
        result.append({"name": variable, "valueFrom": source})
    return result


def _identity(options: Mapping[str, Any]) -> dict[str, Any]:
    """Returns `securityContext` of a pod."""
    user, group, volumes = (options.get(k) for k in ("run_as_user", "run_as_group", "fs_group"))
    result: dict[str, Any] = {"seccompProfile": {"type": "RuntimeDefault"}}
    if user is not None:
        result |= {"runAsUser": user, "runAsNonRoot": user != 0}
    if group is not None:
        result["runAsGroup"] = group
    if volumes is not None:
        # Changing the owner of every file of a large volume would delay each start.
        result |= {"fsGroup": volumes, "fsGroupChangePolicy": "OnRootMismatch"}
    return result


def _privileges(options: Mapping[str, Any], *, rdma: bool) -> dict[str, Any]:
    """Returns `securityContext` of a container."""
    # Root keeps its capabilities: it may need them to write to volumes of other owners.
    capabilities = {"drop": ["ALL"]} if options.get("run_as_user") else {}
    if rdma:
        capabilities["add"] = ["IPC_LOCK"]  # RDMA pins memory.
    return {
        "allowPrivilegeEscalation": False,
        **({"capabilities": capabilities} if capabilities else {}),
    }
