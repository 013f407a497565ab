"""Connects the processes of a run and ends them together."""

from __future__ import annotations

import atexit
import contextlib
import os
import re
import socket
import sys
import threading
import time
from collections.abc import Iterator
from typing import Any

from a2fjax.errors import EXIT_FAILED, InputError, Preempted, WorkFailed, exit_code
from a2fjax.training.distributed import broadcast
from a2fjax.training.distributed.failure_detector import FailureDetector
from a2fjax.training.distributed.process_setup import ProcessSetup
from a2fjax.training.distributed.watchdog import Watchdog, exit_process

RENDEZVOUS_SECONDS = 300.0
HEARTBEAT_SECONDS = 45
"""JAX ends processes that miss heartbeats for this long; the failure detector is faster."""

THREADS = "PJRT_NPROC"
"""Variable for XLA's number of CPU threads, which determines the order of sums in matrix products.

The default is the number of cores or of the process's devices, whichever is larger, so the same
devices in more processes would give other bits. It is set to the devices of the whole run instead.
"""


@contextlib.contextmanager
def session(setup: ProcessSetup, watchdog: Watchdog) -> Iterator[None]:
    """Connects the processes of a run; all leave the context together.

    If this process fails, the others end with its message and exit code. If another process fails
    or is lost, this one prints which process it was and the reason, and ends at once with that exit
    code or `EXIT_LOST`.

    Args:
      setup: setup from `process_setup.detect`.
      watchdog: monitors the progress of this process.

    Raises:
      WorkFailed: the other processes did not join in time.
      InputError: this process does not have the expected devices.
    """
    detector = None
    if setup.processes > 1:
        detector = FailureDetector(
            (setup.host, setup.port),
            rank=setup.process,
            size=setup.processes,
            session=setup.session,
            secret=setup.secret,
            bind=setup.bind,
            patience=float(os.environ.get("A2F_RENDEZVOUS_SECONDS", RENDEZVOUS_SECONDS)),
            ended=exit_process,
        )
        watchdog.notify = detector.fail
    broadcast.connect(detector)
    try:
        _initialise(setup, detector)
        yield
    except (InputError, WorkFailed) as error:
        _fail(detector, str(error), exit_code(error))
        raise
    except Preempted:
        _finish(detector, watchdog)
        raise
    except KeyboardInterrupt:
        _fail(detector, "interrupted", 130)
        raise
    except BaseException as error:
        if detector is not None and type(error).__name__ == "JaxRuntimeError":
            # Another process has probably ended; wait for the failure detector to report it.
            time.sleep(HEARTBEAT_SECONDS)
        _fail(detector, f"{type(error).__name__}: {error}"[:2000], EXIT_FAILED)
        raise
    finally:
        broadcast.connect(None)
        # The program may continue with other work.
        watchdog.stop()
    _finish(detector, watchdog)


def _cores() -> int:
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def _initialise(setup: ProcessSetup, detector: FailureDetector | None) -> None:
    import jax

    config: Any = jax.config  # Its options are not declared.
    # `preemption` handles signals; JAX's handler would intercept SIGTERM.
    jax.config.update("jax_enable_preemption_service", False)
    local = setup.local_devices or max(1, config.jax_num_cpu_devices)
    devices = setup.processes * local
    if devices > _cores() and not {"NPROC", THREADS} & set(os.environ):
        os.environ[THREADS] = str(devices)
    if setup.processes > 1 and os.environ.get("JAX_PLATFORMS", "") == "cpu":
        jax.config.update("jax_cpu_collectives_implementation", "gloo")
    # JAX's coordination service ends a process that was paused for longer than the heartbeat's
    # timeout, so a single process, which needs no service, does not start it.
    if detector is not None:
        # A machine's own name may be a loopback address; JAX's default is every interface.
        host = setup.host if setup.process else detector.host
        host = f"[{host}]" if ":" in host else host
        with _no_proxy(host):
            jax.distributed.initialize(
                f"{host}:{detector.port}",
                setup.processes,
                setup.process,
                local_device_ids=setup.visible,
                cluster_detection_method="deactivate",
                heartbeat_timeout_seconds=HEARTBEAT_SECONDS,
                coordinator_bind_address=None if setup.process else f"{host}:{detector.port}",
            )
    count = jax.local_device_count()
    assert jax.process_count() == setup.processes, (jax.process_count(), setup)
    wanted = setup.local_devices
    if setup.visible is not None and jax.default_backend() == "cpu":
        wanted = None  # The accelerators are visible, but this run does not use them.
    if wanted is not None and count != wanted:
        raise InputError(
            f"process {setup.process} on {socket.gethostname()} has {count} "
            f"{jax.default_backend()} devices: expected {wanted}; check the job's layout "
            "(one process a node with all its GPUs, or one a GPU) and JAX_NUM_CPU_DEVICES"
        )


_PROXY = re.compile(r"(?i)(grpc|https?|all)_proxy")


@contextlib.contextmanager
def _no_proxy(host: str) -> Iterator[None]:
    """Keeps gRPC from reaching the coordinator through the site's proxy."""
    names = ("no_proxy", "no_grpc_proxy") if any(_PROXY.fullmatch(k) for k in os.environ) else ()
    before = {name: os.environ.get(name) for name in names}
    for name, value in before.items():
        os.environ[name] = ",".join(filter(None, [value, host]))
    try:
        yield
    finally:
        for name, value in before.items():
            if value is None:
                del os.environ[name]
            else:
                os.environ[name] = value


def _finish(detector: FailureDetector | None, watchdog: Watchdog) -> None:
    import jax

    watchdog.stop()
    if detector is not None:
        # With srun -K the first process to end would kill those that are still writing.
        detector.leave()
        jax.distributed.shutdown()


def _fail(detector: FailureDetector | None, text: str, code: int) -> None:
    if detector is None:
        return
    if not detector.fail(text, code):
        time.sleep(HEARTBEAT_SECONDS)  # The failure detector's thread ends this process.
    # At interpreter exit Python would wait for Orbax's threads, which wait for the other processes
    # in barriers, and JAX would wait for processes that have ended.
    threading.Thread(target=_exit_after_main, args=(code,), daemon=True).start()
    atexit.register(_exit_quietly, code)


def _exit_after_main(code: int) -> None:
    threading.main_thread().join()
    _exit_quietly(code)


def _exit_quietly(code: int) -> None:
    with contextlib.suppress(Exception):
        sys.stdout.flush()
        sys.stderr.flush()
    os._exit(code)
