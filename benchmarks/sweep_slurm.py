"""Time of a sweep from the command to its sorted table, on a private Slurm.

    python benchmarks/sweep_slurm.py SHARDS [--trials 8] [--parallel 3] [--nodes 4]

SHARDS may be the shards of `make demo`. Slurm's daemons run in a temporary folder with nodes on
loopback, each with two cores regardless of the machine's cores. The trials are small regression
models with one process each, submitted by `launch/submit.py` as one array. They take little longer
than starting Python and compiling, so this measures the queue, not training.
"""

from __future__ import annotations

import argparse
import importlib.util
import os
import shlex
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from types import FrameType, ModuleType

ROOT = Path(__file__).resolve().parents[1]
SUBMIT = ROOT / "launch" / "submit.py"
STEPS = 80


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("shards", type=Path)
    parser.add_argument("--trials", type=int, default=8, help="an even number")
    parser.add_argument("--parallel", type=int, default=3)
    parser.add_argument("--nodes", type=int, default=4)
    args = parser.parse_args()
    if args.trials < 2 or args.trials % 2 or args.parallel < 1 or args.nodes < 1:
        parser.error("expected an even number of trials, and 1 or more at a time and nodes")
    slurm = _private_slurm()
    if slurm.missing():
        print(f"{', '.join(slurm.missing())} not installed: {slurm.INSTALL}", file=sys.stderr)
        return 2
    load = os.getloadavg()[0]
    signal.signal(signal.SIGTERM, _interrupted)
    try:
        # Only a stopped Slurm no longer writes here.
        with tempfile.TemporaryDirectory(prefix="sweep-") as folder:
            with slurm.running(Path(folder) / "slurm", args.nodes):
                seconds = _sweep(args, Path(folder) / "runs")
    except slurm.SlurmFailed as error:
        print(error, file=sys.stderr)
        return 1
    except subprocess.CalledProcessError as error:
        print(
            f"{shlex.join(map(str, error.cmd[1:3]))}: exit code {error.returncode}", file=sys.stderr
        )
        return error.returncode
    except KeyboardInterrupt:
        print("interrupted; Slurm is stopped", file=sys.stderr)
        return 130
    print(f"{args.trials} trainings of {STEPS} steps, {args.parallel} at a time, on {args.nodes} "
          f"nodes: {seconds:.0f} s from submission to the sorted table; {os.cpu_count()} cores, "
          f"load {load:.1f} before")  # fmt: skip
    return 0


def _sweep(args: argparse.Namespace, runs: Path) -> float:
    """Submits the sweep, prints its table and returns the elapsed seconds."""
    rates = ", ".join(f"{1e-3 * (i + 1):g}" for i in range(args.trials // 2))
    submit = [
        "submit", str(ROOT / "experiments" / "regression_v2_3.py:demo"), "--name", "sweep",
        "--sweep", f'grid("optim.learning_rate", {rates}) * seeds(2)', "--scheduler", "slurm",
        "--max-parallel", str(args.parallel), "--cpu-devices", "1", "--wait", "--poll", "1",
        f"--config.data.shards={args.shards.absolute()}", f"--config.steps={STEPS}",
        "--config.optim.warmup_steps=5", "--config.data.batch_size=8",
        "--config.data.window_frames=64", "--config.model.conv_width=32",
        "--config.model.recurrent_width=32", "--config.model.identity=none",
        f"--config.checkpoint.every_steps={STEPS // 2}", f"--config.eval.every_steps={STEPS // 2}",
    ]  # fmt: skip
    began = time.monotonic()
    for words in (submit, ["status", "sweep", "--sort", "eval/loss"]):
        command = [sys.executable, str(SUBMIT), *words, "--runs", str(runs)]
        print(f"$ python launch/submit.py {shlex.join(words)}", flush=True)
        subprocess.run(command, check=True, cwd=ROOT)
    return time.monotonic() - began


def _interrupted(number: int, frame: FrameType | None) -> None:
    # Daemons outlive a process that is terminated without cleanup.
    raise KeyboardInterrupt


def _private_slurm() -> ModuleType:
    place = ROOT / "tests" / "launch" / "private_slurm.py"
    spec = importlib.util.spec_from_file_location("private_slurm", place)
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


if __name__ == "__main__":
    sys.exit(main())
