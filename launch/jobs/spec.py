"""Specification of a job, as plain data that is written before anything is queued.

A run is a job with one element. A build or a cache is an array: N independent elements, and a last
command that runs when all of them have ended, successfully or not. All commands are idempotent: an
element that runs twice, or is killed and restarted, leaves the same files.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import Any

from a2fjax.errors import InputError

LAYOUTS = ("per-node", "per-gpu")


@dataclasses.dataclass(frozen=True, kw_only=True)
class Resources:
    """Resources of one element.

    Attributes:
      nodes: number of machines.
      gpus: GPUs of each machine; None requests none.
      layout: "per-node" starts one process per machine with all of its GPUs, "per-gpu" one per GPU.
      processes: processes on each machine.
      cpu_devices: JAX devices of each process without GPUs; None leaves it to JAX.
      cpus: cores of each machine.
      mem_mib: memory of each machine in MiB.
      minutes: time limit.
    """

    nodes: int = 1
    gpus: int | None = None
    layout: str = "per-node"
    processes: int = 1
    cpu_devices: int | None = None
    cpus: int | None = None
    mem_mib: int | None = None
    minutes: int | None = None

    @property
    def hosts(self) -> int:
        """Total number of processes."""
        return self.nodes * self.processes

    @property
    def local_devices(self) -> int | None:
        """Devices that each process must have; None if they were not requested."""
        if self.gpus:
            return self.gpus // self.processes
        return self.cpu_devices

    @property
    def devices(self) -> int:
        """Total number of devices; 1 per process if none were requested."""
        return self.hosts * (self.local_devices or 1)


@dataclasses.dataclass(frozen=True, kw_only=True)
class JobSpec:
    """Specification of a job. Words of commands are data and never pass through a shell.

    Attributes:
      id: name below ROOT, SWEEP/TRIAL for a trial; the output folder for an array.
      name: name of an array for queues and DNS; None for a run, whose folder has one.
      command: command of every element; `--part I/N` is appended for an array, I from 1.
      finalize: last command of an array; () for a run.
      elements: N of an array, 1 for a run.
      output: folder that an array fills; None for a run, which fills its own folder.
      directory: working folder, so that relative paths resolve as they did on submission.
      python: interpreter of the worker.
      environment: variables that are set for the command.
      passed: names of variables taken from the environment; their values are never written.
      scheduler: registered name of the scheduler.
      resources: resources of one element.
      options: options of the scheduler, as JSON.
      retries: maximum restarts of an element after failures without progress.
      retry_failures: whether exit code 1 counts as such a failure, or ends the element at once.
      max_requeues: maximum number of requeues of an element.
      after: dependencies, as `launch.submission.dependencies.check` returns them.
      created: UTC time, ISO 8601.
      experiment: experiment file as given; None for anything but a training.
      experiment_sha256: digest of the experiment file.
      overrides: `--config.` values as given, and those of the sweep.
      config: content of config.json: "config", "sources", "fingerprint"; that of a cache holds only
        its encoders.
      data: dataset folder -> SHA-256 of its manifest; "" if unknown on submission.
      code: folder that the worker imports from.
      snapshot: digest of that folder's files; None where the installed code is used.
      git: "commit" and "dirty"; None without git.
      packages: installed distribution -> version, and "python".
      sweep: name of the sweep that a trial belongs to.
      trial: values of the sweep by key; None for a single run.
      key: digest of the trial.
    """

    id: str
    command: tuple[str, ...]
    directory: str
    python: str
    scheduler: str
    created: str
    name: str | None = None
    finalize: tuple[str, ...] = ()
    elements: int = 1
    output: str | None = None
    environment: Mapping[str, str] = dataclasses.field(default_factory=dict)
    passed: tuple[str, ...] = ()
    resources: Resources = dataclasses.field(default_factory=Resources)
    options: Mapping[str, Any] = dataclasses.field(default_factory=dict)
    retries: int = 3
    retry_failures: bool = False
    max_requeues: int = 50
    after: tuple[str, ...] = ()
    experiment: str | None = None
    experiment_sha256: str | None = None
    overrides: Mapping[str, str] = dataclasses.field(default_factory=dict)
    config: Mapping[str, Any] | None = None
    data: Mapping[str, str] = dataclasses.field(default_factory=dict)
    code: str | None = None
    snapshot: str | None = None
    git: Mapping[str, Any] | None = None
    packages: Mapping[str, str] = dataclasses.field(default_factory=dict)
    sweep: str | None = None
    trial: Mapping[str, Any] | None = None
    key: str | None = None

    @property
    def fingerprint(self) -> str | None:
        """Fingerprint of the configuration; None for anything but a training."""
        return self.config["fingerprint"] if self.config else None

    @property
    def steps(self) -> int | None:
        """Total number of updates; None for anything but a training."""
        return self.config["config"]["steps"] if self.config and self.output is None else None

    def element(self, index: int) -> JobSpec:
        """Returns the specification of one element of an array.

        Args:
          index: from 1 to `elements`.

        Raises:
          InputError: no such element.
        """
        if not 1 <= index <= self.elements:
            raise InputError(f"--element {index}: expected 1 to {self.elements}")
        name = f"{index}/{self.elements}"
        return dataclasses.replace(
            self,
            id=f"element {name}",
            command=(*self.command, "--part", name),
            elements=1,
            finalize=(),
        )

    def last(self) -> JobSpec:
        """Returns the specification of an array's last command, which is never retried."""
        return dataclasses.replace(
            self,
            id="finalize",
            command=self.finalize,
            elements=1,
            finalize=(),
            retries=0,
            retry_failures=False,
        )
