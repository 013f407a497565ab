"""Parts as elements of a Slurm array, then a job that waits for the array to end.

An element's exit code is kept in a file, because `sacct` needs a database that many sites do not
run. What is told to stop goes back into the queue, what failed does so a few times;
what was cancelled does not.
"""

from __future__ import annotations

import dataclasses
import re
import shlex
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from a2fjax import files
from a2fjax.errors import EXIT_BAD_INPUT, EXIT_OK, InputError, WorkFailed
from launch.jobs import array_spec
from launch.jobs.array_spec import Record, Spec
from launch.schedulers import After, Id, NotInstalled, call, last_line, read_log

OPTIONS = frozenset(
    "partition account qos constraint time mem cpus max_parallel array_limit sbatch".split()
)
PYTHON = sys.executable
MISSING = "submit from a login node, or look at the scripts with --dry-run"
TOKEN = re.compile(r"[^\s\0'\"\\]+")
QUEUED = {"PENDING", "REQUEUED", "REQUEUE_HOLD", "REQUEUE_FED", "CONFIGURING", "SUSPENDED"}
NOTICE_SECONDS = 120
LEAST_MINUTES = 10


def options(given: Mapping[str, Any], spec: Spec) -> dict[str, Any]:
    """See `Backend.options`."""
    values: dict[str, Any] = {name: given.get(name) for name in sorted(OPTIONS)}
    for name in ("partition", "account", "qos", "constraint"):
        if values[name] is not None and not TOKEN.fullmatch(values[name]):
            raise InputError(f"--{name} {values[name]!r}: expected a name without spaces or quotes")
    if values["time"] is not None:
        array_spec.minutes(values["time"])
    values["mem"] = f"{array_spec.memory_mib(values['mem'])}M" if values["mem"] else None
    values["cpus"] = values["cpus"] or 1
    values["sbatch"] = values["sbatch"] or []
    for extra in values["sbatch"]:
        if not extra.startswith("--") or extra.startswith(("--array", "--output", "--chdir")):
            raise InputError(f"--sbatch={extra}: expected an option of sbatch, such as --exclusive")
    return values


def render(record: Record, base: Path) -> str:
    """Returns both scripts; has sbatch check the first where it is installed."""
    script = parts_script(record, base)
    try:
        verdict = _check(record, script)
    except (NotInstalled, WorkFailed) as error:
        verdict = f"sbatch --test-only was not run: {error}"
    last = f"# afterwards, with --dependency=afterany:<the array>\n{finish_script(record, base)}"
    return f"{script}\n{last}\n# {verdict}"


def submit(record: Record, base: Path, after: After) -> Record:
    """Submits the array and the job that waits for it.

    Raises:
      InputError: sbatch refuses, or the array is larger than the site takes.
      WorkFailed: the scheduler does not answer.
    """
    place, last = array_spec.folder(base), finish_script(record, base)
    script = parts_script(record, base) if record.parts else last
    # Before anything that says how the last attempt went is removed.
    _check(record, script)
    array_spec.clear(base, record.parts)
    files.write_text(place / "finish.sh", last)
    jobs: dict[str, str] = {}
    if record.parts:
        files.write_text(place / "parts.sh", script)
        first = ["--output=part-%a.log", *dependency(after)]
        jobs["parts"] = _sbatch(record, place, "parts.sh", *first)
        record = dataclasses.replace(record, jobs=jobs)
        # Before anything else can go wrong: what is queued can be cancelled.
        array_spec.write(base, record)
    behind = {"any": [(jobs["parts"], None)]} if jobs else after
    try:
        last_words = ["--output=finish.log", *dependency(behind)]
        jobs["finish"] = _sbatch(record, place, "finish.sh", *last_words)
    except (InputError, WorkFailed):
        if jobs:
            call(["scancel", jobs["parts"]], missing=MISSING)
        raise
    record = dataclasses.replace(record, jobs=jobs)
    array_spec.write(base, record)
    return record


def states(record: Record, base: Path) -> dict[int | str, str]:
    """See `Backend.states`."""
    queued = _queue(record)
    found: dict[int | str, str] = {}
    for which in (*range(1, record.spec.parts + 1), array_spec.FINISH):
        found[which] = queued.get(which) or array_spec.exit_state(base, which) or array_spec.LOST
    return found


def finish(record: Record, base: Path) -> Record:
    """The last command is in the queue already: there is nothing to start."""
    return record


