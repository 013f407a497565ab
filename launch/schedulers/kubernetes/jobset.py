"""Manifests of runs: one JobSet per run, queued by Kueue where a queue is named.

A run is one replicated job of one Job with as many indexed pods as nodes. The environment holds
rank and coordinator, so pods need no access to the API. The end of a pod determines the next step:

    exit code 0                   done
    75 or SIGTERM (preemption)    the pod is restarted, not counted
    eviction, drained node        the pod is restarted, not counted
    2, bad input                  the run has failed; it would fail again
    anything else                 all pods are restarted, at most `max_restarts` times
"""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Mapping, Sequence
from pathlib import PurePosixPath
from typing import Any

from a2fjax.errors import EXIT_BAD_INPUT, InputError
from launch.jobs import formats, outcome
from launch.schedulers.kubernetes import manifests

WORKERS = "w"
"""Name of the only replicated job; short, because every pod's name contains it."""

PORT = 55527
GRACE_SECONDS = 300
"""From SIGTERM to SIGKILL: enough for a step and its checkpoint."""

QUEUE_LABEL = "kueue.x-k8s.io/queue-name"
PRIORITY_LABEL = "kueue.x-k8s.io/priority-class"
OPTIONS = frozenset(
    "image allow_tag namespace volume cpus mem shm queue priority kueue_priority suspend "
    "max_restarts keep_seconds node_selector".split()
)

_DIGEST = re.compile(r"\S+@sha256:[0-9a-f]{64}")
_VARIABLE = re.compile(r"[A-Za-z_][A-Za-z0-9_]*")
_SECRET_KEY = re.compile(r"[-._a-zA-Z0-9]+")
_RANKS = (
    "A2F_COORDINATOR",
    "A2F_LOCAL_DEVICES",
    "A2F_NUM_PROCESSES",
    "A2F_PROCESS_ID",
)
_KEEP_SECONDS = 7 * 24 * 3600
_INDEX = "metadata.annotations['batch.kubernetes.io/job-completion-index']"


@dataclasses.dataclass(frozen=True, kw_only=True)
class JobSetRun:
    """A run; words of the command are data and never pass through a shell.

    Attributes:
      name: name of the JobSet: lower-case letters, digits and "-", a letter first.
      command: command of every process, one per node.
      directory: working folder.
      nodes: number of pods, each with the devices of its own node.
      gpus: GPUs of each pod; 0 trains on CPUs.
      environment: variables of every pod.
      secrets: names of Secrets, all keys of which become environment variables.
      secret_keys: "SECRET/KEY" by environment variable.
    """

    name: str
    command: tuple[str, ...]
    directory: str
    nodes: int = 1
    gpus: int = 0
    environment: Mapping[str, str] = dataclasses.field(default_factory=dict)
    secrets: tuple[str, ...] = ()
    secret_keys: Mapping[str, str] = dataclasses.field(default_factory=dict)


def options(given: Mapping[str, Any]) -> dict[str, Any]:
    """Checks options of the command line and returns all of them, as JSON.

    Args:
      given: values by the names of `OPTIONS`; missing or None is the default.

    Raises:
      InputError: one is missing or has the wrong form.
    """
    values = {k: v for k, v in given.items() if v is not None}
    for label in ("queue", "priority", "kueue_priority"):
        if values.get(label) and not manifests.NAME.fullmatch(str(values[label])):
            flag = "--" + label.replace("_", "-")
            raise InputError(f"{flag} {values[label]!r}: expected the name of an object")
    # Values from a file may have any type.
    for label, least in (("max_restarts", 0), ("keep_seconds", 0), ("cpus", 1)):
        number = values.get(label, least)
        if not isinstance(number, int) or isinstance(number, bool) or number < least:
            flag = "--" + label.replace("_", "-")
            raise InputError(f"{flag} {number}: expected a whole number, {least} or more")
    for label in ("volume", "node_selector"):
        if not isinstance(values.get(label, []), list | tuple):
            flag = "--" + label.replace("_", "-")
            raise InputError(f"{flag} {values[label]!r}: expected a list")
    return {
        "image": _image(values.get("image"), bool(values.get("allow_tag"))),
        "namespace": manifests.namespace(values.get("namespace")),
        "volume": manifests.volume_texts(values.get("volume", [])),
        "cpus": values.get("cpus", 1),
        "mem": f"{formats.memory_mib(values['mem'])}Mi" if "mem" in values else None,
        "shm": f"{formats.memory_mib(values.get('shm', '16G'), '--shm')}Mi",
        "queue": values.get("queue"),
        "priority": values.get("priority"),
        "kueue_priority": values.get("kueue_priority"),
        "suspend": bool(values.get("suspend")),
        "max_restarts": values.get("max_restarts", 50),
        "keep_seconds": values.get("keep_seconds", _KEEP_SECONDS),
        "node_selector": _selector(values.get("node_selector", [])),
    }


