"""Cost of faults in a run of several processes, with real processes and real signals.

    python benchmarks/faults.py SHARDS [--workdir DIR] [--processes 2] [--devices 2] [--only NAME]

SHARDS may be the shards of `make demo`. The command `a2fjax train` trains a small regression model
on virtual devices of this machine's CPU and is killed, stopped, frozen or deprived of its disk
midway. Each row of the table shows how all processes ended, how long that took after the fault, how
many finished updates the restart had to repeat, and whether the restarted run ended with the same
bytes as an undisturbed one. Times depend on the machine; by design they are below a minute.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

ROOT = Path(__file__).resolve().parents[1]
STEPS, EVERY, FAULT_AT = 80, 20, 47


class Row(NamedTuple):
    """A row of the table."""

    fault: str
    codes: str
    seconds: str
    lost: str
    same: str
    said: str


class Start:
    """A launch of all processes of a run."""

    def __init__(
        self, run: Path, shards: Path, processes: int, devices: int, logs: Path, *extra: str
    ) -> None:
        with socket.create_server(("127.0.0.1", 0)) as free:
            port = free.getsockname()[1]
        self.run, self.logs, self.processes = run, [], []
        command = [
            sys.executable, "-m", "a2fjax.cli.main", "train",
            "--config", str(ROOT / "experiments" / "regression_v2_3.py:demo"),
            "--workdir", str(run), f"--config.data.shards={shards}",
            f"--config.steps={STEPS}", "--config.optim.warmup_steps=5",
            "--config.data.batch_size=8", "--config.data.window_frames=64",
            "--config.model.conv_width=32", "--config.model.recurrent_width=32",
            f"--config.checkpoint.every_steps={EVERY}", "--config.eval.every_steps=0",
            "--config.log.every_steps=1", "--config.model.identity=none", *extra,
        ]  # fmt: skip
        for number in range(processes):
            environment = {
                **os.environ,
                "PYTHONPATH": str(ROOT),
                "JAX_PLATFORMS": "cpu",
                "JAX_NUM_CPU_DEVICES": str(devices),
                "A2F_COORDINATOR": f"127.0.0.1:{port}",
                "A2F_NUM_PROCESSES": str(processes),
                "A2F_PROCESS_ID": str(number),
                "A2F_SESSION": str(port),
                "A2F_SECRET": f"{port:064d}",
            }
            self.logs.append(logs / f"{run.name}.{port}.{number}.log")
            with self.logs[-1].open("wb") as log:
                self.processes.append(
                    subprocess.Popen(command, env=environment, stdout=log, stderr=log)
                )

    def until(self, condition: Callable[[], object], seconds: float = 600) -> None:
        """Waits for a condition while all processes run."""
        end = time.monotonic() + seconds
        while not condition():
            if time.monotonic() > end or any(p.poll() is not None for p in self.processes):
                self.kill()
                sys.exit("\n".join(log.read_text() for log in self.logs))
            time.sleep(0.005)

    def step(self) -> int:
        """Returns the last logged update."""
        path = self.run / "metrics.jsonl"
        text = path.read_text() if path.exists() else ""
        lines = text[: text.rfind("\n") + 1].splitlines()  # The last line may be incomplete.
        return int(json.loads(lines[-1])["step"]) if lines else 0

    def wait(self, but: int | None = None, seconds: float = 600) -> list[int]:
        """Returns exit codes; kills the frozen process `but` after the others have ended."""
        end = time.monotonic() + seconds
        for number, process in enumerate(self.processes):
            if number != but:
                process.wait(max(1.0, end - time.monotonic()))
        self.kill()
        return [p.wait() for p in self.processes]

    def kill(self) -> None:
        """Kills all running processes."""
        for process in self.processes:
            if process.poll() is None:
                process.kill()

    def said(self) -> str:
        """Returns the first line of a process's final message."""
        lines = [line for log in self.logs for line in log.read_text().splitlines()]
        told = [line for line in lines if line.startswith("a2fjax train:")]
        return told[0].removeprefix("a2fjax train: ") if told else "nothing"