def cancel(record: Record, base: Path) -> str:
    """Takes the jobs out of the queue and stops what runs."""
    # First, so that no element that is stopped now goes back into the queue.
    files.write_text(array_spec.folder(base) / "cancelled", "")
    ids = [record.jobs[k] for k in ("finish", "parts") if k in record.jobs]
    found = call(["scancel", *ids], missing=MISSING)
    if found.returncode and "Invalid job id" not in found.stderr:
        raise WorkFailed(f"scancel: {last_line(found.stderr)}")
    return f"cancelled Slurm jobs {' and '.join(ids)}"


def log(record: Record, base: Path, which: int | str) -> str:
    """See `Backend.log`."""
    return read_log(array_spec.log_path(base, which))


def parts_script(record: Record, base: Path) -> str:
    """Returns the script of the array.

    Run by hand with SLURM_ARRAY_TASK_ID set and no SLURM_JOB_ID, it runs that part here.
    """
    spec = record.spec
    limit = record.options["max_parallel"]
    lines = _directives(record, spec.name)
    lines.append(f"#SBATCH --array={ranges(record.parts)}{f'%{limit}' if limit else ''}")
    lines += ["#SBATCH --requeue", "#SBATCH --open-mode=append"]
    time = record.options["time"]
    # Slurm works by the minute and may be a minute early: in a short job the notice would come at
    # the start, again and again.
    if time is None or array_spec.minutes(time) >= LEAST_MINUTES:
        lines.append(f"#SBATCH --signal=TERM@{NOTICE_SECONDS}")
    return _script(
        lines,
        spec,
        base,
        setup='which="part-$SLURM_ARRAY_TASK_ID"',
        command=[*_words(spec.command), f'  --part "$SLURM_ARRAY_TASK_ID"/{spec.parts}'],
        retries=spec.retries,
    )


def finish_script(record: Record, base: Path) -> str:
    """Returns the script of the job after the array."""
    spec = record.spec
    lines = _directives(record, f"{spec.name}-finish")
    lines += ["#SBATCH --requeue", "#SBATCH --open-mode=append"]
    return _script(
        lines,
        spec,
        base,
        setup=f"which={array_spec.FINISH}",
        command=_words(spec.finish),
        retries=0,
    )


def check_array_limit(record: Record) -> None:
    """Checks that the site takes an array of this size.

    Raises:
      InputError: it does not; the message names the largest.
    """
    limit, source = largest_array(record.options["array_limit"])
    if limit is not None and record.spec.parts > limit:
        raise InputError(
            f"--parts {record.spec.parts}: {source} takes at most {limit}; say --parts {limit}"
        )


def largest_array(given: int | None) -> tuple[int | None, str]:
    """Returns the largest array that the site takes, where that is known, and who says so."""
    if given is not None:
        return given, "--array-limit"
    found = call(["scontrol", "show", "config"], missing=MISSING)
    judge(found)
    match = re.search(r"^MaxArraySize\s*=\s*(\d+)", found.stdout, re.MULTILINE)
    if match is None:
        return None, ""
    # The largest index is one less, and parts count from 1.
    return int(match[1]) - 1, f"this cluster's MaxArraySize={match[1]}"


def _check(record: Record, script: str) -> str:
    """Has the scheduler look at the array's script; returns what it says."""
    check_array_limit(record)
    argv = ["sbatch", "--test-only", *record.options["sbatch"]]
    found = call(argv, stdin=script, missing=MISSING)
    judge(found)
    return last_line(found.stderr)


def _directives(record: Record, name: str) -> list[str]:
    values = record.options
    lines = [f"#SBATCH --job-name={name}", "#SBATCH --ntasks=1"]
    lines.append(f"#SBATCH --cpus-per-task={values['cpus']}")
    for key in ("partition", "account", "qos", "constraint", "time", "mem"):
        if values[key] is not None:
            lines.append(f"#SBATCH --{key}={values[key]}")
    return lines


def _script(
    directives: Sequence[str],
    spec: Spec,
    base: Path,
    *,
    setup: str,
    command: Sequence[str],
    retries: int,
) -> str:
    exports = [f"export {k}={shlex.quote(v)}" for k, v in sorted(spec.environment.items())]
    return "\n".join(
        [
            "#!/bin/bash",
            *directives,
            "set -euo pipefail",
            f"folder={shlex.quote(str(array_spec.folder(base)))}",
            setup,
            "command=(",
            *command,
            ")",
            *exports,
            f"cd -- {shlex.quote(spec.directory)}",
            _BODY.format(
                retries=retries,
                ok=EXIT_OK,
                bad=EXIT_BAD_INPUT,
                stopped=" | ".join(f"{code:d}" for code in array_spec.STOP_CODES),
            ).strip("\n"),
            "",
        ]
    )


