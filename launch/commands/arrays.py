"""Builds and caches in parts: their arguments, what the desk checks, and what is said of them."""

from __future__ import annotations

import argparse
import contextlib
import dataclasses
import datetime
import os
import posixpath
import sys
import time
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

from a2fjax import config, errors, files
from a2fjax.errors import InputError
from launch import schedulers
from launch.jobs import array_spec
from launch.jobs.array_spec import Record, Spec
from launch.monitor import status
from launch.submission import dependencies as after_lib
from launch.submission import preflight_features
from launch.submission.flags import DEFAULT_PARTS

ROOT = Path(__file__).resolve().parents[2]
PROGRAMS = {
    "build": ("-m", "data_pipeline.build"),
    "cache": ("-m", "a2fjax.cli.main", "cache"),
}
"""What does a part of each kind of work, after the interpreter."""


def start(args: argparse.Namespace, extra: list[str], program: Sequence[str] | None) -> int:
    """Submits the work that the arguments describe; returns the exit code.

    Raises:
      InputError: whatever can be told at the desk to be wrong.
    """
    after = after_lib.check(args.after or (), args.runs)
    work = _build(args, extra, after) if args.command == "build" else _cache(args, extra, after)
    return _start(args, work, program or PROGRAMS[args.command], after)


def command(args: argparse.Namespace) -> int:
    """Runs a command on what was submitted before; returns the exit code."""
    base, record = _recorded(args)
    return _COMMANDS[args.command](args, base, record)


@dataclasses.dataclass(frozen=True, kw_only=True)
class _Work:
    """A kind of work with its arguments, checked as far as this machine can see.

    Attributes:
      name: for queues.
      out: folder that the work fills, which is where its record is.
      words: arguments of the program.
      settings: of `--config.`.
      reads: paths that a container must see.
      writes: paths that it must write to.
      most_parts: how many parts there is work for; None where that is not known.
    """

    name: str
    out: str
    words: tuple[str, ...]
    settings: dict[str, str]
    reads: tuple[str, ...]
    writes: tuple[str, ...]
    most_parts: int | None = None


def _build(args: argparse.Namespace, extra: list[str], after: tuple[str, ...]) -> _Work:
    if (args.workers or 0) < 0:
        raise InputError(f"--workers {args.workers}: expected 0 or more")
    settings = config.parse_overrides(extra)
    _check_settings(args.layout, settings)
    here = args.backend != "kubernetes"
    source, out = _path(args.input, "INPUT", here), _path(args.out, "--out", here)
    # What goes before may be what makes the captures.
    if here and not after and not Path(source).exists():
        raise InputError(f"{args.input}: does not exist")
    if here and Path(out).exists() and not Path(out).is_dir():
        raise InputError(f"--out {args.out}: is not a folder")
    workers = args.workers if args.workers is not None else args.cpus
    if workers is None and args.backend != "local":
        workers = 1
    words = [source, "--out", out, "--layout", args.layout]
    words += [] if workers is None else ["--workers", str(workers)]
    name = f"build-{Path(out).name}"
    return _Work(
        name=name, out=out, words=tuple(words), settings=settings, reads=(source,), writes=(out,)
    )


def _cache(args: argparse.Namespace, extra: list[str], after: tuple[str, ...]) -> _Work:
    settings = config.parse_overrides(extra)
    here = args.backend != "kubernetes"
    shards = _path(args.shards, "SHARDS", here)
    known = here and os.path.realpath(shards) not in after_lib.fills(after)
    most = preflight_features.files(shards) if known else None
    words = [shards]
    for flag in ("features", "config"):
        value = getattr(args, flag)
        words += [f"--{flag}", array_spec.utf8(value, f"--{flag}")] if value else []
    reads = preflight_features.check(args.features, args.config, settings, here=here)
    out = str(Path(shards) / preflight_features.FOLDER)
    return _Work(
        name=f"cache-{Path(shards).name}",
        out=out,
        words=tuple(words),
        settings=settings,
        reads=(shards, *reads),
        writes=(out,),
        most_parts=most,
    )


