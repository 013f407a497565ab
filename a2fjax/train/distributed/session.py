"""One process or many: who this process is, joining the others, and ending together.

A set-up is looked for in this order of trust:

    Slurm        a step of several tasks says who is who (`srun`)
    Kubernetes   an Indexed Job numbers its pods; A2F_NUM_PROCESSES and A2F_COORDINATOR say the rest
    explicit     A2F_NUM_PROCESSES, A2F_PROCESS_ID, A2F_COORDINATOR=host:port
    single       none of these

What a scheduler says and what the variables say must agree. A2F_LOCAL_DEVICES, where it is given,
is how many devices each process must find.
"""

from __future__ import annotations

import atexit
import base64
import contextlib
import dataclasses
import faulthandler
import io
import os
import re
import socket
import sys
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from typing import Any

import numpy as np

from a2fjax.errors import (
    EXIT_BAD_INPUT,
    EXIT_FAILED,
    EXIT_LOST,
    InputError,
    Preempted,
    WorkFailed,
)
from a2fjax.train.distributed.failure_detector import Peers

PORTS = range(61440, 65536)
"""Ports that a Slurm step's first process listens on, one by job and step."""

RENDEZVOUS_SECONDS = 300.0
HEARTBEAT_SECONDS = 45
"""After which JAX itself ends processes whose peers are gone; ours is quicker and says who."""

THREADS = "PJRT_NPROC"
"""Sets XLA's threads on a CPU, which decide how products of matrices are cut and so the order of
their sums. Its own number is that of cores or of the process's own devices, whichever is larger:
as many devices in more processes would give other bits. So it is that of the whole run's devices.
"""

