"""Starts runs: what the desk checks and pins of a training, a sweep or another command."""

from __future__ import annotations

import argparse
import contextlib
import dataclasses
import hashlib
import itertools
import json
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from a2fjax import config as config_lib
from a2fjax import errors
from a2fjax.cli.main import COMMANDS
from a2fjax.config import Resolved
from a2fjax.errors import InputError, nearest
from launch.jobs import array_spec, data_pins, progress
from launch.jobs import run_spec as spec
from launch.jobs.run_spec import RunSpec
from launch.monitor import status
from launch.schedulers.local import run as runs_local
from launch.submission import preflight, snapshot
from launch.submission import target as place_lib
from launch.submission.target import Place
from launch.sweeps import Trial, parse, sweep

PROGRAM = ("-m", "a2fjax.cli.main")


def submit(args: argparse.Namespace, extra: list[str], program: Sequence[str] | None) -> int:
    """Runs `submit`: a training, or a sweep of them."""
    overrides = config_lib.parse_overrides(extra)
    place = place_lib.choose(args)
    if args.sweep is not None:
        return _sweep(args, overrides, place, program)
    resolved = config_lib.load(args.experiment, overrides)
    _check(args, place, [resolved], overrides)
    lead = array_spec.slug_words(resolved.config.name)
    # Without a name what is held is what the new ones begin with.
    with _alone(args, place.root, spec.check_name(args.name or lead)) as handed_over:
        folder = _new(place, spec.check_name(args.name or _name(place, lead)))
        run = _pin(args, place, program)(folder, resolved, overrides, {})
        return _launch(args, place, folder, [(folder, run)], (), handed_over)


def _sweep(
    args: argparse.Namespace,
    overrides: Mapping[str, str],
    place: Place,
    program: Sequence[str] | None,
) -> int:
    found: dict[tuple[str, str], tuple[Trial, dict[str, str], Resolved]] = {}
    trials = parse.parse(args.sweep, say=lambda line: print(line, file=sys.stderr))
    for values in trials:
        texts = {**overrides, **sweep.overrides(values)}
        resolved = config_lib.load(args.experiment, texts)
        mark = (sweep.key(values), config_lib.fingerprint(resolved.config))
        found.setdefault(mark, (values, texts, resolved))
    _check(args, place, [resolved for _, _, resolved in found.values()], overrides)
    lead = next(iter(found.values()))[2].config.name
    digest = config_lib.digest([mark for mark, _ in found])[:8]
    name = spec.check_name(args.name or f"{array_spec.slug_words(lead)}-sweep-{digest}")
    with _alone(args, place.root, name) as handed_over:
        entries, chosen = _grown(args, place, program, name, found, trials)
        if not chosen:
            return errors.EXIT_OK
        return _launch(args, place, place.root / name, entries, chosen, handed_over)


def _grown(
    args: argparse.Namespace,
    place: Place,
    program: Sequence[str] | None,
    name: str,
    found: Mapping[tuple[str, str], tuple[Trial, dict[str, str], Resolved]],
    trials: Sequence[Trial],
) -> tuple[list[tuple[Path, RunSpec]], list[int]]:
    """Returns all runs of a sweep, those that are there first, and the places of the new ones."""
    folder = place.root / name
    if not spec.is_sweep(folder):
        _new(place, name)
    before = spec.trials(folder) if spec.is_sweep(folder) else []
    entries = {run.name: (run, spec.read(run)) for run in before}
    known = {(one.key, one.fingerprint) for _, one in entries.values()}
    keys = {one.key for _, one in entries.values()}
    called = {sweep.key(t): name for t, name in zip(trials, sweep.names(trials), strict=True)}
    pinned, chosen = _pin(args, place, program), []
    for (key, print_), (values, texts, resolved) in found.items():
        if (key, print_) in known:
            continue
        if key in keys:
            raise InputError(
                f"--name {name}: its run of {values} is of another configuration; take another name"
            )
        own = spec.check_name(called[key])
        # Names are short: where another trial has the same, the key tells them apart.
        own = f"{own}-{key[:8]}" if own in entries else own
        trial = {"sweep": folder.name, "trial": values, "key": key}
        entries[own] = (folder / own, pinned(folder / own, resolved, texts, trial))
        chosen.append(len(entries))
    if before:
        there = len(found) - len(chosen)
        print(
            f"{folder.name}: {there} of {len(found)} runs are there; `submit.py retry` redoes "
            "those that did not end well"
        )
    return list(entries.values()), chosen


