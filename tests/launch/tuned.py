"""Runs that take no time to speak of, each a process of its own, and a driver of them.

tuned.py FOLDER            drives a study of 8 runs, 3 at a time
tuned.py run FOLDER X      a run: writes a value a step
"""

import os
import subprocess
import sys
import time
from pathlib import Path

from launch.sweeps import spaces
from launch.tuning import driver

STEPS = 6


class Processes:
    def __init__(self, folder: Path):
        self.folder = folder

    def start(self, number, overrides):
        place = self.folder / f"trial-{number}"
        place.mkdir(exist_ok=True)
        argv = [sys.executable, __file__, "run", str(place), overrides["x"]]
        subprocess.Popen(argv, start_new_session=True)
        while not (place / "pid").is_file():
            time.sleep(0.01)
        return place.name

    def find(self, number):
        place = self.folder / f"trial-{number}"
        return place.name if (place / "pid").is_file() else None

    def poll(self, run):
        place = self.folder / run
        lines = (place / "points").read_text().splitlines(keepends=True)
        points = [tuple(map(float, x.split())) for x in lines if x.endswith("\n")]
        state = "done" if (place / "done").exists() else "running"
        return state, [(int(step), value) for step, value in points]

    def cancel(self, run):
        (self.folder / run / "stop").touch()


def run(place: Path, x: float) -> None:
    with (place / "starts").open("a") as file:
        file.write("started\n")
    (place / "points").touch()
    (place / "pid").write_text(str(os.getpid()))
    for step in range(1, STEPS + 1):
        if (place / "stop").exists():
            return
        time.sleep(0.05)
        with (place / "points").open("a") as file:
            file.write(f"{step} {abs(x - 0.3) + 1 / step}\n")
    (place / "done").touch()


if __name__ == "__main__":
    if sys.argv[1] == "run":
        run(Path(sys.argv[2]), float(sys.argv[3]))
    else:
        here = Path(sys.argv[1])
        settings = driver.Settings(runs=8, max_parallel=3, first_step=2, poll_seconds=0.05)
        space = {"x": spaces.uniform(0, 1)}
        driver.tune(here, space, Processes(here), settings, report=lambda t: print(t, flush=True))