COMPILING = 10.0
"""Factor of the time without progress that is allowed while a program is compiled."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class Setup:
    """Who this process is.

    Attributes:
      source: "slurm", "kubernetes", "explicit" or "single".
      processes: how many there are.
      process: number of this one.
      host, port: where process 0 waits for the others; "" and 0 for a single process.
      local_devices: how many devices this process must have; None where that is not known.
      visible: of the accelerators this process sees, those it takes; None for all.
      session: of this start of the job; processes of another are turned away.
    """

    source: str
    processes: int = 1
    process: int = 0
    host: str = ""
    port: int = 0
    local_devices: int | None = None
    visible: tuple[int, ...] | None = None
    session: str = ""


def detect(env: Mapping[str, str]) -> Setup:
    """Returns the set-up that environment variables describe.

    Raises:
      InputError: one is missing, or two do not agree; names them.
    """
    local = _number(env, "A2F_LOCAL_DEVICES", least=1)
    session = env.get("A2F_SESSION", "")
    given = _number(env, "A2F_NUM_PROCESSES", least=1)
    if all(name in env for name in _SLURM) and int(env["SLURM_STEP_NUM_TASKS"]) > 1:
        return _slurm(env, local, given)
    if "KUBERNETES_SERVICE_HOST" in env and "JOB_COMPLETION_INDEX" in env and (given or 1) > 1:
        assert given is not None
        index = _number(env, "JOB_COMPLETION_INDEX", least=0)
        if "A2F_PROCESS_ID" in env and _number(env, "A2F_PROCESS_ID", least=0) != index:
            raise InputError(
                f"A2F_PROCESS_ID={env['A2F_PROCESS_ID']}: but JOB_COMPLETION_INDEX={index}"
            )
        return _of_many("kubernetes", env, given, index, local, session)
    if given is not None and given > 1:
        index = _number(env, "A2F_PROCESS_ID", least=0)
        return _of_many("explicit", env, given, index, local, session)
    return Setup(source="single", local_devices=local)


_SLURM = (
    "SLURM_JOB_ID",
    "SLURM_STEP_ID",
    "SLURM_STEP_NODELIST",
    "SLURM_STEP_NUM_TASKS",
    "SLURM_PROCID",
    "SLURM_LOCALID",
)


def _slurm(env: Mapping[str, str], local: int | None, given: int | None) -> Setup:
    tasks, job, step = (
        int(env[k]) for k in ("SLURM_STEP_NUM_TASKS", "SLURM_JOB_ID", "SLURM_STEP_ID")
    )
    if given is not None and given != tasks:
        raise InputError(
            f"A2F_NUM_PROCESSES={given}: but this Slurm step has {tasks} tasks; remove one of them"
        )
    here = _tasks_here(env)
    cards = env.get("CUDA_VISIBLE_DEVICES", env.get("ROCR_VISIBLE_DEVICES", ""))
    seen = len([c for c in cards.split(",") if c])
    visible: tuple[int, ...] | None = None
    if seen and here > 1:
        # Bound by Slurm to one card each, it is number 0 for every task.
        visible = (0,) if seen == 1 else (int(env["SLURM_LOCALID"]),)
        local = local or 1
    elif seen:
        visible = tuple(range(seen))
        local = local or seen
    # Two steps of a job at a time, and two jobs on a machine, must not meet.
    port = int(env.get("A2F_PORT", PORTS[(job * 61 + step) % len(PORTS)]))
    return Setup(
        source="slurm",
        processes=tasks,
        process=int(env["SLURM_PROCID"]),
        host=first_host(env["SLURM_STEP_NODELIST"]),
        port=port,
        local_devices=local,
        visible=visible,
        session=f"slurm {job}.{step} restart {env.get('SLURM_RESTART_COUNT', '0')}",
    )


def _tasks_here(env: Mapping[str, str]) -> int:
    """Returns the tasks of this step on this node, from "2(x3),1"; 1 where that is not said."""
    counts: list[int] = []
    for part in env.get("SLURM_STEP_TASKS_PER_NODE", "1").split(","):
        found = re.fullmatch(r"(\d+)(?:\(x(\d+)\))?", part)
        counts += [int(found[1])] * int(found[2] or 1) if found else [1]
    node = int(env.get("SLURM_NODEID", "0"))
    return counts[min(node, len(counts) - 1)]


def first_host(nodes: str) -> str:
    """Returns the first name of a Slurm list such as "gpu[007-009,12],login"."""
    found = re.match(r"([^\[,]*)(?:\[(\d+)[^\]]*\])?([^,]*)", nodes)
    assert found is not None
    return found[1] + (found[2] or "") + (found[3] if found[2] else "")


def _of_many(
    source: str,
    env: Mapping[str, str],
    processes: int,
    process: int | None,
    local: int | None,
    session: str,
) -> Setup:
    if process is None:
        raise InputError(
            f"A2F_NUM_PROCESSES={processes}: A2F_PROCESS_ID is missing: expected the number of "
            f"this process, 0 to {processes - 1}"
        )
    if process >= processes:
        raise InputError(
            f"process number {process}: expected 0 to {processes - 1} (A2F_NUM_PROCESSES)"
        )
    host, colon, port = env.get("A2F_COORDINATOR", "").rpartition(":")
    if not host or not colon or not port.isdecimal() or not 0 < int(port) < 65536:
        raise InputError(
            f"A2F_COORDINATOR={env.get('A2F_COORDINATOR', '')!r}: expected host:port of process 0"
        )
    return Setup(
        source=source,
        processes=processes,
        process=process,
        host=host.strip("[]"),
        port=int(port),
        local_devices=local,
        session=session,
    )


def _number(env: Mapping[str, str], name: str, *, least: int) -> int | None:
    if not env.get(name):
        return None
    if not env[name].isdecimal() or int(env[name]) < least:
        raise InputError(f"{name}={env[name]!r}: expected a whole number of at least {least}")
    return int(env[name])


class Watch:
    """Ends this process, and with it the others, when nothing moves any more.

    A process that stands still in Python keeps all others waiting in a collective, and every
    heartbeat goes on. Only the loop knows that no step ends.

    Attributes:
      tell: says to the other processes what happened and their exit code; False when another
        process's end is being dealt with already.
    """

    def __init__(self, limit: float) -> None:
        """Starts watching once `beat` was called.

        Args:
          limit: seconds without a call of `beat`; 0 for no limit.
        """
        self._limit = limit
        self._what, self._until = "", float("inf")
        self._over = threading.Event()
        self.tell: Callable[[str, int], bool] | None = None
        if limit:
            threading.Thread(target=self._look, daemon=True).start()

    def beat(self, what: str, *, factor: float = 1.0) -> None:
        """Says what is being done now.

        Args:
          what: for the message.
          factor: of the limit, until the next call.
        """
        self._what, self._until = what, time.monotonic() + self._limit * factor

    def rest(self) -> None:
        """Nothing is waited for any more."""
        self._until = float("inf")
        self._over.set()

    def overdue(self) -> str:
        """Returns what is wrong when the limit has passed, "" otherwise."""
        if time.monotonic() <= self._until:
            return ""
        return f"no progress for {self._limit:g} s or more while {self._what}"

    def _look(self) -> None:
        while not (text := self.overdue()):
            if self._over.wait(min(1.0, self._limit / 4)):
                return
        if self.tell is None or self.tell(text, EXIT_LOST):
            _leave(text, EXIT_LOST)


def _leave(text: str, code: int) -> None:
    """Ends the process at once, from any thread; a hang's exit shows where all threads stand."""
    with contextlib.suppress(Exception):
        sys.stdout.flush()
        if code == EXIT_LOST:
            faulthandler.dump_traceback(file=sys.stderr, all_threads=True)
        print(f"a2fjax train: error: {' '.join(text.split())}", file=sys.stderr, flush=True)
    # Not sys.exit: the main thread may be in a collective that never returns.
    os._exit(code)


_peers: Peers | None = None
"""Of this process, while it is in a session of several."""


