"""A Slurm of our own on loopback: munged, slurmctld and its slurmd, all in one folder."""

from __future__ import annotations

import contextlib
import getpass
import os
import shutil
import signal
import socket
import subprocess
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

PROGRAMS = ("munged", "slurmctld", "slurmd", "sbatch")
INSTALL = "apt-get install --no-install-recommends slurmctld slurmd slurm-client munge"

_CONF = """ClusterName=test
SlurmctldHost={host}(127.0.0.1)
SlurmUser={user}
SlurmdUser={user}
AuthType=auth/munge
AuthInfo=socket={run}/munge.sock,cred_expire=5
CredType=cred/munge
SlurmctldPort={port}
FirstJobId={port}
StateSaveLocation={state}
SlurmdSpoolDir={spool}/%n
SlurmctldPidFile={run}/slurmctld.pid
SlurmdPidFile={run}/slurmd.%n.pid
SlurmctldLogFile={log}/slurmctld.log
SlurmdLogFile={log}/slurmd.%n.log
ProctrackType=proctrack/linuxproc
TaskPlugin=task/none
SwitchType=switch/none
MpiDefault=none
SelectType=select/cons_tres
SelectTypeParameters=CR_CPU
SchedulerType=sched/backfill
SchedulerParameters=sched_interval=1,bf_interval=1,batch_sched_delay=0
PreemptType=preempt/partition_prio
PreemptMode=REQUEUE
JobRequeue=1
ReturnToService=2
KillWait=5
SlurmdTimeout=10
GresTypes=gpu
MaxArraySize=101
MailProg=/bin/true
AccountingStorageType=accounting_storage/none
{nodes}
PartitionName=main Nodes=ALL Default=YES MaxTime=60 DefaultTime=30 PriorityTier=1 GraceTime=60
PartitionName=urgent Nodes=ALL MaxTime=60 DefaultTime=30 PriorityTier=10 PreemptMode=OFF
"""


class SlurmFailed(Exception):
    """A program of Slurm did not start, or the nodes did not come up."""


def missing() -> list[str]:
    """Returns the programs that are not installed."""
    return [name for name in PROGRAMS if not shutil.which(name)]


@contextlib.contextmanager
def running(top: Path, nodes: int = 4) -> Iterator[Path]:
    """Runs a Slurm in a new folder, and points SLURM_CONF of this process at it.

    Args:
      top: the folder; a socket lies in it, so its path must be short.
      nodes: how many, each of two cores and two GPUs that are files.

    Raises:
      SlurmFailed: it does not come up.
    """
    before = os.environ.get("SLURM_CONF")
    names = [f"127.0.0.{i}" for i in range(1, nodes + 1)]
    conf = _write(top, names)
    os.environ["SLURM_CONF"] = str(conf)
    try:
        _start_all(top, conf, names)
        yield top
    finally:
        _stop(top)
        if before is None:
            os.environ.pop("SLURM_CONF", None)
        else:
            os.environ["SLURM_CONF"] = before


def _write(top: Path, names: Sequence[str]) -> Path:
    """Writes all files; returns slurm.conf."""
    places = {name: top / name for name in ("run", "state", "spool", "log", "key")}
    for place in places.values():
        place.mkdir(parents=True)
    for place in [top, *top.parents][:3]:
        mode = place.stat().st_mode
        if mode & 0o055 != 0o055:
            place.chmod(mode | 0o055)  # munge refuses a socket below a closed folder
    places["key"].chmod(0o700)
    key = places["key"] / "key"
    key.write_bytes(os.urandom(1024))
    key.chmod(0o400)
    port, *others = _ports(1 + len(names))
    # Processes of a training look for the first by its node's name, and an address needs no entry
    # in /etc/hosts. The first job has a number of its own, as ports of a training follow from it
    # and another Slurm may be at work.
    lines = "\n".join(
        f"NodeName={name} NodeHostname={name} NodeAddr=127.0.0.1 Port={p} CPUs=2 Gres=gpu:2 "
        "State=UNKNOWN"
        for name, p in zip(names, others, strict=True)
    )
    conf = top / "slurm.conf"
    host = socket.gethostname().split(".")[0]
    values = {name: str(place) for name, place in places.items()}
    conf.write_text(
        _CONF.format(host=host, user=getpass.getuser(), port=port, nodes=lines, **values)
    )
    # GPUs that are files: they are scheduled like any other.
    for i in range(2):
        (places["key"] / f"gpu{i}").touch()
    gres = f"Name=gpu File={places['key']}/gpu[0-1]"
    (top / "gres.conf").write_text("".join(f"NodeName={name} {gres}\n" for name in names))
    return conf


