"""Manifests of arrays: an Indexed Job for the elements, and a second Job for the last command."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from a2fjax.errors import EXIT_BAD_INPUT, InputError
from launch.jobs import outcome
from launch.schedulers.base import Job
from launch.schedulers.kubernetes import manifests, pods

MOST_ELEMENTS = 100_000
"""Limit of an Indexed Job with a back-off limit per index (Kubernetes' API reference)."""

_GRACE_SECONDS = 120


def check_count(count: int) -> None:
    """Checks the number of elements.

    Raises:
      InputError: Kubernetes accepts fewer.
    """
    if count > MOST_ELEMENTS:
        raise InputError(f"--elements {count}: Kubernetes accepts at most {MOST_ELEMENTS}")


def name(job: Job, what: str) -> str:
    """Returns the name of a Job: `what` is "elements" or "finalize".

    A Job cannot be changed once it exists, so every attempt has a separate Job. Pods of an index
    are named NAME-INDEX-xxxxx and their host NAME-INDEX, which must fit in 63 characters.
    """
    assert job.finalize is not None
    return f"{job.name}-{job.finalize.attempt}-{what}"


def elements(job: Job) -> dict[str, Any]:
    """Returns the batch/v1 Job of the elements.

    An index fails at once on exit code 2 (bad input stays bad); disruptions (eviction,
    preemption, drained nodes) and `outcome.STOP_CODES` are not counted; anything else is retried
    `spec.retries` times. Other indexes continue.
    """
    spec = job.spec
    most = spec.options.get("max_parallel") or MOST_ELEMENTS // 10
    # The shell only adds one to the index; the command's words are its arguments, unchanged.
    command = [
        "/bin/sh",
        "-c",
        f'exec "$@" --part "$((JOB_COMPLETION_INDEX + 1))/{spec.elements}"',
        "element",
        *spec.command,
    ]
    return _manifest(
        job,
        name(job, "elements"),
        command,
        {
            "completionMode": "Indexed",
            "completions": spec.elements,
            "parallelism": min(most, spec.elements),
            "backoffLimitPerIndex": spec.retries,
            "podReplacementPolicy": "Failed",
        },
        bad_input="FailIndex",
    )


def finalize(job: Job) -> dict[str, Any]:
    """Returns the batch/v1 Job of the last command."""
    return _manifest(
        job,
        name(job, "finalize"),
        list(job.spec.finalize),
        {"backoffLimit": 0, "podReplacementPolicy": "Failed"},
        bad_input="FailJob",
    )


def _manifest(
    job: Job, name: str, command: Sequence[str], spec: dict[str, Any], *, bad_input: str
) -> dict[str, Any]:
    options, labels = job.spec.options, pods.labels(job.name)
    pods.check_environment(job.spec.environment, options)
    container = {
        "name": "work",
        "command": [manifests.literal(word) for word in command],
        "workingDir": job.spec.directory,  # not expanded, unlike words
        "env": manifests.environment(job.spec.environment),
    }
    exits = {"containerName": "work", "operator": "In"}
    rules = [
        manifests.DISRUPTED,
        {"action": bad_input, "onExitCodes": {**exits, "values": [EXIT_BAD_INPUT]}},
        {
            "action": "Ignore",
            "onExitCodes": {**exits, "values": sorted(map(int, outcome.STOP_CODES))},
        },
    ]
    return {
        "apiVersion": "batch/v1",
        "kind": "Job",
        "metadata": {
            "name": name,
            "namespace": manifests.namespace(options.get("namespace")),
            "labels": {**labels, **pods.queue_labels(options)},
        },
        "spec": {
            **spec,
            **pods.suspended(options),
            "ttlSecondsAfterFinished": options.get("keep_seconds", pods.KEEP_SECONDS),
            "podFailurePolicy": {"rules": rules},
            "template": {
                "metadata": {"labels": dict(labels)},
                "spec": pods.spec(
                    container,
                    options,
                    job.spec.resources,
                    array=True,
                    grace_seconds=_GRACE_SECONDS,
                ),
            },
        },
    }
