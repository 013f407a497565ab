"""Stands in for data_pipeline.build: same flags and exit codes, work that takes no time.

What a part does is steered by files in INPUT: `slow-I` (works until it is gone, stops with 75 on
SIGTERM), `die-I` (kills itself once), `fail-I` (exit code 1), `bad-I` (exit code 2).
"""

import json
import os
import signal
import sys
import time
from pathlib import Path


def main(argv):
    source, out = Path(argv[0]), Path(argv[argv.index("--out") + 1])
    out.mkdir(parents=True, exist_ok=True)
    if "--finish" in argv:
        parts = int((source / "parts").read_text())
        missing = [i for i in range(1, parts + 1) if not (out / f"{i}.done").exists()]
        if missing:
            print(f"missing: {missing}")
            return 1
        (out / "manifest.json").write_text(json.dumps(sorted(p.name for p in out.glob("*.done"))))
        return 0
    index, count = argv[argv.index("--part") + 1].split("/")
    signal.signal(signal.SIGTERM, lambda *_: os._exit(75))
    with (out / f"{index}.runs").open("a") as file:
        file.write(json.dumps([argv, os.getcwd(), os.getpid()]) + "\n")
    if (out / f"{index}.done").exists():
        return 0
    while (source / f"slow-{index}").exists():
        time.sleep(0.05)
    if (source / f"die-{index}").exists():
        (source / f"die-{index}").unlink()
        os.kill(os.getpid(), signal.SIGKILL)
    for name, code in (("fail", 1), ("bad", 2)):
        if (source / f"{name}-{index}").exists():
            return code
    temporary = out / f".{index}.{os.getpid()}"
    temporary.write_text(count)
    temporary.replace(out / f"{index}.done")
    return 0


sys.exit(main(sys.argv[1:]))
