"""Submits runs as JobSets; `launch.schedulers.kubernetes.jobset` renders the manifests."""

from __future__ import annotations

import importlib
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from a2fjax import files
from a2fjax.errors import InputError, WorkFailed, nearest
from launch.jobs import array_spec
from launch.jobs import run_spec as spec
from launch.jobs.run_spec import RunSpec
from launch.schedulers import call, last_line

NAMES = ("image", "namespace", "queue", "volume")
"""Options of the command line; more are in a profile's table `kubernetes`."""

_SECRETS = ("secrets", "secret_keys")
_OF_JOBSET = ("A2F_LOCAL_DEVICES",)
_MISSING = "see the manifest with --dry-run and apply it where kubectl is"


def options(given: Mapping[str, Any], table: Mapping[str, Any]) -> dict[str, Any]:
    """Returns the options of a submission: the command line's before the profile's.

    Raises:
      InputError: one is of the wrong form.
    """
    known = {*_jobset().OPTIONS, *_SECRETS}
    for key in table:
        if key not in known:
            raise InputError(f"--profile: kubernetes.{key}: is no key{nearest(key, known)}")
    values = {**table, **{k: given[k] for k in (*NAMES, "cpus", "mem") if k in given}}
    secrets = {name: values.pop(name) for name in _SECRETS if name in values}
    _jobset().options(values)
    return {**values, **secrets}


def render(run: Path, run_spec: RunSpec, attempt: int) -> str:
    """Returns the manifest as YAML.

    Raises:
      InputError: something does not fit a JobSet.
    """
    return str(_jobset().render(*_run(run, run_spec, attempt)))


def submit(run: Path, run_spec: RunSpec, attempt: int) -> str:
    """Applies the manifest; returns the JobSet's name.

    Raises:
      InputError: kubectl refuses.
      WorkFailed: the cluster does not answer.
    """
    path = spec.launch(run) / "jobset.yaml"
    files.write_text(path, render(run, run_spec, attempt))
    _kubectl("apply", "-f", str(path))
    return _name(run, attempt)


def cancel(run_spec: RunSpec, name: str) -> None:
    """Deletes a JobSet; its pods are told to stop."""
    _kubectl("delete", "jobset", name, "--ignore-not-found", *_namespace(run_spec))


def state(run_spec: RunSpec, name: str) -> str | None:
    """Returns what the cluster says of a JobSet that has ended or is gone, None of another.

    Raises:
      InputError, WorkFailed: as `submit`.
    """
    text = _kubectl(
        "get", "jobset", name, "-o", "json", "--ignore-not-found", *_namespace(run_spec)
    )
    if not text.strip():
        return array_spec.LOST
    conditions = json.loads(text).get("status", {}).get("conditions", [])
    kinds = {c.get("type") for c in conditions if c.get("status") == "True"}
    return (
        array_spec.DONE
        if "Completed" in kinds
        else array_spec.FAILED
        if "Failed" in kinds
        else None
    )


def _jobset() -> Any:
    try:
        return importlib.import_module("launch.schedulers.kubernetes.jobset")
    except ModuleNotFoundError as error:
        raise InputError(f"--backend kubernetes: {error}") from None


def _run(run: Path, run_spec: RunSpec, attempt: int) -> tuple[Any, dict[str, Any]]:
    values = dict(run_spec.options)
    values.pop("max_parallel", None)
    secrets = {name: values.pop(name) for name in _SECRETS if name in values}
    environment = {k: v for k, v in run_spec.environment.items() if k not in _OF_JOBSET}
    made = _jobset().JobSetRun(
        name=_name(run, attempt),
        command=(run_spec.python, "-m", "launch.jobs.worker", str(run)),
        directory=run_spec.directory,
        nodes=run_spec.resources.nodes,
        gpus=run_spec.resources.gpus or 0,
        environment=environment,
        secrets=tuple(secrets.get("secrets", ())),
        secret_keys=dict(secrets.get("secret_keys", {})),
    )
    return made, _jobset().options(values)


def _name(run: Path, attempt: int) -> str:
    return f"a2f-{array_spec.slug(run.name, str(run))}-{attempt}"


def _namespace(run_spec: RunSpec) -> list[str]:
    return [f"--namespace={run_spec.options.get('namespace') or 'default'}"]


def _kubectl(*words: str) -> str:
    found = call(["kubectl", *words], missing=_MISSING)
    if not found.returncode:
        return str(found.stdout)
    text = last_line(found.stderr)
    if any(w in text for w in ("refused", "no such host", "timeout", "connect", "Unavailable")):
        raise WorkFailed(f"kubectl: {text}")
    raise InputError(f"kubectl refuses: {text}")
