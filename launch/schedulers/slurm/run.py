"""Runs as Slurm jobs: one alone, a sweep as one array; each is a step of a process a node or GPU.

submitit is not used: see docs/architecture.md. What was told to stop (exit code 75, preemption, the
notice before the time limit) goes back into the queue by itself, what failed or was cancelled does
not; `launch.jobs.requeue` decides.
"""

from __future__ import annotations

import shlex
import sys
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from a2fjax import files
from a2fjax.errors import EXIT_FAILED, InputError, WorkFailed
from launch.jobs import array_spec, run_spec
from launch.jobs.run_spec import Resources, RunSpec
from launch.schedulers import After, Id, NotInstalled, call, last_line
from launch.schedulers.slurm import array

NAMES = ("partition", "account", "qos", "constraint", "array_limit")
PYTHON = sys.executable


def options(given: Mapping[str, Any], profile: Mapping[str, Any]) -> dict[str, Any]:
    """Returns the options of a submission: the command line's before the profile's.

    Raises:
      InputError: one is of the wrong form.
    """
    values = {name: given.get(name, profile.get(name)) for name in NAMES}
    for name in NAMES[:-1]:
        if values[name] is not None and not array.TOKEN.fullmatch(values[name]):
            raise InputError(f"--{name} {values[name]!r}: expected a name without spaces or quotes")
    values["sbatch"] = [*profile.get("sbatch", []), *(given.get("sbatch") or [])]
    for extra in values["sbatch"]:
        if not extra.startswith("--") or extra.startswith(("--array", "--output", "--chdir")):
            raise InputError(f"--sbatch={extra}: expected an option of sbatch, such as --exclusive")
    container = profile.get("container")
    values["srun"] = [*([f"--container-image={container}"] if container else [])]
    values["srun"] += profile.get("srun", [])
    values["setup"] = profile.get("setup", [])
    values["gpu_option"] = profile.get("gpu_option", "gpus-per-node")
    values["gpu_type"] = profile.get("gpu_type")
    values["notice_seconds"] = profile.get("notice_seconds", array.NOTICE_SECONDS)
    return values


def script(folder: Path, runs: Sequence[tuple[Path, RunSpec]], chosen: Sequence[int]) -> str:
    """Returns the job's script.

    Run by hand with no SLURM_JOB_ID (and SLURM_ARRAY_TASK_ID for a trial), it runs here.

    Args:
      folder: of the run or the sweep.
      runs: the run, or all trials of the sweep; they differ in their folders only.
      chosen: places of those to run in `runs`, from 1; () for a run alone.
    """
    one = _lead(runs, chosen)
    limit = one.options.get("max_parallel")
    lines = _directives(one.resources, one.options, array_spec.slug(folder.name, str(folder)))
    if chosen:
        lines.append(f"#SBATCH --array={array.ranges(chosen)}{f'%{limit}' if limit else ''}")
    exports = {**one.environment, "PYTHONPATH": one.environment["PYTHONPATH"]}
    return "\n".join(
        [
            "#!/bin/bash",
            *lines,
            *one.options["setup"],
            "set -uo pipefail",
            "runs=(",
            *(f"  {shlex.quote(str(run))}" for run, _ in runs),
            ")",
            f"python={shlex.quote(one.python)}",
            "srun=(",
            *(f"  {shlex.quote(word)}" for word in _srun(one)),
            ")",
            *(f"export {k}={shlex.quote(v)}" for k, v in sorted(exports.items())),
            f"directory={shlex.quote(one.directory)}",
            _BODY.format(
                most=one.max_requeues,
                failed=EXIT_FAILED,
                stopped=" | ".join(f"{code:d}" for code in array_spec.STOP_CODES),
            ).strip("\n"),
            "",
        ]
    )


