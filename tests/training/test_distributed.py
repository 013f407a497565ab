import os
import re
import signal
import subprocess
import sys
import time

import jax
import pytest

from a2fjax.errors import InputError
from a2fjax.training.distributed import process_setup, session, watchdog
from a2fjax.training.distributed.process_setup import ProcessSetup, detect

SECRET = "5" * 64
STEP = {
    "A2F_SECRET": SECRET,
    "SLURM_JOB_ID": "5000",
    "SLURM_STEP_ID": "0",
    "SLURM_STEP_NODELIST": "gpu[007-009,12]",
    "SLURM_STEP_NUM_TASKS": "4",
    "SLURM_STEP_TASKS_PER_NODE": "1(x4)",
    "SLURM_NODEID": "2",
    "SLURM_PROCID": "2",
    "SLURM_LOCALID": "0",
    "SLURM_RESTART_COUNT": "3",
}
EXPLICIT = {
    "A2F_NUM_PROCESSES": "2",
    "A2F_PROCESS_ID": "1",
    "A2F_COORDINATOR": "host-1:4000",
    "A2F_SECRET": SECRET,
}
POD = {
    "A2F_SECRET": SECRET,
    "KUBERNETES_SERVICE_HOST": "10.0.0.1",
    "JOB_COMPLETION_INDEX": "1",
    "A2F_NUM_PROCESSES": "2",
    "A2F_COORDINATOR": "run-w-0-0.run:55527",
}


def test_nothing_said_is_a_single_process():
    assert detect({}) == ProcessSetup(source="single")
    # A shell inside an allocation is one task; so is a job of one process.
    assert detect({**STEP, "SLURM_STEP_NUM_TASKS": "1"}).source == "single"
    assert detect({"A2F_NUM_PROCESSES": "1"}).processes == 1
    assert detect({**POD, "A2F_NUM_PROCESSES": "1"}).source == "single"


def test_slurm_with_a_process_a_node_takes_all_cards_of_the_node():
    found = detect({**STEP, "CUDA_VISIBLE_DEVICES": "0,1,2,3,4,5,6,7"})
    assert (found.source, found.processes, found.process, found.host) == ("slurm", 4, 2, "gpu007")
    assert found.visible == tuple(range(8)) and found.local_devices == 8
    assert found.port in process_setup.PORTS and found.session == "slurm 5000.0 restart 3"


@pytest.mark.parametrize(("cards", "visible"), [("0,1,2,3", (3,)), ("3", (0,))])
def test_slurm_with_a_process_a_card_takes_its_own(cards, visible):
    step = {**STEP, "SLURM_STEP_TASKS_PER_NODE": "4", "SLURM_LOCALID": "3", "SLURM_PROCID": "3"}
    found = detect({**step, "CUDA_VISIBLE_DEVICES": cards})
    assert found.visible == visible and found.local_devices == 1


def test_steps_and_jobs_do_not_share_a_port():
    ports = {
        detect({**STEP, "SLURM_JOB_ID": str(job), "SLURM_STEP_ID": str(step)}).port
        for job in range(5000, 5020)
        for step in range(4)
    }
    assert len(ports) == 80


@pytest.mark.parametrize(
    ("nodes", "first"),
    [
        ("n1", "n1"),
        ("n1,n2", "n1"),
        ("gpu[007-009,12],login", "gpu007"),
        ("rack-a[3]-x,b", "rack-a3-x"),
        ("[01-04]", "01"),
    ],
)
def test_the_first_host_of_a_list(nodes, first):
    assert process_setup.first_host(nodes) == first


def test_tasks_of_uneven_nodes():
    step = {**STEP, "SLURM_STEP_TASKS_PER_NODE": "2(x2),1", "CUDA_VISIBLE_DEVICES": "0,1"}
    assert detect({**step, "SLURM_NODEID": "1", "SLURM_LOCALID": "1"}).visible == (1,)
    assert detect({**step, "SLURM_NODEID": "2", "SLURM_LOCALID": "0"}).visible == (0, 1)


def test_pods_and_variables():
    pod = detect(POD)
    assert (pod.source, pod.process, pod.host, pod.port) == (
        "kubernetes", 1, "run-w-0-0.run", 55527,
    )  # fmt: skip
    found = detect({**EXPLICIT, "A2F_LOCAL_DEVICES": "8"})
    assert (found.source, found.process, found.local_devices) == ("explicit", 1, 8)
    # A shell inside an allocation may start processes of its own.
    assert detect({**STEP, "SLURM_STEP_NUM_TASKS": "1", **EXPLICIT}).source == "explicit"


