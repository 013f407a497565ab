"""Evaluate a run, or any program's curves, on held-out clips, beside baselines.

Of a sync expert it runs the gate (docs/sync.md).
"""

from __future__ import annotations

import argparse
import glob
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from a2fjax.cli import figures
from a2fjax.errors import InputError

_READING = ("fps", "units", "mouth_close", "align")
_COMPARED = ("samples", "sample_steps", "against", "limit", "watch", "best", "every")
_BESIDE = ("phones", "face", "sync", "sync_unchecked")
_NOT_OF_GATES = (*_READING, *_COMPARED, *_BESIDE, "quick", "lookahead_ms")


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Adds the arguments of `a2fjax evaluate`."""
    add = parser.add_argument
    add(
        "run",
        metavar="RUN",
        nargs="?",
        help="run folder that `a2fjax train` wrote; with --against also several seeds: A,B or 'a*'",
    )
    add(
        "--against",
        metavar="RUN",
        action="append",
        default=[],
        help="compare with another run, or several seeds of it (A,B or 'a*'; may be repeated), in "
        "pairs of the same people",
    )
    add("--step", type=int, help="checkpoint; default: the newest")
    add(
        "--lookahead-ms",
        type=int,
        metavar="MS",
        help="audio heard ahead by a run for live audio; default: model.lookahead_ms",
    )
    add(
        "--data",
        metavar="SHARDS",
        action="append",
        help="shards to measure on; default: those of the training; may be repeated",
    )
    add(
        "--split",
        metavar="A,B",
        help="splits; default: test_sentences,test_subjects as far as there are clips",
    )
    add(
        "--out",
        metavar="FILE",
        action="append",
        help="report as .json, or as .html: one page without other files; may be repeated; "
        "default: RUN/eval/STEP.json",
    )
    add(
        "--phones",
        metavar="FOLDER",
        help="phone alignments named as the clips (TextGrid, CTM, .phone.json), or 'auto': English "
        "clips are aligned with their text (extra `phones`)",
    )
    add("--face", metavar="NPZ", help="head with its shapes, for errors of lip vertices")
    add(
        "--sync",
        metavar="RUN",
        help="judge of lip sync: a sync expert that passed its gate and trained none of the runs",
    )
    add(
        "--sync-unchecked",
        action="store_true",
        help="take a judge that did not pass its gate; the report says so",
    )
    add("--seed", type=int, default=0, help="seed of shuffles, noise and bootstrap; default: 0")
    add("--quick", action="store_true", help="a dozen clips a split, without altered conditions")
    add(
        "--show",
        metavar="JSON",
        help="print a report that was written before, or write it to --out; measure nothing",
    )
    group = parser.add_argument_group("while a run trains")
    add = group.add_argument
    add(
        "--watch",
        action="store_true",
        help="evaluate each checkpoint once, until the run's last step; continues after a stop",
    )
    add("--best", metavar="FIGURE", help="with --watch: ranks checkpoints; default: rmse_ratio")
    add("--every", type=float, metavar="SECONDS", help="with --watch: between looks; default: 20")
    group = parser.add_argument_group("curves of any program, instead of a run")
    add = group.add_argument
    add(
        "--predictions",
        metavar="FOLDER",
        help="a file for each clip, named as the clip: CSV, JSON, npz, Live Link, MediaPipe, NIM, "
        "Azure; with --data",
    )
    add("--fps", type=float, help="frames a second of files that state neither times nor a rate")
    add("--units", help="weight or percent; default: by the values")
    add(
        "--mouth-close",
        metavar="WHOSE",
        help="arkit (relative to an open jaw) or nvidia (includes jawOpen); default: what fits the "
        "true motion better",
    )
    add("--align", action="store_true", help="shift the curves by their estimated time offset")
    group = parser.add_argument_group("samples of diffusion runs, beside those of --against")
    add = group.add_argument
    add("--samples", type=int, metavar="K", help="compare K samples of every clip, in one table")
    add("--sample-steps", metavar="1,2,8", help="with --samples: calls of the network, a row each")
    add("--limit", type=int, metavar="N", help="with --samples: clips a split")


def run(args: argparse.Namespace, extra: list[str]) -> int:
    """Runs `a2fjax evaluate`.

    Raises:
      InputError: a run, step, folder, split or report that does not exist, or unknown arguments.
    """
    if extra:
        raise InputError(f"unexpected argument {extra[0]!r}; see `a2fjax evaluate --help`")
    from a2fjax.api import evaluation, reports, sync

    for out in args.out or ():
        figures.check_writable(Path(out))
    if args.show:
        gate = sync.show(args.show)
        if gate is not None and args.out:
            raise InputError("--out: goes with the report of a motion model, not with a gate")
        return figures.finish(gate or reports.Report.read(args.show), args.out or [])
    if (args.run is None) == (args.predictions is None):
        raise InputError("expected RUN or --predictions FOLDER, one of the two")
    if args.predictions is None:
        _check_company(args, _READING, "--predictions FOLDER")
    elif args.samples is not None:
        raise InputError("--samples: goes with RUN; files hold one sample of each clip")
    split = [name for name in args.split.split(",") if name] if args.split else None
    if args.run is not None and sync.is_expert(args.run):
        return _gate(args, split)
    if args.watch:
        return _watch(args, split)
    _check_company(args, ("best", "every"), "--watch")
    if args.samples is not None:
        for name in (*_BESIDE, "lookahead_ms"):
            if _is_given(args, name):
                raise InputError(
                    f"{_flag(name)}: goes without --samples; a report has these metrics"
                )
        return _compare(args, split)
    _check_company(args, ("sample_steps", "limit"), "--samples K")
    given: dict[str, Any] = {"seed": args.seed, "quick": args.quick}
    given |= {name: getattr(args, name) for name in _BESIDE}
    given["against"] = [run for text in args.against for run in _runs(text)]
    run = args.run
    if args.predictions is None:
        run, *given["more"] = _runs(args.run) if given["against"] else [args.run]
        given |= {"step": args.step, "lookahead_ms": args.lookahead_ms}
    else:
        if not args.data:
            raise InputError("--predictions: give the shards of the clips with --data")
        if not args.out:
            raise InputError("--predictions: give the report's file with --out")
        if args.step is not None:
            raise InputError("--step: goes with RUN; files have no steps")
        if args.lookahead_ms is not None:
            raise InputError("--lookahead-ms: goes with RUN; files have none")
        reading = {name: getattr(args, name) for name in _READING if _is_given(args, name)}
        given |= {"predictions": args.predictions, **reading}
    with figures.progress_lines() as say:
        report = evaluation.evaluate(run, args.data, split, **given, say=say)
    name = f"{report.values['step']}"
    if args.lookahead_ms is not None:
        name += f"_{args.lookahead_ms}ms"
    return figures.finish(report, args.out or [Path(run) / "eval" / f"{name}.json"])


def _gate(args: argparse.Namespace, split: list[str] | None) -> int:
    """Runs the gate of a sync expert; it stands in the run folder unless --out says otherwise."""
    from a2fjax.api import sync
    from a2fjax.sync import verdict

    for name in _NOT_OF_GATES:
        if _is_given(args, name):
            raise InputError(
                f"{_flag(name)}: run {args.run} is a sync expert, whose gate has no such flag"
            )
    figures.check_json(args.out, "a gate's report")
    with figures.progress_lines() as say:
        report = sync.gate(args.run, args.data, split, step=args.step, seed=args.seed, say=say)
    return figures.finish(report, args.out or [verdict.path_of(args.run, report.values["step"])])


def _watch(args: argparse.Namespace, split: list[str] | None) -> int:
    from a2fjax.api import evaluation

    for name in ("predictions", "against", "samples", "step", "out", "lookahead_ms", *_BESIDE):
        if _is_given(args, name):
            raise InputError(f"{_flag(name)}: does not go with --watch")
    given = {name: getattr(args, name) for name in ("best", "every") if _is_given(args, name)}
    with figures.progress_lines() as say:
        best = evaluation.watch(
            args.run, args.data, split, seed=args.seed, quick=args.quick, say=say, **given
        )
    if best is None:
        print("no checkpoint has a value of the figure")
    else:
        where = Path(args.run) / "eval" / (best["run"] or best["report"])
        print(f"best: step {best['step']}, {best['metric']} {best['value']:.4g}: {where}")
    return 0


def _is_given(args: argparse.Namespace, name: str) -> bool:
    value = getattr(args, name)
    return value is not None and value is not False and value != []


def _check_company(args: argparse.Namespace, names: Sequence[str], company: str) -> None:
    """Checks that flags are not given that go with another one."""
    for name in names:
        if _is_given(args, name):
            raise InputError(f"{_flag(name)}: goes with {company}; give that as well")


def _flag(name: str) -> str:
    return f"--{name.replace('_', '-')}"


def _runs(text: str) -> list[str]:
    """Returns the runs of a text: a folder, folders separated by commas, or a pattern.

    Raises:
      InputError: a pattern that no folder fits.
    """
    if Path(text).exists():
        return [text]
    found: list[str] = []
    for part in filter(None, text.split(",")):
        if any(c in part for c in "*?["):
            folders = sorted(p for p in glob.glob(part) if Path(p).is_dir())
            if not folders:
                raise InputError(f"{part}: no folder fits this pattern")
            found += folders
        else:
            found.append(part)
    return found


def _compare(args: argparse.Namespace, split: list[str] | None) -> int:
    figures.check_json(args.out, "with --samples the report")
    from a2fjax.api import evaluation
    from a2fjax.evaluation.comparison import legend

    try:
        steps = [int(text) for text in (args.sample_steps or "").split(",") if text]
    except ValueError:
        raise InputError(
            f"--sample-steps {args.sample_steps}: expected numbers such as 1,2,8"
        ) from None
    with figures.progress_lines() as say:
        comparison = evaluation.compare(
            args.run,
            *(run for text in args.against for run in _runs(text)),
            shards=args.data,
            split=split,
            samples=args.samples,
            sample_steps=steps,
            step=args.step,
            limit=12 if args.quick else args.limit,
            say=say,
        )
    path = Path(args.run) / "eval" / f"samples_{comparison.step}.json"
    return figures.finish(comparison, args.out or [path], legend=legend())
