"""Manifests of arrays: an Indexed Job for the elements, and a second Job for the last command."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from pathlib import PurePosixPath
from typing import Any

from a2fjax.errors import EXIT_BAD_INPUT, InputError
from launch.jobs import outcome
from launch.jobs.spec import Resources
from launch.schedulers.base import Job
from launch.schedulers.kubernetes import manifests

MOST_ELEMENTS = 100_000
"""Limit of an Indexed Job with a back-off limit per index (Kubernetes' API reference)."""

_GRACE_SECONDS = 120
_KEEP_SECONDS = 7 * 24 * 3600


def options(given: Mapping[str, Any], resources: Resources, count: int) -> dict[str, Any]:
    """Checks the options of an array of `count` elements and returns all of them, as JSON.

    Raises:
      InputError: one is missing or has the wrong form.
    """
    image = given.get("image")
    if not image:
        raise InputError("--image: an image that holds a2fjax is needed, best by its digest")
    if re.search(r"\s", image):
        raise InputError(f"--image {image!r}: expected a name without spaces")
    if count > MOST_ELEMENTS:
        raise InputError(f"--elements {count}: Kubernetes accepts at most {MOST_ELEMENTS}")
    mem = resources.mem_mib
    return {
        "image": image,
        "namespace": manifests.namespace(given.get("namespace")),
        "volume": manifests.volume_texts(given.get("volume") or []),
        "cpus": resources.cpus or 1,
        "mem": f"{mem}Mi" if mem else None,
        "max_parallel": given.get("max_parallel") or min(count, MOST_ELEMENTS // 10),
    }


def check_mounted(options: Mapping[str, Any], path: str, *, written: bool) -> None:
    """Checks that a path lies on a volume and not in a container's own file system.

    Raises:
      InputError: it does not, or the volume is read-only and the path is `written`.
    """
    volumes = manifests.volumes(options["volume"])
    inside = [v for v in volumes if PurePosixPath(path).is_relative_to(v[1])]
    if not inside:
        mounts = ", ".join(v[1] for v in volumes) or "none was given"
        raise InputError(f"{path}: lies on no volume ({mounts}); add --volume CLAIM:PATH")
    if written and max(inside, key=lambda v: len(v[1]))[2]:
        raise InputError(f"{path}: lies on a volume that is mounted read-only")


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
            "parallelism": min(spec.options["max_parallel"], spec.elements),
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
    values, environment = job.spec.options, job.spec.environment
    labels = {
        "app.kubernetes.io/name": "a2fjax",
        "app.kubernetes.io/instance": job.name,
    }
    resources: dict[str, Any] = {"requests": {"cpu": str(values["cpus"])}}
    if values["mem"]:
        resources["requests"]["memory"] = values["mem"]
        resources["limits"] = {"memory": values["mem"]}
    mounts, volumes = manifests.mounted(manifests.volumes(values["volume"]))
    container = {
        "name": "work",
        "image": values["image"],
        "command": [manifests.literal(word) for word in command],
        "workingDir": job.spec.directory,  # not expanded, unlike words
        "env": manifests.environment(environment),
        "resources": resources,
        "volumeMounts": mounts,
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
        "metadata": {"name": name, "namespace": values["namespace"], "labels": labels},
        "spec": {
            **spec,
            "ttlSecondsAfterFinished": _KEEP_SECONDS,
            "podFailurePolicy": {"rules": rules},
            "template": {
                "metadata": {"labels": dict(labels)},
                "spec": {
                    "restartPolicy": "Never",
                    "automountServiceAccountToken": False,
                    "enableServiceLinks": False,
                    "terminationGracePeriodSeconds": _GRACE_SECONDS,
                    "containers": [container],
                    "volumes": volumes,
                },
            },
        },
    }
