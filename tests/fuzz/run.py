"""Runs every command on files with one structural damage each: `make fuzz MINUTES=2`.

Each case has a seed, which chooses command, file and damage; `--seed N --cases 1` repeats one. A
case passes when the command succeeds, or fails with one line of error, within 30 s and 2 GB of
additional memory, and leaves no partial file. It must fail if a pipe, a folder or nothing is in the
place of a file that it cannot do without. Cases run in a worker process, so that a crash is a
finding, too.
"""

import argparse
import collections
import contextlib
import gc
import json
import os
import re
import select
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path

ROOT = Path(__file__).parents[2]
SECONDS, GROWTH = 30.0, 2e9
ERROR = re.compile(r"^\S.*?: (?:error|failed|stopped): .+", re.MULTILINE)


def main(argv=None):
    """Returns 0 if all cases pass."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--minutes", type=float, default=2.0)
    parser.add_argument("--cases", type=int, help="instead of --minutes")
    parser.add_argument("--seed", type=int, default=None, help="first seed; default: the time")
    parser.add_argument(
        "--only", default="", help="beginning of the targets' names, such as build, jobs or train"
    )
    parser.add_argument("--worker", help=argparse.SUPPRESS)
    args = parser.parse_args(argv)
    if args.worker:
        return work(Path(args.worker), args.seed, args.only)
    seed = int(time.time()) % 1_000_000 * 1000 if args.seed is None else args.seed
    print(f"fuzz: seeds from {seed}", flush=True)
    with tempfile.TemporaryDirectory(prefix="a2fjax-fuzz-") as folder:
        table, failures = watch(Path(folder), seed, args)
    width = max(map(len, table), default=0)
    for name, counts in sorted(table.items()):
        shown = ", ".join(f"{n} {what}" for what, n in sorted(counts.items()))
        print(f"  {name:<{width}}  {sum(counts.values()):>5} cases: {shown}")
    print(f"fuzz: {sum(map(sum, (c.values() for c in table.values())))} cases, "
          f"{len(failures)} failures")  # fmt: skip
    return 1 if failures else 0


def watch(folder, seed, args):
    """Runs workers until the time or the cases are up; returns (counts by command, failures)."""
    table, failures = collections.defaultdict(collections.Counter), []
    end = None
    environment = {
        **os.environ,
        "PYTHONPATH": str(ROOT),
        "JAX_PLATFORMS": "cpu",
        "A2F_CACHE": str(folder / "cache"),
        "OPENBLAS_NUM_THREADS": "1",
    }
    first, done = seed, 0
    log = (folder / "worker.log").open("a+")
    while args.cases is None or done < args.cases:
        if end is not None and args.cases is None and time.monotonic() > end:
            break
        command = [sys.executable, __file__, "--worker", str(folder), "--seed", str(first + done)]
        process = subprocess.Popen(
            [*command, "--only", args.only], env=environment, cwd=ROOT,
            stdout=subprocess.PIPE, stderr=log, start_new_session=True,
        )  # fmt: skip
        current, finished = None, False
        with Reader(process) as reader:
            while True:
                line = reader.line()
                if line is None:  # a limit was exceeded, or the worker died
                    break
                if "ready" in line:
                    end = end or time.monotonic() + 60 * args.minutes
                elif "begin" in line:
                    current = line
                    reader.begin()
                elif "code" in line:
                    reader.end()
                    table[current["target"]][outcome(line)] += 1
                    found = [f"{describe(current)}: {p}" for p in line["problems"]]
                    failures += found
                    print("".join(f"FAILED {each}\n" for each in found), end="", flush=True)
                    current, done = None, done + 1
                    over = time.monotonic() > end if args.cases is None else done >= args.cases
                    if over:
                        finished = True
                        break
        if finished:
            break
        if current is None:
            log.seek(0)
            raise SystemExit(f"fuzz: no case was run: {reader.why}: {log.read()[-2000:]}")
        table[current["target"]]["killed"] += 1
        failures.append(f"{describe(current)}: {reader.why}")
        print(f"FAILED {failures[-1]}", flush=True)
        done += 1
    return table, failures


def outcome(line):
    return "ok" if line["code"] == 0 else "refused" if line["code"] == 2 else f"exit {line['code']}"


def describe(case):
    return f"--seed {case['begin']}: {case['target']}, {case['file']}, {case['change']}"


class Reader:
    """Reads the lines of a worker, and ends it when a case exceeds a limit."""

    def __init__(self, process):
        self.process, self.why = process, "the worker ended"
        self._start = None
        self._memory = self._spent = 0.0

    def __enter__(self):
        self._rest = b""
        return self

    def __exit__(self, *error):
        with contextlib.suppress(ProcessLookupError):
            os.killpg(self.process.pid, signal.SIGKILL)
        self.process.wait()

    def begin(self):
        self._start = time.monotonic()
        self._memory, self._spent = usage(self.process.pid)
        self._worked, self._active = 0.0, self._start

    def end(self):
        self._start = None

    def line(self):
        out = self.process.stdout.fileno()
        while b"\n" not in self._rest:
            if select.select([out], [], [], 0.05)[0]:
                part = os.read(out, 1 << 16)
                self._rest += part
                if part:
                    continue
            if self.process.poll() is not None:
                self.why = f"the worker ended with {self.process.returncode}"
                return None
            if self._start is not None:
                memory, spent = usage(self.process.pid)
                waited, worked = time.monotonic() - self._start, spent - self._spent
                if worked > self._worked:
                    self._worked, self._active = worked, time.monotonic()
                idle = time.monotonic() - self._active
                # On a busy machine a case may wait for the processor for some time.
                if worked > SECONDS or idle > SECONDS or waited > 20 * SECONDS:
                    self.why = f"no end after {worked:.0f} s of work, {waited:.0f} s in all"
                    return None
                if memory - self._memory > GROWTH:
                    self.why = f"memory grew by {(memory - self._memory) / 1e9:.1f} GB"
                    return None
        line, _, self._rest = self._rest.partition(b"\n")
        return json.loads(line)


def usage(pid):
    """Returns the resident bytes and the processor seconds of a process and its children."""
    memory, spent = 0.0, 0.0
    with contextlib.suppress(OSError, ValueError):
        fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
        memory = int(fields[21]) * os.sysconf("SC_PAGE_SIZE")
        spent = sum(map(int, fields[11:15])) / os.sysconf("SC_CLK_TCK")
        for thread in Path(f"/proc/{pid}/task").iterdir():
            for child in (thread / "children").read_text().split():
                more = usage(int(child))
                memory, spent = memory + more[0], spent + more[1]
    return memory, spent


def work(folder, seed, only):
    """Runs cases one by one, and prints a line of JSON before and after each."""
    sys.path[:0] = [str(Path(__file__).parent), str(ROOT)]
    report = os.fdopen(os.dup(1), "w")
    os.dup2(os.open(os.devnull, os.O_WRONLY), 1)

    def say(**values):
        report.write(json.dumps(values) + "\n")
        report.flush()

    import jax
    import mutations
    import numpy as np
    import target as target_lib
    import world

    jax.config.update("jax_compilation_cache_dir", str(folder / "compiled"))
    jax.config.update("jax_persistent_cache_min_compile_time_secs", 0.0)
    made = folder / f"world-{os.getpid()}"
    targets = world.make(made, only)
    weights = np.array([t.weight for t in targets])
    for target in targets:  # What is loaded and compiled once counts for no case.
        os.environ["FUZZ_VICTIM"] = str(target.files(target.folder)[0])
        with captured(folder / "warm") as printed:
            target_lib.copy(target, folder / "warm-up")
            code = target_lib.call(target, folder / "warm-up")
            shutil.rmtree(folder / "warm-up")
        if code == 2:
            text = printed.read_text(errors="replace")
            raise SystemExit(f"{target.name} refuses undamaged files: {text[-500:]}")
    say(ready=True)
    parent = os.getppid()
    while os.getppid() == parent:
        rng = np.random.default_rng(seed)
        target = targets[rng.choice(len(targets), p=weights / weights.sum())]
        case = folder / f"case-{seed}"
        target_lib.copy(target, case)
        files = target.files(case)
        victim = files[rng.integers(len(files))]
        change = mutations.change_file(victim, rng)
        os.environ["FUZZ_VICTIM"] = str(victim)
        before = {p for p in case.rglob("*")}
        needed = target.needs(case, victim) and change in mutations.REPLACED
        say(begin=seed, target=target.name, file=str(victim.relative_to(case)), change=change)
        problems = []
        with captured(folder / "printed") as printed:
            try:
                code = target_lib.call(target, case)
                gc.collect()  # What is left behind must not be reported by a later case.
            except BaseException as error:  # noqa: BLE001 - whatever escapes is a finding
                code, problems = 1, [f"escaped: {type(error).__name__}: {str(error)[:300]}"]
                frame = error.__traceback__
                while frame.tb_next:
                    frame = frame.tb_next
                problems[0] += f" ({frame.tb_frame.f_code.co_filename}:{frame.tb_lineno})"
        problems += check(code, printed.read_text(errors="replace"), case, before)
        problems += ["succeeded without the file"] * (needed and code == 0)
        say(code=code, problems=problems)
        shutil.rmtree(case, ignore_errors=True)
        seed += 1
    return 0


def check(code, text, case, before):
    """Returns what is wrong with a command's end, as lines."""
    problems = []
    if "Traceback (most recent call last)" in text or "defect of this program" in text:
        start = max(0, text.find("Traceback") - 300)
        problems.append(f"printed a traceback: {text[start : start + 1500]!r}")
    if code not in (0, 1, 2, 75):
        problems.append(f"exit code {code}")
    errors = ERROR.findall(text)
    if code == 2 and not errors:
        problems.append(f"no line of error: {text[-300:]!r}")
    if any(len(e) > 1500 for e in errors):
        problems.append(f"an error of {max(map(len, errors))} characters")
    new = {p for p in case.rglob("*")} - before
    problems += [f"left {p.name}" for p in new if ".partial" in p.name]
    if code not in (0, 75):
        problems += [f"left {p.name}" for p in new if p.parent == case and p.is_file()]
    return problems


@contextlib.contextmanager
def captured(path):
    """Sends the output of this process, native libraries included, to a file."""
    kept = [os.dup(1), os.dup(2)]
    with open(path, "w") as file:
        sys.stdout.flush()
        os.dup2(file.fileno(), 1)
        os.dup2(file.fileno(), 2)
        try:
            yield path
        finally:
            sys.stdout.flush()
            sys.stderr.flush()
            for number, handle in zip((1, 2), kept, strict=True):
                os.dup2(handle, number)
                os.close(handle)


if __name__ == "__main__":
    sys.exit(main())