def _start(
    args: argparse.Namespace, work: _Work, program: Sequence[str], after: tuple[str, ...]
) -> int:
    backend = schedulers.get(args.backend)
    given = {k: v for k, v in vars(args).items() if k in _ALL_OPTIONS and v is not None}
    for name in sorted(set(given) - backend.OPTIONS):
        others = [n for n in schedulers.NAMES if name in schedulers.get(n).OPTIONS]
        raise InputError(f"--{name.replace('_', '-')}: is for --backend {' or '.join(others)}")
    for name in ("parts", "cpus", "max_parallel", "array_limit"):
        value = getattr(args, name)
        if value is not None and value < 1:
            raise InputError(f"--{name.replace('_', '-')} {value}: expected 1 or more")
    if args.retries < 0:
        raise InputError(f"--retries {args.retries}: expected 0 or more")
    parts = args.parts or (args.max_parallel or 1 if args.backend == "local" else DEFAULT_PARTS)
    if work.most_parts is not None and parts > work.most_parts:
        if args.parts:
            raise InputError(
                f"--parts {parts}: there is work for {work.most_parts}, a file each; say --parts "
                f"{work.most_parts}"
            )
        parts = work.most_parts
    spec = _spec(args, work, program, parts, backend.PYTHON)
    options = backend.options(given, spec)
    if args.backend == "kubernetes":
        from launch.schedulers.kubernetes import array

        for path in work.reads:
            array.check_mounted(options, path, written=False)
        for path in work.writes:
            array.check_mounted(options, path, written=True)
    base = _base(args, work.out)
    before = array_spec.read(base)
    record = Record(
        backend=args.backend,
        out=work.out,
        spec=spec,
        options=options,
        attempt=before.attempt + 1 if before else 1,
        parts=tuple(range(1, parts + 1)),
        jobs={},
        submitted=datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds"),
        after=after,
    )
    if args.dry_run:
        print(backend.render(record, base))
        return errors.EXIT_OK
    return _submit(args, base, before, record)


def _spec(
    args: argparse.Namespace, work: _Work, program: Sequence[str], parts: int, python: str
) -> Spec:
    command = [args.python or python, *program, *work.words]
    command += [f"--config.{k}={v}" for k, v in work.settings.items()]
    for word in command:
        array_spec.utf8(word, "argument")
    environment = {"PYTHONUNBUFFERED": "1"}
    directory = "/"
    if args.backend != "kubernetes":
        # Relative paths in settings mean what they mean here.
        paths = [str(ROOT), *filter(None, [os.environ.get("PYTHONPATH")])]
        environment["PYTHONPATH"] = array_spec.utf8(os.pathsep.join(paths), "PYTHONPATH")
        directory = array_spec.utf8(str(Path.cwd()), "folder")
    return Spec(
        name=array_spec.slug(work.name, work.out),
        command=tuple(command),
        finish=(*command, "--finish"),
        parts=parts,
        directory=directory,
        environment=environment,
        retries=args.retries,
    )


def _check_settings(layout: str, settings: Mapping[str, str]) -> None:
    """Finds typing errors here rather than in the queue."""
    from data_pipeline.settings import read_settings
    from data_pipeline.sources import LAYOUTS

    read_settings(settings)
    if layout not in ("auto", *LAYOUTS):
        raise InputError(f"--layout {layout}{errors.nearest(layout, ['auto', *LAYOUTS])}")


def _path(text: str, what: str, here: bool) -> str:
    """Returns an absolute path; not resolved, as links may differ between machines."""
    array_spec.utf8(text, what)
    if not text:
        raise InputError(f"{what}: is empty")
    if here:
        return str(Path(text).absolute())
    if not text.startswith("/"):
        raise InputError(f"{what} {text}: expected the absolute path inside the containers")
    return posixpath.normpath(text)


def _base(args: argparse.Namespace, out: str) -> Path:
    if args.record:
        return Path(args.record).absolute()
    if not Path(out).parent.is_dir():
        raise InputError(f"{out}: is not on this machine; say --record FOLDER for the record")
    return Path(out) / ".build"


def _recorded(args: argparse.Namespace) -> tuple[Path, Record]:
    base = Path(args.record).absolute() if args.record else Path(args.out).absolute() / ".build"
    record = array_spec.read(base)
    if record is None:
        why = f"({array_spec.record_path(base)} is missing)"
        of_cache = Path(args.out) / preflight_features.FOLDER
        if array_spec.record_path(of_cache / ".build").is_file():
            why += f"; of its caches something was: say {of_cache}"
        raise InputError(f"{args.out}: nothing was submitted {why}")
    return base, record


def _submit(args: argparse.Namespace, base: Path, before: Record | None, record: Record) -> int:
    if before is not None:
        states = schedulers.get(before.backend).states(before, base)
        active = [k for k, v in states.items() if v in array_spec.ACTIVE]
        if before.backend == "kubernetes" and active == [array_spec.FINISH]:
            active = []  # it was never started
        if active:
            names = ", ".join(f"{k} {v}" for k, v in before.jobs.items())
            raise InputError(
                f"{record.out}: {len(active)} of {len(states)} are at work or waiting "
                f"({before.backend}: {names}); `submit.py cancel` stops them"
            )
    needs = after_lib.needs(record.after, record.backend)
    if record.backend != "slurm":
        after_lib.wait(record.after, args.poll)
    files.make_folder(array_spec.folder(base))
    backend = schedulers.get(record.backend)
    record = backend.submit(record, base, needs)
    names = ", ".join(f"{k} {v}" for k, v in record.jobs.items())
    if record.backend != "local":
        print(f"{record.backend}: submitted {len(record.parts)} parts: {names}", flush=True)
        if not args.wait:
            print(f"`submit.py status {record.out}` says how far they are")
            return errors.EXIT_OK
    return _finish(args, base, record)


