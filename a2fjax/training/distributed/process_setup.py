"""Detects the index of this process in a run, and the run's address, from the environment.

The first source that applies is used:

    Slurm        a step with several tasks (`srun`) gives rank, size and first host
    Kubernetes   an Indexed Job numbers its pods; A2F_NUM_PROCESSES and A2F_COORDINATOR add the rest
    explicit     A2F_NUM_PROCESSES, A2F_PROCESS_ID, A2F_COORDINATOR=host:port
    single       none of these

A scheduler's values and A2F_* variables must agree. A2F_LOCAL_DEVICES, if set, is the number of
devices that each process must have. Several processes prove to each other that they know
A2F_SECRET, or the content of the file A2F_SECRET_FILE that only its owner may read; `submit.py`
makes a new secret for each start. A2F_BIND is the address that process 0 listens on, where it
differs from that of its name.
"""

from __future__ import annotations

import dataclasses
import os
import re
import stat
from collections.abc import Mapping

from a2fjax.errors import InputError

PORTS = range(61440, 65536)
"""Port range of the first process of a Slurm step; job and step ids select the port."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class ProcessSetup:
    """Identity of this process in its run.

    Attributes:
      source: "slurm", "kubernetes", "explicit" or "single".
      processes: number of processes.
      process: index of this process.
      host, port: address where process 0 listens; "" and 0 for a single process.
      local_devices: number of devices that this process must have; None if unknown.
      visible: indices of the visible accelerators that this process uses; None for all.
      session: identifies this start of the job; processes of another start are refused.
      secret: what only the processes of the run know; b"" for a single process.
      bind: address that process 0 listens on; "" for that of `host`.
    """

    source: str
    processes: int = 1
    process: int = 0
    host: str = ""
    port: int = 0
    local_devices: int | None = None
    visible: tuple[int, ...] | None = None
    session: str = ""
    secret: bytes = dataclasses.field(default=b"", repr=False)
    bind: str = ""


_LEAST_SECRET = 32
"""Characters of a secret at least: 128 random bits in hexadecimal digits."""

_MOST_SECRET = 4096


def detect(env: Mapping[str, str]) -> ProcessSetup:
    """Returns the setup that environment variables describe.

    Raises:
      InputError: a variable is missing, or two disagree; the message names them.

    Example:
      >>> detect({}).source
      'single'
      >>> explicit = {"A2F_NUM_PROCESSES": "2", "A2F_PROCESS_ID": "1", "A2F_COORDINATOR": "a:4000"}
      >>> detect({**explicit, "A2F_SECRET": "5f" * 32}).process
      1
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
        return _several("kubernetes", env, given, index, local, session)
    if given is not None and given > 1:
        index = _number(env, "A2F_PROCESS_ID", least=0)
        return _several("explicit", env, given, index, local, session)
    return ProcessSetup(source="single", local_devices=local)


_SLURM = (
    "SLURM_JOB_ID",
    "SLURM_STEP_ID",
    "SLURM_STEP_NODELIST",
    "SLURM_STEP_NUM_TASKS",
    "SLURM_PROCID",
    "SLURM_LOCALID",
)


def _slurm(env: Mapping[str, str], local: int | None, given: int | None) -> ProcessSetup:
    tasks, job, step = (
        int(env[k]) for k in ("SLURM_STEP_NUM_TASKS", "SLURM_JOB_ID", "SLURM_STEP_ID")
    )
    if given is not None and given != tasks:
        raise InputError(
            f"A2F_NUM_PROCESSES={given}: but this Slurm step has {tasks} tasks; remove one of them"
        )
    tasks_here = _tasks_here(env)
    cards = env.get("CUDA_VISIBLE_DEVICES", env.get("ROCR_VISIBLE_DEVICES", ""))
    visible_cards = len([c for c in cards.split(",") if c])
    visible: tuple[int, ...] | None = None
    if visible_cards and tasks_here > 1:
        # If Slurm bound one GPU to each task, its index is 0 in every task.
        visible = (0,) if visible_cards == 1 else (int(env["SLURM_LOCALID"]),)
        local = local or 1
    elif visible_cards:
        visible = tuple(range(visible_cards))
        local = local or visible_cards
    # Steps of a job, or jobs on a machine, may run at the same time and need different ports.
    port = int(env.get("A2F_PORT", PORTS[(job * 61 + step) % len(PORTS)]))
    return ProcessSetup(
        source="slurm",
        processes=tasks,
        process=int(env["SLURM_PROCID"]),
        host=first_host(env["SLURM_STEP_NODELIST"]),
        port=port,
        local_devices=local,
        visible=visible,
        session=f"slurm {job}.{step} restart {env.get('SLURM_RESTART_COUNT', '0')}",
        secret=_secret(env),
        bind=env.get("A2F_BIND", ""),
    )


