"""Jobs on Kubernetes: a run is a JobSet, an array an Indexed Job and a Job for its last command.

Kubernetes cannot start a Job after another one, so `submit.py wait` (or `--wait`) applies the Job
of the last command. Kubernetes handles restarts.
"""

from __future__ import annotations

import contextlib
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
    Option,
    Submitted,
)
from launch.schedulers.kubernetes import indexed_job, jobset, kubectl, manifests

_SECRETS = ("secrets", "secret_keys")
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
        Option(name="max_parallel", help=base.MAX_PARALLEL.help, kind=int, runs=False),
        Option(name="image", help="image with a2fjax"),
        Option(name="namespace", help="namespace (default: default)"),
        Option(name="queue", help="local queue of Kueue", arrays=False),
        Option(name="volume", help="may be repeated", repeated=True, metavar="CLAIM:PATH[:ro]"),
    )
    python = "python"

    def profile(self, values: Mapping[str, Any]) -> dict[str, Any]:
        """See `base.Scheduler`; reads the table `kubernetes` and the shared keys."""
        table = values.get("kubernetes", {})
        known = {*jobset.OPTIONS, *_SECRETS}
        for key in table:
            if key not in known:
                raise InputError(f"--profile: kubernetes.{key}: is no key{nearest(key, known)}")
        shared = {k: values[k] for k in ("mem", "cpus_per_node") if k in values}
        return {**shared, **table}

    def options(
        self,
        given: Mapping[str, Any],
        profile: Mapping[str, Any],
        resources: Resources,
        *,
        array: int | None,
    ) -> dict[str, Any]:
        """See `base.Scheduler`."""
        if array is not None:
            return indexed_job.options({**profile, **given}, resources, array)
        known = {*jobset.OPTIONS, *_SECRETS}
        values = {k: v for k, v in {**profile, **given}.items() if k in known and v is not None}
        jobset.options({k: v for k, v in values.items() if k not in _SECRETS})
        return values

    def check_paths(
        self, options: Mapping[str, Any], reads: Sequence[str], writes: Sequence[str]
    ) -> None:
        """See `base.Scheduler`."""
        for path in reads:
            indexed_job.check_mounted(options, path, written=False)
        for path in writes:
            indexed_job.check_mounted(options, path, written=True)

    def render(self, job: Job) -> str:
        """Returns the manifests as YAML."""
        if job.finalize is not None:
            return manifests.to_yaml([indexed_job.elements(job), indexed_job.finalize(job)])
        return "".join(_jobset(element) for element in job.chosen)

    def submit(self, job: Job, after: Dependencies, submitted: Submitted) -> None:
        """See `base.Scheduler`."""
        if job.finalize is None:
            for element in job.chosen:
                path = launch(element.folder) / "jobset.yaml"
                files.write_text(path, _jobset(element), mode=files.PRIVATE)
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


def _jobset(element: Element) -> str:
    spec = element.spec
    python = interpreter(element.folder, spec)
    values = {k: v for k, v in spec.options.items() if k not in _SECRETS}
    name = _name(element)
    several = spec.resources.nodes > 1
    secret_keys = dict(spec.options.get("secret_keys", {}))
    if several:
        secret_keys["A2F_SECRET"] = f"{name}/secret"
    run = jobset.JobSetRun(
        name=name,
        command=(*python, "-m", "launch.jobs.worker", str(element.folder)),
        directory=spec.directory,
        nodes=spec.resources.nodes,
        gpus=spec.resources.gpus or 0,
        environment={k: v for k, v in spec.environment.items() if k not in _SET_BY_JOBSET},
        secrets=tuple(spec.options.get("secrets", ())),
        secret_keys=secret_keys,
    )
    options = jobset.options(values)
    # The pods prove to each other that they know it.
    secret = manifests.secret(name, options["namespace"], secrets.token_hex(32))
    made = jobset.manifest(run, options)
    return manifests.to_yaml([secret, made] if several else [made])


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
