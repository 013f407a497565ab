"""What a run is, as plain data: `RunSpec` (frozen, written before anything is queued) and files.

ROOT/RUN/                   the folder that the command fills; of a training, its run folder
    launch/spec.json        what runs, and everything that it came from
    launch/config.json      the configuration that training reads, whatever becomes of files
    launch/job.json         how it was last submitted
    launch/data.json        digests of data that was not there yet when it was submitted
    launch/events.jsonl, logs/rank-0.log, result.json, exit
ROOT/SWEEP/launch/sweep.json, ROOT/SWEEP/TRIAL/ as a run
ROOT/.code/                 snapshots of the code
ROOT/.names/                locks: one command at a time looks at a name and submits under it
"""

from __future__ import annotations

import contextlib
import dataclasses
import json
import re
import time
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any, TypeVar

from a2fjax import files
from a2fjax.errors import InputError, nearest

VERSION = 1
LAYOUTS = ("per-node", "per-gpu")
NAMES = ".names"
_OTHERS_SECONDS = 60.0
_NAME = re.compile(r"[A-Za-z0-9][\w.+=,@-]*")
T = TypeVar("T")


@dataclasses.dataclass(frozen=True, kw_only=True)
class Resources:
    """What a run takes.

    Attributes:
      nodes: machines.
      gpus: of each machine; None asks for none.
      layout: "per-node" is a process a machine with all of its GPUs, "per-gpu" one for each.
      processes: on each machine.
      cpu_devices: devices of each process where there are no GPUs; None leaves it to JAX.
      cpus: cores of each machine.
      mem_mib: memory of each machine.
      minutes: limit.
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
        """Processes of the run."""
        return self.nodes * self.processes

    @property
    def local_devices(self) -> int | None:
        """Devices that each process must have; None where that was not asked for."""
        if self.gpus:
            return self.gpus // self.processes
        return self.cpu_devices

    @property
    def devices(self) -> int:
        """Devices of the run, 1 where nothing was asked for."""
        return self.hosts * (self.local_devices or 1)


@dataclasses.dataclass(frozen=True, kw_only=True)
class RunSpec:
    """A run; see the module.

    Attributes:
      id: name below ROOT; of a trial SWEEP/TRIAL.
      command: words, which never pass through a shell as anything else.
      directory: where it runs, so that relative paths mean what they meant at the desk.
      python: interpreter of the worker.
      environment: set for the command.
      passed: names of variables that it needs from the environment; values are written nowhere.
      experiment: as given, None for a command that is no training.
      experiment_sha256: of the experiment file's text.
      overrides: of `--config.` as given, and of the sweep.
      config: text of config.json as values: "config", "sources", "fingerprint".
      data: shards folder -> SHA-256 of its manifest; "" where that was not known at the desk.
      code: folder that the worker imports from.
      snapshot: digest of that folder's files; None where the installed code is used.
      git: "commit" and "dirty", None without git.
      packages: installed distribution -> version, and "python".
      backend: of `schedulers.NAMES`.
      resources: see `Resources`.
      options: of the backend, as JSON.
      retries: how often it is started again after failures that made no progress.
      max_requeues: how often a job comes back into the queue at most.
      sweep: of which it is a trial.
      trial: values of the sweep by key; None for a run alone.
      key: digest of the trial.
      after: what must have ended before, as `launch.submission.dependencies.check` returns it.
      created: time in UTC, ISO 8601.
    """

    id: str
    command: tuple[str, ...]
    directory: str
    python: str
    environment: Mapping[str, str]
    passed: tuple[str, ...]
    experiment: str | None
    experiment_sha256: str | None
    overrides: Mapping[str, str]
    config: Mapping[str, Any] | None
    data: Mapping[str, str]
    code: str
    snapshot: str | None
    git: Mapping[str, Any] | None
    packages: Mapping[str, str]
    backend: str
    resources: Resources
    options: Mapping[str, Any]
    retries: int
    max_requeues: int
    sweep: str | None
    trial: Mapping[str, Any] | None
    key: str | None
    after: tuple[str, ...]
    created: str

    @property
    def fingerprint(self) -> str | None:
        """Of the configuration; None for a command that is no training."""
        return self.config["fingerprint"] if self.config else None

    @property
    def steps(self) -> int | None:
        """Updates to be done; None for a command that is no training."""
        return self.config["config"]["steps"] if self.config else None


@dataclasses.dataclass(frozen=True, kw_only=True)
class Submission:
    """How a run was last submitted.

    Attributes:
      backend: of `schedulers.NAMES`.
      job: the backend's name of it: Slurm's number, the process, the JobSet.
      index: its place in the array, from 1; None for a job of its own.
      attempt: counts submissions from 1.
      time: in UTC, ISO 8601.
    """

    backend: str
    job: str
    index: int | None
    attempt: int
    time: str


def launch(run: Path) -> Path:
    """Returns the folder of what launching a run or sweep leaves."""
    return run / "launch"


def write(run: Path, spec: RunSpec) -> None:
    """Writes the specification and the configuration that training reads.

    Raises:
      InputError, WorkFailed: as `files.write_text`.
    """
    place = launch(run)
    files.make_folder(place)
    if spec.config is not None:
        files.write_text(place / "config.json", json.dumps(spec.config, indent=2) + "\n")
    write_json(place / "spec.json", dataclasses.asdict(spec))


def read(run: Path) -> RunSpec:
    """Returns the specification of a run.

    Raises:
      InputError: there is none, or it is damaged or of another version.
    """
    path = launch(run) / "spec.json"
    values = _read(path)
    resources = values.get("resources")
    values["resources"] = _make(Resources, path, resources if isinstance(resources, dict) else {})
    for name in ("command", "passed", "after"):
        values[name] = tuple(values.get(name) or ())
    config = values.get("config")
    whole = isinstance(config, dict) and {"config", "fingerprint"} <= set(config)
    if config is not None and not whole:
        raise InputError(f"{path}: damaged (config); delete it and submit again")
    return _make(RunSpec, path, values)


def submission(run: Path) -> Submission | None:
    """Returns how a run was last submitted; None before that.

    Raises:
      InputError: the file is damaged.
    """
    path = launch(run) / "job.json"
    return _make(Submission, path, _read(path)) if path.exists() else None


def trials(sweep: Path) -> list[Path]:
    """Returns the folders of a sweep's trials, in its order.

    Raises:
      InputError: the sweep's file is damaged.
    """
    path = launch(sweep) / "sweep.json"
    names = _read(path).get("trials")
    if not isinstance(names, list) or not all(isinstance(n, str) for n in names):
        raise InputError(f"{path}: damaged (trials); delete it and submit again")
    return [sweep / name for name in names]


def is_run(folder: Path) -> bool:
    """Returns whether a folder was made by `submit.py`."""
    return (launch(folder) / "spec.json").is_file()


def is_sweep(folder: Path) -> bool:
    """Returns whether a folder is that of a sweep."""
    return (launch(folder) / "sweep.json").is_file()


def runs(folder: Path) -> list[Path]:
    """Returns the runs of a run (itself) or of a sweep."""
    return trials(folder) if is_sweep(folder) else [folder]


def lookup(name: str, root: str | Path) -> Path | None:
    """Returns the folder of a run or sweep by its name below ROOT or its path, or None."""
    try:
        for path in (Path(root) / name, Path(name)):
            if is_run(path) or is_sweep(path):
                return path.absolute()
    except (OSError, ValueError):
        pass
    return None


def find(name: str, root: str | Path) -> Path:
    """Returns the folder of a run or sweep.

    Raises:
      InputError: there is none; names the nearest.
    """
    found = lookup(name, root)
    if found is None:
        have = [str(p.relative_to(root)) for p in everything(Path(root))]
        raise InputError(f"{name}: no run or sweep in {root}{nearest(name, have)}")
    return found


def everything(root: Path) -> list[Path]:
    """Returns the folders of all runs and sweeps below ROOT, by name; trials are in their sweep."""
    if not root.is_dir():
        return []
    return [p for p in sorted(root.iterdir()) if is_run(p) or is_sweep(p)]


def check_name(name: str, what: str = "--name") -> str:
    """Returns a name that can be a folder's.

    Raises:
      InputError: it cannot.
    """
    if not _NAME.fullmatch(name) or len(name) > 120:
        raise InputError(
            f"{what} {name!r}: expected a name of at most 120 letters, digits and any of _ . + = "
            "@ , - that starts with a letter or digit"
        )
    return name


@contextlib.contextmanager
def alone(root: Path, name: str) -> Iterator[Callable[[], None]]:
    """Keeps other commands from submitting under a name; yields what lets them do so again.

    Of two that submit the same at once, the second sees what the first has written.

    Raises:
      InputError: another command holds the name for a minute; the folder cannot be written to.
    """
    import fcntl

    files.make_folder(root / NAMES)
    end = time.monotonic() + _OTHERS_SECONDS
    with (root / NAMES / name).open("a") as file:
        while True:
            try:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
                break
            except BlockingIOError:
                if time.monotonic() > end:
                    raise InputError(
                        f"{name}: another command has been submitting it for a minute"
                    ) from None
                time.sleep(0.05)
            except OSError:
                break  # A disk without locks; nothing can be said then.
        yield file.close


def write_json(path: Path, values: Mapping[str, Any]) -> None:
    """Writes values with the version, whole or not at all."""
    files.write_text(path, json.dumps({"version": VERSION, **values}, indent=1) + "\n")


def _read(path: Path) -> dict[str, Any]:
    try:
        values = json.loads(path.read_text(encoding="utf-8"))
        version = values.pop("version")
    except FileNotFoundError:
        raise InputError(f"{path}: does not exist") from None
    except OSError as error:
        raise InputError(f"{path}: cannot be read ({error.strerror})") from None
    except (ValueError, AttributeError, KeyError, TypeError) as error:
        raise InputError(f"{path}: damaged ({error}); delete it and submit again") from None
    if version != VERSION:
        raise InputError(f"{path}: version {version}: expected {VERSION}; submit again")
    return dict(values)


def _make(kind: type[T], path: Path, values: Mapping[str, Any]) -> T:
    try:
        return kind(**values)
    except TypeError as error:
        raise InputError(f"{path}: damaged ({error}); delete it and submit again") from None