def checksum(run: Path) -> str:
    """Returns a checksum of the last state's parameters, averages and optimiser."""
    import jax

    from a2fjax.training import checkpoints

    digest = hashlib.sha256()
    for item in ("params", "ema"):
        for leaf in jax.tree.leaves(checkpoints.load_params(run, None, item)[1]):
            digest.update(leaf.tobytes())
    return digest.hexdigest()[:12]


def saved(run: Path) -> int:
    """Returns the last complete checkpoint step."""
    steps = [int(p.name) for p in (run / "checkpoints").iterdir() if p.name.isdecimal()]
    return max(steps, default=0)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("shards", type=Path)
    parser.add_argument("--workdir", type=Path)
    parser.add_argument("--processes", type=int, default=2)
    parser.add_argument("--devices", type=int, default=2, help="of each process")
    parser.add_argument("--only", help="names of rows")
    args = parser.parse_args()
    folder = Path(args.workdir or tempfile.mkdtemp(prefix="faults-")).absolute()
    folder.mkdir(parents=True, exist_ok=True)
    table = Table(folder, args.shards.absolute(), args.processes, args.devices)
    rows = table.rows(args.only.split(",") if args.only else None)
    print(f"\n{args.processes} processes x {args.devices} CPU devices, {STEPS} steps, a state "
          f"every {EVERY}, faults after step {FAULT_AT}; {os.cpu_count()} cores, load "
          f"{os.getloadavg()[0]:.1f}\n")  # fmt: skip
    print("| fault | exit codes | seconds until all had ended | steps done again | "
          "same bytes at the end | said |\n|---|---|---|---|---|---|")  # fmt: skip
    for row in rows:
        print("| " + " | ".join(row) + " |")


class Table:
    """Runs the rows one after another from the same initial state."""

    def __init__(self, folder: Path, shards: Path, processes: int, devices: int) -> None:
        self.folder, self.shards = folder, shards
        self.processes, self.devices = processes, devices
        # Data constants are measured once and then stored in the initial state.
        self.first = folder / "first"
        if not self.first.exists():
            self._finish(self.first, f"--config.steps={EVERY}")
        whole = self._copy("whole")
        self._finish(whole)
        self.checksum = checksum(whole)

    def rows(self, only: list[str] | None) -> list[Row]:
        """Returns the rows and prints each as soon as it is finished."""
        out = []
        for name in FAULTS if only is None else only:
            out.append(FAULTS[name](self, name))
            print(f"{name}: {out[-1]}", flush=True)
        return out

    def _copy(self, name: str) -> Path:
        run = self.folder / name.replace(" ", "-")
        shutil.rmtree(run, ignore_errors=True)
        shutil.copytree(self.first, run)
        return run

    def _start(self, run: Path, *extra: str) -> Start:
        return Start(run, self.shards, self.processes, self.devices, self.folder, *extra)

    def _finish(self, run: Path, *extra: str) -> None:
        start = self._start(run, *extra)
        if set(start.wait()) != {0}:
            sys.exit("\n".join(log.read_text() for log in start.logs))


def signalled(sign: signal.Signals, victim: int, *, saving: bool = False) -> Callable[..., Row]:
    """Returns a function that produces the row of a signal to one process."""

    def row(table: Table, name: str) -> Row:
        run = table._copy(name)
        start = table._start(run)
        if saving:
            torn = run / "checkpoints"
            start.until(lambda: list(torn.glob(f"{2 * EVERY}.orbax-checkpoint-tmp*")))
        else:
            start.until(lambda: start.step() >= FAULT_AT)
        start.processes[victim].send_signal(sign)
        began = time.monotonic()
        codes = start.wait(but=victim if sign == signal.SIGSTOP else None)
        seconds = time.monotonic() - began
        reached, kept = start.step(), saved(run)
        table._finish(run)
        same = "yes" if checksum(run) == table.checksum else "NO"
        return Row(
            name, _codes(codes), f"{seconds:.1f}", f"{max(0, reached - kept)}", same, start.said()
        )

    return row


