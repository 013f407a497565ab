"""Reads and writes the files of a job: specification, submission, and folders of elements.

ROOT/RUN/                   folder that the command fills; the run folder of a training
    launch/spec.json        `JobSpec`
    launch/config.json      configuration that training reads, unaffected by later edits of files
    launch/checked_code.py  starts the worker if the snapshot of the code is as it was
    launch/job.json         `Submission`: how it was last submitted
    launch/data.json        digests of data that did not exist yet on submission
    launch/events.jsonl, logs/rank-0.log, result.json, exit
ROOT/SWEEP/launch/sweep.json, ROOT/SWEEP/TRIAL/ like a run
OUTPUT/.build/              array: build or cache that fills OUTPUT (or the folder of --record)
    launch/spec.json, job.json
    elements/1/launch/      state of an element like that of a run: events, logs, result, exit
    finalize/launch/        the same for the last command
"""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, TypeVar

from a2fjax import budgets, files, typed_json
from a2fjax.errors import InputError
from launch.jobs import checked_code
from launch.jobs.formats import as_json
from launch.jobs.spec import JobSpec

VERSION = 1
ARRAY = ".build"
ELEMENTS = "elements"
FINALIZE = "finalize"
_CHECK = "checked_code.py"
T = TypeVar("T")


@dataclasses.dataclass(frozen=True, kw_only=True)
class Submission:
    """The last submission of a job or of one of its elements.

    Attributes:
      scheduler: registered name of the scheduler.
      job: the scheduler's id: Slurm's number, the process, the JobSet; "" before submission.
      index: index in an array of the scheduler, from 1; None for a separate job.
      attempt: number of the submission, from 1.
      time: UTC time, ISO 8601.
      finalize: for an array, the scheduler's name of the last command's job.
    """

    scheduler: str
    job: str
    index: int | None
    attempt: int
    time: str
    finalize: str | None = None


def launch(folder: Path) -> Path:
    """Returns the folder of launch files of a run, sweep, array or element."""
    return folder / "launch"


def write(folder: Path, spec: JobSpec) -> None:
    """Writes the specification, the configuration that training reads, and the check of the code.

    Raises:
      InputError, WorkFailed: as `files.write_text`.
    """
    files.make_folder(launch(folder))
    if spec.snapshot is not None:
        text = Path(checked_code.__file__).read_text(encoding="utf-8")
        files.write_text(launch(folder) / _CHECK, text, mode=files.PRIVATE)
    if spec.config is not None:
        text = json.dumps(spec.config, indent=2) + "\n"
        files.write_text(launch(folder) / "config.json", text, mode=files.PRIVATE)
    write_json(launch(folder) / "spec.json", dataclasses.asdict(spec))


def interpreter(folder: Path | str, spec: JobSpec) -> tuple[str, ...]:
    """Returns the words that start Python with the code of a run or element.

    They refuse a snapshot whose files are not those of its digest.
    """
    if spec.snapshot is None or spec.code is None:
        return (spec.python,)
    check = f"{folder}/launch/{_CHECK}"
    return (spec.python, "-I", "-S", check, spec.code, spec.snapshot, spec.python)


def read(folder: Path) -> JobSpec:
    """Returns the specification of a run, array, or element of an array.

    Raises:
      InputError: there is none, or it is damaged or of another version.
    """
    array = array_of(folder)
    if array is not None:
        spec = read(array)
        return spec.last() if folder.name == FINALIZE else spec.element(int(folder.name))
    path = launch(folder) / "spec.json"
    spec = _make(JobSpec, path, _read(path))
    if spec.config is not None:
        config = spec.config.get("config")
        complete = isinstance(config, dict) and isinstance(config.get("steps"), int)
        complete = complete and isinstance(spec.config.get("fingerprint"), str)
        plugins = spec.config.get("plugins", {})
        known = isinstance(plugins, dict) and all(isinstance(p, str) for p in plugins.values())
        if not (complete and known):
            raise InputError(f"{path}: damaged (config); delete it and submit again")
    return spec


def write_submission(folder: Path, submission: Submission) -> None:
    """Writes how a run or array was submitted."""
    write_json(launch(folder) / "job.json", dataclasses.asdict(submission))


def submission(folder: Path) -> Submission | None:
    """Returns the last submission of a run, array or element; None if there is none.

    Raises:
      InputError: the file is damaged.
    """
    return submissions([folder])[folder]