def _status(args: argparse.Namespace, base: Path, record: Record) -> int:
    states = schedulers.get(record.backend).states(record, base)
    last = states.pop(array_spec.FINISH)
    names = ", ".join(f"{k} {v}" for k, v in record.jobs.items())
    print(f"{record.out}: {record.backend} ({names}), submitted {record.submitted}")
    for state in array_spec.STATES:
        these = [str(k) for k, v in states.items() if v == state]
        if these:
            shown = "" if state == array_spec.DONE else f": {', '.join(these[:20])}"
            print(f"  {len(these)} of {len(states)} {state}{shown}{' ...' * (len(these) > 20)}")
    print(f"  finish: {last}")
    vain = _in_vain(record, [*states.values(), last])
    if vain:
        print(
            f"  waits for ever ({vain}): `submit.py cancel {record.out}`, then `submit.py retry "
            f"{record.out}` once that is done"
        )
    return errors.EXIT_OK


def _in_vain(record: Record, states: Sequence[str]) -> str:
    """Returns what ended badly so that nothing of this starts, or ""."""
    active = [state for state in states if state in array_spec.ACTIVE]
    never = record.backend == "slurm" and active and array_spec.RUNNING not in active
    return after_lib.in_vain(record.after) if never else ""


def _logs(args: argparse.Namespace, base: Path, record: Record) -> int:
    backend = schedulers.get(record.backend)
    which: int | str = array_spec.FINISH
    if args.part is not None:
        record.spec.part(args.part)
        which = args.part
    else:
        bad = [k for k, v in backend.states(record, base).items() if v in _WRONG]
        which = bad[0] if bad else which
    print(f"== {which if which == array_spec.FINISH else f'part {which}'}")
    sys.stdout.write(backend.log(record, base, which))
    return errors.EXIT_OK


def _cancel(args: argparse.Namespace, base: Path, record: Record) -> int:
    print(schedulers.get(record.backend).cancel(record, base))
    return errors.EXIT_OK


def _retry(args: argparse.Namespace, base: Path, record: Record) -> int:
    states = schedulers.get(record.backend).states(record, base)
    parts = tuple(k for k, v in states.items() if isinstance(k, int) and v != array_spec.DONE)
    if not parts and states[array_spec.FINISH] == array_spec.DONE:
        print(f"{record.out}: all is done")
        return errors.EXIT_OK
    if record.backend == "kubernetes":
        parts = tuple(range(1, record.spec.parts + 1))  # those that are done see that and end
    again = dataclasses.replace(record, parts=parts, attempt=record.attempt + 1, jobs={})
    return _submit(args, base, record, again)


def _finish(args: argparse.Namespace, base: Path, record: Record) -> int:
    """Waits for everything; the exit code is that of the last command."""
    backend = schedulers.get(record.backend)
    said, unsure = "", 0
    while True:
        try:
            states = backend.states(record, base)
            vain = _in_vain(record, list(states.values()))
            last = states.pop(array_spec.FINISH)
            if not any(s in array_spec.ACTIVE for s in states.values()):
                record = backend.finish(record, base)
                last = backend.states(record, base)[array_spec.FINISH]
        except errors.WorkFailed as error:
            # Schedulers are restarted, and networks fail, while work goes on.
            unsure += 1
            if unsure == status.PATIENCE:
                raise
            print(f"{error}; looking again", flush=True)
            time.sleep(args.poll)
            continue
        counts = Counter(states.values())
        line = ", ".join(f"{counts[s]} {s}" for s in array_spec.STATES if counts[s])
        line = f"parts: {line}; finish: {last}"
        if line != said:
            print(line, flush=True)
            said = line
        if vain:
            print(f"{record.out}: waits for ever: {vain}", file=sys.stderr)
            return errors.EXIT_FAILED
        # On a network disk an exit code may show some seconds after its job has left the queue.
        unsure = unsure + 1 if last == array_spec.LOST else 0
        if last not in array_spec.ACTIVE and unsure in (0, status.PATIENCE):
            break
        time.sleep(args.poll)
    if last == array_spec.DONE:
        return errors.EXIT_OK
    with contextlib.suppress(InputError, errors.WorkFailed):
        text = backend.log(record, base, array_spec.FINISH)
        frame = ("srun:", "slurmstepd", "== ")  # what Slurm and our script say around the command
        own = [line for line in text.splitlines() if not line.startswith(frame)]
        print(f"{record.out}: {schedulers.last_line(chr(10).join(own))}", file=sys.stderr)
    codes = {array_spec.BAD_INPUT: errors.EXIT_BAD_INPUT, array_spec.STOPPED: errors.EXIT_PREEMPTED}
    return codes.get(last, errors.EXIT_FAILED)


_COMMANDS: dict[str, Callable[[argparse.Namespace, Path, Record], int]] = {
    "status": _status,
    "logs": _logs,
    "cancel": _cancel,
    "retry": _retry,
    "finish": _finish,
}
_WRONG = (array_spec.FAILED, array_spec.BAD_INPUT, array_spec.STOPPED, array_spec.LOST)
_ALL_OPTIONS = frozenset(
    "partition account qos constraint time mem cpus max_parallel array_limit sbatch image "
    "namespace volume".split()
)
