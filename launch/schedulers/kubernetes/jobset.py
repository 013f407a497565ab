"""Manifests of runs: one JobSet per run, queued by Kueue where a queue is named.

A run is one replicated job of one Job with as many indexed pods as nodes. The environment holds
rank and coordinator, so pods need no access to the API. The end of a pod determines the next step:

    exit code 0                   done
    75 or SIGTERM (preemption)    the pod is restarted, not counted
    eviction, drained node        the pod is restarted, not counted
    2, bad input                  the run has failed; it would fail again
    anything else                 all pods are restarted, at most `--max-restarts` times
"""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Mapping
from typing import Any

from a2fjax.errors import EXIT_BAD_INPUT, InputError
from launch.jobs import outcome
from launch.jobs.spec import Resources
from launch.schedulers.kubernetes import manifests, pods

WORKERS = "w"
"""Name of the only replicated job; short, because every pod's name contains it."""

PORT = 55527
GRACE_SECONDS = 300
"""From SIGTERM to SIGKILL: enough for a step and its checkpoint."""

MAX_RESTARTS = 50
_RANKS = (
    "A2F_COORDINATOR",
    "A2F_LOCAL_DEVICES",
    "A2F_NUM_PROCESSES",
    "A2F_PROCESS_ID",
)
_INDEX = "metadata.annotations['batch.kubernetes.io/job-completion-index']"


@dataclasses.dataclass(frozen=True, kw_only=True)
class JobSetRun:
    """A run; words of the command are data and never pass through a shell.

    Attributes:
      name: name of the JobSet: lower-case letters, digits and "-", a letter first.
      command: command of every process, one per node.
      directory: working folder.
      resources: nodes, each one pod, and what each pod gets; without GPUs it trains on CPUs.
      environment: variables of every pod.
    """

    name: str
    command: tuple[str, ...]
    directory: str
    resources: Resources = Resources()
    environment: Mapping[str, str] = dataclasses.field(default_factory=dict)


def manifest(run: JobSetRun, options: Mapping[str, Any]) -> dict[str, Any]:
    """Returns the JobSet of a run.

    Args:
      run: the run.
      options: as `options.check` returned them.

    Raises:
      InputError: a name is too long or has invalid characters, or a number is out of range.
    """
    _check(run, options)
    labels = pods.labels(run.name)
    policy = {
        "maxRestarts": options.get("max_restarts", MAX_RESTARTS),
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
        "ttlSecondsAfterFinished": options.get("keep_seconds", pods.KEEP_SECONDS),
        "replicatedJobs": [
            {"name": WORKERS, "replicas": 1, "template": {"spec": _job(run, options, labels)}}
        ],
        **pods.suspended(options),
    }
    return {
        "apiVersion": "jobset.x-k8s.io/v1alpha2",
        "kind": "JobSet",
        "metadata": {
            "name": run.name,
            "namespace": manifests.namespace(options.get("namespace")),
            "labels": {**labels, **pods.queue_labels(options)},
        },
        "spec": spec,
    }


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
    pod = pods.spec(
        _container(run), options, run.resources, array=False, grace_seconds=GRACE_SECONDS
    )
    return {
        "completionMode": "Indexed",
        "completions": run.resources.nodes,
        "parallelism": run.resources.nodes,
        # Ranks cannot continue without one of them, so any counted failure fails all.
        "backoffLimit": 0,
        "podReplacementPolicy": "Failed",
        "podFailurePolicy": {"rules": rules},
        "template": {"metadata": {"labels": dict(labels)}, "spec": pod},
    }


def _container(run: JobSetRun) -> dict[str, Any]:
    gpus = run.resources.gpus
    ranks = {
        "A2F_COORDINATOR": f"{run.name}-{WORKERS}-0-0.{run.name}:{PORT}",
        "A2F_NUM_PROCESSES": str(run.resources.nodes),
        **({"A2F_LOCAL_DEVICES": str(gpus)} if gpus else {}),
    }
    return {
        "name": "main",
        "command": [manifests.literal(word) for word in run.command],
        "workingDir": run.directory,  # not expanded, unlike words
        "env": [
            *manifests.environment({**run.environment, **ranks}),
            {"name": "A2F_PROCESS_ID", "valueFrom": {"fieldRef": {"fieldPath": _INDEX}}},
        ],
        "ports": [{"name": "coordinator", "containerPort": PORT}],
    }


def _check(run: JobSetRun, options: Mapping[str, Any]) -> None:
    if not run.command:
        raise InputError(f"{run.name}: no command")
    if not re.fullmatch(r"[a-z]([-a-z0-9]*[a-z0-9])?", run.name):
        raise InputError(
            f"name {run.name!r}: expected lower-case letters, digits and '-', a letter first"
        )
    most = longest_name(run.resources.nodes)
    if len(run.name) > most:
        raise InputError(f"name {run.name!r}: {len(run.name)} characters; at most {most} fit")
    pods.check_mounted(options, run.directory, written=True)
    pods.check_environment(run.environment, options, reserved=_RANKS)