@pytest.mark.parametrize(
    ("changes", "says"),
    [
        ({"A2F_PROCESS_ID": ""}, "A2F_PROCESS_ID is missing: expected .* 0 to 1"),
        ({"A2F_PROCESS_ID": "2"}, "process number 2: expected 0 to 1"),
        ({"A2F_PROCESS_ID": "-1"}, "A2F_PROCESS_ID='-1': expected a whole number of at least 0"),
        ({"A2F_NUM_PROCESSES": "two"}, "A2F_NUM_PROCESSES='two': expected a whole number"),
        ({"A2F_COORDINATOR": "host"}, "A2F_COORDINATOR='host': expected host:port"),
        ({"A2F_COORDINATOR": "host:99999"}, "expected host:port"),
        ({"A2F_LOCAL_DEVICES": "0"}, "A2F_LOCAL_DEVICES='0': expected .* at least 1"),
        (STEP, "A2F_NUM_PROCESSES=2: but this Slurm step has 4 tasks"),
        ({**POD, "JOB_COMPLETION_INDEX": "0"}, "A2F_PROCESS_ID=1: but JOB_COMPLETION_INDEX=0"),
    ],
)
def test_inconsistent_variables_are_named(changes, says):
    with pytest.raises(InputError, match=says):
        detect({**EXPLICIT, **changes})


def test_several_processes_need_a_secret_that_only_they_know(tmp_path):
    assert detect(EXPLICIT).secret == SECRET.encode()
    assert SECRET not in repr(detect(EXPLICIT))
    without = {k: v for k, v in EXPLICIT.items() if k != "A2F_SECRET"}
    with pytest.raises(InputError, match="A2F_SECRET is missing"):
        detect(without)
    with pytest.raises(InputError, match="A2F_SECRET: 5 characters: expected at least 32"):
        detect({**without, "A2F_SECRET": "short"})
    file = tmp_path / "secret"
    file.write_text(f"{SECRET}\n")
    named = {**without, "A2F_SECRET_FILE": str(file)}
    file.chmod(0o640)
    with pytest.raises(InputError, match="others may read it; expected your own file of mode 0600"):
        detect(named)
    file.chmod(0o600)
    assert detect(named).secret == SECRET.encode()
    link = tmp_path / "link"
    link.symlink_to(file)
    for path in (link, tmp_path, tmp_path / "none", "/dev/null"):
        with pytest.raises(InputError, match="A2F_SECRET_FILE="):
            detect({**without, "A2F_SECRET_FILE": str(path)})
    assert detect({**EXPLICIT, "A2F_BIND": "10.0.0.1"}).bind == "10.0.0.1"


def test_a_missing_device_is_an_error(tmp_path):
    import os
    import subprocess
    import sys

    code = (
        "from a2fjax.errors import InputError\n"
        "from a2fjax.training.distributed.process_setup import detect\n"
        "from a2fjax.training.distributed.session import session\n"
        "from a2fjax.training.distributed.watchdog import Watchdog\n"
        "import os\n"
        "try:\n"
        "    with session(detect(os.environ), Watchdog(0)): pass\n"
        "except InputError as error: print(error)\n"
    )
    environment = {
        **os.environ,
        "JAX_PLATFORMS": "cpu",
        "JAX_NUM_CPU_DEVICES": "2",
        "A2F_LOCAL_DEVICES": "8",
    }
    done = subprocess.run(
        [sys.executable, "-c", code], env=environment, capture_output=True, text=True, timeout=120
    )
    assert re.search("has 2 cpu devices: expected 8", done.stdout), done.stdout + done.stderr


def test_a_single_process_starts_no_coordination_service(monkeypatch):
    """JAX's service ends a process that was paused for 45 s, or whose clock was set."""
    started = []
    monkeypatch.setattr(jax.distributed, "initialize", lambda *_, **__: started.append("started"))
    monkeypatch.setattr(jax.distributed, "shutdown", lambda: started.append("ended"))
    for wanted in (None, jax.local_device_count()):
        with session.session(detect({}), watchdog.Watchdog(0)):
            assert jax.process_count() == 1
        setup = ProcessSetup(source="single", local_devices=wanted)
        with session.session(setup, watchdog.Watchdog(0)):
            pass
    assert started == []


def test_a_paused_process_does_not_hang():
    """A stopped process makes no progress, but continues where it was."""
    code = """
import time
from a2fjax.training.distributed.watchdog import Watchdog
watchdog = Watchdog(1.0)
print("ready", flush=True)
for step in range(60):
    watchdog.beat(f"doing step {step}")
    time.sleep(0.05)
watchdog.beat("hanging")
time.sleep(30)
"""
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}
    process = subprocess.Popen(
        [sys.executable, "-c", code], env=environment, stdout=subprocess.PIPE,
        stderr=subprocess.PIPE, text=True,
    )  # fmt: skip
    try:
        assert process.stdout.readline() == "ready\n"
        process.send_signal(signal.SIGSTOP)
        time.sleep(2.5)
        process.send_signal(signal.SIGCONT)
        err = process.communicate(timeout=60)[1]
    finally:
        process.kill()
    assert process.returncode == 70 and "while hanging" in err
