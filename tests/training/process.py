"""One process of a training of the toy task: `process.py RUN {"changes": ..., "faults": ...}`.

Faults are lists [process, batch, what]: "kill", "term", "usr2", "stop" (SIGSTOP), "sleep" (in
Python, for ever), "input", "failed", "bug" (errors), "pause" (half a second), "disk" (this process
can write no file any more).
"""

import importlib.util
import json
import os
import resource
import signal
import subprocess
import sys
import time
from pathlib import Path

SIGNALS = {
    "kill": signal.SIGKILL,
    "term": signal.SIGTERM,
    "usr2": signal.SIGUSR2,
    "stop": signal.SIGSTOP,
}


def load_toy():
    path = Path(__file__).with_name("conftest.py")
    spec = importlib.util.spec_from_file_location("toy", path)
    toy = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(toy)
    return toy


def happen(what):
    from a2fjax.errors import InputError, WorkFailed

    print(f"process {os.getpid()}: {what}", flush=True)
    if what in SIGNALS:
        os.kill(os.getpid(), SIGNALS[what])
    elif what == "sleep":
        time.sleep(1e6)
    elif what == "disk":
        # What the process prints goes through a pipe, because the limit holds for its log, too.
        through = subprocess.Popen(["cat"], stdin=subprocess.PIPE)
        for number in (1, 2):
            os.dup2(through.stdin.fileno(), number)
        resource.setrlimit(resource.RLIMIT_FSIZE, (1, resource.RLIM_INFINITY))
    elif what == "pause":
        time.sleep(0.5)
    elif what == "input":
        raise InputError("shard 7: cannot be read")
    elif what == "failed":
        raise WorkFailed("the disk is full")
    else:
        raise KeyError("a bug")


def main(run, options):
    from a2fjax.configuration import Resolved
    from a2fjax.training.distributed import process_setup, session, watchdog

    setup = process_setup.detect(os.environ)
    dog = watchdog.Watchdog(options.get("limit", 60))
    if options.get("closing"):
        report = dog.failed

        def slow(error):
            """A process that takes its time to close what it had open."""
            report(error)
            time.sleep(options["closing"])

        dog.failed = slow
    with session.session(setup, dog):
        toy = load_toy()
        from a2fjax.training import trainer

        config = toy.make_config(**options.get("changes", {}))

        class Inputs(toy.ToyInputs):
            """This process's rows of every batch."""

            def _batch(self, name, step):
                whole = super()._batch(name, step)
                rows = config.data.batch_size // setup.processes
                return whole.select(slice(setup.process * rows, (setup.process + 1) * rows))

            def spec(self):
                return toy.ToyInputs(self.config).spec()

        inputs = Inputs(config)

        def on_batch(step):
            for process, at, what in options.get("faults", []):
                if process == setup.process and at == step:
                    happen(what)

        inputs.on_batch = on_batch
        trainer.train(Resolved(config, {}), run, task=toy.ToyTask(), inputs=inputs, watchdog=dog)


if __name__ == "__main__":
    from a2fjax import errors

    code = 0
    try:
        main(Path(sys.argv[1]), json.loads(sys.argv[2]))
    except errors.InputError as error:
        print(f"error: {error}", file=sys.stderr)
        code = errors.EXIT_BAD_INPUT
    except errors.WorkFailed as error:
        print(f"error: {error}", file=sys.stderr)
        code = errors.EXIT_FAILED
    except errors.Preempted as error:
        print(f"stopped: {error}", file=sys.stderr)
        code = errors.EXIT_PREEMPTED
    sys.exit(code)