def submissions(folders: Iterable[Path]) -> dict[Path, Submission | None]:
    """Returns the last submission of several jobs; the record of an array is read once.

    Raises:
      InputError: a file is damaged.
    """
    arrays: dict[Path, Submission | None] = {}
    result: dict[Path, Submission | None] = {}
    for folder in folders:
        array = array_of(folder)
        if array is None:
            result[folder] = _submission(folder)
            continue
        if array not in arrays:
            arrays[array] = _submission(array)
        entry = arrays[array]
        if entry is not None and folder.name == FINALIZE:
            entry = dataclasses.replace(entry, job=entry.finalize or "", finalize=None)
        elif entry is not None:
            entry = dataclasses.replace(entry, index=int(folder.name), finalize=None)
        result[folder] = entry
    return result


def is_job(folder: Path) -> bool:
    """Returns whether a folder is a run or an array that was submitted."""
    return (launch(folder) / "spec.json").is_file()


def is_sweep(folder: Path) -> bool:
    """Returns whether a folder is a sweep."""
    return (launch(folder) / "sweep.json").is_file()


def is_array(folder: Path) -> bool:
    """Returns whether a folder is the record of an array.

    Raises:
      InputError: its specification is damaged.
    """
    return is_job(folder) and (folder.name == ARRAY or bool(read(folder).finalize))


def array_of(folder: Path) -> Path | None:
    """Returns the array that an element's folder belongs to; None for anything else."""
    if folder.parent.name == ELEMENTS:
        array = folder.parent.parent
    elif folder.name == FINALIZE:
        array = folder.parent
    else:
        return None
    return array if is_job(array) and not is_job(folder) else None


def element(array: Path, index: int) -> Path:
    """Returns the folder of an element of an array, from 1."""
    return array / ELEMENTS / str(index)


def finalize(array: Path) -> Path:
    """Returns the folder of the last command of an array."""
    return array / FINALIZE


def trials(sweep: Path) -> list[Path]:
    """Returns the folders of a sweep's trials, in its order.

    Raises:
      InputError: the sweep's file is damaged.
    """
    path = launch(sweep) / "sweep.json"
    names = _read(path).get("trials")
    if not isinstance(names, list) or not all(isinstance(n, str) for n in names):
        raise InputError(f"{path}: damaged (trials); delete it and submit again")
    return [files.inside(sweep, n, where=f"{path}: trials", plain=True) for n in names]


def write_sweep(sweep: Path, names: Sequence[str]) -> None:
    """Writes the names of a sweep's trials."""
    files.make_folder(launch(sweep))
    write_json(launch(sweep) / "sweep.json", {"trials": list(names)})


def members(folder: Path) -> list[Path]:
    """Returns what is executed: a run, a sweep's trials, an array's elements and last command.

    Raises:
      InputError: a file is damaged.
    """
    if is_sweep(folder):
        return trials(folder)
    if is_array(folder):
        count = read(folder).elements
        return [*(element(folder, i) for i in range(1, count + 1)), finalize(folder)]
    return [folder]


def write_json(path: Path, values: Mapping[str, Any]) -> None:
    """Writes values and the format version, atomically; only their owner may read them."""
    files.write_text(path, as_json({"version": VERSION, **values}), mode=files.PRIVATE)


def _submission(folder: Path) -> Submission | None:
    path = launch(folder) / "job.json"
    return _make(Submission, path, _read(path)) if path.exists() else None


def _read(path: Path) -> dict[str, Any]:
    if not path.exists():
        raise InputError(f"{path}: does not exist")
    try:
        values = budgets.load_json(path)
        version = values.pop("version")
    except InputError as error:
        raise InputError(f"{error}; it is damaged: delete it and submit again") from None
    except (AttributeError, KeyError, TypeError) as error:
        raise InputError(f"{path}: damaged ({error}); delete it and submit again") from None
    if version != VERSION:
        raise InputError(f"{path}: version {version}: expected {VERSION}; submit again")
    return dict(values)


def _make(kind: type[T], path: Path, values: Mapping[str, Any]) -> T:
    try:
        return typed_json.build(kind, values, name=str(path))
    except InputError as error:
        raise InputError(f"{error}; it is damaged: delete it and submit again") from None
