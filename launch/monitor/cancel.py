"""The command `cancel`."""

from __future__ import annotations

from pathlib import Path

from a2fjax import files
from launch import schedulers
from launch.jobs import record
from launch.jobs.record import Submission
from launch.monitor import states


def cancel(folder: Path) -> None:
    """Stops all running and waiting parts of a run, sweep or array.

    Raises:
      InputError, WorkFailed: as `states.query`.
    """
    members = record.members(folder)
    current = states.query(members)
    active = [run for run in members if current[run].active]
    if not active:
        print("nothing runs")
        return
    groups: dict[str, dict[Path, Submission]] = {}
    for run, submitted in record.submissions(active).items():
        # Write this first, so that nothing that stops now returns to the queue.
        files.make_folder(record.launch(run))
        files.write_text(record.launch(run) / "cancelled", "", mode=files.PRIVATE)
        assert submitted is not None
        groups.setdefault(submitted.scheduler, {})[run] = submitted
    for name, group in groups.items():
        print(schedulers.get(name).cancel(group))
