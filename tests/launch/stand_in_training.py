"""Stands in for `a2fjax`: flags, files, signals and exit codes of a training, work of no time.

What it does is steered by files in the folder A2F_STAND_IN, by the run's name: `slow-RUN` (works
until it is gone), `fail-RUN` (exit code 1), `bad-RUN` (2), `lost-RUN` (70 at each start until it is
gone), `kill-RUN` (kills itself once). On SIGTERM it saves and ends with 75.
"""

import json
import os
import signal
import sys
import time
from pathlib import Path


def main(argv):
    if argv[0] != "train":
        print("did", json.dumps(argv[1:]))
        return 0
    config = json.loads(Path(argv[argv.index("--config") + 1]).read_text())["config"]
    run = Path(argv[argv.index("--workdir") + 1])
    rank = int(os.environ.get("A2F_PROCESS_ID", os.environ.get("SLURM_PROCID", "0")))
    cli = Path(os.environ["A2F_STAND_IN"])
    stop = []
    signal.signal(signal.SIGTERM, lambda *_: stop.append(1))
    step = max((int(p.name) for p in (run / "checkpoints").glob("*")), default=0)
    names = [n for n in os.environ if n.startswith(("A2F_", "JAX_", "CUDA_", "SLURM_PROCID"))]
    with (cli / f"{run.name}.starts").open("a") as file:
        file.write(json.dumps({"rank": rank, "step": step, "argv": argv, "cwd": os.getcwd(),
                               "code": os.environ["PYTHONPATH"].split(os.pathsep)[0],
                               "env": {n: os.environ[n] for n in names},
                               "key": len(os.environ.get("SITE_KEY", ""))}) + "\n")  # fmt: skip
    print(f"rank {rank} starts at {step}", flush=True)
    if rank == 0 and (cli / f"kill-{run.name}").exists():
        (cli / f"kill-{run.name}").unlink()
        os.kill(os.getpid(), signal.SIGKILL)
    for name, code in (("fail", 1), ("bad", 2), ("lost", 70)):
        if (cli / f"{name}-{run.name}").exists() and rank == 0:
            print(f"a2fjax train: error: {name}", file=sys.stderr)
            return code
    while step < config["steps"] or (cli / f"slow-{run.name}").exists():
        if step < config["steps"]:
            step += 1
            if rank == 0:
                line = {"step": step, "train/loss": 1 / step, "perf/steps_per_s": 50.0}
                line |= {"time/step_s": 0.02, "eval/loss": 2 / step}
                with (run / "metrics.jsonl").open("a") as file:
                    file.write(json.dumps(line) + "\n")
        time.sleep(0.02)
        if stop or step == config["steps"]:
            if rank == 0:
                (run / "checkpoints" / str(step)).mkdir(parents=True, exist_ok=True)
        if stop:
            signal.signal(signal.SIGTERM, signal.SIG_IGN)
            return 75
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
