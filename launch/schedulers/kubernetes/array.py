"""Parts as an Indexed Job of Kubernetes, and a second Job for the last command.

Kubernetes has no "after that Job": the second one is applied when the first has ended, by
`submit.py build --wait` or `submit.py finish`. Everything else, restarts included, is left to it.
"""

from __future__ import annotations

import dataclasses
import json
import re
from collections.abc import Mapping, Sequence
from pathlib import Path, PurePosixPath
from typing import Any

from a2fjax import files
from a2fjax.errors import EXIT_BAD_INPUT, InputError, WorkFailed
from launch.jobs import array_spec
from launch.jobs.array_spec import Record, Spec
from launch.schedulers import After, call, last_line
from launch.schedulers.kubernetes import manifests

OPTIONS = frozenset("image namespace volume cpus mem max_parallel".split())
PYTHON = "python"
MOST_PARTS = 100_000
"""Of an Indexed Job with a back-off limit for each index (Kubernetes' API reference)."""

_MISSING = "see the manifest with --dry-run and apply it where kubectl is"
_GRACE_SECONDS = 120
_KEEP_SECONDS = 7 * 24 * 3600


def options(given: Mapping[str, Any], spec: Spec) -> dict[str, Any]:
    """See `Backend.options`."""
    if not given.get("image"):
        raise InputError("--image: an image that holds a2fjax is needed, best by its digest")
    if re.search(r"\s", given["image"]):
        raise InputError(f"--image {given['image']!r}: expected a name without spaces")
    namespace = manifests.namespace(given.get("namespace"))
    if spec.parts > MOST_PARTS:
        raise InputError(f"--parts {spec.parts}: Kubernetes takes at most {MOST_PARTS}")
    cpus = given.get("cpus") or 1
    volumes = [list(v) for v in manifests.volumes(given.get("volume") or [])]
    return {
        "image": given["image"],
        "namespace": namespace,
        "volume": volumes,
        "cpus": cpus,
        "mem": f"{array_spec.memory_mib(given['mem'])}Mi" if given.get("mem") else None,
        "max_parallel": given.get("max_parallel") or min(spec.parts, MOST_PARTS // 10),
    }


def check_mounted(options: Mapping[str, Any], path: str, *, written: bool) -> None:
    """Checks that a path of the job lies on a volume, and not in a container that goes away.

    Raises:
      InputError: it does not, or the volume is read-only and `path` is written.
    """
    inside = [v for v in options["volume"] if PurePosixPath(path).is_relative_to(v[1])]
    if not inside:
        mounts = ", ".join(v[1] for v in options["volume"]) or "none was given"
        raise InputError(f"{path}: lies on no volume ({mounts}); say --volume CLAIM:PATH")
    if written and max(inside, key=lambda v: len(v[1]))[2]:
        raise InputError(f"{path}: lies on a volume that is mounted read-only")


def render(record: Record, base: Path) -> str:
    """Returns both manifests as YAML."""
    return manifests.to_yaml([parts_manifest(record), finish_manifest(record)])


def submit(record: Record, base: Path, after: After) -> Record:
    """Applies the Job of the parts.

    Raises:
      InputError, WorkFailed: kubectl is missing or refuses.
    """
    manifest = parts_manifest(record)
    record = dataclasses.replace(record, jobs={"parts": manifest["metadata"]["name"]})
    # Before it is applied: names are ours to choose, so that nothing runs without a record.
    array_spec.write(base, record)
    _apply(manifest, base, "parts.yaml")
    return record


def states(record: Record, base: Path) -> dict[int | str, str]:
    """See `Backend.states`."""
    found: dict[int | str, str] = {}
    status = _status(record, "parts")
    ended = _ended(status)
    done = set(_indices(status.get("completedIndexes", "")))
    failed = set(_indices(status.get("failedIndexes", "")))
    left = array_spec.LOST if ended or not status else array_spec.WAITING
    for index in range(record.spec.parts):
        state = array_spec.DONE if index in done else array_spec.FAILED if index in failed else left
        found[index + 1] = state
    # Which of the others run is known to the pods only; as many as there are active ones, in order.
    active = int(status.get("active", 0))
    for which in [k for k, v in found.items() if v == array_spec.WAITING][:active]:
        found[which] = array_spec.RUNNING
    status = _status(record, "finish")
    waits = array_spec.WAITING if "finish" not in record.jobs else array_spec.LOST
    found[array_spec.FINISH] = waits if not status else _ended(status) or array_spec.RUNNING
    return found


def finish(record: Record, base: Path) -> Record:
    """Applies the Job of the last command, once."""
    if "finish" in record.jobs:
        return record
    manifest = finish_manifest(record)
    record = dataclasses.replace(
        record, jobs={**record.jobs, "finish": manifest["metadata"]["name"]}
    )
    _apply(manifest, base, "finish.yaml")
    array_spec.write(base, record)
    return record


def cancel(record: Record, base: Path) -> str:
    """Deletes the Jobs, and with them their pods."""
    names = [f"job/{name}" for name in record.jobs.values()]
    _kubectl(record, "delete", *names, "--ignore-not-found", "--wait=false")
    return f"deleted {' and '.join(names)} in namespace {record.options['namespace']}"


def log(record: Record, base: Path, which: int | str) -> str:
    """See `Backend.log`."""
    name = record.jobs.get("finish" if which == array_spec.FINISH else "parts")
    if name is None:
        raise InputError("the last command was not started yet; `submit.py finish` does so")
    selector = f"batch.kubernetes.io/job-name={name}"
    if isinstance(which, int):
        selector += f",batch.kubernetes.io/job-completion-index={which - 1}"
    return _kubectl(record, "logs", "-l", selector, "--tail=-1", "--prefix")


def parts_manifest(record: Record) -> dict[str, Any]:
    """Returns the batch/v1 Job of the parts.

    An index fails at once on exit code 2 (bad input stays bad); disruptions (eviction,
    preemption, drained nodes) and `job.STOP_CODES` are not counted; anything else is tried
    `spec.retries` times more. Other indexes go on.
    """
    spec = record.spec
    # The shell only adds one to the index; the command's words are its arguments, as they are.
    command = [
        "/bin/sh",
        "-c",
        f'exec "$@" --part "$((JOB_COMPLETION_INDEX + 1))/{spec.parts}"',
        "part",
        *spec.command,
    ]
    return _manifest(
        record,
        _name(record, "parts"),
        command,
        {
            "completionMode": "Indexed",
            "completions": spec.parts,
            "parallelism": min(record.options["max_parallel"], spec.parts),
            "backoffLimitPerIndex": spec.retries,
            "podReplacementPolicy": "Failed",
        },
        bad_input="FailIndex",
    )


def finish_manifest(record: Record) -> dict[str, Any]:
    """Returns the batch/v1 Job of the last command."""
    return _manifest(
        record,
        _name(record, "finish"),
        list(record.spec.finish),
        {"backoffLimit": 0, "podReplacementPolicy": "Failed"},
        bad_input="FailJob",
    )


def _manifest(
    record: Record, name: str, command: Sequence[str], spec: dict[str, Any], *, bad_input: str
) -> dict[str, Any]:
    values = record.options
    labels = {
        "app.kubernetes.io/name": "a2fjax",
        "app.kubernetes.io/instance": record.spec.name,
    }
    resources: dict[str, Any] = {"requests": {"cpu": str(values["cpus"])}}
    if values["mem"]:
        resources["requests"]["memory"] = values["mem"]
        resources["limits"] = {"memory": values["mem"]}
    mounts, volumes = manifests.mounted(values["volume"])
    container = {
        "name": "work",
        "image": values["image"],
        "command": [manifests.literal(word) for word in command],
        "workingDir": record.spec.directory,  # taken as it is, unlike words
        "env": manifests.environment(record.spec.environment),
        "resources": resources,
        "volumeMounts": mounts,
    }
    exits = {"containerName": "work", "operator": "In"}
    rules = [
        manifests.DISRUPTED,
        {"action": bad_input, "onExitCodes": {**exits, "values": [EXIT_BAD_INPUT]}},
        {
            "action": "Ignore",
            "onExitCodes": {**exits, "values": sorted(map(int, array_spec.STOP_CODES))},
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


def _name(record: Record, what: str) -> str:
    # A Job cannot be changed once it is there: every attempt has its own. Pods of an index are
    # named NAME-INDEX-xxxxx and their host NAME-INDEX, which must fit in 63 characters.
    return f"{record.spec.name}-{record.attempt}-{what}"


def _apply(manifest: Mapping[str, Any], base: Path, name: str) -> None:
    path = array_spec.folder(base) / name
    files.write_text(path, manifests.to_yaml([manifest]))
    found = call(["kubectl", "apply", "-f", str(path)], missing=_MISSING)
    _judge(found)


def _kubectl(record: Record, *arguments: str) -> str:
    namespace = f"--namespace={record.options['namespace']}"
    found = call(["kubectl", namespace, *arguments], missing=_MISSING)
    _judge(found)
    return found.stdout


def _judge(found: Any) -> None:
    if not found.returncode:
        return
    if re.search("connection|unable to connect|timeout|refused", found.stderr, re.I):
        raise WorkFailed(f"kubectl: {last_line(found.stderr)}")
    raise InputError(f"kubectl refuses: {last_line(found.stderr)}")


def _status(record: Record, what: str) -> dict[str, Any]:
    """Returns a Job's status, or {} when there is no such Job (any more)."""
    if what not in record.jobs:
        return {}
    text = _kubectl(record, "get", f"job/{record.jobs[what]}", "--ignore-not-found", "-o", "json")
    if not text.strip():
        return {}
    try:
        found = json.loads(text)
    except ValueError:
        raise WorkFailed("kubectl answered something that is not JSON") from None
    # A Job that was just made has an empty status: it is there all the same.
    return {"active": 0, **found.get("status", {})}


def _ended(status: Mapping[str, Any]) -> str | None:
    for condition in status.get("conditions", []):
        if condition.get("status") == "True":
            if condition.get("type") == "Complete":
                return array_spec.DONE
            if condition.get("type") == "Failed":
                return array_spec.FAILED
    return None


def _indices(text: str) -> list[int]:
    """Returns the numbers of "0-2,7"."""
    found: list[int] = []
    for span in filter(None, text.split(",")):
        first, _, last = span.partition("-")
        found += range(int(first), int(last or first) + 1)
    return found