_BODY = r"""
rm -f -- "$folder/$which.exit"
printf '== %s on %s, restart %s\n' "$(date -u +%FT%TZ)" "$(hostname)" "${{SLURM_RESTART_COUNT:-0}}"
ended=
# This shell hears SIGTERM when the whole job is ended (scancel, time limit); a notice before
# preemption goes to the step alone.
trap 'ended=1' TERM
step=()
if [ -n "${{SLURM_JOB_ID:-}}" ]; then
  # A step of its own: without one, Slurm's signals would reach this shell and not the command.
  step=(srun --ntasks=1 "--cpus-per-task=${{SLURM_CPUS_PER_TASK:-1}}")
fi
code=0
"${{step[@]}}" "${{command[@]}}" || code=$?

# The job starts again from the top; what is done already is kept by the command.
requeue() {{
  if [ -n "$ended" ] || [ -e "$folder/cancelled" ] || [ -z "${{SLURM_JOB_ID:-}}" ]; then
    return 1
  fi
  echo "== exit code $code: back into the queue"
  scontrol requeue "$SLURM_JOB_ID"
}}
again=
case "$code" in
  {ok} | {bad}) ;;
  {stopped}) if requeue; then again=1; fi ;;
  *)
    failures=$(cat -- "$folder/$which.failures" 2>/dev/null || echo 0)
    if [ "$failures" -lt {retries} ]; then
      echo $((failures + 1)) >"$folder/$which.failures"
      if requeue; then again=1; fi
    fi
    ;;
esac
if [ -n "$again" ]; then
  sleep 60 || true # Slurm ends this shell when it takes the job back
else
  echo "$code" >"$folder/.$which.$$" && mv -f -- "$folder/.$which.$$" "$folder/$which.exit"
fi
exit "$code"
"""


def _words(command: Sequence[str]) -> list[str]:
    return [f"  {shlex.quote(word)}" for word in command]


def ranges(parts: Sequence[int]) -> str:
    """Returns "1-3,7" for (1, 2, 3, 7)."""
    spans: list[list[int]] = []
    for part in sorted(parts):
        if spans and spans[-1][1] == part - 1:
            spans[-1][1] = part
        else:
            spans.append([part, part])
    return ",".join(f"{a}" if a == b else f"{a}-{b}" for a, b in spans)


def _sbatch(record: Record, place: Path, script: str, *arguments: str) -> str:
    # Run in the folder with relative names: Slurm would take "%j" in a path for a job's number.
    argv = ["sbatch", "--parsable", f"--chdir={place}", *arguments, *record.options["sbatch"]]
    found = call([*argv, str(place / script)], missing=MISSING)
    judge(found)
    number = last_line(found.stdout).split(";")[0]
    if not number.isdigit():
        raise WorkFailed(f"sbatch answered {last_line(found.stdout)!r} instead of a job's number")
    return number


def dependency(after: After) -> list[str]:
    """Returns the option of sbatch that has a job wait, or none."""
    words = [f"after{how}:{':'.join(map(id_text, these))}" for how, these in after.items() if these]
    return [f"--dependency={','.join(words)}"] if words else []


def id_text(found: Id) -> str:
    """Returns what Slurm's programs call a job, or an element of an array."""
    return found[0] if found[1] is None else f"{found[0]}_{found[1]}"


def judge(found: Any) -> None:
    """Raises what a call's failure means.

    Raises:
      InputError: the scheduler refuses.
      WorkFailed: it does not answer.
    """
    if not found.returncode:
        return
    name = Path(found.args[0]).name
    if re.search(
        "contact slurm controller|timed out|Connection refused|configuration source",
        found.stderr,
        re.I,
    ):
        raise WorkFailed(f"{name}: {last_line(found.stderr)}")
    raise InputError(f"{name} refuses: {last_line(found.stderr)}")


def _queue(record: Record) -> dict[int | str, str]:
    """Returns the states of what is in the queue, waiting or running."""
    known = {number: name for name, number in record.jobs.items()}
    if not known:
        return {}
    found = call(["squeue", "-h", "-r", "-o", "%F %K %T", "-j", ",".join(known)], missing=MISSING)
    if found.returncode and "Invalid job id" not in found.stderr:
        raise WorkFailed(f"squeue: {last_line(found.stderr)}")
    states: dict[int | str, str] = {}
    for line in found.stdout.splitlines():
        number, index, state = line.split()
        which: int | str = int(index) if index.isdigit() else known.get(number, array_spec.FINISH)
        states[which] = array_spec.WAITING if state in QUEUED else array_spec.RUNNING
    return states
