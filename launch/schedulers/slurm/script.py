"""Writes scripts of Slurm jobs: a single run, or elements of an array, each as a job step."""

from __future__ import annotations

import shlex
from collections.abc import Mapping, Sequence
from typing import Any

from a2fjax.errors import EXIT_FAILED
from launch.jobs import outcome
from launch.jobs.record import interpreter
from launch.jobs.spec import JobSpec, Resources
from launch.schedulers.base import Element, Job
from launch.schedulers.slurm import containers

NOTICE_SECONDS = 120
"""Default notice before preemption and the time limit."""

_NOTICE_LEAST_MINUTES = 10


def of_elements(job: Job) -> str:
    """Returns the script of the chosen elements.

    If executed by hand without SLURM_JOB_ID (and with SLURM_ARRAY_TASK_ID for an element of an
    array), it runs on this machine.
    """
    return _script(job.name, job.elements, job.indices, (job.chosen or job.elements)[0].spec)


def of_finalize(job: Job) -> str:
    """Returns the script of an array's last command."""
    assert job.finalize is not None
    return _script(f"{job.name}-finalize", [job.finalize], [], job.finalize.spec)


def ranges(indices: Sequence[int]) -> str:
    """Returns "1-3,7" for (1, 2, 3, 7)."""
    spans: list[list[int]] = []
    for index in sorted(indices):
        if spans and spans[-1][1] == index - 1:
            spans[-1][1] = index
        else:
            spans.append([index, index])
    return ",".join(f"{a}" if a == b else f"{a}-{b}" for a, b in spans)


def _script(name: str, elements: Sequence[Element], indices: Sequence[int], spec: JobSpec) -> str:
    limit = spec.options.get("max_parallel")
    lines = _directives(spec.resources, spec.options, name)
    if indices:
        lines.append(f"#SBATCH --array={ranges(indices)}{f'%{limit}' if limit else ''}")
    return "\n".join(
        [
            "#!/bin/bash",
            *lines,
            *spec.options["setup"],
            "set -uo pipefail",
            "runs=(",
            *(f"  {shlex.quote(str(element.folder))}" for element in elements),
            ")",
            "srun=(",
            *(f"  {shlex.quote(word)}" for word in _srun(spec)),
            ")",
            "container=(",
            *(f"  {shlex.quote(word)}" for word in containers.before_command(spec)),
            ")",
            *(f"export {k}={shlex.quote(v)}" for k, v in sorted(spec.environment.items())),
            f"directory={shlex.quote(spec.directory)}",
            _BODY.format(
                python=_python(spec),
                most=spec.max_requeues,
                failed=EXIT_FAILED,
                stopped=" | ".join(f"{code:d}" for code in outcome.STOP_CODES),
            ).strip("\n"),
            "",
        ]
    )


def _python(spec: JobSpec) -> str:
    """Returns the words that start Python with the code of "$run", quoted."""
    words = interpreter("$run", spec)
    return " ".join(f'"{w}"' if w.startswith("$run/") else shlex.quote(w) for w in words)


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
    # Slurm's resolution is a minute, and the notice may be a minute early: a short job would get it
    # at every start.
    if resources.minutes is None or resources.minutes >= _NOTICE_LEAST_MINUTES:
        lines.append(f"#SBATCH --signal=TERM@{values['notice_seconds']}")
    return lines


def _cpus(resources: Resources) -> int:
    return max(1, (resources.cpus or 1) // resources.processes)


def _srun(spec: JobSpec) -> list[str]:
    resources = spec.resources
    words = [
        "srun",
        f"--nodes={resources.nodes}",
        f"--ntasks={resources.hosts}",
        f"--ntasks-per-node={resources.processes}",
        "--kill-on-bad-exit=1",
    ]
    # Job steps do not inherit this from their job.
    words += [f"--cpus-per-task={_cpus(resources)}"] if resources.cpus else []
    return [*words, *containers.of_srun(spec), *spec.options["srun"]]


_BODY = r"""
run=${{runs[${{SLURM_ARRAY_TASK_ID:-1}} - 1]}}
python=({python})
launch=$run/launch
restarts=${{SLURM_RESTART_COUNT:-0}}
end() {{
  partial=$(mktemp -- "$launch/.exit.XXXXXXXX") || exit "$1"
  echo "$1" >"$partial" && mv -f -- "$partial" "$launch/exit"
  exit "$1"
}}
mkdir -p -- "$launch/ranks"
rm -f -- "$launch/exit" "$launch"/ranks/*.json
nodes=${{SLURM_JOB_NODELIST:-$(hostname)}}
cd -- "$directory" || end {failed}
printf '== %s on %s, restart %s\n' "$(date -u +%FT%TZ)" "$nodes" "$restarts"
if [ "$restarts" -gt {most} ]; then
  echo "== requeued $restarts times: more often than --max-requeues allows"
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
  # Processes of this start prove to each other that they know it; no file holds it.
  A2F_SECRET=$(od -An -N32 -tx1 /dev/urandom | tr -d ' \n')
  export A2F_SECRET
fi
code=0
"${{step[@]}}" "${{container[@]}}" "${{python[@]}}" -m launch.jobs.worker "$run" || code=$?
requeue=("${{container[@]}}" "${{python[@]}}" -m launch.jobs.requeue "$run" "$code")
decision=$("${{requeue[@]}}" "${{ended[@]}}" --restarts "$restarts") || decision=
case "$decision" in
  "again "* | "end "*) final=${{decision#* }} ;;
  *) # The interpreter is only inside a container, or the disk is gone.
    final=$code
    case "$code" in
      {stopped}) if [ -z "${{ended[*]}}" ] && [ "$restarts" -lt {most} ]; then decision=again; fi ;;
    esac
    ;;
esac
decision=${{decision%% *}}
echo "== exit code $final: $decision"
if [ "$decision" = again ] && [ -n "${{SLURM_JOB_ID:-}}" ] && scontrol requeue "$SLURM_JOB_ID"; then
  sleep 60 || true # Slurm ends this shell when it takes the job back
  exit "$final"
fi
end "$final"
"""
