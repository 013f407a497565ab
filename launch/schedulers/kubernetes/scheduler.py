"""Jobs on Kubernetes: a run is a JobSet, an array an Indexed Job and a Job for its last command.

Kubernetes cannot start a Job after another one, so `submit.py wait` (or `--wait`) applies the Job
of the last command. Kubernetes handles restarts.
"""

from __future__ import annotations

import contextlib
import dataclasses
import secrets
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from a2fjax import files
from a2fjax.errors import InputError, WorkFailed, nearest
from launch.jobs import formats, outcome, record
from launch.jobs.outcome import State
from launch.jobs.record import Submission, interpreter, launch
from launch.jobs.spec import Resources
from launch.schedulers import base
from launch.schedulers.base import (
    Capabilities,
    Dependencies,
    Element,
    Job,
    NotInstalled,
    Submitted,
)
from launch.schedulers.kubernetes import indexed_job, jobset, kubectl, manifests, pods
from launch.schedulers.kubernetes import options as option_lib

_SET_BY_JOBSET = ("A2F_LOCAL_DEVICES",)


class Kubernetes(base.Scheduler):
    """See `base.Scheduler`."""

    capabilities = Capabilities(
        remote=True, requeues=True, several_nodes=True, starts_finalize=False, partial_arrays=False
    )
    flags = (
        base.NODES,
        base.GPUS,
        base.CPU_DEVICES,
        base.CPUS,
        base.MEM,
        dataclasses.replace(base.MAX_PARALLEL, runs=False),
        *option_lib.FLAGS,
    )
    python = "python"

    def profile(self, values: Mapping[str, Any]) -> dict[str, Any]:
        """See `base.Scheduler`; reads the table `kubernetes` and the shared keys."""
        table = values.get("kubernetes", {})
        sizes = (base.CPUS, base.MEM, base.GPUS)
        known = {*option_lib.NAMES, *(o.name for o in sizes)}
        for key in table:
            if key not in known:
                raise InputError(f"--profile: kubernetes.{key}: is no key{nearest(key, known)}")
        for option in sizes:
            if option.name in table:
                option_lib.check_type(option, table[option.name])
        result = {k: values[k] for k in ("mem", "gpus", "cpus_per_node") if k in values} | table
        if "cpus" in result:
            result["cpus_per_node"] = result.pop("cpus")
        return result

    def options(
        self,
        given: Mapping[str, Any],
        profile: Mapping[str, Any],
        resources: Resources,
        *,
        array: int | None,
    ) -> dict[str, Any]:
        """See `base.Scheduler`."""
        names = option_lib.NAMES if array is None else {*option_lib.NAMES, "max_parallel"}
        if array is not None:
            indexed_job.check_count(array)
        return option_lib.check({k: v for k, v in {**profile, **given}.items() if k in names})

    def with_paths(
        self, options: Mapping[str, Any], reads: Sequence[str], writes: Sequence[str]
    ) -> dict[str, Any]:
        """See `base.Scheduler`; every path must lie on a volume."""
        for path in writes:
            pods.check_mounted(options, path, written=True)
        for path in reads:
            pods.check_mounted(options, path, written=False)
        return dict(options)

    def render(self, job: Job) -> str:
        """Returns the manifests as YAML; the Job of an array's last command is suspended."""
        if job.finalize is None:
            return manifests.to_yaml([m for element in job.chosen for m in _manifests(element)])
        last = indexed_job.finalize(job)
        last["spec"]["suspend"] = True
        return manifests.to_yaml([indexed_job.elements(job), last])

    def remarks(self, job: Job) -> list[str]:
        """See `base.Scheduler`."""
        if job.finalize is None:
            return []
        name = indexed_job.name(job, "finalize")
        namespace = manifests.namespace(job.spec.options.get("namespace"))
        return [
            "the Job of the last command is suspended; when the elements have ended, start it with "
            f'kubectl patch job {name} -n {namespace} -p \'{{"spec":{{"suspend":false}}}}\''
        ]

    def submit(self, job: Job, after: Dependencies, submitted: Submitted) -> None:
        """See `base.Scheduler`."""
        if job.finalize is None:
            for element in job.chosen:
                path = launch(element.folder) / "jobset.yaml"
                text = manifests.to_yaml(_manifests(element))
                files.write_text(path, text, mode=files.PRIVATE)
                submitted(_name(element), [element])
                kubectl.run("apply", "-f", str(path))
            return
        _finalize_path(job.folder).unlink(missing_ok=True)
        # Record the names before applying, so that nothing runs without a record.
        submitted(indexed_job.name(job, "elements"), job.chosen)
        submitted(indexed_job.name(job, "finalize"), [job.finalize])
        path = launch(job.folder) / "elements.yaml"
        text = manifests.to_yaml([indexed_job.elements(job)])
        files.write_text(path, text, mode=files.PRIVATE)
        kubectl.run("apply", "-f", str(path))

    def finalize(self, job: Job) -> None:
        """Applies the Job of the last command, once."""
        path = _finalize_path(job.folder)
        if not path.exists():
            text = manifests.to_yaml([indexed_job.finalize(job)])
            files.write_text(path, text, mode=files.PRIVATE)
            try:
                kubectl.run("apply", "-f", str(path))
            except (InputError, WorkFailed):
                path.unlink(missing_ok=True)
                raise

    def states(self, submitted: Mapping[Path, Submission]) -> dict[Path, State]:
        """See `base.Scheduler`."""
        result: dict[Path, State] = {}
        arrays: dict[Path, dict[Path, Submission]] = {}
        for folder, entry in submitted.items():
            array = record.array_of(folder)
            if array is None:
                result[folder] = _run_state(folder, entry)
            else:
                arrays.setdefault(array, {})[folder] = entry
        for array, entries in arrays.items():
            result |= _array_states(array, entries)
        return result

    def cancel(self, submitted: Mapping[Path, Submission]) -> str:
        """Deletes JobSets and Jobs together with their pods."""
        names: dict[tuple[str, str], None] = {}
        for folder, entry in submitted.items():
            array = record.array_of(folder)
            kind = "jobset" if array is None else "job"
            namespace = _namespace(folder if array is None else array)
            names[f"{kind}/{entry.job}", namespace] = None
            if array is None and record.read(folder).resources.nodes > 1:
                names[f"secret/{entry.job}", namespace] = None
        for name, namespace in names:
            kubectl.run(
                "delete", name, f"--namespace={namespace}", "--ignore-not-found", "--wait=false"
            )
        return f"deleted {', '.join(name for name, _ in names)}"

    def logs(self, folder: Path, submitted: Submission) -> str:
        """See `base.Scheduler`."""
        array = record.array_of(folder)
        if array is None:
            selector = f"jobset.sigs.k8s.io/jobset-name={submitted.job}"
        else:
            selector = f"batch.kubernetes.io/job-name={submitted.job}"
        if array is not None and submitted.index is not None:
            selector += f",batch.kubernetes.io/job-completion-index={submitted.index - 1}"
        elif array is not None and not _finalize_path(array).exists():
            raise InputError("the last command was not started yet; `submit.py wait` does so")
        namespace = _namespace(folder if array is None else array)
        return kubectl.run(
            "logs", f"--namespace={namespace}", "-l", selector, "--tail=-1", "--prefix"
        )