def manifest(run: JobSetRun, options: Mapping[str, Any]) -> dict[str, Any]:
    """Returns the JobSet of a run.

    Args:
      run: the run.
      options: as `options` returned them.

    Raises:
      InputError: a name is too long or has invalid characters, or a number is out of range.
    """
    _check(run, options)
    labels = {"app.kubernetes.io/name": "a2fjax", "app.kubernetes.io/instance": run.name}
    queue = {
        label: options[name]
        for label, name in ((QUEUE_LABEL, "queue"), (PRIORITY_LABEL, "kueue_priority"))
        if options[name]
    }
    policy = {
        "maxRestarts": options["max_restarts"],
        # Pods of an attempt must be gone before those of the next can reuse their names.
        "restartStrategy": "BlockingRecreate",
        "rules": [
            {
                "name": "BadInput",
                "action": "FailJobSet",
                "onJobFailureReasons": ["PodFailurePolicy"],
            }
        ],
    }
    spec: dict[str, Any] = {
        "failurePolicy": policy,
        "network": {"enableDNSHostnames": True, "publishNotReadyAddresses": True},
        "ttlSecondsAfterFinished": options["keep_seconds"],
        "replicatedJobs": [
            {"name": WORKERS, "replicas": 1, "template": {"spec": _job(run, options, labels)}}
        ],
    }
    # Kueue suspends and releases queued JobSets through this field.
    if options["suspend"] or options["queue"]:
        spec["suspend"] = True
    return {
        "apiVersion": "jobset.x-k8s.io/v1alpha2",
        "kind": "JobSet",
        "metadata": {
            "name": run.name,
            "namespace": options["namespace"],
            "labels": {**labels, **queue},
        },
        "spec": spec,
    }


def render(run: JobSetRun, options: Mapping[str, Any]) -> str:
    """Returns the manifest as YAML."""
    return manifests.to_yaml([manifest(run, options)])


def longest_name(nodes: int) -> int:
    """Returns the largest length of a run's name.

    Pods are named NAME-w-0-INDEX-xxxxx, which must fit in 63 characters, as must their labels.
    """
    return 63 - len(f"-{WORKERS}-0-{nodes - 1}-xxxxx")


def _job(run: JobSetRun, options: Mapping[str, Any], labels: dict[str, str]) -> dict[str, Any]:
    exits = {"containerName": "main", "operator": "In"}
    stopped = sorted(map(int, outcome.STOP_CODES))
    rules = [
        {"action": "FailJob", "onExitCodes": {**exits, "values": [EXIT_BAD_INPUT]}},
        {"action": "Ignore", "onExitCodes": {**exits, "values": stopped}},
        manifests.DISRUPTED,
    ]
    pod = {
        "restartPolicy": "Never",
        "automountServiceAccountToken": False,
        "enableServiceLinks": False,
        "terminationGracePeriodSeconds": GRACE_SECONDS,
        **({"priorityClassName": options["priority"]} if options["priority"] else {}),
        **({"nodeSelector": options["node_selector"]} if options["node_selector"] else {}),
        **_pod(run, options),
    }
    return {
        "completionMode": "Indexed",
        "completions": run.nodes,
        "parallelism": run.nodes,
        # Ranks cannot continue without one of them, so any counted failure fails all.
        "backoffLimit": 0,
        "podReplacementPolicy": "Failed",
        "podFailurePolicy": {"rules": rules},
        "template": {"metadata": {"labels": dict(labels)}, "spec": pod},
    }