def check(folder: Path, runs: Sequence[tuple[Path, RunSpec]], chosen: Sequence[int]) -> str:
    """Has the scheduler look at the script; returns what it says.

    Raises:
      InputError: it refuses, or takes no array of that size.
      WorkFailed: it does not answer.
    """
    one = _lead(runs, chosen)
    if chosen:
        limit, source = array.largest_array(one.options["array_limit"])
        if limit is not None and len(runs) > limit:
            raise InputError(f"--sweep: {len(runs)} runs: {source} takes at most {limit}")
    argv = ["sbatch", "--test-only", *one.options["sbatch"]]
    found = call(argv, stdin=script(folder, runs, chosen), missing=array.MISSING)
    array.judge(found)
    return last_line(found.stderr)


def render(folder: Path, runs: Sequence[tuple[Path, RunSpec]], chosen: Sequence[int]) -> str:
    """Returns the script, and what the scheduler says of it where it is installed."""
    try:
        verdict = check(folder, runs, chosen)
    except (NotInstalled, WorkFailed) as error:
        verdict = f"sbatch --test-only was not run: {error}"
    return f"{script(folder, runs, chosen)}\n# {verdict}"


def submit(
    folder: Path,
    runs: Sequence[tuple[Path, RunSpec]],
    chosen: Sequence[int],
    after: After,
) -> str:
    """Submits the job; returns its number.

    Args:
      folder: of the run or the sweep.
      runs: as `script`'s.
      chosen: as `script`'s.
      after: what it has to wait for.
    """
    place = run_spec.launch(folder)
    files.write_text(place / "job.sh", script(folder, runs, chosen))
    # Run in the folder with relative names: Slurm would take "%j" in a path for a job's number.
    argv = ["sbatch", "--parsable", f"--chdir={place}"]
    argv.append(f"--output={'job-%a.log' if chosen else 'job.log'}")
    argv += array.dependency(after)
    argv += _lead(runs, chosen).options["sbatch"]
    found = call([*argv, str(place / "job.sh")], missing=array.MISSING)
    array.judge(found)
    number = last_line(found.stdout).split(";")[0]
    if not number.isdigit():
        raise WorkFailed(f"sbatch answered {last_line(found.stdout)!r} instead of a job's number")
    return number


def queue(jobs: Iterable[str]) -> dict[Id, tuple[str, str]]:
    """Returns state and Slurm's reason of what is in the queue, by job and place in its array.

    Raises:
      WorkFailed: the scheduler does not answer.
    """
    numbers = sorted({number for number in jobs if number.isdigit()})
    if not numbers:
        return {}
    argv = ["squeue", "-h", "-r", "-o", "%F|%K|%T|%r", "-j", ",".join(numbers)]
    found = call(argv, missing=array.MISSING)
    if found.returncode and "Invalid job id" not in found.stderr:
        raise WorkFailed(f"squeue: {last_line(found.stderr)}")
    out: dict[Id, tuple[str, str]] = {}
    for line in found.stdout.splitlines():
        number, index, state, reason = line.split("|", 3)
        kind = array_spec.WAITING if state in array.QUEUED else array_spec.RUNNING
        out[number, int(index) if index.isdigit() else None] = kind, reason
    return out


def cancel(jobs: Sequence[Id]) -> str:
    """Takes jobs out of the queue and stops what runs; returns what was done."""
    ids = sorted(map(array.id_text, jobs))
    found = call(["scancel", *ids], missing=array.MISSING)
    if found.returncode and "Invalid job id" not in found.stderr:
        raise WorkFailed(f"scancel: {last_line(found.stderr)}")
    return f"cancelled Slurm jobs {', '.join(ids)}"


def log_path(folder: Path, index: int | None) -> Path:
    """Returns what the job's script printed: of a run's folder, or of a sweep's and a place."""
    return run_spec.launch(folder) / ("job.log" if index is None else f"job-{index}.log")


def _lead(runs: Sequence[tuple[Path, RunSpec]], chosen: Sequence[int]) -> RunSpec:
    """Returns the specification that says what all of a submission have in common."""
    return runs[chosen[0] - 1 if chosen else 0][1]


