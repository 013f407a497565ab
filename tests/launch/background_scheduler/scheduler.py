"""Starts every element at once, detached; nothing here is known to the rest of `launch`."""

import os
import signal
import subprocess
import sys
from pathlib import Path

from launch.jobs import outcome
from launch.jobs.outcome import State
from launch.jobs.record import FINALIZE, interpreter, launch
from launch.schedulers import base

# The shell ignores the signal that its group gets, so that the exit code is always recorded.
SCRIPT = """trap '' TERM
"$@" -m launch.jobs.worker "$0"
"$@" -m launch.jobs.requeue "$0" $? --ended"""


class Background(base.Scheduler):
    """See `base.Scheduler`."""

    capabilities = base.Capabilities(starts_finalize=False)
    flags = (base.Option(name="niceness", help="of the processes", kind=int, least=0),)
    python = sys.executable

    def options(self, given, profile, resources, *, array):
        return {"niceness": given.get("niceness", profile.get("niceness", 0))}

    def profile(self, values):
        return values.get("background", {})

    def render(self, job):
        return "\n".join(f"nice -n {job.spec.options['niceness']} {e.folder}" for e in job.chosen)

    def submit(self, job, after, submitted):
        submitted(job.name, job.chosen)
        if job.finalize is not None:
            _pid_path(job.finalize.folder).unlink(missing_ok=True)
            submitted(f"{job.name}-last", [job.finalize])
        for element in job.chosen:
            _start(element)

    def finalize(self, job):
        if not _pid_path(job.finalize.folder).exists():
            _start(job.finalize)

    def states(self, submitted):
        return {folder: _state(folder, entry) for folder, entry in submitted.items()}

    def cancel(self, submitted):
        for folder in submitted:
            if _alive(folder):
                os.killpg(int(_pid_path(folder).read_text()), signal.SIGTERM)
        return f"asked {len(submitted)} to stop"

    def logs(self, folder, submitted):
        return base.read_log(launch(folder) / "job.log")


def _start(element):
    spec, folder = element.spec, launch(element.folder)
    folder.mkdir(parents=True, exist_ok=True)
    command = ["nice", "-n", str(spec.options["niceness"]), "/bin/sh", "-c", SCRIPT]
    with (folder / "job.log").open("ab") as log:
        process = subprocess.Popen(
            [*command, str(element.folder), *interpreter(element.folder, spec)],
            stdin=subprocess.DEVNULL, stdout=log, stderr=log, cwd=spec.directory,
            env={**os.environ, **spec.environment}, start_new_session=True,
        )  # fmt: skip
    _pid_path(element.folder).write_text(str(process.pid))


def _state(folder, submitted):
    if outcome.exit_code(folder) is not None:
        return outcome.recorded(folder, submitted)
    if folder.name == FINALIZE and not _pid_path(folder).exists():
        return State(outcome.WAITING)
    return State(outcome.RUNNING) if _alive(folder) else outcome.recorded(folder, submitted)


def _pid_path(folder: Path) -> Path:
    return launch(folder) / "pid"


def _alive(folder):
    try:
        os.kill(int(_pid_path(folder).read_text()), 0)
    except (OSError, ValueError):
        return False
    return True