def full_disk(table: Table, name: str) -> Row:
    """Fills the disk while the second state is written, then frees space and continues."""
    run = table._copy(name)
    place = table.folder / "disk"
    place.mkdir(exist_ok=True)
    taken = [(p, p.stat().st_blocks * 512) for p in run.rglob("*")]
    state = sum(n for p, n in taken if "checkpoints" in p.parts)
    size = sum(n for _, n in taken) + state // 2 + 2**18  # Space for metrics and half a state.
    mounted = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", f"size={size}", "tmpfs", str(place)],
        capture_output=True, text=True, check=False,
    )  # fmt: skip
    if mounted.returncode:
        return Row(name, "not run", "", "", "", mounted.stderr.strip())
    try:
        inside = place / "run"
        shutil.copytree(run, inside)
        before = _contents(inside / "checkpoints" / str(EVERY))
        start = table._start(inside)
        began = time.monotonic()
        codes = start.wait()
        seconds = time.monotonic() - began
        kept = _contents(inside / "checkpoints" / str(EVERY)) == before
        subprocess.run(["mount", "-o", "remount,size=1G", str(place)], check=True)
        reached, kept_step = start.step(), saved(inside)
        table._finish(inside)
        same = "yes" if checksum(inside) == table.checksum else "NO"
        said = start.said() + ("" if kept else "; THE EARLIER STATE CHANGED")
        return Row(
            name,
            _codes(codes),
            f"(whole start {seconds:.0f})",
            f"{reached - kept_step}",
            same,
            said,
        )
    finally:
        subprocess.run(["umount", str(place)], check=False)


def refused(change: Callable[[Path], tuple[str, ...]]) -> Callable[..., Row]:
    """Returns a function that produces the row of an error detected before the run starts."""

    def row(table: Table, name: str) -> Row:
        run = table._copy(name)
        extra = change(run)
        before = _contents(run)
        start = table._start(run, *extra)
        began = time.monotonic()
        codes = start.wait()
        seconds = time.monotonic() - began
        after = {k: v for k, v in _contents(run).items() if k in before}
        kept = "nothing overwritten" if after == before else "OVERWRITTEN"
        return Row(name, _codes(codes), f"(whole start {seconds:.0f})", "0", kept, start.said())

    return row


def unreadable(run: Path) -> tuple[str, ...]:
    files = sorted((run / "checkpoints" / str(EVERY) / "params").rglob("*"))
    for path in files:
        if path.is_file() and path.stat().st_size > 1000:
            path.write_bytes(path.read_bytes()[:100])
    return ()


def other_model(run: Path) -> tuple[str, ...]:
    config = json.loads((run / "config.json").read_text())
    config["config"]["model"]["conv_width"] = 48
    (run / "config.json").write_text(json.dumps(config))
    return ("--config.model.conv_width=48",)


def _contents(folder: Path) -> dict[str, bytes]:
    return {
        str(p.relative_to(folder)): p.read_bytes()
        for p in sorted(folder.rglob("*"))
        if p.is_file() and p.name not in ("lock", "parameters.txt")
    }


def _codes(codes: list[int]) -> str:
    return ", ".join(str(c) if c >= 0 else signal.Signals(-c).name for c in codes)


FAULTS: dict[str, Callable[..., Row]] = {
    "SIGTERM to one process": signalled(signal.SIGTERM, 1),
    "SIGUSR2 to the first process": signalled(signal.SIGUSR2, 0),
    "kill -9 of one process": signalled(signal.SIGKILL, 1),
    "kill -9 of the first process": signalled(signal.SIGKILL, 0),
    "kill -9 during a save": signalled(signal.SIGKILL, 0, saving=True),
    "one process frozen (SIGSTOP)": signalled(signal.SIGSTOP, 1),
    "full disk": full_disk,
    "unreadable state": refused(unreadable),
    "state of another model": refused(other_model),
    "batch that does not divide": refused(lambda run: ("--config.data.batch_size=6",)),
}


if __name__ == "__main__":
    main()