def _directives(resources: Resources, values: Mapping[str, Any], name: str) -> list[str]:
    lines = [
        f"#SBATCH --job-name={name}",
        f"#SBATCH --nodes={resources.nodes}",
        f"#SBATCH --ntasks-per-node={resources.processes}",
    ]
    if resources.cpus:
        lines.append(f"#SBATCH --cpus-per-task={_cpus(resources)}")
    if resources.gpus:
        kind = f"{values['gpu_type']}:" if values["gpu_type"] else ""
        option = "gres=gpu:" if values["gpu_option"] == "gres" else f"{values['gpu_option']}="
        lines.append(f"#SBATCH --{option}{kind}{resources.gpus}")
    for key in ("partition", "account", "qos", "constraint"):
        if values[key] is not None:
            lines.append(f"#SBATCH --{key}={values[key]}")
    if resources.minutes:
        lines.append(f"#SBATCH --time={resources.minutes}")
    if resources.mem_mib:
        lines.append(f"#SBATCH --mem={resources.mem_mib}M")
    lines += ["#SBATCH --requeue", "#SBATCH --open-mode=append"]
    # Slurm works by the minute and may be a minute early: in a short job the notice would come at
    # the start, again and again.
    if resources.minutes is None or resources.minutes >= array.LEAST_MINUTES:
        lines.append(f"#SBATCH --signal=TERM@{values['notice_seconds']}")
    return lines


def _cpus(resources: Resources) -> int:
    return max(1, (resources.cpus or 1) // resources.processes)


def _srun(one: RunSpec) -> list[str]:
    resources = one.resources
    words = [
        "srun",
        f"--nodes={resources.nodes}",
        f"--ntasks={resources.hosts}",
        f"--ntasks-per-node={resources.processes}",
        "--kill-on-bad-exit=1",
    ]
    # A step does not take this over from its job.
    words += [f"--cpus-per-task={_cpus(resources)}"] if resources.cpus else []
    return [*words, *one.options["srun"]]


_BODY = r"""
run=${{runs[${{SLURM_ARRAY_TASK_ID:-1}} - 1]}}
launch=$run/launch
restarts=${{SLURM_RESTART_COUNT:-0}}
end() {{
  echo "$1" >"$launch/.exit.$$" && mv -f -- "$launch/.exit.$$" "$launch/exit"
  exit "$1"
}}
rm -f -- "$launch/exit" "$launch"/ranks/*.json
nodes=${{SLURM_JOB_NODELIST:-$(hostname)}}
cd -- "$directory" || end {failed}
printf '== %s on %s, restart %s\n' "$(date -u +%FT%TZ)" "$nodes" "$restarts"
if [ "$restarts" -gt {most} ]; then
  echo "== came back $restarts times: more often than --max-requeues allows"
  end {failed}
fi
ended=()
# This shell hears SIGTERM when the whole job is ended (scancel, time limit); a notice before
# preemption goes to the step alone.
trap 'ended=(--ended)' TERM
step=()
if [ -n "${{SLURM_JOB_ID:-}}" ]; then
  step=("${{srun[@]}}")
  # Two jobs of a node, or one that came back while an earlier process still ends, must not meet.
  export A2F_PORT=$((61440 + (SLURM_JOB_ID * 61 + 1021 * restarts) % 4096))
  export JAX_COORDINATOR_PORT=$A2F_PORT
fi
code=0
"${{step[@]}}" "$python" -m launch.jobs.worker "$run" || code=$?
requeue=("$python" -m launch.jobs.requeue "$run" "$code")
said=$("${{requeue[@]}}" "${{ended[@]}}" --restarts "$restarts") || said=
case "$said" in
  "again "* | "end "*) final=${{said#* }} ;;
  *) # The interpreter is only inside a container, or the disk is gone.
    final=$code
    case "$code" in
      {stopped}) if [ -z "${{ended[*]}}" ] && [ "$restarts" -lt {most} ]; then said="again"; fi ;;
    esac
    ;;
esac
said=${{said%% *}}
echo "== exit code $final: $said"
if [ "$said" = again ] && [ -n "${{SLURM_JOB_ID:-}}" ] && scontrol requeue "$SLURM_JOB_ID"; then
  sleep 60 || true # Slurm ends this shell when it takes the job back
  exit "$final"
fi
end "$final"
"""
