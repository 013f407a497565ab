"""Work for tests of engines; of a module that other processes can import."""

import os
import time
from pathlib import Path


def work(job):
    """Says that it was begun, takes its time and writes a file, as a take is worked on."""
    folder, number = Path(job[0]), job[1]
    import ray

    node = ray.get_runtime_context().get_node_id() if ray.is_initialized() else "here"
    with (folder / f"{number}.begun").open("a") as file:
        file.write(f"{node} {os.environ.get('OMP_NUM_THREADS')}\n")
    time.sleep(0.2 + 0.4 * (number % 3))
    (folder / f".{number}.partial").write_text(f"result of {number}\n" * 100)
    os.replace(folder / f".{number}.partial", folder / f"{number}.done")
    if number == 5:
        raise ValueError("five")
    return number * number


def deadly(job):
    """Ends its process."""
    if job == 1:
        os._exit(9)
    return job