def _manifests(element: Element) -> list[dict[str, Any]]:
    """Returns the JobSet of a run, after the Secret of its processes if there are several."""
    spec = element.spec
    python = interpreter(element.folder, spec)
    name, options = _name(element), dict(spec.options)
    several = spec.resources.nodes > 1
    if several:
        keys = dict(options.get("secret_keys", {}))
        options["secret_keys"] = {**keys, "A2F_SECRET": f"{name}/secret"}
    run = jobset.JobSetRun(
        name=name,
        command=(*python, "-m", "launch.jobs.worker", str(element.folder)),
        directory=spec.directory,
        resources=spec.resources,
        environment={k: v for k, v in spec.environment.items() if k not in _SET_BY_JOBSET},
    )
    made = jobset.manifest(run, options)
    if not several:
        return [made]
    # The pods prove to each other that they know it.
    namespace = made["metadata"]["namespace"]
    return [manifests.secret(name, namespace, secrets.token_hex(32)), made]


def _name(element: Element) -> str:
    return f"a2f-{formats.slug(element.folder.name, str(element.folder))}-{element.attempt}"


def _namespace(folder: Path) -> str:
    return str(record.read(folder).options.get("namespace") or "default")


def _finalize_path(array: Path) -> Path:
    return launch(array) / "finalize.yaml"


def _run_state(folder: Path, submitted: Submission) -> State:
    if outcome.last_code(folder, submitted) is not None:
        return outcome.recorded(folder, submitted)
    with contextlib.suppress(NotInstalled, WorkFailed):
        status = kubectl.status("jobset", submitted.job, _namespace(folder))
        if status is None:
            return State(outcome.LOST)
        holds = kubectl.conditions(status)
        if "Completed" in holds:
            return State(outcome.DONE)
        if "Failed" in holds:
            return State(outcome.FAILED)
    started = outcome.started(folder, submitted)
    return State(outcome.RUNNING if started else outcome.WAITING)


def _array_states(array: Path, submitted: Mapping[Path, Submission]) -> dict[Path, State]:
    elements = [(folder, entry) for folder, entry in submitted.items() if entry.index is not None]
    namespace = _namespace(array)
    names: dict[Path, str] = {}
    alive = False
    if elements:
        status = kubectl.status("job", elements[0][1].job, namespace)
        alive, status = status is not None, status or {}
        done = set(_indices(status.get("completedIndexes", "")))
        failed = set(_indices(status.get("failedIndexes", "")))
        rest = outcome.WAITING if alive and not _ended(status) else outcome.LOST
        # Only pods show which of the other elements run: assume the first active ones, in order.
        active = int(status.get("active", 0))
        for folder, entry in elements:
            index = (entry.index or 0) - 1
            name = outcome.DONE if index in done else outcome.FAILED if index in failed else rest
            if name == outcome.WAITING and active > 0:
                name, active = outcome.RUNNING, active - 1
            names[folder] = name
    for folder, entry in submitted.items():
        if entry.index is None:
            names[folder] = _finalize_state(array, entry, namespace, waits=alive or not elements)
    return {folder: State(names[folder]) for folder in submitted}


def _finalize_state(array: Path, submitted: Submission, namespace: str, *, waits: bool) -> str:
    if not _finalize_path(array).exists():
        return outcome.WAITING if waits else outcome.LOST
    status = kubectl.status("job", submitted.job, namespace)
    if status is None:
        return outcome.LOST
    return _ended(status) or outcome.RUNNING


def _ended(status: Mapping[str, Any]) -> str | None:
    holds = kubectl.conditions(status)
    if "Complete" in holds:
        return outcome.DONE
    return outcome.FAILED if "Failed" in holds else None


def _indices(text: str) -> list[int]:
    """Returns the numbers of "0-2,7"."""
    result: list[int] = []
    for span in filter(None, text.split(",")):
        first, _, last = span.partition("-")
        result += range(int(first), int(last or first) + 1)
    return result