def _ports(count: int) -> list[int]:
    sockets = [socket.socket() for _ in range(count)]
    for s in sockets:
        s.bind(("127.0.0.1", 0))
    ports = [s.getsockname()[1] for s in sockets]
    for s in sockets:
        s.close()
    return ports


def _start_all(top: Path, conf: Path, names: Sequence[str]) -> None:
    run, log, key = top / "run", top / "log", top / "key"
    _start(
        "munged",
        f"--socket={run}/munge.sock",
        f"--key-file={key}/key",
        f"--pid-file={run}/munged.pid",
        f"--log-file={log}/munged.log",
        f"--seed-file={key}/seed",
        "--force",
    )
    _start("slurmctld", "-f", str(conf))
    for name in names:
        (top / "spool" / name).mkdir()
        _start("slurmd", "-N", name, "-f", str(conf))
    if not _until(lambda: states() == ["idle"] * len(names), 30):
        raise SlurmFailed(f"Slurm did not come up: its nodes are {states()}; logs in {log}")


@contextlib.contextmanager
def without_power(top: Path, name: str) -> Iterator[None]:
    """In its body a node is gone, as one without power: its daemons and all they started.

    Raises:
      SlurmFailed: the node does not come back on leaving.
    """
    for pid in _of_node(top, name):
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, signal.SIGKILL)
    try:
        yield
    finally:
        _start("slurmd", "-N", name, "-f", str(top / "slurm.conf"))
        if not _until(lambda: not any("down" in state for state in states()), 90):
            raise SlurmFailed(f"{name} does not come back: the nodes are {states()}")


def _of_node(top: Path, name: str) -> list[int]:
    """Returns the processes of a node, daemons before what they started: all are of one machine."""
    log = str(top / "log" / f"slurmd.{name}.log")
    children: dict[int, list[int]] = {}
    found = []
    for place in Path("/proc").glob("[0-9]*"):
        with contextlib.suppress(OSError):
            # Behind the program's name, which may hold anything but ends with the last bracket.
            parent = int((place / "stat").read_text().rpartition(")")[2].split()[1])
            children.setdefault(parent, []).append(int(place.name))
            # slurmd and the daemons of its steps write to its log.
            if any(os.readlink(fd) == log for fd in (place / "fd").iterdir()):
                found.append(int(place.name))
    for pid in found:
        found += [child for child in children.get(pid, []) if child not in found]
    return found


def states() -> list[str]:
    """Returns the states of all nodes."""
    return _said("sinfo", "-h", "-N", "-p", "main", "-o", "%T").split()


def _start(*argv: str) -> None:
    found = subprocess.run(argv, capture_output=True, text=True, timeout=30)
    if found.returncode:
        raise SlurmFailed(f"{argv[0]}: {' '.join(found.stderr.split())}")


def _stop(top: Path) -> None:
    user, pids = getpass.getuser(), []
    with contextlib.suppress(subprocess.TimeoutExpired):
        subprocess.run(["scancel", "--full", "-u", user], capture_output=True, timeout=30)
        _until(lambda: not _said("squeue", "-h").strip(), 15)
    for name in ("slurmd.*", "slurmctld", "munged"):
        for file in (top / "run").glob(f"{name}.pid"):
            with contextlib.suppress(OSError, ValueError):
                pids.append(int(file.read_text()))
                os.kill(pids[-1], signal.SIGTERM)
    # The folder may be removed next.
    _until(lambda: not any(map(_lives, pids)), 15)


def _lives(pid: int) -> bool:
    with contextlib.suppress(OSError):
        return bool(Path(f"/proc/{pid}/cmdline").read_bytes())  # Empty once it has ended.
    return False


def _said(*argv: str) -> str:
    return subprocess.run(argv, capture_output=True, text=True, timeout=30).stdout


def _until(condition: Callable[[], bool], seconds: float) -> bool:
    end = time.monotonic() + seconds
    while not condition():
        if time.monotonic() > end:
            return False
        time.sleep(0.1)
    return True