@contextlib.contextmanager
def session(setup: Setup, watch: Watch) -> Iterator[None]:
    """Joins the processes of a run; on leaving, all leave together, however it ends.

    When this process fails, the others end with its message and exit code. When another one fails
    or is lost, this process prints which and why and ends at once, with that one's exit code or
    `EXIT_LOST`.

    Args:
      setup: as `detect` says.
      watch: of this process.

    Raises:
      WorkFailed: the others did not come.
      InputError: this process does not have the devices it was promised.
    """
    global _peers
    peers = None
    if setup.processes > 1:
        peers = Peers(
            (setup.host, setup.port),
            rank=setup.process,
            size=setup.processes,
            session=setup.session,
            patience=float(os.environ.get("A2F_RENDEZVOUS_SECONDS", RENDEZVOUS_SECONDS)),
            ended=_leave,
        )
        watch.tell = peers.fail
    _peers = peers
    try:
        _initialise(setup, peers)
        yield
    except (InputError, WorkFailed) as error:
        code = EXIT_BAD_INPUT if isinstance(error, InputError) else EXIT_FAILED
        _fail(peers, str(error), code)
        raise
    except Preempted:
        _finish(peers, watch)
        raise
    except KeyboardInterrupt:
        _fail(peers, "interrupted", 130)
        raise
    except BaseException as error:
        if peers is not None and type(error).__name__ == "JaxRuntimeError":
            # Most likely the end of another process, of which we shall hear.
            time.sleep(HEARTBEAT_SECONDS)
        _fail(peers, f"{type(error).__name__}: {error}"[:2000], EXIT_FAILED)
        raise
    finally:
        _peers = None
        # The program may have other things to do, whose time is its own.
        watch.rest()
    _finish(peers, watch)


def _cores() -> int:
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def _initialise(setup: Setup, peers: Peers | None) -> None:
    import jax

    config: Any = jax.config  # Its options are not declared.
    # Signals are ours: JAX's handler would swallow SIGTERM.
    jax.config.update("jax_enable_preemption_service", False)
    local = setup.local_devices or max(1, config.jax_num_cpu_devices)
    devices = setup.processes * local
    if devices > _cores() and not {"NPROC", THREADS} & set(os.environ):
        os.environ[THREADS] = str(devices)
    if setup.processes > 1 and os.environ.get("JAX_PLATFORMS", "") == "cpu":
        jax.config.update("jax_cpu_collectives_implementation", "gloo")
    host, port = ("127.0.0.1", _free_port()) if peers is None else (setup.host, peers.port)
    # A program that used JAX before, such as a notebook, can train alone, but not with others.
    alone = contextlib.suppress(RuntimeError) if peers is None else contextlib.nullcontext()
    with alone, _no_proxy(host):
        jax.distributed.initialize(
            f"{host}:{port}",
            setup.processes,
            setup.process,
            local_device_ids=setup.visible,
            cluster_detection_method="deactivate",
            heartbeat_timeout_seconds=HEARTBEAT_SECONDS,
            coordinator_bind_address=f"{host}:{port}" if peers is None else None,
        )
    found = jax.local_device_count()
    assert jax.process_count() == setup.processes, (jax.process_count(), setup)
    wanted = setup.local_devices
    if setup.visible is not None and jax.default_backend() == "cpu":
        wanted = None  # The cards are there, but this run does not use them.
    if wanted is not None and found != wanted:
        raise InputError(
            f"process {setup.process} on {socket.gethostname()} has {found} "
            f"{jax.default_backend()} devices: expected {wanted}; check the job's layout "
            "(one process a node with all its GPUs, or one a GPU) and JAX_NUM_CPU_DEVICES"
        )


_PROXY = re.compile(r"(?i)(grpc|https?|all)_proxy")


@contextlib.contextmanager
def _no_proxy(host: str) -> Iterator[None]:
    """GRPC would go to the coordinator through a proxy of the site."""
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


def _free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as free:
        return int(free.getsockname()[1])


def _finish(peers: Peers | None, watch: Watch) -> None:
    import jax

    watch.rest()
    if peers is not None:
        # With srun -K the first that is gone would take those with it that are still writing.
        peers.leave(HEARTBEAT_SECONDS)
    jax.distributed.shutdown()


def _fail(peers: Peers | None, text: str, code: int) -> None:
    if peers is None:
        return
    if not peers.fail(text, code):
        time.sleep(HEARTBEAT_SECONDS)  # The thread that deals with another's end ends us.
    # At the interpreter's end JAX would wait for processes that do not come any more.
    atexit.register(_exit_quietly, code)


def _exit_quietly(code: int) -> None:
    with contextlib.suppress(Exception):
        sys.stdout.flush()
        sys.stderr.flush()
    os._exit(code)


def together() -> None:
    """Returns when all processes are here; at once for a single one."""
    if _peers is not None:
        _peers.meet()


def of_first(value: Any) -> Any:
    """Returns the first process's value, as JSON has it, on all; all must call this."""
    return value if _peers is None else _peers.meet(value)


def arrays_of_first(arrays: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
    """Returns the first process's arrays on all; what the others give does not matter."""
    if _peers is None:
        return dict(arrays)
    buffer = io.BytesIO()
    np.savez(buffer, **arrays)  # type: ignore[arg-type]
    text = of_first(base64.b64encode(buffer.getvalue()).decode())
    with np.load(io.BytesIO(base64.b64decode(text)), allow_pickle=False) as found:
        return {name: found[name] for name in found.files}
