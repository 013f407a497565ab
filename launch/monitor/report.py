"""The command `status`: states of a run, a sweep or an array, as text."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from a2fjax.errors import InputError
from launch.jobs import outcome, progress, record
from launch.jobs.outcome import State
from launch.jobs.record import Submission
from launch.monitor import causes, states

_SHOWN = 20


def show(folder: Path) -> None:
    """Prints the states of a run, or of the members of a sweep or array.

    Raises:
      InputError, WorkFailed: as `states.query`.
    """
    members = states.query(record.members(folder))
    if record.is_sweep(folder):
        print(f"{folder.name}: {len(members)} runs: {states.counts(members.values())}")
        for run, state in members.items():
            try:
                _show_run(run, state, "  ")
            except InputError as error:
                print(f"  {run.name}: damaged: {error}")
    elif record.is_array(folder):
        _show_array(folder, members)
    else:
        _show_run(folder, members[folder], "")


def _show_array(folder: Path, members: Mapping[Path, State]) -> None:
    spec, submitted = record.read(folder), record.submission(folder)
    elements = {p.name: s.name for p, s in members.items() if p.name != record.FINALIZE}
    jobs = ""
    if submitted is not None:
        names = (("elements", submitted.job), ("finalize", submitted.finalize))
        jobs = ", ".join(f"{what} {name}" for what, name in names if name)
        jobs = f" ({jobs}), attempt {submitted.attempt}, submitted {submitted.time}"
    print(f"{spec.id}: {spec.scheduler}{jobs}")
    for state in outcome.STATES:
        names_of = [name for name, value in elements.items() if value == state]
        if names_of:
            dots = " ..." if len(names_of) > _SHOWN else ""
            some = "" if state == outcome.DONE else f": {', '.join(names_of[:_SHOWN])}{dots}"
            print(f"  {len(names_of)} of {len(elements)} {state}{some}")
    print(f"  finalize: {members[record.finalize(folder)].name}")
    if states.blocked(members):
        print(
            "  waits for work that did not succeed, and never starts: `submit.py cancel "
            f"{spec.id}`, then `submit.py retry {spec.id}` once that is done"
        )


def _show_run(run: Path, state: State, indent: str) -> None:
    spec, submitted = record.read(run), record.submission(run)
    text = progress.line(run, spec.steps)
    print(f"{indent}{run.name if indent else spec.id}: {state.name}  {text}".rstrip())
    if submitted is not None and not indent:
        job = f"{submitted.scheduler} {_job_name(submitted)}".rstrip()
        code = spec.snapshot or "as installed"
        print(f"  {job}, attempt {submitted.attempt}, submitted {submitted.time}, code {code}")
    if state.blocked:
        print(
            f"{indent}  waits for a run that did not succeed, and never starts: `submit.py "
            f"cancel {spec.id}`, then `submit.py resume {spec.id}` once that run is done"
        )
    elif state.reason:
        after = f" (after {', '.join(spec.after)})" if spec.after else ""
        print(f"{indent}  waits: {state.reason}{after}")
    if state.name in outcome.WRONG:
        print(f"{indent}  {causes.why(run)}")


def _job_name(submitted: Submission) -> str:
    return submitted.job + ("" if submitted.index is None else f"_{submitted.index}")