def _tasks_here(env: Mapping[str, str]) -> int:
    """Returns the number of this step's tasks on this node, from "2(x3),1"; 1 if not set."""
    counts: list[int] = []
    for part in env.get("SLURM_STEP_TASKS_PER_NODE", "1").split(","):
        match = re.fullmatch(r"(\d+)(?:\(x(\d+)\))?", part)
        counts += [int(match[1])] * int(match[2] or 1) if match else [1]
    node = int(env.get("SLURM_NODEID", "0"))
    return counts[min(node, len(counts) - 1)]


def first_host(nodes: str) -> str:
    """Returns the first host name of a Slurm node list.

    Example:
      >>> first_host("gpu[007-009,12],login")
      'gpu007'
    """
    match = re.match(r"([^\[,]*)(?:\[(\d+)[^\]]*\])?([^,]*)", nodes)
    assert match is not None
    return match[1] + (match[2] or "") + (match[3] if match[2] else "")


def _several(
    source: str,
    env: Mapping[str, str],
    processes: int,
    process: int | None,
    local: int | None,
    session: str,
) -> ProcessSetup:
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
    return ProcessSetup(
        source=source,
        processes=processes,
        process=process,
        host=host.strip("[]"),
        port=int(port),
        local_devices=local,
        session=session,
        secret=_secret(env),
        bind=env.get("A2F_BIND", ""),
    )


def _secret(env: Mapping[str, str]) -> bytes:
    """Returns what the processes of a run prove to each other that they know."""
    name, text = "A2F_SECRET", env.get("A2F_SECRET", "").strip()
    if not text and env.get("A2F_SECRET_FILE"):
        name = f"A2F_SECRET_FILE={env['A2F_SECRET_FILE']}"
        text = _private_text(env["A2F_SECRET_FILE"], name)
    if not text:
        raise InputError(
            "A2F_SECRET is missing: the processes of a run prove to each other that they belong to "
            "it; `submit.py` sets it; by hand, export A2F_SECRET=$(openssl rand -hex 32) before "
            "all of them start"
        )
    if len(text) < _LEAST_SECRET:
        raise InputError(
            f"{name}: {len(text)} characters: expected at least {_LEAST_SECRET}, such as of "
            "`openssl rand -hex 32`"
        )
    return text.encode(errors="surrogateescape")


def _private_text(path: str, name: str) -> str:
    """Returns the text of a file that only its owner, this user, can read."""
    try:
        handle = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK)
    except (OSError, ValueError) as error:
        why = getattr(error, "strerror", None) or error
        raise InputError(f"{name}: cannot be read ({why})") from None
    try:
        status = os.fstat(handle)
        if not stat.S_ISREG(status.st_mode):
            raise InputError(f"{name}: is no regular file")
        if status.st_uid != os.getuid() or status.st_mode & 0o077:
            raise InputError(f"{name}: others may read it; expected your own file of mode 0600")
        data = os.read(handle, _MOST_SECRET + 1)
    finally:
        os.close(handle)
    if len(data) > _MOST_SECRET:
        raise InputError(f"{name}: expected at most {_MOST_SECRET} bytes")
    return data.decode(errors="surrogateescape").strip()


def _number(env: Mapping[str, str], name: str, *, least: int) -> int | None:
    if not env.get(name):
        return None
    if not env[name].isdecimal() or int(env[name]) < least:
        raise InputError(f"{name}={env[name]!r}: expected a whole number of at least {least}")
    return int(env[name])
