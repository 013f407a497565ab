"""Runs the jobs of the two parallel stages and collects their results."""

from __future__ import annotations

import contextlib
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from a2fjax import progress
from a2fjax.errors import InputError, WorkFailed
from data_pipeline.execution import console, executor, process_pool
from data_pipeline.execution.console import WriteLine
from data_pipeline.settings import BuildSettings
from data_pipeline.sources import Source, Take
from data_pipeline.stages import cut_clips, solve_take
from data_pipeline.stages.sync_expert import SyncExpert
from data_pipeline.stages.take_list import TakeEntry


def solve_takes(
    source: Source,
    entries: Sequence[TakeEntry],
    settings: BuildSettings,
    work: Path,
    run: executor.Run,
    *,
    layout_digest: str = "",
    check_only: bool = False,
    log: WriteLine,
    log_rejected: WriteLine,
) -> list[solve_take.Outcome]:
    """Solves takes in parallel and returns the outcome of each, in order.

    Args:
      source: the captures.
      entries: the takes.
      settings: build settings.
      work: folder of intermediate results.
      run: function from `executor.open_executor`.
      layout_digest: result of `content_key.layout_digest`.
      check_only: only looks up existing solutions.
      log: called with progress lines.
      log_rejected: called with a line for each omitted take.

    Raises:
      InputError: some takes are not solved although `check_only`.
      WorkFailed: a process died (after all others are done), or the disk is full (at once).
    """
    jobs = [
        solve_take.Job(
            source, e.take, settings, work, e.stamp, e.actor_stamp, layout_digest, check_only
        )
        for e in entries
    ]
    index = {id(job): i for i, job in enumerate(jobs)}
    outcomes: list[solve_take.Outcome | None] = [None] * len(jobs)
    counter = console.Progress([e.size for e in entries], log)
    broken, missing = [], []
    with (
        progress.shown(counter.waiting, log),
        contextlib.closing(run(solve_take.run_job, jobs)) as results,
    ):
        for job, result in results:
            entry = entries[index[id(job)]]
            if isinstance(result, WorkFailed) and not isinstance(result, process_pool.ProcessDied):
                raise result
            if isinstance(result, BaseException):
                broken.append(f"{entry.name}: {_first_line(result)}")
                continue
            outcomes[index[id(job)]] = result
            if result.missing:
                missing.append(entry.name)
                continue
            if result.failed:
                log_rejected(f"left out: {entry.name}: {result.failed}")
            counter.done(entry.size, result.seconds, fresh=result.fresh)
    if missing:
        raise InputError(
            f"{len(missing)} of {len(entries)} takes are not solved yet, first {sorted(missing)[0]}"
            "; run their part, or the build without --finish"
        )
    counter.end()
    if broken:
        raise WorkFailed(
            f"{len(broken)} of {len(entries)} takes failed, the others are solved; first "
            f"{sorted(broken)[0]}"
        )
    return [outcome for outcome in outcomes if outcome is not None]


def cut_all_clips(
    solved: Sequence[tuple[TakeEntry, solve_take.Outcome]],
    settings: BuildSettings,
    work: Path,
    run: executor.Run,
    *,
    expert: SyncExpert | None = None,
    log: WriteLine,
    log_rejected: WriteLine,
) -> tuple[list[dict[str, Any]], set[str]]:
    """Aligns the clocks of each actor's takes and cuts clips, actors in parallel.

    Args:
      solved: the takes and their outcomes.
      settings: build settings.
      work: folder of intermediate results.
      run: function from `executor.open_executor`.
      expert: the sync expert that judges the clocks, or None.
      log: called with progress lines.
      log_rejected: called with a line for each omitted take.

    Returns:
      The summaries of all takes by actor and take (`cut_clips.run_job`), and the content keys of
      the actors' results.

    Raises:
      WorkFailed: a process died, or the disk is full.
    """
    grouped: dict[str, list[tuple[Take, str]]] = {}
    for entry, outcome in solved:
        grouped.setdefault(entry.actor.name, []).append((entry.take, outcome.key))
    jobs = [
        cut_clips.Job(name, tuple(takes), settings, work, expert) for name, takes in grouped.items()
    ]
    what = "cutting clips" if expert is None else "asking the sync expert and cutting clips"
    summaries: dict[str, list[dict[str, Any]]] = {}
    keys, broken = set(), []
    warn = console.LimitedLines(log)
    with (
        progress.shown(lambda: f"{what}, {len(summaries)} of {len(jobs)} people", log),
        contextlib.closing(run(cut_clips.run_job, jobs)) as results,
    ):
        for job, result in results:
            if isinstance(result, WorkFailed) and not isinstance(result, process_pool.ProcessDied):
                raise result
            if isinstance(result, BaseException):
                broken.append(f"{job.actor}: {_first_line(result)}")
                continue
            key, summaries[job.actor] = result
            keys.add(key)
            for summary in summaries[job.actor]:
                for line in summary["warnings"]:
                    warn(f"warning: {summary['take']}: {line}")
                if summary["rejected"]:
                    log_rejected(f"left out: {summary['take']}: {summary['rejected']}")
    warn.end(f"warnings; {work.parent / 'quality.html'} has them all")
    if broken:
        raise WorkFailed(f"{len(broken)} of {len(jobs)} people failed, first {broken[0]}")
    return [summary for name in sorted(summaries) for summary in summaries[name]], keys


def _first_line(error: BaseException) -> str:
    line = (str(error).splitlines() or [""])[0]
    return line if isinstance(error, WorkFailed) else f"{type(error).__name__}: {line}"