def run(args: argparse.Namespace, words: Sequence[str]) -> int:
    """Runs `run`: any other command of a2fjax as a job."""
    form = "submit.py run NAME [options] -- a2fjax evaluate RUN"
    if len(words) < 2 or words[0] != "a2fjax":
        raise InputError(f"run {args.name}: expected a command behind --, such as {form}")
    if words[1] not in COMMANDS:
        raise InputError(f"a2fjax {words[1]}: no such command{nearest(words[1], COMMANDS)}")
    if words[1] == "train":
        raise InputError("a2fjax train: is started with `submit.py submit EXPERIMENT`")
    place = place_lib.choose(args)
    name = spec.check_name(args.name, "NAME")
    with _alone(args, place.root, name) as handed_over:
        folder = _new(place, name)
        made = _pin(args, place, None)(folder, None, {}, {"command": list(words[1:])})
        return _launch(args, place, folder, [(folder, made)], (), handed_over)


def resume(args: argparse.Namespace, extra: list[str]) -> int:
    """Runs `resume`: a run goes on from where it stands."""
    folder = spec.find(args.out, args.runs)
    if spec.is_sweep(folder):
        raise InputError(f"{args.out}: is a sweep; say `submit.py retry`, or resume SWEEP/TRIAL")
    with _alone(args, *_named(folder)) as handed_over:
        return _resume(args, extra, folder, handed_over)


def _resume(
    args: argparse.Namespace, extra: list[str], folder: Path, handed_over: Callable[[], None]
) -> int:
    from a2fjax.train import run_dir as folder_lib

    before = spec.read(folder)
    state = status.states([folder])[folder]
    if state.active:
        raise InputError(f"{before.id}: is {state.name}; `submit.py cancel` stops it")
    overrides = config_lib.parse_overrides(extra)
    again = place_lib.again(args, before, folder)
    if overrides:
        if before.config is None:
            raise InputError(f"{before.id}: is no training and has no --config.{extra[0]}")
        resolved = config_lib.load(spec.launch(folder) / "config.json", overrides)
        folder_lib.check(folder, resolved)
        again = dataclasses.replace(
            again,
            config=json.loads(resolved.to_json()),
            overrides={**before.overrides, **overrides},
        )
    place = place_lib.of(args, again, folder)
    if again.config is not None:
        pinned = config_lib.from_json(json.dumps(again.config))
        _check_one(place, pinned)
    if state.name == array_spec.DONE and not overrides:
        print(f"{before.id}: is done; more steps are --config.steps=N")
        return errors.EXIT_OK
    return _launch(args, place, folder, [(folder, again)], (), handed_over)


def retry(args: argparse.Namespace, folder: Path) -> int:
    """Runs `retry`: what did not end well of a sweep, or a run, again."""
    if args.record:
        raise InputError("--record: is for builds and caches")
    with _alone(args, *_named(folder)) as handed_over:
        return _retry(args, folder, handed_over)


def _retry(args: argparse.Namespace, folder: Path, handed_over: Callable[[], None]) -> int:
    runs = spec.runs(folder)
    found = status.states(runs)
    bad = [run for run in runs if found[run].name in status.WRONG]
    if not bad:
        active = sum(s.active for s in found.values())
        print(f"{folder.name}: {f'{active} are at work or wait' if active else 'all is done'}")
        return errors.EXIT_OK
    every: list[tuple[Path, RunSpec]] = []
    # Trials of one array have their machines and options in common; a sweep that grew may have
    # been submitted in several ways.
    alike: dict[str, list[int]] = {}
    for index, run in enumerate(runs, 1):
        run_spec = spec.read(run)
        if run in bad:
            run_spec = place_lib.again(args, run_spec, run)
            if run_spec.config is not None:
                pinned = config_lib.from_json(json.dumps(run_spec.config))
                preflight.batch(pinned.config, run_spec.resources)
            common = (run_spec.backend, run_spec.resources, run_spec.options, run_spec.directory)
            alike.setdefault(repr(common), []).append(index)
        every.append((run, run_spec))
    codes = []
    for chosen in alike.values():
        place = place_lib.of(args, every[chosen[0] - 1][1], folder)
        these = chosen if spec.is_sweep(folder) else ()
        codes.append(_launch(args, place, folder, every, these, handed_over))
    return runs_local.exit_code(codes)


def _named(folder: Path) -> tuple[Path, str]:
    """Returns the folder of all runs, and the name below it that a run or trial belongs to."""
    root = status.root(folder)
    return root, folder.relative_to(root).parts[0]


def _alone(
    args: argparse.Namespace, root: Path, name: str
) -> contextlib.AbstractContextManager[Callable[[], None]]:
    """Returns what holds a name, see `spec.alone`; a dry run writes nothing, not even that."""
    return contextlib.nullcontext(lambda: None) if args.dry_run else spec.alone(root, name)