def _pod(run: JobSetRun, options: Mapping[str, Any]) -> dict[str, Any]:
    mounts, volumes = manifests.mounted(manifests.volumes(options["volume"]))
    # The loader's processes pass batches through shared memory; containers have 64 MiB by default.
    mounts.append({"name": "shm", "mountPath": "/dev/shm"})
    memory = {"medium": "Memory", "sizeLimit": options["shm"]}
    volumes.append({"name": "shm", "emptyDir": memory})
    requests: dict[str, Any] = {"cpu": str(options["cpus"])}
    limits: dict[str, Any] = {}
    if options["mem"]:
        requests["memory"] = limits["memory"] = options["mem"]
    if run.gpus:
        limits["nvidia.com/gpu"] = str(run.gpus)
    ranks = {
        "A2F_COORDINATOR": f"{run.name}-{WORKERS}-0-0.{run.name}:{PORT}",
        "A2F_NUM_PROCESSES": str(run.nodes),
        **({"A2F_LOCAL_DEVICES": str(run.gpus)} if run.gpus else {}),
    }
    secrets = [
        {"name": variable, "valueFrom": {"secretKeyRef": {"name": name, "key": key}}}
        for variable, (name, _, key) in sorted(
            (v, text.partition("/")) for v, text in run.secret_keys.items()
        )
    ]
    container: dict[str, Any] = {
        "name": "main",
        "image": options["image"],
        "command": [manifests.literal(word) for word in run.command],
        "workingDir": run.directory,
        "env": [
            *manifests.environment({**run.environment, **ranks}),
            {"name": "A2F_PROCESS_ID", "valueFrom": {"fieldRef": {"fieldPath": _INDEX}}},
            *secrets,
        ],
        "resources": {"requests": requests, **({"limits": limits} if limits else {})},
        "ports": [{"name": "coordinator", "containerPort": PORT}],
        "volumeMounts": mounts,
    }
    if run.secrets:
        container["envFrom"] = [{"secretRef": {"name": name}} for name in run.secrets]
    return {"containers": [container], "volumes": volumes}


def _check(run: JobSetRun, options: Mapping[str, Any]) -> None:
    if run.nodes < 1:
        raise InputError(f"--nodes {run.nodes}: expected 1 or more")
    if run.gpus < 0:
        raise InputError(f"--gpus {run.gpus}: expected 0 or more")
    if not run.command:
        raise InputError(f"{run.name}: no command")
    if not re.fullmatch(r"[a-z]([-a-z0-9]*[a-z0-9])?", run.name):
        raise InputError(
            f"name {run.name!r}: expected lower-case letters, digits and '-', a letter first"
        )
    most = longest_name(run.nodes)
    if len(run.name) > most:
        raise InputError(f"name {run.name!r}: {len(run.name)} characters; at most {most} fit")
    volumes = manifests.volumes(options["volume"])
    inside = [v for v in volumes if PurePosixPath(run.directory).is_relative_to(v[1])]
    if not PurePosixPath(run.directory).is_absolute():
        raise InputError(f"{run.directory}: expected an absolute path inside the containers")
    if inside and max(inside, key=lambda v: len(v[1]))[2]:
        raise InputError(f"{run.directory}: lies on a volume that is mounted read-only")
    for variable in (*run.environment, *run.secret_keys):
        if not _VARIABLE.fullmatch(variable):
            raise InputError(f"environment {variable!r}: expected letters, digits and '_'")
        if variable in _RANKS:
            raise InputError(f"environment {variable}: is set by the launcher")
    for both in sorted(run.environment.keys() & run.secret_keys.keys()):
        raise InputError(f"environment {both}: is a value and a secret; give it once")
    for variable, text in run.secret_keys.items():
        name, slash, key = text.partition("/")
        if not slash or not manifests.NAME.fullmatch(name) or not _SECRET_KEY.fullmatch(key):
            raise InputError(f"secret of {variable}: {text!r}: expected SECRET/KEY")
    for name in run.secrets:
        if not manifests.NAME.fullmatch(name):
            raise InputError(f"secret {name!r}: expected the name of a Secret")


def _image(image: str | None, allow_tag: bool) -> str:
    if not image:
        raise InputError("--image: an image that holds a2fjax is needed, by its digest")
    if re.search(r"\s", image):
        raise InputError(f"--image {image!r}: expected a name without spaces")
    if not _DIGEST.fullmatch(image) and not allow_tag:
        raise InputError(
            f"--image {image}: expected NAME@sha256:DIGEST; the image of a tag can change "
            "between a run's restarts (--allow-tag accepts it)"
        )
    return image


def _selector(texts: Sequence[str]) -> dict[str, str]:
    selector = {}
    for text in texts:
        key, equals, value = text.partition("=")
        if not equals or not key:
            raise InputError(f"--node-selector {text}: expected LABEL=VALUE")
        selector[key] = value
    return selector