def _name(place: Place, lead: str) -> str:
    """Returns a name for a run that was given none; several may be submitted within a second."""
    name = f"{lead}-{time.strftime('%Y%m%d-%H%M%S', time.gmtime())}"
    names = itertools.chain([name], (f"{name}-{i}" for i in itertools.count(2)))
    return next(text for text in names if not (place.root / text).exists())


def _new(place: Place, name: str) -> Path:
    folder = place.root / name
    if spec.is_run(folder) or spec.is_sweep(folder):
        raise InputError(f"{name}: is there already; `submit.py resume {name}` continues it")
    if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
        raise InputError(f"{folder}: is there already and was not made by submit.py; say --name")
    return folder


def _check(
    args: argparse.Namespace,
    place: Place,
    found: Sequence[Resolved],
    overrides: Mapping[str, str],
) -> None:
    """Checks configurations; what several have in common is looked at once."""
    seen = set()
    for resolved in found:
        config = resolved.config
        schedule = (config.steps, config.optim.warmup_steps)
        text = repr((config.data, config.eval, config.sharding, config.init_from, schedule))
        if text not in seen:
            seen.add(text)
            _check_one(place, resolved)
    if args.check_compile:
        text = preflight.compiles(
            place.python,
            str(snapshot.CODE),
            args.experiment,
            overrides,
            place.resources.devices,
        )
        print(text, flush=True)


def _check_one(place: Place, resolved: Resolved) -> None:
    preflight.training(
        resolved,
        place.resources,
        here=place.backend != "kubernetes",
        chained=bool(place.after),
        unfilled=place.unfilled,
    )


def _pin(
    args: argparse.Namespace, place: Place, program: Sequence[str] | None
) -> Callable[[Path, Resolved | None, Mapping[str, str], Mapping[str, Any]], RunSpec]:
    """Returns a maker of specifications; what all runs have in common is found once."""
    code, digest = snapshot.take(place.root, keep=not args.dry_run)
    left = snapshot.untracked()
    if left:
        some = ", ".join(left[:5]) + (" ..." if len(left) > 5 else "")
        print(f"not taken along, as git does not track them: {some}", file=sys.stderr)
    away = place.backend == "kubernetes"
    environment = place_lib.environment(code, place.resources, place.environment, here=not away)
    # There the image holds them, and its digest says which.
    packages, git = {} if away else snapshot.packages(place.python), snapshot.git_state()
    words = [place.python, *(program or PROGRAM)]

    def make(
        folder: Path,
        resolved: Resolved | None,
        overrides: Mapping[str, str],
        more: Mapping[str, Any],
    ) -> RunSpec:
        config, data, experiment = None, {}, None
        more = dict(more)
        command = [*words, *more.pop("command", [])]
        if resolved is not None:
            config = json.loads(resolved.to_json())
            data = data_pins.take(resolved.config.data.shards, but=place.unfilled)
            experiment = str(args.experiment)
            command += ["train", "--config", str(spec.launch(folder) / "config.json")]
            command += ["--workdir", str(folder)]
        for word in command:
            array_spec.utf8(word, "argument")
        values: dict[str, Any] = {"sweep": None, "trial": None, "key": None, **more}
        return RunSpec(
            id=str(folder.relative_to(place.root)),
            command=tuple(command),
            directory=array_spec.utf8(str(place.root if away else Path.cwd()), "folder"),
            python=place.python,
            environment=environment,
            passed=place.passed,
            experiment=experiment,
            experiment_sha256=_text_digest(experiment),
            overrides=dict(overrides),
            config=config,
            data=data,
            code=code,
            snapshot=digest,
            git=git,
            packages=packages,
            backend=place.backend,
            resources=place.resources,
            options=place.options,
            retries=place.retries,
            max_requeues=place.max_requeues,
            after=place.after,
            created=progress.now(),
            **values,
        )

    return make


def _text_digest(experiment: str | None) -> str | None:
    if experiment is None:
        return None
    file = experiment if experiment.endswith(".json") else experiment.partition(":")[0]
    return hashlib.sha256(Path(file).read_bytes()).hexdigest()


def _launch(
    args: argparse.Namespace,
    place: Place,
    folder: Path,
    entries: Sequence[tuple[Path, RunSpec]],
    chosen: Sequence[int],
    handed_over: Callable[[], None],
) -> int:
    """Writes what is to run, hands it over, and waits where that was asked for."""
    from launch.submission import submit as handover

    if args.dry_run:
        handover.show(place, folder, entries, chosen)
        return errors.EXIT_OK
    return handover.start(
        place, folder, entries, chosen, handed_over=handed_over, wait=args.wait, poll=args.poll
    )
